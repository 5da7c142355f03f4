"""The comparison: its plan, who is measured when, what is skipped, and a short run that is real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from interop.bench.bench import Bench
from interop.bench.lab import PYTHON_KIT, Kit, Lab
from interop.bench.measure import choose_cores
from interop.bench.peers import comparison, workshop
from interop.bench.peers.__main__ import main
from interop.bench.peers.capacity import FIRST_RATE, Verdict, find_capacity, judge_probe
from interop.bench.peers.comparison import Comparison
from interop.bench.peers.netem import NetemError, lossy_site
from interop.bench.peers.plan import (
    DIRECT,
    FULL,
    GROUPS,
    LOADS,
    PERCENTILES,
    QUICK,
    SHARED,
    added_latency,
    plan_capacity,
    plan_ceiling,
    plan_fairness,
    plan_latency,
    plan_loss,
    plan_tunnels,
)
from interop.bench.peers.results import load_results
from interop.bench.plan import Answer, Pace, Row, Targets, plan_memory, plan_rows
from interop.bench.processes import CHECKOUT, Child, ChildError
from interop.bench.report import LATE_TAIL
from interop.bench.servers import BOTH, Place, Server, Spec
from interop.matrix import peers
from relay.conformance.driver import Kind

_TARGETS = Targets(1, 2)
_PACE = Pace(rounds=2, warmup=0.1, seconds=0.2, volume=1000)
_FULL_KIT = Kit("fake", (), (), (), ("mirror",), frozenset(GROUPS))
_DIRECT_US = 40.0


def _spec(name: str, kinds: frozenset[str] = BOTH) -> Spec:
    return Spec(name, lambda _: (), kinds)


class _Lab:
    """A laboratory that answers as it is told, and notes who was asked for what."""

    def __init__(self, folder: Path, kit: Kit = _FULL_KIT, capacity: float = 100_000.0) -> None:
        self.kit, self.folder, self.cores, self.targets = kit, folder, choose_cores(), _TARGETS
        self.asked: list[tuple[str, str]] = []
        self.rates: dict[tuple[str, str], set[float]] = {}
        self.started: list[str] = []
        self.links: list[list[str]] = []
        self.late: list[float] = []
        "What the next answers have; none is late when there are no more."
        self.capacity = {"relay-qh3": capacity, "envoy": capacity / 2}

    def start(self, stack: ExitStack, spec: Spec) -> Server:
        self.started.append(spec.name)
        if spec.name == "broken":
            raise ChildError("broken has ended")
        return Server(spec, ("127.0.0.1", 4), cast(Child, None))

    def start_child(self, stack: ExitStack, spec: Spec, command: tuple[str, ...]) -> Server:
        return self.start(stack, spec)

    def put_before(self, stack: ExitStack, server: Server, command: list[str]) -> Server:
        self.links.append(command[2:])
        return server

    def measure(self, server: Server, row: Row) -> Answer:
        self.asked.append((server.name, row.key))
        answer: Answer = {"work": 1000, "offered": 1000, "seconds": 0.2, "load_cpu": 0.001, "proxy_cpu": 0.002}
        if "rate" in row.order:
            rate = row.order["rate"]
            self.rates.setdefault((server.name, row.key), set()).add(rate)
            answer["work"] = 1000 * min(1.0, self.capacity.get(server.name, rate) / rate)
        delay = _DIRECT_US if row.order.get("direct") else _DIRECT_US + 100 * len(server.name)
        late = self.late.pop(0) if self.late else 0.0
        answer |= {**dict.fromkeys(PERCENTILES, delay / 1e6), "late": late}
        return answer | {"counts": [3, 4], "connection": 2048, "udp_tunnel": 1024, "tcp_tunnel": 1024}


def _run(lab: _Lab, specs: list[Spec], *groups: str) -> tuple[Bench, Comparison]:
    bench = Bench(cast(Lab, lab), _PACE)
    run = Comparison(bench, specs)
    run.run(groups)
    return bench, run


def test_every_row_has_a_key_of_its_own_and_a_group_that_is_known() -> None:
    for pace in (FULL, QUICK):
        rows = plan_rows(("datagrams", "streams", "handshakes", "memory"), pace, _TARGETS)
        for plan in (plan_tunnels, plan_fairness, plan_loss, plan_ceiling):
            rows += plan(pace, _TARGETS)
        rows += [plan_capacity(100.0), *(plan_latency(pace, load, 100.0) for load in LOADS)]
        keys = [row.key + measure.suffix for row in rows for measure in row.measures]
        assert len(set(keys)) == len(keys)
        assert {row.group for row in rows} | {"floor"} == set(GROUPS)
        assert {key.split("/")[0] for key in keys} == {row.group for row in rows} | {"capacity"}


def test_every_size_and_every_number_of_tunnels_is_there() -> None:
    keys = {row.key for row in plan_rows(("datagrams",), FULL, _TARGETS)}
    assert {f"datagrams/{size}/{tunnels}" for size in (64, 400, 1100) for tunnels in (1, 16, 60)} < keys
    assert "datagrams/1100/1/lone" in keys
    assert FULL.rounds == 5


def test_a_server_with_one_kind_of_tunnels_is_asked_for_its_own_only() -> None:
    row = plan_memory(_TARGETS, frozenset({"udp"}))
    assert (row.order["udp_target"], row.order["tcp_target"]) == (1, None)
    assert [measure.suffix for measure in row.measures] == ["/connection", "/udp_tunnel"]


def test_servers_take_turns_within_each_row_and_rounds_are_spread_over_the_run(tmp_path: Path) -> None:
    lab = _Lab(tmp_path)
    specs = [_spec("one"), _spec("two"), _spec("tcp-only", frozenset({"tcp"}))]
    bench, _ = _run(lab, specs, "tunnels")
    udp, tcp = "tunnels/udp", "tunnels/tcp"
    assert lab.asked == [("one", udp), ("two", udp), ("one", tcp), ("two", tcp), ("tcp-only", tcp)] * 2
    assert [len(line.figures) for line in bench.lines] == [2] * 5
    assert bench.lines[0].figure == pytest.approx(500_000)


def test_every_group_is_measured_once_in_every_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "lossy_site", _refuse)
    lab = _Lab(tmp_path)
    bench, _ = _run(lab, [_spec("relay-qh3"), _spec("envoy")], *GROUPS)
    assert {line.key.split("/")[0] for line in bench.lines} == {*GROUPS, "capacity"}
    assert {len(line.figures) for line in bench.lines} == {_PACE.rounds}
    keys = [key for _, key in lab.asked if key != "capacity"]
    assert keys == keys[: len(keys) // 2] * 2


def test_what_was_measured_is_kept_when_the_generator_ends(tmp_path: Path) -> None:
    lab = _Lab(tmp_path)
    inner = lab.measure

    def measure(server: Server, row: Row) -> Answer:
        if len(lab.asked) == 3:
            raise ChildError("the generator has ended")
        return inner(server, row)

    lab.measure = measure  # type: ignore[method-assign]
    bench = Bench(cast(Lab, lab), _PACE)
    with pytest.raises(ChildError):
        Comparison(bench, [_spec("one"), _spec("two")]).run(["tunnels"])
    assert [len(line.figures) for line in bench.lines] == [1, 1, 1, 0]


def test_memory_is_measured_on_fresh_servers_in_every_round(tmp_path: Path) -> None:
    lab = _Lab(tmp_path)
    bench, _ = _run(lab, [_spec("one"), _spec("two", frozenset({"udp"}))], "memory")
    assert lab.started == ["one", "two"] * 2
    found = {(line.server, line.key): line.figures for line in bench.lines}
    assert found["one", "memory/connection"] == [2.0, 2.0]
    assert ("two", "memory/udp_tunnel") in found
    assert ("two", "memory/tcp_tunnel") not in found


def test_latency_is_measured_at_shares_of_each_servers_own_capacity(tmp_path: Path) -> None:
    lab = _Lab(tmp_path)
    bench, run = _run(lab, [_spec("relay-qh3"), _spec("tcp-only", frozenset({"tcp"})), _spec("envoy")], "latency")
    found = {(line.server, line.key): line.figure for line in bench.lines}
    own = {(line.server): line.figures for line in bench.lines if line.key == "capacity"}
    for name, capacity in lab.capacity.items():
        assert own[name] == [pytest.approx(capacity, rel=0.06)] * 2
        for load in ("10", "50", "80"):
            rates = {round(figure * int(load) / 100) for figure in own[name]}
            assert lab.rates[name, f"latency/{load}"] == lab.rates[DIRECT + name, f"latency/{load}"] == rates
    shared = lab.rates["relay-qh3", f"latency/{SHARED}"]
    assert shared == lab.rates["envoy", f"latency/{SHARED}"] == {10_000}
    assert run.facts["shared rate"] == "10000 echoes a second"
    assert run.facts["capacity of Envoy"] == f"{found['envoy', 'capacity']:.0f} echoes a second"
    order = [name for name, key in lab.asked if key == "latency/50"]
    assert order == ["direct/relay-qh3", "relay-qh3", "direct/envoy", "envoy"] * 2
    assert found["direct/envoy", "latency/50/p99"] == pytest.approx(_DIRECT_US)
    assert found["relay-qh3", "latency/50/p99"] == pytest.approx(900)
    assert found["envoy", "latency/50/p99"] == pytest.approx(500)
    assert found["envoy", "latency/50/busy"] == pytest.approx(1.0)


def test_what_the_generator_sent_late_is_measured_again(tmp_path: Path) -> None:
    bench, run = _measure_with_late(tmp_path, [0.5, 0.0])
    assert run.facts["repeated"].startswith("1 measurements")
    assert all(line.figure is not None for line in bench.lines)
    bench, run = _measure_with_late(tmp_path, [0.5, LATE_TAIL * 2, 0.9] * 8)
    assert run.facts["repeated"].startswith("16 measurements")
    invalid = {line.key for line in bench.lines if line.figure is None}
    assert invalid == {f"latency/{SHARED}/p999"}


def _measure_with_late(folder: Path, late: list[float]) -> tuple[Bench, Comparison]:
    """Be late once the capacity is known."""
    lab = _Lab(folder)
    inner = lab.measure

    def measure(server: Server, row: Row) -> Answer:
        if row.key == f"latency/{SHARED}" and late:
            lab.late = [late.pop(0)]
        return inner(server, row)

    lab.measure = measure  # type: ignore[method-assign]
    return _run(lab, [_spec("relay-qh3"), _spec("envoy")], "latency")


def test_without_the_relay_there_is_no_shared_rate(tmp_path: Path) -> None:
    bench, run = _run(_Lab(tmp_path), [_spec("envoy")], "latency")
    assert run.facts["shared rate"] == "none, without relay (qh3)"
    assert {line.key.split("/")[1] for line in bench.lines if line.key != "capacity"} == {"10", "50", "80"}


def test_a_server_that_carries_nothing_has_no_latency_and_a_reason(tmp_path: Path) -> None:
    lab = _Lab(tmp_path, capacity=10.0)
    bench, _ = _run(lab, [_spec("envoy")], "latency")
    reasons = {line.key: line.failure for line in bench.lines}
    assert reasons.pop("capacity") == "carries not even the smallest rate"
    assert set(reasons.values()) == {"no capacity was found"}
    assert {line.figure for line in bench.lines} == {None}


@pytest.mark.parametrize("capacity", [600.0, 7999.0, 8000.0, 8001.0, 50_000.0, 450_000.0])
@pytest.mark.parametrize("known", [None, 0.5, 0.97, 1.0, 1.03, 2.0])
def test_a_capacity_is_found_to_five_per_cent(capacity: float, known: float | None) -> None:
    asked: list[float] = []

    def probe(rate: float) -> Verdict:
        asked.append(rate)
        return Verdict.CARRIED if rate <= capacity else Verdict.OVERLOADED

    found, above = find_capacity(probe, known and known * capacity)
    assert capacity / 1.05 <= found <= capacity
    assert above is Verdict.OVERLOADED
    assert len(asked) < (20 if known is None else 26)
    assert asked[0] == (FIRST_RATE if known is None else pytest.approx(max(0.8 * known * capacity, 250)))


def test_what_carries_everything_is_not_tried_without_end() -> None:
    asked: list[float] = []

    def probe(rate: float) -> Verdict:
        asked.append(rate)
        return Verdict.CARRIED

    found, above = find_capacity(probe)
    assert found == asked[-1] > 500_000
    assert len(asked) < 10
    assert above is Verdict.CARRIED


def test_a_rate_has_a_second_try_and_a_late_generator_is_told() -> None:
    tried: dict[float, int] = {}

    def probe(rate: float) -> Verdict:
        tried[rate] = tried.get(rate, 0) + 1
        if rate > 20_000:
            return Verdict.LATE
        return Verdict.CARRIED if tried[rate] == 2 else Verdict.OVERLOADED

    found, above = find_capacity(probe)
    assert 19_000 < found <= 20_000
    assert above is Verdict.LATE
    assert set(tried.values()) == {2}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"work": 990, "offered": 1000, "p99": 0.005, "late": 0.01}, Verdict.CARRIED),
        ({"work": 989, "offered": 1000, "p99": 0.001, "late": 0.0}, Verdict.OVERLOADED),
        ({"work": 1000, "offered": 1000, "p99": 0.0051, "late": 0.0}, Verdict.OVERLOADED),
        ({"work": 500, "offered": 1000, "p99": 1.0, "late": 0.02}, Verdict.LATE),
        ({"error": "gone"}, Verdict.OVERLOADED),
    ],
)
def test_a_try_is_judged_by_loss_delay_and_the_generator(answer: Answer, verdict: Verdict) -> None:
    assert judge_probe(answer) is verdict


def test_latency_is_the_difference_or_the_reason() -> None:
    through: dict[str, Any] = {"p50": 3.0, "p99": 5.0, "p999": 9.0, "work": 1, "late": 0.1}
    direct: dict[str, Any] = {"p50": 1.0, "p99": 1.5, "p999": 10.0, "work": 1, "late": 0.2}
    assert added_latency(through, direct) == {"p50": 2.0, "p99": 3.5, "p999": -1.0, "work": 1, "late": 0.2}
    assert added_latency({"error": "gone"}, direct) == {"error": "gone"}
    assert "no origin" in added_latency(through, {"error": "no origin"})["error"]


def test_what_the_generator_does_not_know_is_skipped(tmp_path: Path) -> None:
    lab = _Lab(tmp_path, PYTHON_KIT)
    bench, run = _run(lab, [_spec("one")], "fairness", "handshakes")
    assert list(run.skipped) == ["rows fairness"]
    assert [line.key for line in bench.lines] == ["handshakes"]


def test_a_server_that_does_not_start_leaves_the_others(tmp_path: Path) -> None:
    lab = _Lab(tmp_path)
    bench, _ = _run(lab, [_spec("broken"), _spec("one")], "fairness", "memory")
    assert bench.failures == {"broken": "broken has ended"}
    assert {line.server for line in bench.lines} == {"one"}
    assert lab.started.count("broken") == 1


def _refuse(delay: float, loss: float) -> NoReturn:
    raise NetemError("only root may")


def test_without_netem_the_path_is_a_forwarder_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "lossy_site", _refuse)
    lab = _Lab(tmp_path)
    bench, run = _run(lab, [_spec("one"), _spec("udp-only", frozenset({"udp"}))], "loss")
    assert run.facts["lossy path"].startswith("a forwarder in user space, for want of netem (only root may): 50 ms")
    assert lab.links == [["interop.bench.peers.link", "4", "0.025", "0.01", "1"]]
    assert {line.server for line in bench.lines} == {"one"}
    assert bench.lines[0].figure == pytest.approx(8e-6 * 1000 / 0.2)


def test_namespaces_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NetemError, match="root"), lossy_site(0.01, 0.01):
        pass


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")
def test_no_namespace_stays_behind_whether_the_kernel_has_netem_or_not() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    subprocess.run(["ip", "netns", "add", f"relay-bench-{ended.pid}-client"], check=True)
    with pytest.raises(NetemError, match=r"as planned|tc: "):
        _look_around()
    assert _namespaces(ended.pid) + _namespaces(os.getpid()) == []


def _look_around() -> NoReturn:
    with lossy_site(0.01, 0.0) as site:
        assert len(_namespaces(os.getpid())) == 3
        listed = subprocess.run([*site.inside, "ip", "-br", "address"], capture_output=True, text=True, check=True)
        assert site.host in listed.stdout
        raise NetemError("as planned")


def _namespaces(pid: int) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(f"relay-bench-{pid}-")]


def test_a_server_of_a_folder_is_told_where_to_listen(tmp_path: Path) -> None:
    run = ("{build}/proxy", "-listen", "{host}:{port}", "-cert", "{cert}", "-key", "{key}", "-template", "{template}")
    described = peers.ServerSpec("other", tmp_path, "another server", run=run, kinds=frozenset({Kind.UDP}))
    spec = workshop.other_spec(described, {"build": "/b", "python": "/p"})
    place = Place("127.0.0.1", 4433, tmp_path / "c.pem", tmp_path / "k.pem", tmp_path)
    command = list(spec.command(place))
    assert command[:3] == ["/b/proxy", "-listen", "127.0.0.1:4433"]
    assert command[-1] == "/.well-known/masque/udp/{target_host}/{target_port}/"
    assert (spec.kinds, spec.home) == (frozenset({"udp"}), tmp_path)


def test_every_server_of_a_folder_can_be_named() -> None:
    assert {"masque-go", "quic-go-connect"} <= set(workshop.list_others())


def test_a_missing_tool_skips_and_a_broken_build_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "servers"
    for name, tool in {"lacking": "no-such-compiler", "failing": "sh"}.items():
        (others / name).mkdir(parents=True)
        (others / name / "server.toml").write_text(
            f'name = "{name}"\nabout = "x"\nlanguage = "x"\ntools = ["{tool}"]\nhint = "install it"\n'
            'build = [["sh", "-c", "echo broken; exit 3"]]\nrun = ["{build}/x"]\n'
        )
    monkeypatch.setattr(workshop, "OTHERS", others)
    built = workshop.build_others(tmp_path / "build")
    assert not built.specs
    assert "install it" in built.skipped["lacking"]
    assert "broken" in built.failures["failing"]
    told = capsys.readouterr().err
    assert "SKIP  lacking" in told
    assert "FAILED  failing" in told


def test_without_a_compiler_the_generator_is_the_one_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    built = workshop.Built()
    assert workshop.build_kit(tmp_path, built) is PYTHON_KIT
    assert "rustup" in built.skipped["load generator in Rust"]


def test_names_that_are_unknown_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--only", "nobody"], ["--rows", "nothing"], ["--rounds", "0"]):
        with pytest.raises(SystemExit):
            main(arguments)
    assert "unknown: nobody" in capsys.readouterr().err


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "interop.bench.peers", "--generator", "python", "--only", "relay-qh3", *arguments]


@pytest.mark.slow
def test_a_short_run_is_real(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = _command("--quick", "--rows", "handshakes,fairness", "--rounds", "1", "--json", str(file))
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    assert "SKIP  rows fairness" in done.stdout
    results = load_results(file)
    line = results.line("relay-qh3", "handshakes")
    assert line is not None
    assert line.figure is not None
    assert 10 < line.figure < 100_000
    assert results.versions["qh3"]
    assert "--rows handshakes,fairness" in results.command
    assert str(tmp_path) not in file.read_text()


@pytest.mark.slow
def test_a_run_that_is_told_to_end_takes_its_processes_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        _command("--quick", "--rows", "floor"), stderr=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as run:
        try:
            assert run.stderr is not None
            assert run.stderr.readline() == "round 1 of 1\n"
            children = _children(run.pid)
            assert len(children) == 4
            run.terminate()
            assert run.wait(30) == 130
        finally:
            run.kill()
    assert not any((Path("/proc") / str(pid)).exists() for pid in children)


def _children(pid: int) -> list[int]:
    listing = Path("/proc") / str(pid) / "task" / str(pid) / "children"
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = [int(word) for word in listing.read_text().split()]
        if found:
            return found
    return []
