"""Client certificates between engines, in memory: what each side sees, and clients that cheat in the handshake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from relay.quic.engine import (
    ClientCheck,
    ClientOptions,
    EngineError,
    EngineName,
    Established,
    Terminated,
    TransportLimits,
    load_factory,
)
from tests.relay.quic.authority import Issued
from tests.relay.quic.network import SERVER, Network, Pki

ROOT = Issued.root()
CLIENT = ROOT.issue()


def network(
    pki: Pki, folder: Path, client: EngineName, issued: Issued | None, *, is_required: bool = True
) -> Network:
    """A client with a certificate, and a server on aioquic that asks for one of `ROOT`."""
    file = folder / "authorities.pem"
    file.write_bytes(ROOT.certificate.public_bytes(Encoding.PEM))
    certificate = None if issued is None else issued.write(folder, "client")
    options = ClientOptions("localhost", ca_file=pki.ca_file, certificate=certificate)
    clients = load_factory(client, TransportLimits(), None)
    check = ClientCheck(file, is_required=is_required)
    servers = load_factory(EngineName.AIOQUIC, TransportLimits(), pki.certificate, check)
    return Network(clients.client(options, SERVER, Network.START), servers)


def refused_with(found: Network) -> int:
    """Run the handshake, which must fail; the alert that the client got."""
    found.run(1.0)
    assert found.server_end.of(Established) == []
    assert found.server.peer_certificate is None
    [told] = found.client_end.of(Terminated)
    assert found.server_end.of(Terminated) == [told]
    return told.code - 0x100


def test_the_server_knows_who_it_is(pki: Pki, tmp_path: Path, client_name: EngineName) -> None:
    found = network(pki, tmp_path, client_name, CLIENT)
    found.establish()
    assert found.server.peer_certificate is not None
    assert f"sha256:{found.server.peer_certificate.hex()}" == CLIENT.fingerprint
    assert found.client.peer_certificate is None


def test_optional_and_none(pki: Pki, tmp_path: Path, client_name: EngineName) -> None:
    found = network(pki, tmp_path, client_name, None, is_required=False)
    found.establish()
    assert found.server.peer_certificate is None


def test_required_and_none(pki: Pki, tmp_path: Path, client_name: EngineName) -> None:
    assert refused_with(network(pki, tmp_path, client_name, None)) == tls.AlertDescription.certificate_required


def test_the_key_of_another(pki: Pki, tmp_path: Path) -> None:
    """A good certificate is public: its owner's key makes the CertificateVerify (RFC 8446 §4.4.3)."""
    found = network(pki, tmp_path, EngineName.AIOQUIC, CLIENT)
    found.client._connection.tls.certificate_private_key = ec.generate_private_key(ec.SECP256R1())
    assert refused_with(found) == tls.AlertDescription.decrypt_error


@pytest.mark.parametrize("is_required", [True, False])
def test_a_flight_without_the_certificate_that_was_asked_for(pki: Pki, tmp_path: Path, is_required: bool) -> None:
    """The client goes on as if it had not been asked (RFC 8446 §4.4.2: it must answer)."""
    found = network(pki, tmp_path, EngineName.AIOQUIC, CLIENT, is_required=is_required)
    context: Any = found.client._connection.tls
    handle = context._client_handle_certificate_request

    def forget(data: object) -> None:
        handle(data)
        context._certificate_request = None

    context._client_handle_certificate_request = forget
    assert refused_with(found) == tls.AlertDescription.unexpected_message


def test_a_certificate_without_its_proof(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client leaves out its CertificateVerify."""
    found = network(pki, tmp_path, EngineName.AIOQUIC, CLIENT)
    server_sends = tls.push_certificate_verify

    def push(buffer: Buffer, verify: tls.CertificateVerify) -> None:
        if found.client._connection.tls.state is not tls.State.CLIENT_EXPECT_FINISHED:
            server_sends(buffer, verify)

    monkeypatch.setattr(tls, "push_certificate_verify", push)
    assert refused_with(found) == tls.AlertDescription.unexpected_message


@pytest.mark.parametrize("asks", [True, False])
def test_an_endless_message_is_cut(pki: Pki, tmp_path: Path, asks: bool) -> None:
    """aioquic itself would keep up to 16 MiB of one message, whoever sends it."""
    found = network(pki, tmp_path, EngineName.AIOQUIC, None, is_required=False)
    if not asks:
        found = Network(found.client, load_factory(EngineName.AIOQUIC, TransportLimits(), pki.certificate))
    flight = found.client._connection._crypto_streams[tls.Epoch.INITIAL].sender
    flight.write(bytes([tls.HandshakeType.CERTIFICATE, 0xFF, 0xFF, 0xFF]) + bytes(60_000))
    found.run(3.0)
    assert [event.code - 0x100 for event in found.server_end.of(Terminated)] == [tls.AlertDescription.decode_error]


def test_a_certificate_that_the_client_cannot_use(pki: Pki, tmp_path: Path, client_name: EngineName) -> None:
    own, other = CLIENT.write(tmp_path, "own"), ROOT.issue().write(tmp_path, "other")
    factory = load_factory(client_name, TransportLimits(), None)
    for certificate, expected in (
        (replace(own, private_key=other.private_key), "client certificate's key: .* is not the key of"),
        (replace(own, chain=tmp_path / "none"), "client certificate: cannot read "),
    ):
        with pytest.raises(EngineError, match=f"^{expected}"):
            factory.client(ClientOptions("localhost", certificate=certificate), SERVER, 0.0)
