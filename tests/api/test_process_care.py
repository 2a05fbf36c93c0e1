# SPDX-License-Identifier: MIT
"""What gopool's Process has beyond multiprocessing's: its tree, and what it used."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from multiprocessing import connection
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _core


def _tree(context: Any, depth: int) -> tuple[Any, Any, dict[int, int]]:
    """A running process with others below it, each with a program; and the pids of all."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=f.grow_tree, args=(theirs, depth))
    process.start()
    theirs.close()
    pids = dict(ours.recv() for _ in range(depth + 1))
    assert process.pid in pids
    return process, ours, pids


def _closed(ours: Any) -> None:
    """All that had the other end have ended."""
    assert ours.poll(60), "a process of the tree goes on"
    with pytest.raises(EOFError):
        ours.recv()
    ours.close()


@pytest.mark.parametrize(
    "how, code", [("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL)]
)
def test_ending_the_tree(context: Any, how: str, code: int) -> None:
    """With tree=True whatever a process has started ends with it, programs and processes alike."""
    process, ours, _ = _tree(context, 2)
    getattr(process, how)(tree=True)
    process.join(60)
    assert process.exitcode == code
    _closed(ours)
    getattr(process, how)(tree=True)  # too late, and no error


def test_the_tree_is_left_alone_by_default(context: Any) -> None:
    """terminate() ends the process alone, as in multiprocessing."""
    process, ours, pids = _tree(context, 0)
    process.terminate()
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
    os.kill(pids[process.pid], 0)  # raises where it has ended
    os.kill(pids[process.pid], signal.SIGKILL)
    _closed(ours)


def test_an_ended_root(context: Any) -> None:
    """Once a process has ended, what it had started is nobody's, and no stranger is signalled."""
    process, ours, pids = _tree(context, 0)
    os.kill(process.pid, signal.SIGKILL)
    connection.wait([process.sentinel], 60)
    process.kill(tree=True)
    os.kill(pids[process.pid], 0)
    os.kill(pids[process.pid], signal.SIGKILL)
    _closed(ours)
    process.join()


def test_not_started_or_closed(context: Any) -> None:
    """The same errors with tree=True as without."""
    process = context.Process(target=f.square, args=(2,))
    with pytest.raises(AttributeError):
        process.terminate()
    with pytest.raises(AttributeError):
        process.terminate(tree=True)
    assert process.rusage is None
    process.start()
    process.join()
    process.close()
    with pytest.raises(ValueError, match="process object is closed"):
        process.kill(tree=True)
    with pytest.raises(ValueError, match="process object is closed"):
        _ = process.rusage


def test_without_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Go can't be loaded the error says why, and the process goes on."""
    process, ours, _ = _tree(gopool.get_context("fork"), 0)
    with monkeypatch.context() as patch:
        patch.setattr(_core, "obstacle", lambda: "RLIMIT_AS is too small")
        with pytest.raises(gopool.GopoolError, match="without gopool's Go core: RLIMIT_AS"):
            process.kill(tree=True)
    assert process.is_alive()
    process.kill(tree=True)
    process.join(60)
    _closed(ours)


def test_rusage(context: Any, start_method: str) -> None:
    """rusage is None while the process runs, then what it used; under forkserver nobody knows."""
    ours, theirs = context.Pipe()
    process = context.Process(target=f.obey, args=(theirs,))
    process.start()
    theirs.close()
    assert ours.recv() == "started"
    assert process.rusage is None
    ours.send(0)
    connection.wait([process.sentinel], 60)
    process.join()
    ours.close()
    if start_method == "forkserver":
        assert process.rusage is None
    else:
        assert isinstance(process.rusage, resource.struct_rusage)
        assert process.rusage.ru_utime + process.rusage.ru_stime > 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_rusage_is_the_processes_own(method: str) -> None:
    """Memory and CPU time are those of the one process, not of all that ended.

    The size is well above what this process had: a spawned one begins with that as its peak.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    size_of_the_first = peak + (64 << 20)
    context = gopool.get_context(method)
    used = {}
    for size in (size_of_the_first, 0):
        process = context.Process(target=f.use_memory_and_time, args=(size,))
        process.start()
        process.join()
        used[size] = process.rusage
    assert used[size_of_the_first].ru_maxrss - used[0].ru_maxrss > 32 << 10  # KiB
    assert min(u.ru_utime + u.ru_stime for u in used.values()) > 0.019


def test_rusage_reaped_by_somebody_else() -> None:
    """After a foreign wait there is no rusage, as there is no exit code."""
    process = gopool.get_context("fork").Process(target=f.square, args=(2,))
    process.start()
    os.waitpid(process.pid, 0)
    process.join()
    assert (process.exitcode, process.rusage) == (None, None)
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


FORKS_WHILE_JOINING = """
import os, signal, sys
import functions as f
import gopool

children = []

def fork(number, frame):
    children.append(os.fork())
    if children == [0]:
        open(sys.argv[2], "w").close()

if __name__ == "__main__":
    signal.signal(signal.SIGALRM, fork)
    process = gopool.get_context(sys.argv[1]).Process(target=f.wait_for, args=(sys.argv[2],))
    process.start()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    process.join()
    if children == [0]:
        os._exit(process.exitcode is not None)
    print(process.exitcode, os.waitpid(children[0], 0)[1])
"""


def test_a_handler_forks_while_a_process_is_joined(tmp_path: Any, start_method: str) -> None:
    """The child of the handler goes on in join(), where the process is not its own: it takes no
    status from its parent.
    """
    for i in range(3):
        release = str(tmp_path / f"release {i}")
        done = f.run_script(tmp_path, FORKS_WHILE_JOINING, start_method, release)
        f.assert_silent_success(done, "0 0\n")
