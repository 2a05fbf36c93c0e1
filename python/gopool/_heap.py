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
from gopool._worker._lane import signals_of_children

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# What Go's runtime handles. Twin of the first three: faultSignals in bridge/heap_linux.go.
_HANDLED = _signal.SIGBUS, _signal.SIGFPE, _signal.SIGSEGV, _signal.SIGPIPE, _signal.SIGURG

_hideable = False  # whether the heap of the Go that this process has loaded may be hidden
hiding = False  # Go was asked to hide it
handlers: list[tuple[int, Any]] = []  # meanwhile: the program's own


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
    global hiding, _hideable
    hiding = False  # in a child that was forked in between, the parent's
    foreign = any(
        number in before and not callable(_signal.getsignal(number)) for number in _HANDLED
    )
    _hideable = not foreign and native.HeapNote() >= 0


def hide(native: Any) -> None:
    """Leave the heap of this process's Go out of forks, where that can be done.

    Undone, where `hiding` is set afterwards, by HeapShow() and signals_of_children(): C functions,
    called by whoever forks, who can't be cut short there.
    """
    global hiding
    if _hideable:
        hiding = True
        if native.HeapHide() == 1:
            known = [(number, _signal.getsignal(number)) for number in _HANDLED]
            handlers[:] = [pair for pair in known if callable(pair[1])]
            if handlers:
                _fork.in_child(_restore_handlers)
            plain = (pair for pair in known if pair[1] in (_signal.SIG_DFL, _signal.SIG_IGN))
            signals_of_children(*chain.from_iterable(plain))


def _restore_handlers() -> None:
    """In a child of a program that has handlers of its own: put them in the place of Go's."""
    for number, handler in handlers:
        _signal.signal(number, handler)
    handlers.clear()
