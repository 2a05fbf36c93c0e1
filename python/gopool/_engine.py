# SPDX-License-Identifier: MIT
"""The engine: one pool's way to Go, held by the Pool object, of whatever class that is.

Who owns what:
    Submitter     pickles and hands tasks to Go                (the thread that calls)
    Backlog       tasks beyond the budget                      (a thread while there are any)
    IMapFeeder    draws one imap's input                       (a thread for each)
    Collector     settles jobs, runs callbacks                 (one thread)
    Crew          starts workers; Maintenance replaces them    (one thread, once one has ended)

The threads hold the engine, never the pool, so that a pool that is dropped can be collected; a
job that is not settled holds its pool, so that its tasks still run.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import operator
import os
import sys
import threading
import time
import weakref
from _struct import Struct
from _thread import get_ident, start_new_thread
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing import pool as stdlib
from multiprocessing import util

from gopool import _collector, _core, _fork, _jobs, _options
from gopool._crew import Crew, Maintenance
from gopool._feeder import Backlog, IMapFeeder, Room, TaskFeeder, Window
from gopool._reserve import Places
from gopool._submit import Functions, NoDescriptor, Submitter, affordable_regions, have_desks
from gopool._threads import interrupt_read, rescue
from gopool._worker import filesize
from gopool._worker.call import CALL, MAP, STARMAP
from gopool._worker.channel import REGION
from gopool.exceptions import ForkedChildError, GopoolError, PoolTerminatedError

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from gopool._feeder import Task, Window
    from gopool._options import CallOptions
    from gopool._runs import Run
    from gopool._settings import Settings

__all__ = ["CALL", "MAP", "STARMAP", "Engine", "stats_text"]

# Payload that a pool keeps pickled and unsettled; beyond it tasks wait as objects.
BUDGET = 64 << 20  # bytes
MAX_FED = 1024  # unsettled tasks beyond which `_taskqueue` draws no more
_RING_SIZE = _core.POOL_FILE  # bytes; sixteen of the largest inline outcomes

# Indices into PoolStat (pyapi/pool.go).
_TASKS, _BYTES, _QUEUED = 6, 7, 9

# An event that Go tells of (Outcomes.Tell): kind, pid or 0, flags, attempts before, job, index,
# seconds that the task ran; then a text.
_EVENT = Struct("<IiIIQQd")
_HAS_TASK = 1  # a flag

# By gopool.EventKind.
_EVENT_KINDS = ("timeout", "retry", "retire", "limit", "broken")

# Different sets of options of one pool beyond which timeouts are rounded up: Go keeps each set.
_MAX_EXACT_TIMEOUTS = 256

_RUNNING = 2  # of JobPlace: gopool.PlaceRunning

# The values of GOPOOL_SEND_AHEAD, which tests set (gopool.SendAhead).
_SEND_AHEAD = {"auto": 0, "never": 1, "always": 2}

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Watch(weakref.ref):  # type: ignore[type-arg]
    """Wakes the collector where a pool is gone. C functions alone do it, so that a signal's handler
    that raises in the pool's finalizer does not keep the pool from its end.
    """

    __slots__ = ("wake",)

    def __init__(self, pool: object, callback: Callable[[Any], object]) -> None:
        super().__init__(pool, callback)  # type: ignore[call-arg]
        self.wake: Callable[[], object] = int


# By engine; the only references to them, so that a forked child gets rid of all: there the same
# number may be another descriptor.
_watches: dict[int, Watch] = {}


class Engine:
    """Transport and threads of one pool. The Pool's methods are thin over it."""

    def __init__(self, pool: Any, settings: Settings) -> None:
        """Hold nothing yet: that is start()'s.

        Args:
            pool: the Pool object; what it was made with stands in its attributes already.
            settings: gopool's own keywords.
        """
        self._settings = settings
        self.plain_tasks = settings.plain_tasks
        self.cache: dict[int, Any] = pool._cache
        self.workers = pool._processes
        arguments = (
            pool._initializer,
            tuple(pool._initargs),
            pool._maxtasksperchild,
            pool._wrap_exception,
            settings.worker_exit,
            not (settings.worker_memory_limit or settings.worker_memory_soft_limit),
        )
        self.crew = Crew(pool, pool._pool, arguments, settings)
        self._options: dict[tuple[int, int, int, int], int] = {}
        self._feeders: set[IMapFeeder | TaskFeeder] = set()
        self._submitting: set[int] = set()  # jobs that are being submitted
        self._shortage = 0  # open regions when a descriptor was missing; 0: none was
        self._closing = False
        self._terminated = False
        self._generation = _fork.generation
        self._owned: list[int] = []  # descriptors
        self._places = Places(-1)
        self._opened: list[int] = []  # what Go gave when it was asked to open a pool
        self._ring_file: list[int] = []  # the ring's descriptor, until Go has mapped it too
        self._rings: list[mmap.mmap] = []  # outcomes; one
        self.handle = 0  # Go's number of the pool; 0: not open
        self._running = 0  # threads that use Go's part of the pool
        self._release_lock = threading.RLock()  # a signal handler may terminate the pool as well
        self._up = False  # start() has done all
        self._written_off = False

    @property
    def _forked(self) -> bool:
        """Whether this is a forked child's copy: the workers, threads and Go part are the
        parent's, and Go must not be entered.
        """
        return self._generation != _fork.generation

    def start(self, maxtasks: int) -> None:
        """Start the workers, load Go while they boot, begin to listen.

        Fork before Go is loaded, which takes as long as the workers need to boot. Where it is
        loaded already, open first: what is written after a fork is copied page by page. But no
        thread before the forks: each child would have to tidy it up.

        Raises:
            whatever starting a process raises. The caller has finish() called then, in a thread
            where no signal's handler comes; it gives back what there is, wherever this was cut.
        """
        with _fork.unforked():
            if not _engines and not _watches:
                _fork.not_in_child(_after_fork_in_child)  # it has nothing to do in the workers
            self._wake_fd = _fork.hold(self._owned, os.eventfd, 0, os.EFD_CLOEXEC)
        self.crew.bell = self._wake_fd
        self._places = Places(self._wake_fd)
        self._places.open()
        if _core.loaded():
            self._open(maxtasks)
        self.crew.refill()
        if not self.handle:
            self._open(maxtasks)
        self.collector_thread.start()
        self.crew.attach(self.native, self.handle)
        if maxtasks:
            self.maintenance.ensure_started()  # workers will end, whatever callbacks wait for
        with _fork.unforked():
            _engines.add(self)
            _fork.in_child(_after_fork_in_child)
        self._up = True

    def _open(self, maxtasks: int) -> None:
        """Make Go's part of the pool and this side's; no thread runs yet."""
        self.native = native = _core.load()
        with _fork.unforked():
            self._event_fd = _fork.hold(self._owned, os.eventfd, 0, os.EFD_CLOEXEC)
            filesize.check(_RING_SIZE)
            file = _fork.hold(self._ring_file, os.memfd_create, "gopool-outcomes", os.MFD_CLOEXEC)
            os.ftruncate(file, _RING_SIZE)
            _fork.take(self._rings, mmap.mmap, file, _RING_SIZE)
            _fork.own_mapping(self._rings[0])
        ends = file, _RING_SIZE, self._wake_fd, self._event_fd
        _fork.take(self._opened, native.PoolOpen, *ends, maxtasks, _send_ahead())
        _fork.close_all(self._ring_file)
        handle = _core.checked(self._opened[0])
        limits = (*self._settings.limits, affordable_regions(self.workers))
        _core.checked(native.PoolLimits(handle, self.workers, *limits))
        have_desks(native)
        self._wire(native, handle)
        self.handle = handle

    def _listened(self) -> bool:
        """Whether the collector was started: then the last of the threads gives all back."""
        return self.handle > 0 and self.collector_thread.launched

    def _give_back(self) -> None:
        """Give all back where no thread of this pool ever ran; again, where it was interrupted."""
        with self._release_lock:
            self.crew.abandon()
            if self._opened:
                self.native.PoolRelease(self._opened[0])
            for ring in self._rings:
                _fork.unmap(ring)
            self._unwatch()
            self._places.close()
            _fork.close_all(self._ring_file)
            _fork.close_all(self._owned)

    def _wire(self, native: Any, handle: int) -> None:
        """Make the parts of this side."""
        functions = Functions(native, handle)
        self._places.attach(native, handle)
        self._submitter = Submitter(native, handle, functions, self.workers, self._places)
        self._send = self._submitter.submit
        self._room = Room(self._has_room)
        self._feed_room = Room(self._has_feed_room)
        self.backlog = Backlog(self._submit_in_thread, self._room)
        self.backlog.ended = self._close_if_done
        self._congested = False
        self.collector = _collector.Collector(
            lambda consumed: int(native.Take(handle, consumed)),
            self._rings[0],
            self._wake_fd,
            self.cache,
            self._submitter.close_region,
            self._make_room,
            self._places,
        )
        self.collector.on_event = self._tell
        self._running = 2
        self.maintenance = Maintenance(self.crew, native, handle, self._event_fd)
        self.maintenance.ended = self._thread_ended
        if self._settings.worker_idle_timeout is not None:
            self.maintenance.most = 1  # Go asks for the next where there is work for it
        self.collector.exits = self.maintenance.ensure_started
        self.collector.complete = self.crew.last_words.tell
        self.collector_thread = _collector.CollectorThread(self.collector, self._thread_ended)

    def watch(self, pool: object) -> None:
        """Have the pool's end noticed, also where its finalizer, made later, is interrupted."""
        watch = _watches[id(self)] = Watch(pool, operator.methodcaller("wake"))
        # In one step of C: no handler may come between, since nobody else ends this pool.
        watch.wake = functools.partial(os.eventfd_write, self._wake_fd, 1)
        self.collector.pool, self.collector.on_dropped = self.crew.pool, self._dropped

    def _unwatch(self) -> None:
        """Before the descriptor is closed that the watch writes to."""
        watch = _watches.pop(id(self), None)
        if watch is not None:
            watch.wake = int

    def _dropped(self) -> None:
        """In the collector: nobody has the pool any more, and its finalizer was interrupted."""
        if not self._terminated:
            with contextlib.suppress(RuntimeError):  # no thread can start: at the next look
                start_new_thread(rescue, (self.finish,))
                self._terminated = True

    def _tell(self, payload: bytes) -> None:
        """Emit an event that Go has told of (bridge.Outcomes.Tell's twin)."""
        number, pid, flags, attempt, job, index, seconds = _EVENT.unpack_from(payload)
        text = str(payload[_EVENT.size :], "utf-8", "replace")
        about: dict[str, Any] = {"pid": pid or None, "text": text}
        if flags & _HAS_TASK:
            about["task"] = _jobs.describe(self.cache.get(job), index)
            about["attempt"] = attempt + 1
        if seconds:
            about["text"] = f"after {seconds:.3g} s"
        self.crew.tell(_EVENT_KINDS[number], **about)

    def read_for(self, job: Any) -> None:
        """Have the calling thread settle a job it waits for, where it can be done at once."""
        if self._generation == _fork.generation and not self._terminated:
            self.collector.read_for(self.native, self.handle, job)

    def give_back(self, job: int) -> None:
        """Have the collector read what a waiter has borrowed, who was interrupted."""
        if self._generation == _fork.generation:
            self.native.Return(self.handle, job, 0)

    # Submission.

    def expect_callbacks(self) -> None:
        """A callback may wait for another task; workers must be replaced meanwhile."""
        if self.maintenance.ident is None and not self._forked:
            self.maintenance.ensure_started()

    def submit(
        self, job: Any, mode: int, function: Any, arguments: Any, options: int = 0
    ) -> None:
        """Submit the only task of a job; it starts at once where a worker is idle.

        An error of pickling becomes the job's outcome. Never waits: beyond the budget the task
        is kept as it is. Where this is interrupted nobody gets the job, and nothing waits for it.
        """
        number = job._job
        try:
            self._submitting.add(number)  # close() lets a job that has begun go on
            self.cache[number] = job
            task = number, 0, mode, function, arguments, options
            if self._congested and self._is_congested():
                self.backlog.add([task], 1)
                return
            if self._terminated or self._generation != _fork.generation:
                self._submit_task(task)
                return
            try:
                load = self._send(number, 0, mode, function, arguments, options)
            except Exception as error:
                if not self._settle_failure(task, error):
                    self.backlog.add([task], 1)
                return
            submitter = self._submitter
            if load > BUDGET or len(submitter.regions) >= submitter.max_regions:
                self._congested = True
        except BaseException:
            self.cache.pop(number, None)
            raise
        finally:
            self._submitting.discard(number)
            if self._closing:
                self._close_if_done()

    def submit_all(
        self,
        job: Any,
        mode: int,
        function: Any,
        items: Iterable[Any],
        count: int,
        options: int,
        quick: bool,
        listed: bool,
    ) -> None:
        """Submit the tasks of a job in order, all at once as far as the budget allows.

        Args:
            items: the arguments of each of its `count` tasks, in the form that the mode wants.
            quick: drawing them runs no code of the user's.
            listed: besides, all objects in them exist already.

        Raises:
            ValueError: there are fewer or more of them; what was handed over runs.
        """
        number = job._job
        source = _exactly(count, items) if count else iter(items)
        if listed and count > 1:
            source = self._submitter.sharing(number, source)
        from gopool._runs import Run  # not before a first pool has its first result

        run = Run(
            self._submitter, number, mode, function, source, options, quick, self._settle_error
        )
        try:
            self._submitting.add(number)
            self._submit_run(number, run, count)
        except BaseException:  # the input's, or an interrupt
            self.cache.pop(number, None)
            raise
        finally:
            self._submitting.discard(number)
            if self._closing:
                self._close_if_done()

    def _submit_run(self, number: int, run: Run, count: int) -> None:
        more = True
        while more:
            if self._generation != _fork.generation:
                raise ForkedChildError(_FORKED)
            if self._terminated:
                self._fail_job(number)
                return
            if self._congested and self._is_congested():
                self.backlog.add(self._rest(number, run), count - run.index)
                return
            load, more = run.submit()
            self._note(load)
            if run.error is not None:
                error, task = run.failure()
                if not isinstance(error, Exception):
                    raise error  # KeyboardInterrupt is the caller's, who never gets this job
                if not self._settle_failure(task, error):
                    self.backlog.add([task], 1)

    def _rest(self, number: int, run: Run) -> Iterator[Task]:
        """The tasks that were not drawn, for the backlog: their job fails where the input does."""
        try:
            yield from run.rest()
        except GeneratorExit:  # the backlog was stopped
            raise
        except BaseException as error:
            job = self.cache.pop(number, None)
            if job is not None:
                self.collector.settle_whole(job, error)

    def _note(self, load: int) -> None:
        """See whether tasks have to wait after a submission that left so many bytes unsettled."""
        submitter = self._submitter
        if load > BUDGET or len(submitter.regions) >= submitter.max_regions:
            self._congested = True

    def _settle_failure(self, task: Task, error: BaseException) -> bool:
        """Fail a task that could not be submitted; False: it has to wait for a descriptor."""
        if isinstance(error, NoDescriptor):
            self._shortage = len(self._submitter.regions)
            if error.__cause__ is None:  # another task had the last one, and may be settled by now
                self._shortage = max(1, self._shortage)
            if self._shortage:
                self._congested = True
                return False
            error = error.__cause__ or error
        self._settle_error(task[0], task[1], error)
        return True

    def _submit_task(self, task: Task, in_thread: bool = False) -> bool:
        """Whether the task is on its way or failed; False: it has to wait for a descriptor."""
        if self._generation != _fork.generation:
            self.cache.pop(task[0], None)
            raise ForkedChildError(_FORKED)
        if self._terminated:
            self._fail_job(task[0])
            return True
        try:
            load = self._send(*task)
        except BaseException as error:
            if not (in_thread or isinstance(error, Exception)):
                self.cache.pop(task[0], None)
                raise  # KeyboardInterrupt is the caller's, who never gets this job
            return self._settle_failure(task, error)
        self._note(load)
        return True

    def _submit_in_thread(self, task: Task) -> None:
        """From a thread of gopool's own: whatever pickling raises is the task's outcome."""
        # Where its job is not there any more it was cancelled meanwhile.
        while task[0] in self.cache and not self._submit_task(task, in_thread=True):
            self._room.wait(lambda: self._terminated)

    def _settle_error(self, job: int, index: int, error: BaseException) -> None:
        """Fail a task that did not reach Go: in the collector, else here where that has ended."""
        if self._terminated:
            self._fail_job(job)
        elif not self.collector.settle_locally(job, index, error):
            waiting = self.cache.get(job)
            if waiting is not None:
                waiting._set(index, (False, error))

    def _fail_job(self, number: int) -> None:
        if _only_daemons_wait():
            return
        job = self.cache.pop(number, None)
        if job is not None:
            _jobs.fail(job, PoolTerminatedError(_TERMINATED))

    def _is_congested(self) -> bool:
        """Whether new tasks have to wait, behind those that do already."""
        if self._forked:
            return False  # they are refused
        if self.backlog or not self._has_room():
            return True
        self._congested = False
        if self.backlog:  # another thread was quicker
            self._congested = True
        return self._congested

    def _has_room(self) -> bool:
        """Under the budget; each worker may have one task, however large."""
        stat, handle, submitter = self.native.PoolStat, self.handle, self._submitter
        if self._shortage:
            if len(submitter.regions) >= self._shortage:
                return False
            self._shortage = 0
        if stat(handle, _TASKS) < self.workers:
            return True
        return bool(
            stat(handle, _BYTES) <= BUDGET and len(submitter.regions) < submitter.max_regions
        )

    def _has_feed_room(self) -> bool:
        """For tasks of unknown jobs, whose number nobody else bounds."""
        return self._has_room() and self.native.PoolStat(self.handle, _TASKS) < MAX_FED

    def _make_room(self) -> None:
        self._room.changed()
        self._feed_room.changed()

    def feed(
        self,
        job: Any,
        mode: int,
        function: Any,
        items: Iterable[Any],
        options: int,
        window: Window,
        quick: bool = False,
    ) -> IMapFeeder:
        """Submit the tasks of a job from a thread of its own, as workers keep up.

        Args:
            items: the arguments of each task, in the form that the mode wants.
            quick: drawing them runs no code of the user's.
        """

        number, cache = job._job, self.cache
        submitter = self._submitter
        send, regions = submitter.submit, submitter.regions

        def submit(index: int, item: Any) -> None:
            """_submit_in_turn() without its calls, where nothing stands in the way."""
            if self._congested or self._generation != _fork.generation or number not in cache:
                task = number, index, mode, function, item, options
                self._submit_in_turn(task, feeder.stopped)
                return
            try:
                load = send(number, index, mode, function, item, options)
            except BaseException as error:
                task = number, index, mode, function, item, options
                if not self._settle_failure(task, error):
                    self._submit_in_turn(task, feeder.stopped)
                return
            if load > BUDGET or len(regions) >= submitter.max_regions:
                self._congested = True

        def submit_many(most: int) -> bool:
            """Draw and submit the next tasks, up to so many; whether there may be more."""
            if self._congested or self._generation != _fork.generation or number not in cache:
                for task in run.rest(1):
                    self._submit_in_turn(task, feeder.stopped)
                    return True
                return False
            load, more = run.submit(most)
            self._note(load)
            if run.error is not None:
                error, task = run.failure()
                if not self._settle_failure(task, error):
                    self._submit_in_turn(task, feeder.stopped)
            return more

        feeder = IMapFeeder(
            job,
            items,
            window,
            submit,
            lambda index, error: self._settle_error(number, index, error),
            self._feeder_ended,
        )
        if quick:
            from gopool._runs import Run

            source, refuse = iter(items), self._settle_error
            run = Run(submitter, number, mode, function, source, options, True, refuse)
            feeder.draw_with(run, submit_many)
        self._begin(feeder)
        if self._terminated:
            self._fail_job(number)
        return feeder

    def _submit_in_turn(self, task: Task, stopped: Callable[[], bool]) -> None:
        """Submit a task from a feeder's thread, once there is room for it."""
        if self._congested:
            self._room.wait(stopped)
        if not stopped():
            self._submit_in_thread(task)

    def _begin(self, feeder: IMapFeeder | TaskFeeder) -> None:
        if self._forked:
            raise ForkedChildError(_FORKED)
        try:
            self._feeders.add(feeder)
            feeder.start()
            feeder.await_start()  # so that jobs mostly begin in the order of their calls
        except BaseException:  # no thread can start, or Ctrl-C: join() must not wait for it
            if not feeder.launched:
                self._feeders.discard(feeder)
            raise
        if self._terminated:  # by another thread, which may not have seen the feeder
            feeder.stop()

    def feed_tasks(self, tasks: Iterable[tuple[Any, ...]], set_length: Any) -> None:
        """Submit tasks in the form of multiprocessing.pool's task queue, from a thread.

        Args:
            tasks: (job, index, function, args, kwds) each, as _guarded_task_generation makes.
            set_length: called with the number of tasks at the end, or None.
        """

        def submit(task: tuple[Any, ...], stopped: Callable[[], bool]) -> None:
            job, index, function, args, kwds = task
            self._feed_room.wait(stopped)
            told = (job, index, CALL, function, (args, kwds), 0)
            while not (stopped() or self._submit_task(told, in_thread=True)):
                self._feed_room.wait(stopped)

        self._begin(TaskFeeder(tasks, set_length, submit, self._feeder_ended))

    def _forget_unstarted(self) -> None:
        """Forget the feeders whose start was interrupted, and then what undoes that as well: who
        began them is here by now.
        """
        for feeder in list(self._feeders):
            if not feeder.launched and feeder.maker == get_ident():
                self._feeders.discard(feeder)

    def _feeder_ended(self, feeder: Any) -> None:
        self._feeders.discard(feeder)
        self._close_if_done()

    # Ending.

    def close(self) -> None:
        """No job will be added; the workers stop when all tasks are settled."""
        self._closing = True
        if self._forked or not self._is_robbed():  # else join() ends it
            self._close_if_done()

    def _close_if_done(self) -> None:
        busy = self._submitting or self._feeders or self.backlog
        if self._closing and not (busy or self._forked):
            self.native.PoolClose(self.handle)

    def options(self, call: CallOptions) -> int:
        """Go's number for what a call asks for; 0 for nothing."""
        if call.timeout is None and not call.retries:
            return 0
        pool = self._settings
        timeout = _options.milliseconds(call.timeout)
        if len(self._options) >= _MAX_EXACT_TIMEOUTS:
            timeout = _options.coarser(timeout)
        wanted = (
            timeout,
            call.retries,
            pool.retry_mask,
            _options.milliseconds(pool.retry_backoff),
        )
        number = self._options.get(wanted)
        if number is None:
            number = _core.checked(self.native.OptionsAdd(self.handle, *wanted))
            self._options[wanted] = number
        return number

    def cancel(self, job: Any, tasks: int, terminate: bool) -> bool:
        """Cancel a job of so many unsettled tasks; False where it is too late."""
        if self._forked:
            raise ForkedChildError(_FORKED)
        number = job._job
        if self._terminated or number not in self.cache:
            return False
        if self.native.JobCancel(self.handle, number, tasks, int(terminate)) and tasks == 1:
            return False
        if self.cache.pop(number, None) is None:  # its outcome was quicker, this one or another
            return bool(job._cancelled)
        self.collector.settle_whole(job, _collector.cancelled())
        return True

    def runs(self, job: int) -> bool:
        """Whether a worker has a task of the job and nothing to do before it."""
        return not self._forked and self.native.JobPlace(self.handle, job) == _RUNNING

    def resize(self, size: int) -> None:
        """Change how many workers there are; those that are too many end after their task."""
        if self._forked:
            raise ForkedChildError(_FORKED)
        self.workers = self._submitter.workers = size
        _core.checked(self.native.PoolResize(self.handle, size))
        self.maintenance.ensure_started()
        self.refill()

    def refill(self) -> None:
        """Start workers up to the pool's size, unless it is about to end."""
        if self._forked:
            raise ForkedChildError(_FORKED)
        if not self._closing:
            self.crew.refill()

    def terminate(self) -> None:
        """Drop what is unsettled, end the workers, and wait for them.

        Whoever waits for a result gets PoolTerminatedError. Idle workers are told to stop, busy
        ones get SIGTERM, and SIGKILL after five seconds. May be called more than once, also from
        a callback, which then waits for the workers only. Where it is interrupted another thread
        does it to the end.
        """
        try:
            self.finish()
        except BaseException:
            start_new_thread(rescue, (self.finish,))
            raise

    def finish(self) -> None:
        """terminate() without the other thread."""
        if self._forked:
            return
        self._closing = self._terminated = True
        if not self._listened():
            self._give_back()
        elif self._written_off or self._is_robbed():
            self._write_off()
        else:
            self._terminate()

    def _is_robbed(self) -> bool:
        """Whether the program has closed what wakes the threads of this pool."""
        with self._release_lock:  # after the last of them this side closes it
            if self._running <= 0:
                return False
            return _core.at_hand() is None or not all(map(_fork.is_anonymous, self._owned))

    def _write_off(self) -> None:
        """terminate() without descriptors. What Go has is left as it is: its poller hears nothing
        any more, and the numbers may be those of the program's own files. May be called again.
        """
        self._written_off = True
        self.maintenance._state = stdlib.TERMINATE
        self._drop_tasks()
        self.crew.write_off()
        self.collector.release()
        _engines.discard(self)
        for thread, fd in (
            (self.collector_thread, self._wake_fd),
            (self.maintenance.thread, self._event_fd),
        ):
            if thread is not None:
                interrupt_read(thread, fd)
        self._unwatch()
        _fork.disown_closed()

    def _terminate(self) -> None:
        self.maintenance._state = stdlib.TERMINATE
        if not self._up:
            self.crew.abandon()
        with self._release_lock:
            if self._running:
                self.native.PoolTerminate(self.handle)
                self.maintenance.ensure_started()
                self.maintenance.kill_after(self._settings.kill_grace)
        self._drop_tasks()
        self._submitter.close_regions()
        self._join_threads()

    def _drop_tasks(self) -> None:
        """Submit nothing any more, and fail what is unsettled."""
        self.backlog.stop()
        for feeder in list(self._feeders):
            feeder.stop()
        self._make_room()
        if not _only_daemons_wait():
            self.collector.terminated = PoolTerminatedError(_TERMINATED)
            for number, job in list(self.cache.items()):
                if job is not self.collector.delivering:  # the collector looks after that one
                    self._fail_job(number)

    def _join_threads(self) -> None:
        self.native.Return(self.handle, 0, 0)  # else the collector waits for whoever has borrowed
        # The collector starts the maintenance thread at the latest when it ends itself.
        current = threading.current_thread()
        if self.collector_thread is not current:
            self.collector_thread.join()
        if self.maintenance.thread is not current:
            self.maintenance.join()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the workers and this engine's threads are gone; False: the time is over."""
        if self._forked:
            raise ForkedChildError(_FORKED)
        deadline = None if timeout is None else time.monotonic() + timeout
        self._forget_unstarted()
        if self._is_robbed():
            self.terminate()  # nothing of it will end by itself
        if self._written_off:
            return True
        self._close_if_done()

        def joined(thread: Any) -> bool:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            return deadline is None or not thread.is_alive()

        for feeder in list(self._feeders):
            if isinstance(feeder, IMapFeeder):
                feeder.end_unread(_joined)
        if not joined(self.maintenance):
            return False
        feeders = [] if self._terminated else list(self._feeders)
        return all(joined(thread) for thread in (*feeders, self.backlog, self.collector_thread))

    def _thread_ended(self) -> None:
        if self._forked or self._written_off or self._is_robbed():
            return  # forked: by a callback, whose child came back here
        with self._release_lock:
            self._running -= 1
            if self._running > 0:
                return
        totals = self.native.closed_totals
        for i in range(_core.TOTALS):
            totals[i] += self.native.PoolStat(self.handle, i)
        _engines.discard(self)
        self._release(self.handle)

    def _release(self, handle: int) -> None:
        """Give Go's part of the pool back; its last worker and this side's threads are gone."""
        self.collector.release()
        self.crew.abandon()  # what an interrupted start of a worker has left
        _core.checked(self.native.PoolRelease(handle))
        _fork.unmap(self._rings[0])
        self._unwatch()
        self._places.close()
        _fork.close_all(self._owned)
        # What refers back here would keep this engine, and its threads' objects, until the next
        # garbage collection; and each forked child tidies up every Thread object that there is.
        for part in (self._room, self._feed_room, self.backlog, self.maintenance):
            part.untie()
        warm = getattr(sys.modules.get("gopool._regions"), "warm", None)
        if warm is not None and not _engines:
            warm.drop()

    # Faces.

    def waiting_tasks(self) -> int:
        """Tasks that wait in the backlog, or in Go for a worker."""
        if self._forked:
            return 0
        queued: int = max(0, self.native.PoolStat(self.handle, _QUEUED))
        return queued + len(self.backlog)


