"""What a session asks of its QUIC connection, and whom it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from masque.head import ResponseHead
from relay.exchange import Exchange

if TYPE_CHECKING:
    from relay.session.session import Session

__all__ = ["SessionObserver", "Transport"]


class Transport(Protocol):
    """What a session needs of its QUIC connection; `relay.quic.link.Link` is one."""

    @property
    def max_datagram_payload(self) -> int:
        """Largest DATAGRAM payload, in bytes."""

    @property
    def holds_connection(self) -> bool:
        """Whether `hold` stops other streams too."""

    def send_stream(self, stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        """Queue bytes on a stream."""

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        """Queue DATAGRAM frames."""

    def backlog(self, stream_id: int) -> int:
        """Bytes not sent yet."""

    def hold(self, stream_id: int) -> None:
        """Stop giving credit."""

    def release(self, stream_id: int) -> None:
        """Give credit again."""

    def reset_stream(self, stream_id: int, code: int) -> None:
        """RESET_STREAM."""

    def stop_sending(self, stream_id: int, code: int) -> None:
        """STOP_SENDING."""

    def close(self, code: int, reason: str = "") -> None:
        """CONNECTION_CLOSE."""


class SessionObserver(Protocol):
    """Who is told of what happens on a session."""

    def request_received(self, session: Session, exchange: Exchange) -> None:
        """Server: a client asks for something."""

    def response_received(self, session: Session, exchange: Exchange, head: ResponseHead) -> None:
        """Client: the relay answers; a status of 1xx is interim."""

    def session_ready(self, session: Session) -> None:
        """The peer's SETTINGS arrived."""

    def session_draining(self, session: Session) -> None:
        """The peer sent GOAWAY."""

    def session_closed(self, session: Session, code: int) -> None:
        """The connection is over; all exchanges were aborted."""
