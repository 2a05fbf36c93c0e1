# SPDX-License-Identifier: MIT
"""Go's heap stays out of the forks that gopool makes, while it is loaded.

A child never enters its parent's Go. Without the heap a fork is a fifth quicker, and the parent
need not copy each page of the heap that it writes afterwards: together a tenth of the time from
Pool() to its first result.

What is left of Go in a child are its runtime's signal handlers, which would read the heap. So the
child puts the handlers back that Python knows of (_restore_handlers). Where somebody else has one,
such as faulthandler, the heap is not hidden: one that Go found can't be put back, and one that came
after Go may call Go's in turn.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has signal only
import os

from gopool import _fork

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# What Go's runtime handles. Twin of the first three: faultSignals in bridge/heap_linux.go.
_HANDLED = _signal.SIGBUS, _signal.SIGFPE, _signal.SIGSEGV, _signal.SIGPIPE, _signal.SIGURG

_hideable = False  # whether the heap of the Go that this process has loaded may be hidden
# Both are set back by who hides it, without a call that a signal's handler could interrupt.
hiding = False  # hide() was called
hidden = False  # and Go has done so


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


def hide(native: Any) -> None:
    """Leave the heap of this process's Go out of forks until HeapShow(), where that can be done.

    Where `hiding` is set afterwards the caller calls HeapShow(), and sets both flags back.

    The caller is in a block of _fork.unforked(): a child that another thread forks meanwhile might
    end a thread that has used Go, which then looks at the heap.
    """
    global hiding, hidden
    if _hideable:
        hiding = True
        hidden = native.HeapHide() == 1


def _restore_handlers() -> None:
    """In a child: give each signal the handler that Python knows of, in place of Go's."""
    global hiding, hidden
    if hidden:
        for number in _HANDLED:
            _signal.signal(number, _signal.getsignal(number))
    hiding = hidden = False


_fork.in_child(_restore_handlers)
