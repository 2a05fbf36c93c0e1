# SPDX-License-Identifier: MIT
"""Starts the measurements, each in a fresh interpreter, in interleaved rounds.

The twin of `child`. A machine's speed drifts by more than the two libraries differ in some rows, so
each ratio comes from figures taken right after one another, and who goes first alternates.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.rows import ROWS, Row

GOPOOL = "gopool"
STDLIB = "multiprocessing"
LIBRARIES = (GOPOOL, STDLIB)

# Seconds after which a measurement counts as hung: it takes 1 s, so this is for crowded machines.
TIMEOUT = 120.0

# '' is left out of the path, and the repository's root put last: its folder gopool/ holds Go.
_START = """\
import sys
sys.path = [entry for entry in sys.path if entry] + [sys.argv[1]]
from benchmarks.child import main
main(sys.argv[2:])
"""
_ROOT = Path(__file__).resolve().parent.parent


class MeasureError(Exception):
    """A measurement gave no figure: it failed, hung, left processes behind or said nonsense."""


@dataclass(frozen=True)
class Effort:
    """How much work one measurement is.

    Attributes:
        workers: processes in each pool.
        seconds: of timed repeats in one interpreter.
        quick: one interpreter for each figure, even where a row asks for more.
    """

    workers: int = 2
    seconds: float = 0.5
    quick: bool = False


@dataclass(frozen=True)
class Figure:
    """One library's figure of one round, and by name what is shown beside it."""

    value: float
    beside: dict[str, float] = field(default_factory=dict)


@dataclass
class Samples:
    """The figures of one row: one for each round, the same number for both libraries."""

    row: Row
    gopool: list[Figure] = field(default_factory=list)
    stdlib: list[Figure] = field(default_factory=list)


Measure = Callable[[Row, str, Effort], Figure]


def run_rounds(
    rows: Iterable[Row],
    rounds: int,
    effort: Effort,
    measure: Measure | None = None,
    progress: Callable[[int, Row], None] = lambda number, row: None,
) -> list[Samples]:
    """Measure every row once in each round, both libraries one right after the other.

    Args:
        rows: in the order in which they are measured.
        rounds: int >= 1; an even number lets each library go first equally often.
        effort: of each measurement.
        measure: what measures one library once; by default in a fresh interpreter.
        progress: called before each row of each round, which counts from 0.

    Raises:
        MeasureError: as `measure` raises it; what was measured so far is lost.
    """
    measure = measure or measure_once
    samples = [Samples(row) for row in rows]
    for number in range(rounds):
        for place, of_row in enumerate(samples):
            progress(number, of_row.row)
            pair = _pair(of_row.row, effort, measure, stdlib_first=(number + place) % 2 == 1)
            of_row.gopool.append(pair[GOPOOL])
            of_row.stdlib.append(pair[STDLIB])
    return samples


def _pair(row: Row, effort: Effort, measure: Measure, stdlib_first: bool) -> dict[str, Figure]:
    """One figure of each library, made of as many interpreters as the row asks for."""
    taken: dict[str, list[Figure]] = {GOPOOL: [], STDLIB: []}
    for number in range(1 if effort.quick else row.processes):
        reverse = stdlib_first != (number % 2 == 1)
        for library in reversed(LIBRARIES) if reverse else LIBRARIES:
            taken[library].append(measure(row, library, effort))
    return {library: _middle(figures) for library, figures in taken.items()}


def _middle(figures: list[Figure]) -> Figure:
    """The medians of figures that have the same names beside them."""
    beside = {
        name: median(figure.beside[name] for figure in figures) for name in figures[0].beside
    }
    return Figure(median(figure.value for figure in figures), beside)


def write_bytecode() -> None:
    """Have both libraries imported once, in parents and in workers, under fork and spawn.

    The stdlib comes with its bytecode and pip compiles what it installs, but a source tree is
    compiled at its first import: 30 ms that no first pool of an installed gopool ever pays.

    Raises:
        MeasureError: a library does not work at all.
    """
    for name in ("later-fork", "later-spawn"):
        for library in LIBRARIES:
            measure_once(ROWS[name], library, Effort(seconds=0.0))


def environment() -> dict[str, str]:
    """What measured interpreters get: this process's own, but bytecode is written and used."""
    return {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }


def measure_once(row: Row, library: str, effort: Effort) -> Figure:
    """One library's figure, from one fresh interpreter.

    Raises:
        MeasureError: no figure came back; the message has the interpreter's own last words.
    """
    arguments = [str(_ROOT), row.name, library, str(effort.workers), str(effort.seconds)]
    what = f"row {row.name!r} of {library}"
    return parse(run([sys.executable, "-c", _START, *arguments], TIMEOUT, what), what)


def run(command: list[str], timeout: float, what: str) -> str:
    """What the command wrote to stdout, once it and all processes that it started have ended.

    Raises:
        MeasureError: it failed, or its pipes were still open after `timeout` seconds.
    """
    # A session of its own: what hangs is ended together with its workers.
    process = subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise MeasureError(f"{what}: did not end within {timeout:g} s") from None
        raise
    if process.returncode != 0:
        raise MeasureError(f"{what}: exit code {process.returncode}\n{err.strip()}")
    return out


def parse(out: str, what: str) -> Figure:
    """The figure in one line of JSON.

    Raises:
        MeasureError: the line is not a reply of `child`, or its value is not above zero.
    """
    try:
        reply = json.loads(out)
        value = float(reply["value"])
        beside = {str(name): float(part) for name, part in reply["beside"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MeasureError(f"{what}: no figure in {out[:200]!r} ({error})") from error
    if not value > 0:
        raise MeasureError(f"{what}: {value} is no figure above zero")
    return Figure(value, beside)
