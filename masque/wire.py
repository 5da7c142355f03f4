"""A cursor over one complete value, which may read that value only and must use all of it.

RFC 9297 §3.3 makes a capsule malformed when its value holds fewer or more bytes than its fields. A cursor
restricted to the value turns both mistakes into one error, so that no parser has to compare lengths.
"""

from __future__ import annotations

from masque.errors import Malformed
from masque.varint import parse_varint

__all__ = ["Cursor"]


class Cursor:
    """Reads the fields of a capsule's value in order (RFC 9297 §3.3)."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        """Start at the first byte.

        Args:
            data: the whole value. After the last field, call `expect_end`.
        """
        self._data = data
        self._offset = 0

    @property
    def remaining(self) -> int:
        """The number of bytes not yet read."""
        return len(self._data) - self._offset

    def pull_varint(self) -> int:
        """Read a variable-length integer (RFC 9000 §16).

        Returns:
            Its value.

        Raises:
            Malformed: the value ends first (reach STREAM, code H3_MESSAGE_ERROR).
        """
        parsed = parse_varint(self._data, self._offset)
        if parsed is None:
            raise Malformed("a value that ends inside a variable-length integer")
        number, self._offset = parsed
        return number

    def pull_uint8(self) -> int:
        """Read one byte.

        Returns:
            Its value, 0 to 255.

        Raises:
            Malformed: the value ends first (reach STREAM, code H3_MESSAGE_ERROR).
        """
        return self.pull_bytes(1)[0]

    def pull_bytes(self, size: int) -> bytes:
        """Read exactly this many bytes.

        Args:
            size: how many; not negative.

        Returns:
            The bytes.

        Raises:
            Malformed: the value ends first (reach STREAM, code H3_MESSAGE_ERROR).
        """
        if size > self.remaining:
            raise Malformed("a value that ends inside a field")
        start = self._offset
        self._offset += size
        return self._data[start : self._offset]

    def expect_end(self) -> None:
        """Check that every byte was read (RFC 9297 §3.3).

        Raises:
            Malformed: bytes are left (reach STREAM, code H3_MESSAGE_ERROR).
        """
        if self.remaining:
            raise Malformed("a value with bytes after its last field")
