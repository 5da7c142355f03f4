"""Which signature and digest algorithms count, and what a key may weigh.

A zone signed with nothing we know is insecure, not bogus (RFC 4035 §5.2, RFC 6840 §5.2). RSASHA1 counts as unknown
(RFC 9905 §2).
"""

from __future__ import annotations

from collections.abc import Iterable

import dns.rdtypes.ANY.DNSKEY
import dns.rdtypes.ANY.DS
from dns.dnssectypes import Algorithm, DSDigest

from relay.resolver.dnssec.verdict import InfoCode

__all__ = ["has_zone_flag", "is_costly", "is_zone_key", "usable_ds", "why_unusable"]

_RSA = frozenset({Algorithm.RSASHA256, Algorithm.RSASHA512})
_COSTLY = frozenset({Algorithm.ECDSAP384SHA384, Algorithm.ED448})
_SUPPORTED = _RSA | _COSTLY | {Algorithm.ECDSAP256SHA256, Algorithm.ED25519}
_DIGESTS = frozenset({DSDigest.SHA1, DSDigest.SHA256, DSDigest.SHA384})

_ZONE_FLAG = 0x0100
_REVOKED_FLAG = 0x0080
_PROTOCOL = 3
_RSA_KEY_BYTES = 4 + 512
"The largest RSA key that is used: 4096 bits (RFC 5702 §2), and its exponent."
_RSA_EXPONENT_BYTES = 8
_CHEAP_RSA_BYTES = 264


def usable_ds(records: Iterable[dns.rdtypes.ANY.DS.DS]) -> tuple[dns.rdtypes.ANY.DS.DS, ...]:
    """Keep the DS records that count: known algorithm and digest, and no SHA-1 next to a better one (RFC 4509 §3)."""
    known = [ds for ds in records if ds.algorithm in _SUPPORTED and ds.digest_type in _DIGESTS]
    better = [ds for ds in known if ds.digest_type != DSDigest.SHA1]
    return tuple(better or known)


def why_unusable(records: Iterable[dns.rdtypes.ANY.DS.DS]) -> InfoCode:
    """Name the reason why no DS record counts."""
    if any(ds.algorithm in _SUPPORTED for ds in records):
        return InfoCode.UNSUPPORTED_DS_DIGEST
    return InfoCode.UNSUPPORTED_DNSKEY_ALGORITHM


def has_zone_flag(key: dns.rdtypes.ANY.DNSKEY.DNSKEY) -> bool:
    """Say whether a key says that it is a zone's (RFC 4034 §2.1.1)."""
    return bool(key.flags & _ZONE_FLAG)


def is_zone_key(key: dns.rdtypes.ANY.DNSKEY.DNSKEY) -> bool:
    """Say whether a key may sign a zone's records (RFC 4034 §2.1): a zone key, not revoked, of sane size."""
    if key.protocol != _PROTOCOL or not has_zone_flag(key) or key.flags & _REVOKED_FLAG:
        return False
    if key.algorithm not in _SUPPORTED:
        return False
    if key.algorithm in _RSA:
        return len(key.key) <= _RSA_KEY_BYTES and bool(key.key) and 1 <= key.key[0] <= _RSA_EXPONENT_BYTES
    return True


def is_costly(key: dns.rdtypes.ANY.DNSKEY.DNSKEY) -> bool:
    """Say whether a check with this key takes long enough to leave the loop for it."""
    return key.algorithm in _COSTLY or (key.algorithm in _RSA and len(key.key) > _CHEAP_RSA_BYTES)
