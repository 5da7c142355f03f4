"""The runner, the workshop, and the pool, with contestants and programs that are made for the test."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from interop.bench.servers import choose_port
from interop.matrix.claim import alone, claim_results
from interop.matrix.names import MISSING_NAME, ORIGIN_NAME, answer_query
from interop.matrix.peers import PeerSpec
from interop.matrix.pool import Pool, Running
from interop.matrix.probe import wait_for_quic
from interop.matrix.process import Daemon, DaemonError, Program
from interop.matrix.report import render_failure, render_line
from interop.matrix.results import Cell, Result, Side
from interop.matrix.runner import Played, Runner
from interop.matrix.workshop import Shortfall, Workshop, clean_environ
from relay.conformance.case import Case, Stage
from relay.conformance.driver import Feature
from relay.conformance.play import Outcome, Verdict

pytestmark = pytest.mark.anyio


async def _check(stage: Stage) -> None:
    """Play nothing."""


def _case(name: str, *features: Feature) -> Case:
    return Case(name, f"Proves {name}", "RFC 9298 §3", _check, frozenset(features), frozenset())


class _Contestant:
    """Plays by a script."""

    side = Side.CLIENTS
    version = "1.0"

    def __init__(self, spec: PeerSpec, script: Callable[[Case, Path], Awaitable[Outcome]]) -> None:
        self.spec = spec
        self.shortfall: Shortfall | None = None
        self._script = script

    async def prepare(self, folder: Path) -> Shortfall | None:
        return self.shortfall

    def missing(self, case: Case) -> str:
        return "the client lacks reset" if case.features else ""

    async def play(self, case: Case, folder: Path) -> Outcome:
        return await self._script(case, folder)


def _spec(name: str = "peer", **more: object) -> PeerSpec:
    return PeerSpec(name, Path(), "a peer", "C", **more)  # type: ignore[arg-type]


async def _passes(case: Case, folder: Path) -> Outcome:
    return Outcome(case, Verdict.PASS, seconds=0.5)


async def _run(
    folder: Path, contestants: list[_Contestant], cases: list[Case], jobs: int = 2
) -> tuple[list[Played], dict[str, Cell]]:
    told: list[Played] = []
    columns = await Runner(contestants, cases, folder / "results", folder, told.append).run(jobs)
    assert [column.name for column in columns] == [contestant.spec.name for contestant in contestants]
    return told, {f"{column.name} {name}": cell for column in columns for name, cell in column.cells.items()}


async def test_cells_are_told_in_order_whoever_ends_first(tmp_path: Path) -> None:
    names = [f"case-{number}" for number in range(6)]
    ended: list[str] = []
    last_is_done = asyncio.Event()

    async def play(case: Case, folder: Path) -> Outcome:
        if case.name == names[0]:
            await last_is_done.wait()
        ended.append(case.name)
        if case.name == names[-1]:
            last_is_done.set()
        return Outcome(case, Verdict.PASS)

    told, _ = await _run(tmp_path, [_Contestant(_spec(), play)], [_case(name) for name in names])
    assert ended == names[1:] + names[:1]
    assert [played.case.name for played in told] == names


async def test_no_more_cases_at_a_time_than_jobs(tmp_path: Path) -> None:
    running, most = 0, 0

    async def play(case: Case, folder: Path) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Outcome(case, Verdict.PASS)

    cases = [_case(f"case-{number}") for number in range(9)]
    await _run(tmp_path, [_Contestant(_spec(), play)], cases, jobs=3)
    assert most == 3


async def test_every_outcome_becomes_a_cell(tmp_path: Path) -> None:
    async def play(case: Case, folder: Path) -> Outcome:
        match case.name:
            case "fails":
                return Outcome(case, Verdict.FAIL, f"in {tmp_path}/results\nthe log", seconds=1.0)
            case "noted":
                return Outcome(case, Verdict.PASS, notes=("say 502",))
            case "breaks":
                raise KeyError("oops")
            case "no-server":
                raise DaemonError("the relay ended:\nits log")
        return Outcome(case, Verdict.PASS)

    cases = [_case(name) for name in ("passes", "fails", "noted", "breaks", "no-server")]
    told, cells = await _run(tmp_path, [_Contestant(_spec(), play)], [*cases, _case("lacks", Feature.RESET)])
    assert {name.removeprefix("peer "): (cell.result, cell.reason) for name, cell in cells.items()} == {
        "passes": (Result.PASS, ""),
        "fails": (Result.FAIL, "in results"),
        "noted": (Result.PASS, "should: say 502"),
        "breaks": (Result.FAIL, "the suite broke: KeyError: 'oops'"),
        "no-server": (Result.FAIL, "the relay ended:"),
        "lacks": (Result.NONE, "the client lacks reset"),
    }
    details = {played.case.name: played.detail for played in told}
    assert (details["fails"], details["no-server"]) == ("the log", "its log")
    assert "Traceback" in details["breaks"]


@pytest.mark.parametrize("is_missing", [True, False])
async def test_a_peer_that_cannot_be_built_plays_nothing(tmp_path: Path, is_missing: bool) -> None:
    bad, good = _Contestant(_spec("bad"), _passes), _Contestant(_spec("good"), _passes)
    bad.shortfall = Shortfall(is_missing, "cc is missing", "the build's log")
    told, cells = await _run(tmp_path, [bad, good], [_case("one"), _case("two", Feature.RESET)])
    expected = Cell("one", Result.SKIP if is_missing else Result.FAIL, "cc is missing")
    assert cells["bad one"] == expected
    assert cells["bad two"].result is expected.result
    assert cells["good one"].result is Result.PASS
    assert told[0].detail == "the build's log"


async def test_a_planned_peer_has_a_column_and_no_cells(tmp_path: Path) -> None:
    told, cells = await _run(tmp_path, [_Contestant(_spec(planned="waits"), _passes)], [_case("one")])
    assert (told, cells) == ([], {})


async def test_a_known_fault_is_the_reason_and_a_mended_one_is_told(tmp_path: Path) -> None:
    async def play(case: Case, folder: Path) -> Outcome:
        return Outcome(case, Verdict.FAIL, "no echo") if case.name == "one" else Outcome(case, Verdict.PASS)

    faults = {"one": "it drops them", "two": "it did that"}
    told, cells = await _run(
        tmp_path, [_Contestant(_spec(faults=faults), play)], [_case("one"), _case("two"), _case("three")]
    )
    assert cells["peer one"].reason == "no echo (the peer's fault: it drops them)"
    assert told[0].cell == cells["peer one"]
    assert cells["peer two"] == Cell("two", Result.PASS, "passes, though `faults` lists it")
    assert cells["peer three"].reason == ""


async def test_folders_are_fresh_and_qlogs_stay_only_for_failures(tmp_path: Path) -> None:
    async def play(case: Case, folder: Path) -> Outcome:
        assert not (folder / "driver.log").exists()
        (folder / "qlog").mkdir()
        (folder / "qlog" / "a.sqlog").write_text("{}")
        (folder / "driver.log").write_text("the last words\n")
        return Outcome(case, Verdict.PASS if case.name == "passes" else Verdict.FAIL, "no echo")

    cases = [_case("passes"), _case("fails")]
    await _run(tmp_path, [_Contestant(_spec(), play)], cases)
    told, _ = await _run(tmp_path, [_Contestant(_spec(), play)], cases)
    folders = tmp_path / "results" / "peer"
    assert sorted(file.name for file in (folders / "passes").iterdir()) == ["driver.log"]
    assert sorted(file.name for file in (folders / "fails").iterdir()) == ["driver.log", "qlog"]
    text = render_failure(told[1], tmp_path)
    for part in ("FAIL peer fails", "Proves fails (RFC 9298 §3)", "no echo", "the last words", "results/peer/fails"):
        assert part in text
    assert str(tmp_path) not in text
    assert render_line(told[1]).split() == ["FAIL", "0.0", "s", "peer", "fails", "no", "echo"]


# The workshop


async def test_missing_tools_are_named_with_the_hint(tmp_path: Path) -> None:
    spec = _spec(tools=("no-such-tool", "sh"), hint="install it", packages=("no-such-package",))
    shortfall = await Workshop(tmp_path).prepare(spec)
    assert shortfall is not None
    assert shortfall.is_missing
    assert shortfall.reason.startswith("no-such-tool is missing: install it (Debian: no-such-package;")


async def test_a_build_runs_its_commands_in_order_and_is_kept(tmp_path: Path) -> None:
    spec = PeerSpec(
        "peer", tmp_path, "a peer", build=(("sh", "-c", "echo built > {build}/out"), ("test", "-e", "{build}/out"))
    )
    said: list[str] = []
    workshop = Workshop(tmp_path / "build", say=said.append)
    assert await workshop.prepare(spec) is None
    assert (tmp_path / "build" / "peer" / "out").read_text() == "built\n"
    assert len(said) == 2


@pytest.mark.parametrize(
    ("command", "reason", "detail"),
    [
        (("sh", "-c", "echo no such header >&2; exit 3"), "ended with exit code 3", "no such header"),
        (("sleep", "60"), "was not done in 0.2 s", ""),
        (("no-such-command",), "cannot be started", ""),
    ],
)
async def test_a_build_that_fails_is_a_failure_with_its_output(
    tmp_path: Path, command: tuple[str, ...], reason: str, detail: str
) -> None:
    seconds = 0.2 if command[0] == "sleep" else 20.0
    workshop = Workshop(tmp_path / "build", say=lambda text: None, seconds=seconds)
    shortfall = await workshop.prepare(PeerSpec("peer", tmp_path, "a peer", build=(command,)))
    assert shortfall is not None
    assert not shortfall.is_missing
    assert reason in shortfall.reason
    assert shortfall.detail == detail


async def test_one_builds_at_a_time(tmp_path: Path) -> None:
    inside = 0

    async def build() -> None:
        nonlocal inside
        async with alone(tmp_path / "peer.lock"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(build())


def test_two_runs_do_not_share_a_folder_for_results(tmp_path: Path) -> None:
    with claim_results(tmp_path) as first, claim_results(tmp_path) as second:
        assert first == tmp_path / "results"
        assert second.parent == tmp_path
        assert second != first
    with claim_results(tmp_path) as third:
        assert third == first


def test_programs_under_test_do_not_see_proxies_or_settings() -> None:
    environ = {
        "PATH": "/bin",
        "https_proxy": "http://p",
        "ALL_PROXY": "p",
        "RELAY_AUTH__OPEN": "1",
        "PYTHONPATH": "x",
    }
    assert clean_environ(environ) == {"PATH": "/bin"}


# Processes and the pool

_SERVER = "import signal, time; print('ready', flush=True); signal.signal(15, lambda *_: exit(0)); time.sleep(300)"


async def _serve(folder: Path, number: int, code: str = _SERVER) -> Running:
    daemon = Daemon(f"server-{number}", Program([sys.executable, "-c", code], folder), folder / f"{number}.log")
    await daemon.start()
    try:
        await daemon.find("ready", 20)
    except DaemonError:
        await daemon.stop()
        raise
    return Running(daemon, "127.0.0.1", number)


async def test_a_server_is_shared_between_equal_wishes_and_has_one_case_at_a_time(tmp_path: Path) -> None:
    made: list[Running] = []

    async def start() -> Running:
        made.append(await _serve(tmp_path, len(made)))
        return made[-1]

    async with Pool(2) as pool:
        async with pool.lease("a", start) as first, pool.lease("a", start) as second:
            assert first.running is not second.running
            assert (first.read_log(), second.read_log()) == (b"", b"")
        async with pool.lease("a", start) as third:
            assert third.running in made[:2]
            third.is_spent = True
        assert third.running.daemon.has_ended
        async with pool.lease("b", start), pool.lease("c", start):
            pass
        assert [running.daemon.has_ended for running in made].count(False) == 2
        with pytest.raises(ZeroDivisionError):
            async with pool.lease("b", start) as broken:
                raise ZeroDivisionError
        assert broken.running.daemon.has_ended
    assert all(running.daemon.has_ended for running in made)


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=r"(?s)server-1 ended \(exit code 1\):.*no such setting"):
        await _serve(tmp_path, 1, "import sys; sys.exit('no such setting')")


async def test_a_server_that_ignores_signals_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interop.matrix.process._STOP_SECONDS", 0.2)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(300)"
    running = await _serve(tmp_path, 1, code)
    await running.daemon.stop()
    assert running.daemon.has_ended


async def test_a_quic_server_is_found_by_the_versions_it_names() -> None:
    port = choose_port("127.0.0.1")
    assert not await wait_for_quic("127.0.0.1", port, 0.2, lambda: False)
    assert not await wait_for_quic("127.0.0.1", port, 60.0, lambda: True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()

        async def answer() -> None:
            for is_negotiation in (False, True):
                query, sender = await loop.sock_recvfrom(sock, 2000)
                assert len(query) == 1200
                theirs, ours = query[6:14], query[15:23]
                version = bytes(4) if is_negotiation else b"\0\0\0\1"
                head = b"\x80" + version + b"\x08" + ours + b"\x08" + theirs + b"\0\0\0\1"
                await loop.sock_sendto(sock, head, sender)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(answer())
            assert await wait_for_quic("127.0.0.1", port, 20.0, lambda: False)


@pytest.mark.parametrize(
    ("name", "rdtype", "code", "found"),
    [
        (ORIGIN_NAME, "A", dns.rcode.NOERROR, ["127.0.0.1"]),
        (ORIGIN_NAME.upper(), "A", dns.rcode.NOERROR, ["127.0.0.1"]),
        (ORIGIN_NAME, "AAAA", dns.rcode.NOERROR, []),
        (MISSING_NAME, "A", dns.rcode.NXDOMAIN, []),
    ],
)
def test_the_origins_name_is_the_only_one(name: str, rdtype: str, code: int, found: list[str]) -> None:
    wire = answer_query(dns.message.make_query(name, rdtype).to_wire(), "127.0.0.1")
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert response.rcode() == code
    assert [item.to_text() for rrset in response.answer for item in rrset] == found


def test_what_is_no_question_gets_no_answer() -> None:
    assert answer_query(b"\0\1", "127.0.0.1") is None
    query = dns.message.make_query(ORIGIN_NAME, "A")
    assert answer_query(dns.message.make_response(query).to_wire(), "127.0.0.1") is None


async def test_what_fails_is_tried_again_but_no_listed_fault(tmp_path: Path) -> None:
    played: list[str] = []

    async def third_time(case: Case, folder: Path) -> Outcome:
        played.append(case.name)
        return Outcome(case, Verdict.PASS if played.count(case.name) == 3 else Verdict.FAIL, "not yet")

    contestants = [_Contestant(_spec(faults={"known": "it is theirs"}), third_time)]
    cases = [_case("shaky"), _case("known")]
    told: list[Played] = []
    columns = await Runner(contestants, cases, tmp_path / "results", tmp_path, told.append, tries=3).run(1)
    assert played == ["shaky", "shaky", "shaky", "known"]
    assert columns[0].cells["shaky"].result is Result.PASS
    assert columns[0].cells["shaky"].reason.startswith("on try 3")
    assert columns[0].cells["known"].result is Result.FAIL
