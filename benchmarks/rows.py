# SPDX-License-Identifier: MIT
"""The rows of the table: what each one does to a library, and in which unit it counts.

A body runs in a fresh interpreter and sees one library only, through a `Setup`. It warms up,
repeats its work until its time is used up and gives the median of the repeats. What came out of the
pool is checked, outside of the timed part; how long it took never is.

Imports here are kept to the least: what this module imports, the measured library would find
imported already when a first pool starts.
"""

from __future__ import annotations

from time import perf_counter

from benchmarks.tasks import (
    BLOB_SIZE,
    identity,
    keep_blob,
    kept_blob,
    make_blob,
    noop,
    size_of,
)

HIGHER = "higher"  # a rate: more is better
LOWER = "lower"  # a duration: less is better

# Repeats of a body in one measurement, however slow they are: a median needs three.
_LEAST_REPEATS = 3

# Tasks or items in one repeat, the same for both libraries. Chosen so that one repeat takes the
# stdlib about 0.1 s on two cores.
_TASKS = 5_000
_CHUNKED_ITEMS = 500_000
_CALLS = 200  # round trips in one repeat: 30 ms, so that the time is looked at now and then


class Setup:
    """What a body has to work with.

    Attributes:
        library: the module `multiprocessing` or `gopool`.
        import_seconds: how long the import of it took.
        workers: int >= 1, processes in each pool.
        seconds: how long the timed repeats of one measurement last, about.
    """

    def __init__(self, library, import_seconds: float, workers: int, seconds: float):
        self.library = library
        self.import_seconds = import_seconds
        self.workers = workers
        self.seconds = seconds

    def pool(self, method: str = "fork", **keywords):
        """A new pool, which its user has to finish."""
        return self.library.get_context(method).Pool(self.workers, **keywords)

    def repeat(self, body) -> list:
        """The results of calling `body` until the time is used up, and at least three times."""
        results = []
        deadline = perf_counter() + self.seconds
        while len(results) < _LEAST_REPEATS or perf_counter() < deadline:
            results.append(body())
        return results


class Measurement:
    """One figure in its row's unit, and by name what is shown beside it, with its unit."""

    def __init__(self, value: float, beside: dict[str, float] | None = None):
        self.value = value
        self.beside = beside or {}


class Row:
    """One line of the table.

    Attributes:
        name: what `--rows` calls it.
        title: what the table calls it.
        unit: of its figures.
        better: HIGHER or LOWER.
        processes: fresh interpreters whose median makes one figure. More than one where an
            interpreter can be measured only once, or where two interpreters differ by more than
            the libraries do (how their memory is laid out decides what a fork costs).
        body: takes a Setup and returns a Measurement.
    """

    def __init__(self, name: str, title: str, unit: str, better: str, processes: int, body):
        self.name = name
        self.title = title
        self.unit = unit
        self.better = better
        self.processes = processes
        self.body = body


ROWS: dict[str, Row] = {}  # by name, in the table's order


def _row(name: str, title: str, unit: str, better: str, processes: int = 1):
    def register(body):
        ROWS[name] = Row(name, title, unit, better, processes, body)
        return body

    return register


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def check(holds: bool, what: str) -> None:
    """Stop the measurement of a pool that gave wrong results."""
    if not holds:
        raise RuntimeError(f"wrong result: {what}")


def finish(pool) -> None:
    pool.close()
    pool.join()


def _rate(setup: Setup, count: int, body, expected) -> Measurement:
    """Items per second of `body`, which sends `count` items through the pool it gets."""
    pool = setup.pool()

    def timed() -> float:
        start = perf_counter()
        got = body(pool)
        elapsed = perf_counter() - start
        check(got == expected, f"{count} items in, {len(got)} out, or others than expected")
        return count / elapsed

    timed()
    rates = setup.repeat(timed)
    finish(pool)
    return Measurement(quantile(rates, 0.5))


@_row("async", "apply_async of no-ops, then get", "tasks/s", HIGHER)
def apply_async(setup: Setup) -> Measurement:
    def body(pool) -> list:
        results = [pool.apply_async(noop) for _ in range(_TASKS)]
        return [result.get() for result in results]

    return _rate(setup, _TASKS, body, [None] * _TASKS)


@_row("map-1", "map, chunksize=1", "items/s", HIGHER)
def map_single(setup: Setup) -> Measurement:
    items = list(range(_TASKS))
    return _rate(setup, _TASKS, lambda pool: pool.map(identity, items, chunksize=1), items)


