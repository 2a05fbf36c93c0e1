# SPDX-License-Identifier: MIT
"""Die with the parent: SIGKILL from the kernel when the parent's end of the lifeline closes.

It works while the worker is busy in C, needs no thread, and does not depend on the thread that
forked (as PR_SET_PDEATHSIG does). Every worker opens a description of its own, since the setting
belongs to the description and an inherited one is shared with the siblings.
"""

from __future__ import annotations

import fcntl
import os
from signal import SIGKILL

# All that arm() uses stands here under its own name: what a forked worker reaches through another
# module's namespace has its pages copied, 17 more of them and 40 microseconds.
_open, _close, _read, _getpid, _kill = os.open, os.close, os.read, os.getpid, os.kill
_control = fcntl.fcntl
_READ = os.O_RDONLY | os.O_CLOEXEC
_SIGNAL = os.O_NONBLOCK | os.O_ASYNC
_F_SETOWN, _F_SETFL = fcntl.F_SETOWN, fcntl.F_SETFL
# Linux's number; the fcntl module has the name on some builds only.
_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)
_SIGKILL = int(SIGKILL)  # an enum's members cost more to pass


def arm(fd: int) -> None:
    """Be killed when the other end of the pipe `fd` closes, at once if it has already.

    `fd` is closed; its new description stays open as long as the process. Without /proc the
    inherited description is armed: then only the sibling that did so last is protected.
    """
    try:
        own = _open(f"/proc/self/fd/{fd}", _READ)
        _close(fd)
    except OSError:
        own = fd
    _control(own, _F_SETOWN, _getpid())
    _control(own, _F_SETSIG, _SIGKILL)
    _control(own, _F_SETFL, _SIGNAL)
    try:
        if _read(own, 1) == b"":
            _kill(_getpid(), _SIGKILL)
    except BlockingIOError:
        pass  # the parent lives
