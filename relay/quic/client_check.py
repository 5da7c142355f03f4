"""Checks the certificates that clients prove to own (RFC 5280 §6, RFC 8446 §4.4.2), whatever engine received them.

Only who signed it, its dates and what it may be used for count. Names in it are nobody's here: who a certificate is,
the settings say by its fingerprint.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from relay.quic.certificate import read_authorities
from relay.quic.engine import ClientCheck

__all__ = ["CertificateAlert", "ClientRefused", "ClientVerifier", "fingerprint"]

E = TypeVar("E", bound=x509.ExtensionType)

_CLIENT_USES = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


class CertificateAlert(IntEnum):
    """The TLS alerts that tell a client what is wrong with its certificate (RFC 8446 §6.2)."""

    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_EXPIRED = 45
    UNKNOWN_CA = 48
    CERTIFICATE_REQUIRED = 116


class ClientRefused(Exception):
    """The client may not connect. It holds the alert, and nothing of the certificate."""

    def __init__(self, alert: CertificateAlert) -> None:
        super().__init__(alert.name.lower())
        self.alert = alert


def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` prints it."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class ClientVerifier:
    """Decides whether a client's certificate chain is good."""

    def __init__(self, check: ClientCheck, clock: Callable[[], datetime.datetime] = _now) -> None:
        """Read the authorities.

        Args:
            check: the authorities' file, and whether a certificate is required.
            clock: the wall clock, with its time zone.

        Raises:
            relay.quic.engine.EngineError: the file cannot be read or holds no certificate.
        """
        self._is_required = check.is_required
        self._store = Store(read_authorities(check.ca_file, "tls.client_ca"))
        self._clock = clock

    def verify(self, chain: Sequence[x509.Certificate]) -> None:
        """Accept a chain, leaf first, or none at all where none is required.

        That the client owns the leaf's key is not looked at here: its CertificateVerify proves it.

        Raises:
            ClientRefused: with the alert to send.
        """
        if not chain:
            if self._is_required:
                raise ClientRefused(CertificateAlert.CERTIFICATE_REQUIRED)
            return
        try:
            self._verify(chain, self._clock())
        except ClientRefused:
            raise
        except Exception as error:  # parts of a certificate are parsed when they are looked at
            raise ClientRefused(CertificateAlert.BAD_CERTIFICATE) from error

    def _verify(self, chain: Sequence[x509.Certificate], now: datetime.datetime) -> None:
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(now)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
            .build_client_verifier()
        )
        # One of each subject: many of one name would make a search of many paths out of it.
        issuers = {issuer.subject: issuer for issuer in reversed(chain[1:])}
        try:
            verifier.verify(chain[0], list(issuers.values()))
        except VerificationError:
            raise ClientRefused(_alert(chain, now)) from None


def _alert(chain: Sequence[x509.Certificate], now: datetime.datetime) -> CertificateAlert:
    """What was wrong, as near as the alerts have a word for it."""
    if not all(one.not_valid_before_utc <= now <= one.not_valid_after_utc for one in chain):
        return CertificateAlert.CERTIFICATE_EXPIRED
    usage = _extension(chain[0], x509.KeyUsage)
    uses = _extension(chain[0], x509.ExtendedKeyUsage)
    if _may_sign(usage) and _is_for_clients(uses):
        return CertificateAlert.UNKNOWN_CA
    return CertificateAlert.UNSUPPORTED_CERTIFICATE


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _may_sign(usage: x509.KeyUsage | None) -> bool:
    """RFC 8446 §4.4.2.2: where the usage is said, it includes signing."""
    return usage is None or usage.digital_signature


def _is_for_clients(uses: x509.ExtendedKeyUsage | None) -> bool:
    """RFC 5280 §4.2.1.12: where uses are said, clients of TLS are among them."""
    return uses is None or not _CLIENT_USES.isdisjoint(uses)


def _check_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if not _may_sign(usage):
        raise ValueError


def _check_uses(_policy: Policy, _certificate: x509.Certificate, uses: x509.ExtendedKeyUsage | None) -> None:
    if not _is_for_clients(uses):
        raise ValueError


def _check_issuer(_policy: Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError


def _check_issuer_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError


_ANY = Criticality.AGNOSTIC
_LEAF_POLICY = (
    ExtensionPolicy.permit_all()
    .may_be_present(x509.KeyUsage, _ANY, _check_usage)
    .may_be_present(x509.ExtendedKeyUsage, _ANY, _check_uses)
)
# Private authorities leave out much that the public web wants; what is there must allow clients. Critical extensions
# that the verifier does not know are refused in any case.
_CA_POLICY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, _ANY, _check_issuer)
    .may_be_present(x509.KeyUsage, _ANY, _check_issuer_usage)
)
