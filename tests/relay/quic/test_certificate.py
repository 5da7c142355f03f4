"""Each mistake in certificate files is one sentence that names the setting and the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from relay.quic.certificate import check_authorities, check_certificate
from relay.quic.engine import Certificate, EngineError
from tests.relay.quic.network import Pki

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def write_key(path: Path, key: PrivateKey, encryption: KeySerializationEncryption | None = None) -> Path:
    """Write a private key as PEM."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    return path


def message(chain: Path, private_key: Path) -> str:
    """What `check_certificate` says."""
    with pytest.raises(EngineError) as caught:
        check_certificate(Certificate(chain, private_key))
    text = str(caught.value)
    assert "\n" not in text
    assert "PRIVATE KEY" not in text
    return text


def test_a_good_pair_passes(pki: Pki) -> None:
    check_certificate(pki.certificate)


def test_a_chain_of_several_certificates_passes(pki: Pki, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(pki.certificate.chain.read_bytes() + pki.ca_file.read_bytes())
    check_certificate(Certificate(chain, pki.certificate.private_key))


def test_missing_files(pki: Pki, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    text = message(missing, pki.certificate.private_key)
    assert text == f"tls.certificate: cannot read {missing}: No such file or directory"
    text = message(pki.certificate.chain, missing)
    assert text == f"tls.private_key: cannot read {missing}: No such file or directory"


def test_a_folder_is_not_a_file(pki: Pki, tmp_path: Path) -> None:
    assert message(tmp_path, pki.certificate.private_key).startswith("tls.certificate: cannot read")
    assert message(pki.certificate.chain, tmp_path).startswith("tls.private_key: cannot read")


@pytest.mark.parametrize("content", [b"", b"not PEM", b"\x30\x82\x01\x00" * 10], ids=["empty", "text", "binary"])
def test_not_pem(pki: Pki, tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    assert message(other, pki.certificate.private_key) == f"tls.certificate: {other} holds no PEM certificate"
    text = message(pki.certificate.chain, other)
    assert text == f"tls.private_key: {other} holds no unencrypted PEM private key"


def test_the_files_swapped(pki: Pki) -> None:
    chain, key = pki.certificate.chain, pki.certificate.private_key
    assert message(key, chain) == f"tls.certificate: {key} holds no PEM certificate"


def test_an_encrypted_key(pki: Pki, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted = write_key(tmp_path / "key", key, BestAvailableEncryption(b"secret"))
    text = message(pki.certificate.chain, encrypted)
    assert text == f"tls.private_key: {encrypted} holds no unencrypted PEM private key"


def test_the_key_of_another_certificate(pki: Pki, other_pki: Pki, tmp_path: Path) -> None:
    chain, other = pki.certificate.chain, other_pki.certificate.private_key
    assert message(chain, other) == f"tls.private_key: {other} is not the key of the certificate in {chain}"
    rsa_key = write_key(tmp_path / "rsa", rsa.generate_private_key(65537, 2048))
    assert "is not the key of the certificate" in message(chain, rsa_key)


def test_a_kind_of_key_that_not_all_engines_take(pki: Pki, tmp_path: Path) -> None:
    key = write_key(tmp_path / "key", ed25519.Ed25519PrivateKey.generate())
    text = message(pki.certificate.chain, key)
    assert text == "tls.private_key: only ECDSA and RSA keys are supported by both engines"


def test_authorities(pki: Pki, tmp_path: Path) -> None:
    check_authorities(pki.ca_file)
    missing = tmp_path / "missing.pem"
    with pytest.raises(EngineError, match=r"trusted authorities: cannot read .*: No such file or directory"):
        check_authorities(missing)
    missing.write_text("nothing")
    with pytest.raises(EngineError, match="holds no PEM certificate"):
        check_authorities(missing)
