# SPDX-License-Identifier: MIT
"""Feeders: threads that submit tasks which can't all be submitted at once.

A job of imap has one of its own, which draws from the user's iterable no further ahead of the
workers than a window. What apply_async and map submit beyond the pool's budget of unsettled
payload waits, unpickled, in the backlog, whose feeder keeps the order.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from gopool._threads import Thread

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from gopool._runs import Run

    Task = tuple[int, int, int, Any, Any, int]  # job, index, mode, function, arguments, options

# How far imap draws ahead of the workers: tasks drawn and not finished.
MIN_WINDOW = 64
WINDOW_PER_WORKER = 4
MAX_WINDOW = 1024  # for quick tasks, of which workers are sent several ahead
# Work that a wider window may hold, in seconds: for half of it another thread may keep a feeder
# from running (sys.getswitchinterval()).
WINDOW_TIME = 0.01

_NOT, _WORKERS, _READER = range(3)  # whom a feeder waits for


class Gate:
    """Lets one waiting thread through when somebody opens it; an opening is never missed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def open(self) -> None:
        """Any thread, any number of times."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is open already


class Room:
    """Where feeders wait while the pool has as much unsettled payload as it may have."""

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._waiting: set[Gate] = set()

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Return when there is room, or when `stopped` says so."""
        gate = Gate()
        self._waiting.add(gate)  # before the look: who makes room after it sees the gate
        try:
            while True:
                if stopped() or self._has_room():
                    return
                gate.wait()
        finally:
            self._waiting.discard(gate)

    def changed(self) -> None:
        """Say that there may be room, or that somebody was stopped. Any thread may call."""
        if self._waiting:
            for gate in tuple(self._waiting):
                gate.open()

    def untie(self) -> None:
        """Forget whom to ask: the pool has ended, so there is room."""
        self._has_room = _always


def _always() -> bool:
    return True


class TaskFeeder(Thread):
    """Submits tasks in the form of multiprocessing.pool's task queue, as there is room."""

    def __init__(
        self,
        tasks: Iterable[tuple[Any, ...]],
        set_length: Callable[[int], object] | None,
        submit: Callable[[tuple[Any, ...], Callable[[], bool]], None],
        ended: Callable[[threading.Thread], None],
    ) -> None:
        super().__init__("gopool-tasks")
        self._tasks = tasks
        self._set_length = set_length
        self._submit = submit
        self._ended = ended
        self._stopped = False

    def stop(self) -> None:
        """Submit no more. The thread ends once the user's iterable lets it."""
        self._stopped = True

    def run(self) -> None:
        index = -1
        try:
            for task in self._tasks:
                if self._stopped:
                    return
                index = task[1]
                self._submit(task, lambda: self._stopped)
            if self._set_length is not None:
                self._set_length(index + 1)
        finally:
            self._tasks = ()
            self._ended(self)


