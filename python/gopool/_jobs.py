# SPDX-License-Identifier: MIT
"""Jobs: one API call each, waiting in the pool's `_cache` for the outcomes of its tasks.

The classes are the standard library's but for what is said here; `_set(index, (ok, value))`
settles one task, as there, and is called by the collector thread alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing import pool as stdlib

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from collections import deque
    from typing import Any


_allocate_lock = threading.Lock
_next_job: Callable[[], int] = stdlib.job_counter.__next__  # type: ignore[attr-defined]


class AsyncResult(stdlib.ApplyResult):  # type: ignore[type-arg]
    """multiprocessing.pool.AsyncResult whose event is made only when somebody waits.

    What most results never have stands in the class: an attribute that is not stored costs neither
    time nor memory, and one that is read through `__dict__` would have a dict made for it.
    """

    _callback: Callable[[Any], object] | None = None
    _error_callback: Callable[[BaseException], object] | None = None
    _function: Any = None  # what runs, until it is settled; see describe()
    _settled = False
    _cancelled = False
    _borrowed = False  # a waiter reads, or was interrupted while it read (Collector.read_for)
    _waiters: Any = ()  # what to call once it is settled; a list where somebody waits

    def __init__(
        self,
        pool: Any,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._pool = pool
        self._job = _next_job()
        self._cache = pool._cache  # who submits it puts it there
        if callback is not None:
            self._callback = callback
        if error_callback is not None:
            self._error_callback = error_callback

    @property
    def _event(self) -> threading.Event:
        event: threading.Event | None = self.__dict__.get("_made_event")
        if event is None:
            # Two threads may both make one: setdefault lets the first win.
            event = self.__dict__.setdefault("_made_event", threading.Event())
            self._tell(event.set)
        if self._settled:
            event.set()
        return event

    def ready(self) -> bool:
        return self._settled

    def wait(self, timeout: float | None = None) -> None:
        if self._settled:
            return
        if self._callback is None and (timeout is None or self._borrowed):
            self._read()
            if self._settled:
                return
        waiters = self.__dict__.setdefault("_waiters", [])
        _sleep(waiters, lambda: self._settled, timeout)

    def _read(self) -> None:
        """Have this thread read the outcome, where nothing else is on its way; see there."""
        engine = getattr(self._pool, "_engine", None)
        if engine is None:
            return
        if self._borrowed:
            engine.give_back(self._job)
        elif len(self._cache) == 1:
            engine.read_for(self)

    def _tell(self, waiter: Callable[[], object]) -> None:
        """Have somebody called once it is settled; he looks whether it is, after this."""
        self.__dict__.setdefault("_waiters", []).append(waiter)

    def _wake(self) -> None:
        _wake_all(self._waiters)

    def get(self, timeout: float | None = None) -> Any:
        if not self._settled:
            self.wait(timeout)
            if not self.ready():
                raise stdlib.TimeoutError  # type: ignore[attr-defined]
        if self._success:
            return self._value
        raise self._value

    def cancel(self, *, terminate: bool = False) -> bool:
        """Cancel the task: get() raises TaskCancelledError, error_callback is called with it.

        Args:
            terminate: also where the task runs already: its worker is ended then, with all
                processes below it, and replaced.

        Returns:
            False where it is too late: the task is done, or runs and is not to be terminated.
            Does not block.
        """
        return cancel(self, 1, terminate)

    def cancelled(self) -> bool:
        """Whether cancel() was in time."""
        return self._cancelled

    def running(self) -> bool:
        """Whether a worker has the task and nothing to do before it."""
        return runs(self)

    def _set(self, index: int, outcome: tuple[bool, Any]) -> None:
        # Who takes the job out of the cache settles it: this, cancel() or terminate().
        if self._cache.pop(self._job, None) is not None:
            self._settle(outcome)

    def _settle(self, outcome: tuple[bool, Any]) -> None:
        self._success, self._value = outcome
        callback = self._callback if self._success else self._error_callback
        if callback is not None:
            guarded(callback)(self._value)
        self._settled = True
        self._wake()
        self._pool = self._function = None


def _sleep(
    waiters: list[Callable[[], object]], awake: Callable[[], bool], timeout: float | None
) -> None:
    """Sleep until _wake_all(waiters), so many seconds at most, or for ever; not where one is awake
    already, once whoever wakes can see this waiter.

    By a bare lock of its own: what an Event does beside costs more than the task, where that is
    tiny. And an Event's lock is taken and released by Python code: a waiter that an exception of a
    signal's handler interrupts may leave it taken, and then whoever sets the event hangs.
    """
    lock = _allocate_lock()
    lock.acquire()
    wake = lock.release
    waiters.append(wake)
    try:
        if not awake():
            lock.acquire(True, -1 if timeout is None else max(timeout, 0))
    finally:
        waiters.remove(wake)


def _wake_all(waiters: Iterable[Callable[[], object]]) -> None:
    for wake in tuple(waiters):  # a copy: who was waked takes his own out
        try:
            wake()
        except RuntimeError:
            pass  # a lock: whoever was interrupted here had released it


class Once:
    """What threading.Event is to its waiters, who may be interrupted; it is set once."""

    def __init__(self) -> None:
        self._flag = False
        self._waiters: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._flag

    def set(self) -> None:
        """Let all go on that wait, or will. Any thread may call."""
        self._flag = True
        _wake_all(self._waiters)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait so many seconds at most, or for ever; whether it is set."""
        if not self._flag:
            _sleep(self._waiters, self.is_set, timeout)
        return self._flag

    def _at_fork_reinit(self) -> None:
        """Called by threading in a forked child, for the thread that is there."""
        self._waiters.clear()


