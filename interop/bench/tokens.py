"""The rows of tokens: what a check costs, how it holds up the loop, and what it adds to an admission."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from interop.bench.lab import Lab
from interop.bench.plan import Answer, Measure, Pace, rate
from interop.bench.processes import Child, ChildError
from interop.bench.relays import relay_command
from interop.bench.report import Line
from interop.bench.servers import Spec, choose_port
from interop.bench.token_load import token_settings, write_keys
from relay.auth import generate_key, preshared_entry

__all__ = ["run_tokens"]

_NAME = "tokens"
_SOON = 20.0
_LONGEST = 60.0
_RATE = 2000
"Checks a second while the loop's delay is measured."
_TOKENS = 64
"Tokens that are made for each row, and used by turns."
_REDIS = ("redis-server", "valkey-server")

_MILLISECONDS = (
    Measure("ms", lambda answer: float(1000 * answer["p50"]), "/p50"),
    Measure("ms", lambda answer: float(1000 * answer["p99"]), "/p99"),
)


def run_tokens(lab: Lab, pace: Pace) -> list[Line]:
    """Measure all rows of tokens.

    Args:
        lab: the cores, the folder and the origins.
        pace: how long everything takes.

    Returns:
        The lines, of the server `tokens`: the relay's gate alone, then whole relays.

    Raises:
        ChildError: a process did not start, or ended.
    """
    write_keys(lab.folder)
    with ExitStack() as stack:
        stores = ["memory", "sqlite", *stack.enter_context(_redis(lab.folder))]
        command = [sys.executable, "-m", "interop.bench.token_load", str(lab.folder)]
        gate = stack.enter_context(Child("token-gate", command, lab.cores.proxy, lab.folder))
        lines = _run_gate(lab, gate, pace, stores)
        load = stack.enter_context(Child("token-load", command, lab.cores.load, lab.folder))
        return lines + _run_admissions(lab, load, pace)


def _run_gate(lab: Lab, gate: Child, pace: Pace, stores: list[str]) -> list[Line]:
    """Measure the gate in a process of its own."""
    common = {"seconds": pace.seconds, "tokens": _TOKENS, "core": lab.cores.load}
    lines = []
    for token_type, store in [*((2, store) for store in stores), (1, "memory")]:
        order = {"load": "checks", "type": token_type, "store": store, **common}
        key = f"tokens/checks/{token_type}/{store.partition(':')[0]}"
        lines += _measure(pace, key, rate("per CPU s"), partial(_ask, gate, order))
    for token_type, per_second in [(2, 0), (2, _RATE), (1, _RATE // 2)]:
        order = {"load": "delay", "type": token_type, "store": "sqlite", "rate": per_second, **common}
        name = f"type-{token_type}" if per_second else "none"
        lines += _measure(pace, f"tokens/loop/{name}/{per_second}", _MILLISECONDS, partial(_ask, gate, order))
    return lines


def _run_admissions(lab: Lab, load: Child, pace: Pace) -> list[Line]:
    """Measure admissions by relays, each with one kind of token and a key."""
    key = generate_key()
    common = {"seconds": pace.seconds, "tokens": _TOKENS}
    lines = []
    for token_type, store in [(2, "memory"), (2, "sqlite"), (1, "memory")]:
        tokens = token_settings(lab.folder, token_type, store)
        settings = [
            "auth.open=false",
            f"auth.preshared={json.dumps([preshared_entry(key)])}",
            f"tokens.issuers={json.dumps(tokens['issuers'])}",
            f"tokens.admits={tokens['admits']}",
            f"tokens.store.kind={store}",
            f"tokens.store.path={tokens['store']['path']}",
        ]
        with ExitStack() as stack:
            server = lab.start(stack, Spec("relay-tokens", partial(relay_command, "qh3", settings=settings)))
            order = {
                "load": "admission",
                "server": server.address,
                "target": lab.targets.tcp,
                **common,
            }
            for name, given in [("preshared", key), (f"{token_type}/{store}", None)]:
                row = f"tokens/admission/{name}" if given is None else f"tokens/admission/{name}-{token_type}-{store}"
                lines += _measure(pace, row, _MILLISECONDS, partial(_ask, load, {**order, "key": given}))
    return lines


def _measure(pace: Pace, key: str, measures: tuple[Measure, ...], ask: partial[Answer]) -> list[Line]:
    """Measure one row in all rounds."""
    lines = [Line(_NAME, key + measure.suffix, measure.unit) for measure in measures]
    for _ in range(pace.rounds):
        answer = ask()
        for line, measure in zip(lines, measures, strict=True):
            line.add(answer, measure.read)
    for line in lines:
        figure = f"- {line.failure}" if line.figure is None else f"{line.figure:.2f} {line.unit}"
        print(f"{line.server}  {line.key}  {figure}", file=sys.stderr, flush=True)
    return lines


def _ask(child: Child, order: Answer) -> Answer:
    """Give an order and wait for its answer."""
    child.write_line(json.dumps(order))
    answer: Answer = json.loads(child.read_line(_LONGEST))
    return answer


@contextmanager
def _redis(folder: Path) -> Iterator[list[str]]:
    """Run a Redis or Valkey server where one is installed; yields its URL, or nothing."""
    program = next(filter(None, map(shutil.which, _REDIS)), None)
    if program is None:
        yield []
        return
    port = choose_port("127.0.0.1")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with Child("redis", command, None, folder, is_silent=True) as server:
        deadline = time.monotonic() + _SOON
        while not _answers(port):
            if time.monotonic() > deadline or not server.is_running:
                raise ChildError(server.describe("did not start"))
            time.sleep(0.05)
        yield [f"redis://127.0.0.1:{port}/0"]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
