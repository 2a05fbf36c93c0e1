# SPDX-License-Identifier: MIT
"""Control over tasks and workers: timeouts, cancelling, retries, limits, resizing, events."""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import unruly as u

import functions as f
import gopool
from gopool import events
from gopool._options import CallOptions
from usage import usage

MB = 1 << 20
SHORT = 0.15  # seconds; a timeout that is meant to pass
LONG = u.LONG


def gone(pid: int) -> bool:
    """Whether a process has ended; as a zombie of somebody else's it has."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], str]:
    return lambda name: str(tmp_path / name)


# Timeouts.


WAYS: dict[str, Callable[[Any], Any]] = {
    "apply": lambda pool: pool.apply(u.slow_at, (1, 1), timeout=SHORT),
    "apply_async": lambda pool: pool.apply_async(u.slow_at, (1, 1), timeout=SHORT).get(),
    "map": lambda pool: pool.map(functools.partial(u.slow_at, bad=1), range(3), timeout=SHORT),
    "starmap": lambda pool: pool.starmap(u.slow_at, [(0, 1), (1, 1)], timeout=SHORT),
    "map_async": lambda pool: pool.map_async(
        functools.partial(u.slow_at, bad=1), range(3), timeout=SHORT
    ).get(),
}


@pytest.mark.parametrize("way", WAYS)
def test_timeout(pool: Any, way: str) -> None:
    """A task that takes too long fails at its time, alone; the pool goes on."""
    others = [pool.apply_async(f.square, (i,)) for i in range(20)]
    start = time.monotonic()
    with pytest.raises(gopool.TaskTimeoutError) as caught:
        WAYS[way](pool)
    assert time.monotonic() - start < LONG
    assert isinstance(caught.value, gopool.TimeoutError)
    assert "slow_at" in caught.value.task or "partial" in caught.value.task
    assert caught.value.seconds >= SHORT
    assert [result.get() for result in others] == [i * i for i in range(20)]
    assert pool.map(f.square, range(5)) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
def test_timeout_in_imap(pool: Any, kind: str) -> None:
    """The item that takes too long raises in its place; the others are there."""
    function = functools.partial(u.slow_at, bad=2)
    # Long enough for a worker's first task, which imports its function's module.
    results = getattr(pool, kind)(function, range(6), timeout=1.0)
    values, errors = [], 0
    while True:
        try:
            values.append(next(results))
        except StopIteration:
            break
        except gopool.TaskTimeoutError:
            errors += 1
    assert (sorted(values), errors) == ([0, 1, 3, 4, 5], 1)


def test_timeout_of_the_pool(context: Any) -> None:
    """task_timeout is every task's, unless the call says otherwise."""
    with context.Pool(1, task_timeout=SHORT) as pool:
        with pytest.raises(gopool.TaskTimeoutError):
            pool.apply(f.sleep, (LONG,))
        assert pool.apply(f.sleep, (2 * SHORT,), timeout=LONG) is None
        with pytest.raises(ValueError, match="chunksize=2 beside a timeout"):
            pool.map(f.square, range(4), chunksize=2)
        assert pool.map(f.square, range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize("busy", [f.busy_in_c, f.busy_in_python])
def test_timeout_of_a_busy_worker(pool: Any, busy: Any) -> None:
    """Whatever a worker is busy with, C code that holds the interpreter lock included, it ends."""
    with pytest.raises(gopool.TaskTimeoutError):
        pool.apply(busy, timeout=SHORT)


def test_timeout_of_a_stopped_worker(pool: Any) -> None:
    """A worker that was stopped can't keep its caller waiting."""
    with pytest.raises(gopool.TaskTimeoutError):
        pool.apply(f.kill_self, (signal.SIGSTOP,), timeout=SHORT)


def test_timeout_against_ignored_sigterm(context: Any) -> None:
    """A worker that ignores SIGTERM is killed after the grace, and replaced."""
    with context.Pool(1, u.ignore_sigterm, kill_grace=SHORT) as pool:
        first = pool.apply(f.pid)
        with pytest.raises(gopool.TaskTimeoutError):
            pool.apply(f.sleep, (LONG,), timeout=SHORT)
        assert pool.apply(f.pid) != first
        assert gone(first)


def test_timeout_ends_the_tree(
    pool: Any, files: Callable[[str], str], eventually: Callable[..., None]
) -> None:
    """With the worker go the processes that its task has started, and theirs."""
    path = files("pids")
    result = pool.apply_async(u.start_tree, (path,), timeout=LONG)
    eventually(lambda: os.path.exists(path), "the tree is there")
    with open(path) as noted:
        pids = [int(word) for word in noted.read().split()]
    assert result.cancel(terminate=True)
    eventually(lambda: all(gone(pid) for pid in pids), f"{pids} have ended")


def test_soft_timeout(pool: Any) -> None:
    """A soft timeout raises inside the task: it may clean up, or end with it."""
    assert pool.apply(u.interrupted, (LONG,), soft_timeout=SHORT) == f"soft {SHORT}"
    assert pool.apply(u.interrupted, (0.0,), soft_timeout=LONG) == "slept"
    worker = pool.apply(f.pid)
    with pytest.raises(gopool.SoftTimeoutError, match=f"soft timeout of {SHORT}"):
        pool.apply(f.sleep, (LONG,), soft_timeout=SHORT)
    assert pool.map(u.interrupted, [LONG, 0.0], soft_timeout=SHORT) == [f"soft {SHORT}", "slept"]
    with pytest.raises(gopool.TaskTimeoutError) as caught:
        pool.apply(u.ignore_soft, soft_timeout=SHORT, timeout=3 * SHORT)
    assert not isinstance(caught.value, gopool.SoftTimeoutError)
    assert isinstance(worker, int)


def test_soft_timeout_harms_no_later_task(pool: Any) -> None:
    """The signal of one task is never another's: a thousand quick ones, each near its time."""
    results = pool.map(u.interrupted, [0.001] * 300, soft_timeout=0.001)
    assert set(results) <= {"slept", "soft 0.001"}
    assert pool.map(f.square, range(100), chunksize=1) == [i * i for i in range(100)]


# Cancelling.


def test_cancel_queued(context: Any, files: Callable[[str], str]) -> None:
    """What no worker has begun is cancelled at once, and never runs."""
    with context.Pool(1) as pool:
        busy = pool.apply_async(f.touch_and_wait, (files("started"), files("release")))
        errors: list[Any] = []
        queued = [
            pool.apply_async(u.runs, (files("notes"),), error_callback=errors.append)
            for _ in range(5)
        ]
        f.wait_for(files("started"))
        assert busy.running()
        assert not any(result.running() for result in queued)
        assert [result.cancel() for result in queued[1:4]] == [True] * 3
        for result in queued[1:4]:
            with pytest.raises(gopool.TaskCancelledError):
                result.get(LONG)
            assert result.cancelled()
            assert result.ready()
            assert not result.cancel()
        assert len(errors) == 3
        assert not busy.cancel()
        assert not busy.cancelled()
        Path(files("release")).touch()
        assert [queued[0].get(), queued[4].get()] == [1, 2]
        assert not busy.cancel()


def test_cancel_running(context: Any, files: Callable[[str], str]) -> None:
    """A task that runs ends only with its worker, which is replaced."""
    with context.Pool(1) as pool:
        running = pool.apply_async(f.touch_and_wait, (files("started"), files("release")))
        behind = pool.apply_async(f.square, (3,))
        f.wait_for(files("started"))
        assert not running.cancel()
        assert running.cancel(terminate=True)
        with pytest.raises(gopool.TaskCancelledError):
            running.get(LONG)
        assert behind.get(LONG) == 9


def test_cancel_map(context: Any, files: Callable[[str], str]) -> None:
    """Cancelling a map ends its get() at once; chunks that run go on unseen."""
    with context.Pool(1) as pool:
        arguments = [(files("started"), files("release"))] + [(files("x"), files("y"))] * 50
        result = pool.starmap_async(f.touch_and_wait, arguments, chunksize=1)
        f.wait_for(files("started"))
        assert result.running()
        assert result.cancel()
        with pytest.raises(gopool.TaskCancelledError):
            result.get(LONG)
        assert result.cancelled()
        assert not result.cancel()
        Path(files("release")).touch()
        assert pool.apply(f.square, (3,)) == 9
        assert not os.path.exists(files("x"))


def test_cancel_many(pool: Any) -> None:
    """Thousands of cancels against a running pool: each result is its own, or cancelled."""
    results = [pool.apply_async(f.square, (i,)) for i in range(3000)]
    cancelled = [result.cancel() for result in results[::2]]
    for i, result in enumerate(results):
        if i % 2 == 0 and cancelled[i // 2]:
            with pytest.raises(gopool.TaskCancelledError):
                result.get(LONG)
        else:
            assert result.get(LONG) == i * i


@pytest.mark.parametrize("kind", ["apply_async", "map_async"])
def test_cancel_whose_outcome_is_quicker(
    context: Any, files: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A worker becomes free, and the collector learns that its next task is cancelled, before
    cancel() is back from Go.
    """

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(native, name)

        def JobCancel(self, *arguments: int) -> int:
            begun: int = native.JobCancel(*arguments)
            Path(files("release")).touch()
            queued.wait(LONG)
            return begun

    with context.Pool(1) as pool:
        native = pool._engine.native
        running = pool.apply_async(f.wait_for, (files("release"),))
        given = (3,) if kind == "apply_async" else range(3)
        queued = getattr(pool, kind)(f.square, given)
        monkeypatch.setattr(pool._engine, "native", Slow())
        assert queued.cancel()
        assert queued.cancelled()
        with pytest.raises(gopool.TaskCancelledError):
            queued.get(LONG)
        assert not queued.cancel()
        monkeypatch.undo()
        assert running.get(LONG)


def test_cancel_is_futures_cancel() -> None:
    """except clauses for concurrent.futures serve as well."""
    from concurrent.futures import CancelledError

    assert issubclass(gopool.TaskCancelledError, CancelledError)


# Retries.


def test_retries_of_lost_workers(pool: Any, files: Callable[[str], str]) -> None:
    """A task whose worker is lost runs again, as often as was asked for."""
    assert pool.apply(u.die_times, (files("a"), 2), retries=2) == 3
    with pytest.raises(gopool.WorkerLostError):
        pool.apply(u.die_times, (files("b"), 9), retries=2)
    assert Path(files("b")).read_text().count("run") == 3
    with pytest.raises(ValueError, match=r"^1$"):
        pool.apply(u.raise_times, (files("c"), 9), retries=2)


def test_retries_leave_others_alone(context: Any, files: Callable[[str], str]) -> None:
    """A poison task never costs another one an attempt."""
    with context.Pool(2, retries=3, retry_backoff=0.0) as pool:
        poison = pool.apply_async(u.die_times, (files("poison"), 99))
        others = [pool.apply_async(u.runs, (files(f"n{i}"),)) for i in range(100)]
        assert [result.get(LONG) for result in others] == [1] * 100
        with pytest.raises(gopool.WorkerLostError):
            poison.get(LONG)
        assert Path(files("poison")).read_text().count("run") == 4


def test_retry_on(context: Any, files: Callable[[str], str]) -> None:
    """retry_on names what is retried."""
    timeout = [gopool.TaskTimeoutError]
    with context.Pool(1, retries=2, retry_on=timeout, retry_backoff=0.0) as pool:
        assert pool.apply(u.sleep_times, (files("a"), 1), timeout=SHORT) == 2
        with pytest.raises(gopool.WorkerLostError):
            pool.apply(u.die_times, (files("b"), 1))
    with context.Pool(1, retries=2, retry_on=[Exception], retry_backoff=0.0) as pool:
        assert pool.apply(u.raise_times, (files("c"), 2)) == 3
        assert pool.apply(u.die_times, (files("d"), 1)) == 2


# Limits and life.


def test_memory_limit(context: Any, files: Callable[[str], str]) -> None:
    """Beyond the limit the worker is ended and its task lost, with the reason."""
    limit = usage().memory + 100 * MB  # a forked worker has this process's
    with context.Pool(1, worker_memory_limit=limit) as pool:
        assert pool.apply(f.square, (3,)) == 9
        with pytest.raises(gopool.WorkerLostError, match="worker_memory_limit") as caught:
            pool.apply(u.hold_memory, (limit + 100 * MB, files("a"), files("b")))
        assert caught.value.exitcode == -signal.SIGKILL
        assert pool.apply(f.square, (3,)) == 9


def test_memory_soft_limit(context: Any, files: Callable[[str], str]) -> None:
    """Beyond the soft limit the worker ends after its task, which is done."""
    seen: list[Any] = []
    limit = usage().memory + 100 * MB  # a forked worker has this process's
    with context.Pool(1, worker_memory_soft_limit=limit, on_event=seen.append) as pool:
        first = pool.apply(f.pid)
        result = pool.apply_async(u.hold_memory, (limit + 50 * MB, files("a"), files("b")))
        while not any(event.kind == "retire" for event in list(seen)):
            assert not result.ready()
            threading.Event().wait(0.01)
        Path(files("b")).touch()
        assert result.get(LONG) == limit + 50 * MB
        assert pool.apply(f.pid) != first


def test_max_age(context: Any, eventually: Callable[..., None]) -> None:
    """A worker that is old enough makes room for a new one."""
    with context.Pool(1, worker_max_age=SHORT) as pool:
        first = pool.apply(f.pid)
        eventually(lambda: pool.apply(f.pid) != first, "a new worker")


def test_max_age_of_a_slow_start(context: Any) -> None:
    """Workers that take longer to start than they may live do work all the same."""
    with context.Pool(2, worker_max_age=0.001) as pool:
        assert pool.map(f.square, range(20), 1) == [i * i for i in range(20)]


@pytest.mark.parametrize("processes", [1, 3])
def test_start_timeout(context: Any, processes: int) -> None:
    """An initializer that never returns breaks the pool after a few tries; what it started ends."""
    seen: list[Any] = []
    arguments = {"worker_start_timeout": 5 * SHORT, "on_event": seen.append}
    with context.Pool(processes, u.initialize_for_ever, **arguments) as pool:
        for call in (pool.apply, pool.map):
            with pytest.raises(gopool.BrokenPoolError, match="worker_start_timeout") as caught:
                call(f.square, (3,))
            assert caught.value.exitcode == -signal.SIGKILL
    kinds = Counter(event.kind for event in seen)
    assert kinds["limit"] >= 3
    assert kinds["broken"] == 1


def test_start_timeout_of_one_worker(context: Any, files: Callable[[str], str]) -> None:
    """A start that hangs once is repeated; close() does not wait for one for ever either."""
    with context.Pool(1, u.hang_the_first_time, (files("a"),), worker_start_timeout=2.0) as pool:
        assert pool.apply(f.square, (3,)) == 9
    pool = context.Pool(1, u.initialize_for_ever, worker_start_timeout=5 * SHORT)
    pool.close()
    pool.join()


def test_idle_timeout(context: Any, tmp_path: Path, eventually: Callable[..., None]) -> None:
    """Idle workers go; tasks bring them back, as many as there is work for."""
    go_on = tmp_path / "go on"
    with context.Pool(2, worker_idle_timeout=SHORT) as pool:
        assert pool.map(f.square, range(4), chunksize=1) == [0, 1, 4, 9]
        eventually(lambda: not pool._pool, "all workers gone")
        assert pool.apply(f.square, (3,)) == 9
        assert len(pool._pool) <= 1  # it may be idle again
        calls = [(str(tmp_path / f"begun-{i}"), str(go_on)) for i in range(2)]
        held = [pool.apply_async(f.touch_and_wait, call) for call in calls]
        for begun, _ in calls:
            f.wait_for(begun)
        assert all(result.running() for result in held)
        go_on.touch()
        assert len({result.get() for result in held}) == 2


def test_resize(context: Any, tmp_path: Path, eventually: Callable[..., None]) -> None:
    """A live pool grows at once and shrinks as its workers become free."""
    with context.Pool(1) as pool:
        pool.resize(3)
        assert len(pool._pool) == 3
        go_on = tmp_path / "go on"
        calls = [(str(tmp_path / f"begun-{i}"), str(go_on)) for i in range(3)]
        held = [pool.apply_async(f.touch_and_wait, call) for call in calls]
        for begun, _ in calls:
            f.wait_for(begun)  # running() may be true of one that its worker has not read
        pool.resize(1)
        go_on.touch()
        assert len({result.get() for result in held}) == 3
        eventually(lambda: len(pool._pool) == 1, "one worker left")
        assert pool.map(f.square, range(5)) == [0, 1, 4, 9, 16]
        with pytest.raises(ValueError, match="at least 1"):
            pool.resize(0)
    with pytest.raises(ValueError, match="not running"):
        pool.resize(2)


def test_join_with_timeout(context: Any, files: Callable[[str], str]) -> None:
    """join(timeout=) says whether the pool has ended."""
    pool = context.Pool(1)
    held = pool.apply_async(f.touch_and_wait, (files("started"), files("release")))
    f.wait_for(files("started"))
    pool.close()
    assert pool.join(timeout=SHORT) is False
    Path(files("release")).touch()
    assert pool.join(timeout=LONG) is True
    assert pool.join() is None
    assert held.successful()


# Events.


def test_events(context: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What happens to workers and tasks is told to the callback and to logging."""
    seen: list[events.Event] = []
    with caplog.at_level(logging.INFO, "gopool"):
        pool = context.Pool(1, on_event=seen.append)
        with pytest.raises(gopool.WorkerLostError):
            pool.apply(f.kill_self, retries=1)
        with pytest.raises(gopool.TaskTimeoutError):
            pool.apply(f.sleep, (LONG,), timeout=SHORT)
        pool.close()
        pool.join()
    kinds = [event.kind for event in seen]
    assert kinds.count("crash") == 2
    assert kinds.count("retry") == 1
    assert kinds.count("timeout") == 1
    assert kinds.count("start") == kinds.count("crash") + kinds.count("end") >= 3
    timeout = seen[kinds.index("timeout")]
    assert timeout.task == "time.sleep" or timeout.task.endswith("functions.sleep")
    assert timeout.pid
    logged = [record.event for record in caplog.records]  # type: ignore[attr-defined]
    assert sorted(map(str, logged)) == sorted(map(str, seen))  # two threads tell


def test_event_callback_that_raises(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported, and harms nothing."""
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def bad(event: Any) -> None:
        raise RuntimeError(event.kind)

    with context.Pool(1, on_event=bad) as pool:
        assert pool.apply(f.square, (3,)) == 9
    assert {str(arguments.exc_value) for arguments in reported} <= {"start", "end"}
    assert reported


# Bad arguments.


BAD_POOL: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"task_timeout": 0}, ValueError, "task_timeout must be more than 0 seconds"),
    ({"task_timeout": -1.5}, ValueError, "task_timeout"),
    ({"task_timeout": "1"}, TypeError, "task_timeout must be a number"),
    ({"task_timeout": True}, TypeError, "task_timeout"),
    ({"task_timeout": float("nan")}, ValueError, "not nan"),
    ({"retries": -1}, ValueError, "retries must be 0 or more"),
    ({"retries": 1.0}, TypeError, "retries must be an int"),
    ({"retry_on": [KeyError]}, ValueError, "retry_on may hold WorkerLostError"),
    ({"retry_backoff": -1}, ValueError, "retry_backoff"),
    ({"worker_memory_limit": 0}, ValueError, "worker_memory_limit"),
    ({"worker_memory_limit": 1.5}, TypeError, "worker_memory_limit"),
    ({"worker_idle_timeout": 0}, ValueError, "worker_idle_timeout"),
    ({"worker_start_timeout": -1}, ValueError, "worker_start_timeout"),
    ({"on_event": 3}, TypeError, "on_event"),
    ({"no_such": 3}, TypeError, "no_such"),
]


@pytest.mark.parametrize(("keywords", "kind", "text"), BAD_POOL)
def test_bad_pool_arguments(keywords: dict[str, Any], kind: type[Exception], text: str) -> None:
    """Each says which argument, what is wrong, and what it may be; no process is started."""
    with pytest.raises(kind, match=text):
        gopool.Pool(1, **keywords)


@pytest.mark.parametrize(
    ("keywords", "kind"),
    [
        ({"timeout": 0}, ValueError),
        ({"soft_timeout": "x"}, TypeError),
        ({"retries": -2}, ValueError),
    ],
)
def test_bad_call_arguments(pool: Any, keywords: dict[str, Any], kind: type[Exception]) -> None:
    """The same for each call; nothing is submitted."""
    for call in (pool.apply_async, pool.map, pool.imap, pool.starmap, pool.imap_unordered):
        with pytest.raises(kind):
            call(f.square, [3], **keywords)
    assert pool._cache == {}


def test_many_timeouts(context: Any) -> None:
    """What is left until a deadline is another time for each call: the memory for them is bounded,
    and none is cut shorter than it asked, nor given more than a hundredth on top.
    """
    with context.Pool(1) as pool:
        engine = pool._engine
        given = [
            engine.options(CallOptions(pool._settings, number / 1000, None, None))
            for number in range(1, 100_001)
        ]
        assert len(set(given)) < 3_000
        known = {number: wanted[0] for wanted, number in engine._options.items()}
        for asked, number in enumerate(given, 1):
            assert asked <= known[number] <= asked * 1.01


def test_huge_timeouts(pool: Any) -> None:
    """What is longer than any clock can count is for ever."""
    assert pool.apply(f.square, (3,), timeout=float("inf")) == 9
    assert pool.apply(f.square, (3,), timeout=1e300) == 9
