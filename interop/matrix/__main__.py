"""The interop suite: `python -m interop.matrix`, or `make interop`.

Builds what is needed, plays every case with every peer against our relay, and with our client against other servers,
and prints the matrix. Ends with 0 when nothing failed that should not, with 1 otherwise, with 2 for a mistake of the
caller, with 130 when interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from interop.matrix.conclude import Conclusion
from interop.matrix.contestants import OWN
from interop.matrix.peers import SpecError, check_faults, load_peers, load_servers
from interop.matrix.report import render_failure, render_line, render_list
from interop.matrix.results import Column, Result, ResultsError
from interop.matrix.runner import Played
from interop.matrix.servers import ENVOY
from interop.matrix.stage import Plan, run_plan
from relay.conformance.cases import ALL_CASES
from relay.quic.engine import EngineName

__all__ = ["main"]

_ROOT = Path(__file__).parents[2]
_INTEROP = _ROOT / "interop"
_USAGE_ERROR = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the command line without the program's name, or None for the process's own.

    Returns:
        The exit code.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        peers = load_peers(_INTEROP / "peers")
        servers = [ENVOY, *load_servers(_INTEROP / "servers")]
        specs = [OWN, *peers, *servers]
        check_faults(specs, [case.name for case in ALL_CASES])
        if options.list:
            print(render_list(specs, ALL_CASES))
            return 0
        names = _choose(options.peer, [spec.name for spec in specs], "peer")
        cases = _choose(options.case, [case.name for case in ALL_CASES], "case")
        is_whole = not options.peer and not options.case
        conclusion = Conclusion(_INTEROP, ALL_CASES, is_whole=is_whole)
    except (SpecError, ResultsError, _UsageError) as error:
        print(f"interop: {error}", file=sys.stderr)
        return _USAGE_ERROR
    if options.update and options.engine != EngineName.QH3:
        parser.error("--update: the kept results are those of the default engine")
    if options.check and not conclusion.has_kept_results:
        parser.error("--check: there is no interop/results.json; --update makes it")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    plan = Plan(
        _ROOT,
        options.home,
        EngineName(options.engine),
        options.jobs,
        peers=[spec for spec in peers if spec.name in names],
        servers=[spec for spec in servers if spec.name in names],
        has_own=OWN.name in names,
        cases=[case for case in ALL_CASES if case.name in cases],
        may_install=options.install or os.environ.get("INTEROP_INSTALL") == "1",
        tries=options.tries,
    )
    matrix = asyncio.run(_run(plan))
    return (
        _INTERRUPTED
        if matrix is None
        else conclusion.conclude(
            matrix, check=options.check, strict=options.strict, update=options.update, json_file=options.json
        )
    )


class _UsageError(Exception):
    """The caller named what there is not."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m interop.matrix", description="The interop suite.")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME,...", help="only these peers or servers")
    parser.add_argument("--case", action="append", default=[], metavar="NAME,...", help="only these cases")
    parser.add_argument("--list", action="store_true", help="print peers and cases, and run nothing")
    parser.add_argument("--engine", default=EngineName.QH3.value, choices=[name.value for name in EngineName])
    parser.add_argument("--jobs", type=_positive, default=2, metavar="N", help="cases at the same time; 2 by default")
    parser.add_argument("--tries", type=_positive, default=1, metavar="N", help="play what fails up to N times")
    parser.add_argument("--install", action="store_true", help="install missing Debian packages, as root")
    parser.add_argument(
        "--home",
        type=Path,
        default=_ROOT / ".run" / "interop",
        metavar="DIR",
        help="for builds and logs; .run/interop",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write this run's results, with times")
    parser.add_argument("--update", action="store_true", help="write interop/RESULTS.md and interop/results.json")
    parser.add_argument("--check", action="store_true", help="fail on what is worse than interop/results.json")
    parser.add_argument("--strict", action="store_true", help="with --check: what is skipped now fails too")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _choose(wanted: Sequence[str], known: Sequence[str], what: str) -> frozenset[str]:
    """Read lists of names with commas; none means all."""
    names = frozenset(name for item in wanted for name in item.split(",") if name)
    unknown = sorted(names - set(known))
    if unknown:
        raise _UsageError(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return names or frozenset(known)


async def _run(plan: Plan) -> list[Column] | None:
    """Run a plan; None when it was interrupted. Everything is ended either way."""
    running = asyncio.create_task(run_plan(plan, _Teller().tell))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    try:
        return await running
    except asyncio.CancelledError:
        print("interop: interrupted", file=sys.stderr)
        return None


class _Teller:
    """Prints cells as they come."""

    def __init__(self) -> None:
        self._unfit: set[str] = set()

    def tell(self, played: Played) -> None:
        """Print what was played; what was not is told at the end, by its reasons. A failed build is told once."""
        if played.cell.result in (Result.NONE, Result.SKIP):
            return
        key = played.contestant.spec.key
        if played.folder is None and key in self._unfit:
            return
        if played.folder is None:
            self._unfit.add(key)
        print(render_line(played), flush=True)
        if played.cell.result is Result.FAIL:
            print(render_failure(played, _ROOT), flush=True)


if __name__ == "__main__":
    sys.exit(main())
