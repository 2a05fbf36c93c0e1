# SPDX-License-Identifier: MIT
"""multiprocessing.pool for tasks, imported only where one uses it.

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


def _import_pool(name: str) -> ModuleType:
    if name == "pool":
        import multiprocessing.pool

        return multiprocessing.pool
    raise AttributeError(f"module 'multiprocessing' has no attribute {name!r}")
