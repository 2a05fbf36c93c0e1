# SPDX-License-Identifier: MIT
"""multiprocessing.pool with the Go core behind Pool (stations 1 and 2 of the data flow).

Pool is a subclass of the standard library's: this module holds the methods that differ, which
gopool.install() also puts in front of the originals (_install.py). ThreadPool is the standard
library's.
"""

from __future__ import annotations

import functools
import warnings
from _thread import start_new_thread
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import repeat
from multiprocessing import pool as stdlib
from multiprocessing import util

from gopool import _core, _mirror
from gopool._engine import CALL, MAP, STARMAP, Engine
from gopool._faces import QueueFace, TaskHandlerFace, TaskQueueFace
from gopool._feeder import Window
from gopool._jobs import AsyncResult as EngineResult
from gopool._jobs import (
    Cache,
    ChunkedMapResult,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    Once,
    Reading,
    guarded,
)
from gopool._options import (
    AUTO,
    KILL_GRACE,
    RETRY_BACKOFF,
    CallOptions,
    checked_buffersize,
    for_original,
    positive,
)
from gopool._settings import Settings
from gopool._threads import rescue
from gopool._worker.call import NO_ARGUMENTS
from gopool.exceptions import GopoolError

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any, Literal

__all__ = ["Pool", "ThreadPool"]

_mirror.mirror(__name__, stdlib)

ThreadPool = stdlib.ThreadPool

# A subclass that overrides one of these moves tasks or makes workers in a way of its own.
_TRANSPORT_HOOKS = (
    "_setup_queues",
    "_repopulate_pool",
    "_repopulate_pool_static",
    "_maintain_pool",
    "_join_exited_workers",
    "_handle_tasks",
    "_handle_workers",
    "_handle_results",
    "_terminate_pool",
    "_help_stuff_finish",
)

_RUN, _CLOSE, _TERMINATE = stdlib.RUN, stdlib.CLOSE, stdlib.TERMINATE