def _after_fork_in_child() -> None:
    """Results on their way have descriptors that only Go knows, or a thread that is not here."""
    if _watches:
        _watches.clear()
    # By the weak references themselves: to walk through a WeakSet touches pages in each child.
    for reference in _engines.data:  # type: ignore[attr-defined]
        engine = reference()
        if (
            engine is not None
            and engine._generation == _fork.generation - 1
            and (engine.cache or engine._terminated)
        ):
            _close_strays()
            return


def _close_strays() -> None:
    """Close every descriptor of a region that this process has.

    For a forked child, which uses none: those of results that its parent was about to read are
    nowhere in Python.
    """
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return
    for name in names:
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith(f"/memfd:{REGION}"):
                os.close(int(name))
        except OSError:
            pass  # the listing's own


def _only_daemons_wait() -> bool:
    """Whether the interpreter is exiting and nobody but daemon threads can wait for results.

    They end with the process, without a traceback from each, as in the standard library.
    """
    if not util.is_exiting():
        return False
    main = threading.main_thread()
    return all(thread.daemon or thread is main for thread in threading.enumerate())


def _send_ahead() -> int:
    wish = os.environ.get("GOPOOL_SEND_AHEAD", "auto")
    if wish not in _SEND_AHEAD:
        raise ValueError(f"GOPOOL_SEND_AHEAD is {wish!r}; it may be {', '.join(_SEND_AHEAD)}")
    return _SEND_AHEAD[wish]


