# SPDX-License-Identifier: MIT
"""The in-place hand-over: multiprocessing itself on gopool's core, and back.

Classes are patched, not replaced, so that names bound before are served as well. What is in
front of a method decides by the object: a pool keeps the transport that it was born with, and
ThreadPool and every subclass that brings a transport of its own keep the standard library's.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from multiprocessing import pool as stdlib
from multiprocessing import popen_fork, popen_forkserver, popen_spawn_posix

from gopool import _children, _fork

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

__all__ = ["install", "installed", "uninstall"]

_lock = threading.RLock()
_installed = False
_originals: dict[str, Any] = {}  # of stdlib.Pool, while it is patched
_popens: list[tuple[Any, Any]] = []  # (module, its original Popen)
_live: weakref.WeakSet[Any] = weakref.WeakSet()  # pools of patched classes with an engine


def installed() -> bool:
    """Whether multiprocessing is handed over in this process."""
    return _installed


def install() -> None:
    """Hand multiprocessing over to gopool, in place; again is no error.

    From now on every Pool and Process of this process, and of its children under every start
    method, is gopool's, by whatever name it is reached. Pools that exist stay as they are. No
    process is started and Go is not loaded yet.
    """
    global _installed
    with _lock:
        if _installed:
            return
        _patch_pool()
        _patch_popen()
        _children.hand_over()
        _installed = True


def uninstall() -> None:
    """Undo install(); pools that were made meanwhile go on until their end."""
    global _installed
    with _lock:
        if not _installed:
            return
        _installed = False
        _children.take_back()
        for _ in range(len(_popens)):
            module, original = _popens.pop()
            module.Popen = original
        _unpatch_pool_if_unused()


def _patch_popen() -> None:
    from gopool._popen_forkserver import ForkServerPopen
    from gopool._popen_spawn import SpawnPopen
    from gopool.popen import ForkPopen

    for module, ours in (
        (popen_fork, ForkPopen),
        (popen_spawn_posix, SpawnPopen),
        (popen_forkserver, ForkServerPopen),
    ):
        _popens.append((module, module.Popen))
        module.Popen = ours  # type: ignore[attr-defined]


def _patch_pool() -> None:
    if _originals:
        return  # still patched for pools of the time before an uninstall()
    from gopool import pool

    original = _originals["__init__"] = stdlib.Pool.__init__
    stdlib.Pool.__init__ = _dispatching_init(original)  # type: ignore[method-assign]
    for name, method in pool.METHODS.items():
        _originals[name] = stdlib.Pool.__dict__[name]
        setattr(stdlib.Pool, name, pool.dispatching(_originals[name], method))


def _dispatching_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwds: Any) -> None:
        from gopool import _settings, pool

        if not (_installed and pool.takes_engine(type(self))):
            original(self, *args, **kwds)
        elif pool.start(self, *args, **kwds):
            _live.add(self)
            weakref.finalize(self, _pool_gone).atexit = False
        else:
            original(self, *args, **_settings.without_settings(kwds))

    return __init__


def _pool_gone() -> None:
    with _lock:
        if not _installed:
            _unpatch_pool_if_unused()


def _unpatch_pool_if_unused() -> None:
    """Restore the class, unless pools with an engine are still alive behind its methods.

    The set is walked because its length still counts a pool whose end is being reported.
    """
    if _originals and not any(True for _ in _live):
        for name, original in _originals.items():
            setattr(stdlib.Pool, name, original)
        _originals.clear()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


_fork.in_child(_renew_lock)
