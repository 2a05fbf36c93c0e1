# SPDX-License-Identifier: MIT
"""gopool: multiprocessing with its pool core and its supervision in Go.

Has every name of `multiprocessing`, bound to gopool's contexts, so that
`import gopool as multiprocessing` is all that a program has to change; and gopool's own names
behind them. Importing it costs little more than importing multiprocessing: the native part, the
pool and the exceptions are loaded when they are first used.
"""

from __future__ import annotations

import multiprocessing as _twin
import sys as sys  # multiprocessing has it
from multiprocessing import process as process
from multiprocessing import reduction as reduction

from gopool import context as context
from gopool.context import AuthenticationError as AuthenticationError
from gopool.context import BufferTooShort as BufferTooShort
from gopool.context import Process as Process
from gopool.context import ProcessError as ProcessError
from gopool.context import TimeoutError as TimeoutError

TYPE_CHECKING = False  # see gopool/context.py
if TYPE_CHECKING:
    from typing import Any

    from gopool._install import install, uninstall
    from gopool.exceptions import (
        BrokenPoolError,
        CoreError,
        ForkedChildError,
        GopoolError,
        PayloadTooLargeError,
        PoolTerminatedError,
        RemoteTaskError,
        SoftTimeoutError,
        SupervisorError,
        TaskCancelledError,
        TaskTimeoutError,
        WorkerLostError,
        WorkerStartError,
    )
    from gopool.supervisor import Supervisor

    __version__: str

# Sorted; gopool's own names among them are bound at their first use (see _load).
__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BrokenPoolError",
    "BufferTooShort",
    "Condition",
    "CoreError",
    "Event",
    "ForkedChildError",
    "GopoolError",
    "JoinableQueue",
    "Lock",
    "Manager",
    "PayloadTooLargeError",
    "Pipe",
    "Pool",
    "PoolTerminatedError",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "RemoteTaskError",
    "Semaphore",
    "SimpleQueue",
    "SoftTimeoutError",
    "Supervisor",
    "SupervisorError",
    "TaskCancelledError",
    "TaskTimeoutError",
    "TimeoutError",
    "Value",
    "WorkerLostError",
    "WorkerStartError",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "install",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
    "uninstall",
]

_default = context._default_context

SUBDEBUG: int = _twin.SUBDEBUG  # type: ignore[attr-defined]  # left out of the stubs
SUBWARNING: int = _twin.SUBWARNING  # type: ignore[attr-defined]  # left out of the stubs

Array = _default.Array
Barrier = _default.Barrier
BoundedSemaphore = _default.BoundedSemaphore
Condition = _default.Condition
Event = _default.Event
JoinableQueue = _default.JoinableQueue
Lock = _default.Lock
Manager = _default.Manager
Pipe = _default.Pipe
Pool = _default.Pool
Queue = _default.Queue
RLock = _default.RLock
RawArray = _default.RawArray
RawValue = _default.RawValue
Semaphore = _default.Semaphore
SimpleQueue = _default.SimpleQueue
Value = _default.Value
active_children = _default.active_children
allow_connection_pickling = _default.allow_connection_pickling
cpu_count = _default.cpu_count
current_process = _default.current_process
freeze_support = _default.freeze_support
get_all_start_methods = _default.get_all_start_methods
get_context = _default.get_context
get_logger = _default.get_logger
get_start_method = _default.get_start_method
log_to_stderr = _default.log_to_stderr
parent_process = _default.parent_process
reducer = _default.reducer
set_executable = _default.set_executable
set_forkserver_preload = _default.set_forkserver_preload
set_start_method = _default.set_start_method

# Importable by themselves, and attributes too: a program may use `multiprocessing.queues` after
# nothing but a call to Queue(), which imports that module of the stdlib and not gopool's.
_MODULES = frozenset(
    (
        "connection",
        "dummy",
        "events",
        "forkserver",
        "heap",
        "managers",
        "pool",
        "popen_fork",
        "popen_forkserver",
        "popen_spawn_posix",
        "queues",
        "resource_sharer",
        "resource_tracker",
        "shared_memory",
        "sharedctypes",
        "spawn",
        "synchronize",
        "util",
    )
)


def _load(name: str) -> Any:
    """Return the value of a name that is bound at its first use; AttributeError if unknown."""
    if name in _MODULES:
        return _import(name)
    if name == "__version__":
        from importlib.metadata import version

        return version("gopool")
    if name == "Supervisor":
        return _import("supervisor").Supervisor
    if name in ("install", "uninstall"):
        return getattr(_import("_install"), name)
    if name in __all__:
        return getattr(_import("exceptions"), name)
    raise AttributeError(f"module 'gopool' has no attribute {name!r}", name=name)


def _import(name: str) -> Any:
    # Here: each import of a private module asks _load() first, and needs no importlib.
    from importlib import import_module

    return import_module(f"gopool.{name}")


if not TYPE_CHECKING:  # it would hide every misspelt name from a type checker

    def __getattr__(name):
        """Bind a lazy name to this module, so that the next access finds it."""
        value = globals()[name] = _load(name)
        return value

    def __dir__():
        """Include what is not yet bound."""
        return sorted({*globals(), *__all__, *_MODULES, "__version__"})


del TYPE_CHECKING  # CPython's suite takes every public name of the package for an exported one
