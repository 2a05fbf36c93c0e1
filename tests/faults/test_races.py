# SPDX-License-Identifier: MIT
"""Pools that end while something else is going on: every wait ends, nothing is left."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _core, _fork, _threads
from gopool import pool as pool_module


def test_lost_worker_and_terminate_at_once() -> None:
    """A replacement that is on its way when the pool ends is ended and reaped too."""
    context = gopool.get_context("spawn")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with context.Pool(1) as pool, pytest.raises(gopool.WorkerLostError):
            pool.apply(f.exit_hard, (1,))
        pool.join()
        assert not pool._engine.crew.staffed()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2


def test_terminate_during_a_map_call() -> None:
    """A map whose input was still being read when another thread terminated the pool."""
    pool = gopool.get_context("fork").Pool(1)
    reading, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        reading.set()
        go_on.wait(20)
        yield 2

    outcomes: list[BaseException] = []

    def call() -> None:
        try:
            pool.map(f.square, slow())
        except (gopool.PoolTerminatedError, ValueError) as error:
            outcomes.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert reading.wait(20)
    pool.terminate()
    go_on.set()
    thread.join(20)
    assert len(outcomes) == 1
    pool.join()


def test_close_during_a_map_call() -> None:
    """close() from a callback lets a map that has begun to submit finish."""
    pool = gopool.get_context("fork").Pool(2)
    pool.apply_async(f.square, (1,), callback=lambda _: pool.close())
    try:
        assert pool.map(f.square, range(20_000), chunksize=1)[-1] == 19_999**2
    except ValueError as error:  # closed before the map began
        assert str(error) == "Pool not running"
    pool.join()


def test_callback_waits_for_the_replacement() -> None:
    """A callback may wait for a task that only the worker's replacement can run."""
    done = threading.Event()
    with gopool.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        waited: list[bool] = []
        first = pool.apply_async(f.square, (1,), callback=lambda _: waited.append(done.wait(20)))
        pool.apply_async(f.square, (2,), callback=None)
        pool.apply_async(f.square, (3,))
        release = threading.Thread(target=lambda: _release_when_run(pool, done))
        release.start()
        first.get(timeout=30)
        release.join()
        assert waited == [True]


def _release_when_run(pool: Any, done: threading.Event) -> None:
    """Set the event once Go has counted two tasks, which the blocked collector can't tell."""
    native, handle = pool._engine.native, pool._engine.handle
    while native.PoolStat(handle, 1) < 2:
        threading.Event().wait(0.005)
    done.set()


@pytest.mark.parametrize("submit", ["apply_async", "map_async"])
def test_stop_at_the_first_hit(submit: str) -> None:
    """terminate() inside a job's callback leaves that job its result."""
    pool = gopool.get_context("fork").Pool(2)
    arguments = (f.square, (3,)) if submit == "apply_async" else (f.square, [3])
    result = getattr(pool, submit)(*arguments, callback=lambda _: pool.terminate())
    assert result.get(timeout=20) == (9 if submit == "apply_async" else [9])
    pool.join()


def test_terminate_with_input_as_long_as_the_window(tmp_path: Any) -> None:
    """An imap whose whole input was drawn stops after terminate(), after one error."""
    pool = gopool.get_context("fork").Pool(1)
    never = str(tmp_path / "never")
    iterator = pool.imap(f.wait_for, [never] * 64)
    while pool._engine.native.PoolStat(pool._engine.handle, 6) < 64:
        threading.Event().wait(0.005)
    pool.terminate()
    with pytest.raises(gopool.PoolTerminatedError):
        iterator.next(timeout=20)
    with pytest.raises(StopIteration):
        iterator.next(timeout=20)
    pool.join()


