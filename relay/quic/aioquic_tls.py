"""aioquic's TLS server as the relay needs it: it bounds what a handshake may bring, and asks for client certificates.

aioquic can send a CertificateRequest, and checks that the client owns the key of the certificate it sends
(RFC 8446 §4.4.3). It leaves out who signed the certificate, and whether there is one at all: that is done here, as
soon as the client's Certificate message is there and before the handshake can complete, so that a refused client
gets its alert (RFC 8446 §4.4.2.4, RFC 9001 §4.8) and no request of it is ever read. There is no resumption here, so
every connection is checked.

With `relay.quic.aioquic_engine` the only place where aioquic's private names are used.
"""

from __future__ import annotations

from typing import Final

from aioquic import tls
from aioquic._buffer import Buffer

from relay.quic.client_check import ClientRefused, ClientVerifier, fingerprint

__all__ = ["ServerContext"]

_LARGEST_MESSAGE: Final = 32 << 10
"Bytes of handshake messages that may wait for their end; a chain of certificates has some 3,000."
_CONTEXT_LENGTH_AT: Final = 4
"Where a Certificate message says how long its request context is: after the handshake header."


class _Refusal(tls.Alert):
    """An alert of ours on the way to aioquic."""

    def __init__(self, refused: ClientRefused) -> None:
        super().__init__("")
        self.description = tls.AlertDescription(refused.alert)


class ServerContext(tls.Context):
    """The TLS side of one server connection."""

    clients: ClientVerifier | None

    @classmethod
    def of(cls, context: tls.Context, clients: ClientVerifier | None) -> ServerContext:
        """Take over the state of a context that is fresh.

        Args:
            context: as aioquic's connection has made it.
            clients: checks clients' certificates; None asks for none.
        """
        made = cls.__new__(cls)
        vars(made).update(vars(context))
        made.clients = clients
        made._request_client_certificate = clients is not None
        return made

    @property
    def proven_certificate(self) -> bytes | None:
        """SHA-256 of the client's certificate, once the handshake is complete; None without one."""
        certificate = self._peer_certificate
        if certificate is None or self.state is not tls.State.SERVER_POST_HANDSHAKE:
            return None
        return fingerprint(certificate)

    def handle_message(self, input_data: bytes, output_buf: dict[tls.Epoch, Buffer]) -> None:
        """Handle bytes of the handshake; aioquic would keep as many as the client cares to send."""
        if len(self._receive_buffer) + len(input_data) > _LARGEST_MESSAGE:
            raise tls.AlertDecodeError("a handshake message is too long")
        super().handle_message(input_data, output_buf)

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        if input_buf.data_slice(_CONTEXT_LENGTH_AT, _CONTEXT_LENGTH_AT + 1) != b"\0":
            raise tls.AlertIllegalParameter("a request context that nobody sent")
        super()._server_handle_certificate(input_buf)
        if self.clients is not None:
            leaf = self._peer_certificate
            try:
                self.clients.verify([] if leaf is None else [leaf, *self._peer_certificate_chain])
            except ClientRefused as refused:
                raise _Refusal(refused) from None

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        try:
            super()._set_peer_certificate(certificate)
        except tls.Alert:
            raise
        except Exception as error:
            raise tls.AlertBadCertificate("a certificate that cannot be read") from error
