"""Plays contestants x cases, several at a time, and tells of each in the order of the plan, whoever ends first."""

from __future__ import annotations

import asyncio
import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from interop.matrix.contestants import Contestant
from interop.matrix.peers import PeerSpec
from interop.matrix.process import DaemonError
from interop.matrix.results import Cell, Column, Result
from interop.matrix.workshop import Shortfall
from relay.conformance.case import Case
from relay.conformance.play import Verdict

__all__ = ["Played", "Runner"]

_RESULT_OF = {Verdict.PASS: Result.PASS, Verdict.FAIL: Result.FAIL, Verdict.NONE: Result.NONE}


@dataclass(frozen=True, slots=True)
class Played:
    """One cell as it is told."""

    contestant: Contestant
    "Whose."
    case: Case
    "Which case."
    cell: Cell
    "What came of it."
    folder: Path | None
    "Where its logs are; None when nothing was played."
    detail: str = ""
    "More than the reason's one line."


class Runner:
    """One run."""

    def __init__(
        self,
        contestants: Sequence[Contestant],
        cases: Sequence[Case],
        folder: Path,
        root: Path,
        tell: Callable[[Played], None],
        *,
        tries: int = 1,
    ) -> None:
        """Plan; plays nothing.

        Args:
            contestants: the columns.
            cases: the rows.
            folder: for logs, in folders by contestant and case.
            root: the checkout; its path is left out of reasons.
            tell: called for each cell, in the order of contestants, then of cases.
            tries: how often a case that fails is played; a listed fault of the peer is not tried again.
        """
        self._tries = tries
        self._contestants = contestants
        self._cases = cases
        self._folder = folder
        self._root = root
        self._tell = tell
        self._shortfalls: dict[str, Shortfall | None] = {}
        self._played: dict[tuple[str, str], Played] = {}
        self._told = 0

    async def run(self, jobs: int) -> list[Column]:
        """Prepare all contestants, then play.

        Args:
            jobs: how many cases at the same time.

        Returns:
            The columns, in the order of the contestants.
        """
        playing = [contestant for contestant in self._contestants if not _planned(contestant)]
        for contestant in playing:
            self._shortfalls[contestant.spec.key] = await self._prepare(contestant)
        plan = [(contestant, case) for contestant in playing for case in self._cases]
        queue = iter(plan)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(jobs):
                tasks.create_task(self._work(queue, plan))
        return [self._column(contestant) for contestant in self._contestants]

    async def _prepare(self, contestant: Contestant) -> Shortfall | None:
        folder = self._fresh(contestant.spec.key, "greeting")
        try:
            return await contestant.prepare(folder)
        except OSError as error:
            return Shortfall(False, f"it cannot be prepared: {error}")

    async def _work(self, queue: Iterator[tuple[Contestant, Case]], plan: Sequence[tuple[Contestant, Case]]) -> None:
        """Play what is next until nothing is left."""
        for contestant, case in queue:
            played = await self._play_until_passed(contestant, case)
            self._played[contestant.spec.key, case.name] = played
            while self._told < len(plan):
                next_one, next_case = plan[self._told]
                found = self._played.get((next_one.spec.key, next_case.name))
                if found is None:
                    break
                self._told += 1
                self._tell(found)

    async def _play_until_passed(self, contestant: Contestant, case: Case) -> Played:
        """Play one cell as often as allowed; a pass that was not the first try says so."""
        played = await self._play(contestant, case)
        for attempt in range(2, self._tries + 1):
            if played.cell.result is not Result.FAIL or case.name in contestant.spec.faults:
                break
            played = await self._play(contestant, case)
            if played.cell.result is Result.PASS:
                reason = "; ".join(filter(None, (f"on try {attempt}", played.cell.reason)))
                played = replace(played, cell=replace(played.cell, reason=reason))
        return played

    async def _play(self, contestant: Contestant, case: Case) -> Played:
        """Play one cell; whatever happens is a result."""
        shortfall = self._shortfalls[contestant.spec.key]
        if shortfall is not None:
            result = Result.SKIP if shortfall.is_missing else Result.FAIL
            cell = Cell(case.name, result, self._clean(shortfall.reason))
            return Played(contestant, case, cell, None, shortfall.detail)
        missing = contestant.missing(case)
        if missing:
            return Played(contestant, case, Cell(case.name, Result.NONE, missing), None)
        folder = self._fresh(contestant.spec.key, case.name)
        try:
            outcome = await contestant.play(case, folder)
        except DaemonError as error:
            return self._failed(contestant, case, folder, str(error), "")
        except Exception as error:  # noqa: BLE001  a fault of the suite fails its cell, not the run
            text = "".join(traceback.format_exception(error))
            return self._failed(contestant, case, folder, f"the suite broke: {type(error).__name__}: {error}", text)
        reason = outcome.reason or "; ".join(f"should: {note}" for note in outcome.notes)
        first, _, rest = self._clean(reason).partition("\n")
        cell = Cell(case.name, _RESULT_OF[outcome.verdict], first, outcome.seconds)
        if cell.result is Result.PASS:
            shutil.rmtree(folder / "qlog", ignore_errors=True)  # large, and nobody looks at what went well
        return self._judged(Played(contestant, case, cell, folder, rest))

    def _failed(self, contestant: Contestant, case: Case, folder: Path, reason: str, detail: str) -> Played:
        first, _, rest = self._clean(reason).partition("\n")
        cell = Cell(case.name, Result.FAIL, first)
        return self._judged(Played(contestant, case, cell, folder, detail or rest))

    def _judged(self, played: Played) -> Played:
        """Name the peer's own fault, where one is listed for a case; one that is gone should not stay listed."""
        fault = played.contestant.spec.faults.get(played.case.name)
        cell = played.cell
        if fault is not None and cell.result is Result.FAIL:
            return replace(played, cell=replace(cell, reason=f"{cell.reason} (the peer's fault: {fault})"))
        if fault is not None and cell.result is Result.PASS:
            return replace(played, cell=replace(cell, reason="passes, though `faults` lists it"))
        return played

    def _clean(self, reason: str) -> str:
        return reason.replace(f"{self._root}/", "").replace(str(self._root), ".")

    def _fresh(self, name: str, case: str) -> Path:
        folder = self._folder / name / case
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _column(self, contestant: Contestant) -> Column:
        spec = contestant.spec
        cells = {
            case.name: self._played[spec.key, case.name].cell
            for case in self._cases
            if (spec.key, case.name) in self._played
        }
        return Column(
            contestant.side, spec.name, spec.about, spec.language, contestant.version, _planned(contestant), cells
        )


def _planned(contestant: Contestant) -> str:
    return contestant.spec.planned if isinstance(contestant.spec, PeerSpec) else ""
