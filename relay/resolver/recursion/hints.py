"""Root hints: where an iterative resolver starts (RFC 8109). A list is shipped; the settings may name another."""

from __future__ import annotations

from importlib import resources
from ipaddress import ip_address
from pathlib import Path

import dns.exception
import dns.name
import dns.rdatatype
import dns.zonefile

from masque.target import IPAddress
from relay.resolver.recursion.delegation import Delegation

__all__ = ["parse_root_hints", "read_root_hints"]

_SHIPPED = "root.hints"
_MAX_BYTES = 1 << 20


def read_root_hints(path: Path | None) -> Delegation:
    """Read root hints from a file, or those that are shipped.

    Args:
        path: a file with the root's NS records and the servers' addresses, in the form of a zone file; None means
            the shipped one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not name a root server with an address; the text follows the file's name.
    """
    if path is None:
        return parse_root_hints(resources.files(__package__).joinpath(_SHIPPED).read_text(encoding="ascii"))
    with path.open("rb") as file:
        return parse_root_hints(file.read(_MAX_BYTES).decode("utf-8", errors="replace"))


def parse_root_hints(text: str) -> Delegation:
    """Read the root's NS records and their servers' addresses.

    Raises:
        ValueError: it does not name a root server with an address.
    """
    try:
        rrsets = dns.zonefile.read_rrsets(text, rdclass=None, default_ttl=0, origin=dns.name.root)
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError("must hold NS, A and AAAA records, one a line") from error
    servers: dict[dns.name.Name, tuple[IPAddress, ...]] = {}
    for rrset in rrsets:
        if rrset.rdtype == dns.rdatatype.NS and rrset.name == dns.name.root:
            servers.update(dict.fromkeys((record.target for record in rrset), ()))
    for rrset in rrsets:
        if rrset.rdtype in {dns.rdatatype.A, dns.rdatatype.AAAA} and rrset.name in servers:
            servers[rrset.name] += tuple(ip_address(record.address) for record in rrset)
    if not any(servers.values()):
        raise ValueError("must hold the NS records of the root, and an address of one of them at least")
    return Delegation(dns.name.root, servers)
