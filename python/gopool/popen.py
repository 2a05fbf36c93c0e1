# SPDX-License-Identifier: MIT
"""How processes start: the standard library's Popen classes, whose processes Go adopts.

Death and status are two facts. Death is an event: a pidfd, watched by Go and by join(). The
status has one reader, poll() here, who reaps and then tells Go; where somebody else reaped the
process, it stays unknown.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from multiprocessing import popen_fork, popen_forkserver, popen_spawn_posix, util
from multiprocessing import process as process_module

from gopool import _core, _fork

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

_thread = threading.local()


@contextlib.contextmanager
def unadopted() -> Iterator[None]:
    """Start processes that are not for the register: a pool adopts its workers by itself."""
    _thread.unadopted = True
    try:
        yield
    finally:
        _thread.unadopted = False


def open_pidfd(pid: int, sentinel: int | None = None) -> int:
    """A pidfd of a child; -1 where it is gone (and reaped) already.

    Under forkserver the child is somebody else's, who may have reaped it, and its number may
    mean another process by now: its sentinel is ready then.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if sentinel is not None and readable(sentinel, 0):
        os.close(pidfd)
        return -1
    return pidfd


def readable(fd: int, timeout: float | None) -> bool:
    """Wait until a descriptor is readable, seconds or for ever; signals are handled meanwhile."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else max(0.0, timeout * 1000)))


class _Adopted:
    """What adoption adds to a Popen class; `super()` is the standard library's."""

    # Under forkserver the child is not ours: when it ends, its status follows on the sentinel.
    _status_on_sentinel = False
    _pidfd = -1
    _process = 0  # Go's number
    _release: Any = None
    returncode: int | None
    sentinel: int
    pid: int

    def __init__(self, process_obj: Any) -> None:
        # One reader of the status at a time; never held waiting. Reentrant, since a handler of
        # SIGCHLD that calls active_children() may interrupt the reader.
        self._reaping = threading.RLock()
        super().__init__(process_obj)  # type: ignore[call-arg]
        if not getattr(_thread, "unadopted", False):
            try:
                self._adopt()
            except BaseException:
                # start() fails: what it started is not to go on without anybody knowing it.
                self._send_signal(signal.SIGKILL)  # type: ignore[attr-defined]
                super().wait()  # type: ignore[misc]
                raise

    def _adopt(self) -> None:
        """Watch the process by its pidfd; have Go watch it too, where Go is loaded.

        A program that only starts processes does not load Go: that would make each of its forks
        a quarter slower (docs/design.md has the figures) and nothing better.
        """
        sentinel = self.sentinel if self._status_on_sentinel else None
        try:
            pidfd = open_pidfd(self.pid, sentinel)
        except OSError:
            return  # no descriptor is left, or pidfds are forbidden here: the stdlib's ways do
        if pidfd < 0:
            return
        self._pidfd = _fork.own(pidfd)
        native = _core.load() if _core.loaded() else None
        if native is not None:
            # A negative number: Go's poller has no room for it; the pidfd serves join() anyway.
            self._process = max(native.ProcessAdopt(self.pid, pidfd), 0)
        self._release = util.Finalize(self, _release, args=(native, self._process, pidfd))

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is not None:
            return self.returncode
        if flag == 0 and self._wait_fd() >= 0:
            return self.wait()
        code: int | None
        if flag == 0:
            code = super().poll(flag)  # type: ignore[misc]
        else:
            with self._reaping:
                code = super().poll(flag)  # type: ignore[misc]
                if code is None:
                    code = self.returncode  # read meanwhile, by a signal handler's poll()
        if code is not None:
            self._report(code)
        return code

    def wait(self, timeout: float | None = None) -> int | None:
        if self.returncode is not None:
            return self.returncode
        fd = self._wait_fd()
        if fd < 0:
            code: int | None = super().wait(timeout)  # type: ignore[misc]
            return code
        return self.poll() if readable(fd, timeout) else None

    def _wait_fd(self) -> int:
        """What becomes readable when the status can be read; -1: only waitpid can tell."""
        return self.sentinel if self._status_on_sentinel else self._pidfd

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        if self._release is not None:
            self._pidfd = -1
            self._release()

    def _report(self, code: int) -> None:
        process, self._process = self._process, 0
        if process:
            _core.load().ProcessReaped(process, code, 1)


def _release(native: Any, process: int, pidfd: int) -> None:
    """Give up the watch and the descriptor of a process that nobody can ask for any more."""
    if process:
        native.ProcessReaped(process, 0, 0)  # refused where its end was reported before
    _fork.close(pidfd)


class ForkPopen(_Adopted, popen_fork.Popen):
    """multiprocessing.popen_fork.Popen with adoption."""

    def _launch(self, process_obj: Any) -> None:
        if _FORK_WARNS and _core.loaded():
            with _without_fork_warning():
                super()._launch(process_obj)  # type: ignore[misc]
        else:
            super()._launch(process_obj)  # type: ignore[misc]


class SpawnPopen(_Adopted, popen_spawn_posix.Popen):
    """multiprocessing.popen_spawn_posix.Popen with adoption."""


class ForkServerPopen(_Adopted, popen_forkserver.Popen):
    """multiprocessing.popen_forkserver.Popen with adoption."""

    _status_on_sentinel = True


_FORK_WARNS = sys.version_info >= (3, 12)
_restore_filters: contextlib.ExitStack | None = None


@contextlib.contextmanager
def _without_fork_warning() -> Iterator[None]:
    """Silence Python 3.12's warning about threads at fork where the only threads are Go's.

    Go's threads take no lock that a child could miss (it never enters the parent's Go), and
    plain multiprocessing would not warn either. With other Python threads it would: then the
    warning stays. With one Python thread nobody else sees the changed filters.
    """
    global _restore_filters
    if threading.active_count() > 1:
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        _restore_filters = stack
        try:
            yield
        finally:
            _restore_filters = None


def _restore_in_child() -> None:
    global _restore_filters
    if _restore_filters is not None:
        stack, _restore_filters = _restore_filters, None
        stack.close()


_fork.in_child(_restore_in_child)


def _disown_in_child() -> None:
    """Leave the parent's processes to the parent: at its exit a forked child ends all it knows.

    multiprocessing forgets them in its own children only, not in those of os.fork.
    """
    for process in list(process_module._children):  # type: ignore[attr-defined]
        popen = process._popen
        if isinstance(popen, _Adopted):
            process_module._children.discard(process)  # type: ignore[attr-defined]
            popen._reaping = threading.RLock()
            popen._pidfd, popen._process = -1, 0  # closed here, and a number of the parent's Go


_fork.in_child(_disown_in_child)

_warned = False


def warn_unsupervised(obstacle: str) -> None:
    """Say once per process that gopool steps back to the standard library's own ways.

    The warning points at the first line outside gopool and multiprocessing.
    """
    global _warned
    if _warned:
        return
    _warned = True
    inside = tuple(os.path.dirname(module.__file__ or "") for module in (_core, util))
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level, frame = level + 1, frame.f_back
    text = f"gopool runs without its Go core, on the standard library's pool: {obstacle}"
    warnings.warn(text, RuntimeWarning, stacklevel=level)
