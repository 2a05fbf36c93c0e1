# SPDX-License-Identifier: MIT
"""Chaos: workers are killed at random times while thousands of tasks run.

GOPOOL_SEED repeats a run's choices (not its timing). GOPOOL_CHAOS=1 (`make chaos`) takes 100,000
tasks (20,000 under spawn). What happened is printed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import gopool
import sabotage as s

LONG = bool(os.environ.get("GOPOOL_CHAOS"))
# By start method. Under spawn most of the time goes into workers that come up, not into tasks.
TASKS = dict.fromkeys(("fork", "forkserver"), 100_000 if LONG else 5_000)
TASKS["spawn"] = 20_000 if LONG else 1_000
WORKERS = 4
MEAN = 0.015  # seconds between two kills; a task takes about one millisecond
SIGNALS = (signal.SIGKILL, signal.SIGSEGV)
TIMEOUT = 300 if LONG else 60  # seconds without any progress of the whole

pytestmark = pytest.mark.timeout(1_800 if LONG else 120)


@pytest.fixture
def chance() -> random.Random:
    """A source of chance whose seed is printed, and can be given."""
    seed = int(os.environ.get("GOPOOL_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"\nGOPOOL_SEED={seed}")
    return random.Random(seed)


class Killer(threading.Thread):
    """Kills workers of a pool at exponentially distributed times.

    Only those that have begun a task: a pool whose workers die again and again while they come up
    is broken by design, and that is another test's matter.
    """

    def __init__(self, pool: Any, path: str, chance: random.Random) -> None:
        super().__init__(name="killer")
        self._pool = pool
        self._file = path
        self._chance = chance
        self._seen: set[int] = set()  # pids that have begun a task
        self._stopped = threading.Event()
        self.killed: dict[int, int] = {}  # pid -> signal

    def run(self) -> None:
        with open(self._file, "rb") as file:
            while not self._stopped.wait(self._chance.expovariate(1 / MEAN)):
                self._seen |= {pid for _, pid in s.parse(file.read())}
                self._kill_one()

    def _kill_one(self) -> None:
        alive = [process.pid for process in list(self._pool._pool)]
        alive = [pid for pid in alive if pid in self._seen and pid not in self.killed]
        if not alive:
            return
        victim = self._chance.choice(alive)
        number = self._chance.choice(SIGNALS)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, number)
            self.killed[victim] = number

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@contextlib.contextmanager
def chaos(pool: Any, path: str, chance: random.Random) -> Iterator[Killer]:
    """Kill workers while the block runs."""
    with open(path, "wb"):
        pass
    killer = Killer(pool, path, chance)
    killer.start()
    try:
        yield killer
    finally:
        killer.stop()


class Ledger:
    """How often each task was settled, and with what."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._all = threading.Event()
        self.settled: Counter[int] = Counter()
        self.values: dict[int, object] = {}
        self.errors: dict[int, BaseException] = {}

    def value(self, number: int) -> Any:
        """A task's callback."""
        return lambda value: self._settle(number, self.values, value)

    def error(self, number: int) -> Any:
        """A task's error_callback."""
        return lambda error: self._settle(number, self.errors, error)

    def _settle(self, number: int, where: dict[int, Any], what: Any) -> None:
        where[number] = what
        self.settled[number] += 1
        if self.settled.total() == self._count:
            self._all.set()

    def wait(self) -> None:
        """Until every task is settled; fails when nothing is settled for a long time."""
        before = -1
        while not self._all.wait(TIMEOUT / 10):
            now = self.settled.total()
            assert now > before, f"{now} of {self._count} tasks are settled, and no more come"
            before = now


def submit(
    pool: Any, path: str, chance: random.Random, ledger: Ledger, tasks: int
) -> list[Any]:
    """Submit all tasks, most one by one, some as maps of one item a chunk."""
    results = []
    for number in range(tasks):
        arguments = (path, number, chance.randrange(20_000))
        callbacks = {
            "callback": ledger.value(number),
            "error_callback": ledger.error(number),
        }
        if number % 10:
            results.append(pool.apply_async(s.record_and_compute, arguments, **callbacks))
        else:
            results.append(
                pool.starmap_async(s.record_and_compute, [arguments], 1, **callbacks)
            )
    return results


def summary(
    killer: Killer, ledger: Ledger, runs: Counter[int], tasks: int, seconds: float
) -> str:
    twice = sum(count > 1 for count in runs.values())
    return (
        f"{tasks} tasks in {seconds:.1f} s, {len(killer.killed)} kills "
        f"({Counter(signal.Signals(n).name for n in killer.killed.values())}), "
        f"{len(ledger.values)} values, {len(ledger.errors)} lost, {twice} run more than once, "
        f"{tasks - len(ledger.settled)} not settled"
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_without_retries(tmp_path: Any, chance: random.Random, method: str) -> None:
    """Each task is settled once, with its value or WorkerLostError, and none is run twice."""
    path, tasks = str(tmp_path / "records"), TASKS[method]
    ledger = Ledger(tasks)
    begun = time.monotonic()
    # Without the initializer each segfault would print the stacks of a program that is fine.
    with gopool.get_context(method).Pool(WORKERS, faulthandler.disable) as pool:
        with chaos(pool, path, chance) as killer:
            submit(pool, path, chance, ledger, tasks)
            ledger.wait()
        pool.close()
        pool.join()
    runs = Counter(number for number, _ in s.records(path))
    print(summary(killer, ledger, runs, tasks, time.monotonic() - begun))
    assert ledger.settled == dict.fromkeys(range(tasks), 1)
    assert max(runs.values()) == 1
    for number, value in ledger.values.items():
        assert value in (number, [number]) and runs[number] == 1
    for error in ledger.errors.values():
        assert isinstance(error, gopool.WorkerLostError)
        assert error.exitcode == -killer.killed[error.pid]
    assert len(killer.killed) > tasks / 200
    assert len(ledger.errors) <= len(killer.killed)


def test_with_retries(tmp_path: Any, chance: random.Random) -> None:
    """With retries every task gives its value; only what was lost is run again."""
    path, tasks = str(tmp_path / "records"), TASKS["fork"]
    ledger = Ledger(tasks)
    begun = time.monotonic()
    pool: Any = gopool.get_context("fork").Pool(WORKERS, faulthandler.disable, retries=20)
    with pool:
        with chaos(pool, path, chance) as killer:
            submit(pool, path, chance, ledger, tasks)
            ledger.wait()
        pool.close()
        pool.join()
    runs = Counter(number for number, _ in s.records(path))
    print(summary(killer, ledger, runs, tasks, time.monotonic() - begun))
    assert ledger.settled == dict.fromkeys(range(tasks), 1)
    assert not ledger.errors
    for number, value in ledger.values.items():
        assert value in (number, [number])
    assert len(killer.killed) > tasks / 200
    assert runs.total() - tasks <= len(killer.killed)  # nobody else is run again
