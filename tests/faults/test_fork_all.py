# SPDX-License-Identifier: MIT
"""Workers that are forked one right after the other: as multiprocessing would start each."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _fork
from gopool import context as own

CONTEXT = gopool.get_context("fork")


class Fork:
    """os.fork that fails at the n-th call."""

    def __init__(self, which: int) -> None:
        self._left = which
        self._fork = os.fork

    def __call__(self) -> int:
        self._left -= 1
        if self._left == 0:
            raise BlockingIOError(11, "no more processes")
        return self._fork()


def noisy(size: int) -> int:
    os.write(2, b"." * size)
    return os.getpid()


@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_fork_fails(monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """The error is the caller's, and nothing of the others is left (the leak guard looks)."""
    monkeypatch.setattr(os, "fork", Fork(which))
    with pytest.raises(BlockingIOError, match="no more processes"):
        CONTEXT.Pool(3)
    assert not _fork.passing


def test_stderr_of_those_before_a_failed_fork(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a worker writes is read, also where the fork after its own has failed."""
    with CONTEXT.Pool(1, capture_stderr=True) as pool:
        monkeypatch.setattr(os, "fork", Fork(2))
        with pytest.raises(BlockingIOError):
            pool.resize(3)
        monkeypatch.undo()
        assert len(pool._pool) == 2
        pids: set[int] = set()
        while pids != {process.pid for process in pool._pool}:  # each has written more than fits
            results = [pool.apply_async(noisy, (200_000,)) for _ in range(4)]
            pids |= {result.get(30) for result in results}
    assert capfd.readouterr().err.strip(".") == ""


@pytest.mark.parametrize("where", ["start", "_Popen", "the context's _Popen", "a process's start"])
def test_what_a_program_puts_in_its_place(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A program's own way to start a process is taken for each worker."""
    started = []
    context = CONTEXT

    def noted(original: Any) -> Any:
        def start(process: Any) -> Any:
            started.append(process.name)
            return original(process)

        return start

    if where == "start":
        kind = own.ForkProcess.__mro__[-2]
        monkeypatch.setattr(kind, "start", noted(kind.start))
    elif where == "_Popen":

        class Process(own.ForkProcess):
            _Popen = staticmethod(noted(own.ForkProcess._Popen))

        class Context(type(CONTEXT)):  # type: ignore[misc]
            pass

        Context.Process = Process
        context = Context()
    elif where == "the context's _Popen":
        noting = noted(own.ForkProcess._Popen)
        monkeypatch.setattr(own.ForkProcess, "_Popen", staticmethod(noting))
    else:

        class Pool(gopool.pool.Pool):  # type: ignore[name-defined, misc]
            @staticmethod
            def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
                process = ctx.Process(*args, **kwds)
                process.start = lambda: noted(type(process).start)(process)
                return process

        context = None
    with Pool(2, context=CONTEXT) if context is None else context.Pool(2) as pool:
        assert pool.map(f.square, [2, 3], 1) == [4, 9]
    assert len(started) == 2


def test_a_thread_with_a_small_stack() -> None:
    """A worker runs on the stack of the thread that forked it."""
    results = []

    def work() -> None:
        with CONTEXT.Pool(2) as pool:
            results.append(pool.apply_async(len, (b"." * 50_000,)).get(30))

    before = threading.stack_size(64 << 10)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join(60)
    assert results == [50_000]


def test_a_pool_is_made_while_another_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a signal's handler: the workers of both get what is theirs."""
    fork, inner = os.fork, []

    def fork_late() -> int:
        monkeypatch.undo()
        inner.append(CONTEXT.Pool(2))
        assert inner[0].map(f.square, [4, 5], 1) == [16, 25]
        return fork()

    monkeypatch.setattr(os, "fork", fork_late)
    codes = []
    pool = CONTEXT.Pool(2, on_event=lambda event: codes.append(event.exitcode))
    assert pool.map(f.square, [2, 3], 1) == [4, 9]
    pool.close()
    pool.join()
    assert codes == [None, None, 0, 0]  # two starts, two ends
    inner[0].terminate()
    inner[0].join()


def test_signals_to_the_pools_threads() -> None:
    """A handler runs in the main thread; the thread that was given the signal goes on waiting."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with CONTEXT.Pool(2, maxtasksperchild=1) as pool:
            assert pool.map(f.square, [2, 3], 1) == [4, 9]
            for thread in (pool._result_handler, pool._worker_handler.thread):
                for _ in range(20):
                    signal.pthread_kill(thread.ident, signal.SIGUSR1)
                    assert pool.apply(f.square, (3,)) == 9
            assert pool._result_handler.is_alive() and pool._worker_handler.is_alive()
    finally:
        signal.signal(signal.SIGUSR1, before)
