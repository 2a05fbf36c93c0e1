# SPDX-License-Identifier: MIT
"""The collector: one thread per pool that settles jobs, in the order outcomes come (station 11).

It reads records from the ring that Go fills (bridge/outcomes.go), unpickles results and runs
callbacks, one at a time, before a result is ready. Errors found in this process, at submission or
in an input iterable, pass through it too. It sleeps on an eventfd and ends with the pool. While it
sleeps a thread that waits for one small value may read that for itself (`read_for`).
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing import pool as stdlib

from gopool import _fork, _jobs
from gopool._jobs import AsyncResult, MapResult
from gopool._reserve import Places
from gopool._threads import Thread, read_event, write_event
from gopool.exceptions import (
    BrokenPoolError,
    GopoolError,
    RemoteTaskError,
    TaskTimeoutError,
    WorkerLostError,
    WorkerStartError,
    amend,
)

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# The twin of Outcomes.Deliver: record bytes, payload bytes, job, index, region bytes, region
# descriptor, descriptor of the task's own region, status.
_RECORD = struct.Struct("<IIQQQqqQ")
_RECORD_SIZE = _RECORD.size
_PAD = 0xFFFFFFFF
_PLACE, _SIZE = 32, 0xFFFFFFFF  # of what lies in the ring, in a result of Take or Borrow
_SCARCE = -3  # of Take: a result comes that can't be received without one descriptor more
_WORKER_ENDED = -2  # of Take: no outcome yet, but the maintenance thread has something to do

_VALUE, _ERROR, _ENCODING, _LOST, _BROKEN, _REFUSED, _TIMEOUT, _CANCELLED = range(8)
_EVENT = 255  # no outcome: something that Go tells

# What happened to a worker (encodeFailure of bridge): pid, exit code, flags, milliseconds, a text.
_FAILURE = struct.Struct("<iiIq")
_EXIT_KNOWN, _STARTED = 1, 2  # flags

# The opcode that finds a class or function, and so comes before whatever runs code. Where it is but
# a byte of something else nothing is lost.
_STACK_GLOBAL = b"\x93"

# Many tasks return nothing.
_NONE = pickle.dumps(None)


class Collector:
    """Settles the jobs in `cache` until Go says that nothing will come."""

    def __init__(
        self,
        take: Callable[[int], int],
        ring: Any,
        wake_fd: int,
        cache: dict[int, Any],
        close_region: Callable[[int], None],
        after_batch: Callable[[], None],
        places: Places,
    ) -> None:
        self._take = take
        self._ring = ring
        self._wake_fd = wake_fd
        self._cache = cache
        self._close_region = close_region
        self._after_batch = after_batch
        self._places = places
        self.exits: Callable[[], object] = _nothing  # called where workers may have ended
        # Called with each error about a worker, to complete it.
        self.complete: Callable[[Any], object] = lambda error: None
        # A late error must not go to another's descriptor; a signal handler may submit too.
        self._waking = threading.RLock()
        self._ended = False
        self._generation = _fork.generation
        self.delivering: Any = None  # the job whose outcome is being handed over
        self.terminated: BaseException | None = None  # what unfinished jobs end with
        self._local: deque[tuple[int, int, Any]] = deque()
        self._whole: deque[Any] = deque()  # jobs that nobody else will settle
        self.on_event: Callable[[bytes], None] = _nothing
        self.pool: Callable[[], object] = _there  # None where nobody has the pool any more
        self.on_dropped: Callable[[], None] = _nothing  # called then

    def settle_locally(self, job: int, index: int, error: BaseException) -> bool:
        """Have the collector fail a task that never reached Go. Any thread may call.

        Returns:
            False where the collector has ended and will not.
        """
        with self._waking:
            if self._ended:
                return False
            self._local.append((job, index, (False, error)))
            write_event(self._wake_fd)
        return True

    def settle_whole(self, job: Any, error: BaseException) -> None:
        """Have the collector fail a job that was taken from the cache. Any thread may call."""
        with self._waking:
            if not self._ended:
                self._whole.append((job, error))
                write_event(self._wake_fd)
                return
        job._settle((False, error))

    def run(self) -> None:
        """The thread's whole life."""
        consumed = 0
        while not self._ended:
            taken = self._take(consumed)
            consumed = taken & _SIZE if taken > 0 else 0
            self._settle_local()
            if taken > 0:
                position = taken >> _PLACE
                self._settle_records(position, position + consumed)
                if self._generation != _fork.generation:
                    return  # a callback forked, and this is its child
                self._places.refill()
                self._after_batch()
            elif taken == 0:
                if not read_event(self._wake_fd):
                    break  # see Engine._write_off()
                if self.pool() is None:
                    self.on_dropped()
            elif taken == _SCARCE:
                self._make_place()
            else:
                self.exits()
                if taken != _WORKER_ENDED:
                    break
        with self._waking:
            self._ended = True
        self._settle_local()

    def _make_place(self) -> None:
        """Have a place for one descriptor more. What a result needs is imported in it first: that
        takes descriptors as well.
        """
        self._places.make_one()
        with contextlib.suppress(Exception), _fork.unforked():
            from gopool import _regions

            _regions.prepare()

    def release(self) -> None:
        """Let go of the ring's memory, after run() returned or where it never ran, and of whom
        to tell: who keeps a pool's thread must not keep the pool.
        """
        self._ended = True
        self.exits = self._after_batch = self.on_event = self.on_dropped = _nothing

    def _settle_local(self) -> None:
        while self._local:
            self._settle(*self._local.popleft())
        while self._whole:
            job, error = self._whole.popleft()
            try:
                job._settle((False, error))
            except BaseException as problem:
                _jobs.report(problem)

    def _settle_records(self, position: int, end: int) -> None:
        cache, ring, unpack, loads = self._cache, self._ring, _RECORD.unpack_from, pickle.loads
        waiting: Any
        value: Any
        # Less than a record is padding at the ring's end; and what a pickle or a callback runs may
        # fork: then this is the child.
        while end - position >= _RECORD_SIZE and self._generation == _fork.generation:
            record, size, job, index, region_size, region, task_region, status = unpack(
                ring, position
            )
            if size == _PAD:
                return
            start = position + _RECORD_SIZE
            position += record
            if status == _VALUE and region < 0 and task_region < 0:
                waiting = cache.get(job)
                if waiting is None:  # dropped by terminate()
                    continue
                payload = ring[start : start + size]
                if payload == _NONE:
                    success, value = True, None
                else:
                    try:
                        success, value = True, loads(payload)
                    except BaseException as error:
                        success, value = _unreadable(error)
                kind = type(waiting)
                if kind is AsyncResult and waiting._callback is None:
                    # Its _set() written out, for tiny tasks: nothing here runs the user's code.
                    if cache.pop(job, None) is not None:
                        waiting._success, waiting._value = success, value
                        waiting._settled = True
                        if waiting._waiters:
                            waiting._wake()
                        waiting._pool = waiting._function = None
                elif (
                    kind is MapResult
                    and success
                    and waiting._number_left > 1
                    and waiting._success
                ):
                    # As in the standard library's _set(), for chunks of one tiny task.
                    waiting._number_left -= 1
                    size = waiting._chunksize
                    if size == 1 == len(value):
                        waiting._value[index] = value[0]
                    else:
                        waiting._value[index * size : (index + 1) * size] = value
                else:
                    self._settle(job, index, (success, value))
            else:
                where = start, size, region, region_size
                self._settle_record(job, index, status, where, task_region)
            waiting = value = None  # the job alone holds them

    def read_for(self, native: Any, handle: int, waiting: AsyncResult) -> None:
        """Settle a job that the calling thread waits for, if its value comes within microseconds
        and is small: while this thread sleeps that spares two changes of threads.

        What may run the user's code is left to this thread. So is the outcome where a signal's
        handler raises here.
        """
        try:
            desk = native.desks.pop()
        except IndexError:  # made by submissions
            return
        job, value, loaded = waiting._job, None, False
        waiting._borrowed = True
        try:
            size = native.Borrow(handle, desk.handle, job)
            if size <= 0:
                return
            payload = desk.memory[:size]
            if payload != _NONE:
                if _STACK_GLOBAL in payload:
                    return
                value = pickle.loads(payload)
            loaded = True
            if self._cache.pop(job, None) is not None:
                waiting._settle((True, value))
        except BaseException:
            ours = not waiting._settled or waiting._value is value
            if loaded and ours and job not in self._cache and not waiting._cancelled:
                waiting._settle((True, value))
            raise
        finally:
            native.Return(handle, job, waiting._settled)
            waiting._borrowed = False
            native.desks.append(desk)

    def _settle_record(
        self,
        job: int,
        index: int,
        status: int,
        where: tuple[int, int, int, int],
        task_region: int,
    ) -> None:
        """Settle what is no small value."""
        start, size, region, region_size = where
        if status == _EVENT:
            self.on_event(bytes(self._ring[start : start + size]))
            return
        if task_region >= 0:
            self._close_region(task_region)
        if job not in self._cache:  # dropped by terminate()
            if region >= 0:
                self._close_result(region)
            return
        # Released at once: the traceback of an error would keep the ring's memory.
        with memoryview(self._ring) as ring, ring[start : start + size] as payload:
            outcome = _outcome(
                status, payload, region, region_size, self._close_result, not self._places.tight
            )
        if status == _CANCELLED:  # cancel() may not be back from Go: it sees this then
            waiting = self._cache.get(job)
            if waiting is not None:
                waiting._cancelled = True
        if status in (_LOST, _BROKEN):
            self.complete(outcome[1])
        if status in (_LOST, _TIMEOUT):
            amend(outcome[1], task=_jobs.describe(self._cache.get(job), index))
        self._settle(job, index, outcome)

    def _close_result(self, fd: int) -> None:
        if not self._places.of_result.take_over(fd):
            os.close(fd)

    def _settle(self, job: int, index: int, outcome: tuple[bool, Any]) -> None:
        waiting = self._cache.get(job)
        if waiting is None:
            return
        self.delivering = waiting
        try:
            waiting._set(index, outcome)
        except BaseException as error:  # one job's trouble must not end the delivery of all
            _jobs.report(error)
        finally:
            self.delivering = None
        if self.terminated is not None and self._cache.pop(job, None) is not None:
            _jobs.fail(waiting, self.terminated)


