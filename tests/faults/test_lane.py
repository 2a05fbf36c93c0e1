# SPDX-License-Identifier: MIT
"""What must hold whichever way tasks go: by lanes or without, sent ahead or not."""

from __future__ import annotations

import mmap
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _lastwords

LONG = bool(os.environ.get("GOPOOL_CHAOS"))
TIMEOUT = 60  # seconds for any one result

pytestmark = pytest.mark.timeout(1_800 if LONG else 120)

AHEAD = ("auto", "never", "always")


@pytest.fixture(params=["lane", "no lane"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Once as it is, and once where no worker gets a lane."""
    with_lane = bool(request.param == "lane")
    if not with_lane:
        monkeypatch.setattr(_lastwords, "new_memory", lambda owner: -1)
    return with_lane


@pytest.fixture(params=AHEAD)
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of sending ahead."""
    monkeypatch.setenv("GOPOOL_SEND_AHEAD", request.param)
    return str(request.param)


def test_all_ways_of_tasks(context: Any, lane: bool, ahead: str) -> None:
    """Small and large tasks, results and errors come through in order."""
    large = os.urandom(100_000)
    with context.Pool(2) as pool:
        assert pool.map(f.square, range(2_000), chunksize=1) == [i * i for i in range(2_000)]
        results = []
        for i in range(300):
            results.append((pool.apply_async(f.square, (i,)), i * i))
            if i % 20 == 0:
                results.append((pool.apply_async(f.identity, (large,)), large))
                results.append((pool.apply_async(f.identity, (large[:30_000],)), large[:30_000]))
        assert all(result.get(TIMEOUT) == want for result, want in results)
        with pytest.raises(ZeroDivisionError):
            pool.apply(divmod, (1, 0))
        assert list(pool.imap(f.square, range(500))) == [i * i for i in range(500)]


def test_death_in_a_batch(context: Any, lane: bool, ahead: str) -> None:
    """A worker that dies among many tasks fails one of them."""
    with context.Pool(2) as pool:
        pool.map(f.square, range(200), chunksize=1)  # quick, as far as anybody knows
        for _ in range(3):
            results = [pool.apply_async(f.square, (i,)) for i in range(100)]
            victim = pool.apply_async(f.kill_self)
            results += [pool.apply_async(f.square, (i,)) for i in range(100, 200)]
            assert [result.get(TIMEOUT) for result in results] == [i * i for i in range(200)]
            with pytest.raises(gopool.WorkerLostError) as caught:
                victim.get(TIMEOUT)
            assert caught.value.exitcode == -signal.SIGKILL


def test_task_that_waits_for_a_later_one(
    context: Any, lane: bool, ahead: str, tmp_path: Any
) -> None:
    """It never deadlocks while another worker is free, however quick its function was before."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with context.Pool(2) as pool:
        for _ in range(10):
            quick = [pool.apply_async(f.open_path, (os.devnull, "r")) for _ in range(50)]
            first = pool.apply_async(f.open_path, (fifo, "r"))
            second = pool.apply_async(f.open_path, (fifo, "w"))
            for result in (*quick, first, second):
                result.get(TIMEOUT)


@pytest.mark.parametrize("callback", [False, True], ids=["", "slow callback"])
def test_long_tasks_begin_at_once(lane: bool, ahead: str, callback: bool) -> None:
    """As many long tasks as there are workers run at the same time, whatever short ones came
    before, and whatever the collector does meanwhile.
    """
    context = gopool.get_context("fork")
    workers = 4
    go_on = threading.Event()

    def hold(_: object) -> None:
        go_on.wait(TIMEOUT)

    with context.Pool(workers, f.set_barrier, (context.Barrier(workers + 1),)) as pool:
        barrier = pool._initargs[0]
        for _ in range(5):
            go_on.clear()
            short = [pool.apply_async(f.pass_barrier, (False,)) for _ in range(200)]
            if callback:
                short.append(pool.apply_async(f.pass_barrier, (False,), callback=hold))
            long = [pool.apply_async(f.pass_barrier, (True,)) for _ in range(workers)]
            barrier.wait(30)
            go_on.set()
            assert [result.get(TIMEOUT) for result in short + long].count(True) == workers


@pytest.fixture
def counters() -> Iterator[mmap.mmap]:
    """A byte for each task, shared with forked workers."""
    memory = mmap.mmap(-1, 2_000_000 if LONG else 40_000)
    yield memory
    memory.close()


@pytest.mark.parametrize("workers", [2, 5])
def test_each_task_runs_once(counters: mmap.mmap, lane: bool, ahead: str, workers: int) -> None:
    """None is lost and none runs twice while workers take each other's tasks all the time."""
    tasks = len(counters)
    with gopool.get_context("fork").Pool(workers, f.set_counters, (counters,)) as pool:
        half = tasks // 2
        mapped = pool.map_async(f.count_run, range(half), chunksize=1)
        results = [pool.apply_async(f.count_run, (index,)) for index in range(half, tasks)]
        assert mapped.get(10 * TIMEOUT) == list(range(half))
        assert [result.get(TIMEOUT) for result in results] == list(range(half, tasks))
    assert counters[:] == b"\1" * tasks


def test_a_forked_child_has_no_lane(context: Any) -> None:
    """What a task forks can't claim its worker's tasks."""
    with context.Pool(1) as pool:
        assert pool.apply(f.lanes_mapped) == (1, 0)
        assert pool.apply(f.square, (3,)) == 9


def test_the_parents_child_has_no_lane() -> None:
    """What the parent forks has none of its lanes mapped; nor has a worker its siblings'."""
    context = gopool.get_context("fork")
    with context.Pool(2) as pool:
        assert pool.apply(f.square, (3,)) == 9
        assert f.lanes_mapped() == (2, 0)
        pool.apply_async(f.kill_self)
        others = {process.pid for process in pool._pool}
        while others >= {process.pid for process in pool._pool}:
            pool.apply(f.pid)
        mapped = {pool.apply(f.pid): pool.apply(f.lanes_mapped) for _ in range(50)}
        assert set(mapped.values()) == {(1, 0)}
