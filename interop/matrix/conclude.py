"""The end of a run: the matrix, what is worse than the kept results, the files, the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interop.matrix.document import render_markdown
from interop.matrix.report import render_matrix
from interop.matrix.results import (
    Column,
    Matrix,
    Result,
    ResultsError,
    Weight,
    compare,
    encode_results,
    merge,
    parse_results,
)
from relay.conformance.case import Case

__all__ = ["Conclusion"]

_HEADINGS = {
    Weight.WORSE: "worse than interop/results.json:",
    Weight.OTHER: "fails for another reason than in interop/results.json:",
    Weight.UNSEEN: "passed in interop/results.json, skipped now:",
    Weight.BETTER: "better than interop/results.json:",
}


class Conclusion:
    """What becomes of a run's results."""

    def __init__(self, folder: Path, cases: Sequence[Case], *, is_whole: bool) -> None:
        """Read the kept results.

        Args:
            folder: where results.json and RESULTS.md are.
            cases: all cases, in the order of the report.
            is_whole: every peer and case is run.

        Raises:
            ResultsError: results.json cannot be read.
        """
        self._file = folder / "results.json"
        self._document = folder / "RESULTS.md"
        self._cases = cases
        self._is_whole = is_whole
        self._before: list[Column] = []
        if self._file.exists():
            try:
                self._before = parse_results(self._file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, ResultsError) as error:
                raise ResultsError(f"{self._file.name}: {error}") from None

    @property
    def has_kept_results(self) -> bool:
        """There is something to compare with."""
        return bool(self._before)

    def conclude(self, matrix: Matrix, *, check: bool, strict: bool, update: bool, json_file: Path | None) -> int:
        """Print, write, and judge.

        Args:
            matrix: this run's results.
            check: what is worse than the kept results fails the run.
            strict: what was skipped, or fails for another reason, counts as worse.
            update: keep these results.
            json_file: where to write them as they are, with times.

        Returns:
            The exit code: 0 when all is well.
        """
        print(f"\n{render_matrix(matrix)}")
        is_worse = self._report_changes(matrix, strict=strict)
        if json_file is not None:
            json_file.write_text(encode_results(matrix, with_seconds=True), encoding="utf-8")
        if update:
            names = [case.name for case in self._cases]
            kept = merge(self._before, matrix, names, is_whole=self._is_whole)
            self._file.write_text(encode_results(kept), encoding="utf-8")
            self._document.write_text(render_markdown(kept, self._cases), encoding="utf-8")
            print(f"\nwrote {self._document.name} and {self._file.name}")
        has_failed = any(cell.result is Result.FAIL for column in matrix for cell in column.cells.values())
        return int(is_worse if check else has_failed and not self._is_expected(matrix))

    def _report_changes(self, matrix: Matrix, *, strict: bool) -> bool:
        """Print what differs from the kept results; true when something is worse."""
        changes = compare(self._before, matrix, is_whole=self._is_whole)
        for weight in Weight:
            found = [change.text for change in changes if change.weight is weight]
            if found and (self._before or weight is Weight.WORSE):
                print("\n".join(["", _HEADINGS[weight], *(f"  {text}" for text in found)]))
        bad = {Weight.WORSE, Weight.OTHER, Weight.UNSEEN} if strict else {Weight.WORSE}
        return any(change.weight in bad for change in changes)

    def _is_expected(self, matrix: Matrix) -> bool:
        """True when every failure is in the kept results too."""
        return not any(change.weight is Weight.WORSE for change in compare(self._before, matrix, is_whole=False))
