"""Zones for tests: written as lines, signed with fresh keys, answered from as an authoritative server does.

RFC 1034 §4.3.2 and RFC 4035 §3.1: answers, referrals, aliases, wildcards, and denial by NSEC or NSEC3.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.DNSKEY
import dns.rrset
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from dns.rdatatype import RdataType
from dns.rdtypes.util import Bitmap

__all__ = ["DAY", "Nsec3", "Signing", "Zone", "name_of"]

_IN = dns.rdataclass.IN
DAY = 86_400
"Seconds of a day."


def name_of(text: str) -> dns.name.Name:
    """Read a name; the final dot may be left out."""
    return dns.name.from_text(text)


@dataclass(frozen=True)
class Nsec3:
    """How a zone denies with hashes."""

    iterations: int = 0
    salt: bytes = b""
    opt_out: bool = False


@dataclass(frozen=True)
class Signing:
    """How a zone is signed."""

    algorithm: int = 13
    nsec3: Nsec3 | None = None
    inception: int = field(default_factory=lambda: int(time.time()) - DAY)
    expiration: int = field(default_factory=lambda: int(time.time()) + DAY)


class Zone:
    """One zone: its record sets by name and type, and their signatures."""

    def __init__(self, apex: str, lines: Sequence[str] = (), signing: Signing | None = None) -> None:
        """Make a zone of lines such as `www A 192.0.2.1`; names are below the apex, `@` is the apex itself."""
        self.apex = name_of(apex)
        self.sets: dict[dns.name.Name, dict[RdataType, dns.rrset.RRset]] = {}
        self.signatures: dict[tuple[dns.name.Name, RdataType], dns.rrset.RRset] = {}
        self.signing = signing
        self._hashes: list[tuple[bytes, dns.name.Name]] = []
        self.add("@ SOA ns hostmaster 1 3600 600 86400 60")
        for line in lines:
            self.add(line)
        self._key = None if signing is None else _private_key(signing.algorithm)
        if self._key is not None and signing is not None:
            public = dns.dnssec.make_dnskey(self._key.public_key(), signing.algorithm, flags=257)
            self.put(dns.rrset.from_rdata(self.apex, 300, public))

    @property
    def key(self) -> dns.rdtypes.ANY.DNSKEY.DNSKEY:
        """The zone's key."""
        key: dns.rdtypes.ANY.DNSKEY.DNSKEY = self.sets[self.apex][RdataType.DNSKEY][0]
        return key

    def ds(self, digest: str = "SHA256") -> str:
        """Return the DS record's text, for the parent zone."""
        return dns.dnssec.make_ds(self.apex, self.key, digest, policy=dns.dnssec.allow_all_policy).to_text()

    def add(self, line: str) -> None:
        """Add a record. Values are relative to the zone."""
        owner, rdtype, value = line.split(maxsplit=2)
        name = dns.name.from_text(owner, self.apex)
        rdata = dns.rdata.from_text(_IN, rdtype, value, self.apex, relativize=False)
        self.put(dns.rrset.from_rdata(name, 300, rdata))

    def put(self, rrset: dns.rrset.RRset) -> None:
        """Add a record set, or its records to the one that is there."""
        node = self.sets.setdefault(rrset.name, {})
        if rrset.rdtype in node:
            for rdata in rrset:
                node[rrset.rdtype].add(rdata)
        else:
            node[rrset.rdtype] = rrset

    def sign(self) -> Zone:
        """Sign what the zone is authoritative for, and deny the rest."""
        if self.signing is not None:
            if self.signing.nsec3 is None:
                self._add_nsec()
            else:
                self._add_nsec3(self.signing.nsec3)
            for name, node in self.sets.items():
                for rrset in node.values():
                    if self._is_ours(name, rrset.rdtype):
                        self.sign_set(rrset)
        return self

    def sign_set(self, rrset: dns.rrset.RRset, signing: Signing | None = None, signer: Zone | None = None) -> None:
        """Sign one record set."""
        signing, signer = signing or self.signing, signer or self
        assert signing is not None
        assert signer._key is not None
        signature = dns.dnssec.sign(
            rrset,
            signer._key,
            signer.apex,
            signer.key,
            inception=signing.inception,
            expiration=signing.expiration,
            policy=dns.dnssec.allow_all_policy,
        )
        self.signatures[rrset.name, rrset.rdtype] = dns.rrset.from_rdata(rrset.name, rrset.ttl, signature)

    def expire(self, name: str, rdtype: RdataType, *, since: float, until: float) -> None:
        """Sign a record set again with other dates, in seconds from now."""
        assert self.signing is not None
        now = int(time.time())
        dated = replace(self.signing, inception=int(now - since), expiration=int(now + until))
        self.sign_set(self.sets[name_of(name)][rdtype], dated)

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        """Answer a query as the zone's server does."""
        response = dns.message.make_response(query, our_payload=4096)
        question = query.question[0]
        _Response(self, response, bool(query.ednsflags & dns.flags.DO)).fill(question.name, question.rdtype)
        return response

    def cut_above(self, name: dns.name.Name, rdtype: RdataType) -> dns.name.Name | None:
        """Return the delegation that a name is at or below."""
        for ancestor in _down(self.apex, name):
            if RdataType.NS in self.sets.get(ancestor, {}):
                return None if ancestor == name and rdtype == RdataType.DS else ancestor
        return None

    def has(self, name: dns.name.Name) -> bool:
        """Say whether a name exists, be it empty."""
        return any(other.is_subdomain(name) for other in self.sets)

    def _is_ours(self, name: dns.name.Name, rdtype: RdataType) -> bool:
        cut = next((at for at in _down(self.apex, name) if RdataType.NS in self.sets.get(at, {})), None)
        return cut is None or (cut == name and rdtype in {RdataType.DS, RdataType.NSEC})

    def _owners(self) -> list[dns.name.Name]:
        """Return the names that the zone is authoritative for, its delegations included, in order."""
        found = []
        for name in sorted(self.sets):
            cut = next((at for at in _down(self.apex, name) if RdataType.NS in self.sets.get(at, {})), None)
            if cut in {None, name}:
                found.append(name)
        return found

    def _types(self, name: dns.name.Name, *more: RdataType) -> list[RdataType]:
        node = self.sets.get(name, {})
        if name != self.apex and RdataType.NS in node:
            node = {rdtype: node[rdtype] for rdtype in (RdataType.NS, RdataType.DS) if rdtype in node}
        return [*node, *more] if node else []

    def _add_nsec(self) -> None:
        owners = self._owners()
        for name, following in zip(owners, [*owners[1:], self.apex], strict=True):
            windows = Bitmap.from_rdtypes([*self._types(name, RdataType.NSEC, RdataType.RRSIG)]).windows
            record = dns.rdata.from_wire(
                _IN, RdataType.NSEC, (wire := following.to_digestable() + _bits(windows)), 0, len(wire)
            )
            self.put(dns.rrset.from_rdata(name, 60, record))

    def _add_nsec3(self, how: Nsec3) -> None:
        names: set[dns.name.Name] = set()
        for owner in self._owners():
            node = self.sets[owner]
            if how.opt_out and owner != self.apex and RdataType.NS in node and RdataType.DS not in node:
                continue
            names |= {owner, *_down(self.apex, owner)}
        self._hashes = sorted((self._hash(name), name) for name in names)
        types = {name: self._types(name) for name in names}
        for index, (hashed, name) in enumerate(self._hashes):
            following = self._hashes[(index + 1) % len(self._hashes)][0]
            signed = [RdataType.RRSIG] if any(self._is_ours(name, rdtype) for rdtype in types[name]) else []
            windows = Bitmap.from_rdtypes([*types[name], *signed]).windows
            wire = bytes([1, how.opt_out]) + how.iterations.to_bytes(2, "big") + bytes([len(how.salt)]) + how.salt
            wire += bytes([len(following)]) + following + _bits(windows)
            record = dns.rdata.from_wire(_IN, RdataType.NSEC3, wire, 0, len(wire))
            self.put(dns.rrset.from_rdata(self._hashed_owner(hashed), 60, record))

    def _hash(self, name: dns.name.Name) -> bytes:
        assert self.signing is not None
        assert self.signing.nsec3 is not None
        how = self.signing.nsec3
        digest = name.to_digestable()
        for _ in range(how.iterations + 1):
            digest = hashlib.sha1(digest + how.salt).digest()
        return digest

    def _hashed_owner(self, hashed: bytes) -> dns.name.Name:
        return dns.name.Name((base64.b32hexencode(hashed).lower(),)).concatenate(self.apex)

    def denying(self, name: dns.name.Name, *, matching: bool) -> dns.name.Name | None:
        """Return the owner of the NSEC or NSEC3 record at a name, or of the one whose span holds it."""
        if self.signing is None:
            return None
        if self.signing.nsec3 is None:
            owners = [owner for owner in self._owners() if RdataType.NSEC in self.sets[owner]]
            return name if matching and name in owners else max(owner for owner in owners if owner <= name)
        hashed = self._hash(name)
        if matching:
            return self._hashed_owner(hashed) if any(hashed == other for other, _ in self._hashes) else None
        below = [other for other, _ in self._hashes if other < hashed]
        return self._hashed_owner(max(below) if below else self._hashes[-1][0])