def _nothing(*arguments: object) -> None:
    pass


def _there() -> bool:
    return True


def _outcome(
    status: int,
    payload: memoryview,
    region: int,
    region_size: int,
    close: Callable[[int], object],
    spare: bool,
) -> tuple[bool, Any]:
    """What a record says, as (ok, value or exception)."""
    try:
        if status == _VALUE:
            if region >= 0:
                return True, _regions(region, close).load(region, region_size, close, spare=spare)
            return True, pickle.loads(payload)
        if status in (_ERROR, _ENCODING):
            if region >= 0:
                return False, _exception(_regions(region, close).read(region, region_size, close))
            return False, _exception(payload)
        return False, _failure(status, payload)
    except BaseException as error:
        return _unreadable(error)


def _unreadable(error: BaseException) -> tuple[bool, Any]:
    """The outcome of a task whose own can't be unpickled."""
    failure = RemoteTaskError()
    failure.__cause__ = error
    return False, failure


def _regions(fd: int, close: Callable[[int], object]) -> Any:
    try:
        with _fork.unforked():
            from gopool import _regions
    except BaseException:
        close(fd)
        raise
    return _regions.regions


def _exception(payload: Any) -> BaseException:
    """The task's exception, its remote traceback as the cause (gopool._worker.call's twin)."""
    stream = io.BytesIO(payload)
    type_name, text, traceback = pickle.load(stream)
    try:
        error: BaseException = pickle.load(stream)
        if not isinstance(error, BaseException):
            raise TypeError(f"it became {type(error).__qualname__!r}, which is no exception")
    except BaseException as problem:
        error = RemoteTaskError(type_name, text, traceback)
        error.__cause__ = problem
        return error
    if traceback:
        error.__cause__ = stdlib.RemoteTraceback(traceback)  # type: ignore[attr-defined]
    return error


