# SPDX-License-Identifier: MIT
"""Imports in a worker: multiprocessing.pool on demand, and no lock of the parent's.

The standard library's workers have it imported, since the function that they run stands there,
and tasks rely on it: `import multiprocessing` at the top, `multiprocessing.pool.ThreadPool()` in
the task. Importing it takes a spawned worker 11 ms, a fifth of its start, and most never need it.
"""

from __future__ import annotations

import multiprocessing
import sys
from types import ModuleType

_NAME = "multiprocessing.pool"


def offer_pool_module() -> None:
    """Have `multiprocessing.pool` imported when it is first looked up (PEP 562)."""
    if _NAME not in sys.modules:
        vars(multiprocessing).setdefault("__getattr__", _import_pool)


def free_import_locks() -> None:
    """In a forked worker: forget the imports that other threads of the parent were at.

    Nobody will ever release their locks, and a task that needs one of those modules would wait for
    ever. CPython renews its global import lock in a child, these not.
    """
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", None)
    if locks:
        locks.clear()


def _import_pool(name: str) -> ModuleType:
    if name == "pool":
        import multiprocessing.pool

        return multiprocessing.pool
    raise AttributeError(f"module 'multiprocessing' has no attribute {name!r}")
