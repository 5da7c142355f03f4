"""Where and how clients are served: the socket, the certificate, QUIC, and the templates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, model_validator

from masque.errors import LocalMisuse
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from relay.settings.branches.bounds import MIB, Branch, IpText, readable_by, sized, within
from relay.settings.values import parse_client_entry

__all__ = ["ListenSettings", "QuicSettings", "TemplateSettings", "TlsSettings"]


def _udp_template(value: str) -> str:
    try:
        Template(value)
    except LocalMisuse as error:
        raise ValueError(f"must be a template of CONNECT-UDP: {error.detail}") from None
    return value


class ListenSettings(Branch):
    """Where clients reach the relay."""

    host: IpText = "127.0.0.1"
    """The address to listen on. Only this machine reaches the default; `::` or `0.0.0.0` opens it to others."""
    port: Annotated[int, within(0, 65535)] = 4433
    """The UDP port; 0 takes any free one."""


class TlsSettings(Branch):
    """How the relay proves who it is, and whether its clients must. The first two files are needed to serve."""

    certificate: Path | None = None
    """A PEM file with the certificate and its chain."""
    private_key: Path | None = None
    """A PEM file with the certificate's private key."""
    client_certificates: Literal["off", "optional", "required"] = "off"
    """Whether clients are asked for a certificate in the handshake. Where they are, a bad one ends the handshake, and
    with `required` so does none. Only the engine aioquic can ask."""
    client_ca: Path | None = None
    """A PEM file with the authorities that sign clients' certificates."""
    clients: tuple[Annotated[str, readable_by(parse_client_entry)], ...] = ()
    """Whom a certificate admits to tunnels without other credentials: `name=sha256:` and the certificate's
    fingerprint, or `name=*` for all others that are good. The name is the principal's. A certificate that no entry is
    for admits to the connection only."""

    @model_validator(mode="after")
    def _client_certificates(self) -> TlsSettings:
        if self.client_certificates == "off":
            if self.clients or self.client_ca is not None:
                raise ValueError(
                    "client_certificates, client_ca, clients: the first is off, so the others do nothing"
                )
        elif self.client_ca is None:
            raise ValueError("client_ca: must name a PEM file when clients are asked for certificates")
        marks = [parse_client_entry(entry)[1] for entry in self.clients]
        if len(set(marks)) != len(marks):
            raise ValueError("clients: must have one entry per certificate")
        return self


class QuicSettings(Branch):
    """The QUIC transport."""

    engine: Literal["qh3", "aioquic"] = "qh3"
    """The QUIC library: qh3 is the fast one, aioquic the reference."""
    max_datagram_size: Annotated[int, within(1232, 1472)] = 1350
    """The largest UDP payload sent, in bytes. Below 1350 an inner QUIC handshake of 1252 bytes does not fit."""
    retry_threshold: Annotated[int, within(0, 1_000_000)] = 64
    """Half-open handshakes above which new clients must prove their address (RFC 9000 §8.1.2); 0 is always."""
    reset_key: Path | None = None
    """A file with 32 random bytes or more, kept over restarts: clients of connections that a restart cut learn so at
    once by a stateless reset (RFC 9000 §10.3). Without it they wait for their idle time-out."""
    receive_buffer: Annotated[ByteSize, sized(64 * 1024, 256 * MIB)] = ByteSize(4 * MIB)
    """The kernel's receive buffer of the listening socket; the kernel may grant less."""
    send_buffer: Annotated[ByteSize, sized(64 * 1024, 256 * MIB)] = ByteSize(4 * MIB)
    """The kernel's send buffer of the listening socket; the kernel may grant less."""


class TemplateSettings(Branch):
    """Where tunnels are asked for: URI templates as RFC 6570 and RFC 9298 §2 have them."""

    udp: tuple[Annotated[str, AfterValidator(_udp_template)], ...] = (DEFAULT_UDP_TEMPLATE,)
    """Templates of CONNECT-UDP with the variables `target_host` and `target_port`. Empty: no CONNECT-UDP."""
