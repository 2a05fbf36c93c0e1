# SPDX-License-Identifier: MIT
"""What an ended worker left behind: which task it had begun last, the dump of its crash, and the
end of what it wrote to stderr.

Who reaps a worker keeps its last words; the collector hands them to the error that tells of the
worker's end. Both come by another way than the outcome, which is Go's (station 11), so that Go
need not carry text.
"""

from __future__ import annotations

import fcntl
import os
import struct

from gopool import _fork
from gopool._worker import filesize
from gopool._worker._lane import LANE_SIZE
from gopool._worker.lane import NO_NOTE
from gopool.exceptions import BrokenPoolError, WorkerLostError, amend

# The twin of gopool._worker.lane: the note of the begun task begins the lane, the dump follows it.
_NOTE = struct.Struct("=Q")
MAX_DUMP = 64 << 10  # bytes that are read of a dump; a hundred threads may fill more


def new_memory(owner: list[int]) -> int:
    """Memory for the lane and the dump of one worker: a registered descriptor in its owner's list,
    or -1.

    -1 where there is none left, or RLIMIT_FSIZE is too small. The caller is inside
    _fork.unforked(). A worker can't make it smaller: Go reads it, and would be ended by the kernel.
    """
    before = len(owner)
    try:
        filesize.check(LANE_SIZE)
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        fd = _fork.hold(owner, os.memfd_create, "gopool-lane", flags)
        os.ftruncate(fd, LANE_SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except OSError:
        if len(owner) > before:
            _fork.close(owner.pop())
        return -1  # a worker without it is better than none
    return fd


def read_dump(fd: int) -> str:
    """The text of a dump; "" where there is none."""
    try:
        return os.pread(fd, MAX_DUMP, LANE_SIZE).decode(errors="replace")
    except OSError:
        return ""  # there was no memory for it, or a hostile user closed it


def read_begun(fd: int) -> int | None:
    """The number of the task that the worker has begun last; 0: none. None: nobody knows."""
    try:
        note = os.pread(fd, _NOTE.size, 0)
    except OSError:
        return None
    number = int(_NOTE.unpack(note)[0]) if len(note) == _NOTE.size else NO_NOTE
    return None if number == NO_NOTE else number


class LastWords:
    """The last words of a pool's workers, by pid. Safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        """Keep those of so many workers: most lose no task, so nobody asks for theirs."""
        self._limit = limit
        self._kept: dict[int, tuple[str, str]] = {}

    def keep(self, pid: int, dump: str, stderr: str) -> None:
        """Note what a worker left, before Go is told that it was reaped."""
        self._kept.pop(pid, None)  # of an earlier process with this number
        if dump or stderr:
            self._kept[pid] = dump, stderr
            while len(self._kept) > self._limit:
                self._kept.pop(next(iter(self._kept)), None)

    def tell(self, error: BaseException) -> None:
        """Give an error about a worker what that left; others stay as they are."""
        if isinstance(error, WorkerLostError):
            dump, stderr = self._kept.pop(error.pid, ("", ""))
            amend(error, dump=dump, stderr=stderr)
        elif isinstance(error, BrokenPoolError) and not error.reason:
            dump, _ = self._kept.get(error.pid, ("", ""))  # every caller gets this error
            amend(error, reason=dump)
