"""The comparison's results: statistics, JSON, page, plots, and whether a second run agrees."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from interop.bench.peers.__main__ import main, write_report
from interop.bench.peers.charts import draw_bars, draw_charts, draw_latency
from interop.bench.peers.compare import compare, render_agreements
from interop.bench.peers.labels import COLOURS, row_label, server_label
from interop.bench.peers.machine import describe_machine, list_versions, read_pins
from interop.bench.peers.page import render_page
from interop.bench.peers.results import Results, ResultsError, load_results, save_results
from interop.bench.peers.svg import Drawing
from interop.bench.report import Line, render_table, write_number
from interop.bench.spread import Spread, jain_index, smallest_share, spread_of

_SVG = "{http://www.w3.org/2000/svg}"
_ROUNDS = [1.0, 1.05, 1.1, 0.95, 0.9]


def _line(server: str, key: str, middle: float, unit: str = "us", delivered: float = 1.0) -> Line:
    figures = [round(middle * share, 3) for share in _ROUNDS]
    return Line(server, key, unit, figures, [delivered] * 5, [0.9] * 5, [0.4] * 5)


def _results() -> Results:
    results = Results(
        made="2026-01-02",
        machine={"processor": "a <fast> & cheap one", "kernel": "Linux 6"},
        versions={"Envoy": "1.2.3"},
        command="python -m interop.bench.peers",
        pace={"rounds": 5, "seconds": 1.6},
        facts={"lossy path": "netem"},
        skipped={"masque-go": "go is missing: install Go"},
        servers=["relay-qh3", "envoy", "quic-go-connect"],
    )
    for server, middle in {"relay-qh3": 2.0, "envoy": 8.0}.items():
        results.lines.append(_line(server, "datagrams/1100/16", middle))
        results.lines.append(_line(server, "datagrams/1100/1/lone", 40 * middle))
        results.lines += [_line(server, f"latency/10/{name}", 30 * middle) for name in ("p50", "p99", "p999")]
    results.lines.append(_line("direct/envoy", "latency/10/p50", 7.0))
    results.lines.append(_line("quic-go-connect", "streams/down/8", 1.9, "s/GB", delivered=0.5))
    results.lines.append(Line("envoy", "latency/80/p50", "us", failure="the server has ended"))
    results.lines.append(_line("floor", "floor/64/50", 0.2))
    return results


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert spread_of([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0, 3)
    assert spread_of([]) is None


def test_two_runs_agree_when_their_ranges_meet() -> None:
    first = Spread(2.0, 1.0, 3.0, 5)
    for low, high, is_met in (
        (3.0, 4.0, True),
        (0.0, 1.0, True),
        (1.5, 2.5, True),
        (3.1, 4.0, False),
        (0, 0.9, False),
    ):
        other = Spread((low + high) / 2, low, high, 5)
        assert first.meets(other) is is_met
        assert other.meets(first) is is_met
    assert first.chance_to_miss(first) == pytest.approx(1 / 126)
    assert replace(first, count=1).chance_to_miss(replace(first, count=1)) == 1


@pytest.mark.parametrize(
    ("counts", "index", "share"),
    [([7, 7, 7, 7], 1.0, 1.0), ([9, 0, 0, 0], 0.25, 0.0), ([1, 3], 0.8, 1 / 3), ([0, 0], 0.0, 0.0), ([], 0.0, 0.0)],
)
def test_fairness_has_an_index_and_a_worst_case(counts: list[float], index: float, share: float) -> None:
    assert jain_index(counts) == pytest.approx(index)
    assert smallest_share(counts) == pytest.approx(share)


def test_results_survive_their_file(tmp_path: Path) -> None:
    results, file = _results(), tmp_path / "results.json"
    save_results(results, file)
    assert load_results(file) == results
    assert json.loads(file.read_text())["lines"][0]["server"] == "relay-qh3"


def test_figures_are_cut_to_what_they_are_worth(tmp_path: Path) -> None:
    results, file = Results(lines=[Line("envoy", "row", "us", [1 / 3])]), tmp_path / "results.json"
    save_results(results, file)
    assert load_results(file).lines[0].figures == [0.333333]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "lines": [{}]}', '{"format": 1}'])
def test_a_file_that_holds_no_results_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(ResultsError):
        load_results(file)


def test_the_page_has_medians_spread_ratio_and_what_is_missing() -> None:
    page = render_page(_results())
    assert "| 1100 bytes, 16 tunnels | 2.00 (1.80..2.20) x0.25 | 8.00 (7.20..8.80) |" in page
    assert "1.90 (1.71..2.09) **50% lost**" in page
    assert "![Added latency](plots/latency.svg)" in page
    assert "| 10 % of its own capacity, p99.9 | 60.0 (54.0..66.0) | 240 (216..264) |" in page
    assert "## Straight to the origin" in page
    assert "| 10 % of its own capacity, p50 | 7.00 (6.30..7.70) |" in page
    assert "## The kernel's floor" in page
    assert "not measured" in page
    assert "- Skipped: masque-go: go is missing: install Go" in page
    assert "the server has ended: Envoy latency/80/p50" in page
    widths = [[line.count(" | ") for line in block.splitlines()] for block in page.split("\n\n") if block[:1] == "|"]
    assert all(len(set(counts)) == 1 for counts in widths)


def test_a_ratio_is_not_written_where_it_says_nothing() -> None:
    results = _results()
    table = render_table(results.lines, "relay-qh3")
    assert [row.split()[-4] for row in table.splitlines() if " datagrams/" in row] == ["0.25", "0.25"]
    assert [row.split()[-4] for row in table.splitlines() if " latency/" in row] == ["-"] * 3


@pytest.mark.parametrize(("percentile", "late"), [("p50", 0.02), ("p999", 0.002)])
def test_a_generator_that_leaves_its_schedule_leaves_no_figure(percentile: str, late: float) -> None:
    results = _results()
    assert "*invalid" not in render_page(results)
    key = f"latency/10/{percentile}"
    line = results.line("envoy", key)
    assert line is not None
    for line.late in ([0.0, 0.0, late], [late / 3] * 3):
        assert line.figure == 240
    line.late = [0.0, late, late]
    assert (line.figure, results.spread("envoy", key)) == (None, None)
    page = render_page(results)
    assert f"*invalid: {late:.1%} sent late*" in page
    assert f"INVALID: the generator sent {late:.1%} too late: Envoy {key}" in page
    assert [row.word for row in compare(_results(), results) if (row.server, row.key) == ("envoy", key)] == [
        "missing"
    ]
    root = ElementTree.fromstring(draw_latency(results))
    assert len(list(root.iter(f"{_SVG}circle"))) == 5


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (12.34, "12.3"), (1234.5, "1234"), (-1234.5, "-1234"), (-12.34, "-12.3")]
)
def test_numbers_have_three_digits_or_so(value: float, text: str) -> None:
    assert write_number(value) == text


def test_the_plots_are_well_formed_and_show_every_figure() -> None:
    charts = draw_charts(_results())
    assert set(charts) == {"datagrams", "streams", "latency"}
    for text in charts.values():
        assert ElementTree.fromstring(text).tag == f"{_SVG}svg"
    words = [node.text or "" for node in ElementTree.fromstring(charts["datagrams"]).iter(f"{_SVG}text")]
    assert {"2.00  relay (qh3)", "8.00  Envoy", "80.0  relay (qh3)", "on a scale of its own"} <= set(words)
    assert "1100 bytes, 16 tunnels" in words


def test_a_bar_is_as_long_as_its_figure() -> None:
    root = ElementTree.fromstring(draw_bars(_results(), "t", "s", ["datagrams/1100/16"]))
    lengths = {
        name: max(
            float(node.get("width", 0)) for node in root.iter(f"{_SVG}rect") if node.get("fill") == COLOURS[name]
        )
        for name in ("relay-qh3", "envoy")
    }
    assert lengths["envoy"] == pytest.approx(4 * lengths["relay-qh3"], abs=0.2)
    right = max(float(node.get("x2", 0)) for node in root.iter(f"{_SVG}line"))
    assert right < float(root.get("width", 0))


def test_latency_is_drawn_by_percentile_and_lost_ones_as_rings() -> None:
    results = _results()
    for line in results.lines:
        if line.server == "envoy":
            line.delivered = [0.5] * 5
    root = ElementTree.fromstring(draw_latency(results))
    fills = [node.get("fill") for node in root.iter(f"{_SVG}circle")]
    assert sorted(fills, key=str) == ["#0072b2"] * 3 + ["#ffffff"] * 3
    assert "not measured" in [node.text for node in root.iter(f"{_SVG}text")]


def test_latency_of_nothing_or_less_is_drawn_at_the_bottom() -> None:
    results = Results(
        servers=["envoy"], lines=[_line("envoy", f"latency/10/{name}", -3.0) for name in ("p50", "p99")]
    )
    root = ElementTree.fromstring(draw_latency(results))
    heights = {node.get("cy") for node in root.iter(f"{_SVG}circle")}
    assert len(heights) == 1


def test_text_in_a_drawing_is_escaped() -> None:
    drawing = Drawing(10, 10, 'a "b" <c> & d')
    drawing.text(1, 1, "<x> & y")
    root = ElementTree.fromstring(drawing.render())
    assert root.get("aria-label") == 'a "b" <c> & d'
    assert [node.text for node in root.iter(f"{_SVG}text")] == ["<x> & y"]


def test_rows_and_servers_have_names_for_people() -> None:
    assert row_label("datagrams/64/1") == "64 bytes, 1 tunnel"
    assert row_label("loss/up/8") == "upload, 8 streams"
    assert row_label("latency/50/p999") == "50 % of its own capacity, p99.9"
    assert row_label("latency/shared/p50") == "shared rate, p50"
    assert server_label("direct/envoy") == "without Envoy"
    assert row_label("something/else") == "something/else"
    assert server_label("relay-qh3") == "relay (qh3)"
    assert server_label("somebody") == "somebody"


def test_a_second_run_is_compared_row_by_row() -> None:
    first, second = _results(), _results()
    second.lines[0].figures = [figure * 2 for figure in second.lines[0].figures]
    second.lines = [line for line in second.lines if line.server != "floor"]
    for run, figures in ((first, [1.89, 1.9, 1.9]), (second, [1.92, 1.93, 1.93])):
        line = run.line("quic-go-connect", "streams/down/8")
        assert line is not None
        line.figures = figures
    second.lines.append(_line("envoy", "handshakes", 2000.0))
    words = {(row.server, row.key): row.word for row in compare(first, second)}
    assert words["relay-qh3", "datagrams/1100/16"] == "differs"
    assert words["envoy", "datagrams/1100/16"] == "agrees"
    assert words["quic-go-connect", "streams/down/8"] == "close"
    assert words["floor", "floor/64/50"] == "missing"
    assert words["envoy", "handshakes"] == "new"
    assert ("envoy", "latency/80/p50") not in words
    text = render_agreements(compare(first, second))
    assert "10 of 12 rows agree within their own spreads; by chance alone 0.2 would not" in text
    assert "1 more are close; 1 missing in the second run; 1 new in the second run" in text
    (told,) = (row for row in text.splitlines() if row.startswith("differs"))
    assert "2.00" in told.split()


def test_the_page_says_whether_an_earlier_run_agrees() -> None:
    first, second = _results(), _results()
    assert "Agreement" not in render_page(second)
    second.lines[0].figures = [figure * 2 for figure in second.lines[0].figures]
    page = render_page(second, first)
    assert "## Agreement of two runs" in page
    assert "of 2026-01-02, in [earlier.json](earlier.json)" in page
    assert "12 of 13 rows agree within their own spreads; by chance alone 0.1 would not, and in 99 of 100" in page
    assert "So the two runs agree." in page
    assert "| datagrams | 3 | 0 | 1 | 0 | 0 |" in page
    told = (
        "| differs | relay (qh3) | datagrams: 1100 bytes, 16 tunnels | 2.00 (1.80..2.20) | 4.00 (3.60..4.40) | 2.00 |"
    )
    assert told in page
    assert "Those that do not" not in render_page(first, first)


def test_no_path_of_this_machine_is_told(tmp_path: Path) -> None:
    results = _results()
    home = "/home/some.body/check-out_1"
    results.failures["masque-go"] = f"{home}/interop/x.go:7: no package (in {home}/y/) cd '/opt/a/b' 1/2 a/b/c"
    results.skipped["other"] = f"install {home}/tool"
    results.command = f"python -m x --set tls.key={home}/key.pem"
    results.lines[0].failure = f"exec: {home}/bin/proxy"
    write_report(results, tmp_path)
    for file in (tmp_path / "results.json", tmp_path / "RESULTS.md"):
        text = file.read_text()
        assert "some.body" not in text
        assert "/opt" not in text
        assert "x.go:7: no package (in ) cd 'b' 1/2 a/b/c" in text
    assert load_results(tmp_path / "results.json").command == "python -m x --set tls.key=key.pem"


def test_compare_ends_with_1_when_more_rows_differ_than_chance_allows_or_one_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    results = _results()
    save_results(results, first)
    save_results(results, second)
    assert main(["--compare", str(first), "--json", str(second)]) == 0
    assert capsys.readouterr().out.endswith(": the runs agree\n")
    for count, code in ((1, 0), (2, 1)):
        for line in results.lines[:count]:
            line.figures = [1000.0] * 5
        save_results(results, second)
        assert main(["--compare", str(first), "--json", str(second)]) == code
    told = capsys.readouterr().out
    assert "differs" in told
    assert told.endswith(": the runs do not agree\n")
    results = _results()
    results.lines[0].late = [0.5]
    save_results(results, second)
    assert main(["--compare", str(first), "--json", str(second)]) == 1
    assert main(["--compare", str(tmp_path / "none.json"), "--json", str(second)]) == 1


def test_the_report_is_written_again_from_its_own_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(_results(), tmp_path / "one")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert main(["--draw", "--json", f"{one}/results.json", "--to", two]) == 0
    names = sorted(
        str(file.relative_to(tmp_path / "one")) for file in (tmp_path / "one").rglob("*") if file.is_file()
    )
    assert names == ["RESULTS.md", "plots/datagrams.svg", "plots/latency.svg", "plots/streams.svg", "results.json"]
    for name in names:
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_versions_are_read_from_what_is_pinned(tmp_path: Path) -> None:
    module = (
        "module x\n\ngo 1.26.0\n\nrequire a.example/q/quic-go v0.63.0\n\nrequire (\n\ta.example/m/uri/v3 v3.0.2\n"
    )
    (tmp_path / "go.mod").write_text(module + "\ta.example/other v1.0.0 // indirect\n)\n")
    assert read_pins(tmp_path) == "quic-go 0.63.0, uri 3.0.2"
    (tmp_path / "go.mod").unlink()
    (tmp_path / "Cargo.toml").write_text('[dependencies]\nquinn-proto = { version = "=0.11.19" }\nlibc = "=0.2"\n')
    assert list_versions({"load generator": tmp_path})["load generator"] == "quinn-proto 0.11.19"
    assert read_pins(tmp_path / "nothing") == ""


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert set(machine) == {"processor", "cores", "memory", "kernel", "python"}
    assert int(machine["cores"]) >= 1


def test_an_earlier_run_is_kept_beside_the_report_until_another_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(_results(), tmp_path)
    before = tmp_path / "before.json"
    save_results(replace(_results(), made="2025-12-31"), before)
    assert main(["--draw", "--compare", str(before), "--to", str(tmp_path)]) == 0
    page = (tmp_path / "RESULTS.md").read_text()
    assert "of 2025-12-31, in [earlier.json]" in page
    assert (tmp_path / "earlier.json").read_text() == before.read_text()
    assert main(["--draw", "--to", str(tmp_path)]) == 0
    assert (tmp_path / "RESULTS.md").read_text() == page
    write_report(_results(), tmp_path)
    assert not (tmp_path / "earlier.json").exists()
    assert "13 of 13 rows agree" in capsys.readouterr().out
