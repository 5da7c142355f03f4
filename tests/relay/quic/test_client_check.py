"""Which certificates of clients are good, and the alert for each that is not (RFC 8446 §4.4.2, RFC 5280 §6)."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from relay.quic.aioquic_tls import ServerContext
from relay.quic.client_check import CertificateAlert, ClientRefused, ClientVerifier, fingerprint
from relay.quic.engine import ClientCheck, EngineError, EngineName, TransportLimits, load_factory
from tests.relay.quic.authority import CA, CLIENT_USE, SERVER_USE, Issued, usage

ROOT = Issued.root()
MIDDLE = ROOT.issue("middle", [CA, usage(certifies=True)])
UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00"), True)
ANY_USE = (x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)
DNS = (x509.NameConstraints([x509.DNSName("hop.example")], None), True)


def verifier(tmp_path: Path, *authorities: Issued, is_required: bool = True) -> ClientVerifier:
    """A verifier that trusts these."""
    file = tmp_path / "authorities.pem"
    file.write_bytes(b"".join(one.certificate.public_bytes(Encoding.PEM) for one in authorities))
    return ClientVerifier(ClientCheck(file, is_required=is_required))


def alert(found: ClientVerifier, chain: list[x509.Certificate]) -> CertificateAlert:
    """The alert that refuses a chain."""
    with pytest.raises(ClientRefused) as caught:
        found.verify(chain)
    assert str(caught.value) == caught.value.alert.name.lower()
    return caught.value.alert


@pytest.mark.parametrize(
    "good",
    [
        ROOT.issue(),
        ROOT.issue(extensions=[]),  # an authority of one's own often says nothing about uses
        ROOT.issue(extensions=[CLIENT_USE, usage(signs=True)]),
        ROOT.issue(extensions=[ANY_USE]),
        ROOT.issue(extensions=[(SERVER_USE[0], False), usage(signs=True)][1:]),
        MIDDLE.issue(),
        MIDDLE.issue("second", [CA]).issue(),
    ],
)
def test_good_chains(tmp_path: Path, good: Issued) -> None:
    verifier(tmp_path, ROOT).verify(good.all)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (ROOT.issue(days=-1).all, CertificateAlert.CERTIFICATE_EXPIRED),
        (ROOT.issue(days=20).all, CertificateAlert.CERTIFICATE_EXPIRED),  # not valid yet
        (ROOT.issue("middle", [CA], days=-1).issue().all, CertificateAlert.CERTIFICATE_EXPIRED),
        (Issued.root().issue().all, CertificateAlert.UNKNOWN_CA),  # the authority's name, another key
        (Issued.root("other").issue().all, CertificateAlert.UNKNOWN_CA),
        (MIDDLE.issue().all[:1], CertificateAlert.UNKNOWN_CA),  # the chain is not complete
        (ROOT.issue(extensions=[SERVER_USE]).all, CertificateAlert.UNSUPPORTED_CERTIFICATE),
        (ROOT.issue(extensions=[CLIENT_USE, usage()]).all, CertificateAlert.UNSUPPORTED_CERTIFICATE),
        (ROOT.issue("no-authority", []).issue().all, CertificateAlert.UNKNOWN_CA),
        (ROOT.issue("no-signer", [CA, usage(signs=True)]).issue().all, CertificateAlert.UNKNOWN_CA),
        (ROOT.issue(extensions=[UNKNOWN]).all, CertificateAlert.UNKNOWN_CA),
        (
            ROOT.issue("constrained", [CA, DNS])
            .issue(extensions=[(x509.SubjectAlternativeName([x509.DNSName("else.example")]), False)])
            .all,
            CertificateAlert.UNKNOWN_CA,
        ),
    ],
)
def test_bad_chains(tmp_path: Path, bad: list[x509.Certificate], expected: CertificateAlert) -> None:
    for is_required in (True, False):
        assert alert(verifier(tmp_path, ROOT, is_required=is_required), bad) is expected


def test_none_at_all(tmp_path: Path) -> None:
    assert alert(verifier(tmp_path, ROOT), []) is CertificateAlert.CERTIFICATE_REQUIRED
    verifier(tmp_path, ROOT, is_required=False).verify([])


def test_a_certificate_can_be_trusted_by_itself(tmp_path: Path) -> None:
    alone = Issued.root("hop", [])
    verifier(tmp_path, alone).verify(alone.all)
    assert alert(verifier(tmp_path, alone), alone.issue().all) is CertificateAlert.UNKNOWN_CA


def test_many_issuers_of_one_name_are_no_search(tmp_path: Path) -> None:
    """Each could be the issuer of each: only one is tried."""
    loop = Issued.root("loop")
    same = [Issued.root("loop").certificate for _ in range(30)]
    assert alert(verifier(tmp_path, ROOT), [loop.issue().certificate, *same]) is CertificateAlert.UNKNOWN_CA
    leaf = MIDDLE.issue()
    verifier(tmp_path, ROOT).verify([*leaf.all, *same])


def test_dates_are_looked_at_on_every_connection(tmp_path: Path) -> None:
    now = [datetime.datetime.now(datetime.UTC)]
    file = tmp_path / "authorities.pem"
    file.write_bytes(ROOT.certificate.public_bytes(Encoding.PEM))
    found = ClientVerifier(ClientCheck(file, is_required=True), lambda: now[0])
    client = ROOT.issue(days=0.5)
    found.verify(client.all)
    now[0] += datetime.timedelta(days=0.6)
    assert alert(found, client.all) is CertificateAlert.CERTIFICATE_EXPIRED


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^tls\.client_ca: cannot read .*: No such file"):
        ClientVerifier(ClientCheck(tmp_path / "none.pem", is_required=True))
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(EngineError, match=r"^tls\.client_ca: .* holds no PEM certificate"):
        ClientVerifier(ClientCheck(tmp_path / "text.pem", is_required=True))


def test_qh3_says_which_engine_can(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        load_factory(EngineName.QH3, TransportLimits(), None, ClientCheck(tmp_path / "x", is_required=True))
    assert (
        str(caught.value)
        == "tls.client_certificates: qh3 cannot ask clients for certificates; the engine aioquic can"
    )


# What a client may send in place of a certificate.


def context(found: ClientVerifier) -> ServerContext:
    """A server that awaits the client's Certificate."""
    made = ServerContext.of(tls.Context(is_client=False), found)
    made.state = tls.State.SERVER_EXPECT_CERTIFICATE
    made.key_schedule = tls.KeySchedule(tls.CipherSuite.AES_128_GCM_SHA256)
    made._dec_key = bytes(32)
    return made


