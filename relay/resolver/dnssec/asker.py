"""A validating asker: stands above any other one and lets through what is secure or proven to be unsigned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import anyio
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from relay.errors import Failure, FailureKind, RelayError, Side
from relay.resolver.dnssec.anchors import TrustAnchors
from relay.resolver.dnssec.validator import Validator
from relay.resolver.dnssec.verdict import Security
from relay.resolver.dnssec.work import ValidationLimits
from relay.resolver.upstream import Answer, Asker, Question

__all__ = ["ValidatingAsker", "wall_clock"]

_FINAL = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})
_PROOFS = frozenset({dns.rdatatype.RRSIG, dns.rdatatype.NSEC, dns.rdatatype.NSEC3})


def wall_clock() -> float:
    """Return the seconds since the epoch: signatures have dates, so the loop's clock does not do."""
    return datetime.now(UTC).timestamp()


class ValidatingAsker:
    """Asks another asker with DO and CD, and validates what it says."""

    def __init__(
        self,
        below: Asker,
        anchors: TrustAnchors,
        clock: Callable[[], float] = wall_clock,
        limits: ValidationLimits | None = None,
    ) -> None:
        """Make a validating asker.

        Args:
            below: who is asked, for DS and DNSKEY records too.
            anchors: where trust starts.
            clock: the wall clock.
            limits: the bounds of one question's validation.
        """
        self._below = below
        self._validator = Validator(below, anchors, clock, limits)

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Find the answer to a question, and validate it unless the question says not to (CD, RFC 4035 §3.2.2).

        Args:
            question: what to ask.
            deadline: when this must be over, on the loop's clock.

        Returns:
            An answer with `is_authenticated` set when it is secure.

        Raises:
            relay.errors.RelayError: DNS_ERROR with SERVFAIL and an info-code when the answer is bogus (RFC 4035
                §5.5, RFC 8914); DNS_TIMEOUT; what the asker below raises.
        """
        answer = await self._below.ask(replace(question, do=True, cd=True), deadline)
        if question.cd or answer.message.rcode() not in _FINAL:
            return replace(answer, is_authenticated=False)
        try:
            with anyio.fail_after(deadline - anyio.current_time()):
                verdict = await self._validator.validate(question, answer.message, deadline)
        except TimeoutError:
            raise RelayError(Failure(FailureKind.DNS_TIMEOUT, Side.TARGET)) from None
        if not verdict.is_usable:
            raise RelayError(
                Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="SERVFAIL", info_code=verdict.info_code)
            )
        _trim(answer.message, question)
        return replace(answer, is_authenticated=verdict.security is Security.SECURE)


def _trim(response: dns.message.Message, question: Question) -> None:
    """Drop what is left that nobody validated, and the proofs unless they were asked for (RFC 4035 §3.2.1)."""
    response.additional = []
    response.flags &= ~dns.flags.AD
    if not question.do:
        response.answer = [rrset for rrset in response.answer if rrset.rdtype not in _PROOFS - {question.rdtype}]
        response.authority = [rrset for rrset in response.authority if rrset.rdtype == dns.rdatatype.SOA]
