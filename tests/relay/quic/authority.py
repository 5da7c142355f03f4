"""An authority that signs certificates of clients, good ones and bad ones."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relay.quic.engine import Certificate

__all__ = ["CA", "CLIENT_USE", "SERVER_USE", "Issued", "usage"]

Extension = tuple[x509.ExtensionType, bool]

CA: Extension = (x509.BasicConstraints(ca=True, path_length=None), True)
CLIENT_USE: Extension = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
SERVER_USE: Extension = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)

_DAY = datetime.timedelta(days=1)


def usage(*, signs: bool = False, certifies: bool = False) -> Extension:
    """A KeyUsage."""
    return x509.KeyUsage(signs, False, False, False, False, certifies, False, False, False), True


@dataclass
class Issued:
    """A certificate, its key, and what is between it and its authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate] = field(default_factory=list)

    @classmethod
    def root(cls, name: str = "authority", extensions: Sequence[Extension] = (CA,), days: float = 1) -> Issued:
        """A certificate that signs itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_certificate(name, key, name, key, extensions, days), key)

    def issue(
        self,
        name: str = "client",
        extensions: Sequence[Extension] = (CLIENT_USE,),
        *,
        days: float = 1,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Issued:
        """Sign a certificate that ends in `days`; below a root its chain is empty."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        made = _certificate(name, own, str(issuer), self.key, extensions, days)
        is_root = self.certificate.issuer == self.certificate.subject
        return Issued(made, own, [] if is_root else [self.certificate, *self.chain])

    @property
    def all(self) -> list[x509.Certificate]:
        """The certificate and its chain, leaf first."""
        return [self.certificate, *self.chain]

    @property
    def fingerprint(self) -> str:
        """As the settings have it."""
        return f"sha256:{self.certificate.fingerprint(hashes.SHA256()).hex()}"

    def write(self, folder: Path, name: str, *, with_chain: bool = True) -> Certificate:
        """Write chain and key as PEM files."""
        found = self.all if with_chain else [self.certificate]
        chain, key = folder / f"{name}.pem", folder / f"{name}.key"
        chain.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in found))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Certificate(chain, key)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: Sequence[Extension],
    days: float,
) -> x509.Certificate:
    ends = datetime.datetime.now(datetime.UTC) + days * _DAY
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - 10 * _DAY)
        .not_valid_after(ends)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