class _Response:
    """A response on its way."""

    def __init__(self, zone: Zone, response: dns.message.Message, with_signatures: bool) -> None:
        self._zone = zone
        self._response = response
        self._do = with_signatures

    def fill(self, name: dns.name.Name, rdtype: RdataType) -> None:
        """Find what the zone says."""
        zone = self._zone
        cut = zone.cut_above(name, rdtype)
        if cut is not None:
            return self._refer(cut)
        self._response.flags |= dns.flags.AA
        for ancestor in (zone.apex, *_down(zone.apex, name)):
            if ancestor != name and RdataType.DNAME in zone.sets.get(ancestor, {}):
                self._put(self._response.answer, ancestor, RdataType.DNAME)
                target = name.relativize(ancestor).concatenate(zone.sets[ancestor][RdataType.DNAME][0].target)
                self._response.answer.append(dns.rrset.from_text(name, 300, "IN", "CNAME", target.to_text()))
                return None
        if name in zone.sets and any(rdtype != RdataType.NSEC3 for rdtype in zone.sets[name]):
            return self._answer(name, name, rdtype)
        if zone.has(name):
            return self._absent(name, is_name_error=False)
        closest = next(other for other in _up(name) if zone.has(other))
        wildcard = dns.name.Name((b"*",)).concatenate(closest)
        if wildcard in zone.sets:
            self._answer(name, wildcard, rdtype)
            self._deny(_below(name, closest), matching=False)
            if self._response.rcode() == dns.rcode.NOERROR and not self._response.answer:
                self._deny(closest, matching=True)
            return None
        self._absent(name, is_name_error=True)
        self._deny(_below(name, closest), matching=False)
        self._deny(closest, matching=True)
        self._deny(wildcard, matching=False)
        return None

    def _answer(self, name: dns.name.Name, owner: dns.name.Name, rdtype: RdataType) -> None:
        node = self._zone.sets[owner]
        found = rdtype if rdtype in node else RdataType.CNAME
        if found in node:
            self._put(self._response.answer, owner, found, name)
        else:
            self._absent(owner, is_name_error=False)

    def _absent(self, name: dns.name.Name, *, is_name_error: bool) -> None:
        if is_name_error:
            self._response.set_rcode(dns.rcode.NXDOMAIN)
        self._put(self._response.authority, self._zone.apex, RdataType.SOA)
        if not is_name_error:
            self._deny(name, matching=True)
            if self._zone.denying(name, matching=True) is None:
                self._deny_closer(name)

    def _deny_closer(self, name: dns.name.Name) -> None:
        """Prove the closest encloser that has an NSEC3 record: the rest is left out (RFC 5155 §7.2.4)."""
        for closest in _up(name):
            if self._zone.denying(closest, matching=True) is not None:
                self._deny(closest, matching=True)
                self._deny(_below(name, closest), matching=False)
                return

    def _refer(self, cut: dns.name.Name) -> None:
        node = self._zone.sets[cut]
        self._response.authority.append(node[RdataType.NS])
        if RdataType.DS in node:
            self._put(self._response.authority, cut, RdataType.DS)
        else:
            self._deny(cut, matching=True)
            if self._zone.denying(cut, matching=True) is None:
                self._deny_closer(cut)
        for record in node[RdataType.NS]:
            for rdtype in (RdataType.A, RdataType.AAAA):
                glue = self._zone.sets.get(record.target, {}).get(rdtype)
                if glue is not None and record.target.is_subdomain(self._zone.apex):
                    self._response.additional.append(glue)

    def _deny(self, name: dns.name.Name, *, matching: bool) -> None:
        owner = self._zone.denying(name, matching=matching) if self._do else None
        if owner is not None:
            rdtype = RdataType.NSEC if RdataType.NSEC in self._zone.sets[owner] else RdataType.NSEC3
            self._put(self._response.authority, owner, rdtype)

    def _put(
        self,
        section: list[dns.rrset.RRset],
        owner: dns.name.Name,
        rdtype: RdataType,
        name: dns.name.Name | None = None,
    ) -> None:
        """Add a record set and its signatures, with another owner when it stands for a wildcard."""
        rrsets = [self._zone.sets[owner][rdtype]]
        if self._do and (owner, rdtype) in self._zone.signatures:
            rrsets.append(self._zone.signatures[owner, rdtype])
        for rrset in rrsets:
            written = dns.rrset.from_rdata_list(name or owner, rrset.ttl, list(rrset))
            if written not in section:
                section.append(written)


def _private_key(algorithm: int) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if algorithm == 13:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == 14:
        return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(65537, 1024)


def _bits(windows: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(bytes([window, len(bits)]) + bits for window, bits in windows)


def _down(apex: dns.name.Name, name: dns.name.Name) -> Iterator[dns.name.Name]:
    """Yield the names from below an apex down to a name."""
    for labels in range(len(apex.labels) + 1, len(name.labels) + 1):
        yield name.split(labels)[1]


def _up(name: dns.name.Name) -> Iterator[dns.name.Name]:
    while name != dns.name.root:
        yield name
        name = name.parent()
    yield name


def _below(name: dns.name.Name, closest: dns.name.Name) -> dns.name.Name:
    return name.split(len(closest.labels) + 1)[1]