def test_base_exception_while_a_feeder_pickles(pool: Any) -> None:
    """SystemExit from a `__reduce__` in imap's thread is that item's outcome."""
    iterator = pool.imap(f.identity, [1, f.ExitsAtPickling(), 3])
    assert next(iterator) == 1
    with pytest.raises(SystemExit):
        next(iterator)
    assert next(iterator) == 3
    with pytest.raises(StopIteration):
        next(iterator)


def test_attach_fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement that can't be watched is ended, and another one is started."""
    real, refused = os.pidfd_open, []

    def refuse_once(pid: int, flags: int = 0) -> int:
        if not refused:
            refused.append(pid)
            raise OSError(24, "Too many open files")
        return real(pid, flags)

    with gopool.get_context("fork").Pool(1) as pool:
        monkeypatch.setattr(os, "pidfd_open", refuse_once)
        with pytest.raises(gopool.WorkerLostError):
            pool.apply(f.exit_hard, (1,))
        assert pool.apply_async(f.square, (3,)).get(timeout=30) == 9
        assert refused
        monkeypatch.undo()


def test_attach_fails_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool whose second worker can't be watched raises, and leaves nothing."""
    real, calls = os.pidfd_open, []

    def refuse_second(pid: int, flags: int = 0) -> int:
        calls.append(pid)
        if len(calls) == 2:
            raise OSError(24, "Too many open files")
        return real(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", refuse_second)
    with pytest.raises(OSError, match="Too many open files"):
        gopool.get_context("fork").Pool(3)
    monkeypatch.undo()
    assert gopool.active_children() == []


def test_large_result_without_descriptors(context: Any) -> None:
    """A large result in a worker that may open nothing more is that task's OSError."""
    with context.Pool(1) as pool:
        pid = pool.apply(f.pid)
        with pytest.raises(OSError, match="Too many open files"):
            pool.apply(f.large_result_without_descriptors)
        assert pool.apply(f.pid) == pid


def test_repopulate_after_the_end() -> None:
    """_repopulate_pool() of a pool that has ended starts nothing."""
    pool = gopool.get_context("fork").Pool(1)
    pool.close()
    pool.join()
    pool._repopulate_pool()
    assert pool._pool == []
    assert gopool.active_children() == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupt_while_a_pool_starts(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Ctrl-C inside Pool() arrives as KeyboardInterrupt and leaves nothing."""
    start = _threads.Thread.start

    def interrupted(thread: _threads.Thread) -> None:
        if thread.name == "gopool-collector":
            if when == "after":
                start(thread)
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(_threads.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gopool.get_context("fork").Pool(2)
    monkeypatch.undo()
    assert gopool.active_children() == []


def refuse_threads(patch: pytest.MonkeyPatch) -> None:
    """As where the operating system has no more threads for gopool."""

    def refuse(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    patch.setattr(_threads.Thread, "start", refuse)
    patch.setattr(pool_module, "start_new_thread", refuse)


@pytest.mark.parametrize("threads", ["can start", "can not start"])
def test_fork_fails_where_go_is_loaded(monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    """A pool that can't fork raises what fork said, and leaves nothing of it in Go."""
    native = _core.load()
    pools = native.PoolCount()

    def refuse_fork() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", refuse_fork)
    if threads == "can not start":
        refuse_threads(monkeypatch)
    with pytest.raises(OSError, match="no more processes"):
        gopool.get_context("fork").Pool(2)
    monkeypatch.undo()
    assert native.PoolCount() == pools


def test_collector_can_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool whose thread can't start raises that, and ends the workers that it has forked."""
    native = _core.load()
    pools = native.PoolCount()
    refuse_threads(monkeypatch)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        gopool.get_context("fork").Pool(2)
    monkeypatch.undo()
    assert native.PoolCount() == pools
    assert gopool.active_children() == []


def test_argument_that_closes_the_pool() -> None:
    """A `__reduce__` that closes the pool does not lose the task that it belongs to."""
    pool = gopool.get_context("fork").Pool(1)
    f.ClosesPool.pool = pool
    assert pool.apply_async(f.identity, (f.ClosesPool(),)).get(timeout=20) == 0
    f.ClosesPool.pool = None
    pool.join()


def test_callback_that_forks() -> None:
    """A child that a callback forks and lets return is no collector, and is quiet."""
    reader, writer = os.pipe()

    def fork(_: object) -> None:
        if os.fork() == 0:
            os.dup2(writer, 2)

    with gopool.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(f.square, (3,), callback=fork).get(timeout=20) == 9
        assert pool.apply(f.square, (4,)) == 16
    os.close(writer)
    assert os.read(reader, 1) == b""  # the child has ended, and has written nothing
    os.close(reader)
    os.waitpid(-1, 0)


def test_large_result_to_a_parent_without_descriptors() -> None:
    """A large result that this process has no descriptor for comes through the one that is kept."""
    with gopool.get_context("fork").Pool(1) as pool:
        pid = pool.apply(f.pid)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        blockers = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limit[1]))
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    blockers.append(os.dup(0))
            assert len(pool.apply_async(bytes, (1_000_000,)).get(timeout=30)) == 1_000_000
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            for fd in blockers:
                os.close(fd)
        assert pool.apply(f.pid) == pid
        assert len(pool.apply(bytes, (1_000_000,))) == 1_000_000


