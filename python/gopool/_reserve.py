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

    __slots__ = ("of_result", "of_task", "tight", "writing")

    def __init__(self, like: int) -> None:
        """See Reserve."""
        self.of_task, self.of_result = Reserve(like), Reserve(like)
        self.writing = RLock()
        self.tight = False

    def open(self) -> None:
        """Have both."""
        self.of_task.renew()
        self.of_result.renew()

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