class Pool(stdlib.Pool):
    """A pool of worker processes whose tasks the Go core schedules.

    Same signature, semantics and exceptions as multiprocessing.pool.Pool. Beyond it: a worker
    that dies fails the one task that it ran, with WorkerLostError, and is replaced; terminate()
    ends every pending get() with PoolTerminatedError; a callback that raises is reported and
    harms nothing else.

    Where this process's limits don't let Go load, the pool is the standard library's, with one
    RuntimeWarning. So is, without one, a pool of a subclass that overrides how tasks travel or
    workers are made. Such pools raise GopoolError for keywords of gopool's own that are not at
    their defaults.

    Keywords of gopool's own:
        task_timeout: seconds that each task may run. Then it fails with TaskTimeoutError, and its
            worker is ended with every process below it (SIGTERM, SIGKILL after kill_grace) and
            replaced, also while it is busy in C. Chunks of map are of one item then.
        soft_timeout: seconds after which SoftTimeoutError is raised inside the task.
        retries: how often a task is run again whose worker was lost; after retry_backoff seconds,
            twice as many before the next attempt, and so on up to 30. retry_on names what else
            is retried: WorkerLostError (the default), TaskTimeoutError, or Exception for these
            and whatever the task raises.
        worker_memory_limit: bytes that a worker may have resident while it runs a task; beyond
            them it is ended at once and the task is lost. worker_memory_soft_limit: beyond them
            it ends after its task. Both are looked at every 0.1 s.
        worker_max_age: seconds, from when it is ready, after which a worker ends, between two
            tasks.
        worker_idle_timeout: seconds without a task after which a worker ends; it is replaced when
            there is work for it.
        worker_start_timeout: seconds that a worker may take until its initializer has returned,
            counted from the start of its process. Then it is killed with every process below it;
            after three such starts in a row, with no other worker, the pool is broken: every
            task fails with BrokenPoolError or WorkerStartError.
        worker_exit: called without arguments in each worker that ends in order (close(), an idle
            worker at terminate(), maxtasksperchild), after its last task and before its
            finalizers. What it raises is printed as a traceback and changes nothing else. Ctrl-C
            does not interrupt it. It travels as the initializer does. A worker that is killed, or
            whose initializer failed, does not call it. One that retires while the pool goes on
            has twelve times kill_grace until its process has ended.
        daemon: False lets tasks make processes and pools of their own; a worker that ends in
            order joins those processes first, as a non-daemonic process does, and has as long as
            one of them runs. No pool worker, at
            whatever depth, outlives the process that made its pool.
        capture_stderr: True keeps the last lines that each worker wrote to descriptor 2, for
            WorkerLostError.stderr. They still reach this process's descriptor 2, through a pipe
            and a thread here: so isatty() is false in a worker, what several processes write may
            come in another order, and a worker waits once the pipe is full (64 KiB) while this
            process runs no Python code.
        kill_grace: seconds between asking a worker to end and killing it; one that retires has
            twelve times as long, since nothing hurries then.
        on_event: called with each gopool.events.Event of the pool, in the thread that runs
            callbacks or the one that replaces workers.

    Source: multiprocessing.pool.Pool of CPython 3.10 to 3.13.
    """

    _state = stdlib.INIT  # __del__ looks at it, wherever __init__ is interrupted

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        task_timeout: float | None = None,
        soft_timeout: float | None = None,
        retries: int = 0,
        retry_on: Iterable[type[BaseException]] | None = None,
        retry_backoff: float = RETRY_BACKOFF,
        worker_memory_limit: int | None = None,
        worker_memory_soft_limit: int | None = None,
        worker_max_age: float | None = None,
        worker_idle_timeout: float | None = None,
        worker_start_timeout: float | None = None,
        worker_exit: Callable[[], object] | None = None,
        daemon: bool = True,
        capture_stderr: bool = False,
        kill_grace: float = KILL_GRACE,
        on_event: Callable[[Any], object] | None = None,
    ) -> None:
        self._state = stdlib.INIT  # __del__ looks at it, whatever is refused here
        arguments = processes, initializer, initargs, maxtasksperchild, context
        settings = Settings(
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
        if not takes_engine(type(self)):
            settings.refuse_changed(f"{type(self).__name__} makes workers or moves tasks itself")
        elif _start(self, settings, *arguments):
            return
        super().__init__(*arguments)

    def resize(self, processes: int) -> None:
        """Change the number of workers.

        Args:
            processes: int >= 1. Workers that are missing are started before this returns; those
                that are too many end, idle ones at once, others after their task.

        Raises:
            ValueError: the number is less than 1, or the pool is closed.
            GopoolError: the pool has no Go core.
        """
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        self._check_running()  # type: ignore[attr-defined]
        engine = self.__dict__.get("_engine")
        if engine is None:
            raise GopoolError("resize() needs the Go core, which this pool does not have")
        self._processes = processes
        engine.resize(processes)


def takes_engine(kind: type) -> bool:
    """Whether pools of a class may have an engine: it leaves transport and workers alone."""
    if issubclass(kind, stdlib.ThreadPool):
        return False
    below = [base for base in kind.__mro__ if base not in Pool.__mro__]
    return not any(hook in base.__dict__ for base in below for hook in _TRANSPORT_HOOKS)


def start(
    self: Any,
    processes: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasksperchild: int | None = None,
    context: Any = None,
    **settings: Any,
) -> bool:
    """Give a Pool object, of any class, an engine and start it.

    Returns False, with a warning, where this process's limits don't let Go load, or don't let the
    pool have its shared memory: it is to be the standard library's then.

    Raises:
        OSError: EFBIG, where RLIMIT_FSIZE is too small for that one too.
        GopoolError: that, with a keyword of gopool's own that is not at its default.
    """
    self._state = stdlib.INIT  # __del__ looks at it, whatever is refused here
    arguments = processes, initializer, initargs, maxtasksperchild, context
    return _start(self, Settings(**settings), *arguments)


def _start(
    self: Any,
    settings: Settings,
    processes: int | None,
    initializer: Callable[..., object] | None,
    initargs: Iterable[Any],
    maxtasksperchild: int | None,
    context: Any,
) -> bool:
    self._pool = []
    obstacle = _core.obstacle() or _core.file_obstacle()
    if obstacle is not None:
        settings.refuse_changed(obstacle)
        _core.warn_unsupervised(obstacle)
        return False
    self._ctx = context or _default_context(self)
    self._cache = Cache()
    self._processes = _size(processes)
    self._maxtasksperchild = _checked_maxtasks(maxtasksperchild)
    self._initializer = initializer
    self._initargs = initargs
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    self._settings = settings
    engine, ended = Engine(self, settings), Once()
    try:
        _run(self, engine)
    except BaseException:
        # Whatever was interrupted is given back in a thread, where nothing is; see _threads.py.
        try:
            start_new_thread(rescue, (engine.finish, ended))
        except RuntimeError:  # no thread can start
            engine.finish()
        else:
            ended.wait()
        raise
    return True


def _run(self: Any, engine: Engine) -> None:
    """Start a Pool object's engine, and give it the attributes that programs know."""
    # As much as can be before the forks in start(): after them each page that is written is copied.
    self._engine = engine
    self._taskqueue = TaskQueueFace(engine)
    self._inqueue, self._outqueue = QueueFace(engine), QueueFace(engine)
    self._quick_put, self._quick_get = self._inqueue.put, self._outqueue.get
    self._change_notifier = None
    engine.start(self._maxtasksperchild or 0)
    self._worker_handler = engine.maintenance
    self._task_handler = TaskHandlerFace(engine)
    self._result_handler = engine.collector_thread
    engine.watch(self)
    self._terminate = util.Finalize(self, _end, args=(engine,), exitpriority=15)
    self._state = _RUN


def _default_context(pool: Any) -> Any:
    """gopool's for gopool's own class; for a patched one the standard library's."""
    if isinstance(pool, Pool):
        from gopool import context

        return context._default_context.get_context()
    return stdlib.get_context()  # type: ignore[attr-defined]


def _size(processes: int | None) -> int:
    if processes is None:
        from gopool import _cpus

        processes = _cpus.available()
    if processes < 1:
        raise ValueError("Number of processes must be at least 1")
    return processes


def _checked_maxtasks(maxtasks: int | None) -> int | None:
    if maxtasks is not None and (not isinstance(maxtasks, int) or maxtasks <= 0):
        raise ValueError("maxtasksperchild must be a positive int or None")
    return maxtasks


def _end(engine: Engine) -> None:
    """The finalizer of a pool: at terminate(), when it is collected, or at exit."""
    util.debug("finalizing pool")
    engine.terminate()


# The methods that differ, for pools with an engine. `self` is any Pool object. `timeout` and its
# like are the last three arguments of each; where none is given the pool's own hold.


def _pool_apply(
    self: Any,
    func: Callable[..., Any],
    args: Iterable[Any] = (),
    kwds: dict[str, Any] = {},  # noqa: B006  the standard library's signature
    *,
    timeout: float | None = None,
    soft_timeout: float | None = None,
    retries: int | None = None,
) -> Any:
    """Equivalent of `func(*args, **kwds)`; see apply_async() for the keywords."""
    asked = _given(timeout=timeout, soft_timeout=soft_timeout, retries=retries)
    return self.apply_async(func, args, kwds, **asked).get()


def _apply_async(original: Callable[..., Any]) -> Callable[..., Any]:
    """apply_async() for pools with an engine; all others are served by `original`.

    Not made by dispatching(): a tiny task would spend a fifth of its submission in passing
    arguments on.
    """

    def apply_async(
        self: Any,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] = {},  # noqa: B006  the standard library's signature
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        retries: int | None = None,
    ) -> Any:
        """Asynchronous version of `apply()` method.

        Args:
            timeout: seconds that the task may run; then it fails with TaskTimeoutError, and its
                worker is ended and replaced. None: the pool's task_timeout.
            soft_timeout: seconds after which SoftTimeoutError is raised inside the task.
            retries: how often the task may be run again; see the pool's retry_on.
        """
        try:
            engine = self._engine
        except AttributeError:
            own = {"timeout": timeout, "soft_timeout": soft_timeout, "retries": retries}
            arguments = func, args, kwds, callback, error_callback
            return original(self, *arguments, **for_original(original, arguments, own))
        if self._state != _RUN:
            raise ValueError("Pool not running")
        options = 0
        if not (engine.plain_tasks and timeout is soft_timeout is retries is None):
            call = CallOptions(self._settings, timeout, soft_timeout, retries)
            options, func = engine.options(call), call.wrapped(func)
        result = EngineResult(self, callback, error_callback)
        if callback or error_callback:
            engine.expect_callbacks()
        result._function = func
        nothing = type(args) is tuple and not args and type(kwds) is dict and not kwds
        engine.submit(result, CALL, func, NO_ARGUMENTS if nothing else (args, kwds), options)
        return result

    apply_async.__qualname__ = original.__qualname__
    return apply_async