def test_import_lock_of_another_thread(tmp_path: Any) -> None:
    """A worker that is forked while another thread imports a module can use that module.

    Here the main thread is at the import for the program's whole life.
    """
    (tmp_path / "imported.py").write_text(
        """
import gopool

def number(x):
    return x

with gopool.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print([pool.apply(number, (i,)) for i in range(3)])
"""
    )
    done = f.run_script(tmp_path, "import imported")
    f.assert_silent_success(done, "[0, 1, 2]\n")


def test_tasks_that_kill_their_workers(context: Any) -> None:
    """A pool does not slow down because its tasks end their workers: each uses one task up."""
    with context.Pool(1) as pool:
        results = [pool.apply_async(f.exit_hard) for _ in range(12)]
        for result in results:
            with pytest.raises(gopool.WorkerLostError):
                result.get(20)


def test_interrupt_while_maintenance_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in Thread.start() leaves a thread that runs and that terminate() can join."""
    pool = gopool.get_context("fork").Pool(1)
    take = _fork.take
    interrupted = []

    def take_and_raise(into: list[Any], function: Any, *arguments: Any) -> None:
        take(into, function, *arguments)
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(_fork, "take", take_and_raise)
    with pytest.raises(KeyboardInterrupt):
        pool._engine.maintenance.ensure_started()
    pool.terminate()
    pool.join()
    assert interrupted


def test_feeder_can_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An imap whose thread can't start raises that, and join() does not wait for it."""
    pool = gopool.get_context("fork").Pool(1)
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.imap(f.square, range(3))
    pool.close()
    assert pool.join(timeout=60)


class _HalfInput:
    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        yield from range(4)
        raise LookupError("no more")


def test_input_that_raises_halfway() -> None:
    """What a sized input raises is the caller's, and join() does not wait for that job."""
    pool = gopool.get_context("fork").Pool(1)
    with pytest.raises(LookupError, match="no more"):
        pool.map(f.square, _HalfInput(), chunksize=1)
    assert pool._cache == {}
    pool.close()
    assert pool.join(timeout=60)


class _Alarm(BaseException):  # as KeyboardInterrupt: an Exception may be one of pickling
    pass


