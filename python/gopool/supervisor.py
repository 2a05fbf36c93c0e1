# SPDX-License-Identifier: MIT
"""Supervisor: long-running processes, started again by policies when they end.

The tradition is that of Erlang's supervisors with the strategy one_for_one. Go decides
(gopool/supervisor.go); one thread here waits for ends, without polling, and starts processes again.
So a restart under fork is a fork in that thread.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing import util

from gopool import _core, _fork, _options, popen
from gopool._threads import read_event
from gopool.exceptions import ForkedChildError, GopoolError, SupervisorError

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Child", "Supervisor"]

_POLICIES = {"never": 0, "on-failure": 1, "always": 2}  # gopool.Restart
_GIVE_UP = -1  # of SupervisorEnded


class Child:
    """One supervised process, through all its restarts. Made by Supervisor.add().

    Attributes:
        name: str, its name; the processes have it too.
        restart: str, "never", "on-failure" or "always".
        state: str, "running", "waiting" (to be started again), "ended" (for good) or "removed".
        restarts: int, how often it was started again.
        exitcode: int, of its last end: negative for a signal; None where it has not ended yet, or
            nobody knows.
    """

    def __init__(self, number: int, name: str, restart: str, make: Callable[[], Any]) -> None:
        self.name = name
        self.restart = restart
        self.state = "waiting"
        self.restarts = 0
        self.exitcode: int | None = None
        self.stop_timeout = 0.0
        self._number = number
        self._make = make
        self._process: Any = None
        self._pidfd = -1
        self._due = 0.0  # monotonic time of the next start, while it waits

    @property
    def pid(self) -> int | None:
        """The number of the process that runs; None where none does."""
        process = self._process  # read once: the supervisor's thread forgets it at its end
        return None if process is None else process.pid

    def __repr__(self) -> str:
        return f"<Child {self.name!r} {self.state}, pid {self.pid}, {self.restarts} restarts>"


class Supervisor:
    """Starts processes, and starts them again when they end.

    Args:
        intensity: int >= 0, restarts of all children within `period` seconds that are borne. One
            more, and all children are stopped and wait() raises SupervisorError.
        period: seconds; also how long a child must run for its back-off to begin anew.
        backoff: (first, longest) seconds before a restart; doubles with each bad end, less a
            random part of up to a half.
        context: the context whose Process is started; by default gopool's.
        stop_timeout: seconds between SIGTERM and SIGKILL where a child is stopped. Both go to its
            whole tree of processes.
        on_event: called with each gopool.events.Event, mostly in the supervisor's thread.

    A supervisor lives until stop(), the end of its `with` block, or the interpreter's exit. Methods
    may be called from any thread. Needs the Go core.

    Raises:
        GopoolError: Go can't be loaded under this process's limits.
        TypeError, ValueError: an argument is of a wrong type or out of its range.

    Source: the OTP design principles' supervisor behaviour (restart intensity and period).
    """

    def __init__(
        self,
        *,
        intensity: int = 3,
        period: float = 5.0,
        backoff: tuple[float, float] = (0.1, 5.0),
        context: Any = None,
        stop_timeout: float = 5.0,
        on_event: Callable[[Any], object] | None = None,
    ) -> None:
        first, longest = backoff
        numbers = (
            _options.count("intensity", intensity),
            _options.milliseconds(_options.positive("period", period)),
            _options.milliseconds(_options.not_negative("backoff", first)),
            _options.milliseconds(_options.not_negative("backoff", longest)),
        )
        self._stop_timeout = _options.not_negative("stop_timeout", stop_timeout)
        if on_event is not None and not callable(on_event):
            raise TypeError("on_event must be a callable")
        obstacle = _core.obstacle()
        if obstacle is not None:
            raise GopoolError(f"a Supervisor needs the Go core: {obstacle}")
        if context is None:
            from gopool import context as own

            context = own._default_context.get_context()
        self._context = context
        self._on_event = on_event
        self._native = _core.load()
        self._generation = _fork.generation
        self._handle = _core.checked(self._native.SupervisorOpen(*numbers))
        self._children: list[Child] = []
        self._changed = threading.Condition(threading.RLock())
        self._stopping = False
        self._failure: SupervisorError | None = None
        self._told = False  # wait() has raised it
        self._closed = False
        with _fork.unforked():
            self._wake_fd = _fork.own(os.eventfd(0, os.EFD_CLOEXEC))
        self._thread = threading.Thread(target=self._run, name="gopool-supervisor", daemon=True)
        self._thread.start()
        # Before multiprocessing joins what is not daemonic.
        self._finalizer = util.Finalize(self, Supervisor._shut, args=(self,), exitpriority=15)

    def add(
        self,
        target: Callable[..., object],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        name: str | None = None,
        restart: str = "on-failure",
        daemon: bool | None = None,
        stop_timeout: float | None = None,
    ) -> Child:
        """Start a child in the calling thread, and supervise it from now on.

        Args:
            target, args, kwargs, daemon: as of multiprocessing.Process.
            name: of the child; by default the function's.
            restart: "on-failure" (a status other than 0, or an unknown one), "always" or "never".
            stop_timeout: the child's own; None: the supervisor's.

        Raises:
            ValueError: the policy is unknown, or the supervisor is stopped.
            whatever starting a process raises; the child is not added then.
        """
        self._check()
        if restart not in _POLICIES:
            raise ValueError(f"restart must be one of {', '.join(_POLICIES)}, not {restart!r}")
        title = name or str(getattr(target, "__name__", type(target).__name__))
        arguments = tuple(args), dict(kwargs or {})

        def make() -> Any:
            positional, keywords = arguments
            return self._context.Process(
                target=target, name=title, args=positional, kwargs=keywords, daemon=daemon
            )

        with self._changed:
            if self._stopping:
                raise ValueError("the supervisor is stopped")
            number = _core.checked(self._native.SupervisorAdd(self._handle, _POLICIES[restart]))
            child = Child(number, title, restart, make)
            child.stop_timeout = (
                self._stop_timeout
                if stop_timeout is None
                else _options.not_negative("stop_timeout", stop_timeout)
            )
            try:
                self._start(child)
            except BaseException:
                self._native.SupervisorRemove(self._handle, number)
                raise
            self._children.append(child)
        self._wake()
        return child

    def children(self) -> list[Child]:
        """The children, in the order in which they were added."""
        with self._changed:
            return list(self._children)

    def remove(self, child: Child) -> None:
        """Stop a child, with its tree, and forget it. Blocks until it has ended.

        Raises:
            ValueError: it is none of this supervisor's.
        """
        self._check()
        with self._changed:
            self._children.remove(child)
            self._native.SupervisorRemove(self._handle, child._number)
            process, child.state = self._detach(child), "removed"
        self._end(child, process)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until no child runs or will run again.

        Returns:
            False where the time is over before.

        Raises:
            SupervisorError: the children were stopped after too many restarts.
        """
        self._check()
        with self._changed:
            done = self._changed.wait_for(self._is_done, timeout)
        if self._failure is not None:
            self._told = True
            raise self._failure
        return done

    def stop(self) -> None:
        """Stop all children, the last added first, each with its tree. Blocks until they ended.

        May be called more than once, and after a failure, which it does not raise.
        """
        if self._generation == _fork.generation:
            self._finalizer()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Stop all children; raises the failure that wait() has not told."""
        self.stop()
        if kind is None and self._failure is not None and not self._told:
            raise self._failure

    def _check(self) -> None:
        if self._generation != _fork.generation:
            raise ForkedChildError("this supervisor belongs to the parent of this process")

    def _is_done(self) -> bool:
        return not any(child.state in ("running", "waiting") for child in self._children)

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    # Starting and ending one child. `_changed` is held.

    def _start(self, child: Child) -> None:
        process = child._make()
        process.start()
        pidfd = popen.open_pidfd(process.pid, _foreign_sentinel(process))
        child._pidfd = _fork.own(pidfd) if pidfd >= 0 else -1
        child._process, child.state = process, "running"
        self._tell("start", child, pid=process.pid, attempt=child.restarts + 1)

    def _detach(self, child: Child) -> Any:
        """Take a child out of the thread's hands; returns its process if it runs."""
        if child.state != "running":
            return None
        process, child._process = child._process, None
        return process

    def _ended(self, child: Child) -> None:
        """A child's process has ended: ask Go what to do."""
        process = child._process
        pid = process.pid
        process.join()
        child.exitcode = code = process.exitcode
        child._process = None
        _fork.close(child._pidfd)
        child.state = "ended"
        self._tell("end" if code == 0 else "crash", child, pid=pid, exitcode=code)
        if self._stopping:
            return
        known = code is not None
        verdict = self._native.SupervisorEnded(
            self._handle, child._number, code if known else 0, int(known)
        )
        if verdict == _GIVE_UP:
            self._give_up(child)
        elif _core.checked(verdict) > 0:
            child.state = "waiting"
            child._due = time.monotonic() + (verdict - 1) / 1000

    def _give_up(self, child: Child) -> None:
        self._failure = SupervisorError(child.name, child.restarts, child.exitcode)
        self._stopping = True
        self._tell("broken", child, text=str(self._failure))

    def _restart(self, child: Child) -> None:
        child.restarts += 1
        try:
            self._start(child)
        except Exception as error:
            child.exitcode = None
            child.state = "ended"
            self._tell("crash", child, text=f"it can't be started: {error}")
            verdict = self._native.SupervisorEnded(self._handle, child._number, 0, 0)
            if verdict == _GIVE_UP:
                self._give_up(child)
            elif verdict > 0:
                child.state = "waiting"
                child._due = time.monotonic() + (verdict - 1) / 1000
            return
        self._native.SupervisorStarted(self._handle, child._number)
        self._tell("restart", child, pid=child.pid, attempt=child.restarts + 1)

    def _tell(self, kind: str, child: Child, **about: Any) -> None:
        from gopool import events

        events.emit(events.Event(kind, name=child.name, **about), self._on_event)

    # The thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                self._look()
                self._changed.notify_all()
                failed = self._failure is not None
            if failed:
                self._stop_children()
            self._sleep()

    def _look(self) -> None:
        """Deal with what has ended and with what is due."""
        for child in list(self._children):
            if child.state == "running" and child._process is not None and _has_ended(child):
                self._ended(child)
            if child.state == "waiting" and not self._stopping and time.monotonic() >= child._due:
                self._restart(child)

    def _sleep(self) -> None:
        """Until a child has ended, one is due, or somebody wakes the thread."""
        with self._changed:
            pidfds, pause = self._awaited()
        self._wait(pidfds, pause)

    def _awaited(self) -> tuple[list[int], float | None]:
        """What the thread waits for: pidfds, and for so many seconds at most."""
        running = [child._pidfd for child in self._children if child.state == "running"]
        due = [child._due for child in self._children if child.state == "waiting"]
        pause = max(0.0, min(due) - time.monotonic()) if due else None
        if any(pidfd < 0 for pidfd in running):
            pause = 0.0  # it had ended before it could be watched
        return [pidfd for pidfd in running if pidfd >= 0], pause

    def _wait(self, pidfds: list[int], pause: float | None) -> None:
        import select

        poller = select.poll()
        for fd in (self._wake_fd, *pidfds):
            poller.register(fd, select.POLLIN)
        ready = poller.poll(None if pause is None else pause * 1000 + 1)
        if any(fd == self._wake_fd for fd, _ in ready) and not read_event(self._wake_fd):
            raise OSError(errno.EBADF, "the program has closed a Supervisor's descriptor")

    # The end.

    def _shut(self) -> None:
        """What stop() and the interpreter's exit do."""
        with self._changed:
            self._stopping = True
        self._stop_children()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._native.SupervisorClose(self._handle)
        _fork.close(self._wake_fd)

    def _stop_children(self) -> None:
        for child in reversed(self.children()):
            with self._changed:
                process = self._detach(child)
                if child.state == "waiting":
                    child.state = "ended"
                    self._changed.notify_all()
            self._end(child, process)

    def _end(self, child: Child, process: Any) -> None:
        """End a child that was taken out of the thread's hands."""
        if process is None:
            return
        try:
            self._signal(process.terminate)
            process.join(child.stop_timeout)
            if process.exitcode is None:
                self._signal(process.kill)
                process.join()
        finally:
            with self._changed:
                _fork.close(child._pidfd)
                child.exitcode = process.exitcode
                if child.state == "running":
                    child.state = "ended"
                self._tell("end", child, pid=process.pid, exitcode=process.exitcode)
                self._changed.notify_all()

    @staticmethod
    def _signal(method: Callable[..., None]) -> None:
        """Send a signal to a process and its tree; of a foreign context's, to itself alone."""
        try:
            method(tree=True)
        except TypeError:
            method()
        except GopoolError:
            method()  # part of the tree was not reached: at least the process itself


def _has_ended(child: Child) -> bool:
    return child._pidfd < 0 or popen.readable(child._pidfd, 0)


def _foreign_sentinel(process: Any) -> int | None:
    """The sentinel where the process is another's child (the forkserver's), else None."""
    if getattr(process, "_start_method", None) == "forkserver":
        sentinel: int = process.sentinel
        return sentinel
    return None
