"""Lying upstreams over UDP: wrong ids, questions, cases, cookies, sources; floods of guesses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial

import dns.edns
import dns.message
import dns.name
import dns.rcode
import pytest

from relay.errors import FailureKind
from relay.settings import Upstream
from tests.relay.dns_server import DnsServer, records
from tests.relay.resolver.lab import A1, AAAA1, Lab, failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]

Forge = Callable[[dns.message.Message], None]
EVIL = "www.test. 60 IN A 192.0.2.66"


def forged(query: dns.message.Message, change: Forge) -> bytes:
    made = records(EVIL)(query)
    assert made is not None
    change(made)
    return made.to_wire()


def other_id(made: dns.message.Message) -> None:
    made.id ^= 1


def other_question(made: dns.message.Message) -> None:
    made.question[0].name = dns.name.from_text("other.test")


def other_type(made: dns.message.Message) -> None:
    made.question[0].rdtype = dns.rdatatype.TXT


def no_response(made: dns.message.Message) -> None:
    made.flags &= 0x7FFF


def shortened(query: dns.message.Message) -> bytes:
    return forged(query, lambda _: None)[:-3]


class Liar(DnsServer):
    """Sends forgeries before the true answer."""

    def __init__(self, forgeries: list[Callable[[dns.message.Message], bytes]]) -> None:
        super().__init__()
        self.forgeries = forgeries

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for forge in self.forgeries:
            assert self._transport is not None
            self._transport.sendto(forge(dns.message.from_wire(data)), addr)
        super().datagram_received(data, addr)


async def put_in_place(lab: Lab, server: DnsServer, port: int = 0) -> None:
    """Have the lab's resolvers ask another server by UDP, with the same replies."""
    server.replies = lab.server.replies
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", port)
    )
    lab.stack.callback(server.close)
    lab.server.upstream = Upstream(lab.server.upstream.address, transport.get_extra_info("sockname")[1])


@pytest.mark.parametrize("forge", [other_id, other_question, other_type, no_response])
async def test_forgeries_are_ignored_and_the_truth_is_found(lab: Lab, forge: Forge) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    await put_in_place(lab, Liar([partial(forged, change=forge)] * 5))
    found = await (await lab.resolver()).resolve("www.test")
    assert "192.0.2.66" not in map(str, found.addresses)
    assert len(found.addresses) == 2


async def test_bytes_that_are_no_message_are_ignored(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    await put_in_place(lab, Liar([shortened, lambda _: b"", lambda _: bytes(2000)]))
    found = await (await lab.resolver()).resolve("www.test")
    assert len(found.addresses) == 2


async def test_after_many_guesses_the_question_goes_by_tcp(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    listener = await asyncio.start_server(lab.server.serve_stream, "127.0.0.1", 0)
    lab.stack.callback(listener.close)
    port = listener.sockets[0].getsockname()[1]
    await put_in_place(lab, Liar([partial(forged, change=other_id)] * 8), port)
    found = await (await lab.resolver()).resolve("www.test")
    assert len(found.addresses) == 2
    assert lab.server.asked_by_tcp.total() == 2
    assert lab.server.asked.total() == 0


async def test_an_answer_from_elsewhere_is_not_received(lab: Lab) -> None:
    """The server's answer comes from another port; the kernel drops it, for the socket is connected."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))

        class Elsewhere(DnsServer):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                self.queries.append(dns.message.from_wire(data))
                other.sendto(forged(self.queries[-1], lambda _: None), addr)

        made = Elsewhere()
        await put_in_place(lab, made)
        found = await failure_of(await lab.resolver(timeout=0.2), "www.test")
        assert found.kind is FailureKind.DNS_TIMEOUT
        assert made.queries


async def test_every_query_has_its_own_port_and_id(lab: Lab) -> None:
    seen: list[tuple[int, int]] = []

    class Recorder(DnsServer):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            seen.append((addr[1], int.from_bytes(data[:2], "big")))
            super().datagram_received(data, addr)

    await put_in_place(lab, Recorder())
    resolver = await lab.resolver()
    for number in range(20):
        await failure_of(resolver, f"n{number}.test")
    ports, idents = zip(*seen, strict=True)
    assert len(seen) == 40
    assert len(set(idents)) > 35
    assert len(set(ports)) > 30


@pytest.mark.parametrize(("is_kept", "is_found"), [(True, True), (False, False)])
async def test_mixed_case_over_udp(lab: Lab, is_kept: bool, is_found: bool) -> None:
    def answer(query: dns.message.Message) -> dns.message.Message | None:
        if not is_kept:
            query.question[0].name = dns.name.from_text(query.question[0].name.to_text().lower())
        return records(f"{'w' * 60}.test. 60 IN A 192.0.2.1")(query)

    lab.server.answer("w" * 60 + ".test", answer, answer)
    resolver = await lab.resolver(mixed_case=True, timeout=0.3)
    if is_found:
        assert (await resolver.resolve("w" * 60 + ".test")).addresses
    else:
        assert (await failure_of(resolver, "w" * 60 + ".test")).kind is FailureKind.DNS_TIMEOUT


class CookieServer:
    """Knows cookies as RFC 7873 §5.2 has them."""

    def __init__(self, *, insists: bool) -> None:
        self.insists = insists
        self.forgets = False
        self.seen: list[tuple[bytes, bytes]] = []

    def __call__(self, query: dns.message.Message) -> dns.message.Message | None:
        made = records("www.test. 60 IN A 192.0.2.1")(query)
        assert made is not None
        given = next((one for one in query.options if isinstance(one, dns.edns.CookieOption)), None)
        if given is None or self.forgets:
            return made
        self.seen.append((given.client, given.server))
        right = b"server" + given.client + b"!!"
        made.use_edns(options=[dns.edns.CookieOption(given.client, right)])
        if self.insists and given.server != right:
            made.answer.clear()
            made.set_rcode(dns.rcode.BADCOOKIE)
        return made


@pytest.mark.parametrize("insists", [False, True])
async def test_cookies_are_learnt_and_sent(lab: Lab, insists: bool) -> None:
    server = CookieServer(insists=insists)
    resolver = await lab.resolver()
    for number in range(3):
        lab.server.answer(f"n{number}.test", server, server)
        await failure_of(resolver, f"n{number}.test")  # the records are of another name
    clients, servers = {client for client, _ in server.seen}, [part for _, part in server.seen]
    assert len(clients) == 1
    assert len(servers) == (8 if insists else 6)
    assert servers[0] == b""
    assert servers[-1] == b"server" + clients.pop() + b"!!"


async def test_an_answer_without_the_cookie_is_asked_again_by_tcp(lab: Lab) -> None:
    server = CookieServer(insists=False)
    lab.server.answer("www.test", server, server)
    lab.server.answer("second.test", server, server)
    resolver = await lab.resolver()
    await resolver.resolve("www.test")
    server.forgets = True
    await failure_of(resolver, "second.test")
    assert lab.server.asked_by_tcp["second.test", "A"] == 1
    lab.server.answer("third.test", server, server)
    await failure_of(resolver, "third.test")
    assert lab.server.asked_by_tcp["third.test", "A"] == 0


async def test_no_cookies_where_none_are_wanted(lab: Lab) -> None:
    await failure_of(await lab.resolver(cookies=False), "www.test")
    assert [query.options for query in lab.server.queries] == [(), ()]