def test_interrupted_waits() -> None:
    """A signal handler that raises at any moment of get() loses no result: it may be asked again.

    The waiting thread may just be reading the outcome for itself, which it does in a get() without
    a timeout only.
    """

    interrupted, armed = 0, False

    def raise_alarm(number: int, frame: Any) -> None:
        if armed and frame.f_code is not test_interrupted_waits.__code__:
            raise _Alarm

    before = signal.signal(signal.SIGALRM, raise_alarm)
    try:
        with gopool.get_context("fork").Pool(2) as pool:
            for turn in range(2_000):
                result = None
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, 1e-5 + turn % 100 * 2e-6)
                    result = pool.apply_async(f.square, (turn,))
                    assert result.get() == turn * turn
                except _Alarm:
                    interrupted += 1
                finally:
                    armed = False  # another thread of the process may still be at the signal
                    signal.setitimer(signal.ITIMER_REAL, 0)
                if result is not None:
                    assert result.get() == turn * turn
            assert pool._cache == {}
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10


def test_signal_handler_that_uses_the_pool() -> None:
    """A handler may submit and wait, also while the thread that it interrupts waits for a task."""
    entered = handled = 0

    def use(number: int, frame: Any) -> None:
        nonlocal entered, handled
        entered += 1
        if entered == handled + 1:
            assert pool.apply(abs, (-entered,)) == entered
            handled = entered
        else:
            entered -= 1

    before = signal.signal(signal.SIGALRM, use)
    try:
        with gopool.get_context("fork").Pool(2) as pool:
            signal.setitimer(signal.ITIMER_REAL, 3e-4, 3e-4)
            for turn in range(1_000):
                assert pool.apply(abs, (-turn,)) == turn
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled > 10


@pytest.mark.parametrize("which", [1, 2])
def test_interrupt_while_workers_are_attached(
    monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """Ctrl-C right after Go has learned of a worker: Pool() raises it, and nothing is left."""
    native = _core.load()
    pools, take, calls = native.PoolCount(), _fork.take, []

    def take_and_raise(into: list[Any], function: Any, *arguments: Any) -> None:
        take(into, function, *arguments)
        calls.append(function)
        if function == native.WorkerAdd and calls.count(function) == which:
            raise KeyboardInterrupt

    monkeypatch.setattr(_fork, "take", take_and_raise)
    with pytest.raises(KeyboardInterrupt):
        gopool.get_context("fork").Pool(2)
    monkeypatch.undo()
    assert native.PoolCount() == pools
    assert gopool.active_children() == []


def test_terminate_lets_workers_that_are_done_end_in_order(
    tmp_path: Any, eventually: Any
) -> None:
    """Also where nobody has looked at their outcome: the collector is in a callback."""
    in_callback, go_on = threading.Event(), threading.Event()

    def hold_up(value: object) -> None:
        in_callback.set()
        go_on.wait(60)

    ended, done = tmp_path / "ended", tmp_path / "done"
    pool = gopool.get_context("fork").Pool(1, worker_exit=ended.touch)
    pool.apply_async(f.pid, callback=hold_up)
    assert in_callback.wait(60)
    pool.apply_async(done.touch)
    eventually(done.exists, "the task has run")
    worker = pool._pool[0].pid
    eventually(lambda: _sleeps(worker), "its outcome was sent")
    terminating = threading.Thread(target=pool.terminate)
    terminating.start()
    eventually(lambda: pool._pool == [] or not pool._pool[0].is_alive(), "it has ended")
    go_on.set()
    terminating.join(60)
    assert ended.exists()


def _sleeps(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


INTERRUPTED_FORKS = """
import os, signal
import gopool
from gopool import _fork

class Alarm(BaseException):
    pass

def raise_alarm(number, frame):
    raise Alarm

parent = os.getpid()
signal.signal(signal.SIGALRM, raise_alarm)
for turn in range(400):
    try:
        signal.setitimer(signal.ITIMER_REAL, 5e-5 + turn % 40 * 1e-5)
        if os.fork() == 0:
            os._exit(0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        if os.getpid() != parent:
            os._exit(0)
print(_fork._whole._is_owned())
"""


def test_interrupted_forks_leave_no_lock() -> None:
    """A handler that raises while a fork's hooks run does not keep gopool's fork lock taken."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_FORKS], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False\n", done.stderr
