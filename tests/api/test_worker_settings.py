# SPDX-License-Identifier: MIT
"""What a pool can be told about its workers beyond the standard library's arguments."""

from __future__ import annotations

import functools
import inspect
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _settings, pool


@pytest.mark.parametrize("kind", [pool.Pool, gopool.Pool, _settings.Settings])
def test_signatures_agree(kind: Any) -> None:
    """Every public signature has the keywords of the settings, with their defaults."""
    own = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert own == _settings.DEFAULTS


@pytest.mark.parametrize(
    "keyword, value", [("worker_exit", 3), ("daemon", None), ("capture_stderr", "yes")]
)
def test_wrong_types(keyword: str, value: Any) -> None:
    """A keyword that can't be right is a TypeError that names it, before anything starts."""
    with pytest.raises(TypeError, match=keyword):
        gopool.Pool(1, **{keyword: value})


def test_unknown_keyword(context: Any) -> None:
    """A misspelt keyword is the TypeError that Python makes of it."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'worker_exits'"):
        context.Pool(1, worker_exits=print)


def test_pools_without_the_core_refuse() -> None:
    """A pool that must be the standard library's takes defaults, and says why it takes no more."""

    class OwnTransport(pool.Pool):
        def _setup_queues(self) -> None:
            super()._setup_queues()  # type: ignore[misc]

    with pytest.raises(gopool.GopoolError, match="worker_exit needs the Go core: OwnTransport"):
        OwnTransport(1, worker_exit=print)
    with OwnTransport(1, daemon=True) as plain:
        assert plain.apply(f.square, (3,)) == 9


WITHOUT_CORE = """
    import multiprocessing.pool, resource, sys, warnings
    import functions as f
    import gopool

    if __name__ == "__main__":
        warnings.simplefilter("ignore")
        if sys.argv[1] == "install":
            gopool.install()
            Pool = multiprocessing.pool.Pool
        else:
            Pool = gopool.Pool
        resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
        with Pool(1, daemon=True, worker_exit=None) as pool:
            print(pool.apply(f.square, (3,)))
        try:
            Pool(1, daemon=False)
        except gopool.GopoolError as error:
            print(str(error).split(" is ")[0])
"""


@pytest.mark.parametrize("way", ["install", "import"])
def test_limits_without_the_core(tmp_path: Any, way: str) -> None:
    """Where limits keep Go out, settings at their defaults do no harm and others are refused."""
    done = f.run_script(tmp_path, WITHOUT_CORE, way)
    f.assert_silent_success(done, "9\ndaemon needs the Go core: RLIMIT_AS\n")


def test_installed_pools_take_them(tmp_path: Any) -> None:
    """After install(), multiprocessing.pool.Pool takes the keywords too."""
    gopool.install()
    try:
        with multiprocessing.pool.Pool(1, daemon=False) as handed_over:  # type: ignore[call-arg]
            assert handed_over.apply(f.is_daemon) is False
        with pytest.raises(TypeError, match="daemons"):
            multiprocessing.pool.Pool(1, daemons=False)  # type: ignore[call-arg]
    finally:
        gopool.uninstall()


# The exit hook.


class Notes:
    """A file in which processes make notes, each line with a pid."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.exit = functools.partial(f.note, path, "exit")

    def by_pid(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        with open(self.path) as lines:
            for line in lines:
                pid, word = line.split()
                found.setdefault(int(pid), []).append(word)
        return found


@pytest.fixture
def notes(tmp_path: Any) -> Notes:
    """No notes yet."""
    return Notes(str(tmp_path / "notes"))


def test_exit_hook_at_stop(context: Any, notes: Notes) -> None:
    """Each worker calls it once, after its last task and before its finalizers."""
    with context.Pool(2, f.note_finalizer, (notes.path,), worker_exit=notes.exit) as pool:
        pool.starmap(f.note, [(notes.path, "task")] * 6, 1)
        pool.close()
        pool.join()
    made = notes.by_pid()
    assert len(made) == 2
    for words in made.values():
        assert words == ["task"] * (len(words) - 2) + ["exit", "finalizer"]


def test_exit_hook_at_maxtasksperchild(context: Any, notes: Notes) -> None:
    """A worker that has done its tasks calls it before it is replaced."""
    with context.Pool(1, maxtasksperchild=2, worker_exit=notes.exit) as pool:
        pool.starmap(f.note, [(notes.path, "task")] * 4, 1)
        pool.close()
        pool.join()
    busy = [words for words in notes.by_pid().values() if "task" in words]
    assert busy == [["task", "task", "exit"]] * 2


def test_exit_hook_at_terminate(context: Any, notes: Notes) -> None:
    """terminate() lets an idle worker call it."""
    with context.Pool(1, worker_exit=notes.exit) as pool:
        pool.apply(f.note, (notes.path, "task"))
    assert list(notes.by_pid().values()) == [["task", "exit"]]


def test_no_exit_hook_for_the_killed(context: Any, notes: Notes) -> None:
    """A worker that is killed, or exits by itself, does not call it; its successor does."""
    with context.Pool(1, worker_exit=notes.exit) as pool:
        killed = []
        for deadly in (f.kill_self, f.exit_hard):
            killed.append(pool.apply(f.note, (notes.path, "task")))
            with pytest.raises(gopool.WorkerLostError):
                pool.apply(deadly)
        pool.apply(f.note, (notes.path, "task"))
        pool.close()
        pool.join()
    made = notes.by_pid()
    assert [made.pop(pid) for pid in killed] == [["task"], ["task"]]
    assert list(made.values()) == [["task", "exit"]]


RAISING_HOOK = """
    import os, sys
    import functions as f
    import gopool

    if __name__ == "__main__":
        pool = gopool.get_context(sys.argv[1]).Pool(1, worker_exit=getattr(f, sys.argv[2]))
        process, = pool._pool
        pool.apply(f.square, (2,))
        pool.close()
        pool.join()
        print(process.exitcode)
