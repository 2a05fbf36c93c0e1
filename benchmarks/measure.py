# SPDX-License-Identifier: MIT
"""Starts the measurements, each in a fresh interpreter, in interleaved rounds.

The twin of `child`. A machine's speed drifts by more than two libraries differ in some rows, so
each ratio comes from figures taken right after one another, and who goes first changes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.catalogue import ROWS
from benchmarks.libraries import PAIR
from benchmarks.rows import Row

# Rivals, and rows of full runs, are measured in one of as many rounds: they take most of the time,
# and their ratios are far enough from 1 for it. Not in the first: a run that is short of time has
# the pair's figures then.
SELDOM = 3

# Seconds after which a measurement counts as hung. The longest take 20 s on a quiet machine, 60 s
# in rows of full runs.
TIMEOUT = 120.0
FULL_TIMEOUT = 300.0

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
        quick: little work, and one interpreter for each figure even where a row asks for more.
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
    """The figures of one row: for each round in which it was measured, one of each library."""

    row: Row
    rounds: list[dict[str, Figure]] = field(default_factory=list)

    def of(self, library: str) -> list[Figure]:
        """The figures of one library, maybe none."""
        return [figures[library] for figures in self.rounds if library in figures]


@dataclass
class Run:
    """What came out of the rounds.

    Attributes:
        rounds: how many were made.
        samples: one for each row.
        left_out: sentences about what was not measured, and why.
    """

    rounds: int
    samples: list[Samples]
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Limit:
    """When it is enough.

    Attributes:
        rounds: int >= 1, the most that are made.
        seconds: after them no row is begun, except in the first round.
    """

    rounds: int
    seconds: float = float("inf")


Measure = Callable[[Row, str, Effort], Figure]


def run_rounds(
    rows: Iterable[Row],
    limit: Limit,
    effort: Effort,
    libraries: Sequence[str] = PAIR,
    measure: Measure | None = None,
    progress: Callable[[int, Row], None] = lambda number, row: None,
) -> Run:
    """Measure every row once in each round, the libraries one right after the other.

    A rival that fails in a row is left out of it from then on. Ctrl-C ends the rounds, not the run.

    Args:
        rows: in the order in which they are measured.
        limit: of rounds and of time.
        effort: of each measurement.
        libraries: names; those that are not in PAIR are rivals.
        measure: what measures one library once; by default in a fresh interpreter.
        progress: called before each row of each round, which counts from 0.

    Raises:
        MeasureError: as `measure` raises it for gopool or the stdlib; what was measured so far is
            lost.
    """
    run = Run(0, [Samples(row) for row in rows])
    rounds = _Rounds(run, limit, effort, tuple(libraries), measure or measure_once)
    try:
        while run.rounds < limit.rounds and (run.rounds == 0 or rounds.time_left()):
            rounds.make(progress)
            run.rounds += 1
    except KeyboardInterrupt:
        run.left_out.append(f"what was not yet measured in round {run.rounds + 1}: interrupted")
    return run


class _Rounds:
    """Makes the rounds of one run."""

    def __init__(
        self, run: Run, limit: Limit, effort: Effort, libraries: tuple[str, ...], measure: Measure
    ):
        self._run = run
        self._limit = limit
        self._effort = effort
        self._libraries = libraries
        self._measure = measure
        self._start = monotonic()
        self._failed: set[tuple[str, str]] = set()  # row, library

    def time_left(self) -> bool:
        return monotonic() - self._start < self._limit.seconds

    def make(self, progress: Callable[[int, Row], None]) -> None:
        """One more round, with rivals and the rows of full runs if it is a whole one."""
        number = self._run.rounds
        whole = number % SELDOM == 1 or self._limit.rounds == 1
        for place, samples in enumerate(self._run.samples):
            if number > 0 and not self.time_left():
                return
            if whole or not samples.row.full:
                progress(number, samples.row)
                samples.rounds.append(self._figures(samples.row, whole, number + place))

    def _figures(self, row: Row, whole: bool, turn: int) -> dict[str, Figure]:
        """One figure of each library, made of as many interpreters as the row asks for."""
        names = [
            name
            for name in self._libraries
            if name in row.libraries
            and (whole or name in PAIR)
            and (row.name, name) not in self._failed
        ]
        taken: dict[str, list[Figure]] = {name: [] for name in names}
        for number in range(1 if self._effort.quick else row.processes):
            first = (turn + number) % len(names)
            for name in names[first:] + names[:first]:
                if (row.name, name) not in self._failed:
                    self._take(row, name, taken)
        return {
            name: _middle(figures)
            for name, figures in taken.items()
            if (row.name, name) not in self._failed
        }

    def _take(self, row: Row, name: str, taken: dict[str, list[Figure]]) -> None:
        try:
            taken[name].append(self._measure(row, name, self._effort))
        except MeasureError as error:
            if name in PAIR:
                raise
            self._failed.add((row.name, name))
            self._run.left_out.append(last_words(error))


def last_words(error: MeasureError) -> str:
    """The first line of an error, which says what failed, and the last, which says why."""
    lines = str(error).splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1].strip()}"


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
        for library in PAIR:
            measure_once(ROWS[name], library, Effort(seconds=0.0))


def environment() -> dict[str, str]:
    """What measured interpreters get: this process's own, with two exceptions.

    Bytecode is written and used. Numerical libraries start no threads of their own: the workers
    are what uses the processors, and loky alone would see to it by itself.
    """
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return own | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def measure_once(row: Row, library: str, effort: Effort) -> Figure:
    """One library's figure, from one fresh interpreter.

    Raises:
        MeasureError: no figure came back; the message has the interpreter's own last words.
    """
    arguments = [str(_ROOT), row.name, library, str(effort.workers), str(effort.seconds)]
    if effort.quick:
        arguments.append("quick")
    what = f"row {row.name!r} of {library}"
    timeout = FULL_TIMEOUT if row.full else TIMEOUT
    out = run([sys.executable, "-c", _START, *arguments], timeout, what)
    return parse(out, what, zero=row.counts)


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


def parse(out: str, what: str, zero: bool = False) -> Figure:
    """The figure in one line of JSON, which may be zero where `zero` says so.

    Raises:
        MeasureError: the line is not a reply of `child`, or its value is no possible one.
    """
    try:
        reply = json.loads(out)
        value = float(reply["value"])
        beside = {str(name): float(part) for name, part in reply["beside"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MeasureError(f"{what}: no figure in {out[:200]!r} ({error})") from error
    if not (value > 0 or (zero and value == 0)):
        raise MeasureError(f"{what}: {value} is no figure above zero")
    return Figure(value, beside)
