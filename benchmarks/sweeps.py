# SPDX-License-Identifier: MIT
"""Rows by scale: the same work for more tasks, more workers, larger payloads. Full runs only."""

from __future__ import annotations

from time import perf_counter

from benchmarks.libraries import ALL, LIBRARIES, PAIR, SUBMITTING
from benchmarks.rows import HIGHER, LOWER, Measurement, Setup, check, finish, quantile, row
from benchmarks.tasks import make_blob, noop, size_of

TASKS = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 2, 4, 8, 16, 32, 64)
PAYLOADS = tuple(10**exponent for exponent in range(10))  # bytes

_TASKS_PER_POOL = 5_000
# From here on all but the pair would take minutes or several times the memory.
_MANY_TASKS = 1_000_000
_LARGE_PAYLOAD = 1_000_000_000


def _asked(names: tuple[str, ...], large: bool) -> tuple[str, ...]:
    local = tuple(name for name in names if not LIBRARIES[name].asked)
    return PAIR if large else local


def _submit(pool, count: int) -> float:
    """Tasks per second of `count` calls, all submitted and then all waited for."""
    start = perf_counter()
    results = [pool.apply_async(noop) for _ in range(count)]
    got = [result.get() for result in results]
    elapsed = perf_counter() - start
    check(got == [None] * count, f"{count} tasks in, {len(got)} out, or others than expected")
    return count / elapsed


def _by_tasks(count: int) -> None:
    @row(
        f"tasks-{count}", f"apply_async of {count:,} no-ops, then get", "tasks/s", HIGHER,
        libraries=_asked(SUBMITTING, count >= _MANY_TASKS), full=True, sweep=("tasks", count),
    )  # fmt: skip
    def tasks(setup: Setup) -> Measurement:
        pool = setup.pool()
        _submit(pool, 100)
        rates = setup.repeat(lambda: _submit(pool, setup.size(count, 100)))
        finish(pool)
        return Measurement(quantile(rates, 0.5))


def _by_workers(count: int) -> None:
    @row(
        f"workers-{count}", f"apply_async of 5,000 no-ops, workers: {count}", "tasks/s", HIGHER,
        libraries=_asked(SUBMITTING, large=False), full=True, sweep=("workers", count),
    )  # fmt: skip
    def workers(setup: Setup) -> Measurement:
        start = perf_counter()
        pool = setup.pool(workers=setup.size(count, min(count, 2)))
        pool.apply(noop)
        started = perf_counter() - start
        tasks = setup.size(_TASKS_PER_POOL, 100)
        rates = setup.warm_repeat(lambda: _submit(pool, tasks))
        finish(pool)
        return Measurement(quantile(rates, 0.5), {"to first result (ms)": started * 1e3})


def _by_payload(size: int) -> None:
    @row(
        f"payload-{size}", f"round trip with {size:,} bytes", "ms", LOWER,
        libraries=_asked(ALL, size >= _LARGE_PAYLOAD), full=True, sweep=("payload", size),
        memory=5 * size,
    )  # fmt: skip
    def payload(setup: Setup) -> Measurement:
        sent = setup.size(size, min(size, 100_000))
        blob = make_blob(sent)
        pool = setup.pool()

        def timed() -> float:
            start = perf_counter()
            got = pool.apply(size_of, (blob,))
            elapsed = perf_counter() - start
            check(got == sent, f"{got} bytes of {sent} arrived")
            return elapsed * 1e3

        trips = setup.warm_repeat(timed, times=setup.workers)
        finish(pool)
        return Measurement(quantile(trips, 0.5))


for _count in TASKS:
    _by_tasks(_count)
for _count in WORKERS:
    _by_workers(_count)
for _size in PAYLOADS:
    _by_payload(_size)
