# SPDX-License-Identifier: MIT
"""How maps feed the workers: bounded input and chunks, by start method."""

from __future__ import annotations

import itertools
import threading
from multiprocessing import pool as stdlib
from typing import Any

import pytest

import functions as f
import gopool


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [1, 3])
def test_buffersize_bounds_both_sides(pool: Any, kind: str, chunksize: int) -> None:
    """An endless input is drawn no further than the buffer beyond what was read."""
    drawn: list[int] = []

    def endless() -> Any:
        while True:
            drawn.append(len(drawn))
            yield drawn[-1]

    results = getattr(pool, kind)(f.square, endless(), chunksize, buffersize=5)
    for read in range(1, 31):
        next(results)
        chunks_read = -(-read // chunksize)
        assert len(drawn) <= (5 + chunks_read) * chunksize
    pool.terminate()


def test_buffersize_gives_all(pool: Any) -> None:
    """The results are those without it, errors of items and of the input included."""
    for size in (1, 2, 7, 1000):
        assert list(pool.imap(f.square, range(50), buffersize=size)) == [x * x for x in range(50)]
        assert list(pool.imap(f.square, range(50), 4, buffersize=size))[-1] == 49 * 49
    results = pool.imap(f.invert, (1, 0, 1), buffersize=1)
    assert results.next(timeout=30) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == [1]
    with pytest.raises(KeyError):
        list(pool.imap(f.square, f.failing_input(), buffersize=1))


def test_wrong_buffersize(pool: Any) -> None:
    """A buffersize that is no number above zero is refused at the call."""
    for wrong in ("1", 1.0, True):
        with pytest.raises(TypeError, match="buffersize must be an integer or None"):
            pool.imap(f.square, [1], buffersize=wrong)
    for low in (0, -1):
        with pytest.raises(ValueError, match="buffersize must be None or > 0"):
            pool.imap_unordered(f.square, [1], buffersize=low)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_join_after_partial_reading(context: Any, chunksize: int) -> None:
    """close() and join() end behind a half-read imap with a buffersize; who reads on gets what was
    run and then an error, never a shorter list.
    """
    pool = context.Pool(2)
    results = pool.imap(f.square, itertools.count(), chunksize, buffersize=4)
    complete = pool.imap(f.square, range(8), chunksize, buffersize=8)
    assert next(results) == 0
    pool.close()
    assert next(results) == 1, "close() alone stops nothing"
    pool.join()
    got = [1]
    with pytest.raises(gopool.GopoolError, match="read to the end before join"):
        for value in results:
            got.append(value)
    assert got == [x * x for x in range(1, len(got) + 1)]
    assert list(complete) == [x * x for x in range(8)]


def test_a_dropped_imap_with_a_buffersize(pool: Any) -> None:
    """Once nobody can read, its feeder ends and the pool forgets the job."""
    for chunksize in (1, 2):
        results = pool.imap(f.square, itertools.count(), chunksize, buffersize=4)
        next(results)
        feeder = next(t for t in threading.enumerate() if t.name == "gopool-imap")
        del results
        feeder.join(30)
        assert not feeder.is_alive()
    pool.apply(f.square, (1,))
    while pool._cache:
        pool.apply(f.square, (1,))


def test_an_endless_imap_in_flat_memory(pool: Any) -> None:
    """While the reader keeps up, what is drawn and not read stays within the widest window."""
    drawn = [0]

    def endless() -> Any:
        while True:
            drawn[0] += 1
            yield drawn[0]

    results = pool.imap_unordered(f.identity, endless())
    most = 0
    for _ in range(20_000):
        next(results)
        job = pool._cache[results._job]
        most = max(most, drawn[0] - job.finished)
    assert most <= 1024
    pool.terminate()


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_a_pool_without_the_core_refuses_clearly(name: str) -> None:
    """Where the standard library's transport is kept, what it can't do is said by name; a keyword
    at its default changes nothing.
    """

    class Own(gopool.pool.Pool):
        def _setup_queues(self) -> None:
            super()._setup_queues()

    with Own(1, context=gopool.get_context("fork")) as pool:
        method = getattr(pool, name)
        with pytest.raises(gopool.GopoolError, match=rf"{name}\(buffersize=2\) needs the Go core"):
            method(f.square, [1], buffersize=2)
        with pytest.raises(gopool.GopoolError, match=rf"{name}\(timeout=2\) needs the Go core"):
            method(f.square, [1], timeout=2)
        assert list(method(f.square, [2], buffersize=None, timeout=None)) == [4]
        assert type(method(f.square, [])).__module__ == stdlib.__name__
