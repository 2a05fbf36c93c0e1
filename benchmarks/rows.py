# SPDX-License-Identifier: MIT
"""What a row is, and the rows of small tasks, of pools' starts and of bytes.

A body runs in a fresh interpreter and sees one library only, through a `Setup`. It warms up,
repeats its work until its time is used up and gives the median of the repeats. What came out of the
pool is checked, outside of the timed part; how long it took never is. All rows: `catalogue`.

Imports here are kept to the least: what this module imports, the measured library would find
imported already when a first pool starts.
"""

from __future__ import annotations

from time import perf_counter

from benchmarks.libraries import (
    ALL,
    CHUNKING,
    CONTEXTS,
    FORKING,
    LOCAL,
    PAIR,
    SUBMITTING,
    context_pool,
)
from benchmarks.tasks import (
    BLOB_SIZE,
    identity,
    kept_blob,
    make_blob,
    noop,
    size_of,
)

HIGHER = "higher"  # a rate: more is better
LOWER = "lower"  # a duration: less is better

# Repeats of a body in one measurement: a median needs three.
_LEAST_REPEATS = 3
# Seconds after which it is enough of repeats, and of a body that is as slow as this there is no
# need of a warm-up either.
_PATIENCE = 3.0

# Tasks or items in one repeat, the same for all libraries. Chosen so that one repeat takes the
# stdlib about 0.1 s on two cores.
_TASKS = 5_000
_CHUNKED_ITEMS = 1_000_000
_CALLS = 200  # round trips in one repeat: 30 ms, so that the time is looked at now and then

_BALLAST_SIZE = 500_000_000  # bytes: "a 500 MB parent"


