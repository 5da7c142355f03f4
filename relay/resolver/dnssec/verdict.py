"""What validation finds: one of four states (RFC 4035 §4.3), and the extended error that explains a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = ["BogusData", "InfoCode", "Security", "Verdict"]


class Security(Enum):
    """The states of a response (RFC 4035 §4.3)."""

    SECURE = "secure"
    "A chain of signatures leads from a trust anchor to every record."
    INSECURE = "insecure"
    "It is proven that no such chain needs to exist, or none that we could follow."
    BOGUS = "bogus"
    "There should be a chain, and there is none."
    INDETERMINATE = "indeterminate"
    "What is needed to decide could not be had."


class InfoCode(IntEnum):
    """The extended DNS errors that a validator gives (RFC 8914 §4, RFC 9276 §3.2)."""

    UNSUPPORTED_DNSKEY_ALGORITHM = 1
    UNSUPPORTED_DS_DIGEST = 2
    DNSSEC_INDETERMINATE = 5
    DNSSEC_BOGUS = 6
    SIGNATURE_EXPIRED = 7
    SIGNATURE_NOT_YET_VALID = 8
    DNSKEY_MISSING = 9
    RRSIGS_MISSING = 10
    NO_ZONE_KEY_BIT_SET = 11
    NSEC_MISSING = 12
    NETWORK_ERROR = 23
    UNSUPPORTED_NSEC3_ITERATIONS = 27


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about a response."""

    security: Security
    "Its state."
    info_code: InfoCode | None = None
    "Why it is not secure, where there is a code for that."

    @property
    def is_usable(self) -> bool:
        """Whether the response may be believed: secure, or proven to need no signatures."""
        return self.security in {Security.SECURE, Security.INSECURE}


class BogusData(Exception):
    """A record or its absence could not be proven. Ends one validation; its text is the code's name only."""

    def __init__(self, info_code: InfoCode, security: Security = Security.BOGUS) -> None:
        super().__init__(info_code.name)
        self.verdict = Verdict(security, info_code)
        self._info_code = info_code

    def anew(self) -> BogusData:
        """Return the same, not raised yet: one that was holds on to the frames on its way, responses and all."""
        return BogusData(self._info_code, self.verdict.security)