class MapResult(stdlib.MapResult):  # type: ignore[type-arg]
    """multiprocessing.pool.MapResult that can be cancelled."""

    _cancelled = False
    _event: Any

    def __init__(
        self, pool: Any, chunksize: Any, length: Any, callback: Any, error_callback: Any
    ) -> None:
        super().__init__(pool, chunksize, length, callback, error_callback)
        done = Once()
        if self._event.is_set():  # there is nothing to do
            done.set()
        self._event = done

    def cancel(self, *, terminate: bool = False) -> bool:
        """Cancel the call: get() raises TaskCancelledError at once, error_callback is called with
        it. Chunks that run go on, their results unseen.

        Args:
            terminate: end those as well, each with its worker, which is replaced.

        Returns:
            False where it is too late: all chunks are done, or the only one left runs and is not
            to be terminated. Does not block.
        """
        return cancel(self, self._number_left, terminate)

    def cancelled(self) -> bool:
        """Whether cancel() was in time."""
        return self._cancelled

    def running(self) -> bool:
        """Whether a worker has one of the chunks and nothing to do before it."""
        return runs(self)

    def _set(self, index: int, outcome: tuple[bool, Any]) -> None:
        # Who takes the job out of the cache settles it: the last chunk, cancel() or terminate().
        cache = self._cache  # type: ignore[attr-defined]
        last = self._number_left == 1
        if not last or cache.pop(self._job, None) is not None:  # type: ignore[attr-defined]
            super()._set(index, outcome)  # type: ignore[misc]

    def _settle(self, outcome: tuple[bool, Any]) -> None:
        self._success, self._value = outcome
        self._number_left = 0
        callback = self._error_callback  # type: ignore[attr-defined]
        if callback is not None:
            callback(self._value)
        self._event.set()
        self._pool = None


