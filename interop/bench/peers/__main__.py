"""The relay beside Envoy, masque-go and quic-go, in one run: `python -m interop.bench.peers`.

Everything runs on loopback. The server under test has one core for itself; the load generator and the origins share
another. A run of everything writes RESULTS.md, results.json and the plots into interop/bench. `--draw` writes them
again from the JSON, and `--compare` says row by row whether that run agrees with an earlier one; both together put
that into the page.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from interop.bench.bench import Bench
from interop.bench.command import names, prepare_process
from interop.bench.lab import PYTHON_KIT, Lab
from interop.bench.peers.charts import draw_charts
from interop.bench.peers.compare import compare, is_agreement, render_agreements
from interop.bench.peers.comparison import Comparison
from interop.bench.peers.machine import describe_machine, list_versions
from interop.bench.peers.page import render_page
from interop.bench.peers.plan import FULL, GROUPS, QUICK
from interop.bench.peers.results import Results, ResultsError, load_results, save_results, without_paths
from interop.bench.peers.workshop import build_kit, build_others, list_others, sources
from interop.bench.processes import CHECKOUT, ChildError
from interop.bench.relays import SERVERS, server_specs
from interop.bench.report import render_table
from interop.matrix.peers import SpecError

__all__ = ["main", "write_report"]

HOME = CHECKOUT / "interop" / "bench"
"Where the report is."
_BUILD = CHECKOUT / ".run" / "interop" / "build"
_JSON = "results.json"
_EARLIER = "earlier.json"


def _parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    known = (*SERVERS, *list_others())
    parser = argparse.ArgumentParser(prog="python -m interop.bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--only", type=names(known), metavar="SERVERS", help=",".join(known))
    parser.add_argument("--rows", type=names(GROUPS), metavar="GROUPS", help=",".join(GROUPS))
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each row is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, or take them from there")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write the report there, also of a part")
    parser.add_argument("--generator", choices=("rust", "python"), default="rust", help="python needs no compiler")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for the relay")
    parser.add_argument("--draw", action="store_true", help="measure nothing: write page and plots from the JSON")
    parser.add_argument(
        "--compare", type=Path, metavar="EARLIER", help="measure nothing: compare the JSON with one before"
    )
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and print the report, or work on the results of an older run.

    Args:
        arguments: the command line without the program's name, or None for the process's own.

    Returns:
        0; 1 when something failed, or the two runs of `--compare` do not agree; 130 when interrupted.
    """
    try:
        options = _parse_arguments(arguments)
        if options.draw or options.compare:
            return _reuse(options)
        prepare_process()
        return _measure(options)
    except (ChildError, ResultsError, SpecError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def write_report(results: Results, folder: Path, earlier: Results | None = None) -> None:
    """Write page, plots and JSON.

    Args:
        results: the run.
        folder: where to; the plots go into its folder `plots`.
        earlier: another run of the same, to say whether they agree.

    Raises:
        OSError: the folder cannot be written to.
    """
    results = without_paths(results)
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name, drawing in draw_charts(results).items():
        (plots / f"{name}.svg").write_text(drawing)
    (folder / "RESULTS.md").write_text(render_page(results, earlier))
    save_results(results, folder / _JSON)
    (folder / _EARLIER).unlink(missing_ok=True)
    if earlier is not None:
        save_results(earlier, folder / _EARLIER)


def _reuse(options: argparse.Namespace) -> int:
    """Draw or compare what has been measured."""
    folder: Path = options.to or HOME
    results = load_results(options.json or folder / _JSON)
    earlier = options.compare or folder / _EARLIER
    before = load_results(earlier) if options.compare or earlier.exists() else None
    if options.draw:
        write_report(results, folder, before)
    if options.compare is None or before is None:
        return 0
    found = compare(before, results)
    print(render_agreements(found))
    return int(not is_agreement(found))


def _measure(options: argparse.Namespace) -> int:
    """Measure what was asked for; a run of everything becomes the report."""
    pace = QUICK if options.quick else FULL
    pace = replace(pace, rounds=options.rounds or pace.rounds)
    begin = time.monotonic()
    built = build_others(_BUILD, options.only)
    specs = server_specs(options.set) | built.specs
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
        kit = PYTHON_KIT if options.generator == "python" else build_kit(_BUILD, built)
        lab = Lab(stack, folder, kit)
        bench = Bench(lab, pace)
        chosen = [specs[name] for name in options.only or specs if name in specs]
        run = Comparison(bench, chosen)
        try:
            run.run(options.rows or GROUPS)
        except ChildError as error:
            bench.failures["the run"] = str(error)
    results = Results(
        made=datetime.now(UTC).date().isoformat(),
        machine=describe_machine(),
        versions={**list_versions(sources()), "generator": lab.kit.name},
        command=_command(options),
        pace=asdict(pace),
        facts={**run.facts, "took": f"{(time.monotonic() - begin) / 60:.0f} minutes, builds included"},
        skipped=built.skipped | run.skipped,
        failures=built.failures | bench.failures,
        servers=[spec.name for spec in chosen],
        lines=bench.lines,
    )
    is_whole = not (options.quick or options.only or options.rows or options.rounds or options.set)
    if options.to or (is_whole and options.generator == "rust"):
        write_report(results, options.to or HOME)
    if options.json is not None:
        save_results(results, options.json)
    _print(results)
    return int(bool(results.failures))


def _command(options: argparse.Namespace) -> str:
    """Write the command that measures the same again, wherever its results went."""
    words = ["python", "-m", "interop.bench.peers"]
    words += ["--quick"] if options.quick else []
    for name in ("only", "rows"):
        words += [f"--{name}", ",".join(chosen)] if (chosen := getattr(options, name)) else []
    words += ["--rounds", str(options.rounds)] if options.rounds else []
    words += ["--generator", options.generator] if options.generator != "rust" else []
    words += [word for setting in options.set for word in ("--set", setting)]
    return shlex.join(words)


def _print(results: Results) -> None:
    """Print tables, and what was left out."""
    for server in dict.fromkeys(line.server for line in results.lines):
        print(f"\n{render_table(results.lines, server)}")
    print()
    for name, fact in results.facts.items():
        print(f"{name}: {fact}")
    for name, reason in results.skipped.items():
        print(f"SKIP  {name}: {reason}")
    for name, reason in results.failures.items():
        print(f"FAILED  {name}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
