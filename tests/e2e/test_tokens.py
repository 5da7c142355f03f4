"""Tokens over real QUIC: who is admitted, and what everybody else is told."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from masque.connect import connect_head
from masque.errors import ErrorCode
from masque.privacypass import encode_token
from relay.client import ClientError
from relay.telemetry import Metric, TokenRefusal
from tests.e2e.conftest import StartRelay
from tests.e2e.origins import tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import KEY, running_process, running_relay
from tests.e2e.tokens import ask, issued, offers, offers_of, token_settings
from tests.relay.private_token.rig import NAME, SEED, credentials, new_issuer, vector_issuer, voprf_token

pytestmark = pytest.mark.anyio


class TestAdmission:
    @pytest.mark.parametrize("udp", [False, True])
    async def test_a_token_for_the_challenge_admits_once(
        self, start_relay: StartRelay, tmp_path: Path, udp: bool
    ) -> None:
        async with tcp_listener() as tcp, udp_origin() as other, start_relay(token_settings(tmp_path)) as relay:
            port = other.port if udp else tcp.port
            async with relay.wire() as client:
                for offer in await offers(client):
                    token = issued(offer)
                    assert (await ask(client, port, token, udp=udp)).status == 200
                    again = await ask(client, port, token, udp=udp)
                    assert again.status == 407
                    assert offers_of(again) == await offers(client)
                    assert again.field(b"proxy-status") == b"masque-relay;error=http_request_denied"
            assert relay.count(Metric.TOKENS_SPENT) == 2

    async def test_bytes_pass_with_the_client_library(self, certificates: Path, tmp_path: Path) -> None:
        async with tcp_echo() as port, running_relay(certificates, "qh3", token_settings(tmp_path)) as relay:
            async with relay.wire() as wire:
                token = issued((await offers(wire))[0])
            async with relay.client(key=None, authorization=credentials(token).decode()) as client:
                stream = await client.open_tcp("127.0.0.1", port)
                await stream.send(b"ping")
                assert await stream.receive() == b"ping"
                with pytest.raises(ClientError) as caught:
                    await client.open_tcp("127.0.0.1", port)
                assert caught.value.status == 407

    async def test_keys_and_tokens_side_by_side(self, certificates: Path, tmp_path: Path) -> None:
        overrides = token_settings(tmp_path)
        del overrides["auth.preshared"]
        async with (
            tcp_listener() as origin,
            running_relay(certificates, "qh3", overrides) as relay,
            relay.wire() as client,
        ):
            stream = await ask(client, 1)
            assert stream.response is not None
            schemes = [v.split()[0] for n, v in stream.response.fields if n == b"proxy-authenticate"]
            assert schemes == [b"Preshared", b"Bearer", b"PrivateToken", b"PrivateToken"]
            token = vector_issuer().token(offers_of(stream)[0].challenge)
            assert (await ask(client, origin.port, b"Preshared " + KEY.encode())).status == 200
            assert (await ask(client, origin.port, token)).status == 200

    async def test_a_target_that_is_refused_has_cost_the_token(self, certificates: Path, tmp_path: Path) -> None:
        async with running_relay(certificates, "qh3", token_settings(tmp_path)) as relay, relay.wire() as client:
            token = vector_issuer().token((await offers(client))[0].challenge)
            assert [(await ask(client, 25, token)).status for _ in range(2)] == [403, 407]

    async def test_one_connection_for_its_life(self, certificates: Path, tmp_path: Path) -> None:
        overrides = token_settings(tmp_path, admits="connection")
        async with (
            tcp_listener() as origin,
            running_relay(certificates, "qh3", overrides) as relay,
            relay.wire() as client,
            relay.wire() as other,
        ):
            token = vector_issuer().token((await offers(client))[0].challenge)
            at_once = await asyncio.gather(*[ask(client, origin.port, token) for _ in range(5)])
            assert [stream.status for stream in at_once] == [200] * 5
            assert (await ask(client, origin.port)).status == 200
            assert (await ask(other, origin.port, token)).status == 407
            assert relay.count(Metric.TOKENS_SPENT) == 1

    async def test_a_request_that_is_reset_has_admitted_its_connection(
        self, certificates: Path, tmp_path: Path
    ) -> None:
        overrides = token_settings(tmp_path, admits="connection")
        async with (
            tcp_listener() as origin,
            running_relay(certificates, "qh3", overrides) as relay,
            relay.wire() as client,
        ):
            token = vector_issuer().token((await offers(client))[0].challenge)
            fields = ((b"proxy-authorization", credentials(token)),)
            gone = client.request(connect_head("127.0.0.1", origin.port, fields))
            client.reset(gone, ErrorCode.H3_REQUEST_CANCELLED)
            assert (await ask(client, origin.port, token)).status == 200
            assert relay.count(Metric.TOKENS_SPENT) == 1

    async def test_so_many_tunnels(self, certificates: Path, tmp_path: Path) -> None:
        overrides = token_settings(tmp_path, admits="3")
        async with (
            tcp_listener() as origin,
            running_relay(certificates, "qh3", overrides) as relay,
            relay.wire() as one,
            relay.wire() as other,
        ):
            token = vector_issuer().token((await offers(one))[0].challenge)
            clients = [one, other, one, other]
            assert [(await ask(c, origin.port, token)).status for c in clients] == [200, 200, 200, 407]


class TestRefusals:
    async def test_each_is_407_with_challenges_and_its_reason(self, start_relay: StartRelay, tmp_path: Path) -> None:
        async with tcp_listener() as origin, start_relay(token_settings(tmp_path)) as relay, relay.wire() as client:
            fresh = await offers(client)
            token = vector_issuer().token(fresh[0].challenge)
            encoded = encode_token(token)
            cases: list[tuple[bytes, TokenRefusal]] = [
                (b"PrivateToken token=", TokenRefusal.MALFORMED),
                (b"PrivateToken challenge=abc", TokenRefusal.MALFORMED),
                (credentials(encoded[:100]), TokenRefusal.MALFORMED),
                (credentials(b"\x00\x01" + encoded[2:]), TokenRefusal.MALFORMED),
                (credentials(b"\xda\x7a" + encoded[2:]), TokenRefusal.UNKNOWN_TYPE),
                (credentials(vector_issuer().token(fresh[0].challenge + b"x")), TokenRefusal.WRONG_CHALLENGE),
                (credentials(new_issuer(1).token(fresh[0].challenge)), TokenRefusal.UNKNOWN_KEY),
                (credentials(voprf_token(fresh[1].challenge, b"\x09" * 32)), TokenRefusal.UNKNOWN_KEY),
                (credentials(replace(token, nonce=bytes(32))), TokenRefusal.BAD_AUTHENTICATOR),
            ]
            for value, reason in cases:
                stream = await ask(client, origin.port, value)
                assert stream.status == 407, reason
                assert offers_of(stream) == fresh
                assert (
                    relay.count(Metric.TOKENS_REFUSED, reason) == 1
                    or reason is TokenRefusal.MALFORMED
                    or (reason is TokenRefusal.UNKNOWN_KEY)
                )
            assert relay.count(Metric.TOKENS_REFUSED) == len(cases)
            assert relay.count(Metric.TOKENS_SPENT) == 0
            assert (await ask(client, origin.port, token)).status == 200
            assert not relay.count(Metric.TOKENS_REFUSED, TokenRefusal.SPENT)

    async def test_a_long_value_is_no_credentials(self, certificates: Path, tmp_path: Path) -> None:
        async with running_relay(certificates, "qh3", token_settings(tmp_path)) as relay, relay.wire() as client:
            assert (await ask(client, 1, b'PrivateToken token="' + b"A" * 5000 + b'"')).status == 407
            assert relay.count(Metric.TOKENS_REFUSED) == 0


async def test_no_output_tells_of_a_token(certificates: Path, tmp_path: Path) -> None:
    """At level debug: neither nonces nor whole tokens nor digests, in hex, base64 or Python's form."""
    overrides = {**token_settings(tmp_path, admits="2"), "telemetry.level": "debug"}
    async with tcp_listener() as origin, running_process(certificates, "qh3", overrides) as relay:
        async with relay.wire() as client:
            fresh = await offers(client)
            tokens = [issued(offer) for offer in fresh]
            for token in (*tokens, *tokens, *tokens, replace(tokens[0], nonce=os.urandom(32))):
                await ask(client, origin.port, token)
        assert await relay.stop() == 0
    assert "exchange_refused" in relay.output
    for token in tokens:
        encoded = credentials(token).decode()
        for part in (token.nonce, token.challenge_digest, token.key_id, token.authenticator[:16]):
            assert part.hex() not in relay.output
            assert repr(part)[2:-1] not in relay.output
        assert encoded[30:60] not in relay.output
    assert SEED.hex() not in relay.output
    assert NAME not in relay.output
