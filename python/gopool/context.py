# SPDX-License-Identifier: MIT
"""Contexts and process classes that hand their processes to gopool; used in every process.

Each class is the stdlib's with the least change: a process class differs in how it makes its
popen object, a context in its Process, its Pool() and its Manager(). Locks, queues and shared
values are therefore the stdlib's own, bound to gopool's context.

There is one start-method state, and it is multiprocessing's: gopool's default context keeps none
of its own, it reads and writes that of `multiprocessing.context`. So what is set through one is
seen through the other, in children too, since they are started with the stdlib's state.
"""

from __future__ import annotations

import sys
from multiprocessing import context as _twin

from gopool import _fork as _fork  # its hook in children comes before those of the program
from gopool._mirror import mirror

TYPE_CHECKING = False  # type checkers take it as true; importing typing costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.process import BaseProcess
    from resource import struct_rusage
    from typing import Any, Literal, overload

    from gopool._popen_forkserver import ForkServerPopen
    from gopool._popen_spawn import SpawnPopen
    from gopool.managers import SyncManager
    from gopool.pool import Pool
    from gopool.popen import ForkPopen

__all__ = ()  # as in the stdlib

mirror(__name__, _twin)

# gopool.popen.ForkPopen once a process was forked: an import statement writes twenty pages each
# time, which a fork has made dear.
_fork_popen: Callable[[BaseProcess], ForkPopen] | None = None

# The same module for the names that the stubs of type checkers leave out.
_private: Any = _twin

ProcessError = _twin.ProcessError
BufferTooShort = _twin.BufferTooShort
TimeoutError = _twin.TimeoutError
AuthenticationError = _twin.AuthenticationError
BaseContext = _twin.BaseContext
get_spawning_popen = _twin.get_spawning_popen
set_spawning_popen = _twin.set_spawning_popen
assert_spawning = _twin.assert_spawning


class _OwnProcess:
    """What all process classes of gopool have in common; comes before the stdlib's class."""

    _popen: Any
    _check_closed: Callable[[], None]

    @property
    def rusage(self) -> struct_rusage | None:
        """What the process used (CPU seconds, memory, page faults): a resource.struct_rusage.

        None until its end is known to this process (join(), exitcode, is_alive()), under
        forkserver, whose server alone is told, and where somebody else reaped the process. Like
        the kernel's figures it includes the children that the process has waited for.
        """
        self._check_closed()
        if self._popen is None:
            return None
        self._popen.poll()
        used: struct_rusage | None = getattr(self._popen, "rusage", None)
        return used

    def terminate(self, *, tree: bool = False) -> None:
        """Send the process SIGTERM; with `tree`, everything below it as well.

        The tree is what the process started and what that started, as far as each has its parent
        still: a daemon that has forked twice is not found, nor is anything once the process
        itself has ended; a Process that it started by forkserver is the server's. Processes of
        the tree that were stopped go on, to get the signal.

        Raises:
            GopoolError: with `tree`: the Go core, which does it, can't be loaded, or a part of
                the tree was not reached (more than 256 processes, or another user's).
        """
        if tree:
            self._signal_tree(15)
        else:
            super().terminate()  # type: ignore[misc]

    def kill(self, *, tree: bool = False) -> None:
        """The same with SIGKILL, which no process can ignore."""
        if tree:
            self._signal_tree(9)
        else:
            super().kill()  # type: ignore[misc]

    def _signal_tree(self, number: int) -> None:
        from gopool import _tree

        self._check_closed()

        _tree.signal(self._popen, number)


class ForkProcess(_OwnProcess, _twin.ForkProcess):
    """multiprocessing.context.ForkProcess whose popen object gopool supervises."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> ForkPopen:
        global _fork_popen
        if _fork_popen is None:
            from gopool.popen import ForkPopen

            _fork_popen = ForkPopen
        return _fork_popen(process_obj)


class SpawnProcess(_OwnProcess, _twin.SpawnProcess):
    """multiprocessing.context.SpawnProcess whose popen object gopool supervises."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> SpawnPopen:
        from gopool._popen_spawn import SpawnPopen

        return SpawnPopen(process_obj)


class ForkServerProcess(_OwnProcess, _twin.ForkServerProcess):
    """multiprocessing.context.ForkServerProcess whose popen object gopool supervises."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> ForkServerPopen:
        from gopool._popen_forkserver import ForkServerPopen

        return ForkServerPopen(process_obj)


class Process(_OwnProcess, _twin.Process):
    """multiprocessing.Process, started by the start method in force and supervised by gopool."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)


