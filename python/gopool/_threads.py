# SPDX-License-Identifier: MIT
"""Threads, and single steps, that a signal's handler can't cut in two.

A handler runs in the main thread, wherever Python code calls or returns, and may raise there: after
os.pipe() has returned and before its result is kept, or in the middle of Thread.start(), which
leaves a thread that runs and that threading does not know. Two things help:
    - a single call of C functions is never cut: what `_fork.take` takes is in its list before a
      handler can run, and Thread here starts in one such step;
    - another thread, where no handler ever runs: `rescue` does a clean-up there that was cut short.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has signal only
import contextlib
import os
import threading
from _thread import get_ident
from collections.abc import Callable

from gopool import _fork
from gopool._jobs import Once

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any


class Thread(threading.Thread):
    """A daemon thread that starts in one step, and whose join() may be interrupted.

    start() does not wait until it runs, as threading's does: where the workers that were just
    forked keep all processors busy that takes a fifth of what a pool takes to start. Who asks for
    the thread's state waits instead.
    """

    _started: Any  # threading's own, made again

    def __init__(self, name: str, target: Callable[[], object] | None = None) -> None:
        super().__init__(name=name, target=target, daemon=True)
        self._started = Once()
        self._over = Once()
        self._launches: list[object] = []  # what the step of start() gave
        self._generation = _fork.generation
        self.maker = get_ident()

    @property
    def launched(self) -> bool:
        """Whether start() has started it, also where that was interrupted."""
        return bool(self._launches)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: it was started before, or none can start.
        """
        if self._launches:
            raise RuntimeError("threads can only be started once")
        handle = getattr(self, "_handle", None)
        arguments: tuple[object, ...]
        if handle is None:  # before Python 3.13
            begin, arguments = threading._start_new_thread, (self._bootstrap, ())  # type: ignore[attr-defined]
        else:
            begin = threading._start_joinable_thread  # type: ignore[attr-defined]
            arguments = self._bootstrap, handle, True  # daemon
        _fork.take(self._launches, begin, *arguments)

    def _bootstrap(self) -> None:
        """The thread's first function: no handler comes here."""
        threading._limbo[self] = self  # type: ignore[attr-defined]  # as threading's start() does
        try:
            super()._bootstrap()  # type: ignore[misc]
        finally:
            self._over.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait so many seconds at most, or for ever.

        Raises:
            RuntimeError: it was not started, or is the one that calls.
        """
        if self._ident == get_ident() and not self._over.is_set():  # type: ignore[attr-defined]
            raise RuntimeError("cannot join current thread")
        if self._generation == _fork.generation:
            if not self._launches:
                raise RuntimeError("cannot join thread before it is started")
            # threading's own wait takes an interrupted one for the thread's end.
            if not self._over.wait(timeout):
                return
        super().join(timeout)

    def is_alive(self) -> bool:
        if self._generation != _fork.generation:
            return super().is_alive()
        return self.launched and not self._over.is_set()

    def await_start(self) -> None:
        """Wait until the thread that was started runs."""
        self._started.wait()

    @property
    def ident(self) -> int | None:
        if self.launched and self._generation == _fork.generation:
            self._started.wait()
        return super().ident


def read_event(fd: int) -> bool:
    """Wait for an eventfd, and reset it; False: the program has closed it, and may have a file of
    its own under its number.

    Before Python 3.13 os.eventfd_read() does not go on after a signal that this thread was given;
    its handler runs in the main thread.
    """
    while _fork.is_anonymous(fd):
        try:
            os.eventfd_read(fd)
            return True
        except OSError:
            pass  # a signal; or it was closed meanwhile
    return False


def write_event(fd: int) -> None:
    """Wake who waits for an eventfd, unless the program has closed it."""
    if _fork.is_anonymous(fd):
        with contextlib.suppress(OSError):  # it was closed just now
            os.eventfd_write(fd, 1)


def interrupt_read(thread: Thread, fd: int) -> None:
    """Have a thread return from read_event(fd) whose descriptor the program has closed: the kernel
    looks for it again after a signal. Go handles this one, and does nothing.
    """
    if thread.is_alive() and _fork.file_type(fd) is None:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            _signal.pthread_kill(thread.ident or 0, _signal.SIGURG)


def rescue(clean_up: Callable[[], object], done: Once | None = None) -> None:
    """The function of a bare thread: clean up, and say so.

    To be started by _thread.start_new_thread() right where an exception was caught: that is one
    call, before which no handler comes.
    """
    try:
        Thread("gopool-rescue", clean_up)._bootstrap()
    finally:
        if done is not None:
            done.set()
