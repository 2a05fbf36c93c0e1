# SPDX-License-Identifier: MIT
"""The dump of a crash in native code, which faulthandler writes and the parent reads.

The user's own faulthandler is left alone: where it is on already nothing is done here, and an
enable() or disable() that comes later takes its place. What enable() was given can't be asked
for, so ours is known by its descriptor only.
"""

from __future__ import annotations

import faulthandler
import os

# The descriptor that faulthandler was given here, in this process or before the fork; -1: none.
_fd = -1


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
