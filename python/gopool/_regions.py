# SPDX-License-Identifier: MIT
"""Memory regions on the parent's side, imported with the first large payload.

To be imported inside `_fork.unforked()`: the lock of an import that another thread is at would
never be released in a forked child.
"""

from __future__ import annotations

from collections.abc import Callable

from gopool import _fork
from gopool._worker import mapping, regions, warm

__all__ = ["prepare", "regions", "warm"]


def prepare() -> None:
    """Give up kept regions, and have what the next one to be received needs but its descriptor."""
    warm.drop()
    mapping.prepare()


def _make(create: Callable[[], int]) -> int:
    """A descriptor that forked children do not keep, whoever forks meanwhile."""
    with _fork.unforked():
        return _fork.own(create())


warm.make, warm.close, warm.unforked = _make, _fork.close, _fork.unforked
