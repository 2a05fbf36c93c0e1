# SPDX-License-Identifier: MIT
"""Go's heap stays out of the forks that gopool makes, while it is loaded.

A child never enters its parent's Go. Without the heap a fork is a fifth quicker, and the parent
need not copy each page of the heap that it writes afterwards: together a tenth of the time from
Pool() to its first result.

What is left of Go in a child are its runtime's signal handlers, which would read the heap. So the
child begins by setting those signals as Python knows them, and the program's own handlers follow
with the hooks of _fork. Where somebody else has a handler, such
as faulthandler, the heap is not hidden: one that Go found can't be put back, and one that came
after Go may call Go's in turn.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has signal only
import os
from itertools import chain

from gopool import _fork
from gopool._worker._lane import leave_out_of_forks

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# What Go's runtime handles. Twin of the first three: faultSignals in bridge/heap_linux.go.
_HANDLED = _signal.SIGBUS, _signal.SIGFPE, _signal.SIGSEGV, _signal.SIGPIPE, _signal.SIGURG
_NO_FAULTS = _signal.SIGPIPE, _signal.SIGURG

_hideable = False  # whether the heap of the Go that this process has loaded may be hidden
own: list[int] = []  # meanwhile: the signals that the program has a handler in Python for


def handled() -> set[int]:
    """Those of _HANDLED that have a handler, whosever; all where /proc does not tell."""
    try:
        fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _, _, rest = os.read(fd, 8192).partition(b"SigCgt:")
        finally:
            os.close(fd)
        mask = int(rest.split(None, 1)[0], 16)
    except (OSError, IndexError, ValueError):
        mask = -1
    return {number for number in _HANDLED if mask >> (number - 1) & 1}


def note(native: Any, before: set[int]) -> None:
    """Have Go note its handlers, right after it was loaded; `before`: handled() until then."""
    global _hideable
    foreign = any(
        number in before and not callable(_signal.getsignal(number)) for number in _HANDLED
    )
    _hideable = not foreign and native.HeapNote() >= 0


def leave_out(native: Any) -> None:
    """Leave the heap of this process's Go out of the forks of this thread, where that can be done.

    Undone by leave_out_of_forks() and by emptying `own`.
    """
    known = [(number, _signal.getsignal(number)) for number in _HANDLED]
    first = native.HeapFirst() if _hideable else 0
    # Go's handler of a signal that is no fault is a child's in any case, and tells nobody.
    own[:] = [n for n, handler in known if callable(handler) and (first or n in _NO_FAULTS)]
    if own:
        _fork.in_child(_restore_handlers)
    if first:
        plain = (pair for pair in known if pair[1] in (_signal.SIG_DFL, _signal.SIG_IGN))
        leave_out_of_forks(first, native.HeapSize(), *chain.from_iterable(plain))


def _restore_handlers() -> None:
    """In a child of a program that has handlers of its own: put them in the place of Go's."""
    for number in own:
        _signal.signal(number, _signal.getsignal(number))
    own.clear()
