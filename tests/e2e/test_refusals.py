"""How each refusal of a running relay looks to the client: targets, names, requests, credentials."""

from __future__ import annotations

import base64
import json
import socket

import dns.rcode
import pytest

from masque.connect import connect_head
from masque.connect_udp import connect_udp_head
from masque.head import Fields, RequestHead
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from relay.auth import basic_entry
from relay.client import ClientError, RelayClient
from relay.conformance.wire import WireClient
from relay.telemetry import LimitName, Metric
from tests.e2e.conftest import StartRelay
from tests.e2e.origins import closed_port, tcp_listener
from tests.e2e.rig import KEY, resolving
from tests.relay.dns_server import empty, failing, records, running_server, silent

pytestmark = pytest.mark.anyio

CLIENTS = ["qh3", "aioquic"]


async def refusal(client: RelayClient, host: str, port: int, *, udp: bool = False) -> ClientError:
    """Open a tunnel that must be refused; returns the refusal."""
    with pytest.raises(ClientError) as caught:
        await (client.open_udp(host, port) if udp else client.open_tcp(host, port))
    return caught.value


class TestRefusals:
    @pytest.mark.parametrize("library", CLIENTS)
    async def test_refused_port(self, start_relay: StartRelay, library: str) -> None:
        async with closed_port() as port, start_relay() as relay, relay.client(library) as client:
            error = await refusal(client, "127.0.0.1", port)
            assert (error.status, error.proxy_status) == (502, "masque-relay;error=connection_refused")

    @pytest.mark.parametrize("udp", [False, True])
    async def test_name_that_does_not_exist(self, start_relay: StartRelay, udp: bool) -> None:
        async with running_server() as server, start_relay(resolving(server)) as relay, relay.client() as client:
            error = await refusal(client, "gone.example", 443, udp=udp)
            assert error.status == 502
            assert error.proxy_status == 'masque-relay;error=dns_error;rcode="NXDOMAIN"'

    @pytest.mark.parametrize("udp", [False, True])
    async def test_aliases_are_told_to_the_client(self, start_relay: StartRelay, udp: bool) -> None:
        async with (
            running_server() as server,
            closed_port() as port,
            start_relay(resolving(server)) as relay,
            relay.wire() as client,
        ):
            chain = ("www.example. 60 IN CNAME cdn.example.", "cdn.example. 60 IN A 127.0.0.1")
            server.answer("www.example", records(*chain))
            ask = client.connect_udp if udp else client.connect
            stream = await client.answered(ask("www.example", port))
            error = b"" if udp else b"error=connection_refused;"
            assert stream.status == (200 if udp else 502)
            assert stream.field(b"proxy-status") == b"masque-relay;" + error + b'next-hop-aliases="cdn.example"'

    async def test_resolver_that_fails(self, start_relay: StartRelay) -> None:
        async with running_server() as server, start_relay(resolving(server)) as relay, relay.client() as client:
            server.answer("broken.example", failing(dns.rcode.SERVFAIL), failing(dns.rcode.SERVFAIL))
            error = await refusal(client, "broken.example", 443)
            assert error.status == 502
            assert error.proxy_status == 'masque-relay;error=dns_error;rcode="SERVFAIL"'

    @pytest.mark.parametrize("udp", [False, True])
    async def test_resolver_that_is_silent(self, start_relay: StartRelay, udp: bool) -> None:
        async with running_server() as server:
            server.answer("slow.example", silent, silent)
            settings = resolving(server, **{"resolver.timeout": "0.4"})
            async with start_relay(settings) as relay, relay.client() as client:
                error = await refusal(client, "slow.example", 443, udp=udp)
                assert (error.status, error.proxy_status) == (504, "masque-relay;error=dns_timeout")

    @pytest.mark.parametrize("udp", [False, True])
    async def test_forbidden_address(self, start_relay: StartRelay, udp: bool) -> None:
        async with start_relay() as relay, relay.client() as client:
            for host in ("10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "fe80::1", "0.0.0.0", "224.0.0.1"):
                error = await refusal(client, host, 443, udp=udp)
                answer = (error.status, error.proxy_status)
                assert answer == (502, "masque-relay;error=destination_ip_prohibited"), host

    @pytest.mark.parametrize("udp", [False, True])
    async def test_denied_port(self, start_relay: StartRelay, udp: bool) -> None:
        async with start_relay() as relay, relay.client() as client:
            error = await refusal(client, "127.0.0.1", 25, udp=udp)
            assert (error.status, error.proxy_status) == (403, "masque-relay;error=http_request_denied")

    @pytest.mark.parametrize("udp", [False, True])
    async def test_name_of_this_machine(self, start_relay: StartRelay, udp: bool) -> None:
        async with running_server() as server, tcp_listener() as inside:
            loopback = records("rebound.example. 60 IN A 127.0.0.1"), records("rebound.example. 60 IN AAAA ::1")
            server.answer("rebound.example", *loopback)
            settings = resolving(server, **{"policy.allow": "[]"})
            async with start_relay(settings) as relay, relay.client() as client:
                for name in ("rebound.example", "localhost", "sub.localhost"):
                    error = await refusal(client, name, inside.port, udp=udp)
                    answer = (error.status, error.proxy_status)
                    assert answer == (502, "masque-relay;error=destination_ip_prohibited"), name
            assert not inside.has_waiting()

    async def test_only_the_good_address_of_two_is_used(self, start_relay: StartRelay) -> None:
        async with running_server() as server, tcp_listener("127.0.0.2") as bad:
            lines = "mixed.example. 60 IN A 127.0.0.2", "mixed.example. 60 IN A 127.0.0.1"
            server.answer("mixed.example", records(*lines), empty())
            settings = resolving(server, **{"policy.allow": '["127.0.0.1/32"]'})
            async with (
                tcp_listener("127.0.0.1", bad.port) as good,
                start_relay(settings) as relay,
                relay.client() as client,
            ):
                await client.open_tcp("mixed.example", bad.port)
                peer = await good.accept()
                assert peer.sock.getsockname()[0] == "127.0.0.1"
            assert not bad.has_waiting()

    async def test_second_address_is_tried(self, start_relay: StartRelay) -> None:
        async with running_server() as server, tcp_listener("127.0.0.2") as origin:
            lines = "two.example. 60 IN A 127.0.0.1", "two.example. 60 IN A 127.0.0.2"
            server.answer("two.example", records(*lines), empty())
            async with start_relay(resolving(server)) as relay, relay.client() as client:
                await client.open_tcp("two.example", origin.port)
                await origin.accept()

    async def test_connect_time_limit(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay({"limits.connect": "0.3"}) as relay:
            origin.sock.listen(0)
            with socket.create_connection(("127.0.0.1", origin.port)):  # the backlog is full: SYNs get no answer
                async with relay.client() as client:
                    error = await refusal(client, "127.0.0.1", origin.port)
                    assert (error.status, error.proxy_status) == (504, "masque-relay;error=connection_timeout")
                    assert relay.count(Metric.LIMITS_HIT, LimitName.CONNECT) == 1


class TestRequests:
    """Requests that no tunnel can come of. Each costs its own stream only."""

    CASES = (
        ("get", RequestHead(b"GET", authority=b"relay.example", scheme=b"https", path=b"/"), 405),
        ("no-port", RequestHead(b"CONNECT", authority=b"target.example"), 400),
        ("port-zero", RequestHead(b"CONNECT", authority=b"target.example:0"), 400),
        (
            "unknown-protocol",
            RequestHead(b"CONNECT", authority=b"r", scheme=b"https", path=b"/x", protocol=b"connect-ip"),
            501,
        ),
        (
            "wrong-path",
            RequestHead(b"CONNECT", authority=b"r", scheme=b"https", path=b"/udp/1/2", protocol=b"connect-udp"),
            404,
        ),
        (
            "bad-port",
            RequestHead(
                b"CONNECT",
                authority=b"r",
                scheme=b"https",
                path=b"/.well-known/masque/udp/127.0.0.1/70000/",
                protocol=b"connect-udp",
            ),
            400,
        ),
    )

    async def test_refused(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client:
            for name, head, status in self.CASES:
                authorized = RequestHead(
                    head.method, head.authority, head.scheme, head.path, head.protocol, client.credentials
                )
                stream = await client.answered(client.request(authorized))
                assert stream.status == status, name
                assert stream.field(b"allow") == (b"CONNECT" if status == 405 else None), name
                assert stream.field(b"proxy-status") == b"masque-relay;error=http_request_error", name
                await client.ended(stream)
            good = await client.answered(client.connect("127.0.0.1", origin.port))
            assert good.status == 200


class TestCredentials:
    USER = b"user:p\xc3\xa4ssword"

    @staticmethod
    async def status(client: WireClient, port: int, fields: Fields, *, udp: bool = False) -> int | None:
        """The answer to a tunnel request with these fields and no others."""
        head = (
            connect_udp_head(Template(DEFAULT_UDP_TEMPLATE), b"relay.example", "127.0.0.1", port, fields)
            if udp
            else connect_head("127.0.0.1", port, fields)
        )
        return (await client.answered(client.request(head))).status

    @pytest.mark.parametrize("name", [b"proxy-authorization", b"authorization"])
    @pytest.mark.parametrize("udp", [False, True])
    async def test_every_scheme_in_both_fields(self, start_relay: StartRelay, name: bytes, udp: bool) -> None:
        basic = basic_entry("user", "pässword")
        settings = {"auth.basic": json.dumps([basic])}
        good = [b"Preshared " + KEY.encode(), b"bearer " + KEY.encode(), b"Basic " + base64.b64encode(self.USER)]
        bad = [
            b"Preshared " + KEY[:-1].encode(),
            b"Bearer x",
            b"Basic " + base64.b64encode(b"user:other"),
            b"Basic " + base64.b64encode(b"nobody:other"),
            b"Basic !!!",
            b"Digest " + KEY.encode(),
            KEY.encode(),
        ]
        async with tcp_listener() as origin, start_relay(settings) as relay, relay.wire() as client:
            for value in good:
                assert await self.status(client, origin.port, ((name, value),), udp=udp) == 200, value[:9]
            for value in bad:
                assert await self.status(client, origin.port, ((name, value),), udp=udp) == 407, value[:9]

    async def test_none_gets_the_challenges(self, start_relay: StartRelay) -> None:
        settings = {"auth.basic": json.dumps([basic_entry("user", "password")]), "auth.realm": "the realm"}
        async with start_relay(settings) as relay, relay.wire() as client:
            stream = await client.answered(client.request(connect_head("127.0.0.1", 1)))
            assert stream.status == 407
            assert stream.response is not None
            challenges = [value for name, value in stream.response.fields if name == b"proxy-authenticate"]
            assert challenges == [
                b'Preshared realm="the realm"',
                b'Bearer realm="the realm"',
                b'Basic realm="the realm", charset="UTF-8"',
            ]
            assert stream.field(b"proxy-status") == b"masque-relay;error=http_request_denied"

    async def test_refusal_tells_nothing_of_the_target(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.client(key=None) as client:
            listening, forbidden = origin.port, 25
            answers = {
                (error.status, error.proxy_status)
                for error in [await refusal(client, "127.0.0.1", port) for port in (listening, forbidden)]
            }
            assert answers == {(407, "masque-relay;error=http_request_denied")}
            assert not origin.has_waiting()

    async def test_open_relay_admits_anybody(self, start_relay: StartRelay) -> None:
        settings = {"auth.open": "true", "auth.preshared": "[]"}
        async with tcp_listener() as origin, start_relay(settings) as relay, relay.client(key=None) as client:
            await client.open_tcp("127.0.0.1", origin.port)
