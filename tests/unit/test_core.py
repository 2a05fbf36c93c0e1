# SPDX-License-Identifier: MIT
"""The border to Go as Python sees it: codes, loading once, what stats say."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest

import functions as f
import gopool
from gopool import _core, _engine, exceptions


@pytest.mark.parametrize("result", [0, 1, 2**40])
def test_results_pass(result: int) -> None:
    """A result that is no code comes through as it is."""
    assert _core.checked(result) == result


@pytest.mark.parametrize(
    "code, kind, text",
    [
        (-10, ValueError, "Pool not running"),  # the standard library's words
        (-11, exceptions.PoolTerminatedError, "the pool was terminated"),
        (-30, exceptions.PayloadTooLargeError, "larger than a frame"),
        (-40, exceptions.CoreError, "does not know this handle"),
        (-50, exceptions.GopoolError, "operating system"),
        (-12345, exceptions.CoreError, "unknown code"),
    ],
)
def test_codes_raise(code: int, kind: type[Exception], text: str) -> None:
    """A code becomes its exception; one that Python does not know is a bug's."""
    with pytest.raises(kind, match=text) as caught:
        _core.checked(code)
    assert type(caught.value) is kind


def test_wrong_numbers_are_codes() -> None:
    """Unknown handles and numbers out of range are answered by a code, never by a crash."""
    native = _core.load()
    unknown = [
        native.PoolClose(10**9),
        native.PoolTerminate(10**9),
        native.PoolKill(10**9),
        native.PoolRelease(10**9),
        native.ProcessReaped(10**9, 0, 1),
        native.StagingClose(10**9),
        native.Submit(10**9, 1, 1, 1, 0, 0, 0, 0),
        native.WorkerReaped(10**9, 1, 0, 1),
        native.FunctionAdd(10**9, 1, 1),
    ]
    assert unknown == [-40] * len(unknown)
    assert native.PollerFD(7) == -41
    assert native.ProcessStat(99) == -41
    assert native.Code(-1) == native.Code(native.Codes()) == -41


def test_reaping_twice_is_refused() -> None:
    """The end of a process is recorded once."""
    native = _core.load()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    process = _core.checked(native.ProcessAdopt(pid, pidfd))
    ended = native.ProcessStat(1)
    os.waitpid(pid, 0)
    assert native.ProcessReaped(process, 0, 1) == 0
    assert native.ProcessReaped(process, 0, 1) == -40
    assert native.ProcessStat(1) == ended + 1
    os.close(pidfd)


def test_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that load at the same time get one and the same; the import happens once."""
    module = _core._import()
    imports: list[Any] = []

    def slow_import() -> Any:
        imports.append(threading.current_thread())
        barrier_passed.wait(5)  # the others are at the lock, or will be
        return module

    barrier_passed = threading.Event()
    monkeypatch.setattr(_core, "_native", None)
    monkeypatch.setattr(_core, "_import", slow_import)
    monkeypatch.setattr(_core, "_import_copy", slow_import)  # the original is imported already
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(_core.load())) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier_passed.set()
    for thread in threads:
        thread.join(30)
    assert len(imports) == 1
    assert len(found) == 4
    assert all(native is found[0] for native in found)
    assert _core.loaded()


def test_modules_that_another_thread_is_importing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks for a module goes on without it where it is there, and has nothing yet."""
    for name in ("gopool._core", "gopool._regions"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    context = gopool.get_context("fork")
    process = context.Process(target=f.square, args=(2,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    raised: list[Any] = []
    monkeypatch.setattr(_engine, "_engines", WeakSet())  # so that this is the last pool to go
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with context.Pool(1) as pool:
        assert pool.apply(f.square, (2,)) == 4
    pool.join()
    assert not raised


def test_stats_text_of_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line agrees in number, and tells tasks that no worker ran from those lost with one."""
    monkeypatch.setattr(_engine, "_engines", ())
    native = SimpleNamespace(closed_totals=[1, 1, 0, 0, 0, 0], ProcessStat=lambda which: 0)
    assert _engine.stats_text(native) == (
        "gopool: the Go core supervised 1 pool worker (0 crashed); "
        "1 task: 1 returned, 0 raised, 0 lost"
    )
    native = SimpleNamespace(closed_totals=[5, 0, 1, 2, 3, 4], ProcessStat=lambda which: 2)
    assert _engine.stats_text(native) == (
        "gopool: the Go core supervised 5 pool workers (4 crashed) and 2 other processes; "
        "6 tasks: 0 returned, 1 raised, 2 lost, 3 not run"
    )


def test_stats_text_where_go_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where limits kept Go out, the line says which; it does not say that Go wasn't needed."""
    monkeypatch.setattr(_core, "_native", None)
    monkeypatch.setattr(_core, "_reason_warned", "")
    with pytest.warns(RuntimeWarning, match="RLIMIT_AS is 5"):
        _core.warn_unsupervised("RLIMIT_AS is 5")
    assert _core.stats_text() == "gopool: the Go core was not used: RLIMIT_AS is 5"


def test_stats_text(tmp_path: Any) -> None:
    """The line about what Go did counts workers, processes and tasks; without Go it says so."""
    done = f.run_script(
        tmp_path,
        """
import functions as f
import gopool
from gopool import _core

if __name__ == "__main__":
    print(_core.stats_text())
    context = gopool.get_context("fork")
    with context.Pool(2) as pool:
        pool.map(f.square, range(4), chunksize=1)
        try:
            pool.apply(f.fail, (1,))
        except ValueError:
            pass
        try:
            pool.apply(f.exit_hard)
        except gopool.WorkerLostError:
            pass
        pool.close()
        pool.join()
    process = context.Process(target=f.square, args=(2,))
    process.start()
    process.join()
    print(_core.stats_text())
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    before, after = done.stdout.splitlines()
    assert before == "gopool: the Go core was not used: no pool needed it"
    for part in (
        "pool workers (1 crashed)",
        "and 1 other process;",
        "; 6 tasks: 4 returned, 1 raised, 1 lost",
    ):
        assert part in after


def test_the_monitor_of_go_is_relaxed(tmp_path: Path) -> None:
    """Of the threads that Go makes the second, its monitor, has a timer slack of 1 ms, and no other
    thread has one that is not its maker's: pyapi/monitor.
    """
    done = f.run_script(
        tmp_path,
        """
        import os
        import sys
        from gopool import _core

        def slacks():
            numbers = sorted(map(int, os.listdir("/proc/self/task")))
            return {each: int(open(f"/proc/{each}/timerslack_ns").read()) for each in numbers}

        try:
            before = slacks()
            _core.load()
            after = slacks()
        except OSError:
            sys.exit("not told")
        made = [each for each in after if each not in before]
        relaxed = [each for each in after if after[each] == 1_000_000]
        assert relaxed == [made[1]], (before, after)
        assert {*after.values()} - {1_000_000} == {*before.values()}, (before, after)
        """,
    )
    if done.stderr == "not told\n":
        pytest.skip("the kernel tells a thread's slack to CAP_SYS_NICE only, or to nobody")
    f.assert_silent_success(done)
