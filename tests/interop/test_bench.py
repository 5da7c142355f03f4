"""The benchmark: its arithmetic, what it tells Envoy and the relay, and a short run of its own processes."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pylsqpack
import pytest

from interop.bench.__main__ import main
from interop.bench.batches import open_socket, receive_batch, send_batch
from interop.bench.datagrams import run_floor
from interop.bench.envoy import encode_envoy_config, envoy_command
from interop.bench.http3 import ResponseStream, encode_connect_udp, encode_data_header, encode_preface
from interop.bench.measure import choose_cores, read_usage
from interop.bench.origins import DOWNLOAD, UPLOAD, encode_command
from interop.bench.plan import FULL, GROUPS, QUICK, Targets, cost, plan_rows, rate
from interop.bench.processes import Child, ChildError
from interop.bench.relays import relay_command
from interop.bench.report import GATES, Gate, Line, encode_report, judge_gates, render_gates, render_table
from interop.bench.servers import Place
from masque.varint import encode_varint, parse_varint
from relay.quic.development import write_certificates

_GATE = Gate("relay-qh3", "datagrams/1100/1", 0.6)


def _lines(relay: float, envoy: float, delivered: float = 1.0) -> list[Line]:
    figures = {"relay-qh3": relay, "envoy": envoy}
    return [
        Line(name, _GATE.key, "us/datagram", [figure] * 3, [delivered] * 3, [1.0] * 3, [0.9] * 3)
        for name, figure in figures.items()
    ]


def _place(folder: Path) -> Place:
    return Place("127.0.0.1", 4433, folder / "server.pem", folder / "server.key", folder)


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"interop.bench.{name}", *arguments]


def test_the_figure_of_a_line_is_the_median_of_its_rounds() -> None:
    assert Line("envoy", "row", "unit", [9.0, 1.0, 2.0]).figure == 2.0
    assert Line("envoy", "row", "unit").figure is None


def test_a_row_turns_cpu_time_into_cost_or_into_rate() -> None:
    (spent,), (done,) = cost("us", 1e6), rate("per s")
    assert spent.read({"work": 1000, "proxy_cpu": 0.007}) == pytest.approx(7.0)
    assert done.read({"work": 500, "proxy_cpu": 0.25}) == 2000


def test_a_line_keeps_what_a_round_found() -> None:
    line = Line("envoy", "row", "us")
    (measure,) = cost("us", 1.0)
    line.add({"work": 9, "offered": 10, "seconds": 2.0, "proxy_cpu": 1.8, "load_cpu": 1.0}, measure.read)
    assert line.figures == [pytest.approx(0.2)]
    assert (line.delivered, line.proxy_busy, line.load_busy) == ([0.9], [0.9], [0.5])
    line.add({"work": 0, "offered": 10, "seconds": 2.0, "proxy_cpu": 1.8, "load_cpu": 1.0}, measure.read)
    assert line.failure == "nothing arrived"
    line.add({"error": "gone"}, measure.read)
    assert line.failure == "gone"
    assert len(line.figures) == 1


@pytest.mark.parametrize(("relay", "is_kept"), [(3.0, True), (4.2, True), (4.3, False)])
def test_a_gate_compares_with_the_yardstick(relay: float, is_kept: bool) -> None:
    (verdict,) = judge_gates(_lines(relay, 7.0), [_GATE])
    assert verdict.ratio == pytest.approx(relay / 7)
    assert verdict.is_kept is is_kept
    assert render_gates([verdict]).startswith("PASS" if is_kept else "MISS")


def test_a_gate_without_both_figures_is_missed() -> None:
    for lines in ([], _lines(1.0, 7.0)[:1], _lines(1.0, 7.0)[1:]):
        (verdict,) = judge_gates(lines, [_GATE])
        assert verdict.ratio is None
        assert "no figure" in render_gates([verdict])
        assert not verdict.is_kept


def test_a_gate_does_not_believe_a_row_that_lost_or_failed() -> None:
    assert not judge_gates(_lines(1.0, 7.0, delivered=0.9), [_GATE])[0].is_kept
    lines = _lines(1.0, 7.0)
    lines[0].failure = "the server has ended"
    assert not judge_gates(lines, [_GATE])[0].is_kept


def test_the_table_marks_loss_and_an_idle_core() -> None:
    lines = _lines(3.5, 7.0, delivered=0.9)
    lines[0].proxy_busy = [0.3, 0.3, 0.4]
    table = render_table(lines, "relay-qh3")
    assert "0.50" in table
    assert "LOSS: only 90% delivered" in table
    assert "core under 50 % busy" in table
    assert "envoy\n" not in table


def test_the_report_is_json() -> None:
    lines = _lines(3.5, 7.0)
    report = json.loads(json.dumps(encode_report(lines, judge_gates(lines, [_GATE]))))
    assert report["lines"][0]["of_envoy"] == 0.5
    assert report["gates"][0]["is_kept"] is True


def test_every_server_has_the_same_rows_and_every_gate_is_among_them() -> None:
    quick, full = (
        [
            row.key + measure.suffix
            for row in plan_rows(GROUPS, pace, Targets(1, 2), is_slow)
            for measure in row.measures
        ]
        for pace, is_slow in ((QUICK, True), (FULL, False))
    )
    assert quick == full
    assert len(set(full)) == len(full)
    assert {gate.key for gate in GATES} <= set(full)


def test_envoy_is_told_to_end_both_kinds_of_connect(tmp_path: Path) -> None:
    config = json.loads(encode_envoy_config(_place(tmp_path)))
    (listener,) = config["static_resources"]["listeners"]
    address = listener["address"]["socket_address"]
    assert (address["protocol"], address["address"], address["port_value"]) == ("UDP", "127.0.0.1", 4433)
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert {upgrade["upgrade_type"] for upgrade in manager["upgrade_configs"]} == {"CONNECT", "CONNECT-UDP"}
    assert manager["http3_protocol_options"]["allow_extended_connect"] is True
    assert "access_log" not in json.dumps(config)


@pytest.mark.skipif(importlib.util.find_spec("envoy") is None, reason="Envoy is installed by `make bench` only")
def test_envoy_accepts_its_configuration(tmp_path: Path) -> None:
    write_certificates(tmp_path, ["localhost", "127.0.0.1"])
    command = envoy_command(_place(tmp_path))
    checked = subprocess.run([*command, "--mode", "validate"], capture_output=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stderr.decode()


def test_the_relay_is_started_open_on_loopback_with_its_engine(tmp_path: Path) -> None:
    command = relay_command("aioquic", _place(tmp_path), ["quic.idle=9"])
    settings = [word for before, word in pairwise(command) if before == "--set"]
    assert command[1:4] == ["-m", "relay", "serve"]
    assert {"listen.port=4433", "quic.engine=aioquic", "auth.open=true", "quic.idle=9"} <= set(settings)


def _response() -> bytes:
    section = pylsqpack.Encoder().encode(0, [(b":status", b"200"), (b"capsule-protocol", b"?1")])[1]
    interim = pylsqpack.Encoder().encode(0, [(b":status", b"103")])[1]
    frames = b"".join(b"\x01" + encode_varint(len(part)) + part for part in (interim, section))
    unknown = encode_varint(0x21) + encode_varint(3) + b"abc"
    return frames + encode_data_header(100) + bytes(100) + unknown + encode_data_header(5) + b"hello"


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_a_response_is_read_from_any_cut(step: int) -> None:
    wire = _response()
    stream = ResponseStream()
    for start in range(0, len(wire), step):
        stream.receive(wire[start : start + step], False)
    assert (stream.status, stream.received, stream.is_ended) == (200, 105, False)
    assert stream.content.startswith(bytes(64))
    stream.receive(b"", True)
    assert stream.is_ended


def test_the_generator_says_it_takes_datagrams_and_whom_it_wants() -> None:
    assert encode_preface() == b"\x00\x04\x02\x33\x01"
    head = encode_connect_udp(9, ("127.0.0.1", 4433))
    length = parse_varint(head, 1)
    assert length is not None
    assert length[0] == len(head) - length[1]
    fields = dict(pylsqpack.Decoder(0, 0).feed_header(0, head[length[1] :])[1])
    assert fields[b":protocol"] == b"connect-udp"
    assert fields[b":authority"] == b"127.0.0.1:4433"
    assert fields[b":path"] == b"/.well-known/masque/udp/127.0.0.1/9/"


def test_a_batch_keeps_sizes_and_order() -> None:
    sizes = [1200] * 70 + [40] + [1200, 1300, 7, 7]
    packets = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    found: list[bytes] = []
    with open_socket() as sink, open_socket(peer=sink.getsockname()) as source:
        send_batch(source, packets)
        deadline = time.monotonic() + 5
        while len(found) < len(packets) and time.monotonic() < deadline:
            batch = receive_batch(sink)
            if batch is not None:
                view, segment, sender = batch
                assert sender == source.getsockname()
                found += [bytes(view[start : start + segment]) for start in range(0, len(view), segment)]
    assert found == packets


def test_usage_counts_descendants() -> None:
    before = read_usage(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        deadline = time.monotonic() + 5
        while read_usage(os.getpid()).rss_bytes < before.rss_bytes + (1 << 20) and time.monotonic() < deadline:
            time.sleep(0.01)
        together, alone = read_usage(os.getpid()), read_usage(child.pid)
        child.communicate(b"\n")
    assert alone.rss_bytes > 1 << 20
    assert together.rss_bytes > before.rss_bytes
    assert alone.cpu_seconds > 0
    assert together.cpu_seconds >= before.cpu_seconds
    with pytest.raises(OSError, match="No such file"):
        read_usage(child.pid)


def test_usage_is_the_time_that_the_process_itself_counts() -> None:
    """In a process of its own: this one may have children of other tests, whose time counts too."""
    program = """
