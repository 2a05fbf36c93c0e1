# SPDX-License-Identifier: MIT
"""A descriptor as an argument of a process that is about to start.

Under fork the number itself is inherited. Under spawn and forkserver pickling the object hands a
duplicate over the way the standard library does (multiprocessing.reduction.DupFd).
"""

from __future__ import annotations

from multiprocessing import reduction

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any


class PassedFD:
    """Wraps one descriptor; `fd` is its number in the process that looks at it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (reduction.DupFd(self.fd),)


def _rebuild(duplicate: Any) -> PassedFD:
    return PassedFD(duplicate.detach())
