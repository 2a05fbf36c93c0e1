# SPDX-License-Identifier: MIT
"""The memory that a worker shares with its parent: the lane, and behind it the crash dump.

The lane begins with a note, the number of the task begun last: it tells a task that was read and
not begun, because the worker was killed right then, from one that was begun.
"""

from __future__ import annotations

import os

from gopool._worker._lane import LANE_SIZE, Lane

# In the note: this worker keeps none, so every task counts as begun that it read.
NO_NOTE = 2**64 - 1


def open_lane(fd: int, bell_fd: int) -> Lane | None:
    """Map the lane that lies in `fd`; what is written to `fd` from now on goes behind it.

    bell_fd is the eventfd that wakes the collector.
    None: there is no memory for it, and it says so to the parent.
    """
    os.lseek(fd, LANE_SIZE, os.SEEK_SET)
    try:
        return Lane(fd, bell_fd)
    except OSError:
        os.pwrite(fd, NO_NOTE.to_bytes(8, "little"), 0)
        return None