class Setup:
    """What a body has to work with.

    Attributes:
        library: the module `multiprocessing`, `gopool` or another.
        import_seconds: how long the import of it took.
        workers: int >= 1, processes in each pool.
        seconds: how long the timed repeats of one measurement last, about.
        quick: whether the figure is only to show that the row works.
        open: what makes a pool of the library: `open` of `libraries.Library`.
        opened: whether it was asked for one.
    """

    def __init__(
        self,
        library,
        import_seconds: float,
        workers: int,
        seconds: float,
        quick: bool = False,
        open=context_pool,
    ):
        self.library = library
        self.import_seconds = import_seconds
        self.workers = workers
        self.seconds = seconds
        self.quick = quick
        self.open = open
        self.opened = False

    def pool(self, method: str = "fork", workers: int | None = None, **keywords):
        """A new pool, which its user has to finish; `keywords` only where CONTEXTS are asked."""
        self.opened = True
        return self.open(self.library, method, workers or self.workers, **keywords)

    def size(self, full, quick):
        """How much of something: as much as the row says, or little in a quick run."""
        return quick if self.quick else full

    def repeat(self, body) -> list:
        """The results of calling `body` until the time is used up, and at least three times."""
        results = []
        start = perf_counter()
        while not results or (
            (elapsed := perf_counter() - start) < _PATIENCE
            and (len(results) < _LEAST_REPEATS or elapsed < self.seconds)
        ):
            results.append(body())
        return results

    def warm_repeat(self, body, times: int = 1) -> list:
        """The same after `times` calls that don't count, unless these are too slow for it."""
        start = perf_counter()
        results = [body() for _ in range(times)]
        return results if perf_counter() - start > _PATIENCE else self.repeat(body)


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
        libraries: names of those that can do it.
        needs: modules without which there is no such row.
        full: measured in full runs only, in which it takes its time; and seldom.
        counts: its figures are counts that may be zero, and are shown instead of their ratios.
        sweep: name of the sweep and its point on the x axis, where the row is one of a sweep.
        memory: bytes that have to be free on the machine.
    """

    def __init__(
        self,
        name: str,
        title: str,
        unit: str,
        better: str,
        processes: int,
        body,
        libraries: tuple[str, ...] = PAIR,
        needs: tuple[str, ...] = (),
        full: bool = False,
        counts: bool = False,
        sweep: tuple[str, int] | None = None,
        memory: int = 0,
    ):
        self.name = name
        self.title = title
        self.unit = unit
        self.better = better
        self.processes = processes
        self.body = body
        self.libraries = libraries
        self.needs = needs
        self.full = full
        self.counts = counts
        self.sweep = sweep
        self.memory = memory


ROWS: dict[str, Row] = {}  # by name, in the table's order


def row(name: str, title: str, unit: str, better: str, processes: int = 1, **keywords):
    """Register the function below it as the body of a row; arguments as for Row."""

    def register(body):
        ROWS[name] = Row(name, title, unit, better, processes, body, **keywords)
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


def rate(setup: Setup, count: int, body, expected) -> Measurement:
    """Items per second of `body`, which sends `count` items through the pool it gets."""
    pool = setup.pool()

    def timed() -> float:
        start = perf_counter()
        got = body(pool)
        elapsed = perf_counter() - start
        check(got == expected, f"{count} items in, {len(got)} out, or others than expected")
        return count / elapsed

    rates = setup.warm_repeat(timed)
    finish(pool)
    return Measurement(quantile(rates, 0.5))


@row("async", "apply_async of no-ops, then get", "tasks/s", HIGHER, libraries=SUBMITTING)
def apply_async(setup: Setup) -> Measurement:
    def body(pool) -> list:
        results = [pool.apply_async(noop) for _ in range(_TASKS)]
        return [result.get() for result in results]

    return rate(setup, _TASKS, body, [None] * _TASKS)


@row("map-1", "map, chunksize=1", "items/s", HIGHER, libraries=ALL)
def map_single(setup: Setup) -> Measurement:
    items = list(range(_TASKS))
    return rate(setup, _TASKS, lambda pool: pool.map(identity, items, chunksize=1), items)


@row("map", "map of 1M no-ops, default chunks", "items/s", HIGHER, libraries=CHUNKING)
def map_chunks(setup: Setup) -> Measurement:
    items = list(range(setup.size(_CHUNKED_ITEMS, 10_000)))
    return rate(setup, len(items), lambda pool: pool.map(identity, items), items)


@row("imap-unordered", "imap_unordered, chunksize=1", "items/s", HIGHER, libraries=ALL)
def imap_unordered(setup: Setup) -> Measurement:
    items = list(range(_TASKS))
    # Sorted inside the timed part: 5,000 almost sorted ints take 0.1 ms.
    return rate(setup, _TASKS, lambda pool: sorted(pool.imap_unordered(identity, items)), items)


@row("latency", "round trip of one no-op, p50", "µs", LOWER, libraries=ALL)
def latency(setup: Setup) -> Measurement:
    pool = setup.pool()

    def timed() -> list[float]:
        trips = []
        for _ in range(_CALLS):
            start = perf_counter()
            pool.apply(noop)
            trips.append((perf_counter() - start) * 1e6)
        return trips

    trips = [trip for repeat in setup.warm_repeat(timed) for trip in repeat]
    finish(pool)
    beside = {"p99 (µs)": quantile(trips, 0.99), "bare socket (µs)": _socket_trip()}
    return Measurement(quantile(trips, 0.5), beside)


def _socket_trip() -> float:
    """Microseconds for a byte to another process and back, with nothing around it: the floor."""
    import os
    import socket

    here, there = socket.socketpair()
    with here, there:
        pid = os.fork()
        if pid == 0:
            here.close()
            while byte := there.recv(1):
                there.send(byte)
            os._exit(0)
        trips = []
        for _ in range(2_000):
            start = perf_counter()
            here.send(b".")
            here.recv(1)
            trips.append((perf_counter() - start) * 1e6)
        here.shutdown(socket.SHUT_WR)
        os.waitpid(pid, 0)
    return quantile(trips, 0.5)


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


@row("first-fork", "first pool to first result, fork", "ms", LOWER, processes=5, libraries=FORKING)
def first_fork(setup: Setup) -> Measurement:
    return _first_pool(setup, "fork")


@row("first-spawn", "first pool to first result, spawn", "ms", LOWER, processes=3, libraries=LOCAL)
def first_spawn(setup: Setup) -> Measurement:
    return _first_pool(setup, "spawn")


@row("later-fork", "later pool to first result, fork", "ms", LOWER, processes=3, libraries=FORKING)
def later_fork(setup: Setup) -> Measurement:
    return _later_pool(setup, "fork")


@row("later-spawn", "later pool to first result, spawn", "ms", LOWER, libraries=LOCAL)
def later_spawn(setup: Setup) -> Measurement:
    return _later_pool(setup, "spawn")


@row("process", "Process start and join, fork", "ms", LOWER, processes=5, libraries=CONTEXTS)
def process(setup: Setup) -> Measurement:
    return _process(setup)


@row(
    "process-500mb", "Process start and join, fork, of a 500 MB parent", "ms", LOWER, processes=3,
    libraries=CONTEXTS,
)  # fmt: skip
def process_of_large_parent(setup: Setup) -> Measurement:
    ballast = make_blob(setup.size(_BALLAST_SIZE, 1_000_000))
    measurement = _process(setup)
    check(ballast[-1] == ballast[0], "the parent's memory changed")
    return measurement


def _process(setup: Setup) -> Measurement:
    context = setup.library.get_context("fork")

    def timed() -> float:
        start = perf_counter()
        child = context.Process(target=noop)
        child.start()
        child.join()
        elapsed = perf_counter() - start
        check(child.exitcode == 0, f"exit code {child.exitcode} of a process that did nothing")
        return elapsed * 1e3

    return Measurement(quantile(setup.warm_repeat(timed), 0.5))


def transfer(setup: Setup, size: int, call, expected) -> float:
    """MB per second of one object of `size` bytes at a time, moved by `call`.

    `expected` says of what came whether it is right.
    """

    def timed() -> float:
        start = perf_counter()
        got = call()
        elapsed = perf_counter() - start
        check(expected(got), f"an object of {size} bytes changed on its way")
        return size / 1e6 / elapsed

    rates = setup.warm_repeat(timed, times=setup.workers)
    return quantile(rates, 0.5)


@row("bytes-in", "64 MB of bytes to a worker", "MB/s", HIGHER, libraries=ALL)
def bytes_in(setup: Setup) -> Measurement:
    size = setup.size(BLOB_SIZE, 1_000_000)
    pool = setup.pool()
    blob = make_blob(size)
    value = transfer(setup, size, lambda: pool.apply(size_of, (blob,)), size.__eq__)
    finish(pool)
    return Measurement(value)


@row("bytes-out", "64 MB of bytes from a worker", "MB/s", HIGHER, libraries=ALL)
def bytes_out(setup: Setup) -> Measurement:
    size = setup.size(BLOB_SIZE, 1_000_000)
    pool = setup.pool()
    value = transfer(setup, size, lambda: pool.apply(kept_blob, (size,)), make_blob(size).__eq__)
    finish(pool)
    return Measurement(value)
