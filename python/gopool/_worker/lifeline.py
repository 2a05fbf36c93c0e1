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

# Linux's number; the fcntl module has the name on some builds only.
_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)
_SIGKILL = int(SIGKILL)  # an enum's members cost more to pass


def arm(fd: int) -> None:
    """Be killed when the other end of the pipe `fd` closes, at once if it has already.

    `fd` is closed; its new description stays open as long as the process. Without /proc the
    inherited description is armed: then only the sibling that did so last is protected.
    """
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(fd)
    except OSError:
        own = fd
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, _F_SETSIG, _SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    try:
        if os.read(own, 1) == b"":
            os.kill(os.getpid(), _SIGKILL)
    except BlockingIOError:
        pass  # the parent lives
