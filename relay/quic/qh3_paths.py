"""Where a client is now, when its address changes (RFC 9000 §9), for the qh3 engine.

The core validates a new address, and until it has, goes on sending to the old one, where nobody may be any more. Once
it has, it never goes back to an address that it knew before. What is sent to validate an address takes other data
along, and is sent there again and again even if the client has long moved on: nothing else is sent then. RFC 9000
§9.3 asks for the newest address at once, within three times what came from it (§8). So the core says what is sent,
and this room says where to; to the core, addresses are labels.

- What the core sends on its own path goes to the address of the newest packet that was authentic and did more than
  probe. What an address that is not validated has no room for goes to the last one that was, as a safeguard against
  packets that somebody else copied (§9.3.3).
- What the core sends to validate an address goes there alone, until the client is elsewhere. Then that address is
  given up: the client is sent what was meant for it, and it is a new address should the client come back to it.
- The core takes four labels in a connection's life. A client that moves once more cannot be validated: the
  connection is closed, so that it comes again (NO_VIABLE_PATH).

Packets with a PATH_CHALLENGE are not padded to 1200 bytes (§8.2.1): the core makes them.
"""

from __future__ import annotations

from typing import Final

from qh3._hazmat import QuicConnectionCore

from relay.quic.engine import Address, Burst

__all__ = ["MAX_PATHS", "Paths"]

MAX_PATHS: Final = 4
"Labels that the core takes in a connection's life."
_AMPLIFICATION: Final = 3
_STARVING: Final = 256
"Bytes that the core may still send to a label that was given up before it is told that something came from there."
_ATTEMPTS: Final = 3
"Bursts to an address that was only probed, after which it is given up."
_STRAYS: Final = 8
"Packets in a row from an address without a label, after which it is no accident."


class Paths:
    """The addresses of one connection's peer. Made when the handshake is complete: nobody may move before (§9)."""

    def __init__(self, core: QuicConnectionCore) -> None:
        """Begin with the address of the handshake, which validated it (§8.1)."""
        self._core = core
        self._active: Address = core.active_path[2]
        "The label under which the core sends what is not meant for one path alone."
        self.current = self._active
        "Where the peer is now."
        self.is_settled = True
        "True while the core sends where the peer is, and validates nothing: then nothing has to be redirected."
        self.is_exhausted = False
        "True once the peer stays at an address for which no label is left."
        self._labels = {self._active: self._active}
        "What the core calls each address."
        self._used = 1
        "Labels used so far."
        self._safe = self._active
        "The last address that was validated and used."
        self._validated = {self._active}
        self._room: dict[Address, int] = {}
        "Bytes that may be sent to each address that is not validated."
        self._candidate: Address | None = None
        "The address that is being validated; None too when it was given up."
        self._trial: Address | None = None
        "The label that the core is validating."
        self._trial_room = 0
        "Bytes that the core believes it may send there."
        self._attempts = 0
        self._strays = 0

    def receive(self, data: bytes, segment: int, address: Address, now: float) -> int:
        """Give packets to the core that came from another address than the last, or while not all is settled.

        Args:
            data: UDP payloads, back to back.
            segment: bytes of each.
            address: where they came from.
            now: the loop's clock.

        Returns:
            How many events the core has more than before.
        """
        core = self._core
        is_new = address not in self._labels and self._used < MAX_PATHS
        label = self._label(address)
        in_flight = core.bytes_in_flight
        report = core.receive_gro_buffer(data, segment, label, now)
        if not report[2]:
            return report[5]
        if is_new:
            self._try(address, label)
        if label == self._trial:
            self._trial_room += _AMPLIFICATION * len(data)
        if address not in self._validated:
            self._add_room(address, _AMPLIFICATION * len(data))
        self._follow_core()
        # A packet that only probes has no event but the one of a new path, and acknowledges nothing (§9.1).
        if report[5] > is_new or core.bytes_in_flight != in_flight:
            self._move(address)
        self.is_settled = self.current == self._active and self._trial is None  # a label that is still an address
        return report[5]

    def redirect(self, bursts: list[Burst]) -> list[Burst]:
        """Say where the core's packets really go.

        Args:
            bursts: what the core made.

        Returns:
            The same packets, but for those that no address has room for.
        """
        redirected: list[Burst] = []
        for payloads, label in bursts:
            if label == self._trial:
                self._trial_room -= sum(map(len, payloads))
                if self._candidate is not None and self._candidate != self.current:
                    count = self._take_room(payloads, self._candidate)
                    redirected.append((payloads[:count], self._candidate))
                    self._attempts += 1
                    if self._attempts == _ATTEMPTS:
                        self._give_up()
                    continue
            count = self._take_room(payloads, self.current)
            redirected.append((payloads[:count], self.current))
            redirected.append((payloads[count:], self._safe))
        return [burst for burst in redirected if burst[0]]

    def _label(self, address: Address) -> Address:
        """What the core is told of where a packet came from."""
        if self._trial is not None and self._candidate is None and self._trial_room < _STARVING:
            return self._trial
        if address in self._labels:
            return self._labels[address]
        if self._used == MAX_PATHS:
            return self._active
        return (address[0], self._used, *address[2:])  # ports below 1024: no client has one of these

    def _try(self, address: Address, label: Address) -> None:
        """The core has begun to validate a label."""
        self._give_up()
        self._used += 1
        self._labels[address] = label
        self._candidate, self._trial, self._trial_room, self._attempts = address, label, 0, 0

    def _give_up(self) -> None:
        """What validates the address goes to the client from now on, and proves nothing of the address any more."""
        if self._candidate is not None:
            del self._labels[self._candidate]
            self._candidate = None

    def _follow_core(self) -> None:
        """The core makes a label its own at the moment it is validated."""
        active: Address = self._core.active_path[2]
        if active == self._active:
            return
        self._active = active
        if active == self._trial:
            if self._candidate is not None:
                self._validated.add(self._candidate)
                self._room.pop(self._candidate, None)
            self._candidate = self._trial = None

    def _move(self, address: Address) -> None:
        """The client is at `address` now."""
        if address != self.current:
            if self.current == self._candidate:
                self._give_up()
            self.current = address
        if address in self._validated:
            self._safe = address
            self._strays = 0
        elif address not in self._labels and self._used == MAX_PATHS:
            self._strays += 1
            self.is_exhausted = self._strays >= _STRAYS

    def _add_room(self, address: Address, size: int) -> None:
        """Let more be sent to an address; of others than the few that count it is forgotten."""
        if address not in self._room and len(self._room) >= MAX_PATHS:
            self._room = {one: room for one, room in self._room.items() if one in (self.current, self._candidate)}
        self._room[address] = self._room.get(address, 0) + size

    def _take_room(self, payloads: list[bytes], address: Address) -> int:
        """How many of the packets an address has room for; that room is used up."""
        if address in self._validated:
            return len(payloads)
        room = self._room.get(address, 0)
        count = 0
        for payload in payloads:
            if len(payload) > room:
                break
            room -= len(payload)
            count += 1
        self._room[address] = room
        return count
