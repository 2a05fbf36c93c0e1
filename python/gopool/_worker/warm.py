# SPDX-License-Identifier: MIT
"""Memory regions that are used again while they are warm (for both sides; PROTOCOL.md section 5).

Writing into a fresh memfd takes 2.3 times as long as into one whose pages are there. So a sender
keeps the descriptor of a region that it has sent and takes it again once the receiver is done.

Who is done, the kernel knows. A region is lent through a description of its own (opened by way of
/proc/self/fd) that carries a shared flock, and the lock lives as long as the description: while
its descriptor is on the way or open anywhere, and while anything is mapped through it, in forked
children as well, whatever descriptors they close. So an exclusive lock on the sender's own
description is granted exactly when nobody can see the memory any more: no message has to say so,
and none can be missing because somebody died.

Kept are the descriptors, and from the second use on mappings to write through, which is faster
again by half: a call of the kernel's finds each page anew. What goes wrong (no /proc, no descriptor
left, a child that inherited a lent descriptor in an unlucky moment) makes a region one that is
not used again, never one that is used too early.

Guarantees: any thread and signal handler may call; no lock is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sys
from collections.abc import Callable

from gopool._worker.channel import REGION

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

BUDGET = 256 << 20  # bytes that a process keeps for later use, at most: see _budget
MOST = 32  # regions that it keeps, and at most a 32nd of RLIMIT_NOFILE
MAPPED = 128 << 20  # bytes of them that it has mapped: they count as resident
_LEAST_MAPPED = 1 << 20  # bytes; what a mapping saves is in proportion
_SLACK = 64 << 10  # bytes, see Region.fits
_STDERR = 2
_MAX_MISSES = 64  # times that a region was wanted and lent: its receiver keeps it


def _just(create: Callable[[], int]) -> int:
    return create()


# How descriptors are made and closed. The parent's side puts its registry of what forked children
# must not inherit in their place (_regions.py), which workers that are forked inherit.
make: Callable[[Callable[[], int]], int] = _just
close: Callable[[int], Any] = os.close
unforked: Callable[[], Any] = contextlib.nullcontext
# Whether regions may stay mapped. Not in a worker whose resident memory is watched.
may_map = True

_LIMITS = (  # of this control group's memory, version 2 and 1; "max": none
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_share = 0  # what _affordable says, once it was asked

# From Python 3.13 on a mapping need not keep a descriptor of its own.
_NO_DESCRIPTOR: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}

_mapped: set[mmap.mmap] = set()
_kept: list[Region] = []  # the one used longest ago first; lent or free


class Region:
    """A memfd of this process's.

    Attributes:
        fd: its descriptor, whose description is never lent.
        capacity: bytes that have pages.
        memory: a mapping of as many as had pages when it was made, or None.
    """

    __slots__ = ("_identity", "_misses", "capacity", "fd", "memory")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.capacity = 0
        self.memory: mmap.mmap | None = None
        self._misses = 0
        self._identity = _identity(fd)

    def fits(self, size: int) -> bool:
        """Whether it holds so many bytes, and is not much larger: a receiver that keeps a part of
        it keeps all of it.
        """
        return size <= self.capacity <= size + size // 4 + _SLACK

    def is_free(self) -> bool:
        """Whether nobody but this process can see it any more."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        except OSError:
            self._misses += 1
            return False
        self._misses = 0
        return True

    def is_there(self) -> bool:
        """Whether the descriptor still is this region's: a program may have closed all that it
        does not know, and opened a file of its own under the same number.
        """
        return _identity(self.fd) == self._identity

    def map(self) -> None:
        """Map it, where that is worth it and there is room: only what has pages, so that writing to
        it needs no memory.
        """
        if self.memory is not None or not may_map or self.capacity < _LEAST_MAPPED:
            return
        if self.capacity + sum(map(len, list(_mapped))) > MAPPED:
            return
        try:
            with unforked():
                self.memory = mmap.mmap(
                    self.fd, self.capacity, mmap.MAP_SHARED | mmap.MAP_POPULATE, **_NO_DESCRIPTOR
                )
                _mapped.add(self.memory)
        except (OSError, ValueError):  # ValueError: somebody made the file shorter
            pass

    def unmap(self) -> None:
        """Give up the mapping, if there is one."""
        memory, self.memory = self.memory, None
        if memory is not None:
            _mapped.discard(memory)
            memory.close()

    def close(self) -> None:
        """Give up the mapping and the descriptor."""
        self.unmap()
        if self.is_there():
            close(self.fd)

    def is_missed(self) -> bool:
        """Whether it was wanted so often while it was lent that it is not worth keeping."""
        return self._misses >= _MAX_MISSES


