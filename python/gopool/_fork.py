# SPDX-License-Identifier: MIT
"""What a fork means for gopool: one registry of descriptors, one hook in the child.

Guaranteed in a forked child, before any code of the user runs there:
    - every descriptor of gopool's is closed, except those that the fork was made to pass on;
    - every part of gopool that registered itself with `in_child` has forgotten the parent's
      pools, locks and Go runtime.

Runs in every process that has gopool imported. The registry needs no lock: sets change in single
steps under the interpreter lock, and a descriptor leaves the registry before it is closed, so
that a number which means something else by now is never closed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_owned: set[int] = set()
_hooks: list[Callable[[], None]] = []
_passing = threading.local()
_whole = threading.RLock()  # held round every fork, and by whoever must not be forked meanwhile


def own(fd: int) -> int:
    """Register a descriptor to be closed in forked children; returns it."""
    _owned.add(fd)
    return fd


def close(*fds: int) -> None:
    """Close registered descriptors; numbers below 0 are none."""
    for fd in fds:
        if fd >= 0:
            _owned.discard(fd)
            try:
                os.close(fd)
            except OSError:
                pass  # closed by a hostile user before us


def owned() -> frozenset[int]:
    """The registered descriptors (for tests)."""
    return frozenset(_owned)


class unforked:
    """Let no other thread fork inside the block, nor enter another: for making descriptors and
    registering them, and for loading Go.

    The block takes no lock of gopool's, since a fork takes this one last.
    """

    def __enter__(self) -> None:
        _whole.acquire()

    def __exit__(self, *exc: object) -> None:
        _whole.release()


class passing:
    """Leave these descriptors open in a child that this thread forks inside the block."""

    def __init__(self, *fds: int) -> None:
        self._fds = fds

    def __enter__(self) -> None:
        _passing.fds = self._fds

    def __exit__(self, *exc: object) -> None:
        _passing.fds = ()


def in_child(hook: Callable[[], None]) -> None:
    """Have hook called in every forked child, in the order of registration."""
    _hooks.append(hook)


def _before_fork() -> None:
    _whole.acquire()


def _after_fork_in_parent() -> None:
    try:
        _whole.release()
    except RuntimeError:
        pass  # another thread imported this module since the fork's first hooks ran


def _after_fork_in_child() -> None:
    global _whole
    _whole = threading.RLock()
    # Each page that is touched here is copied, so the steps are few and plain.
    kept = getattr(_passing, "fds", ())
    for fd in _owned:
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass  # closed by a hostile user before us
    _owned.clear()
    _passing.fds = ()
    for hook in _hooks:
        hook()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
