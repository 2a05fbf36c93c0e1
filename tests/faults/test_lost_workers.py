# SPDX-License-Identifier: MIT
"""Workers that die, and objects that do not travel: one task fails, nothing hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback
from typing import Any

import pytest

import functions as f
import gopool


@pytest.mark.parametrize("chunksize", [1, 5])
def test_map_with_a_dying_item(context: Any, chunksize: int) -> None:
    """A worker that dies in a chunk fails the map with WorkerLostError; the pool goes on."""
    with context.Pool(2) as pool:
        calls = [(f.square, (x,)) for x in range(9)] + [(os._exit, (4,))]
        with pytest.raises(gopool.WorkerLostError) as caught:
            pool.starmap(f.call, calls, chunksize)
        assert caught.value.exitcode == 4
        assert pool.map(f.square, range(3)) == [0, 1, 4]


def test_exit_code_and_pid(context: Any) -> None:
    """The error says which process ended, how, and how long it had the task."""
    with context.Pool(1) as pool:
        pid = pool.apply(f.pid)
        with pytest.raises(gopool.WorkerLostError) as caught:
            pool.apply(f.kill_self)
        error = caught.value
        assert (error.pid, error.exitcode, error.signal_name) == (pid, -9, "SIGKILL")
        assert "was ended by SIGKILL" in str(error)
        assert pool.apply(f.pid) != pid


def test_other_tasks_complete(context: Any) -> None:
    """Tasks before and after the lost one are all done, each once."""
    with context.Pool(2) as pool:
        results = [
            pool.apply_async(f.exit_hard if x == 10 else f.square, (x,)) for x in range(30)
        ]
        for x, result in enumerate(results):
            if x == 10:
                with pytest.raises(gopool.WorkerLostError):
                    result.get(timeout=60)
            else:
                assert result.get(timeout=60) == x * x


def test_worker_dies_idle(context: Any, eventually: Any) -> None:
    """An idle worker that is killed is replaced, and no task notices."""
    with context.Pool(1) as pool:
        victim = pool.apply(f.pid)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: [w.pid for w in pool._pool] not in ([victim], []), "a replacement")
        assert pool.apply(f.square, (3,)) == 9


def test_reaped_by_somebody_else() -> None:
    """Where somebody else reaps the worker, the exit code is None; nothing hangs."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps at once
    try:
        with gopool.get_context("fork").Pool(1) as pool:
            with pytest.raises(gopool.WorkerLostError) as caught:
                pool.apply(f.exit_hard)
            assert caught.value.exitcode is None
            assert "unknown" in str(caught.value)
            assert pool.apply(f.square, (3,)) == 9
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_argument_does_not_pickle(pool: Any) -> None:
    """The error reaches that call's get(); nothing else is touched."""
    with pytest.raises(TypeError, match="does not pickle"):
        pool.apply(f.identity, (f.BadArgument(),))
    with pytest.raises(TypeError, match="does not pickle"):
        pool.map(f.identity, [1, f.BadArgument(), 3], chunksize=1)
    assert pool.apply(f.square, (3,)) == 9


def test_argument_does_not_unpickle(pool: Any) -> None:
    """The task fails with the original exception; the worker goes on."""
    pid = pool.apply(f.pid)
    with pytest.raises(ValueError) as caught:
        pool.apply(f.identity, (f.Bomb(int, "no number"),))
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert pid in {process.pid for process in pool._pool}


def test_argument_kills_at_unpickling(context: Any) -> None:
    """An argument that ends the process while it is unpickled is charged to its task alone."""
    with context.Pool(1) as pool:
        with pytest.raises(gopool.WorkerLostError) as caught:
            pool.apply(f.identity, (f.Bomb(os._exit, 6),))
        assert caught.value.exitcode == 6
        assert pool.apply(f.square, (3,)) == 9


def test_result_does_not_pickle(pool: Any) -> None:
    """A result that does not pickle is MaybeEncodingError, as in the standard library."""
    with pytest.raises(MaybeEncodingError) as caught:
        pool.apply(f.make_lambda)
    assert "lambda" in caught.value.value
    assert "local object" in caught.value.exc  # the verb before it depends on the version


