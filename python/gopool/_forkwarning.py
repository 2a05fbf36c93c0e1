# SPDX-License-Identifier: MIT
"""Python 3.12's warning about threads at fork, where the only threads are Go's."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gopool import _fork

_restore: ExitStack | None = None  # in a block: puts the filters back


@contextmanager
def without_fork_warning() -> Iterator[None]:
    """Silence it for a fork inside the block, in a program with one Python thread of its own.

    Go's threads take no lock that a child could miss (it never enters the parent's Go), and
    plain multiprocessing would not warn either. With other Python threads it would: then the
    warning stays. gopool's own threads look at no filters.
    """
    global _restore
    own = sum(thread.name.startswith("gopool-") for thread in threading.enumerate())
    if threading.active_count() - own > 1:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        _restore = stack
        try:
            yield
        finally:
            _restore = None


def _restore_in_child() -> None:
    """The child leaves the block by another way, with the user's filters."""
    global _restore
    if _restore is not None:
        stack, _restore = _restore, None
        stack.close()


_fork.in_child(_restore_in_child)
