"""HTTP/1.1 over TLS for the development issuer, on h11: so many connections, so many bytes, so many seconds.

It logs nothing: who asked for tokens, and when, is what an issuer must not keep.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import h11
from anyio.abc import AnyByteStream, ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from relay.issuer.answer import MAX_REQUEST_SIZE, Answer, DevelopmentIssuer, Request

__all__ = ["serve_issuer"]

_MAX_CONNECTIONS = 64
_MAX_HEAD = 16384
_MAX_REQUESTS = 10_000
"Requests of one connection."
_SECONDS = 15.0
"For a handshake, and for each request with its answer; also for the wait before it."
_READ_SIZE = 4096


async def serve_issuer(
    issuer: DevelopmentIssuer,
    listen: tuple[str, int],
    certificate: tuple[Path, Path],
    on_ready: Callable[[str, int], None],
) -> None:
    """Serve until cancelled.

    Args:
        issuer: what answers.
        listen: a literal address and a port; port 0 takes any.
        certificate: PEM files of the chain and of its key.
        on_ready: told the address and port.

    Raises:
        OSError: the port cannot be opened, or a file cannot be read.
        ssl.SSLError: the files hold no certificate and key that belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["http/1.1"])
    turns = anyio.Semaphore(_MAX_CONNECTIONS)

    async def handle(stream: ByteStream) -> None:
        try:
            turns.acquire_nowait()
        except anyio.WouldBlock:
            await anyio.aclose_forcefully(stream)
            return
        try:
            await _Connection(stream, issuer).serve()
        finally:
            turns.release()
            await anyio.aclose_forcefully(stream)

    listener = await anyio.create_tcp_listener(local_host=listen[0], local_port=listen[1])
    async with _Listener(listener, context, standard_compatible=False, handshake_timeout=_SECONDS) as tls:
        address = listener.listeners[0].extra(SocketAttribute.local_address)
        on_ready(str(address[0]), int(address[1]))
        await tls.serve(handle)


class _Listener(TLSListener):
    """A listener that keeps failed handshakes to itself: they are nobody's business."""

    @staticmethod
    async def handle_handshake_error(exc: BaseException, stream: AnyByteStream) -> None:
        """Close, without a log line; what is no error of the handshake goes on."""
        await anyio.aclose_forcefully(stream)
        if not isinstance(exc, Exception):
            raise exc


class _Connection:
    """One connection: requests and answers in turn (RFC 9112)."""

    def __init__(self, stream: ByteStream, issuer: DevelopmentIssuer) -> None:
        self._stream = stream
        self._issuer = issuer
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)

    async def serve(self) -> None:
        """Answer until the client has enough, breaks a rule or is too slow."""
        try:
            for _ in range(_MAX_REQUESTS):
                with anyio.fail_after(_SECONDS):
                    request = await self._read_request()
                    if request is None:
                        return
                    await self._send(self._issuer.answer(request), request)
                if self._machine.our_state is not h11.DONE or self._machine.their_state is not h11.DONE:
                    return
                self._machine.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint)
        except (TimeoutError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            return

    async def _read_request(self) -> Request | None:
        """Read a request whole; None when there is no further one."""
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        fields = dict(head.headers)
        content = b""
        while len(content) <= MAX_REQUEST_SIZE:
            event = await self._next_event()
            if not isinstance(event, h11.Data):
                break
            content += event.data
        media_type = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
        authorization = fields.get(b"authorization", b"")
        return Request(head.method, head.target, media_type, authorization, content)

    async def _next_event(self) -> object:
        while (event := self._machine.next_event()) is h11.NEED_DATA:
            if self._machine.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                self._machine.receive_data(await self._stream.receive(_READ_SIZE))
            except anyio.EndOfStream:
                self._machine.receive_data(b"")
        return event

    async def _send(self, answer: Answer, request: Request) -> None:
        length = b"%d" % len(answer.content)
        fields = [(b"content-type", answer.media_type), (b"content-length", length), *answer.fields]
        await self._write(h11.Response(status_code=answer.status, headers=fields))
        if request.method != b"HEAD":
            await self._write(h11.Data(data=answer.content))
        await self._write(h11.EndOfMessage())

    async def _refuse(self, status: int) -> None:
        """Tell a client that broke a rule, if it can still be told."""
        if self._machine.our_state is not h11.SEND_RESPONSE and self._machine.our_state is not h11.IDLE:
            return
        with anyio.move_on_after(1.0):
            try:
                fields = [(b"content-length", b"0"), (b"connection", b"close")]
                await self._write(h11.Response(status_code=status, headers=fields))
                await self._write(h11.EndOfMessage())
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def _write(self, event: h11.Event) -> None:
        data = self._machine.send(event)
        if data:
            await self._stream.send(data)
