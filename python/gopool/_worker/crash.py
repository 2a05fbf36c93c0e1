# SPDX-License-Identifier: MIT
"""What the parent reads of a worker that has ended: which task it had begun last, and the dump of
a crash in native code, which faulthandler writes.

Both lie in memory that only these two have: the note in the first page, the dump behind it. The
note tells a task that was read and not begun, because the worker was killed right then, from one
that was begun.

The user's own faulthandler is left alone: where it is on already nothing is done here, and an
enable() or disable() that comes later takes its place. What enable() was given can't be asked
for, so ours is known by its descriptor only.
"""

from __future__ import annotations

import faulthandler
import mmap
import os

# The descriptor that faulthandler was given here, in this process or before the fork; -1: none.
_fd = -1


_NOTE_SIZE = 4096  # bytes, a page


def note_of(fd: int) -> memoryview:
    """Where the number of each task is to be written before it begins, as [0] of 8 bytes."""
    os.lseek(fd, _NOTE_SIZE, os.SEEK_SET)
    os.ftruncate(fd, _NOTE_SIZE)
    try:
        return memoryview(mmap.mmap(fd, _NOTE_SIZE)).cast("Q")
    except OSError:  # no memory or descriptor is left: no note, and none may seem to be there
        os.ftruncate(fd, 0)
        return no_note()


def no_note() -> memoryview:
    """The same where nobody reads it: every task counts as begun that was read."""
    return memoryview(bytearray(8)).cast("Q")


def arm(fd: int) -> None:
    """Have the tracebacks of all threads written to `fd` by SIGSEGV, SIGFPE, SIGABRT, SIGBUS and
    SIGILL; the signal then does what it would have done. `fd` stays open.
    """
    global _fd
    if _fd >= 0:
        # This is a worker that another worker forked: faulthandler may still be that one's.
        os.dup2(fd, _fd, inheritable=False)
    if not faulthandler.is_enabled():
        faulthandler.enable(fd)
        _fd = fd


def disown() -> None:
    """In a child that a worker forked: what crashes here is not the worker."""
    if _fd >= 0:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, _fd, inheritable=False)
        os.close(nowhere)
