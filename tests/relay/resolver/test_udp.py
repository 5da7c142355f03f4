"""Datagrams: what is cut, too long, forged."""

from __future__ import annotations

import dns.edns
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest

from relay.errors import FailureKind
from relay.resolver import (
    MAX_ADDRESSES,
)
from tests.relay.dns_server import empty, records
from tests.relay.resolver.lab import A1, Lab, failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


async def test_a_cut_answer_is_asked_again_by_tcp(lab: Lab) -> None:
    lab.server.truncates = True
    many = [f"www.test. 60 IN A 192.0.2.{n}" for n in range(200)]
    lab.server.answer("www.test", records(*many))
    found = await (await lab.resolver()).resolve("www.test")
    assert [str(address) for address in found.addresses] == [f"192.0.2.{n}" for n in range(MAX_ADDRESSES)]
    assert lab.server.asked_by_tcp["www.test", "A"] == 1


async def test_an_answer_of_thousands_is_refused(lab: Lab) -> None:
    """Whoever owns a name decides how long its answer is; reading it may not stop the loop."""
    lab.server.truncates = True
    many = [f"www.test. 60 IN A 192.0.{n >> 8}.{n & 255}" for n in range(400)]
    lab.server.answer("www.test", records(*many), empty())
    found = await failure_of(await lab.resolver(), "www.test")
    assert (found.kind, found.rcode) == (FailureKind.DNS_ERROR, None)


@pytest.mark.parametrize("wrong", ["id", "question", "garbage"])
async def test_a_forged_answer_is_not_believed(lab: Lab, wrong: str) -> None:
    def forge(query: dns.message.Message) -> dns.message.Message:
        if wrong == "question":
            query.question = [dns.rrset.RRset(dns.name.from_text("other.test"), dns.rdataclass.IN, dns.rdatatype.A)]
        response = records(A1)(query)
        assert response is not None
        if wrong == "id":
            response.id ^= 1
        if wrong == "garbage":
            response.flags &= 0x7FFF
        return response

    lab.server.answer("www.test", forge, forge)
    assert (await failure_of(await lab.resolver(timeout=0.3), "www.test")).kind is FailureKind.DNS_TIMEOUT
