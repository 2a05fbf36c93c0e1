# SPDX-License-Identifier: MIT
"""How maps feed the workers: bounded input and chunks, by start method."""

from __future__ import annotations

import functools
import itertools
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from multiprocessing import pool as stdlib
from pathlib import Path
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
        for refused in (method, pool.map, pool.starmap_async):
            with pytest.raises(gopool.GopoolError, match=r"map.*\(chunksize='auto'\) needs"):
                refused(f.square, [1], "auto")
        assert list(method(f.square, [2], buffersize=None, timeout=None)) == [4]
        assert type(method(f.square, [])).__module__ == stdlib.__name__

@pytest.mark.parametrize("count", [0, 1, 4, 5, 50, 3000])
def test_auto_gives_what_other_chunks_give(pool: Any, count: int) -> None:
    """Every map takes chunksize="auto", for inputs of known and unknown length."""
    expected = [x * x for x in range(count)]
    pairs = [(x, 1) for x in range(count)]
    assert pool.map(f.square, range(count), "auto") == expected
    assert pool.map(f.square, iter(range(count)), chunksize="auto") == expected
    assert pool.map_async(f.square, range(count), "auto").get(30) == expected
    assert pool.starmap(f.add, pairs, "auto") == [x + 1 for x in range(count)]
    assert pool.starmap_async(f.add, pairs, "auto").get(30) == [x + 1 for x in range(count)]
    for items in (range(count), iter(range(count))):
        assert list(pool.imap(f.square, items, "auto")) == expected
    for items in (range(count), iter(range(count))):
        assert sorted(pool.imap_unordered(f.square, items, "auto")) == expected
    for size in (1, 7):
        assert list(pool.imap(f.square, iter(range(count)), "auto", buffersize=size)) == expected
    assert not pool._cache


def test_auto_makes_chunks(pool: Any) -> None:
    """Quick items share tasks, and what they share is one object in the worker."""
    tasks = pool._engine.native.PoolStat(pool._engine.handle, 1)
    pool.map(f.square, range(20_000), "auto")
    assert pool._engine.native.PoolStat(pool._engine.handle, 1) - tasks < 2_000


def test_auto_with_an_error(pool: Any) -> None:
    """A map raises its first error when all chunks were run; so does imap at its chunk."""
    seen: list[Any] = []
    result = pool.starmap_async(
        f.fail_at, [(x, 30) for x in range(200)], "auto", seen.append, seen.append
    )
    with pytest.raises(ValueError, match="30"):
        result.get(30)
    assert result._number_left == 0
    [error] = seen
    assert isinstance(error, ValueError)
    with pytest.raises(ZeroDivisionError):
        list(pool.imap(f.invert, (x - 30 for x in range(200)), "auto"))
    with pytest.raises(KeyError):
        list(pool.imap(f.square, f.failing_input(), "auto"))
    with pytest.raises(KeyError):
        pool.map(f.square, f.failing_input(), "auto")
    items: list[Any] = [*range(40), f.BadArgument(), *range(40)]
    with pytest.raises(Exception) as expected:
        pool.map(f.identity, items, 1)
    with pytest.raises(type(expected.value)):
        pool.map(f.identity, items, "auto")
    assert pool.map(f.square, range(40), "auto")[-1] == 39 * 39


def test_auto_callbacks_and_progress(pool: Any, tmp_path: Any) -> None:
    """_number_left counts the items without a result; the callback gets the whole list."""
    seen: list[Any] = []
    release = str(tmp_path / "release")
    result = pool.map_async(f.wait_for, [release] * 30, "auto", callback=seen.append)
    assert result._number_left * result._chunksize == 30
    assert not result.ready()
    open(release, "w").close()
    assert result.get(30) == [True] * 30
    assert seen == [[True] * 30]
    assert result._number_left == 0
    assert result.successful()


def test_auto_after_close(context: Any) -> None:
    """close() right after the call: all chunks are still cut and run."""
    pool = context.Pool(2)
    mapped = pool.map_async(f.square, range(5000), "auto")
    iterator = pool.imap_unordered(f.square, iter(range(5000)), "auto")
    pool.close()
    pool.join()
    assert mapped.get(0) == [x * x for x in range(5000)]
    assert sorted(iterator) == [x * x for x in range(5000)]
    assert not any(t.name == "gopool-imap" for t in threading.enumerate())


