"""Results: what is kept, what counts as worse, and the documents that are made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from interop.matrix.conclude import Conclusion
from interop.matrix.document import render_markdown
from interop.matrix.report import group_reasons, render_matrix
from interop.matrix.results import (
    Cell,
    Column,
    Result,
    ResultsError,
    Side,
    Weight,
    compare,
    encode_results,
    merge,
    parse_results,
    stable_reason,
)
from relay.conformance.case import Case, Stage

PASS, FAIL, SKIP, NONE = Result.PASS, Result.FAIL, Result.SKIP, Result.NONE


async def _check(stage: Stage) -> None:
    """Play nothing."""


CASES = [
    Case(name, f"Proves {name}", "RFC 9298 §3", _check, frozenset(), frozenset())
    for name in ("first", "second", "third")
]
NAMES = [case.name for case in CASES]


def _column(name: str = "peer", side: Side = Side.CLIENTS, version: str = "1.0", **cells: Result | Cell) -> Column:
    made = {
        case: cell if isinstance(cell, Cell) else Cell(case, cell, "" if cell is PASS else "why", 1.5)
        for case, cell in cells.items()
    }
    return Column(side, name, f"about {name}", "C", version, "", made)


@pytest.mark.parametrize(
    ("was", "now", "weight"),
    [
        (PASS, PASS, None),
        (PASS, FAIL, Weight.WORSE),
        (PASS, NONE, Weight.WORSE),
        (PASS, SKIP, Weight.UNSEEN),
        (FAIL, PASS, Weight.BETTER),
        (FAIL, FAIL, None),
        (FAIL, NONE, None),
        (FAIL, SKIP, None),
        (NONE, PASS, Weight.BETTER),
        (NONE, FAIL, Weight.WORSE),
        (NONE, NONE, None),
        (NONE, SKIP, None),
        (SKIP, PASS, Weight.BETTER),
        (SKIP, FAIL, Weight.WORSE),
        (None, PASS, Weight.BETTER),
        (None, FAIL, Weight.WORSE),
        (None, NONE, None),
        (None, SKIP, None),
    ],
)
def test_each_change_has_its_weight(was: Result | None, now: Result, weight: Weight | None) -> None:
    before = [] if was is None else [_column(first=was)]
    changes = compare(before, [_column(first=now)], is_whole=True)
    assert [change.weight for change in changes] == ([] if weight is None else [weight])


def test_a_change_says_what_was_and_why_it_is() -> None:
    [change] = compare([_column(first=PASS)], [_column(first=FAIL)], is_whole=False)
    assert change.text == "peer first: was PASS, is FAIL: why"


def test_a_failure_for_another_reason_is_told() -> None:
    before = [_column(first=Cell("first", FAIL, "no echo of 127.0.0.1:PORT"))]
    same, other = Cell("first", FAIL, "no echo of 127.0.0.1:44444\nlog"), Cell("first", FAIL, "no connection")
    assert compare(before, [_column(first=same)], is_whole=True) == []
    [change] = compare(before, [_column(first=other)], is_whole=True)
    assert change.weight is Weight.OTHER


def test_the_same_name_on_the_other_side_is_another() -> None:
    before = [_column(side=Side.SERVERS, first=FAIL)]
    assert [change.weight for change in compare(before, [_column(first=FAIL)], is_whole=False)] == [Weight.WORSE]


def test_what_is_gone_is_worse_only_when_everything_was_run() -> None:
    before = [_column(first=PASS, second=FAIL), _column("other", first=PASS)]
    now = [_column(second=FAIL)]
    assert compare(before, now, is_whole=False) == []
    changes = compare(before, now, is_whole=True)
    assert [change.weight for change in changes] == [Weight.WORSE] * 2
    assert [change.text for change in changes] == ["peer first: was PASS, is gone", "other first: was PASS, is gone"]


def test_what_is_written_is_read_again_without_times() -> None:
    matrix = [_column("a", first=PASS, second=NONE), _column("a", Side.SERVERS, first=FAIL)]
    text = encode_results(matrix)
    assert "seconds" not in text
    found = parse_results(text)
    assert encode_results(found) == text
    assert [(column.side, column.name) for column in found] == [(Side.CLIENTS, "a"), (Side.SERVERS, "a")]
    assert found[0].cells["second"] == Cell("second", NONE, "why")
    timed = json.loads(encode_results(matrix, with_seconds=True))
    assert timed["clients"][0]["cases"][0]["seconds"] == 1.5


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "clients": [{}], "servers": []}', "null"]
)
def test_what_is_no_results_file_is_refused(text: str) -> None:
    with pytest.raises(ResultsError):
        parse_results(text)


def test_a_filtered_run_changes_its_cells_only() -> None:
    before = [_column("a", first=PASS, second=PASS), _column("b", first=PASS)]
    kept = merge(before, [_column("a", second=FAIL, version="2.0")], NAMES, is_whole=False)
    assert [(column.name, column.version) for column in kept] == [("a", "2.0"), ("b", "1.0")]
    assert [cell.result for cell in kept[0].cells.values()] == [PASS, FAIL]


def test_a_whole_run_forgets_what_is_gone_but_not_what_was_skipped() -> None:
    before = [_column("a", first=PASS, second=PASS), _column("b", first=PASS)]
    kept = merge(before, [_column("a", first=SKIP, third=SKIP, version="")], NAMES, is_whole=True)
    [column] = kept
    assert (column.name, column.version) == ("a", "1.0")
    assert {name: cell.result for name, cell in column.cells.items()} == {"first": PASS, "third": SKIP}


def test_the_order_does_not_depend_on_the_run() -> None:
    columns = [_column("b", third=PASS, first=PASS), _column("a", Side.SERVERS, first=PASS), _column("a", first=PASS)]
    one = encode_results(merge([], columns, NAMES, is_whole=True))
    other = encode_results(merge([], columns[::-1], NAMES, is_whole=True))
    assert one == other
    assert list(parse_results(one)[1].cells) == ["first", "third"]


@pytest.mark.parametrize(
    ("text", "stable"),
    [
        ("plain", "plain"),
        ("first line:\nand the log", "first line"),
        ("no answer of 127.0.0.1:54321 to that", "no answer of 127.0.0.1:PORT to that"),
        ("[::1]:40000 and localhost:40000", "[::1]:PORT and localhost:PORT"),
        ("asked 192.0.2.53:53 from 127.0.0.1", "asked ADDRESS:53 from 127.0.0.1"),
        ("key 0123456789abcdef0123 of 16777216 bytes", "key KEY of 16777216 bytes"),
        ("answered 503, expected 502; 10.5 s", "answered 503, expected 502; 10.5 s"),
    ],
)
def test_a_reason_is_the_same_in_a_second_run(text: str, stable: str) -> None:
    assert stable_reason(text) == stable


def test_the_matrix_has_a_row_for_each_case_and_says_why() -> None:
    planned = replace(_column("later"), planned="waits for tokens")
    text = render_matrix([_column("one", first=PASS, second=NONE), _column("two", first=FAIL), planned])
    lines = text.splitlines()
    assert lines[2:5] == ["        one   two", "first   PASS  FAIL", "second  n/a"]
    assert "one: 1 PASS, 1 n/a" in lines
    assert "  n/a, why: second" in lines
    assert "later: planned, waits for tokens" in lines


def test_cases_of_one_reason_share_a_line() -> None:
    assert group_reasons(_column(first=NONE, second=PASS, third=NONE), 2) == ["n/a, why: first, third"]
    assert group_reasons(_column(first=SKIP, second=SKIP, third=FAIL), 1) == [
        "SKIP, why: 2 cases",
        "FAIL, why: third",
    ]


def test_the_document_is_a_function_of_the_results() -> None:
    bad = Cell("second", FAIL, "a | b", 7.0)
    matrix = [
        _column("one", first=PASS, second=bad),
        replace(_column("later"), planned="waits"),
        _column("s", Side.SERVERS),
    ]
    text = render_markdown(merge([], matrix, NAMES, is_whole=True), CASES)
    assert text == render_markdown(parse_results(encode_results(merge([], matrix, NAMES, is_whole=True))), CASES)
    assert "| one | C | 1.0 | 1 of 2 |" in text
    assert "| later | C | 1.0 | planned: waits |" in text
    assert "| first | Proves first | RFC 9298 §3 | PASS |" in text
    assert "- FAIL, a \\| b: second" in text
    assert "third" not in text


def test_a_run_is_judged_by_what_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def conclude(column: Column, *, check: bool = False, strict: bool = False, update: bool = False) -> int:
        conclusion = Conclusion(tmp_path, CASES, is_whole=True)
        return conclusion.conclude([column], check=check, strict=strict, update=update, json_file=None)

    assert conclude(_column(first=FAIL)) == 1
    assert conclude(_column(first=PASS, second=FAIL), update=True) == 1
    capsys.readouterr()
    assert conclude(_column(first=PASS, second=FAIL)) == 0
    assert conclude(_column(first=PASS, second=FAIL), check=True) == 0
    assert conclude(_column(first=PASS, second=PASS), check=True) == 0
    assert "better than interop/results.json:\n  peer second: was FAIL, is PASS\n" in capsys.readouterr().out
    assert conclude(_column(first=FAIL, second=FAIL), check=True) == 1
    assert "worse than interop/results.json:\n  peer first: was PASS, is FAIL: why\n" in capsys.readouterr().out
    assert conclude(_column(first=SKIP, second=FAIL), check=True) == 0
    assert "skipped now:\n  peer first: was PASS, is SKIP: why\n" in capsys.readouterr().out
    assert conclude(_column(first=SKIP, second=FAIL), check=True, strict=True) == 1
    assert conclude(_column(second=FAIL), check=True) == 1


def test_two_updates_write_the_same_files(tmp_path: Path) -> None:
    files = (tmp_path / "results.json", tmp_path / "RESULTS.md")
    seen = []
    for seconds in (1.0, 2.0):
        bad = Cell("first", FAIL, f"no answer of 127.0.0.1:4{seconds:.0f}000\nlog", seconds)
        column = _column(
            first=bad, second=Cell("second", PASS, "should: be earlier" if seconds == 2 else "", seconds)
        )
        Conclusion(tmp_path, CASES, is_whole=True).conclude(
            [column], check=False, strict=False, update=True, json_file=tmp_path / "run.json"
        )
        seen.append([file.read_text() for file in files])
    assert seen[0] == seen[1]
    assert json.loads((tmp_path / "run.json").read_text())["clients"][0]["cases"][0]["seconds"] == 2.0


def test_kept_results_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ResultsError, match=r"^results\.json: "):
        Conclusion(tmp_path, CASES, is_whole=True)
