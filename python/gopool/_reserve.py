# SPDX-License-Identifier: MIT
"""Descriptors that are kept so that their places can be had when a program may open no more.

A pool has one for the region of a task and one for that of a result: large data goes on, one piece
after the other, where a program has lowered RLIMIT_NOFILE to what it has open, or opened all that
it may. They are made with the pool, early, so that their numbers are low.

A place that was given up is free for a moment, and must go to whom it was given up for. So of
gopool's own nobody else takes one meanwhile: see `Places`, and bridge/scarce_linux.go.
"""

from __future__ import annotations

import contextlib
import os
from _thread import RLock

from gopool import _fork

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# How long the collector waits for a region that is being written, seconds: a signal's handler may
# have interrupted that, and wait for the collector.
_PATIENCE = 1.0


class Reserve:
    """One descriptor, or none for the moment. Any thread may call."""

    __slots__ = ("_held", "_like")

    def __init__(self, like: int) -> None:
        """Keep nothing yet.

        Args:
            like: a registered descriptor, which stays open longer than this; a duplicate is kept.
        """
        self._like = like
        self._held: list[int] = []  # one, or none

    @property
    def held(self) -> bool:
        """Whether there is one."""
        return bool(self._held)

    def renew(self) -> None:
        """Have one, again, if that is possible now."""
        if not self._held:
            with contextlib.suppress(OSError), _fork.unforked():
                if not self._held:
                    _fork.hold(self._held, os.dup, self._like)

    def take_over(self, fd: int) -> bool:
        """Become what a descriptor is that would be closed now: its place is nobody else's for a
        moment. False: there is one already, or it failed; fd is as it was then.
        """
        with _fork.unforked():
            if self._held:
                return False
            try:
                os.dup2(self._like, fd, inheritable=False)
            except OSError:
                return False
            self._held.append(_fork.own(fd))
        return True

    def give_up(self) -> bool:
        """Close it, for somebody who needs its place at once; False: there is none."""
        with _fork.unforked():
            held = bool(self._held)
            _fork.close_all(self._held)
        return held

    def drop(self) -> None:
        """Close it for good."""
        _fork.close_all(self._held)


class Places:
    """What one pool keeps.

    Attributes:
        of_task, of_result: Reserve.
        writing: a lock, held while a task's region is made and written in the ordinary way.
        tight: bool, whether a descriptor was missing, so that regions are made in a reserve only.
            Set with `writing` held.
    """

    __slots__ = ("_native", "_pool", "of_result", "of_task", "tight", "writing")

    _native: Any
    _pool: int

    def __init__(self, like: int) -> None:
        """See Reserve."""
        self.of_task, self.of_result = Reserve(like), Reserve(like)
        self.writing = RLock()
        self.tight = False

    def open(self) -> None:
        """Have both."""
        self.of_task.renew()
        self.of_result.renew()

    def attach(self, native: Any, pool: int) -> None:
        """Ask Go from now on, by the pool's handle, whether descriptors are still few."""
        self._native, self._pool = native, pool

    def look_again(self) -> None:
        """See whether descriptors are still few. The caller has `writing`."""
        if self.tight and not self._native.Tight(self._pool):
            self.tight = False

    def refill(self) -> None:
        """Have the one for results again, unless descriptors are few: a place that is free is about
        to be somebody's then, and a region that would be closed becomes the reserve.
        """
        if self.of_result.held or not self.writing.acquire(blocking=False):
            return
        try:
            self.look_again()
            if not self.tight:
                self.of_result.renew()
        finally:
            self.writing.release()

    def make_one(self) -> None:
        """Give a place up for a result."""
        waited = self.writing.acquire(timeout=_PATIENCE)
        self.tight = True
        if waited:
            self.writing.release()
        self.of_result.give_up()

    def close(self) -> None:
        """Keep nothing any more; nobody takes a place by now.

        Without the lock: who holds that may be waiting for the thread that is here.
        """
        self.of_task.drop()
        self.of_result.drop()
