# SPDX-License-Identifier: MIT
"""Feeders: threads that submit tasks which can't all be submitted at once.

A job of imap has one of its own, which draws from the user's iterable no further ahead of the
workers than a window. What apply_async and map submit beyond the pool's budget of unsettled
payload waits, unpickled, in the backlog, whose feeder keeps the order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    Task = tuple[int, int, int, Any, Any, int]  # job, index, mode, function, arguments, options

# How far imap draws ahead of the workers: items pulled and not finished.
MIN_WINDOW = 64
WINDOW_PER_WORKER = 4


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
        self._changed = threading.Condition()
        self._waiting = 0

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Return when there is room, or when `stopped` says so."""
        with self._changed:
            # Counted before the look: who makes room after it sees the count.
            self._waiting += 1
            try:
                while not stopped() and not self._has_room():
                    self._changed.wait()
            finally:
                self._waiting -= 1

    def changed(self) -> None:
        """Say that there may be room, or that somebody was stopped. Any thread may call."""
        if self._waiting:
            with self._changed:
                self._changed.notify_all()


class TaskFeeder(threading.Thread):
    """Submits tasks in the form of multiprocessing.pool's task queue, as there is room."""

    def __init__(
        self,
        tasks: Iterable[tuple[Any, ...]],
        set_length: Callable[[int], object] | None,
        submit: Callable[[tuple[Any, ...], Callable[[], bool]], None],
        ended: Callable[[threading.Thread], None],
    ) -> None:
        super().__init__(name="gopool-tasks", daemon=True)
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


class IMapFeeder(threading.Thread):
    """Draws the items of one imap job and submits them, within the window."""

    def __init__(
        self,
        job: Any,
        items: Iterable[Any],
        window: int,
        submit: Callable[[int, Any], None],
        fail: Callable[[int, BaseException], None],
        ended: Callable[[threading.Thread], None],
    ) -> None:
        super().__init__(name="gopool-imap", daemon=True)
        self._job = job
        self._items = items
        self._window = window
        self._submit = submit
        self._fail = fail
        self._ended = ended
        self._gate = Gate()
        self._waiting = False
        self._stopped = False
        self.drawn = 0
        job.on_finished = self._on_finished

    def stop(self) -> None:
        """Draw no more items. The thread ends once the user's iterable lets it."""
        self._stopped = True
        self._gate.open()

    def stopped(self) -> bool:
        return self._stopped

    def run(self) -> None:
        try:
            self._draw()
        finally:
            self._job.on_finished = None
            self._items = ()
            self._ended(self)

    def _draw(self) -> None:
        index = -1
        try:
            for index, item in enumerate(self._items):
                if self._stopped:
                    return
                self._submit(index, item)
                item = None  # the task alone holds it
                self.drawn = index + 1
                self._await_room()
        except BaseException as error:
            index += 1
            # As in the standard library, where the error travels behind the tasks before it.
            self._window = 1
            self._await_room()
            if not self._stopped:
                self._fail(index, error)
        if not self._stopped:
            self._job._set_length(index + 1)

    def _await_room(self) -> None:
        while self.drawn - self._job.finished >= self._window and not self._stopped:
            self._waiting = True
            # The collector may have made room before it could see the flag: look again.
            if self.drawn - self._job.finished >= self._window:
                self._gate.wait()
            self._waiting = False

    def _on_finished(self) -> None:
        """Called by the collector: wake at half a window, not at every item."""
        if self._waiting and self.drawn - self._job.finished <= self._window // 2:
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
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.ended: Callable[[], None] = lambda: None

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
                self._thread = threading.Thread(
                    target=self._run, name="gopool-backlog", daemon=True
                )
                self._thread.start()

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

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._stopped:
                    self._thread = None
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