"""


@pytest.mark.parametrize(
    "hook, last",
    [("fail_initializer", "RuntimeError: no worker can be made"), ("exit", "SystemExit: 7")],
)
def test_exit_hook_raises(tmp_path: Any, start_method: str, hook: str, last: str) -> None:
    """What it raises is a traceback on stderr, also a SystemExit; the exit code stays 0."""
    done = f.run_script(tmp_path, RAISING_HOOK, start_method, hook)
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.splitlines()[-1] == last


def test_exit_hook_forks(context: Any, notes: Notes) -> None:
    """A child that it forks and lets return ends there: the worker's finalizers run once."""
    with context.Pool(
        1, f.note_finalizer, (notes.path,), worker_exit=f.fork_and_return
    ) as pool:
        worker = pool.apply(f.note, (notes.path, "task"))
        pool.close()
        pool.join()
    assert notes.by_pid() == {worker: ["task", "finalizer"]}


def test_exit_hook_and_ctrl_c(context: Any, notes: Notes) -> None:
    """Ctrl-C does not interrupt it, as it does not interrupt a worker between two tasks."""
    hook = functools.partial(f.note_under_sigint, notes.path, "exit")
    with context.Pool(1, worker_exit=hook) as pool:
        pool.apply(f.note, (notes.path, "task"))
        pool.close()
        pool.join()
    assert list(notes.by_pid().values()) == [["task", "exit"]]


# Workers that are not daemonic.


def test_nested_pool(context: Any, start_method: str) -> None:
    """daemon=False lets a task make a pool; without it Python's own rule holds."""
    with context.Pool(1, daemon=False) as pool:
        assert pool.apply(f.nested_pool, (start_method,)) == [0, 1, 4, 9]
        assert pool.apply(f.is_daemon) is False
    refused = pytest.raises(AssertionError, match="daemonic processes are not allowed")
    with context.Pool(1) as pool, refused:
        pool.apply(f.nested_pool, (start_method,))


def test_children_of_tasks_are_joined(
    context: Any, start_method: str, notes: Notes, tmp_path: Any
) -> None:
    """A worker that ends in order waits for the processes that its tasks have started."""
    release = str(tmp_path / "release")
    with context.Pool(1, daemon=False) as pool:
        pool.apply(f.start_process, (start_method, release, notes.path))
        pool.close()
        open(release, "w").close()
        pool.join()
    assert list(notes.by_pid().values()) == [["child"]]


LIVE_AT_EXIT = """
    import os, signal, sys, threading
    import functions as f
    import gopool

    if __name__ == "__main__":
        method, how, busy = sys.argv[1:]
        pool = gopool.get_context(method).Pool(2, daemon=False)
        pids = [worker.pid for worker in pool._pool]
        pids += pool.apply(f.keep_inner_pool, (method, 2))
        print(*pids, flush=True)
        if busy == "busy":
            pool.apply_async(f.busy_in_python)
        pool._state = "CLOSE" if how != "end" else pool._state  # no ResourceWarning in the output
        if how == "exit":
            sys.exit(5)
        elif how == "raise":
            raise RuntimeError("the end")
        elif how == "_exit":
            os._exit(6)
        elif how == "interrupt":
            signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("busy", ["idle", "busy"])
@pytest.mark.parametrize(
    "how, code", [("end", 0), ("exit", 5), ("raise", 1), ("_exit", 6), ("interrupt", -2)]
)
def test_interpreter_exit_with_a_live_pool(
    tmp_path: Any,
    start_method: str,
    how: str,
    code: int,
    busy: str,
    eventually: Callable[..., None],
) -> None:
    """However the program ends, it ends, and no worker of its pool nor of those below is left."""
    done = f.run_script(tmp_path, LIVE_AT_EXIT, start_method, how, busy)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("Traceback") == (how in ("raise", "interrupt")), done.stderr
    pids = done.stdout.split()
    assert len(pids) == 4
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "all are gone")


def test_terminate_while_inner_pools_work(
    context: Any, start_method: str, notes: Notes, eventually: Callable[..., None]
) -> None:
    """terminate() leaves nothing of the pools in its workers."""
    with context.Pool(2, daemon=False) as pool:
        for _ in range(2):
            pool.apply_async(f.busy_in_inner_pool, (start_method, notes.path))
        eventually(lambda: os.path.exists(notes.path) and _inner(notes) == 2, "both are busy")
        pids = list(notes.by_pid())
    assert len(pids) == 4
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "all are gone")


def _inner(notes: Notes) -> int:
    return sum(words == ["inner"] for words in notes.by_pid().values())