def take(size: int) -> Region:
    """A region for so many bytes that nobody else sees: a warm one, else a new, empty one.

    The caller hands it to `lend` or `discard`.

    Raises:
        OSError: no descriptor is left (EMFILE, ENFILE), or no memory.
    """
    for region in _kept[:]:
        if not (region.fits(size) and _claim(region)):
            continue
        if not region.is_there():
            region.unmap()
        elif region.is_free():
            region.map()
            return region
        else:
            keep(region)
    return Region(_with_retry(lambda: make(_create)))


def lend(region: Region) -> int:
    """A descriptor through which others may read the region; the caller closes it (`close`).

    The region may be taken again when that descriptor, all its duplicates and all mappings made
    through them are gone.
    """
    try:
        fd = lend_and_hold(region)
    except OSError:
        region.unmap()
        return region.fd  # it goes with its receiver
    keep(region)
    return fd


def lend_and_hold(region: Region) -> int:
    """The same, but the caller goes on using the region, and hands it to `keep` in the end.

    Raises:
        OSError: no descriptor is left, or there is no /proc.
    """
    return make(lambda: _lend(region.fd))


def discard(region: Region) -> None:
    """Give up a region that was not lent."""
    region.close()


def drop() -> bool:
    """Keep nothing any more; memory that receivers still see goes with them.

    Returns:
        whether there was something.
    """
    found = False
    while _kept:
        found = _discard_oldest() or found
    return found


def _create() -> int:
    return _no_stream(os.memfd_create(REGION, os.MFD_CLOEXEC))


def _no_stream(fd: int) -> int:
    """The descriptor under a number above 2: a program may have closed its standard streams, and
    what is written to them must not go into a region.
    """
    if fd > _STDERR:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    finally:
        os.close(fd)


def _lend(own: int) -> int:
    fd = os.open(f"/proc/self/fd/{own}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _with_retry(create: Callable[[], int]) -> int:
    try:
        return create()
    except OSError:
        if not drop():  # what is kept may be what is missing
            raise
    return create()


def _claim(region: Region) -> bool:
    """Take a region out of those kept; False: somebody else was quicker."""
    try:
        _kept.remove(region)
    except ValueError:
        return False
    return True


def keep(region: Region) -> None:
    """Have a region taken again once nobody else sees it, as far as there is room for it."""
    if region.is_missed() or region.capacity > (budget := _budget()):
        region.close()
        return
    _kept.append(region)
    limit = os.sysconf("SC_OPEN_MAX")  # RLIMIT_NOFILE; below 0: none
    most = MOST if limit < 0 else min(MOST, limit // MOST)
    while len(_kept) > most or sum(other.capacity for other in _kept[:]) > budget:
        if not _discard_oldest():
            return


def _budget() -> int:
    global _share
    if not _share:
        _share = _affordable()
    return min(BUDGET, _share)


def _affordable() -> int:
    """A process's share of a sixteenth of the memory, where each processor has a worker: all of
    them keep what they sent.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in _LIMITS:
        try:
            with open(name, "rb") as file:
                memory = min(memory, int(file.read()))
        except (OSError, ValueError):
            pass  # there is none
    return memory // 16 // len(os.sched_getaffinity(0))


def _discard_oldest() -> bool:
    try:
        region = _kept.pop(0)
    except IndexError:
        return False
    region.close()
    return True


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _after_fork_in_child() -> None:
    """The regions are the parent's; its registry may have closed them."""
    for memory in _mapped:
        try:
            memory.close()
        except BufferError:
            pass  # another thread was writing to it
    _mapped.clear()
    for region in _kept:
        if region.is_there():
            os.close(region.fd)
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