class _OwnContext(_twin.BaseContext):
    """What all contexts of gopool have in common; comes after the stdlib's class in each."""

    if TYPE_CHECKING:

        @overload
        def get_context(self, method: None = None) -> DefaultContext: ...

        @overload
        def get_context(self, method: Literal["spawn"]) -> SpawnContext: ...

        @overload
        def get_context(self, method: Literal["fork"]) -> ForkContext: ...

        @overload
        def get_context(self, method: Literal["forkserver"]) -> ForkServerContext: ...

        @overload
        def get_context(self, method: str) -> _twin.BaseContext: ...

    def get_context(self, method: str | None = None) -> Any:
        """Return this context, or gopool's context for the start method `method`.

        A context of another kind that somebody registered with multiprocessing is returned as
        it is. Raises ValueError for an unknown or unavailable method, as the stdlib does.
        """
        return _to_own(super().get_context(method))

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        task_timeout: float | None = None,
        soft_timeout: float | None = None,
        retries: int = 0,
        retry_on: Iterable[type[BaseException]] | None = None,
        retry_backoff: float = 0.05,
        worker_memory_limit: int | None = None,
        worker_memory_soft_limit: int | None = None,
        worker_max_age: float | None = None,
        worker_idle_timeout: float | None = None,
        worker_start_timeout: float | None = None,
        worker_exit: Callable[[], object] | None = None,
        daemon: bool = True,
        capture_stderr: bool = False,
        kill_grace: float = 5.0,
        on_event: Callable[[Any], object] | None = None,
    ) -> Pool:
        """Return a gopool.pool.Pool whose workers are started by this context.

        gopool.pool.Pool tells what the keywords mean that multiprocessing has not.
        """
        if "gopool.pool" not in sys.modules:
            _import_pool()
        from gopool.pool import Pool

        return Pool(
            processes,
            initializer,
            initargs,
            maxtasksperchild,
            context=self.get_context(),
            task_timeout=task_timeout,
            soft_timeout=soft_timeout,
            retries=retries,
            retry_on=retry_on,
            retry_backoff=retry_backoff,
            worker_memory_limit=worker_memory_limit,
            worker_memory_soft_limit=worker_memory_soft_limit,
            worker_max_age=worker_max_age,
            worker_idle_timeout=worker_idle_timeout,
            worker_start_timeout=worker_start_timeout,
            worker_exit=worker_exit,
            daemon=daemon,
            capture_stderr=capture_stderr,
            kill_grace=kill_grace,
            on_event=on_event,
        )

    def Manager(self) -> SyncManager:
        """Return a started gopool.managers.SyncManager; its server is a process of this context."""
        from gopool.managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager


class ForkContext(_twin.ForkContext, _OwnContext):
    """multiprocessing.context.ForkContext with gopool's Process, Pool() and Manager()."""

    Process = ForkProcess


class SpawnContext(_twin.SpawnContext, _OwnContext):
    """multiprocessing.context.SpawnContext with gopool's Process, Pool() and Manager()."""

    Process = SpawnProcess


class ForkServerContext(_twin.ForkServerContext, _OwnContext):
    """multiprocessing.context.ForkServerContext with gopool's Process, Pool() and Manager()."""

    Process = ForkServerProcess


class DefaultContext(_twin.DefaultContext, _OwnContext):
    """The context behind gopool's module-level functions; its state is multiprocessing's.

    The stdlib's methods work on two attributes. Here both are views of the stdlib's default
    context, translated between its contexts and gopool's, so every rule about when the start
    method may be set is the stdlib's code. Instances are interchangeable.
    """

    Process = Process

    def __init__(self, context: _twin.BaseContext) -> None:
        """Has no state: `context`, which the stdlib falls back to, is taken from there too."""

    @property
    def _default_context(self) -> Any:
        """gopool's counterpart of the context that is used while nothing was set."""
        return _to_own(_private._default_context._default_context)

    @property
    def _actual_context(self) -> Any:
        """gopool's counterpart of the context in force, None while nothing was set or asked."""
        return _to_own(_private._default_context._actual_context)

    @_actual_context.setter
    def _actual_context(self, context: Any) -> None:
        _private._default_context._actual_context = _to_stdlib(context)


_concrete_contexts: dict[str, _twin.BaseContext] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}


def _import_pool() -> None:
    """Import gopool.pool, and let no garbage collection come in between.

    It would find nothing, and looks at what the program has imported so far: a tenth of the time
    that a program's first pool takes, and more in a larger program. So what is there afterwards
    counts as old (only a full collection looks at that), unless the program has frozen something
    itself.
    """
    import gc  # here: `import gopool` brings no module that multiprocessing does not

    enabled = gc.isenabled()
    if enabled:  # else another thread may be here, and will enable it
        gc.disable()
    try:
        import gopool.pool  # noqa: F401
    finally:
        if gc.get_freeze_count() == 0:
            gc.freeze()
            gc.unfreeze()
        if enabled:
            gc.enable()


def _translate(context: Any, source: dict[str, Any], target: dict[str, Any]) -> Any:
    """Return the entry of `target` that corresponds to `context` in `source`, else `context`.

    Compared by identity: a user's own context may carry the name of a built-in one.
    """
    name = getattr(context, "_name", None)
    if name is not None and source.get(name) is context:
        return target.get(name, context)
    return context


def _to_own(context: Any) -> Any:
    return _translate(context, _private._concrete_contexts, _concrete_contexts)


def _to_stdlib(context: Any) -> Any:
    return _translate(context, _concrete_contexts, _private._concrete_contexts)


_default_context = DefaultContext(_concrete_contexts["fork"])
