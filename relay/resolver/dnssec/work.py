"""How much one question may cost: signatures, hashes and fetches are counted, and the count has an end.

Whoever owns a zone decides how many keys, signatures and hash iterations it has. Without a bound, one response
keeps a validator busy for minutes (CVE-2023-50387 with keys, CVE-2023-50868 with NSEC3).
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.resolver.dnssec.verdict import BogusData, InfoCode

__all__ = ["ValidationLimits", "Work", "WorkSpent"]


@dataclass(frozen=True, slots=True)
class ValidationLimits:
    """The bounds of one question's validation."""

    verifications: int = 64
    "Signatures checked with a key; a name eight aliases long, each in a new zone, needs about forty."
    failures: int = 8
    "Checks that may fail. In an honest zone hardly any does."
    hashes: int = 128
    "Names hashed for NSEC3."
    iterations: int = 50
    "Additional NSEC3 iterations; a zone with more counts as unsigned (RFC 9276 §3.2)."
    fetches: int = 48
    "Questions for DS and DNSKEY records."
    signatures_per_set: int = 8
    "Signatures of one record set that are looked at."
    keys_per_tag: int = 4
    "Keys of one key tag that are tried; honest zones have one, rarely two."
    sets: int = 12
    "NSEC or NSEC3 record sets of a response that are looked at."
    keys: int = 32
    "Keys of a zone; a zone with more is refused."
    aliases: int = 8
    "CNAME and DNAME records that are followed."


class WorkSpent(BogusData):
    """A question has cost enough. Says nothing about the records, so nothing is remembered of them."""

    def __init__(self) -> None:
        super().__init__(InfoCode.DNSSEC_BOGUS)


class Work:
    """What one question has cost so far."""

    __slots__ = ("_limits", "failures", "fetches", "hashes", "verifications")

    def __init__(self, limits: ValidationLimits) -> None:
        self._limits = limits
        self.verifications = 0
        self.failures = 0
        self.hashes = 0
        self.fetches = 0

    def add_verification(self) -> None:
        """Count a signature that is about to be checked.

        Raises:
            WorkSpent: the question has cost enough.
        """
        self.verifications += 1
        self._demand(self.verifications <= self._limits.verifications)

    def add_failure(self) -> None:
        """Count a signature that was wrong.

        Raises:
            WorkSpent: too many were.
        """
        self.failures += 1
        self._demand(self.failures <= self._limits.failures)

    def add_hash(self) -> None:
        """Count a name that is about to be hashed.

        Raises:
            WorkSpent: the question has cost enough.
        """
        self.hashes += 1
        self._demand(self.hashes <= self._limits.hashes)

    def add_fetch(self) -> None:
        """Count a question that is about to be asked.

        Raises:
            WorkSpent: the question has cost enough.
        """
        self.fetches += 1
        self._demand(self.fetches <= self._limits.fetches)

    @staticmethod
    def _demand(is_within: bool) -> None:
        if not is_within:
            raise WorkSpent