import os, time
from interop.bench.measure import read_usage
while time.process_time() < 0.05:
    sum(range(1000))
before = time.process_time()
print(before <= read_usage(os.getpid()).cpu_seconds <= time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "True\n"


def test_a_child_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such setting')"]
    with Child("relay", command, choose_cores().proxy, tmp_path) as child:
        with pytest.raises(ChildError, match="no such setting"):
            child.read_line(10)
        child.stop()
        assert not child.is_running
    with pytest.raises(ChildError, match="cannot be started"):
        Child("nobody", [str(tmp_path / "nothing")], choose_cores().proxy, tmp_path)


def test_a_child_that_ignores_the_first_signal_is_still_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interop.bench.processes._STOP_SECONDS", 0.05)
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    with Child("stubborn", [sys.executable, "-c", script], choose_cores().load, tmp_path) as child:
        assert child.read_line(10) == "1"
    assert not child.is_running


def test_the_tcp_origin_sends_and_counts(tmp_path: Path) -> None:
    size = 1_000_000
    with Child("tcp", _module("origins", "tcp"), choose_cores().load, tmp_path) as origin:
        port = int(origin.read_line(10))
        with socket.create_connection(("127.0.0.1", port)) as down:
            down.sendall(encode_command(DOWNLOAD, size))
            with down.makefile("rb") as stream:
                assert stream.read() == bytes(size)
        with socket.create_connection(("127.0.0.1", port)) as up:
            up.sendall(encode_command(UPLOAD, 0) + bytes(size))
            up.shutdown(socket.SHUT_WR)
            with up.makefile("rb") as stream:
                assert int.from_bytes(stream.read(), "big") == size


def test_the_floor_forwards_both_ways(tmp_path: Path) -> None:
    cores = choose_cores()
    with Child("udp", _module("origins", "udp"), cores.load, tmp_path) as origin:
        target = origin.read_line(10)
        with Child("floor", _module("floor", target), cores.proxy, tmp_path) as forwarder:
            server = ("127.0.0.1", int(forwarder.read_line(10)))
            cost = run_floor(server, [forwarder.pid, origin.pid], 400, 20, 100, 0.05, 0.2)
    assert cost.work > 0
    assert cost.offered > 0
    assert cost.seconds == pytest.approx(0.2, abs=0.1)


def test_a_row_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rows", "nothing"])
    assert "unknown: nothing" in capsys.readouterr().err
