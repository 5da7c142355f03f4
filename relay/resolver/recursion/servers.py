"""What is known of servers: how fast they answer, which are silent, which do not serve a zone they should.

Fast ones are asked first, unknown ones before slow ones, and silent ones only when nothing else is left.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import dns.name

from masque.target import IPAddress
from relay.resolver.recursion.limits import RecursionLimits
from relay.resolver.sized import ADDRESS_SIZE, SizedMap, size_of_name

__all__ = ["ServerBook"]

_FORGOTTEN = 900.0
"Seconds after which a server is unknown again."
_LAME = 600.0
"Seconds that a server is asked last about a zone that it does not serve."
_NO_EDNS = 300.0
"Seconds that a server is asked without EDNS."
_BAND = 0.04
"Seconds in which servers count as equally fast, and one of them is drawn."
_MAX_BACKOFF = 60.0
_SERVER_SIZE = 200
_SIZE = 1 << 20
"Bytes that servers may take, as estimated, and servers' zones as many."
_random = secrets.SystemRandom()


@dataclass(slots=True, repr=False)
class _Server:
    """What is known of one address."""

    rtt: float | None = None
    failures: int = 0
    silent_until: float = 0.0
    no_edns_until: float = 0.0


class ServerBook:
    """Servers by address. Bounded. Time is an argument."""

    def __init__(self, entries: int, limits: RecursionLimits) -> None:
        """Know nothing yet.

        Args:
            entries: servers that are remembered, and servers' zones.
            limits: how long servers may take.
        """
        self._limits = limits
        self._servers: SizedMap[IPAddress, _Server] = SizedMap(
            entries, _SIZE, lambda _address, _server: ADDRESS_SIZE + _SERVER_SIZE
        )
        self._lame: SizedMap[tuple[IPAddress, dns.name.Name], bool] = SizedMap(
            entries, _SIZE, lambda key, _is_lame: ADDRESS_SIZE + size_of_name(key[1])
        )

    def order(self, addresses: Iterable[IPAddress], zone: dns.name.Name, now: float) -> list[IPAddress]:
        """Return a zone's servers, the one to ask first first."""
        return sorted(addresses, key=lambda address: self._rank(address, zone, now))

    def timeout(self, address: IPAddress, now: float) -> float:
        """Return how long to wait for a server's answer, in seconds."""
        server = self._servers.get(address, now)
        if server is None or server.rtt is None:
            return self._limits.first_wait
        usual = max(3 * server.rtt + 0.1, self._limits.least_wait)
        return min(usual * (1 << min(server.failures, 3)), self._limits.longest_wait)

    def knows_edns(self, address: IPAddress, now: float) -> bool:
        """Say whether a server may be asked with EDNS(0) (RFC 6891 §6.2.2)."""
        server = self._servers.get(address, now)
        return server is None or server.no_edns_until <= now

    def note_answer(self, address: IPAddress, seconds: float, now: float) -> None:
        """Remember that a server answered."""
        server = self._server(address, now)
        server.rtt = seconds if server.rtt is None else 0.7 * server.rtt + 0.3 * seconds
        server.failures = 0
        server.silent_until = 0.0

    def note_silence(self, address: IPAddress, now: float) -> None:
        """Remember that a server did not answer in time, or could not be reached."""
        server = self._server(address, now)
        server.failures += 1
        if server.failures > 1:
            server.silent_until = now + min(1 << min(server.failures, 10), _MAX_BACKOFF)

    def note_no_edns(self, address: IPAddress, now: float) -> None:
        """Remember for a while that a server does not understand EDNS(0); its answers do not make it longer.

        Without EDNS no signatures come, so a mistake must not last (RFC 6891 §6.2.2).
        """
        self._server(address, now).no_edns_until = now + _NO_EDNS

    def note_lame(self, address: IPAddress, zone: dns.name.Name, now: float) -> None:
        """Remember that a server does not seem to serve a zone.

        It is then asked last, but asked: else one name that it refuses would cost the zone its servers.
        """
        self._lame.put((address, zone), True, _LAME, now)

    def _server(self, address: IPAddress, now: float) -> _Server:
        server = self._servers.get(address, now) or _Server()
        self._servers.put(address, server, _FORGOTTEN, now)
        return server

    def _rank(self, address: IPAddress, zone: dns.name.Name, now: float) -> tuple[bool, bool, int, float]:
        is_lame = self._lame.get((address, zone), now) is not None
        server = self._servers.get(address, now) or _Server()
        speed = 0.0 if server.rtt is None else server.rtt
        return is_lame, server.silent_until > now, server.failures + int(speed / _BAND), _random.random()
