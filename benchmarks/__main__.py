# SPDX-License-Identifier: MIT
"""`python -m benchmarks`: measure both libraries and print the table (about five minutes)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Effort, MeasureError, run_rounds, write_bytecode
from benchmarks.rows import ROWS, Row

# Fills about five minutes on two cores; even, so that each library goes first equally often.
DEFAULT_ROUNDS = 14
QUICK_ROUNDS = 2
QUICK_SECONDS = 0.05


def chosen_rows(names: str) -> list[Row]:
    """The rows of a comma-separated list, in the order of the list."""
    unknown = [name for name in names.split(",") if name not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no row named {', '.join(map(repr, unknown))}; there are {', '.join(ROWS)}"
        )
    return [ROWS[name] for name in names.split(",")]


def positive(text: str) -> int:
    """An int above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above zero")
    return value


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="gopool beside the standard library's multiprocessing; see docs/benchmarks.md.",
    )
    result.add_argument(
        "--rounds", type=positive, help=f"default {DEFAULT_ROUNDS}, or {QUICK_ROUNDS} if quick"
    )
    result.add_argument(
        "--rows", type=chosen_rows, default=list(ROWS.values()), help="comma-separated names"
    )
    result.add_argument(
        "--workers", type=positive, default=Effort.workers, help="in each pool, default %(default)s"
    )
    result.add_argument(
        "--quick", action="store_true", help="shows that it works; figures not to be quoted"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="every figure, for other tools")
    result.add_argument("--list", action="store_true", help="print the rows' names and stop")
    return result


def show_progress(number: int, row: Row) -> None:
    print(f"round {number + 1}: {row.name}", file=sys.stderr, flush=True)


def main() -> int:
    options = parser().parse_args()
    if options.list:
        for row in ROWS.values():
            print(f"{row.name:15} {row.title} ({row.unit})")
        return 0
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else DEFAULT_ROUNDS)
    seconds = QUICK_SECONDS if options.quick else Effort.seconds
    effort = Effort(options.workers, seconds, options.quick)
    facts = report.circumstances(rounds, effort)
    try:
        write_bytecode()
        samples = run_rounds(options.rows, rounds, effort, progress=show_progress)
    except MeasureError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(report.heading(facts))
    print()
    print(report.table([report.summarize(of_row) for of_row in samples]))
    if options.json:
        options.json.write_text(json.dumps(report.record(facts, samples), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
