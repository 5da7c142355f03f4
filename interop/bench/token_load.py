"""The load of tokens, in a process of its own: `python -m interop.bench.token_load FOLDER`.

It takes an order a line and answers with a line of JSON. `checks` and `delay` ask a relay's gate in this very
process, so that nothing but the gate is measured; `admission` opens tunnels through a relay in another one, one at a
time.

A token is used again and again, since one takes longer to make than to check: the gate allows a million uses of each.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from base64 import encodebytes
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from interop.bench.measure import read_usage
from masque.connect import connect_head
from masque.head import RequestHead
from masque.privacypass import (
    ENTROPY_SIZE,
    SALT_SIZE,
    BlindRsaPublicKey,
    ChallengeOffer,
    VoprfPrivateKey,
    begin,
    draw_blinds,
    encode_credentials,
    encode_token,
    issue,
    parse_blind_rsa_private_key,
    parse_challenges,
    parse_token_challenge,
    parse_token_key,
)
from masque.target import Target
from relay.auth import TokenGate, prepare_tokens
from relay.conformance.wire import WireOptions, connect_wire
from relay.hooks import ConnectionContext, ExchangeContext, HookChain, Principal, TunnelKind
from relay.settings import TokenSettings
from relay.telemetry import NoMetrics, configure_logging

__all__ = ["main", "token_settings", "write_keys"]

_AT_ONCE = 128
"Checks under way at a time, when as many as possible are made."
_USES = 1_000_000
_SEED = bytes(range(48))


def write_keys(folder: Path) -> None:
    """Make an issuer's keys: `issuer.key` is private, `issuer.pem` and `issuer.seed` are what a relay reads."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "issuer.key").write_bytes(pem)
    spki = encodebytes(parse_blind_rsa_private_key(pem).public.encoded)
    (folder / "issuer.pem").write_bytes(b"-----BEGIN PUBLIC KEY-----\n" + spki + b"-----END PUBLIC KEY-----\n")
    (folder / "issuer.seed").write_bytes(_SEED)


def token_settings(folder: Path, token_type: int, store: str) -> dict[str, Any]:
    """Write the settings of tokens.

    Args:
        folder: where the keys are, and the file of sqlite goes.
        token_type: 1 or 2.
        store: `memory`, `sqlite`, or the URL of a Redis server.
    """
    key = folder / ("issuer.pem" if token_type == 2 else "issuer.seed")
    kind = store if store in ("memory", "sqlite") else "redis"
    kept = {"kind": kind, "path": str(folder / "spent.db"), **({"url": store} if kind == "redis" else {})}
    issuer = {"name": "issuer.example", "keys": [str(key)], "types": [token_type]}
    return {"issuers": [issuer], "admits": _USES, "store": kept}


def _make_tokens(folder: Path, offer: ChallengeOffer, count: int) -> list[bytes]:
    """Make credentials for a challenge."""
    token_type = parse_token_challenge(offer.challenge).known_type
    assert token_type is not None
    assert offer.token_key is not None
    key = parse_token_key(token_type, offer.token_key)
    issuer = (
        parse_blind_rsa_private_key((folder / "issuer.key").read_bytes())
        if isinstance(key, BlindRsaPublicKey)
        else VoprfPrivateKey(_SEED)
    )
    found = []
    for _ in range(count):
        entropy = os.urandom(ENTROPY_SIZE + SALT_SIZE)
        blinds = draw_blinds(key, entropy) if isinstance(key, BlindRsaPublicKey) else None
        pending = begin(offer.challenge, key, os.urandom(32), blinds)
        response = issue(pending.request, [issuer], os.urandom(ENTROPY_SIZE))
        found.append(encode_credentials(encode_token(pending.finish(response))))
    return found


class _Gate:
    """A relay's gate, and tokens for it."""

    def __init__(self, chain: HookChain, tokens: list[bytes]) -> None:
        """Use these tokens by turns."""
        self._chain = chain
        self._tokens = itertools.cycle(tokens)

    async def check(self) -> bool:
        """Have one token checked and spent; says whether it admitted."""
        fields = ((b"proxy-authorization", next(self._tokens)),)
        head = RequestHead(b"CONNECT", authority=b"target.example:443", fields=fields)
        target = Target("target.example", 443)
        context = ExchangeContext(ConnectionContext(0.0), TunnelKind.TCP, head, target)
        return isinstance(await self._chain.authenticate(context), Principal)


