"""What a hook may know of the connection and the exchange it decides about.

A context carries state forward from phase to phase: an application puts its own objects in and finds them
again by their class. Contexts live as long as what they describe and no longer. Their `repr` shows no
address, no target and no credential.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol, TypeVar

from masque.geo import Location
from masque.head import RequestHead
from masque.target import IPAddress, Target
from relay.errors import Remark
from relay.outcome import Outcome
from relay.settings import PortSlice

__all__ = [
    "AuthScheme",
    "ConnectionContext",
    "EgressBinding",
    "EgressSubnet",
    "ExchangeContext",
    "IPAddress",
    "Principal",
    "Resolution",
    "RunningTunnel",
    "TunnelKind",
]

S = TypeVar("S")


class TunnelKind(StrEnum):
    """What a tunnel carries."""

    TCP = "tcp"
    "Bytes of a TCP connection: CONNECT (RFC 9110 §9.3.6)."
    UDP = "udp"
    "UDP payloads: CONNECT-UDP (RFC 9298)."


class AuthScheme(StrEnum):
    """How a principal proved itself."""

    OPEN = "open"
    "It did not: the relay admits everybody."
    PRESHARED = "preshared"
    "A key known to both sides."
    BEARER = "bearer"
    "A bearer token (RFC 6750)."
    BASIC = "basic"
    "A user name and a password (RFC 7617)."
    CERTIFICATE = "certificate"
    "A certificate of its own in the TLS handshake (RFC 8446 §4.4.2)."
    PRIVATE_TOKEN = "privatetoken"
    "A token of Privacy Pass (RFC 9577): nobody can say whose."
    APPLICATION = "application"
    "A scheme of the application's own."

    @property
    def is_linkable(self) -> bool:
        """True when a principal's name says who it is, so that what it uses can be counted under its name.

        False when unrelated clients share the name: what is counted then is counted for each connection. A scheme
        is unlinkable until it is named here.
        """
        return self in _LINKABLE


_LINKABLE = frozenset(
    {AuthScheme.PRESHARED, AuthScheme.BEARER, AuthScheme.BASIC, AuthScheme.CERTIFICATE, AuthScheme.APPLICATION}
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is served, as far as the relay needs to know."""

    name: str
    "An opaque label, such as `preshared-1`. Never a secret, and never a name that a person chose."
    scheme: AuthScheme
    "How it proved itself."


@dataclass(frozen=True, slots=True, repr=False)
class Resolution:
    """What a target's name stands for."""

    addresses: tuple[IPAddress, ...]
    "Its addresses, IPv6 first; never empty. The order in which they are tried is the pipeline's affair."
    aliases: tuple[str, ...] = ()
    "The names that the target's name is an alias of, in order (RFC 9532 §2)."

    def __repr__(self) -> str:
        """Show counts only: addresses and names belong into no log."""
        return f"Resolution(addresses={len(self.addresses)}, aliases={len(self.aliases)})"


@dataclass(frozen=True, slots=True)
class EgressBinding:
    """How the relay leaves for one address."""

    source: IPAddress | None = None
    "The source address to bind, of the target address's family; None leaves it to the system."
    ports: PortSlice | None = None
    "The ports of the source that may be used; None for what the system allows."
    is_free: bool = False
    "True for an address that no interface has, of a network that is routed to this machine."
    remark: Remark | None = None
    "What the client is told when the tunnel leaves this way."
    refused: Callable[[bool], bool] | None = field(default=None, repr=False, compare=False)
    """Called when the source cannot be used: with True when it is not this machine's, with False when it has no free
    port towards the target. Answers whether to choose again. None: the attempt has failed."""


@dataclass(frozen=True, slots=True)
class EgressSubnet:
    """The network that answers should suit. An application or the egress puts it into the exchange's context."""

    network: IPv4Network | IPv6Network = field(repr=False)
    "A network at the egress location, such as that of the egress address. Never of a client's address."


class RunningTunnel(Protocol):
    """What hooks may learn of a tunnel while it runs, and the one thing they may do to it."""

    @property
    def relayed(self) -> int:
        """Payload bytes so far, both directions together."""

    def close(self, outcome: Outcome) -> None:
        """End the tunnel; later calls do nothing."""


class _Store:
    """Objects of the application's own, one of each class."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data: dict[type, object] = {}

    @property
    def data(self) -> Mapping[type, object]:
        """All objects put in so far, by class. To look at, not to change."""
        return self._data

    def put(self, value: object) -> None:
        """Keep an object under its class; an earlier one of the same class is replaced."""
        self._data[type(value)] = value

    def get(self, cls: type[S]) -> S | None:
        """Return the object that was put in under exactly this class, or None."""
        found = self._data.get(cls)
        return found if isinstance(found, cls) else None


@dataclass(slots=True, eq=False)
class ConnectionContext(_Store):
    """One client's connection, for as long as it lasts."""

    opened_at: float
    "When it was opened, on the loop's clock."
    client_address: IPAddress | None = field(default=None, repr=False)
    "Where the client connects from. For decisions only: it may reach no log, metric or target."
    is_known: bool = False
    "True once a request on it was authenticated."
    certificate: bytes | None = field(default=None, repr=False)
    "SHA-256 of the certificate that the client proved to own; None without one that was asked for and verified."

    def __post_init__(self) -> None:
        """Start with an empty store."""
        _Store.__init__(self)


@dataclass(slots=True, eq=False)
class ExchangeContext(_Store):
    """One request stream and, once accepted, its tunnel. The phases fill it in as they pass."""

    connection: ConnectionContext
    "The connection it came on."
    kind: TunnelKind
    "What is asked for."
    head: RequestHead = field(repr=False)
    "The request's head; it holds the target and the credentials."
    target: Target = field(repr=False)
    "Where the tunnel goes; an authorizing hook may have replaced it."
    principal: Principal | None = None
    "Who is served; None until a hook has authenticated it."
    resolution: Resolution | None = field(default=None, repr=False)
    "The target's addresses; None until a hook has resolved it."
    location: Location | None = None
    "Where the credentials say that the client is, such as a token's geo extension; None when they do not."
    egress: EgressBinding | None = field(default=None, repr=False)
    "How the address under trial is left for; None until a hook has chosen."
    tunnel: RunningTunnel | None = field(default=None, repr=False)
    "The tunnel; None until the exchange is accepted."
    _releases: list[Callable[[], None]] = field(default_factory=list, repr=False)
    _is_over: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Start with an empty store."""
        _Store.__init__(self)

    def at_end(self, release: Callable[[], None]) -> None:
        """Have something given back when the exchange is over, however it ends.

        What a hook takes for an exchange (a place, a port, a file) it hands over here in the same step, before it
        waits for anything: then a refusal, a cancelled hook or a stopping relay cannot leak it.

        Args:
            release: called exactly once, after the watching hooks; at once when the exchange is over already.
                Must not wait.
        """
        if self._is_over:
            release()
        else:
            self._releases.append(release)

    def take_releases(self) -> Iterator[Callable[[], None]]:
        """End the exchange: yield what is to be given back, the latest first. For the chain of hooks alone."""
        self._is_over = True
        while self._releases:
            yield self._releases.pop()