@pytest.mark.parametrize("terminate", [False, True])
def test_auto_cancel(context: Any, tmp_path: Any, terminate: bool) -> None:
    """A cancelled map cuts no more, its feeder ends, and the pool goes on."""
    release = str(tmp_path / "release")
    with context.Pool(2) as pool:
        result = pool.map_async(f.wait_for, [release] * 100, "auto")
        while not result.running():
            result.wait(0.01)
        feeder = next(t for t in threading.enumerate() if t.name == "gopool-imap")
        assert result.cancel(terminate=terminate)
        with pytest.raises(gopool.TaskCancelledError):
            result.get(30)
        assert result.cancelled()
        feeder.join(30)
        assert not feeder.is_alive()
        open(release, "w").close()
        assert pool.map(f.square, range(100), "auto") == [x * x for x in range(100)]
        pool.close()
        pool.join()


def test_auto_terminate(context: Any, tmp_path: Any) -> None:
    """terminate() while chunks are still to be cut ends the get() and the thread."""
    pool = context.Pool(2)
    result = pool.map_async(f.wait_for, [str(tmp_path / "never")] * 100, "auto")
    iterator = pool.imap(f.wait_for, itertools.repeat(str(tmp_path / "never")), "auto")
    while not result.running():
        result.wait(0.01)
    pool.terminate()
    for get in (result.get, lambda: next(iterator)):
        with pytest.raises(gopool.PoolTerminatedError):
            get()
    for thread in threading.enumerate():
        if thread.name == "gopool-imap":
            thread.join(30)
            assert not thread.is_alive()
    pool.join()


def test_auto_with_a_timeout(pool: Any, tmp_path: Any) -> None:
    """A timeout is one item's, so each is a task of its own then."""
    tasks = pool._engine.native.PoolStat(pool._engine.handle, 1)
    assert pool.map(f.square, range(100), "auto", timeout=30) == [x * x for x in range(100)]
    assert pool._engine.native.PoolStat(pool._engine.handle, 1) - tasks == 100
    items = [str(tmp_path), str(tmp_path / "never"), str(tmp_path)]
    results = pool.imap(f.wait_for, items, "auto", timeout=0.5)
    assert next(results) is True
    with pytest.raises(gopool.TaskTimeoutError):
        next(results)
    assert next(results) is True


def test_auto_with_a_dying_worker(pool: Any) -> None:
    """The map fails with what was lost, and with nothing else; the pool goes on."""
    calls = [(f.square, (x,)) for x in range(60)]
    calls[40] = (f.exit_hard, ())
    with pytest.raises(gopool.WorkerLostError) as caught:
        pool.starmap(f.call, calls, "auto")
    assert "task" in str(caught.value)
    assert pool.map(f.square, range(100), "auto")[-1] == 99 * 99


def test_auto_with_a_mapper_of_ones_own(pool: Any) -> None:
    """_map_async takes any mapper of chunks."""
    assert pool._map_async(f.square, range(100), f.mapper, "auto").get(30) == [
        x * x for x in range(100)
    ]


def test_wrong_word_for_a_chunksize(pool: Any) -> None:
    """No other word is a chunksize."""
    for method in (pool.map, pool.starmap_async, pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError, match="chunksize may be a number or \"auto\", not 'Auto'"):
            method(f.square, [1], "Auto")


@pytest.mark.parametrize("kind", ["starmap", "imap"])
@pytest.mark.parametrize("before", [1, 30])
def test_an_item_waits_for_a_task_before_it(
    pool: Any, tmp_path: Path, kind: str, before: int
) -> None:
    """Tasks begin at once: pickling one may take until another one of the same call is done."""
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    calls: list[Any] = [(str(tmp_path / str(i)), "") for i in range(before - 1)]
    calls += [(first, "done"), (second, f.WaitsFor(first, "too"))]
    if kind == "starmap":
        pool.starmap(f.note, calls, 1)
    else:
        list(pool.imap(functools.partial(f.call, f.note), calls))
    assert Path(second).read_text().endswith(" too\n")


