"""Checks certificates and keys before an engine gets them, so that a mistake is one readable line."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from relay.quic.engine import Certificate, EngineError

__all__ = ["check_authorities", "check_certificate"]


def check_certificate(certificate: Certificate) -> None:
    """Refuse a chain or key that cannot be read, is of a kind TLS 1.3 servers here cannot use, or do not match.

    Raises:
        EngineError: one sentence naming the setting and what is wrong. It holds paths, never key material.
    """
    try:
        chain = x509.load_pem_x509_certificates(certificate.chain.read_bytes())
    except OSError as exc:
        raise EngineError(f"tls.certificate: cannot read {certificate.chain}: {exc.strerror}") from exc
    except ValueError as exc:
        raise EngineError(f"tls.certificate: {certificate.chain} holds no PEM certificate") from exc
    try:
        key = load_pem_private_key(certificate.private_key.read_bytes(), password=None)
    except OSError as exc:
        raise EngineError(f"tls.private_key: cannot read {certificate.private_key}: {exc.strerror}") from exc
    except (ValueError, TypeError) as exc:
        raise EngineError(f"tls.private_key: {certificate.private_key} holds no unencrypted PEM private key") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise EngineError("tls.private_key: only ECDSA and RSA keys are supported by both engines")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
        raise EngineError(
            f"tls.private_key: {certificate.private_key} is not the key of the certificate in {certificate.chain}"
        )


def check_authorities(ca_file: Path) -> None:
    """Refuse a file of trusted authorities that cannot be read or holds none: engines find out in the handshake.

    Raises:
        EngineError: one sentence with the path and what is wrong.
    """
    try:
        x509.load_pem_x509_certificates(ca_file.read_bytes())
    except OSError as exc:
        raise EngineError(f"trusted authorities: cannot read {ca_file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise EngineError(f"trusted authorities: {ca_file} holds no PEM certificate") from exc