@asynccontextmanager
async def _open_gate(folder: Path, order: dict[str, Any]) -> AsyncIterator[_Gate]:
    settings = TokenSettings.model_validate(token_settings(folder, order["type"], order["store"]))
    parts = prepare_tokens(settings, time.time)
    assert parts is not None
    gate = TokenGate(parts, NoMetrics())
    chain = HookChain([gate.hooks])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(gate.run())
        asked = _Gate(chain, _make_tokens(folder, parse_challenges(chain.challenges)[0], order["tokens"]))
        assert await asked.check(), "the first token was refused"
        try:
            yield asked
        finally:
            running.cancel()


async def _run_checks(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """As many checks as possible for some seconds; what they cost this process and those it has started."""
    async with _open_gate(folder, order) as gate:
        end = time.monotonic() + order["seconds"]
        counts = {True: 0, False: 0}

        async def work() -> None:
            while time.monotonic() < end:
                counts[await gate.check()] += 1

        before, begin_at = read_usage(os.getpid()).cpu_seconds, time.monotonic()
        await asyncio.gather(*[work() for _ in range(_AT_ONCE)])
        spent = read_usage(os.getpid()).cpu_seconds - before
        seconds = time.monotonic() - begin_at
    work_done = {"work": counts[True], "offered": counts[True] + counts[False]}
    return {**work_done, "seconds": seconds, "proxy_cpu": spent, "load_cpu": 0.0}


async def _run_delay(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """How late the loop comes to what arrives every millisecond, while so many tokens a second are checked."""
    command = [sys.executable, "-m", "interop.bench.pinger", str(order["core"]), str(order["seconds"])]
    late: list[float] = []
    answers: list[bool] = []
    async with _open_gate(folder, order) as gate, asyncio.TaskGroup() as tasks:

        async def check() -> None:
            answers.append(await gate.check())

        pinger = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert pinger.stdout is not None
        due = time.monotonic()
        while stamps := await pinger.stdout.read(4096):
            now = time.monotonic()
            late += [now - int.from_bytes(stamps[at : at + 8], "big") / 1e9 for at in range(0, len(stamps) - 7, 8)]
            while order["rate"] and due < now:
                due += 1 / order["rate"]
                tasks.create_task(check())
        await pinger.wait()
    if not all(answers):
        return {"error": f"{answers.count(False)} of {len(answers)} tokens were refused"}
    return {**_percentiles(late), "checks": len(answers) / order["seconds"]}


async def _run_admission(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """How long it takes to be answered 200, by one kind of credentials, one tunnel at a time."""
    options = WireOptions("127.0.0.1", order["server"][1], ca_file=folder / "ca.pem")
    took = []
    async with connect_wire(options) as client:
        values: Iterator[bytes]
        if order["key"] is not None:
            values = itertools.repeat(b"Preshared " + order["key"].encode())
        else:
            stream = await client.answered(client.request(connect_head("127.0.0.1", order["target"])))
            assert stream.response is not None
            fields = [value for name, value in stream.response.fields if name == b"proxy-authenticate"]
            values = itertools.cycle(_make_tokens(folder, parse_challenges(fields)[0], order["tokens"]))
        end = time.monotonic() + order["seconds"]
        while time.monotonic() < end:
            head = connect_head("127.0.0.1", order["target"], ((b"proxy-authorization", next(values)),))
            begin_at = time.perf_counter()
            stream = await client.answered(client.request(head))
            took.append(time.perf_counter() - begin_at)
            if stream.status != 200:
                return {"error": f"answered {stream.status}"}
            client.reset(stream, 0x10C)
    return _percentiles(took)


def _percentiles(values: list[float]) -> dict[str, Any]:
    ordered = sorted(values)
    return {name: ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p99", 0.99))}


def main(folder: Path) -> None:
    """Answer orders until standard input ends."""
    configure_logging()
    runs = {"checks": _run_checks, "delay": _run_delay, "admission": _run_admission}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = asyncio.run(runs[order["load"]](folder, order))
        except Exception as error:  # noqa: BLE001 - the report tells it, and the run goes on
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
