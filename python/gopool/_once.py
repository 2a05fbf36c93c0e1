# SPDX-License-Identifier: MIT
"""An event whose waiters may be interrupted."""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable


class Once:
    """What threading.Event is to its waiters; it is set once.

    An Event has a lock that is taken and released by Python code: a waiter that an exception of a
    signal's handler interrupts may leave it taken, and then whoever sets the event hangs.
    """

    def __init__(self) -> None:
        self._flag = False
        self._waiters: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._flag

    def set(self) -> None:
        """Let all go on that wait, or will. Any thread may call."""
        self._flag = True
        for wake in tuple(self._waiters):
            try:
                wake()
            except RuntimeError:
                pass  # it was waked already

    def wait(self, timeout: float | None = None) -> bool:
        """Wait so many seconds at most, or for ever; whether it is set."""
        if self._flag:
            return True
        lock = allocate_lock()
        lock.acquire()
        wake = lock.release
        self._waiters.append(wake)
        try:
            if not self._flag:  # looked at after who sets it can see this waiter
                lock.acquire(True, -1 if timeout is None else max(timeout, 0))
        finally:
            self._waiters.remove(wake)
        return self._flag
