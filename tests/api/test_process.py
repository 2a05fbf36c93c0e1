# SPDX-License-Identifier: MIT
"""The Process API, by start method: attributes, endings, and who else may reap or ask."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import connection
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _core


def _start(context: Any, **options: Any) -> tuple[Any, Any]:
    """A process that obeys a connection, running."""
    ours, theirs = context.Pipe()
    process = context.Process(target=f.obey, args=(theirs,), **options)
    process.start()
    theirs.close()
    assert ours.recv() == "started"
    return process, ours


@pytest.mark.parametrize("order, code", [(0, 0), (7, 7), (ValueError("no"), 1), (None, 0)])
def test_exit_codes(context: Any, capfd: Any, order: Any, code: int, start_method: str) -> None:
    """exitcode is None while the process runs, then what it exited with; 1 for an exception."""
    process, orders = _start(context)
    assert process.exitcode is None
    assert process.is_alive()
    orders.send(order)
    process.join()
    assert process.exitcode == code
    assert not process.is_alive()
    written = capfd.readouterr().err
    if start_method != "forkserver":  # there stderr is the server's, whose it was at its start
        assert ("ValueError: no" in written) == isinstance(order, ValueError), written


@pytest.mark.parametrize(
    "how, code", [("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL)]
)
def test_terminate_and_kill(context: Any, how: str, code: int) -> None:
    """terminate() and kill() send SIGTERM and SIGKILL; after the end they do nothing."""
    process, _ = _start(context)
    getattr(process, how)()
    process.join()
    assert process.exitcode == code
    getattr(process, how)()
    assert process.exitcode == code


def test_killed_by_somebody_else(context: Any) -> None:
    """A signal from outside is the exit code, whoever sent it."""
    process, _ = _start(context)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -9


def test_join_timeout(context: Any) -> None:
    """join(timeout) returns None when the time is over, and the process runs on."""
    process, orders = _start(context)
    for timeout in (0, 0.01, -1):
        assert process.join(timeout) is None
        assert process.is_alive()
        assert process.exitcode is None
    orders.send(3)
    process.join(60)
    assert process.exitcode == 3


def test_sentinel(context: Any) -> None:
    """The sentinel is ready exactly when the process has ended, in multiprocessing's wait()."""
    first, orders = _start(context)
    second, others = _start(context)
    assert isinstance(first.sentinel, int)
    sentinels = [first.sentinel, second.sentinel]
    assert connection.wait(sentinels, 0) == []
    others.send(0)
    assert connection.wait(sentinels, 60) == [second.sentinel]
    orders.send(0)
    assert connection.wait([first.sentinel], 60) == [first.sentinel]
    first.join()
    second.join()


def test_attributes(context: Any) -> None:
    """Name, daemon, authkey and pid are in the child what they are in the parent."""
    process, orders = _start(context, name="Gruffalo", daemon=True)
    assert (process.name, process.daemon) == ("Gruffalo", True)
    found = {}
    for attribute in ("name", "daemon", "pid"):
        orders.send(attribute)
        found[attribute] = orders.recv()
    assert found == {"name": "Gruffalo", "daemon": True, "pid": process.pid}
    assert process.authkey == multiprocessing.current_process().authkey
    assert process.ident == process.pid
    orders.send(0)
    process.join()
    assert process.pid == found["pid"]


def test_before_start(context: Any) -> None:
    """A process that was not started has no pid, sentinel or exit code, and can't be joined."""
    process = context.Process(target=f.square, args=(2,))
    assert (process.pid, process.exitcode, process.is_alive()) == (None, None, False)
    with pytest.raises(ValueError, match="process not started"):
        _ = process.sentinel
    with pytest.raises(AssertionError, match="can only join a started process"):
        process.join()


def test_start_twice(context: Any) -> None:
    """A process starts once."""
    process = context.Process(target=f.square, args=(2,))
    process.start()
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    process.join()


