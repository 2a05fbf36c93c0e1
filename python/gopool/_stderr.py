# SPDX-License-Identifier: MIT
"""Capture of stderr: what a worker writes to descriptor 2 is passed on, and its end is kept.

For pools with capture_stderr=True only. Each worker writes to a pipe of its own; one thread of
this process, for all pools, reads them and writes to this process's descriptor 2.

A pipe is read until the last process that has it has closed it: a program that a task started
and that outlives its worker would get SIGPIPE otherwise. So the thread belongs to no pool; it is
there while there is a pipe. Once this process exits, what such a program writes is lost, and it
gets SIGPIPE. Whoever reaps a worker reads its pipe too, so that all that the worker wrote is out
when the pool is joined.

Rejected: memory that the worker writes to, because what it says would be seen after its end, or
after the task at best, and would grow without bound.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading

from gopool import _fork

# Bytes that are kept of each worker's text.
KEPT = 8 << 10

# What one read takes: all that a pipe holds.
_PIPE_SIZE = 64 << 10


class Capture:
    """The pipe of one worker. `writer` is the end for it, a registered descriptor."""

    def __init__(self) -> None:
        """Make the pipe. The caller is inside _fork.unforked()."""
        reader, writer = os.pipe()
        self._reader, self.writer = _fork.own(reader), _fork.own(writer)
        os.set_blocking(reader, False)
        self._tail = b""
        self._cut = False  # there was more than what is kept
        self._reading = threading.Lock()

    def begin(self) -> None:
        """The worker has its end: begin to read."""
        self.close_writer()
        with _fork.unforked():
            _reader_thread().add(self._reader, self)

    def close_writer(self) -> None:
        """Close this process's copy of the worker's end."""
        writer, self.writer = self.writer, -1
        _fork.close(writer)

    def discard(self) -> None:
        """Close both ends, where there is no worker."""
        self.close_writer()
        self.close()

    def close(self) -> None:
        """Close the reading end; nobody writes any more."""
        with self._reading:
            reader, self._reader = self._reader, -1
            _fork.close(reader)

    def pump(self) -> bool:
        """Pass on what the pipe holds at most at one time. Any thread may call.

        Waits only while this process's descriptor 2 does not take it.

        Returns:
            False at the end of the pipe.
        """
        with self._reading:
            if self._reader < 0:
                return False
            try:
                data = os.read(self._reader, _PIPE_SIZE)
            except BlockingIOError:
                return True
            except OSError:
                return False  # a hostile user closed it
            self._cut = self._cut or len(self._tail) + len(data) > KEPT
            self._tail = (self._tail + data)[-KEPT:]
            _pass_on(data)
            return bool(data)

    def text(self) -> str:
        """The last lines that came, at most KEPT bytes of them."""
        tail = self._tail
        if self._cut:
            _, newline, rest = tail.partition(b"\n")
            tail = rest if newline else tail
        return tail.decode(errors="replace")


def _pass_on(data: bytes) -> None:
    """Write all of it to descriptor 2 of this process; what that does not take is dropped."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(2, rest) :]
        except BlockingIOError:
            select.select((), (2,), ())
        except (OSError, ValueError):
            return  # closed, or its reader is gone


class _Reader:
    """The thread that reads all pipes, and what it waits on."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._captures: dict[int, Capture] = {}
        self._changing = threading.Lock()
        self._running = False

    def add(self, fd: int, capture: Capture) -> None:
        """Read a pipe until its end."""
        with self._changing:
            self._captures[fd] = capture
            self._epoll.register(fd, select.EPOLLIN)
            if not self._running:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="gopool-stderr", daemon=True)
        # Where none can start (Python 3.12 allows none while it shuts down) who reaps reads.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._running = True

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if not self._captures[fd].pump():
                    self._remove(fd)
            with self._changing:
                if not self._captures:
                    self._running = False
                    return

    def _remove(self, fd: int) -> None:
        with self._changing:
            # First: a process that is being forked may hold it a moment longer than we do.
            self._epoll.unregister(fd)
            self._captures.pop(fd).close()

    def forget(self) -> None:
        """In a forked child: the pipes are closed already, the thread is the parent's."""
        self._epoll.close()


_reader: _Reader | None = None


def _reader_thread() -> _Reader:
    """This process's reader; the caller is inside _fork.unforked()."""
    global _reader
    if _reader is None:
        _reader = _Reader()
    return _reader


def _forget() -> None:
    global _reader
    if _reader is not None:
        _reader.forget()
        _reader = None


_fork.in_child(_forget)