@_row("map", "map, default chunks", "items/s", HIGHER)
def map_chunks(setup: Setup) -> Measurement:
    items = list(range(_CHUNKED_ITEMS))
    return _rate(setup, _CHUNKED_ITEMS, lambda pool: pool.map(identity, items), items)


@_row("imap-unordered", "imap_unordered, chunksize=1", "items/s", HIGHER)
def imap_unordered(setup: Setup) -> Measurement:
    items = list(range(_TASKS))
    # Sorted inside the timed part: 5,000 almost sorted ints take 0.1 ms.
    return _rate(setup, _TASKS, lambda pool: sorted(pool.imap_unordered(identity, items)), items)


@_row("latency", "round trip of one no-op, p50", "µs", LOWER)
def latency(setup: Setup) -> Measurement:
    pool = setup.pool()

    def timed() -> list[float]:
        trips = []
        for _ in range(_CALLS):
            start = perf_counter()
            pool.apply(noop)
            trips.append((perf_counter() - start) * 1e6)
        return trips

    timed()
    trips = [trip for repeat in setup.repeat(timed) for trip in repeat]
    finish(pool)
    return Measurement(quantile(trips, 0.5), {"p99 (µs)": quantile(trips, 0.99)})


def _pool_life(setup: Setup, method: str) -> tuple[float, float]:
    """Milliseconds from before Pool() to its first result, and until it was closed and joined."""
    start = perf_counter()
    pool = setup.pool(method)
    pool.apply(noop)
    first = perf_counter()
    finish(pool)
    return (first - start) * 1e3, (perf_counter() - start) * 1e3


def _first_pool(setup: Setup, method: str) -> Measurement:
    first, joined = _pool_life(setup, method)
    beside = {"until joined (ms)": joined, "import (ms)": setup.import_seconds * 1e3}
    return Measurement(first, beside)


def _later_pool(setup: Setup, method: str) -> Measurement:
    _pool_life(setup, method)
    lives = setup.repeat(lambda: _pool_life(setup, method))
    first = quantile([life[0] for life in lives], 0.5)
    return Measurement(first, {"until joined (ms)": quantile([life[1] for life in lives], 0.5)})


@_row("first-fork", "first pool to first result, fork", "ms", LOWER, processes=5)
def first_fork(setup: Setup) -> Measurement:
    return _first_pool(setup, "fork")


@_row("first-spawn", "first pool to first result, spawn", "ms", LOWER, processes=3)
def first_spawn(setup: Setup) -> Measurement:
    return _first_pool(setup, "spawn")


@_row("later-fork", "later pool to first result, fork", "ms", LOWER, processes=3)
def later_fork(setup: Setup) -> Measurement:
    return _later_pool(setup, "fork")


@_row("later-spawn", "later pool to first result, spawn", "ms", LOWER)
def later_spawn(setup: Setup) -> Measurement:
    return _later_pool(setup, "spawn")


@_row("process", "Process start and join, fork", "ms", LOWER, processes=5)
def process(setup: Setup) -> Measurement:
    context = setup.library.get_context("fork")

    def timed() -> float:
        start = perf_counter()
        child = context.Process(target=noop)
        child.start()
        child.join()
        elapsed = perf_counter() - start
        check(child.exitcode == 0, f"exit code {child.exitcode} of a process that did nothing")
        return elapsed * 1e3

    timed()
    return Measurement(quantile(setup.repeat(timed), 0.5))


def _transfer(setup: Setup, pool, call, expected) -> Measurement:
    """MB per second of one blob at a time, moved by `call`."""

    def timed() -> float:
        start = perf_counter()
        got = call()
        elapsed = perf_counter() - start
        check(got == expected, "the blob changed on its way")
        return BLOB_SIZE / 1e6 / elapsed

    for _ in range(setup.workers):
        timed()
    rates = setup.repeat(timed)
    finish(pool)
    return Measurement(quantile(rates, 0.5))


@_row("bytes-in", "64 MB of bytes to a worker", "MB/s", HIGHER)
def bytes_in(setup: Setup) -> Measurement:
    pool = setup.pool()
    blob = make_blob()
    return _transfer(setup, pool, lambda: pool.apply(size_of, (blob,)), BLOB_SIZE)


@_row("bytes-out", "64 MB of bytes from a worker", "MB/s", HIGHER)
def bytes_out(setup: Setup) -> Measurement:
    pool = setup.pool(initializer=keep_blob)
    return _transfer(setup, pool, lambda: pool.apply(kept_blob), make_blob())