def test_after_a_result_that_does_not_pickle(context: Any) -> None:
    """What a failed pickle had begun does not show in the next result of that worker."""
    with context.Pool(1) as pool:
        with pytest.raises(MaybeEncodingError):
            pool.apply(f.result_and_lambda)
        assert pool.apply(f.identity, (["a"],)) == ["a"]
        assert pool.apply(f.identity, ("b",)) == "b"


def test_exception_does_not_pickle(pool: Any) -> None:
    """So is an exception that does not pickle."""
    with pytest.raises(MaybeEncodingError) as caught:
        pool.apply(f.raise_unpicklable)
    assert "not to be pickled" in caught.value.exc


def test_exception_does_not_unpickle(pool: Any) -> None:
    """An exception that can't be rebuilt here arrives in words; the pool goes on."""
    with pytest.raises(gopool.RemoteTaskError) as caught:
        pool.apply(f.raise_unpicklable_here)
    assert caught.value.type_name == "UnpicklableHere"
    assert "raise UnpicklableHere" in str(caught.value)
    assert pool.apply(f.square, (3,)) == 9


def test_result_does_not_unpickle(pool: Any) -> None:
    """So does a result."""
    with pytest.raises(gopool.RemoteTaskError) as caught:
        pool.apply(f.Bomb, (int, "no number"))
    assert isinstance(caught.value.__cause__, ValueError)
    assert pool.apply(f.square, (3,)) == 9


def test_the_lost_worker_is_listed_no_more(pool: Any) -> None:
    """Whoever hears of the loss, and looks at the pool's processes, finds the living only."""
    crew, listed = pool._engine.crew, []
    native = crew._native

    class Watched:
        """Go's functions; those who wait for the task hear of the loss within WorkerReaped."""

        def __getattr__(self, name: str) -> Any:
            if name == "WorkerReaped":
                listed.extend(process.pid for process in pool._pool)
            return getattr(native, name)

    crew._native = Watched()
    with pytest.raises(gopool.WorkerLostError) as lost:
        pool.apply(f.exit_hard, (1,))
    assert len(listed) == 1
    assert lost.value.pid not in listed


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_base_exceptions(pool: Any, error: BaseException) -> None:
    """A BaseException is its task's outcome, and the worker stays."""
    pids = set(pool.map(f.pid, range(8), chunksize=1))
    with pytest.raises(type(error)):
        pool.apply(f.raise_it, (error,))
    workers = {w.pid for w in pool._pool}
    assert set(pool.map(f.pid, range(8), chunksize=1)) <= workers
    assert pids <= workers
    assert pool.apply(f.square, (3,)) == 9


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_callback_raises(pool: Any) -> None:
    """A callback that raises is reported through threading.excepthook; results still arrive."""
    reported: list[Any] = []
    before, threading.excepthook = threading.excepthook, reported.append
    try:
        assert pool.apply_async(f.square, (3,), callback=_explode).get(timeout=30) == 9
        assert pool.map_async(f.square, [1, 2], callback=_explode).get(timeout=30) == [1, 4]
        with pytest.raises(ValueError):
            pool.apply_async(f.fail, (3,), error_callback=_explode).get(timeout=30)
    finally:
        threading.excepthook = before
    assert [r.exc_type for r in reported] == [ZeroDivisionError] * 3


def _explode(_: Any) -> None:
    raise ZeroDivisionError


def test_initializer_raises(context: Any) -> None:
    """An initializer that always raises breaks the pool after a few tries; callers learn why."""
    with context.Pool(2, f.fail_initializer) as pool:
        with pytest.raises(gopool.BrokenPoolError, match="no worker can be made") as caught:
            pool.apply(f.square, (3,))
        assert not isinstance(caught.value, gopool.WorkerStartError)
        with pytest.raises(gopool.BrokenPoolError):
            pool.map(f.square, range(3))


def test_task_that_forks(context: Any) -> None:
    """A child that a task forks and lets return is no worker: one outcome, the parent's."""
    with context.Pool(1) as pool:
        assert [pool.apply(f.fork_and_return) for _ in range(3)] == ["parent"] * 3


