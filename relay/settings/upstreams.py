"""Upstream resolvers as settings name them: `[transport://]address[:port][/path][?ca_file=...][#name]`.

The address is always an address: the relay asks nobody for its resolver's name. The name that the certificate must
hold stands behind a `#`, as in Unbound's and systemd's settings; without one, it must hold the address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

__all__ = ["Upstream", "UpstreamTransport", "parse_upstream"]

_FORM = re.compile(
    r"(?:(?P<transport>[a-z]{1,8})://)?"
    r"(?P<host>\[[^\]/?#]*\]|[^\[\]/?#]*?)(?P<port>:[^:\]/?#]*)?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?P<name>#.*)?"
)
_BARE_IPV6 = re.compile(r"[^\[\]/?#]*:[^\[\]/?#]*:[^\[\]/?#]*")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*", re.IGNORECASE)
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
_DEFAULT_PATH = "/dns-query"


class UpstreamTransport(StrEnum):
    """How an upstream is spoken to."""

    UDP = "udp"
    "Datagrams, and TCP for what does not fit (RFC 1035 §4.2)."
    TCP = "tcp"
    "TCP alone (RFC 7766)."
    TLS = "tls"
    "DNS over TLS (RFC 7858)."
    HTTPS = "https"
    "DNS over HTTPS (RFC 8484), with HTTP/2."
    QUIC = "quic"
    "DNS over QUIC (RFC 9250)."

    @property
    def is_encrypted(self) -> bool:
        """Whether a certificate says who answers, and nobody on the way reads along."""
        return self not in (UpstreamTransport.UDP, UpstreamTransport.TCP)

    @property
    def default_port(self) -> int:
        """The port that is meant when none is given."""
        return {UpstreamTransport.HTTPS: 443, UpstreamTransport.TLS: 853, UpstreamTransport.QUIC: 853}.get(self, 53)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A recursive resolver that the relay asks."""

    address: IPv4Address | IPv6Address
    "Its address."
    port: int = 53
    "Its port."
    transport: UpstreamTransport = UpstreamTransport.UDP
    "How it is spoken to."
    name: str | None = None
    "The name that its certificate must hold; None for its address."
    path: str = _DEFAULT_PATH
    "Where it answers over HTTPS."
    ca_file: Path | None = None
    "The certificates that its own must lead to; None for those that the system trusts."

    @property
    def server_name(self) -> str:
        """What its certificate must hold."""
        return self.name or str(self.address)

    def __str__(self) -> str:
        """Write it as settings do."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        path = self.path if self.transport is UpstreamTransport.HTTPS else ""
        query = "" if self.ca_file is None else "?" + urlencode({"ca_file": str(self.ca_file)}, safe="/")
        name = "" if self.name is None else f"#{self.name}"
        return f"{self.transport.value}://{host}:{self.port}{path}{query}{name}"


def parse_upstream(text: str) -> Upstream:
    """Read an upstream: `192.0.2.53`, `[2001:db8::53]:5353`, `tls://192.0.2.53#dns.example` and the like.

    Raises:
        ValueError: it has another form, or a part that its transport has no use for.
    """
    if _BARE_IPV6.fullmatch(text):
        text = f"[{text}]"
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("must be [transport://]address[:port][/path][#name], with an IPv6 address in brackets")
    try:
        transport = UpstreamTransport(found["transport"] or "udp")
    except ValueError:
        raise ValueError("must begin with udp://, tcp://, tls://, https:// or quic://, or with the address") from None
    name = None if found["name"] is None else found["name"][1:]
    if name is not None and (len(name) > 253 or not _NAME.fullmatch(name)):
        raise ValueError("must have a host name behind the #")
    if name is not None and not transport.is_encrypted:
        raise ValueError(f"must not have a name: {transport.value} has no certificate to hold it")
    path = found["path"]
    if path is not None and (transport is not UpstreamTransport.HTTPS or not _PATH.fullmatch(path)):
        raise ValueError("must have a path with https:// only, of a URL's characters")
    return Upstream(
        _parse_address(found["host"], transport),
        transport.default_port if found["port"] is None else _parse_port(found["port"][1:]),
        transport,
        name,
        path or _DEFAULT_PATH,
        _parse_ca_file(found["query"], transport),
    )


def _parse_address(host: str, transport: UpstreamTransport) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(host[1:-1] if host.startswith("[") else host)
    except ValueError:
        hint = "put its name behind a #" if transport.is_encrypted else "names are not possible here"
        raise ValueError(f"must be an IP address, with or without a port; {hint}") from None
    if host.startswith("[") != (address.version == 6):
        raise ValueError("must have an IPv6 address, and only that, in brackets")
    return address


def _parse_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError("must have a port of 1..65535")
    return int(text)


def _parse_ca_file(query: str | None, transport: UpstreamTransport) -> Path | None:
    if query is None:
        return None
    pairs = parse_qsl(query[1:], keep_blank_values=True, max_num_fields=2, separator="&")
    if len(pairs) != 1 or pairs[0][0] != "ca_file" or not pairs[0][1] or not transport.is_encrypted:
        raise ValueError("must have nothing but ca_file=<path> behind the ?, and that with tls, https and quic only")
    return Path(pairs[0][1])
