# SPDX-License-Identifier: MIT
"""Copying between memory and files, whatever the size (for both sides).

A call of the kernel's moves 2 GiB at most and may do less than it was asked for. Beyond some
hundred megabytes it is new pages that take the time, and two threads that read get them twice as
fast or more: 2.5 GB in 0.35 to 0.9 s instead of 1.25 s. (At 64 MB there was no gain. Two that write
wait for one another: the kernel locks the file.) The interpreter lock is free meanwhile, but for
what is copied into a mapping.
"""

from __future__ import annotations

import _thread
import mmap
import os
from collections.abc import Callable

from gopool._worker import mapping

LEAST_FOR_TWO = 256 << 20  # bytes
_STEP = 4 << 20  # bytes copied before another thread may have the interpreter lock
_HUGE_PAGE = 2 << 20  # bytes; halves meet between two of them
_MAX_VIEWS = 1024  # that one pwritev takes (IOV_MAX)


def write_all(fd: int, views: list[memoryview], position: int = 0) -> None:
    """Write one after the other, from a position of the file on."""
    for view in views:
        if len(view) >= LEAST_FOR_TWO:
            mapping.advise_huge(view)  # what was never written is read as zeros, page by page
    first = skip = 0
    while first < len(views):
        written = os.pwritev(
            fd, [views[first][skip:], *views[first + 1 : first + _MAX_VIEWS]], position
        )
        position += written
        written += skip
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        skip = written


def copy_all(memory: mmap.mmap, views: list[memoryview]) -> None:
    """Write one after the other, from the beginning of a mapping on."""
    position = 0
    with memoryview(memory) as target:
        for view in views:
            for first in range(0, len(view), _STEP):
                part = view[first : first + _STEP]
                target[position : position + len(part)] = part
                position += len(part)


def read_into(fd: int, view: memoryview, position: int) -> bool:
    """Fill a memory from the file, from a position on; False: the file ends before."""
    if len(view) < LEAST_FOR_TWO:
        return _read(fd, view, position)
    whole: list[bool] = []
    _by_two(
        lambda first, end: whole.append(_read(fd, view[first:end], position + first)), len(view)
    )
    return all(whole)


def _read(fd: int, view: memoryview, position: int) -> bool:
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], position + done)
        if count == 0:
            return False
        done += count
    return True


def _by_two(work: Callable[[int, int], object], size: int) -> None:
    """Have a part done here and the rest by a thread; returns, or raises, when both have ended."""
    middle = size // 2 // _HUGE_PAGE * _HUGE_PAGE
    running = _thread.allocate_lock()
    errors: list[BaseException] = []

    def rest() -> None:
        try:
            work(middle, size)
        except BaseException as error:
            errors.append(error)
        finally:
            running.release()

    running.acquire()
    try:
        _thread.start_new_thread(rest, ())
    except RuntimeError:  # no thread can be had
        work(0, size)
        return
    try:
        work(0, middle)
    finally:
        _acquire(running)  # the memory must not go while it is written to
    if errors:
        raise errors[0]


def _acquire(lock: _thread.LockType) -> None:
    """Acquire a lock; an exception of a signal handler's is raised afterwards."""
    raised = None
    while True:
        try:
            lock.acquire()
            break
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised
