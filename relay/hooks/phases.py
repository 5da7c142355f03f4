"""The phases of an exchange and what an application may supply for each.

In order: authenticate, authorize, resolve, check addresses, choose egress (once for each address that is
tried), then the relay connects and answers, and the watching hooks hear of the tunnel's opening and end. Last, and
also when the exchange was refused, what hooks took for it is given back (`ExchangeContext.at_end`).
Deciding hooks are `async def`, return a verdict, and fail closed: an exception refuses the exchange.
Watching hooks are plain `def`, must return at once, and change nothing: an exception there is counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from masque.target import Target
from relay.hooks.context import EgressBinding, ExchangeContext, IPAddress, Principal, Resolution
from relay.hooks.verdicts import Verdict
from relay.outcome import Outcome
from relay.settings import Settings

__all__ = [
    "Application",
    "Authenticate",
    "Authorize",
    "Challenges",
    "CheckAddresses",
    "ChooseEgress",
    "Hooks",
    "Phase",
    "Resolve",
    "TunnelClosed",
    "TunnelOpened",
]


class Phase(StrEnum):
    """The points of an exchange's life at which hooks are asked or told."""

    AUTHENTICATE = "authenticate"
    AUTHORIZE = "authorize"
    RESOLVE = "resolve"
    CHECK_ADDRESSES = "check_addresses"
    CHOOSE_EGRESS = "choose_egress"
    TUNNEL_OPENED = "tunnel_opened"
    TUNNEL_CLOSED = "tunnel_closed"
    EXCHANGE_ENDED = "exchange_ended"


Challenges: TypeAlias = tuple[bytes, ...] | Callable[[], tuple[bytes, ...]]
"`Proxy-Authenticate` values, or what makes them at the moment of a refusal; it must return at once and not raise."
Authenticate: TypeAlias = Callable[[ExchangeContext], Awaitable[Verdict[Principal]]]
"Who is this? Replace names the principal. When no hook does, the answer is 407."
Authorize: TypeAlias = Callable[[ExchangeContext], Awaitable[Verdict[Target]]]
"May this principal have a tunnel to `ctx.target`? Replace sends it to another target."
Resolve: TypeAlias = Callable[[ExchangeContext, Target], Awaitable[Verdict[Resolution]]]
"Which addresses does the target have? `ctx.resolution` is what earlier hooks found. Runs before the answer."
CheckAddresses: TypeAlias = Callable[
    [ExchangeContext, tuple[IPAddress, ...]], Awaitable[Verdict[tuple[IPAddress, ...]]]
]
"Which of these may be tried? Replace with those; nothing else is ever tried."
ChooseEgress: TypeAlias = Callable[[ExchangeContext, IPAddress], Awaitable[Verdict[EgressBinding]]]
"From where is this address reached? Runs once for each address tried."
TunnelOpened: TypeAlias = Callable[[ExchangeContext], None]
"The tunnel was accepted. Called exactly once for each tunnel."
TunnelClosed: TypeAlias = Callable[[ExchangeContext, Outcome], None]
"The tunnel ended. Called exactly once for each opened tunnel."


@dataclass(frozen=True, slots=True)
class Hooks:
    """What an application or a built-in room adds to the exchange's life. Leave out what you do not change."""

    authenticate: Authenticate | None = None
    "Phase 1."
    authorize: Authorize | None = None
    "Phase 2."
    resolve: Resolve | None = None
    "Phase 3."
    check_addresses: CheckAddresses | None = None
    "Phase 4."
    choose_egress: ChooseEgress | None = None
    "Phase 5."
    tunnel_opened: TunnelOpened | None = None
    "Watching."
    tunnel_closed: TunnelClosed | None = None
    "Watching."
    challenges: Challenges = ()
    "`Proxy-Authenticate` values of the schemes that `authenticate` accepts, for the 407."


Application: TypeAlias = Callable[[Settings], Awaitable[Hooks]]
"An application: `async def start(settings) -> Hooks`, called once in each worker before it serves."
