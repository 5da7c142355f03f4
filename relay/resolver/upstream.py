"""The seam between who asks and who is asked: a question, an answer, and one method.

Whatever can answer implements `Asker`: an upstream resolver, several of them with failover, routes by suffix, a
validator above another asker, an iterative resolver. The cache sits on top and knows nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol, TypeAlias

import dns.message
import dns.name
import dns.rdatatype

__all__ = ["Answer", "Asker", "Question", "Subnet"]

Subnet: TypeAlias = IPv4Network | IPv6Network
"A network as EDNS Client Subnet carries it (RFC 7871 §6)."


@dataclass(frozen=True, slots=True, repr=False)
class Question:
    """What is asked. Equal questions have equal answers."""

    name: dns.name.Name
    "The full name."
    rdtype: dns.rdatatype.RdataType
    "The record type."
    do: bool = False
    "Whether signatures are wanted: the DO bit (RFC 3225 §3)."
    cd: bool = False
    "Whether the one asked should leave validation to us: the CD bit (RFC 4035 §3.2.2)."
    ecs: Subnet | None = None
    "The network that the answer should suit: one of the egress location's, never a client's (RFC 7871)."


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What the one asked said. It fits the question; whether it is true is for a validator to say."""

    message: dns.message.Message
    "The response, parsed: its id, question and source were checked, and it was not truncated."
    is_encrypted: bool = False
    "Whether it came over an encrypted and authenticated transport."
    is_authenticated: bool = False
    "Whether the AD bit was set (RFC 6840 §5.8). Worth something only from a trusted upstream, encrypted."


class Asker(Protocol):
    """Answers questions."""

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Find the answer to a question.

        Args:
            question: what to ask.
            deadline: when this must be over, on the loop's clock.

        Returns:
            A response with any code: NOERROR, NXDOMAIN, SERVFAIL.

        Raises:
            relay.errors.RelayError: DNS_TIMEOUT when nobody answered in time; DNS_ERROR when nobody could be asked,
                with `rcode` and `info_code` when a validator refuses what was said.
        """
        ...
