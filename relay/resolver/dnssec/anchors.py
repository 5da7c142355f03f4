"""Trust anchors: the keys that validation starts from (RFC 4035 §4.4). Those of the root are shipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import dns.dnssec
import dns.exception
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.DNSKEY
import dns.rdtypes.ANY.DS
import dns.zonefile

from relay.resolver.dnssec.algorithms import usable_ds

__all__ = ["TrustAnchors", "parse_trust_anchors", "read_trust_anchors"]

_SHIPPED = "root.anchors"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, repr=False)
class TrustAnchors:
    """Zones whose keys are known beforehand, and domains that are known to be unsigned."""

    keys: Mapping[dns.name.Name, tuple[dns.rdtypes.ANY.DS.DS, ...]]
    "The digests of each zone's keys."
    unsigned: frozenset[dns.name.Name] = field(default=frozenset())
    "Domains that are not validated, whatever their parents say (RFC 7646)."

    def closest(self, name: dns.name.Name) -> dns.name.Name | None:
        """Return the deepest zone at or above a name that has an anchor."""
        found = [zone for zone in self.keys if name.is_subdomain(zone)]
        return max(found, key=len) if found else None

    def is_unsigned(self, name: dns.name.Name) -> bool:
        """Say whether a name is in an unsigned domain that is below the closest anchor."""
        anchor = self.closest(name)
        return anchor is not None and any(
            name.is_subdomain(domain) and len(domain) > len(anchor) for domain in self.unsigned
        )

    def may_sign(self, signer: dns.name.Name, name: dns.name.Name) -> bool:
        """Say whether a zone's signature may count for a name.

        One from above the closest anchor does not: what is known of that zone says nothing about the anchor's
        (RFC 4035 §4.3, §5.3.1), and whoever forges a signature chooses the signer that it names.
        """
        anchor = self.closest(name)
        return not self.is_unsigned(name) and (anchor is None or signer.is_subdomain(anchor))

    def below(self, domain: dns.name.Name) -> TrustAnchors:
        """Return the anchors of a domain and what is below it."""
        kept = {zone: keys for zone, keys in self.keys.items() if zone.is_subdomain(domain)}
        return TrustAnchors(MappingProxyType(kept), self.unsigned)


def read_trust_anchors(path: Path | None, unsigned: Iterable[str] = ()) -> TrustAnchors:
    """Read trust anchors from a file, or those of the root that are shipped.

    Args:
        path: a file of DS or DNSKEY records in the form of a zone file; None means the shipped one.
        unsigned: domains that are not validated.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else, or nothing usable; the text follows the file's name.
    """
    if path is None:
        text = resources.files(__package__).joinpath(_SHIPPED).read_text(encoding="ascii")
    else:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", errors="replace")
    anchors = parse_trust_anchors(text)
    return TrustAnchors(anchors.keys, frozenset(dns.name.from_text(domain) for domain in unsigned))


def parse_trust_anchors(text: str) -> TrustAnchors:
    """Read DS and DNSKEY records.

    Raises:
        ValueError: there is something else, or nothing that can be used.
    """
    try:
        rrsets = dns.zonefile.read_rrsets(text, rdclass=None, default_ttl=0, origin=dns.name.root)
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError("must hold DS or DNSKEY records, one a line") from error
    found: dict[dns.name.Name, tuple[dns.rdtypes.ANY.DS.DS, ...]] = {}
    for rrset in rrsets:
        if rrset.rdclass != dns.rdataclass.IN:
            raise ValueError("must hold records of class IN only")
        if rrset.rdtype == dns.rdatatype.DS:
            records = tuple(rrset)
        elif rrset.rdtype == dns.rdatatype.DNSKEY:
            records = tuple(dns.dnssec.make_ds(rrset.name, key, "SHA256") for key in rrset)
        else:
            raise ValueError("must hold DS or DNSKEY records only")
        found[rrset.name] = found.get(rrset.name, ()) + usable_ds(records)
    if not found or not all(found.values()):
        raise ValueError("must hold keys of an algorithm and digest that can be validated")
    return TrustAnchors(MappingProxyType(found))
