"""Checks certificates and keys before an engine gets them, so that a mistake is one readable line."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from relay.quic.engine import Certificate, EngineError

__all__ = [
    "CLIENT_NAMES",
    "SERVER_NAMES",
    "check_authorities",
    "check_certificate",
    "load_certificate",
    "read_authorities",
]


SERVER_NAMES = ("tls.certificate", "tls.private_key")
"The settings of a server's certificate and key."
CLIENT_NAMES = ("client certificate", "client certificate's key")
"What a client's are called."


def check_certificate(certificate: Certificate, names: tuple[str, str] = SERVER_NAMES) -> None:
    """Refuse a chain or key that cannot be read, is of a kind that the engines cannot use, or do not match.

    Args:
        certificate: the two files.
        names: what to call them.

    Raises:
        EngineError: one sentence naming the setting and what is wrong. It holds paths, never key material.
    """
    chain_name, key_name = names
    try:
        chain = x509.load_pem_x509_certificates(certificate.chain.read_bytes())
    except OSError as exc:
        raise EngineError(f"{chain_name}: cannot read {certificate.chain}: {exc.strerror}") from exc
    except ValueError as exc:
        raise EngineError(f"{chain_name}: {certificate.chain} holds no PEM certificate") from exc
    try:
        key = load_pem_private_key(certificate.private_key.read_bytes(), password=None)
    except OSError as exc:
        raise EngineError(f"{key_name}: cannot read {certificate.private_key}: {exc.strerror}") from exc
    except (ValueError, TypeError) as exc:
        raise EngineError(f"{key_name}: {certificate.private_key} holds no unencrypted PEM private key") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise EngineError(f"{key_name}: only ECDSA and RSA keys are supported by both engines")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
        raise EngineError(
            f"{key_name}: {certificate.private_key} is not the key of the certificate in {certificate.chain}"
        )


def check_authorities(ca_file: Path) -> None:
    """Refuse a file of trusted authorities that cannot be read or holds none: engines find out in the handshake.

    Raises:
        EngineError: one sentence with the path and what is wrong.
    """
    read_authorities(ca_file, "trusted authorities")


def read_authorities(ca_file: Path, name: str) -> list[x509.Certificate]:
    """Return the certificates of a file of authorities, at least one.

    Args:
        ca_file: PEM.
        name: what to call the file's setting.

    Raises:
        EngineError: one sentence with the name, the path and what is wrong.
    """
    try:
        return x509.load_pem_x509_certificates(ca_file.read_bytes())
    except OSError as exc:
        raise EngineError(f"{name}: cannot read {ca_file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise EngineError(f"{name}: {ca_file} holds no PEM certificate") from exc


class _Configuration(Protocol):
    """A library's configuration."""

    def load_cert_chain(self, certfile: Path, keyfile: Path, /) -> None:
        """Read the two files."""


def load_certificate(configuration: _Configuration, certificate: Certificate, library: str) -> None:
    """Have a library read a certificate and key.

    Raises:
        EngineError: the library does not take them.
    """
    try:
        configuration.load_cert_chain(certificate.chain, certificate.private_key)
    except Exception as exc:
        raise EngineError(f"{library} does not take this certificate or key ({type(exc).__name__})") from exc
