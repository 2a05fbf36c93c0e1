# SPDX-License-Identifier: MIT
"""Ending a process with everything below it, which Go does (bridge/tree_linux.go)."""

from __future__ import annotations

import contextlib

from gopool import _core, _fork
from gopool.exceptions import GopoolError
from gopool.popen import open_pidfd

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

_INCOMPLETE = 2  # a result of TreeSignal


def signal(popen: Any, number: int) -> None:
    """Send a signal to a process and everything below it.

    Loads Go. Does not wait for the ends. Nothing is done where the process has ended: what it
    started can't be found any more.

    Args:
        popen: the process's popen object, gopool's or another's.
        number: the signal.

    Raises:
        GopoolError: Go can't be loaded, the system refused, or the signal did not reach all: the
            tree has more than 256 processes or 64 levels, or some belong to another user.
    """
    obstacle = _core.obstacle()
    if obstacle is not None:
        raise GopoolError(f"a process's tree can't be ended without gopool's Go core: {obstacle}")
    native = _core.load()
    # As long as nobody reaps the process its number is nobody else's.
    with getattr(popen, "_reaping", None) or contextlib.nullcontext():
        if popen.poll() is None:
            _signal(native, popen, number)


def _signal(native: Any, popen: Any, number: int) -> None:
    pidfd, opened = getattr(popen, "_pidfd", -1), -1
    if pidfd < 0:
        foreign = getattr(popen, "method", None) == "forkserver"
        try:
            pidfd = open_pidfd(popen.pid, popen.sentinel if foreign else None)
        except OSError as error:
            raise GopoolError(f"process {popen.pid} can't be signalled: {error}") from error
        if pidfd < 0:
            return
        opened = _fork.own(pidfd)
    try:
        result = _core.checked(native.TreeSignal(popen.pid, pidfd, number))
    finally:
        _fork.close(opened)
    if result == _INCOMPLETE:
        raise GopoolError(f"the signal did not reach all of the tree of process {popen.pid}")
