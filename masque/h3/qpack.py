"""Field compression with an empty dynamic table in both directions (RFC 9204).

We announce a table capacity of 0 and never insert into the peer's table. What repeats between requests here is
small and in the static table; tokens and paths do not repeat. In return no stream ever blocks on another, no
state outlives a field section, and 16 KiB of input cannot name a large table entry thousands of times over to
become tens of MiB. The streams for instructions carry nothing then, so ours are not opened (RFC 9204 §4.2), and
the peer's are checked byte by byte without any buffer.
"""

from __future__ import annotations

import pylsqpack

from masque.errors import ErrorCode, LocalMisuse, Malformed, Reach

__all__ = ["DecoderStream", "FieldCodec", "FieldLines", "check_encoder_stream"]

FieldLines = list[tuple[bytes, bytes]]
"Field lines as they stand in a section, pseudo-header fields among them."

_SET_CAPACITY_ZERO = b"\x20"
"The instruction Set Dynamic Table Capacity with the value 0 (RFC 9204 §4.3.1)."
_CANCELLATION_VALUE_MAX = 10
"Bytes that a stream cancellation's integer may take after its first (RFC 9204 §4.1.1)."


class FieldCodec:
    """Encodes and decodes the field sections of one connection."""

    __slots__ = ("_decoder", "_encoder")

    def __init__(self) -> None:
        self._decoder = pylsqpack.Decoder(0, 0)
        self._encoder = pylsqpack.Encoder()
        self._encoder.apply_settings(0, 0)

    def encode(self, stream_id: int, lines: FieldLines) -> bytes:
        """Encode a field section (RFC 9204 §4.5).

        Args:
            stream_id: the request stream.
            lines: the field lines, pseudo-header fields first.

        Returns:
            The encoded section, the payload of a HEADERS frame.

        Raises:
            LocalMisuse: a name or a value is longer than 64 KiB, or a name is empty.
        """
        try:
            _, section = self._encoder.encode(stream_id, lines)
        except ValueError as error:
            raise LocalMisuse("a field that cannot be encoded") from error
        return section

    def decode(self, stream_id: int, section: bytes) -> FieldLines:
        """Decode a field section (RFC 9204 §4.5).

        Args:
            stream_id: the request stream.
            section: the payload of a HEADERS frame.

        Returns:
            The field lines. At most about 100 bytes for each byte of input: an entry of the static table.

        Raises:
            Malformed: the section cannot be decoded, or refers to a dynamic table (CONNECTION).
        """
        if len(section) == 2 and section[0] == 0 and section[1] < 0x7F:
            return []  # a section without lines is legal, but the library refuses it
        try:
            _, lines = self._decoder.feed_header(stream_id, section)
        except (pylsqpack.DecompressionFailed, pylsqpack.StreamBlocked, ValueError) as error:
            raise Malformed(
                "a field section that cannot be decoded",
                reach=Reach.CONNECTION,
                code=ErrorCode.QPACK_DECOMPRESSION_FAILED,
            ) from error
        return lines


def check_encoder_stream(data: bytes) -> None:
    """Check instructions from the peer's encoder to our decoder (RFC 9204 §3.2.3, §4.3).

    With a capacity of 0 none is legal. Setting the capacity to 0 changes nothing, so it is let pass.

    Args:
        data: the stream's next bytes.

    Raises:
        Malformed: there is any other instruction (CONNECTION).
    """
    if data.strip(_SET_CAPACITY_ZERO):
        raise Malformed(
            "an instruction for a dynamic table that does not exist",
            reach=Reach.CONNECTION,
            code=ErrorCode.QPACK_ENCODER_STREAM_ERROR,
        )


class DecoderStream:
    """Checks instructions from the peer's decoder to our encoder (RFC 9204 §4.4).

    Only stream cancellations are legal, since our field sections need no acknowledgement. They mean nothing here.
    """

    __slots__ = ("_value_bytes",)

    def __init__(self) -> None:
        self._value_bytes = 0
        "Bytes of the present cancellation so far, or 0 between instructions."

    def receive(self, data: bytes) -> None:
        """Check the stream's next bytes.

        Args:
            data: the bytes.

        Raises:
            Malformed: there is an acknowledgement, an increment, or an endless integer (CONNECTION).
        """
        for byte in data:
            if self._value_bytes:
                self._value_bytes = self._value_bytes + 1 if byte & 0x80 else 0
                is_legal = self._value_bytes <= _CANCELLATION_VALUE_MAX
            else:
                self._value_bytes = 1 if byte & 0x3F == 0x3F else 0
                is_legal = byte & 0xC0 == 0x40
            if not is_legal:
                raise Malformed(
                    "an acknowledgement of a dynamic table that is not used",
                    reach=Reach.CONNECTION,
                    code=ErrorCode.QPACK_DECODER_STREAM_ERROR,
                )
