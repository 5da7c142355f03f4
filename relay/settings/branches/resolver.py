"""How names are resolved."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field, model_validator

from relay.settings.branches.bounds import MIB, Branch, Duration, lasting, readable_by, sized, within
from relay.settings.upstreams import parse_upstream
from relay.settings.values import parse_domain

__all__ = ["ResolverSettings"]


def _routes(value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Check every suffix and its upstreams; the message says which suffix."""
    routes: dict[str, tuple[str, ...]] = {}
    for suffix, upstreams in value.items():
        shown = suffix[:80] if suffix.isprintable() else "?"
        try:
            name = parse_domain(suffix.removeprefix("."))
            for text in upstreams:
                parse_upstream(text)
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from None
        if not upstreams or name in routes:
            raise ValueError(f"{shown}: must name a resolver, and the suffix only once")
        routes[name] = upstreams
    return routes


class ResolverSettings(Branch):
    """How the relay resolves targets' names."""

    mode: Literal["forward", "iterate"] = "forward"
    """Who is asked: "forward" asks the recursive resolvers named below, "iterate" the authoritative servers
    themselves, from the root down, and needs no upstream."""
    dnssec: Literal["validate", "trust_ad", "off"] = "off"
    """What is made of signatures: "validate" checks them here and refuses bogus answers, "trust_ad" believes the AD
    bit of upstreams, which must then be encrypted, "off" does neither."""
    trust_anchors: Path | None = None
    """DS or DNSKEY records that validation starts from, in the form of a zone file; without it those of the root,
    which are shipped."""
    unsigned_domains: tuple[Annotated[str, AfterValidator(parse_domain)], ...] = ()
    """Domains that are not validated, such as those that exist only inside (RFC 7646)."""
    root_hints: Path | None = None
    """Root servers that "iterate" starts from, in the form of a zone file; without it those that are shipped."""
    max_work: Annotated[int, within(8, 1024)] = 96
    """Queries to authoritative servers that one question may cause with "iterate"."""
    upstreams: tuple[Annotated[str, readable_by(parse_upstream)], ...] = ()
    """Recursive resolvers in order of preference, each as `[transport://]address[:port][/path][?ca_file=...][#name]`
    with udp, tcp, tls, https or quic; udp when none is given. The name is the one in the certificate. Empty: those
    of the system."""
    routes: Annotated[dict[str, tuple[str, ...]], AfterValidator(_routes)] = Field(default_factory=dict)
    """Resolvers for names that end in a domain, by that domain; the longest that fits is used, and no other."""
    timeout: Annotated[Duration, lasting(0.05, 60)] = timedelta(seconds=5)
    """How long a name may take in all, over all upstreams."""
    max_queries: Annotated[int, within(1, 65536)] = 512
    """Questions that may be under way at the same time. A name is two; one connection may have a 64th of this number
    of names under way, at least 4."""
    cache_entries: Annotated[int, within(0, 10_000_000)] = 10_000
    """Answers kept; the least recently used goes first."""
    cache_size: Annotated[ByteSize, sized(0, 4096 * MIB)] = ByteSize(32 * MIB)
    """Memory that kept answers may take in all, as estimated; the least recently used goes first."""
    min_ttl: Annotated[Duration, lasting(0, 3600)] = timedelta(seconds=5)
    """Answers are kept at least this long."""
    max_ttl: Annotated[Duration, lasting(0, 604_800)] = timedelta(hours=1)
    """Answers are kept no longer than this."""
    max_stale: Annotated[Duration, lasting(0, 604_800)] = timedelta(days=1)
    """How long past its time an answer may still be used while nobody gives a new one (RFC 8767 §5); 0 is never."""
    stale_after: Annotated[Duration, lasting(0, 60)] = timedelta(seconds=1.8)
    """How long a new answer is waited for before an old one is used."""
    refresh: bool = True
    """Ask again, shortly before it ends, for an answer that was used several times."""
    cookies: bool = True
    """Send DNS cookies over UDP and TCP (RFC 7873), so that others cannot answer for an upstream that knows them."""
    mixed_case: bool = False
    """Ask over UDP with letters of random case, and take no answer that has others; some upstreams change it."""
    client_subnet: bool = False
    """Tell upstreams the network of the egress location (RFC 7871), never a client's. Does nothing unless a hook puts
    an `EgressSubnet` into the exchange's context; the relay's own egress does not."""
    connection_idle: Annotated[Duration, lasting(0.1, 600)] = timedelta(seconds=30)
    """How long an unused connection to an upstream is kept."""

    @model_validator(mode="after")
    def _ttl_order(self) -> ResolverSettings:
        if self.min_ttl > self.max_ttl:
            raise ValueError("min_ttl, max_ttl: the first must not be longer than the second")
        return self

    @model_validator(mode="after")
    def _upstreams_fit(self) -> ResolverSettings:
        if self.mode == "iterate" and self.upstreams:
            raise ValueError('mode, upstreams: "iterate" asks no upstream; use resolver.routes for single domains')
        if self.dnssec == "trust_ad":
            if self.mode == "iterate":
                raise ValueError('dnssec, mode: "trust_ad" needs upstreams; "iterate" has none')
            chosen = [parse_upstream(text) for text in self.upstreams]
            if not chosen or not all(upstream.transport.is_encrypted for upstream in chosen):
                raise ValueError(
                    'dnssec, upstreams: "trust_ad" needs upstreams over tls, https or quic, and no other: '
                    "anybody on the way can set a bit in clear text"
                )
        return self