def _given(**wishes: Any) -> dict[str, Any]:
    """What is not None: a subclass may override a method without the keywords."""
    return {name: value for name, value in wishes.items() if value is not None}


def _map_method(name: str, mapper: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """map or starmap, and its asynchronous version."""

    def synchronous(
        self: Any,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | Literal["auto"] | None = None,
        *,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        retries: int | None = None,
    ) -> Any:
        asked = _given(timeout=timeout, soft_timeout=soft_timeout, retries=retries)
        return self._map_async(func, iterable, mapper, chunksize, **asked).get()

    def asynchronous(
        self: Any,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | Literal["auto"] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        retries: int | None = None,
    ) -> Any:
        asked = _given(timeout=timeout, soft_timeout=soft_timeout, retries=retries)
        return self._map_async(
            func, iterable, mapper, chunksize, callback, error_callback, **asked
        )

    for method, title in ((synchronous, name), (asynchronous, name + "_async")):
        method.__name__, method.__qualname__ = title, f"Pool.{title}"  # TypeErrors name it
        method.__doc__ = (
            f"{getattr(stdlib.Pool, title).__doc__}\n\n"
            "        timeout, soft_timeout and retries are each item's, as in apply_async(): with\n"
            "        a timeout, chunks are of one item; a larger chunksize raises ValueError.\n\n"
            '        chunksize="auto": chunks are cut while workers have room, sized by the time\n'
            "        that items took so far; `_number_left` of the result counts items then.\n"
        )
    return synchronous, asynchronous


def _pool_map_async(
    self: Any,
    func: Callable[..., Any],
    iterable: Iterable[Any],
    mapper: Callable[..., Any],
    chunksize: int | Literal["auto"] | None = None,
    callback: Callable[[Any], object] | None = None,
    error_callback: Callable[[BaseException], object] | None = None,
    *,
    timeout: float | None = None,
    soft_timeout: float | None = None,
    retries: int | None = None,
) -> Any:
    """Helper of map, starmap and their async versions."""
    self._check_running()
    call = CallOptions(self._settings, timeout, soft_timeout, retries)
    size: Any = call.chunksize(chunksize)
    func = call.wrapped(func)
    if size == AUTO:
        iterable = tuple(iterable)
        if len(iterable) > 2 * self._processes:
            return _map_in_time(self, func, iterable, mapper, call, callback, error_callback)
        size = 1
    if not hasattr(iterable, "__len__"):
        iterable = list(iterable)
    length = len(iterable)  # type: ignore[arg-type]
    if size is None:
        size, extra = divmod(length, self._processes * 4)
        size += bool(extra)
    if length == 0:
        size = 0
    options = self._engine.options(call)
    result = MapResult(
        self,
        size,
        length,
        callback and guarded(callback),
        error_callback=error_callback and guarded(error_callback),
    )
    if callback or error_callback:
        self._engine.expect_callbacks()
    result._function = func  # type: ignore[attr-defined]
    chunks, mode = _chunks_of(iterable, size), _MODES.get(mapper)
    if mode is None:
        mode, func, chunks = CALL, mapper, ((((func, chunk),), {}) for chunk in chunks)
    # A sequence of the user's own may make its items when they are asked for.
    quick, listed = type(iterable) in _QUICK_INPUTS, type(iterable) in (list, tuple)
    self._engine.submit_all(
        result, mode, func, chunks, result._number_left, options, quick, listed
    )
    return result


def _map_in_time(
    self: Any,
    func: Any,
    items: tuple[Any, ...],
    mapper: Any,
    call: CallOptions,
    callback: Callable[[Any], object] | None,
    error_callback: Callable[[BaseException], object] | None,
) -> ChunkedMapResult:
    """A map whose chunks are sized by time."""
    from gopool._chunks import Chunker  # most programs never need it

    chunker = Chunker(self._processes, len(items))
    result = ChunkedMapResult(
        self,
        len(items),
        chunker,
        callback and guarded(callback),
        error_callback and guarded(error_callback),
    )
    if callback or error_callback:
        self._engine.expect_callbacks()
    result._function = func  # type: ignore[attr-defined]
    options = self._engine.options(call)
    chunks: Iterator[Any] = chunker.cut_sequence(items)
    mode = _MODES.get(mapper)
    if mode is None:
        tasks: Iterator[Any] = ((((func, chunk),), {}) for chunk in chunks)
        self._engine.feed(result, CALL, mapper, tasks, options, chunker)
    else:
        self._engine.feed(result, mode, func, chunks, options, chunker)
    return result


def _chunks_of(items: Iterable[Any], size: int) -> Iterator[Any]:
    """Tuples of so many items each; the last may have fewer."""
    if size == 1 and type(items) in _QUICK_INPUTS:
        return zip(items)
    chunks = stdlib.Pool._get_tasks(None, items, size)  # type: ignore[attr-defined]
    return (chunk for _, chunk in chunks)


# Inputs whose items are there, or come without code of the user's.
_QUICK_INPUTS = (list, tuple, range)
_MODES = {
    stdlib.mapstar: MAP,  # type: ignore[attr-defined]
    stdlib.starmapstar: STARMAP,  # type: ignore[attr-defined]
}


def _imap(
    self: Any,
    kind: Any,
    func: Any,
    iterable: Iterable[Any],
    chunksize: int | Literal["auto"],
    buffersize: int | None,
    call: CallOptions,
) -> Any:
    self._check_running()
    size: Any = call.chunksize(chunksize)
    if size != AUTO and size < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
    checked_buffersize(buffersize)
    func = call.wrapped(func)
    options = self._engine.options(call)
    job = kind(self)
    job._function = func
    window, mode, items = Window(self._processes, buffersize), MAP, iterable
    quick = type(iterable) in _QUICK_INPUTS and buffersize is None
    if size == 1:
        mode = CALL
        items = zip(zip(iterable), repeat({})) if quick else _single_arguments(iterable)
    elif size == AUTO:
        from gopool._chunks import Chunker

        length = len(iterable) if isinstance(iterable, Sized) else None
        window = job.chunker = Chunker(
            self._processes, length, stream=True, buffersize=buffersize
        )
        items, quick = window.cut(iterable), False
    else:
        items = _chunks_of(iterable, size)
    try:
        feeder = self._engine.feed(job, mode, func, items, options, window, quick)
    except BaseException:
        stop = getattr(job, "on_cancelled", None)  # its feeder's: nobody will read what that draws
        if stop is not None:
            stop()
        raise
    result = job if buffersize is None else Reading(job, feeder.lose_reader)
    if size == 1:
        return result
    if size == AUTO and buffersize is not None:
        return _counted(result, window, feeder)
    return (item for chunk in result for item in chunk)


def _counted(chunks: Iterable[Any], chunker: Any, feeder: Any) -> Iterator[Any]:
    """The items of chunks, told to who cuts them: the buffer is one of items."""
    for chunk in chunks:
        chunker.read += len(chunk)
        feeder.on_taken()
        yield from chunk


def _single_arguments(iterable: Iterable[Any]) -> Iterator[Any]:
    """The arguments of calls with one item each; iter() is called in the feeder's thread."""
    for item in iterable:
        yield (item,), {}


def _pool_imap(
    self: Any,
    func: Callable[..., Any],
    iterable: Iterable[Any],
    chunksize: int | Literal["auto"] = 1,
    *,
    buffersize: int | None = None,
    timeout: float | None = None,
    soft_timeout: float | None = None,
    retries: int | None = None,
) -> Iterator[Any]:
    """Equivalent of `map()` -- can be MUCH slower than `Pool.map()`.

    The input is drawn as workers keep up, whether results are read or not.

    Args:
        chunksize: items of each task; "auto": as many as fill about 2 ms, sized by the time that
            the items before took, and the result is a plain iterator then, as with any chunks.
        buffersize: tasks (chunks) submitted whose results are not read, at most: the input is drawn
            as results are read, too. It is drawn no further once nobody has the iterator any more,
            or somebody waits in join(). None: any number. With chunksize="auto" it counts items.
        timeout, soft_timeout, retries: each item's, as in map().
    """
    call = CallOptions(self._settings, timeout, soft_timeout, retries)
    result: Iterator[Any] = _imap(
        self, IMapIterator, func, iterable, chunksize, buffersize, call
    )
    return result


def _pool_imap_unordered(
    self: Any,
    func: Callable[..., Any],
    iterable: Iterable[Any],
    chunksize: int | Literal["auto"] = 1,
    *,
    buffersize: int | None = None,
    timeout: float | None = None,
    soft_timeout: float | None = None,
    retries: int | None = None,
) -> Iterator[Any]:
    """Like `imap()` method but ordering of results is arbitrary.

    chunksize="auto", buffersize, timeout, soft_timeout and retries are as in imap().
    """
    call = CallOptions(self._settings, timeout, soft_timeout, retries)
    result: Iterator[Any] = _imap(
        self, IMapUnorderedIterator, func, iterable, chunksize, buffersize, call
    )
    return result


def _pool_close(self: Any) -> None:
    """No job can be added any more; the workers stop when all tasks are done."""
    util.debug("closing pool")
    if self._state in (_RUN, _CLOSE):  # an earlier call may have been interrupted
        self._state = _CLOSE
        self._engine.close()


def _pool_terminate(self: Any) -> None:
    """End the workers at once, without finishing outstanding tasks."""
    util.debug("terminating pool")
    self._state = _TERMINATE
    self._terminate()
    self._engine.terminate()  # where an earlier call was interrupted that is no more


def _pool_join(self: Any, *, timeout: float | None = None) -> bool | None:
    """Wait until the workers are gone; after close() or terminate().

    Args:
        timeout: seconds to wait at most; None: until they are.

    Returns:
        with a timeout: whether they are gone.
    """
    util.debug("joining pool")
    if self._state == _RUN:
        raise ValueError("Pool is still running")
    elif self._state not in (_CLOSE, _TERMINATE):
        raise ValueError("In unknown state")
    if not self._engine.join(positive("timeout", timeout)):
        return False
    for process in list(self._pool):
        process.join()
    return None if timeout is None else True


def _pool_repopulate_pool(self: Any) -> None:
    """Start workers up to the size of the pool."""
    self._engine.refill()


def _pool_del(self: Any, _warn: Any = warnings.warn, _run: str = _RUN) -> None:
    if self.__dict__.get("_state") == _run and not self._engine._forked:
        _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)


