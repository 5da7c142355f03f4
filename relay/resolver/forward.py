"""Asks upstream resolvers: one after another, each again when it stayed silent, all within one deadline.

UDP first, TCP when the answer was cut (RFC 7766 §5). The query's id and source port are random, the response's
id, question and source are checked, and what does not fit is ignored rather than believed (RFC 5452 §9).
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.message
from anyio.streams.buffered import BufferedByteReceiveStream

from relay.errors import FailureKind
from relay.resolver.answer import Reading, failed_reading, read_answer
from relay.resolver.upstream import Question
from relay.settings import Upstream
from relay.telemetry import Metric, Metrics

__all__ = ["ask_upstreams"]

_ROUNDS = 2
"How often a silent upstream is asked."
_UDP_PAYLOAD = 1232
"The largest response over UDP: what passes IPv6's smallest MTU in one piece."
_MAX_MESSAGE = 4096
"Bytes of an answer over TCP; it is long enough for more addresses than are tried."


async def ask_upstreams(
    question: Question, upstreams: Sequence[Upstream], deadline: float, metrics: Metrics
) -> Reading:
    """Ask until one upstream knows, or none is left, or the time is over.

    The time left is divided evenly among the attempts left. An upstream that answers with an error, such as
    SERVFAIL, is not asked again.

    Args:
        question: what to ask.
        upstreams: in order of preference.
        deadline: when all attempts together end, on the loop's clock.
        metrics: where queries are counted.

    Returns:
        Addresses or a failure: the last error that an upstream gave, else DNS_TIMEOUT.
    """
    attempts = list(upstreams) * _ROUNDS
    error: Reading | None = None
    while attempts:
        upstream = attempts.pop(0)
        budget = (deadline - anyio.current_time()) / (1 + len(attempts))
        if budget <= 0:
            break
        metrics.count(Metric.DNS_QUERIES)
        answer = await _ask(question, upstream, budget)
        if answer is None:
            continue
        if answer.is_final:
            return answer
        error = answer
        attempts = [other for other in attempts if other != upstream]
    return failed_reading(FailureKind.DNS_TIMEOUT) if error is None else error


async def _ask(question: Question, upstream: Upstream, timeout: float) -> Reading | None:
    """Ask one upstream once.

    Returns:
        Its answer; DNS_ERROR without a code when it cannot be reached or talks nonsense; None when it is silent.
    """
    query = dns.message.make_query(question.name, question.rdtype, use_edns=0, payload=_UDP_PAYLOAD)
    try:
        with anyio.fail_after(timeout):
            try:
                response = await dns.asyncquery.udp(
                    query,
                    str(upstream.address),
                    port=upstream.port,
                    ignore_unexpected=True,
                    ignore_errors=True,
                    raise_on_truncation=True,
                    backend=dns.asyncbackend.get_backend("asyncio"),
                )
            except dns.message.Truncated:
                response = await _ask_over_tcp(query, upstream)
    except (TimeoutError, dns.exception.Timeout):
        return None
    except (dns.exception.DNSException, OSError, EOFError, anyio.IncompleteRead, anyio.EndOfStream):
        return failed_reading(FailureKind.DNS_ERROR)
    return read_answer(response, question)


async def _ask_over_tcp(query: dns.message.Message, upstream: Upstream) -> dns.message.Message:
    """Ask over TCP (RFC 7766 §8), and refuse what would take long to parse: the loop waits meanwhile.

    Raises:
        dns.exception.DNSException: the answer is too long, malformed, or to another question.
        OSError: the upstream cannot be reached.
        anyio.IncompleteRead: it closed too early.
    """
    async with await anyio.connect_tcp(str(upstream.address), upstream.port) as stream:
        wire = query.to_wire()
        await stream.send(len(wire).to_bytes(2, "big") + wire)
        received = BufferedByteReceiveStream(stream)
        size = int.from_bytes(await received.receive_exactly(2), "big")
        if size > _MAX_MESSAGE:
            raise dns.exception.TooBig
        response = dns.message.from_wire(await received.receive_exactly(size))
    if not query.is_response(response):
        raise dns.exception.FormError
    return response
