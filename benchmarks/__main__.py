# SPDX-License-Identifier: MIT
"""`python -m benchmarks`: measure the libraries, print the tables, write figures and plots."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks import report
from benchmarks.catalogue import ROWS
from benchmarks.libraries import LIBRARIES, PAIR, installed
from benchmarks.measure import (
    Effort,
    Limit,
    MeasureError,
    Run,
    run_rounds,
    write_bytecode,
)
from benchmarks.rows import Row

DEFAULT_MINUTES = 9.0
FULL_ROUNDS = 8
QUICK_ROUNDS = 2
QUICK_SECONDS = 0.05
MOST_ROUNDS = 1_000

# In a file of --markdown the tables stand between these two lines.
BEGIN = "<!-- tables of `python -m benchmarks`: begin -->"
END = "<!-- tables of `python -m benchmarks`: end -->"

RIVALS = [name for name in LIBRARIES if name not in PAIR]


def chosen_rows(names: str) -> list[Row]:
    """The rows of a comma-separated list, in the order of the list."""
    unknown = [name for name in names.split(",") if name not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no row named {', '.join(map(repr, unknown))}; there are {', '.join(ROWS)}"
        )
    return [ROWS[name] for name in names.split(",")]


def chosen_rivals(names: str) -> list[str]:
    """The rivals of a comma-separated list; "none" is none of them."""
    chosen = [] if names == "none" else names.split(",")
    unknown = [name for name in chosen if name not in RIVALS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no library named {', '.join(map(repr, unknown))}; there are {', '.join(RIVALS)}"
        )
    return chosen


def positive(text: str) -> int:
    """An int above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above zero")
    return value


def minutes(text: str) -> float:
    """A duration above zero, in seconds."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value * 60


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="gopool beside the standard library's multiprocessing and other libraries; "
        "see docs/performance.md.",
    )
    result.add_argument(
        "--rounds", type=positive, help=f"default {FULL_ROUNDS} if full, {QUICK_ROUNDS} if quick"
    )
    result.add_argument(
        "--minutes", type=minutes, help=f"begin no row after them; else default {DEFAULT_MINUTES:g}"
    )
    result.add_argument("--rows", type=chosen_rows, help="comma-separated names")
    result.add_argument(
        "--rivals",
        type=chosen_rivals,
        help="comma-separated names, or none; default: those that are installed, and only by name: "
        + ", ".join(name for name in RIVALS if LIBRARIES[name].asked),
    )
    result.add_argument(
        "--workers", type=positive, default=Effort.workers, help="in each pool, default %(default)s"
    )
    result.add_argument("--full", action="store_true", help="also the rows by scale, and 2.5 GB")
    result.add_argument(
        "--quick", action="store_true", help="shows that it works; figures not to be quoted"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="every figure, for other tools")
    result.add_argument(
        "--markdown", type=Path, metavar="FILE", help=f"put the tables into it, after {BEGIN!r}"
    )
    result.add_argument("--plots", type=Path, metavar="FOLDER", help="draw plots (SVG)")
    result.add_argument(
        "--read", type=Path, metavar="FILE", help="measure nothing: the figures of a --json FILE"
    )
    result.add_argument("--list", action="store_true", help="print the rows' names and stop")
    return result


def limit(options: argparse.Namespace) -> Limit:
    rounds = options.rounds
    seconds = options.minutes or float("inf")
    if options.quick:
        return Limit(rounds or QUICK_ROUNDS, seconds)
    if options.full:
        return Limit(rounds or FULL_ROUNDS, seconds)
    if rounds is None and options.minutes is None:
        seconds = DEFAULT_MINUTES * 60
    return Limit(rounds or MOST_ROUNDS, seconds)


def select_rivals(asked: list[str] | None) -> tuple[list[str], list[str]]:
    """The rivals to measure, and sentences about those that are left out."""
    wanted = asked
    if wanted is None:
        wanted = [name for name in RIVALS if not LIBRARIES[name].asked]
    missing = [name for name in wanted if not installed(name)]
    sentences = [
        f"{name}: it is not installed; `pip install {LIBRARIES[name].distribution}`"
        for name in missing
    ]
    return [name for name in wanted if name not in missing], sentences


def select_rows(asked: list[Row] | None, full: bool) -> tuple[list[Row], list[str]]:
    """The rows to measure, and sentences about those that are left out."""
    rows = asked
    if rows is None:
        rows = [row for row in ROWS.values() if full or not row.full]
    free = available_memory()
    kept, sentences = [], []
    for row in rows:
        missing = [name for name in row.needs if find_spec(name) is None]
        if missing:
            sentences.append(f"row `{row.name}`: it needs {' and '.join(missing)}")
        elif row.memory > free:
            sentences.append(
                f"row `{row.name}`: it needs {row.memory / 1e9:.3g} GB of memory, "
                f"{free / 1e9:.3g} GB are free"
            )
        else:
            kept.append(row)
    return kept, sentences


def available_memory() -> int:
    """Bytes that programs could still get."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise MeasureError("no MemAvailable in /proc/meminfo")


def insert(tables: str, page: str) -> str:
    """The page with other tables between its two marks.

    Raises:
        MeasureError: the marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise MeasureError(f"--markdown: there are no lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{tables}\n\n{end}{after}"


def show_progress(number: int, row: Row) -> None:
    print(f"round {number + 1}: {row.name}", file=sys.stderr, flush=True)


def measured(options: argparse.Namespace) -> tuple[dict, Run]:
    """Circumstances and figures of the run that the options ask for."""
    seconds = QUICK_SECONDS if options.quick else Effort.seconds
    effort = Effort(options.workers, seconds, options.quick)
    rivals, no_rivals = select_rivals(options.rivals)
    rows, no_rows = select_rows(options.rows, options.full)
    libraries = [*PAIR, *rivals]
    facts = report.circumstances(effort, libraries)
    write_bytecode()
    run = run_rounds(rows, limit(options), effort, libraries, progress=show_progress)
    run.left_out[:0] = no_rivals + no_rows
    return {**facts, "rounds": run.rounds}, run


def publish(options: argparse.Namespace, facts: dict, run: Run) -> None:
    """Print the tables, and write what the options ask for."""
    tables = report.text(facts, run)
    print(tables)
    if options.json:
        options.json.write_text(json.dumps(report.record(facts, run), indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(insert(tables, options.markdown.read_text()))
    if options.plots:
        from benchmarks import plots

        plots.draw([report.summarize(samples) for samples in run.samples], options.plots)


def main() -> int:
    options = parser().parse_args()
    if options.list:
        for row in ROWS.values():
            print(f"{row.name:16} {row.title} ({row.unit})")
        return 0
    try:
        if options.read:
            facts, run = report.read(json.loads(options.read.read_text()))
        else:
            facts, run = measured(options)
        publish(options, facts, run)
    except MeasureError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