# What an engine replaces in the standard library's class; _install.py uses the same table.
_map, _map_async = _map_method("map", stdlib.mapstar)  # type: ignore[attr-defined]
_starmap, _starmap_async = _map_method("starmap", stdlib.starmapstar)  # type: ignore[attr-defined]

METHODS: dict[str, Callable[..., Any]] = {
    "apply": _pool_apply,
    "apply_async": _apply_async,  # makes it
    "map": _map,
    "map_async": _map_async,
    "starmap": _starmap,
    "starmap_async": _starmap_async,
    "_map_async": _pool_map_async,
    "imap": _pool_imap,
    "imap_unordered": _pool_imap_unordered,
    "close": _pool_close,
    "terminate": _pool_terminate,
    "join": _pool_join,
    "_repopulate_pool": _pool_repopulate_pool,
    "__del__": _pool_del,
}


def dispatching(
    original: Callable[..., Any], method: Callable[..., Any]
) -> Callable[..., Any]:
    """A method that serves pools with an engine by `method` and all others by `original`."""
    if method is _apply_async:
        return _apply_async(original)

    @functools.wraps(method)
    def dispatch(self: Any, *args: Any, **kwds: Any) -> Any:
        if "_engine" in self.__dict__:
            return method(self, *args, **kwds)
        return original(self, *args, **for_original(original, args, kwds))

    dispatch.__name__, dispatch.__qualname__ = original.__name__, original.__qualname__
    return dispatch


for _name, _method in METHODS.items():
    _method.__qualname__ = f"Pool.{_name}"  # what a TypeError for wrong arguments says
    setattr(Pool, _name, dispatching(getattr(stdlib.Pool, _name), _method))