def _failure(status: int, payload: memoryview) -> BaseException:
    """What happened to a worker (bridge.encodeFailure's twin)."""
    if status == _CANCELLED:
        return cancelled()
    pid, code, flags, milliseconds = _FAILURE.unpack_from(payload)
    exitcode = code if flags & _EXIT_KNOWN else None
    text = str(payload[_FAILURE.size :], "utf-8", "replace")
    if status == _TIMEOUT:
        return TaskTimeoutError(milliseconds / 1000, pid=pid)
    if status == _LOST:
        return WorkerLostError(pid, exitcode, milliseconds / 1000, reason=text)
    if status == _REFUSED:
        return GopoolError(text)
    if flags & _STARTED:
        return BrokenPoolError(pid, exitcode, text)
    return WorkerStartError(pid, exitcode, text)


def cancelled() -> BaseException:
    """What a cancelled task ends with."""
    from gopool import exceptions  # the class is made when it is first asked for

    return exceptions.TaskCancelledError("the task was cancelled")


class CollectorThread(Thread):
    """A thread that runs a collector and calls `ended` last."""

    def __init__(self, collector: Collector, ended: Callable[[], None]) -> None:
        super().__init__("gopool-collector")
        self._collector = collector
        self._ended = ended

    def run(self) -> None:
        try:
            self._collector.run()
        finally:
            self._ended()
            del self._collector, self._ended  # who keeps the thread must not keep the pool