class Window:
    """How far a feeder may run ahead of the workers, in tasks that are drawn and not finished.

    Wide enough for WINDOW_TIME at the speed that was measured last, within its bounds: tasks that
    take their time leave it at the least.

    Args:
        buffersize: tasks drawn whose results nobody has taken, at most; None: any number.
        clock: seconds.
    """

    def __init__(
        self,
        workers: int,
        buffersize: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.buffersize = buffersize
        self.least = max(MIN_WINDOW, WINDOW_PER_WORKER * workers)
        self.size = self.least
        self._clock = clock
        self._finished = 0
        self._since = clock()

    def room(self, drawn: int, finished: int) -> int:
        """How many tasks more may be drawn."""
        return self.size + finished - drawn

    def wake_at(self, drawn: int, finished: int) -> int:
        """Unfinished tasks at which a feeder without room goes on: not for each."""
        return self.size // 2

    def unread_room(self, drawn: int, taken: int) -> int:
        """How many tasks more the buffer holds."""
        assert self.buffersize is not None
        return self.buffersize + taken - drawn

    def adapt(self, finished: int) -> None:
        """Measure anew, after so many finished tasks in all; grows no faster than twofold."""
        now = self._clock()
        done, took = finished - self._finished, now - self._since
        if done < self.least // 4:
            return  # too few to tell
        self._finished, self._since = finished, now
        wanted = int(done / took * WINDOW_TIME) if took > 0 else MAX_WINDOW
        self.size = max(self.least, min(MAX_WINDOW, 2 * self.size, wanted))


class IMapFeeder(Thread):
    """Draws the tasks of one job and submits them, within the window.

    Args:
        items: the arguments of each task.
        submit: called with index and arguments of each task.
        fail: called with the index and the error of an input that ends with one.
        ended: called with this thread at its end.
    """

    def __init__(
        self,
        job: Any,
        items: Iterable[Any],
        window: Window,
        submit: Callable[[int, Any], None],
        fail: Callable[[int, BaseException], None],
        ended: Callable[[threading.Thread], None],
    ) -> None:
        super().__init__("gopool-imap")
        self._job = job
        self._items = items
        self._window = window
        self._submit = submit
        self._fail = fail
        self._ended = ended
        self._gate = Gate()
        self._waits = _NOT
        self._wake_at = 0  # unfinished tasks at which the collector wakes this thread
        self._stopped = False
        self._lost = False
        self._unread: Callable[[], BaseException] | None = None
        self._drawn = 0  # as of the last look for room
        self._submit_many: Callable[[int], bool] | None = None
        job.on_finished = self._on_finished
        job.on_cancelled = self.stop
        if window.buffersize is not None:
            job.on_taken = self.on_taken

    def draw_with(self, run: Run, submit_many: Callable[[int], bool]) -> None:
        """Draw through a run, for an input that nobody waits for and a window without buffersize.

        Args:
            submit_many: draws and submits up to so many tasks; whether there may be more.
        """
        self._run, self._submit_many = run, submit_many

    def stop(self) -> None:
        """Draw no more items. The thread ends once the user's iterable lets it."""
        self._stopped = True
        self._gate.open()

    def stopped(self) -> bool:
        return self._stopped

    def lose_reader(self) -> None:
        """Draw no more items, since nobody can read: the job ends with those that were drawn."""
        self._lost = True
        self._gate.open()

    def end_unread(self, error: Callable[[], BaseException]) -> None:
        """Wait for no reader any more. Where the input has more than the buffersize lets in, the
        job ends with this error, behind the results.
        """
        self._unread = error
        self._gate.open()

    def run(self) -> None:
        try:
            if self._submit_many is None:
                self._draw()
            else:
                self._draw_many(self._submit_many)
        finally:
            self._job.on_finished = self._job.on_taken = self._job.on_cancelled = None
            self._items = ()
            self._ended(self)
            self._submit = self._fail = self._ended = _nothing  # they refer back here
            self._submit_many = None

    def _draw(self) -> None:
        index, limit = -1, self._await_room(0)
        submit = self._submit
        try:
            for index, item in enumerate(self._items):
                if self._stopped:
                    return
                if index >= limit:  # somebody waits for the end of this thread: see end_unread()
                    index -= 1
                    raise self._unread()  # type: ignore[misc]
                submit(index, item)
                item = None  # the task alone holds it
                if index + 1 >= limit:
                    limit = self._await_room(index + 1)
                    if self._stopped:
                        return
                    if self._lost:
                        break
        except BaseException as error:
            index += 1
            # As in the standard library, where the error travels behind the tasks before it.
            self._await_all(index)
            if not self._stopped:
                self._fail(index, error)
        if not self._stopped:
            self._job._set_length(index + 1)

    def _draw_many(self, submit_many: Callable[[int], bool]) -> None:
        run, more = self._run, True
        while more and not self._stopped:
            limit = self._await_room(run.index)
            while more and run.index < limit and not self._stopped:
                more = submit_many(limit - run.index)
        if not self._stopped:
            self._job._set_length(run.index)

    def _await_room(self, drawn: int) -> int:
        """Wait until more may be drawn; up to which number in all, at the least."""
        self._drawn = drawn
        job, window = self._job, self._window
        while True:
            room = window.room(drawn, job.finished)
            if room <= 0:
                self._wait(_WORKERS, window.wake_at(drawn, job.finished))
                window.adapt(job.finished)
            elif window.buffersize is not None:
                room = min(room, window.unread_room(drawn, job.taken))
                if room > 0 or self._lost or self._unread is not None:
                    return drawn + max(room, 0)
                self._wait(_READER)
            else:
                return drawn + room
            if self._stopped:
                return drawn

    def _await_all(self, drawn: int) -> None:
        self._drawn = drawn
        while drawn > self._job.finished and not self._stopped:
            self._wait(_WORKERS)

    def _wait(self, whom: int, wake_at: int = 0) -> None:
        self._wake_at = wake_at
        self._waits = whom
        # It may have happened before anybody could see that this thread waits: look again.
        if not self._may_go_on(whom):
            self._gate.wait()
        self._waits = _NOT

    def _may_go_on(self, whom: int) -> bool:
        """Whether who waited for them, as one look has shown, need not any more."""
        if whom == _WORKERS:
            return self._drawn - self._job.finished <= self._wake_at or self._stopped
        ended = self._stopped or self._lost or self._unread is not None
        return ended or self._window.unread_room(self._drawn, self._job.taken) > 0

    def _on_finished(self) -> None:
        """Called by the collector: wake at half a window, not at every item."""
        if self._waits == _WORKERS and self._may_go_on(_WORKERS):
            self._gate.open()

    def on_taken(self) -> None:
        """Called by readers."""
        if self._waits == _READER and self._may_go_on(_READER):
            self._waits = _NOT  # once is enough; this thread runs when the reader lets it
            self._gate.open()


class Backlog:
    """Tasks beyond the budget, in one order, and the thread that submits them when there is room.

    The thread exists while there is something to submit.
    """

    def __init__(self, submit: Callable[[Task], None], room: Room) -> None:
        self._submit = submit
        self._room = room
        self._waiting: deque[Iterator[Task]] = deque()
        self._count = 0  # tasks in _waiting
        # Guards what stands above and _thread; user code never runs under it, but a signal
        # handler that submits may interrupt its holder.
        self._lock = threading.RLock()
        self._thread: Thread | None = None
        self._stopped = False
        self.ended: Callable[[], None] = _nothing

    def __bool__(self) -> bool:
        return bool(self._waiting) or self._thread is not None

    def __len__(self) -> int:
        return self._count

    def add(self, tasks: Iterable[Task], count: int) -> None:
        """Queue so many tasks behind those that wait."""
        with self._lock:
            self._waiting.append(iter(tasks))
            self._count += count
            if self._thread is None and not self._stopped:
                self._thread = thread = Thread("gopool-backlog", self._run)
                try:
                    thread.start()
                except BaseException:  # no thread can start
                    if not thread.launched:
                        self._thread = None
                        self._waiting.pop()
                        self._count -= count
                    raise

    def stop(self) -> None:
        """Drop what waits."""
        self._stopped = True
        with self._lock:
            self._waiting.clear()
            self._count = 0
        self._room.changed()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread, if there is one."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def is_alive(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def untie(self) -> None:
        """Forget whom to give tasks and whom to tell of the end: the pool has ended."""
        self._submit = self.ended = _nothing

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._stopped:
                    self._thread = None
                    self._count = 0  # an input that failed gave fewer
                    break
                tasks = self._waiting[0]
            self._drain(tasks)
            with self._lock:
                if self._waiting:
                    self._waiting.popleft()
        self.ended()

    def _drain(self, tasks: Iterator[Task]) -> None:
        for task in tasks:
            self._room.wait(lambda: self._stopped)
            if self._stopped:
                return
            with self._lock:
                if self._stopped:
                    return
                self._count -= 1
            self._submit(task)


def _nothing(*arguments: object) -> None:
    pass