_FORKED = (
    "this pool belongs to the parent of this process, whose workers and threads serve it; make a "
    "pool in the child instead"
)
_TERMINATED = (
    "the pool was terminated before this task was done; use close() and join() to let all tasks "
    "finish"
)


def _joined() -> BaseException:
    """What a reader gets that was too late."""
    return GopoolError(
        "the pool was joined before the results of this imap were read, and its buffersize kept "
        "the rest of the input from being drawn; read to the end before join()"
    )


def _exactly(count: int, items: Iterable[Any]) -> Iterator[Any]:
    """So many items, at least one, of an input whose len() may lie, or that changes meanwhile: a
    job of fewer tasks would never end, one of more has no place for their results.

    The last one is given when the input has ended: before that the job must not be complete.
    """
    source = iter(items)
    yield from islice(source, count - 1)
    end = object()
    last = next(source, end)
    if last is end:
        raise ValueError(f"the input gave fewer chunks than its len() promised, {count}")
    for _ in source:
        raise ValueError(f"the input gave more chunks than its len() promised, {count}")
    yield last


def stats_text(native: Any) -> str:
    """The counters of this process's pools and processes, in words."""
    totals = list(native.closed_totals)
    for engine in list(_engines):
        if not engine._forked:
            for i in range(_core.TOTALS):
                totals[i] += max(0, native.PoolStat(engine.handle, i))
    workers, values, errors, lost, broken, crashes = totals
    others = native.ProcessStat(0)
    return (
        f"gopool: the Go core supervised {_counted(workers, 'pool worker')} ({crashes} crashed)"
        + (f" and {_counted(others, 'other process', 'es')}" if others else "")
        + f"; {_counted(values + errors + lost + broken, 'task')}: "
        f"{values} returned, {errors} raised, {lost} lost"
        + (f", {broken} not run" if broken else "")
    )


def _counted(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"
