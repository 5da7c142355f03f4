"""One question as bytes, and the check that a response belongs to it.

EDNS with a buffer of 1232 bytes (RFC 6891), padding on encrypted transports (RFC 7830, RFC 8467 §4.1), cookies on the
others (RFC 7873), letters of random case where wanted. A response whose id, question or cookie is another's is no
response at all (RFC 5452 §9): whoever waits goes on waiting.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode

from relay.resolver.upstream import Question

__all__ = [
    "MAX_MESSAGE",
    "MAX_SIGNED_MESSAGE",
    "UDP_PAYLOAD",
    "CookieJar",
    "Mismatch",
    "Query",
    "Truncated",
    "make_query",
]

UDP_PAYLOAD = 1232
"The largest response over UDP: what passes IPv6's smallest MTU in one piece."
MAX_MESSAGE = 4096
"Bytes of a response; more addresses than are tried fit, and parsing it does not stop the loop for long."
MAX_SIGNED_MESSAGE = 16384
"Bytes of a response that brings signatures and keys."

_HEADER = 12
_QTYPE_QCLASS = 4
_IN = b"\0\1"
_OPT_HEAD = 11
"Bytes of an OPT record before its options."
_PADDING = 128
"Queries on encrypted transports are a multiple of this long (RFC 8467 §4.1)."
_CLIENT_COOKIE = 8
_QUESTION_MAY_LACK = frozenset({dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})


class Mismatch(dns.exception.DNSException):
    """What arrived is no response to the query."""

    msg = "a response to something else"


class Truncated(dns.exception.DNSException):
    """The response was cut: the rest comes over TCP."""

    msg = "a truncated response"


@dataclass(slots=True, repr=False)
class CookieJar:
    """The cookies between us and one upstream (RFC 7873, RFC 9018 §3)."""

    client: bytes = field(default_factory=lambda: secrets.token_bytes(_CLIENT_COOKIE))
    "Ours: random, of this process and for this upstream alone."
    server: bytes = b""
    "The upstream's; empty until it gave one."

    def option(self) -> dns.edns.CookieOption:
        """Return the option of the next query."""
        return dns.edns.CookieOption(self.client, self.server)

    def check(self, message: dns.message.Message, *, is_tcp: bool) -> None:
        """Compare a response's cookie with ours, and keep the upstream's part.

        Over TCP, whose handshake has shown that the upstream is where it is, a response may lack what it had before.

        Raises:
            Mismatch: our part of it is not what we sent, or it is missing although the upstream knows cookies.
        """
        found = next((one for one in message.options if isinstance(one, dns.edns.CookieOption)), None)
        if found is None:
            if is_tcp:
                self.server = b""
            elif self.server:
                raise Mismatch
        elif not secrets.compare_digest(found.client, self.client):
            raise Mismatch
        else:
            self.server = found.server


@dataclass(frozen=True, slots=True, repr=False)
class Query:
    """A query's bytes, but for the id, which the transport chooses."""

    wire: bytes
    "The message, with id 0."
    question_size: int
    "Bytes of the question section."
    max_message: int
    "Bytes that a response may have."
    is_exact: bool = False
    "Whether the letters' case must come back as it went out."

    def with_id(self, ident: int) -> bytes:
        """Return the message with this id."""
        return ident.to_bytes(2, "big") + self.wire[2:]

    def read(self, wire: bytes, ident: int = 0) -> dns.message.Message:
        """Parse what arrived.

        Args:
            wire: a message as it came.
            ident: the id that the query went out with.

        Raises:
            Mismatch: it is no response to this query.
            Truncated: it is, and was cut.
            dns.exception.DNSException: it is, and cannot be parsed, or is longer than may be.
        """
        if len(wire) < _HEADER or wire[:2] != ident.to_bytes(2, "big") or not wire[2] & 0x80 or wire[2] & 0x78:
            raise Mismatch
        if not self._has_question(wire):
            raise Mismatch
        if wire[2] & 0x02:
            raise Truncated
        if len(wire) > self.max_message:
            raise dns.exception.TooBig
        try:
            return dns.message.from_wire(wire, ignore_trailing=True)
        except ValueError:  # of an option's content
            raise dns.exception.FormError from None

    def _has_question(self, wire: bytes) -> bool:
        if wire[4:6] == b"\0\0":
            return wire[3] & 0x0F in _QUESTION_MAY_LACK
        end = _HEADER + self.question_size
        ours, theirs = self.wire[_HEADER:end], wire[_HEADER:end]
        if wire[4:6] != b"\0\1" or ours[-_QTYPE_QCLASS:] != theirs[-_QTYPE_QCLASS:]:
            return False
        return ours == theirs or (
            not self.is_exact and ours[:-_QTYPE_QCLASS].lower() == theirs[:-_QTYPE_QCLASS].lower()
        )


def make_query(
    question: Question,
    *,
    has_edns: bool = True,
    is_padded: bool = False,
    cookies: CookieJar | None = None,
    is_mixed: bool = False,
) -> Query:
    """Write a question as a query to a recursive resolver.

    Args:
        question: what to ask.
        has_edns: False for an upstream that cannot take EDNS; what needs it is then left out.
        is_padded: fill up to a multiple of 128 bytes.
        cookies: of the upstream; without, no cookie is sent.
        is_mixed: give the name's letters random case.
    """
    name = _mix_case(question.name) if is_mixed else question.name
    asked = (
        b"".join(len(label).to_bytes() + label for label in name.labels) + question.rdtype.to_bytes(2, "big") + _IN
    )
    flags = dns.flags.RD | dns.flags.AD | (dns.flags.CD if question.cd else 0)  # AD: tell us (RFC 6840 §5.7)
    wire = bytes(2) + flags.to_bytes(2, "big") + (b"\0\1" + bytes(5) + has_edns.to_bytes()) + asked
    if has_edns:
        wire += _edns(question, cookies, len(wire) if is_padded else None)
    return Query(wire, len(asked), MAX_SIGNED_MESSAGE if question.do else MAX_MESSAGE, is_mixed)


def _edns(question: Question, cookies: CookieJar | None, before: int | None) -> bytes:
    """Write the OPT record (RFC 6891 §6.1.2); filled up, when the length of what stands before it is given."""
    options: list[dns.edns.Option] = []
    if question.ecs is not None:
        options.append(dns.edns.ECSOption(str(question.ecs.network_address), question.ecs.prefixlen))
    if cookies is not None:
        options.append(cookies.option())
    data = b"".join(_option(int(option.otype), option.to_wire() or b"") for option in options)
    if before is not None:
        data += _option(dns.edns.OptionType.PADDING, bytes(-(before + _OPT_HEAD + len(data) + 4) % _PADDING))
    flags = dns.flags.DO if question.do else 0
    return (
        b"\0\0\x29" + UDP_PAYLOAD.to_bytes(2, "big") + flags.to_bytes(4, "big") + len(data).to_bytes(2, "big") + data
    )


def _option(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


def _mix_case(name: dns.name.Name) -> dns.name.Name:
    """Give every letter a random case (draft-vixie-dnsext-dns0x20)."""
    mixed = (
        bytes(
            byte ^ 0x20 if chr(byte).isascii() and chr(byte).isalpha() and secrets.randbits(1) else byte
            for byte in label
        )
        for label in name.labels
    )
    return dns.name.Name(tuple(mixed))