def test_close(context: Any) -> None:
    """close() refuses a running process; a closed one refuses everything but to be closed."""
    process, orders = _start(context)
    with pytest.raises(ValueError, match="Cannot close a process while it is still running"):
        process.close()
    orders.send(0)
    process.join()
    process.close()
    process.close()
    for use in ("join", "is_alive", "terminate", "kill", "start"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(process, use)()
    with pytest.raises(ValueError, match="process object is closed"):
        _ = process.exitcode


def test_active_children(context: Any) -> None:
    """active_children() of both packages lists what runs, and reaps what has ended."""
    process, orders = _start(context)
    assert process in gopool.active_children()
    assert process in multiprocessing.active_children()
    orders.send(4)
    connection.wait([process.sentinel])
    # Ready a moment before the process is a zombie: ask until it is reaped, as programs do.
    while process in gopool.active_children():
        process.join(0.01)
    assert process.exitcode == 4


def test_parent_process(context: Any) -> None:
    """parent_process() is the starter in the child, None in the main process."""
    ours, theirs = context.Pipe()
    process = context.Process(target=f.tell_parent, args=(theirs,))
    process.start()
    theirs.close()
    assert ours.recv() == (os.getpid(), True)
    process.join()
    assert process.exitcode == 0
    assert gopool.parent_process() is None


def test_join_from_two_threads(context: Any) -> None:
    """Two threads that join at once both return, and both see the exit code."""
    process, orders = _start(context)
    codes: list[Any] = []
    ready = threading.Barrier(3)

    def join() -> None:
        ready.wait()
        process.join()
        codes.append(process.exitcode)

    threads = [threading.Thread(target=join) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    orders.send(9)
    for thread in threads:
        thread.join(60)
    assert codes == [9, 9]


def test_questions_from_many_threads(context: Any) -> None:
    """is_alive, exitcode and join raced from several threads never see a wrong code."""
    for code in range(1, 11):
        process, orders = _start(context)
        seen: list[Any] = []

        def ask(process: Any = process, seen: list[Any] = seen) -> None:
            while (found := process.exitcode) is None and process.is_alive():
                pass
            seen.append(process.exitcode if found is None else found)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads.append(threading.Thread(target=process.join))
        for thread in threads:
            thread.start()
        orders.send(code)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert (process.exitcode, seen) == (code, [code] * 3)


def test_asked_in_a_signal_handler() -> None:
    """A SIGCHLD handler that asks for the children, as many programs have one, never deadlocks."""
    seen = []

    def handler(*_: Any) -> None:
        seen.append(len(multiprocessing.active_children()))

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        for _ in range(30):
            process = gopool.get_context("fork").Process(target=f.exit_hard, args=(6,))
            process.start()
            while process.exitcode is None:
                pass
            assert process.exitcode == 6
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert seen


def test_asked_in_the_middle_of_asking() -> None:
    """A question that interrupts another one within the same thread gets the answer; both do."""
    process = gopool.get_context("fork").Process(target=f.exit_hard, args=(6,))
    process.start()
    connection.wait([process._popen._pidfd])
    inner: list[Any] = []
    original = os.wait4

    def interrupted(*args: Any) -> Any:
        os.wait4 = original
        inner.append(process.exitcode)
        return original(*args)

    os.wait4 = interrupted  # type: ignore[assignment]
    try:
        assert process.exitcode == 6
    finally:
        os.wait4 = original
    assert inner == [6]
    process.join()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reaped_by_somebody_else(method: str) -> None:
    """After a foreign waitpid(-1), join() returns at once and the exit code stays None."""
    process, orders = _start(gopool.get_context(method))
    orders.send(5)
    assert os.waitpid(process.pid, 0) == (process.pid, 5 << 8)
    process.join()
    process.join(30)
    assert process.exitcode is None
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reaped_by_the_kernel(method: str) -> None:
    """With SIGCHLD ignored the kernel reaps at once; join() still waits for the end and returns."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process, orders = _start(gopool.get_context(method))
        end = os.pidfd_open(process.pid)
        process.join(0.01)
        assert process.is_alive()
        orders.send(5)
        process.join()
        # Not its entry in /proc: the kernel removes that a little later.
        assert connection.wait([end], 0) == [end]
        with pytest.raises(ChildProcessError):
            os.waitpid(process.pid, 0)
        assert process.exitcode is None
    finally:
        signal.signal(signal.SIGCHLD, before)
    os.close(end)
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


def test_adoption_fails_for_want_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no pidfd can be had the process runs all the same, in the standard library's way."""

    def refuse(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    process, orders = _start(gopool.get_context("fork"))
    process.join(0.01)
    assert process.is_alive()
    orders.send(8)
    process.join()
    assert process.exitcode == 8


def test_processes_alone_do_not_load_go(tmp_path: Any, start_method: str) -> None:
    """A program that starts processes and no pool pays nothing for Go."""
    done = f.run_script(
        tmp_path,
        """
import sys
import functions as f
import gopool
from gopool import _core

if __name__ == "__main__":
    process = gopool.get_context(sys.argv[1]).Process(target=f.exit_hard, args=(3,))
    process.start()
    process.join()
    print(process.exitcode, _core.loaded(), "msgpack" in sys.modules)
""",
        start_method,
    )
    f.assert_silent_success(done, "3 False False\n")


@pytest.mark.slow
def test_many_processes() -> None:
    """300 processes, started and joined, leave no descriptor; Go counted each of them."""
    context = gopool.get_context("fork")
    stat = _core.load().ProcessStat
    before = [stat(i) for i in range(3)]
    descriptors = len(os.listdir("/proc/self/fd"))
    for i in range(300):
        process = context.Process(target=f.exit_hard, args=(int(i % 100 == 0),))
        process.start()
        process.join()
    del process
    gc.collect()
    assert [stat(i) - before[i] for i in range(3)] == [300, 300, 3]
    assert len(os.listdir("/proc/self/fd")) == descriptors


OUTLIVES = """
import os, signal, sys
import functions as f
import {package} as package

if __name__ == "__main__":
    process = package.get_context(sys.argv[1]).Process(target=f.sleep, args=(60,))
    process.start()
    os.write(1, b"%d\\n" % process.pid)
    process.join()
"""


@pytest.mark.parametrize("package", ["multiprocessing", "gopool"])
def test_outlives_its_parent(tmp_path: Any, start_method: str, package: str) -> None:
    """A Process goes on when its parent is killed, as in the standard library (no pool worker)."""
    script = tmp_path / "script.py"
    script.write_text(OUTLIVES.format(package=package))
    parent = subprocess.Popen(
        [sys.executable, str(script), start_method],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.path.dirname(f.__file__)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    pidfd = os.pidfd_open(pid)
    try:
        parent.kill()
        parent.wait(60)
        assert connection.wait([pidfd], 0.5) == []  # the time in which a pool worker is gone
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert connection.wait([pidfd], 30) == [pidfd]
    finally:
        os.close(pidfd)
        parent.stdout.close()
