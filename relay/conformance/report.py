"""The conformance report, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from relay import __version__
from relay.conformance.case import Case
from relay.conformance.play import Outcome, Verdict

__all__ = ["encode_report", "render_cases", "render_outcome", "render_summary"]

_NAME = 22


def render_cases(cases: Sequence[Case]) -> str:
    """List cases, what each proves and where that is demanded."""
    return "".join(f"{case.name:<{_NAME}} {case.proves} ({case.source})\n" for case in cases)


def render_outcome(outcome: Outcome) -> str:
    """One case: a line, and below it the reason and the notes."""
    case = outcome.case
    lines = [f"{outcome.verdict:<4} {case.name:<{_NAME}} {case.proves} ({case.source})"]
    if outcome.reason:
        lines.append(f"     {'':<{_NAME}} {outcome.reason}")
    lines += [f"     {'':<{_NAME}} note: {note}" for note in outcome.notes]
    return "".join(f"{line}\n" for line in lines)


def render_summary(outcomes: Sequence[Outcome]) -> str:
    """The last line: how many of each, and the names of those that failed."""
    count = Counter(outcome.verdict for outcome in outcomes)
    notes = sum(len(outcome.notes) for outcome in outcomes)
    failed = ", ".join(outcome.case.name for outcome in outcomes if outcome.verdict is Verdict.FAIL)
    text = f"{count[Verdict.PASS]} passed, {count[Verdict.FAIL]} failed, {count[Verdict.NONE]} not applicable"
    text += f", {notes} notes of what it should do" if notes else ""
    return f"\n{text}\n" + (f"failed: {failed}\n" if failed else "")


def encode_report(url: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The report for machines.

    Args:
        url: the server.
        outcomes: what came of each case.

    Returns:
        Plain data for JSON: `server`, `client`, and `cases` with name, source, result, reason, notes and seconds.
    """
    return {
        "server": url,
        "client": f"masque-relay {__version__}",
        "cases": [
            {
                "name": outcome.case.name,
                "source": outcome.case.source,
                "result": outcome.verdict.value,
                "reason": outcome.reason,
                "notes": list(outcome.notes),
                "seconds": round(outcome.seconds, 3),
            }
            for outcome in outcomes
        ],
    }
