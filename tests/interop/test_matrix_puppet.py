"""The puppet against drivers that are scripted in Python: good ones, and all that a bad one may do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from interop.matrix.process import Program
from interop.matrix.puppet import Endpoint, Puppet
from relay.conformance.driver import Driver, DriverError, DriverTimeout, Ending, Feature, Kind

pytestmark = pytest.mark.anyio

_HEAD = """\
import base64, json, os, sys, threading, time
def say(value):
    sys.stdout.write(json.dumps(value) + "\\n")
    sys.stdout.flush()
def greet(*features):
    say({"peer": "scripted", "version": "1.0", "features": list(features)})
def ask():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)
"""

_ENDPOINT = Endpoint("https://127.0.0.1:1", "ca.pem", "/u/{target_host}/{target_port}/", "qlogs")


@asynccontextmanager
async def _play(folder: Path, script: str, margin: float = 5.0, greeting: float = 20.0) -> AsyncIterator[Puppet]:
    """Start a driver that runs the script; see that nothing of it is left afterwards."""
    file = folder / "driver.py"
    file.write_text(_HEAD + textwrap.dedent(script))
    program = Program([sys.executable, str(file)], folder)
    async with Puppet(
        program, _ENDPOINT, folder / "out", greeting_seconds=greeting, margin_seconds=margin, bulk_seconds=5.0
    ) as puppet:
        yield puppet


def _transcript(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "out" / "transcript.jsonl").read_text().splitlines()]


async def test_the_greeting_is_read(tmp_path: Path) -> None:
    async with _play(tmp_path, 'greet("tcp", "max-payload"); ask()') as puppet:
        driver: Driver = puppet
        assert driver.features == {Feature.TCP, Feature.MAX_PAYLOAD}
        assert (puppet.greeting.peer, puppet.greeting.version) == ("scripted", "1.0")


async def test_a_feature_that_no_case_knows_is_kept_apart(tmp_path: Path) -> None:
    async with _play(tmp_path, 'greet("tcp", "teleport"); ask()') as puppet:
        assert puppet.features == {Feature.TCP}
        assert puppet.greeting.unknown == ("teleport",)


async def test_every_verb_is_asked_as_the_protocol_has_it(tmp_path: Path) -> None:
    script = """
        greet("tcp")
        data = base64.b64encode(b"abc").decode()
        ok = {"settings": {"51": 1}, "tunnel": 3, "status": 200, "headers": [["Via", "x"]], "data": data,
              "end": "fin", "size": 9, "sha256": "AB", "code": None, "sent": 2, "payloads": [data],
              "stream": 8, "protocol": "h3"}
        while True:
            request = ask()
            if request["verb"] == "receive":
                ok["end"] = False
            say({"id": request["id"], "ok": ok})
            ok["end"] = "reset"
    """
    async with _play(tmp_path, script) as puppet:
        assert await puppet.connect(datagrams=False) == {51: 1}
        answer = await puppet.open(Kind.UDP, "::1", 5, [("a", "b")], early=b"e")
        assert (answer.status, answer.tunnel, answer.header("via")) == (200, 3, "x")
        await puppet.send(3, b"hello", end=True)
        await puppet.send_pattern(3, 70)
        assert await puppet.receive(3, 3) == b"abc"
        received = await puppet.receive_all(3)
        assert (received.size, received.sha256, received.ending) == (9, "ab", Ending(False, None))
        await puppet.reset(3, 7)
        await puppet.end(3)
        assert await puppet.wait_end(3, 1.0) == Ending(False, None)
        assert await puppet.send_datagrams(3, [b"", b"x"], context=2) == 2
        assert await puppet.receive_datagrams(3, 1, 0.5) == [b"abc"]
        assert await puppet.max_payload(3) == 9
        await puppet.send_capsule(3, 23, b"v")
        await puppet.migrate()
        assert await puppet.wait_goaway(0.5) == 8
        assert await puppet.wait_closed(0.5) is None
        fetched = await puppet.fetch("https://o/", "o.pem", Kind.TCP, [])
        assert (fetched.status, fetched.size, fetched.sha256, fetched.protocol) == (200, 9, "ab", "h3")
        await puppet.close()
    lines = [line["line"] for line in _transcript(tmp_path) if line["from"] == "case"]
    asked = [
        {name: value for name, value in line.items() if name != "id"} for line in lines if isinstance(line, dict)
    ]
    text = {"b": b64encode(b"hello").decode(), "v": b64encode(b"v").decode(), "e": b64encode(b"e").decode()}
    assert asked == [
        {"verb": "connect", "url": "https://127.0.0.1:1", "ca": "ca.pem",
         "template": "/u/{target_host}/{target_port}/", "datagrams": False, "qlog": "qlogs", "timeout": 15.0},
        {"verb": "open", "kind": "udp", "host": "::1", "port": 5, "headers": [["a", "b"]], "early": text["e"],
         "timeout": 15.0},
        {"verb": "send", "tunnel": 3, "data": text["b"], "end": True},
        {"verb": "send", "tunnel": 3, "pattern": 70, "end": False},
        {"verb": "receive", "tunnel": 3, "size": 3, "timeout": 15.0},
        {"verb": "receive_all", "tunnel": 3, "timeout": 5.0},
        {"verb": "reset", "tunnel": 3, "code": 7},
        {"verb": "end", "tunnel": 3},
        {"verb": "wait_end", "tunnel": 3, "timeout": 1.0},
        {"verb": "send_datagrams", "tunnel": 3, "payloads": ["", "eA=="], "context": 2},
        {"verb": "receive_datagrams", "tunnel": 3, "count": 1, "timeout": 0.5},
        {"verb": "max_payload", "tunnel": 3},
        {"verb": "send_capsule", "tunnel": 3, "type": 23, "value": text["v"]},
        {"verb": "migrate", "timeout": 15.0},
        {"verb": "wait_goaway", "timeout": 0.5},
        {"verb": "wait_closed", "timeout": 0.5},
        {"verb": "fetch", "url": "https://o/", "ca": "o.pem", "via": "tcp", "headers": [], "timeout": 5.0},
        {"verb": "close"},
    ]  # fmt: skip


async def test_answers_find_their_questions_in_any_order(tmp_path: Path) -> None:
    script = """
        greet()
        for request in reversed([ask() for _ in range(20)]):
            say({"id": request["id"], "ok": {"size": request["tunnel"]}})
        ask()
    """
    async with _play(tmp_path, script) as puppet:
        assert await asyncio.gather(*(puppet.max_payload(number) for number in range(20))) == list(range(20))


async def test_big_lines_go_both_ways(tmp_path: Path) -> None:
    script = """
        greet()
        request = ask()
        say({"id": request["id"], "ok": {}})
        again = ask()
        say({"id": again["id"], "ok": {"data": request["data"], "end": False}})
        ask()
    """
    data = os.urandom(1 << 20) * 40
    async with _play(tmp_path, script, margin=20.0) as puppet:
        await puppet.send(1, data)
        assert await puppet.receive(1, len(data)) == data
    assert (tmp_path / "out" / "transcript.jsonl").stat().st_size < 10_000


async def test_an_error_is_the_verbs_and_the_driver_goes_on(tmp_path: Path) -> None:
    script = """
        greet()
        say({"id": ask()["id"], "error": "no tunnel 9"})
        say({"id": ask()["id"], "error": "timeout: nothing came"})
        say({"id": ask()["id"], "ok": {}})
        ask()
    """
    async with _play(tmp_path, script) as puppet:
        with pytest.raises(DriverError, match=r"^end: no tunnel 9$") as error:
            await puppet.end(9)
        assert not isinstance(error.value, DriverTimeout)
        with pytest.raises(DriverTimeout, match="timeout: nothing came"):
            await puppet.wait_goaway(0.1)
        await puppet.end(1)


async def test_a_driver_that_dies_fails_all_who_wait_and_says_why(tmp_path: Path) -> None:
    script = """
        greet()
        [ask() for _ in range(3)]
        print("first line\\nthe real reason", file=sys.stderr)
        sys.exit(3)
    """
    async with _play(tmp_path, script) as puppet:
        waiting = [puppet.wait_closed(30.0) for _ in range(3)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        for error in results:
            assert isinstance(error, DriverError)
            assert not isinstance(error, DriverTimeout)
            assert "ended with exit code 3" in str(error)
            assert "the real reason" in str(error)
        with pytest.raises(DriverError, match="ended with exit code 3"):
            await puppet.close()


async def test_a_driver_that_is_killed_is_told_by_its_signal(tmp_path: Path) -> None:
    async with _play(tmp_path, "greet(); ask(); os.kill(os.getpid(), 9)") as puppet:
        with pytest.raises(DriverError, match="by signal 9"):
            await puppet.close()


async def test_a_driver_that_hangs_is_an_error_of_the_driver(tmp_path: Path) -> None:
    script = """
        greet()
        first = ask()
        second = ask()
        say({"id": first["id"], "ok": {"code": 1}})
        say({"id": second["id"], "ok": {"code": 2}})
        ask()
    """
    async with _play(tmp_path, script, margin=0.3) as puppet:
        with pytest.raises(DriverError, match=r"hangs: no answer to `wait_closed` within 0\.4 s") as error:
            await puppet.wait_closed(0.1)
        assert not isinstance(error.value, DriverTimeout)
        assert await puppet.wait_closed(5.0) == 2  # and the late answer to the first is nobody's


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("this is no JSON", "wrote what is no JSON: this is no JSON"),
        ('{"id": 77, "ok": {}}', "answered what was not asked"),
        ('["id", 1]', "answered what was not asked"),
        ('{"ok": {}}', "answered what was not asked"),
        ('{"id": 1}', "neither `ok` nor `error`"),
        ('{"id": 1, "ok": 5}', "neither `ok` nor `error`"),
    ],
)
async def test_a_line_that_is_no_answer_is_an_error(tmp_path: Path, line: str, what: str) -> None:
    async with _play(tmp_path, f"greet(); ask(); print({line!r}, flush=True); ask(); ask()") as puppet:
        with pytest.raises(DriverError, match=what):
            await puppet.wait_closed(30.0)


@pytest.mark.parametrize(
    ("verb", "ok"),
    [
        ("max_payload", {}),
        ("max_payload", {"size": "9"}),
        ("max_payload", {"size": True}),
        ("wait_end", {"end": "maybe"}),
        ("receive_datagrams", {"payloads": ["*"]}),
        ("receive_datagrams", {"payloads": [5]}),
        ("receive", {"data": "YWJj"}),
        ("connect", {"settings": {"x": 1}}),
        ("open", {"status": 200, "headers": [["a"]]}),
    ],
)
async def test_a_wrong_value_is_the_drivers_error(tmp_path: Path, verb: str, ok: object) -> None:
    script = f"""
        greet()
        say({{"id": ask()["id"], "ok": {ok!r}}})
        ask()
    """
    async with _play(tmp_path, script) as puppet:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "max_payload": lambda: puppet.max_payload(1),
            "wait_end": lambda: puppet.wait_end(1),
            "receive_datagrams": lambda: puppet.receive_datagrams(1, 1),
            "receive": lambda: puppet.receive(1, 5),
            "connect": puppet.connect,
            "open": lambda: puppet.open(Kind.TCP, "h", 1, []),
        }
        with pytest.raises(DriverError):
            await calls[verb]()


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("print('hello', flush=True); sys.stdin.read()", "no JSON: hello"),
        ("sys.exit('no such package')", "(?s)ended with exit code 1.*no such package"),
        ("sys.stdin.read()", "did not greet within 1 s"),
        ("say([1])", "greeted with"),
        ("say({'peer': 'x', 'features': []})", "`version` is None"),
        ("sys.stdout.write('half'); sys.stdout.flush()", r"inside of a line \(half\)"),
    ],
)
async def test_a_driver_that_does_not_greet_does_not_start(tmp_path: Path, script: str, what: str) -> None:
    with pytest.raises(DriverError, match=what):
        async with _play(tmp_path, script, greeting=1.0 if "did not greet" in what else 20.0):
            pytest.fail("it started")


async def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="cannot be started: nowhere: No such file"):
        async with Puppet(Program(["nowhere"], tmp_path), _ENDPOINT, tmp_path / "out"):
            pytest.fail("it started")


async def test_leaving_ends_what_the_driver_started(tmp_path: Path) -> None:
    script = """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        greet()
        say({"id": ask()["id"], "ok": {"size": child.pid}})
        ask()
    """
    async with _play(tmp_path, script) as puppet:
        child = await puppet.max_payload(0)
        os.kill(child, 0)
    await _until_gone(child)


async def _until_gone(pid: int) -> None:
    """Wait until a process has ended; whoever inherits it may take a moment to see it."""
    async with asyncio.timeout(5):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
