# SPDX-License-Identifier: MIT
"""RLIMIT_FSIZE, which counts for memory files too (for both sides).

The kernel refuses what goes beyond it, and sends SIGXFSZ, which ends a program that has undone
Python's ignoring of it. Such a program does not expect that handing over an object writes a file.
So whoever makes or writes a memory file asks here first.
"""

from __future__ import annotations

import errno
import os
import resource
import sys


def limit() -> int:
    """How many bytes a file of this process may have; sys.maxsize where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def check(size: int) -> None:
    """Do nothing where a file of this process may have so many bytes.

    Raises:
        OSError: EFBIG, what the kernel's refusal would be.
    """
    most = limit()
    if size > most:
        what = f"{size} bytes of shared memory, RLIMIT_FSIZE is {most} (raise `ulimit -f`)"
        raise OSError(errno.EFBIG, f"{os.strerror(errno.EFBIG)}: {what}")
