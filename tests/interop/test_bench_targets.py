"""interop.bench.families and interop.bench.rules: their rows can be measured, and come out in the order they must."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.bench.families import CASES, Case, measure
from interop.bench.rules import judgements, write_rules
from relay.policy import RuleSet, read_rules
from relay.settings import PolicySettings

pytestmark = pytest.mark.anyio


async def test_what_is_remembered_saves_the_delay() -> None:
    forgotten, remembered = (case for case in CASES if case.name.startswith("IPv6 swallows"))
    (slow,) = await measure(forgotten, 1)
    (fast,) = await measure(remembered, 1)
    assert fast < 240 < slow


@pytest.mark.parametrize("case", [case for case in CASES if not case.swallowing], ids=lambda case: case.name)
async def test_a_family_that_refuses_costs_no_delay(case: Case) -> None:
    (milliseconds,) = await measure(case, 1)
    assert milliseconds < 240


@pytest.mark.parametrize("count", [0, 9])
def test_rules_are_written_and_judged(tmp_path: Path, count: int) -> None:
    write_rules(tmp_path / "rules.toml", count)
    rules = read_rules(PolicySettings(file=tmp_path / "rules.toml", denied_ports=()))
    assert len(rules) == count
    assert judgements(RuleSet(rules), 0.001) > 0
