"""The relay beside Envoy, masque-go and quic-go, in one run: `python -m interop.bench.peers`.

Everything runs on loopback. The server under test has one core for itself; the load generator and the origins share
another. A run of everything writes RESULTS.md, results.json and the plots into interop/bench. `--draw` writes them
again from the JSON, and `--compare` says whether that run agrees with an older one.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from interop.bench.bench import Bench
from interop.bench.command import names, prepare_process
from interop.bench.lab import PYTHON_KIT, Lab
from interop.bench.peers.charts import draw_charts
from interop.bench.peers.compare import compare, render_agreements
from interop.bench.peers.comparison import Comparison
from interop.bench.peers.machine import describe_machine, list_versions
from interop.bench.peers.page import render_page
from interop.bench.peers.plan import FULL, GROUPS, QUICK
from interop.bench.peers.results import Results, ResultsError, load_results, save_results
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


def _parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    known = (*SERVERS, *list_others())
    parser = argparse.ArgumentParser(prog="python -m interop.bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--only", type=names(known), metavar="SERVERS", help=",".join(known))
    parser.add_argument("--rows", type=names(GROUPS), metavar="GROUPS", help=",".join(GROUPS))
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each row is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, or take them from there")
    parser.add_argument("--generator", choices=("rust", "python"), default="rust", help="python needs no compiler")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for the relay")
    parser.add_argument("--draw", action="store_true", help="measure nothing: write page and plots from the JSON")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="measure nothing: compare the JSON with an older")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and print the report, or work on the results of an older run.

    Args:
        arguments: the command line without the program's name, or None for the process's own.

    Returns:
        0; 1 when something failed, or a row differs in `--compare`; 130 when interrupted.
    """
    try:
        options = _parse_arguments(arguments)
        if options.draw or options.compare:
            return _reuse(options)
        prepare_process()
        return _measure(options, sys.argv[1:] if arguments is None else arguments)
    except (ChildError, ResultsError, SpecError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def write_report(results: Results, folder: Path) -> None:
    """Write page, plots and JSON.

    Args:
        results: the run.
        folder: where to; the plots go into its folder `plots`.

    Raises:
        OSError: the folder cannot be written to.
    """
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name, drawing in draw_charts(results).items():
        (plots / f"{name}.svg").write_text(drawing)
    (folder / "RESULTS.md").write_text(render_page(results))
    save_results(results, folder / _JSON)


def _reuse(options: argparse.Namespace) -> int:
    """Draw or compare what has been measured."""
    results = load_results(options.json or HOME / _JSON)
    if options.draw:
        write_report(results, HOME)
    if options.compare is None:
        return 0
    found = compare(load_results(options.compare), results)
    print(render_agreements(found))
    return int(any(row.word == "differs" for row in found))


def _measure(options: argparse.Namespace, arguments: list[str]) -> int:
    """Measure what was asked for; a run of everything becomes the report."""
    pace = QUICK if options.quick else FULL
    pace = replace(pace, rounds=options.rounds or pace.rounds)
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
        command=_command(arguments),
        pace=asdict(pace),
        facts=run.facts,
        skipped=built.skipped | run.skipped,
        failures=built.failures | bench.failures,
        servers=[spec.name for spec in chosen],
        lines=bench.lines,
    )
    is_whole = not (options.quick or options.only or options.rows or options.rounds or options.set)
    if is_whole and options.generator == "rust":
        write_report(results, HOME)
    if options.json is not None:
        save_results(results, options.json)
    _print(results)
    return int(bool(results.failures))


def _command(arguments: list[str]) -> str:
    """Write the command that measures the same again, wherever its results went."""
    kept = list(arguments)
    if "--json" in kept:
        place = kept.index("--json")
        del kept[place : place + 2]
    return shlex.join(["python", "-m", "interop.bench.peers", *kept])


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