class ChunkedMapResult(MapResult):
    """A MapResult whose chunks are cut while it runs; `_number_left` counts items."""

    finished = 0  # chunks
    on_finished: Callable[[], None] | None = None
    on_cancelled: Callable[[], None] | None = None

    def __init__(
        self,
        pool: Any,
        length: int,
        chunker: Any,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        super().__init__(pool, 1, length, callback, error_callback=error_callback)
        self._chunker = chunker

    def cancel(self, *, terminate: bool = False) -> bool:
        more = bool(self._chunker.left)
        return cancel(self, len(self._chunker.spans) + more, terminate)

    cancel.__doc__ = MapResult.cancel.__doc__

    def _set(self, index: int, outcome: tuple[bool, Any]) -> None:
        start, size = self._chunker.spans[index]
        self._chunker.settled(index)
        success, values = outcome
        if success:
            if self._success:
                self._value[start : start + size - 1] = values[:-1]
            outcome = True, values[-1:]
        self._number_left -= size - 1
        super()._set(start + size - 1, outcome)
        self.finished += 1
        on_finished = self.on_finished  # its feeder may take it away meanwhile
        if on_finished is not None:
            on_finished()

    def _set_length(self, length: int) -> None:
        """What its feeder says at the end; it was known."""

    def _settle(self, outcome: tuple[bool, Any]) -> None:
        on_cancelled = self.on_cancelled
        if on_cancelled is not None:
            on_cancelled()
        super()._settle(outcome)


def cancel(job: Any, tasks: int, terminate: bool) -> bool:
    """Cancel a job of so many unsettled tasks, through its pool."""
    pool = job._pool
    if pool is None or not pool._engine.cancel(job, tasks, terminate):
        return False
    job._cancelled = True
    return True


def runs(job: Any) -> bool:
    """Whether a task of a job runs."""
    pool = job._pool
    return pool is not None and bool(pool._engine.runs(job._job))


class _Results:
    """How both iterators of imap take outcomes and give them out; `super()` is the stdlib's.

    The collector appends and readers pop without a lock, which each item would pay for: the methods
    of a deque are atomic, and an item is there before `_index` counts it. Who waits does so on a
    lock of its own: the standard library's `_cond` may be left taken by a reader that a signal's
    handler interrupts, and so only the lock in it is used, for the end.
    """

    # Made by the standard library's __init__.
    _cache: dict[int, Any]
    _cond: threading.Condition
    _index: int
    _items: deque[tuple[bool, Any]]
    _job: int
    _length: int | None
    _pool: Any
    _unsorted: dict[int, tuple[bool, Any]]

    finished = 0  # tasks with an outcome, in order or not
    on_finished: Callable[[], None] | None = None  # called by the collector for each
    on_taken: Callable[[], None] | None = None  # called by the reader for each that it takes
    chunker: Any = None  # of chunks that are sized by time
    _waiting: Any = ()  # by reader that waits: what to call; a list once one has
    _done = False  # no more will come; set last
    _final: int | None = None  # the length that fail() gave it

    @property
    def taken(self) -> int:
        """Outcomes that readers have taken; never too many."""
        return self._index - len(self._items)

    def next(self, timeout: float | None = None) -> Any:
        try:
            success, value = self._items.popleft()
        except IndexError:
            success, value = self._wait(timeout)
        on_taken = self.on_taken  # its feeder may take it away meanwhile
        if on_taken is not None:
            on_taken()
        if success:
            return value
        raise value

    __next__ = next

    def _wait(self, timeout: float | None) -> tuple[bool, Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        lock = _allocate_lock()
        lock.acquire()
        wake = lock.release
        waiting = self.__dict__.setdefault("_waiting", [])
        try:
            while True:
                if wake not in waiting:
                    waiting.append(wake)  # before the look: who appends after it sees this reader
                done = self._done
                try:
                    return self._items.popleft()
                except IndexError:
                    if done:
                        raise StopIteration from None
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise stdlib.TimeoutError from None  # type: ignore[attr-defined]
                lock.acquire(True, -1 if left is None else left)
        finally:
            with contextlib.suppress(ValueError):  # it was waked
                waiting.remove(wake)

    def _wake(self) -> None:
        """Let all readers look, once each."""
        waiting = self._waiting
        while waiting:
            try:
                waiting.pop()()
            except (IndexError, RuntimeError):
                pass  # it is gone, or was waked already

    @property
    def _lock(self) -> Any:
        """The bare lock in `_cond`: taken and released in one step each, unlike that."""
        return self._cond._lock  # type: ignore[attr-defined]

    def _set(self, index: int, outcome: tuple[bool, Any]) -> None:
        if self._done:
            return  # it failed meanwhile
        self._take_in(index, outcome)
        if self.chunker is not None:
            self.chunker.settled(index)
        self.finished += 1
        if self._index == self._length:
            self._complete()
        elif self._waiting:
            self._wake()
        on_finished = self.on_finished  # its feeder may take it away meanwhile
        if on_finished is not None:
            on_finished()

    def _take_in(self, index: int, outcome: tuple[bool, Any]) -> None:
        raise NotImplementedError

    def _set_length(self, length: int) -> None:
        with self._lock:
            self._length = length if self._final is None else self._final
        if self._index == self._length:
            self._complete()

    def _complete(self) -> None:
        """Nothing will come any more. Whoever sees the last outcome or the length second calls."""
        self._cache.pop(self._job, None)
        self._pool = None
        self._done = True
        self._wake()

    def _fail(self, error: BaseException) -> None:
        """Give what has arrived, then raise, then stop."""
        with self._lock:
            self._items.append((False, error))
            self._index += 1
            self._final = self._length = self._index
            self._unsorted = {}
        self._complete()


class IMapIterator(_Results, stdlib.IMapIterator):  # type: ignore[type-arg]
    """multiprocessing.pool.IMapIterator that takes no lock for an item that is there."""

    def _take_in(self, index: int, outcome: tuple[bool, Any]) -> None:
        if index != self._index:
            self._unsorted[index] = outcome
            return
        self._items.append(outcome)
        self._index += 1
        while self._unsorted and self._index in self._unsorted:
            self._items.append(self._unsorted.pop(self._index))
            self._index += 1


class IMapUnorderedIterator(_Results, stdlib.IMapUnorderedIterator):  # type: ignore[type-arg]
    """The same for imap_unordered."""

    def _take_in(self, index: int, outcome: tuple[bool, Any]) -> None:
        self._items.append(outcome)
        self._index += 1


class Reading:
    """What imap(buffersize=...) gives: the iterator, whose loss ends the drawing of its input.

    The job itself can't be lost: the pool's cache has it.
    """

    def __init__(self, job: Any, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._job = job

    def __iter__(self) -> Reading:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result; waits up to so many seconds, then raises TimeoutError."""
        return self._job.next(timeout)

    __next__ = next

    def __del__(self) -> None:
        self._lost()


class Cache(dict):  # type: ignore[type-arg]  # Any is no name at run time
    """A pool's `_cache`: jobs by number, until they are settled.

    The standard library's jobs take themselves out with `del`, also after terminate() has.
    """

    def __delitem__(self, job: int) -> None:
        self.pop(job, None)


def describe(job: Any, index: int) -> str:
    """What a task runs, in words: the function, and the task's place in its job.

    "" where the job is settled: it was cancelled, or the pool terminated.
    """
    if job is None:
        return ""
    function = getattr(job, "_function", None)
    function = getattr(function, "function", function)  # of a soft timeout's wrapper
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    name = f"{module}.{name}" if module else name
    return name if isinstance(job, AsyncResult) else f"{name}, task {index}"


def guarded(callback: Callable[[Any], object]) -> Callable[[Any], None]:
    """A callback whose exception is reported through threading.excepthook instead of raised.

    In the standard library it ends the thread that delivers results, and every get() hangs.
    """

    def call(value: Any) -> None:
        try:
            callback(value)
        except BaseException as error:
            report(error)

    return call


def report(error: BaseException) -> None:
    """Tell of an exception that has nobody to go to, through threading.excepthook."""
    arguments = (type(error), error, error.__traceback__, threading.current_thread())
    threading.excepthook(threading.ExceptHookArgs(arguments))


def fail(job: Any, error: BaseException) -> None:
    """End a job whose tasks will have no outcomes: whoever waits gets the error.

    No callback is called. An iterator gives what has arrived, then raises, then stops.
    """
    if isinstance(job, stdlib.IMapIterator):
        if isinstance(job, _Results):
            job._fail(error)
        else:
            _fail_iterator(job, error)
        return
    job._callback = job._error_callback = None
    if isinstance(job, stdlib.MapResult):
        job._success, job._value = False, error  # type: ignore[attr-defined]
        job._number_left = 0  # type: ignore[attr-defined]
        job._event.set()  # type: ignore[attr-defined]
        job._cache.pop(job._job, None)  # type: ignore[attr-defined]
        job._pool = None  # type: ignore[attr-defined]
        return
    job._cache.pop(job._job, None)
    job._settle((False, error))


def _fail_iterator(job: Any, error: BaseException) -> None:
    """The same for an iterator of the standard library's, as recipes make."""
    with job._cond:
        job._items.append((False, error))
        job._index += 1
        job._length = job._index
        job._unsorted = {}
        job._cond.notify_all()
    job._cache.pop(job._job, None)