@pytest.mark.parametrize("bad", [0, 17, 39])
def test_an_item_that_does_not_pickle(pool: Any, bad: int) -> None:
    """It fails alone, in its place; a map ends with its error, called back once."""
    problems = (AttributeError, pickle.PicklingError)
    items: list[Any] = list(range(40))
    items[bad] = lambda: None
    results = pool.imap(f.identity, items)
    for i in range(40):
        if i == bad:
            with pytest.raises(problems):
                next(results)
        else:
            assert next(results) == i
    assert list(results) == []
    called: list[Any] = []
    result = pool.map_async(f.identity, items, 1, called.append, called.append)
    with pytest.raises(problems):
        result.get(60)
    assert [type(error) in problems for error in called] == [True]


def test_imap_of_a_list_that_grows(pool: Any) -> None:
    """What is appended while it is drawn is drawn too, as the standard library does."""
    items = [0]
    results = pool.imap(f.identity, items)
    items.extend(range(1, 200))
    got = list(results)
    assert got in ([0], list(range(200))), "it ends before all were appended, or behind them"


def test_map_from_many_threads(pool: Any) -> None:
    """Calls at the same time do not mix their tasks."""
    outcomes: dict[int, Any] = {}

    def call(number: int) -> None:
        outcomes[number] = pool.map(f.identity, [(number, i) for i in range(500)], 1)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {n: [(n, i) for i in range(500)] for n in range(4)}


class Promising:
    """An input of other length than it says, whose items are as large as wanted."""

    def __init__(
        self,
        length: int,
        promised: int,
        item: bytes = b"",
        bad: int = -1,
        error: type[BaseException] = OSError,
    ) -> None:
        self.length, self.promised, self.item, self.bad = length, promised, item, bad
        self.error = error

    def __len__(self) -> int:
        return self.promised

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.length):
            if number == self.bad:
                raise self.error("the input broke")
            yield self.item


@pytest.mark.parametrize("chunksize", [1, 2, 7])
def test_map_of_another_length_than_promised(pool: Any, chunksize: int) -> None:
    """The standard library waits for ever, or gives a list with gaps. Where the chunks are as many
    as promised the results are the standard library's.
    """
    with pytest.raises(ValueError, match="fewer chunks than its len"):
        pool.map(len, Promising(30, 100), chunksize)
    with pytest.raises(ValueError, match="more chunks than its len"):
        pool.map(len, Promising(100, 30), chunksize)
    with pytest.raises(ValueError, match="fewer"):
        pool.map(len, Promising(0, 3), chunksize)
    assert pool.map(len, Promising(3, 0), chunksize) == []
    assert pool.map(len, Promising(99, 100), 2) == [0] * 99
    assert pool.map(len, Promising(100, 99), 2) == [0] * 100


def test_map_whose_input_fails_late(
    context: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    """Also beyond the budget, where a thread draws what is left, the failure is the map's."""
    release, item = tmp_path / "release", bytes(3_000_000)
    failed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with context.Pool(1) as pool:
        pool.apply_async(f.wait_for, (str(release),))
        breaks = pool.map_async(
            len, Promising(100, 100, item, bad=60), 1, error_callback=failed.put
        )
        ends = pool.map_async(len, Promising(60, 100, item), 1)
        goes_on = pool.map_async(len, Promising(60, 40, item), 1)
        leaves = pool.map_async(len, Promising(100, 100, item, 60, SystemExit), 1)
        release.touch()
        with pytest.raises(OSError, match="the input broke"):
            breaks.get(30)
        assert str(failed.get(timeout=30)) == "the input broke"
        with pytest.raises(ValueError, match="fewer chunks"):
            ends.get(30)
        with pytest.raises(ValueError, match="more chunks"):
            goes_on.get(30)
        with pytest.raises(SystemExit, match="the input broke"):
            leaves.get(30)
        assert pool.map(f.square, range(10)) == [x * x for x in range(10)]
        eventually(pool._taskqueue.empty, "nothing waits")
