"""What a hook may know of the connection and the exchange it decides about.

A context carries state forward from phase to phase: an application puts its own objects in and finds them
again by their class. Contexts live as long as what they describe and no longer. Their `repr` shows no
address, no target and no credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

from masque.head import RequestHead
from masque.target import IPAddress, Target

__all__ = [
    "AuthScheme",
    "ConnectionContext",
    "EgressBinding",
    "EgressSubnet",
    "ExchangeContext",
    "IPAddress",
    "Principal",
    "Resolution",
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
    APPLICATION = "application"
    "A scheme of the application's own."


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


@dataclass(frozen=True, slots=True)
class EgressSubnet:
    """The network that answers should suit. An application or the egress puts it into the exchange's context."""

    network: IPv4Network | IPv6Network = field(repr=False)
    "A network at the egress location, such as that of the egress address. Never of a client's address."


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
    egress: EgressBinding | None = field(default=None, repr=False)
    "How the address under trial is left for; None until a hook has chosen."

    def __post_init__(self) -> None:
        """Start with an empty store."""
        _Store.__init__(self)
