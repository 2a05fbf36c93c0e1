# SPDX-License-Identifier: MIT
"""The private names of a pool that programs touch, with the engine behind them."""

from __future__ import annotations

import os
from multiprocessing import pool as stdlib
from typing import Any

import pytest

import functions as f
import gopool
from gopool._faces import QueueFace, TaskHandlerFace, TaskQueueFace


class Engine:
    """Records what the faces ask of an engine."""

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = waiting
        self.fed: list[tuple[Any, Any]] = []

    def waiting_tasks(self) -> int:
        return self.waiting

    def feed_tasks(self, tasks: Any, set_length: Any) -> None:
        self.fed.append((list(tasks), set_length))


TASK = (1, 0, f.square, (2,), {})


def test_task_queue() -> None:
    """put() passes a job's tasks on, or does nothing for the sentinel None."""
    engine: Any = Engine(3)
    face = TaskQueueFace(engine)
    face.put(None)
    assert engine.fed == []
    face.put(([TASK], len))
    assert engine.fed == [([TASK], len)]
    assert (face.qsize(), face.empty()) == (3, False)
    engine.waiting = 0
    assert (face.qsize(), face.empty()) == (0, True)


def test_queues() -> None:
    """_inqueue takes single tasks; nothing can be read, since workers share no queue."""
    engine: Any = Engine(2)
    face = QueueFace(engine)
    face.put(None)
    face.put(TASK)
    assert engine.fed == [([TASK], None)]
    assert (face.qsize(), face.empty(), face.poll(), face._reader.poll(0)) == (2, False, True, True)
    with pytest.raises(NotImplementedError, match="share no queue"):
        face.get()
    face.close()
    engine.waiting = 0
    assert (face.empty(), face.poll()) == (True, False)


def test_locks_of_the_queues() -> None:
    """A program that takes a queue's lock, as terminate() does in the stdlib, never waits."""
    face: Any = QueueFace(Engine())  # type: ignore[arg-type]
    assert face._rlock.acquire()
    assert face._rlock.acquire(block=False, timeout=0)
    with face._wlock:
        face._rlock.release()


def test_faces_of_a_pool(pool: Any) -> None:
    """A running pool has the attributes of the standard library's, with the same meaning."""
    assert pool._state == stdlib.RUN == pool._worker_handler._state == pool._task_handler._state
    assert (pool._processes, len(pool._pool), len(pool._cache)) == (2, 2, 0)
    assert isinstance(pool._task_handler, TaskHandlerFace)
    assert pool._task_handler.is_alive()
    assert pool._task_handler.daemon
    pool._task_handler.join()
    result = pool.apply_async(f.square, (3,))
    assert result.get(30) == 9
    assert pool._taskqueue.empty()
    assert pool._inqueue.qsize() == 0
    assert (pool._initializer, pool._initargs, pool._maxtasksperchild) == (None, (), None)
    assert pool._wrap_exception
    pool._check_running()


def test_tasks_put_by_hand(pool: Any) -> None:
    """Tasks in the form of the standard library's task queue run, guarded generation included."""
    result = gopool.pool.MapResult(pool, 1, 3, None, None)
    tasks = pool._guarded_task_generation(result._job, f.square_in_list, [1, 2, 3])
    pool._taskqueue.put((tasks, None))
    assert result.get(30) == [1, 4, 9]
    single = gopool.pool.ApplyResult(pool, None, None)
    pool._quick_put((single._job, 0, f.square, (5,), {}))
    assert single.get(30) == 25


def test_waiting_tasks_are_counted(tmp_path: Any) -> None:
    """_taskqueue.qsize() is what no worker has yet."""
    release = str(tmp_path / "release")
    started = str(tmp_path / "started")
    with gopool.get_context("fork").Pool(1) as pool:
        first = pool.apply_async(f.touch_and_wait, (started, release))
        f.wait_for(started)
        later = [pool.apply_async(f.pid) for _ in range(5)]
        # Tasks that are on their way to the worker may be counted or not; none is counted twice.
        assert 0 <= pool._taskqueue.qsize() <= 5
        assert len(pool._cache) == 6
        open(release, "w").close()
        assert {result.get(30) for result in later} == {first.get(30)}
        assert pool._taskqueue.qsize() == 0
        assert os.path.exists(release)