def message(*certificates: bytes, request_context: bytes = b"") -> bytes:
    """A Certificate message (RFC 8446 §4.4.2)."""
    buffer = Buffer(capacity=1 << 16)
    tls.push_certificate(buffer, tls.Certificate(request_context, [(one, b"") for one in certificates]))
    data: bytes = buffer.data
    return data


GOOD = ROOT.issue().certificate.public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def required(tmp_path_factory: pytest.TempPathFactory) -> ClientVerifier:
    return verifier(tmp_path_factory.mktemp("authorities"), ROOT)


def handled(found: ClientVerifier, data: bytes) -> int | None:
    """The alert that bytes of a client's flight lead to; nothing else may be raised."""
    server = context(found)
    try:
        server.handle_message(data, {})
    except tls.Alert as raised:
        assert server.proven_certificate is None
        return int(raised.description)
    return None


def test_a_good_certificate_is_believed_only_after_its_proof(required: ClientVerifier) -> None:
    server = context(required)
    server.handle_message(message(GOOD), {})
    assert server.state is tls.State.SERVER_EXPECT_CERTIFICATE_VERIFY
    assert server.proven_certificate is None
    server.state = tls.State.SERVER_POST_HANDSHAKE
    assert server.proven_certificate == fingerprint(x509.load_der_x509_certificate(GOOD))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (message(), CertificateAlert.CERTIFICATE_REQUIRED),
        (message(b""), CertificateAlert.BAD_CERTIFICATE),
        (message(GOOD[:-1]), CertificateAlert.BAD_CERTIFICATE),
        (message(GOOD + b"\0"), CertificateAlert.BAD_CERTIFICATE),
        (message(GOOD, b"no certificate"), CertificateAlert.BAD_CERTIFICATE),
        (message(GOOD.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09")), CertificateAlert.BAD_CERTIFICATE),
        (message(GOOD, request_context=b"x"), tls.AlertDescription.illegal_parameter),
        (bytes([tls.HandshakeType.FINISHED, 0, 0, 0]), tls.AlertDescription.unexpected_message),
        (bytes([tls.HandshakeType.CERTIFICATE_VERIFY, 0, 0, 0]), tls.AlertDescription.unexpected_message),
        (bytes([tls.HandshakeType.CERTIFICATE, 0, 0, 0]), tls.AlertDescription.decode_error),
        (bytes([tls.HandshakeType.CERTIFICATE, 1, 0, 0]) + bytes(32 << 10), tls.AlertDescription.decode_error),
    ],
)
def test_flights_of_clients(required: ClientVerifier, data: bytes, expected: int) -> None:
    assert handled(required, data) == expected


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # cryptography's, of one that is made negative
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_gets_a_certificate_in(required: ClientVerifier, at: int, change: int) -> None:
    """But for the byte that says how many of the signature's last bits do not count: nobody signs it."""
    changed = bytearray(GOOD)
    changed[at] ^= change
    found = handled(required, message(bytes(changed)))
    signature = x509.load_der_x509_certificate(GOOD).signature
    assert found in set(CertificateAlert) or at == len(GOOD) - len(signature) - 1


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.binary(max_size=300))
def test_any_bytes_end_in_an_alert(required: ClientVerifier, data: bytes) -> None:
    length = len(data).to_bytes(3, "big")
    assert handled(required, bytes([tls.HandshakeType.CERTIFICATE]) + length + data) is not None
    assert handled(required, message(data)) is not None
