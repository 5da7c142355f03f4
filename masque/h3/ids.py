"""Which streams have been seen, in a space that does not grow with their number (RFC 9000 §2.1, §3.2).

QUIC never uses a stream id twice. Streams of a kind may arrive out of order, so a lower id may still be new. The
numbers below the highest that are still missing are kept as gaps. QUIC counts a missing one as open, so its
stream limit bounds the gaps.
"""

from __future__ import annotations

from bisect import bisect_right

__all__ = ["SeenStreams"]


class SeenStreams:
    """The ids of one kind of stream that have been seen. All ids given have the same two lowest bits."""

    __slots__ = ("_gaps", "_next")

    def __init__(self) -> None:
        self._next = 0
        self._gaps: list[tuple[int, int]] = []
        "Ordered ranges (first, end) below `_next` that have not been seen, as ordinals."

    @property
    def end(self) -> int:
        """Four times the count of ordinals in use: the id of a request stream above all that were seen."""
        return self._next << 2

    @property
    def gap_count(self) -> int:
        """How many gaps are kept."""
        return len(self._gaps)

    def __contains__(self, stream_id: int) -> bool:
        """Whether the stream has been seen."""
        ordinal = stream_id >> 2
        return ordinal < self._next and self._find_gap(ordinal) is None

    def add(self, stream_id: int) -> bool:
        """Note a stream.

        Args:
            stream_id: the stream.

        Returns:
            Whether it is new.
        """
        ordinal = stream_id >> 2
        if ordinal >= self._next:
            if ordinal > self._next:
                self._gaps.append((self._next, ordinal))
            self._next = ordinal + 1
            return True
        index = self._find_gap(ordinal)
        if index is None:
            return False
        first, end = self._gaps[index]
        rest = [part for part in ((first, ordinal), (ordinal + 1, end)) if part[0] < part[1]]
        self._gaps[index : index + 1] = rest
        return True

    def _find_gap(self, ordinal: int) -> int | None:
        """Find the index of the gap that holds an ordinal below `_next`."""
        index = bisect_right(self._gaps, ordinal, key=lambda gap: gap[0]) - 1
        return index if index >= 0 and ordinal < self._gaps[index][1] else None
