# SPDX-License-Identifier: MIT
"""The rows of large numpy arrays, and of a result beyond 2 GB."""

from __future__ import annotations

from time import perf_counter

from benchmarks.libraries import ALL, PAIR, SUBMITTING
from benchmarks.rows import HIGHER, Measurement, Setup, check, finish, quantile, row, transfer
from benchmarks.tasks import (
    BLOB_SIZE,
    keep_array,
    kept_array,
    last_of,
    make_array,
    negative_of,
    noop,
    size_of,
    sum_of,
)

_PIECES = 16
_PIECE_SIZE = 8_000_000  # bytes
_HUGE_SIZE = 2_500_000_000  # bytes: more than a 32-bit length can say
_NUMPY = ("numpy",)


def _first(setup: Setup, size: int, prepare, call, expected) -> Measurement:
    """MB per second of the first array that a pool of one worker ever moves."""
    pool = setup.pool(workers=1)
    pool.apply(*prepare)
    start = perf_counter()
    got = call(pool)
    elapsed = perf_counter() - start
    check(expected(got), f"an array of {size} bytes changed on its way")
    finish(pool)
    return Measurement(size / 1e6 / elapsed)


@row(
    "array-in-first", "64 MB numpy array to a worker, first use", "MB/s", HIGHER, processes=3,
    libraries=SUBMITTING, needs=_NUMPY,
)  # fmt: skip
def array_in_first(setup: Setup) -> Measurement:
    size = setup.size(BLOB_SIZE, 1_000_000)
    array = make_array(size)

    def call(pool) -> float:
        return pool.apply(last_of, (array,))

    return _first(setup, size, (noop,), call, last_of(array).__eq__)


@row(
    "array-in", "64 MB numpy array to a worker, warm", "MB/s", HIGHER, libraries=ALL, needs=_NUMPY
)
def array_in(setup: Setup) -> Measurement:
    size = setup.size(BLOB_SIZE, 1_000_000)
    array = make_array(size)
    pool = setup.pool()

    def moved(function) -> float:
        return transfer(setup, size, lambda: pool.apply(function, (array,)), function(array).__eq__)

    measurement = Measurement(moved(last_of), {"and summed there (MB/s)": moved(sum_of)})
    finish(pool)
    return measurement


@row(
    "array-out-first", "64 MB numpy array from a worker, first use", "MB/s", HIGHER, processes=3,
    libraries=SUBMITTING, needs=_NUMPY,
)  # fmt: skip
def array_out_first(setup: Setup) -> Measurement:
    size = setup.size(BLOB_SIZE, 1_000_000)

    def call(pool):
        return pool.apply(kept_array, (size,))

    return _first(setup, size, (keep_array, (size,)), call, _is_made(size))


@row(
    "array-out", "64 MB numpy array from a worker, warm", "MB/s", HIGHER, libraries=ALL,
    needs=_NUMPY,
)  # fmt: skip
def array_out(setup: Setup) -> Measurement:
    size = setup.size(BLOB_SIZE, 1_000_000)
    pool = setup.pool()
    value = transfer(setup, size, lambda: pool.apply(kept_array, (size,)), _is_made(size))
    finish(pool)
    return Measurement(value)


def _is_made(size: int):
    """Says of an array whether it is that of `make_array`, by its ends and its sum."""
    expected = make_array(size)
    facts = (expected.shape, expected[0], expected[-1], expected.sum())
    return lambda array: (array.shape, array[0], array[-1], array.sum()) == facts


@row(
    "arrays-map", "16 numpy arrays of 8 MB through map, and back", "MB/s", HIGHER, libraries=ALL,
    needs=_NUMPY,
)  # fmt: skip
def arrays_map(setup: Setup) -> Measurement:
    size = setup.size(_PIECE_SIZE, 500_000)
    arrays = [make_array(size) for _ in range(_PIECES)]
    pool = setup.pool()

    def timed() -> float:
        start = perf_counter()
        got = pool.map(negative_of, arrays, chunksize=1)
        elapsed = perf_counter() - start
        right = [array[-1] == -arrays[0][-1] for array in got]
        check(right == [True] * _PIECES, f"{_PIECES} arrays in, {sum(right)} right ones out")
        return 2 * _PIECES * size / 1e6 / elapsed

    rates = setup.warm_repeat(timed)
    finish(pool)
    return Measurement(quantile(rates, 0.5))


# The worker holds it and its pickle, and so does the parent.
@row(
    "result-2.5gb", "a result of 2.5 GB", "MB/s", HIGHER, libraries=PAIR, full=True,
    memory=5 * _HUGE_SIZE,
)  # fmt: skip
def huge_result(setup: Setup) -> Measurement:
    size = setup.size(_HUGE_SIZE, 1_000_000)
    pool = setup.pool(workers=1)
    start = perf_counter()
    # Made in the task: kept there, it would be in memory once more.
    got = pool.apply(bytes, (size,))
    elapsed = perf_counter() - start
    check(size_of(got) == size and got[-1] == 0, f"{len(got)} bytes of {size}")
    finish(pool)
    return Measurement(size / 1e6 / elapsed)
