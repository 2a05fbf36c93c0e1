# SPDX-License-Identifier: MIT
"""The rows of maps over tasks of unequal length: how well chunks share them out.

Tasks sleep, so that a row says the same on few processors as on many. gopool is asked for
`chunksize="auto"`, the others for what they do by default.
"""

from __future__ import annotations

from functools import partial
from random import Random
from time import perf_counter

from benchmarks.libraries import ALL, chunk_length
from benchmarks.rows import LOWER, Measurement, Setup, check, finish, quantile, row
from benchmarks.tasks import pause

_WORKERS = 4
_ITEMS = 208  # thirteen for each of the chunks that multiprocessing makes for four workers
_EACH = 0.002  # seconds


def _slow_run() -> list[float]:
    """Neighbours that would make one chunk take forty times longer than the others."""
    seconds = [_EACH / 2] * _ITEMS
    run = chunk_length(_ITEMS, _WORKERS)
    seconds[8 * run : 9 * run] = [20 * _EACH] * run
    return seconds


def _heavy_tail() -> list[float]:
    random = Random(7)
    return [_EACH / 2 * min(100.0, random.paretovariate(1.2)) for _ in range(_ITEMS)]


_MIXES = {
    "uniform": ("as long as each other", [_EACH] * _ITEMS),
    "increasing": ("longer and longer", [_EACH * 2 * i / _ITEMS for i in range(_ITEMS)]),
    "decreasing": ("shorter and shorter", [_EACH * 2 * i / _ITEMS for i in range(_ITEMS, 0, -1)]),
    "heavy-tail": ("a few of which are long, at random", _heavy_tail()),
    "slow-run": ("of which 13 neighbours take 40 times as long", _slow_run()),
    "one-long": ("of 20 ms, and the first of 1 s", [1.0] + [0.02] * 50),
}


def _makespan(setup: Setup, seconds: list[float]) -> Measurement:
    """The time that a map takes, over the shortest that four workers could need."""
    seconds = seconds[: setup.size(None, 24)]
    longest, share = max(seconds), sum(seconds) / _WORKERS
    ideal = max(longest, share)
    keywords = {"chunksize": "auto"} if setup.library.__name__ == "gopool" else {}
    pool = setup.pool(workers=_WORKERS)

    def timed() -> float:
        start = perf_counter()
        got = pool.map(pause, seconds, **keywords)
        elapsed = perf_counter() - start
        check(got == seconds, "a map whose results are others than its items")
        return elapsed / ideal

    makespans = setup.warm_repeat(timed)
    finish(pool)
    return Measurement(quantile(makespans, 0.5), {"ideal (ms)": ideal * 1e3})


for _name, (_what, _seconds) in _MIXES.items():
    _title = f"map over tasks {_what}: time over the ideal"
    row(f"map-{_name}", _title, "times", LOWER, libraries=ALL)(
        partial(_makespan, seconds=_seconds)
    )