def test_dead_worker_with_living_child(context: Any, tmp_path: Any) -> None:
    """A child that the dead worker had forked, and that holds its descriptors, delays nothing."""
    release = tmp_path / "release"
    with context.Pool(1) as pool:
        result = pool.apply_async(f.die_with_living_child, (str(release),))
        with pytest.raises(gopool.WorkerLostError) as caught:
            result.get(timeout=20)
        if context.get_start_method() != "forkserver":  # its status comes by a pipe that is held
            assert caught.value.exitcode == 5
        release.touch()


def test_task_closes_everything(context: Any) -> None:
    """A task that closes gopool's descriptors loses its worker, not the pool; its own outcome may
    arrive.
    """
    with context.Pool(1) as pool:
        worker = pool.apply(f.pid)
        with contextlib.suppress(gopool.WorkerLostError):
            assert pool.apply(os.closerange, (3, 256)) is None
        assert pool.apply(f.pid) != worker


@pytest.mark.parametrize("size", [10, 20_000, 300_000])
def test_task_puts_sockets_in_place(context: Any, size: int) -> None:
    """A task that closes gopool's descriptors, and opens sockets under the same numbers, loses its
    worker: neither its outcome nor the worker goes astray.
    """
    with context.Pool(1) as pool:
        worker = pool.apply(f.pid)
        result = pool.apply_async(f.replace_descriptors, (size,))
        if size < 16_384:  # small ones don't go by the socket, and may arrive
            with contextlib.suppress(gopool.WorkerLostError):
                assert result.get(timeout=20) == b"x" * size
        else:
            with pytest.raises(gopool.WorkerLostError):
                result.get(timeout=20)
        assert pool.apply_async(f.pid).get(timeout=20) != worker


def test_fork_in_a_task_that_replaced_descriptors(context: Any, tmp_path: Any) -> None:
    """What such a task forks closes none of the task's own descriptors."""
    with context.Pool(1) as pool:
        told = tmp_path / "told"
        with contextlib.suppress(gopool.WorkerLostError):
            pool.apply(f.replace_descriptors_and_fork, (str(told),))
        assert told.read_text() == "True"


def test_inherited_pool_is_refused() -> None:
    """A forked child that uses its parent's pool gets ForkedChildError, not silence."""
    context = gopool.get_context("fork")
    with context.Pool(1) as pool:
        answers = context.SimpleQueue()
        process = context.Process(target=_use_inherited, args=(pool, answers))
        process.start()
        assert answers.get() == "ForkedChildError"
        process.join()
        answers.close()


def _use_inherited(pool: Any, answers: Any) -> None:
    try:
        pool.apply(f.square, (2,))
    except Exception as error:
        answers.put(type(error).__name__)


@pytest.mark.parametrize(("end", "code"), [(0, 0), (4, 4), (None, 0), (300, 44)])
def test_exit_of_a_tasks_fork(context: Any, end: Any, code: int) -> None:
    """A child that a task forks ends with sys.exit()'s code; its worker goes on."""
    with context.Pool(1) as pool:
        assert pool.apply(f.exit_code_of_fork, (end,)) == code
        assert pool.apply(f.square, (3,)) == 9


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("settings", [{}, {"worker_max_age": 3600.0}], ids=["plain", "aging"])
def test_stopped_idle_workers(context: Any, eventually: Any, settings: dict[str, float]) -> None:
    """A task that was sent to a worker which somebody has stopped is done by another one."""
    with context.Pool(3, **settings) as pool:
        pids = {process.pid for process in pool._pool}
        while len({pool.apply(f.pid) for _ in range(30)}) < 3:
            pass  # all three have come up
        stopped = sorted(pids)[:2]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(map(_is_stopped, stopped)), "both stand still")
        results = [pool.apply_async(f.square, (i,)) for i in range(20)]
        assert [result.get(60) for result in results] == [i * i for i in range(20)]
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_tasks_of_workers_killed_while_idle(context: Any) -> None:
    """A task that is submitted right after its idle worker was killed is never lost."""
    with context.Pool(1) as pool:
        for i in range(20):
            os.kill(pool.apply(f.pid), signal.SIGKILL)
            assert pool.apply(f.square, (i,)) == i * i
