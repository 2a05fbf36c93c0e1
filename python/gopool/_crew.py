# SPDX-License-Identifier: MIT
"""The crew: starting, reaping and replacing a pool's worker processes.

Python makes the processes, in the calling thread and through the pool's context, because only
CPython can fork itself and because programs replace contexts and Process classes. Go adopts them
and says when one has ended; the pool's maintenance thread reaps it, tells Go the status, and
starts another where Go wants one.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has signal only
import _socket
import contextlib
import os
import sys
import threading
import time
import weakref
from _thread import get_ident
from collections.abc import Callable
from multiprocessing import pool as stdlib
from multiprocessing import util

from gopool import _core, _fork, _forkall, _lastwords, _lifeline, popen
from gopool._lastwords import LastWords
from gopool._threads import Thread, read_event, write_event
from gopool._worker import loop
from gopool._worker.passing import PassedFD

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from gopool._settings import Settings
    from gopool._stderr import Capture

# How long the status of an ended worker may take to come under forkserver, seconds; it is written
# right after the end, so only a forkserver that is stopped or dead takes longer.
_STATUS_TIMEOUT = 5.0


_IMPORT_PATIENCE = 1.0  # seconds

_SUMMONED = -2  # of NextExited: one more worker is asked for

# Of how many ended workers beyond the pool's size the last words are kept.
_SPARE_WORDS = 64


class Member:
    """One worker process, and this process's descriptors for it.

    It is made empty and noted by the crew before it holds anything, so that whoever is interrupted
    while he fills it leaves nothing behind that nobody knows.
    """

    __slots__ = (
        "bell",
        "capture",
        "memory",
        "numbers",
        "owned",
        "peer",
        "pid",
        "pidfd",
        "popens",
        "process",
        "socket",
        "started",
    )

    def __init__(self, bell: int) -> None:
        self.bell = bell
        self.owned: list[int] = []  # its descriptors
        self.process: Any = None
        self.socket = self.peer = self.memory = -1
        self.capture: Capture | None = None
        self.popens: list[Any] = []  # where the process is gopool's: its Popen object
        self.started = False
        self.pid = 0  # until it is started
        self.pidfd = -1  # until it is attached, or where it was gone before
        self.numbers: list[int] = []  # Go's number, once it is attached

    def open(self) -> None:
        """Make the socket pair and the memory. The caller is inside _fork.unforked()."""
        # The C function: only the numbers are wanted, and socket's objects cost 20 us each.
        ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.socket, self.peer = (_fork.hold(self.owned, end.detach) for end in ends)
        self.memory = _lastwords.new_memory(self.owned)

    def passed(self) -> tuple[int, ...]:
        """The descriptors that stay open in the process, where it is forked."""
        writer = -1 if self.capture is None else self.capture.writer
        return self.peer, _lifeline.read_end(), self.memory, writer, self.bell

    def start(self) -> None:
        """Start the process."""
        thread = get_ident()
        here = thread, _fork.generation
        # A handler may start a pool while another is started.
        passing, unadopted = _fork.passing.get(thread), popen.unadopted.get(here)
        try:
            _fork.passing[thread] = self.passed()
            popen.unadopted[here] = self.popens
            self.process.start()
        finally:
            if unadopted is None:
                popen.unadopted.pop(here, None)
            else:
                popen.unadopted[here] = unadopted
            if passing is None:
                _fork.passing.pop(thread, None)
            else:
                _fork.passing[thread] = passing
        self.note_start()

    def note_start(self) -> None:
        """Say that the process is started, and read what it writes to a captured stderr."""
        # Kept, since the user may close the process object; one of a context of the user's own
        # may even have none.
        self.pid = getattr(self.process, "pid", 0)
        self.started = True
        if self.capture is not None:
            self.capture.begin()
        util.debug("added worker")

    def runs(self) -> bool:
        """Whether the process was started and has not ended."""
        return self.started and self.process.exitcode is None

    def open_pidfd(self) -> None:
        """Open the pidfd; not where the process is gone (and reaped) already."""
        try:
            with _fork.unforked():
                pidfd = _fork.hold(self.owned, os.pidfd_open, self.process.pid)
        except ProcessLookupError:
            return
        if not popen.is_another(_foreign_sentinel(self.process)):
            self.pidfd = pidfd

    def kill(self) -> None:
        """Kill the process, and no other, whatever the program has done to its descriptors.

        Another's child without its pidfd ends with its lifeline.
        """
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if _fork.is_pidfd_of(self.pidfd, self.pid):
                _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)
            elif _still_there(self.pid):
                os.kill(self.pid, _signal.SIGKILL)
        for each in self.popens:
            each.finalizer.cancel()  # it would close the program's files
            if each.method == "forkserver":  # which would tell it through one of them
                each.returncode = -_signal.SIGKILL

    def end(self, patience: float) -> None:
        """End the process of which nobody hears, whatever there is of it, and give all back.

        Args:
            patience: seconds that it may take to end by itself.
        """
        if self.started:
            if self.process.exitcode is None:
                self.process.terminate()
                if self.popens:  # a context's own class may have no kill(), nor a join(timeout)
                    self.process.join(patience)
                    if self.process.exitcode is None:
                        self.process.kill()
            self.process.join()
        else:
            for each in self.popens:
                each.undo()
        self.close()
        if self.capture is not None and not self.started:
            self.capture.discard()

    def last_words(self) -> tuple[str, str]:
        """What the ended worker left: its dump, and the end of what it wrote to stderr."""
        if self.capture is None:
            return _lastwords.read_dump(self.memory), ""
        self.capture.pump()
        return _lastwords.read_dump(self.memory), self.capture.text()

    def close(self) -> None:
        """Close the descriptors; a captured stderr is read until its end elsewhere."""
        _fork.close_all(self.owned)


class Crew:
    """The worker processes of one pool.

    `processes` is the pool's public-by-custom `_pool` list, and is changed in place. Safe to call
    from several threads; refill() starts processes with a lock held that nothing else waits for.
    """

    def __init__(
        self,
        pool: Any,
        processes: list[Any],
        arguments: tuple[Any, ...],
        settings: Settings,
    ) -> None:
        """Start no worker yet, and hold nothing.

        Args:
            pool: the Pool object, held weakly.
            processes: its list of processes.
            arguments: the last ones of gopool._worker.loop.main.
            settings: gopool's own keywords of the pool.
        """
        self.bell = -1  # the eventfd by which workers wake the collector
        self.pool = weakref.ref(pool)  # the maintenance thread must not keep the pool alive
        self._processes = processes
        self._arguments = arguments
        self._settings = settings
        self.last_words = LastWords(pool._processes + _SPARE_WORDS)
        self._refilling = threading.RLock()
        self._unattached: list[Member] = []  # from before they hold anything until Go knows them
        self._written_off = False  # who ends is nobody's to reap any more
        self._members: dict[int, Member] = {}
        self._native: Any = None
        self._handle = 0

    def refill(self, most: int | None = None) -> None:
        """Start workers until there are as many as the pool should have, or so many at most.

        Before attach() they wait with what they say.
        """
        with self._refilling:
            pool = self.pool()
            missing = 0 if pool is None else pool._processes - len(self._processes)
            missing = missing if most is None else min(missing, most)
            held = missing > 0 and _can_hold_sigint(pool)
            # All are prepared before the first is forked: after a fork each page that is written
            # is copied, and once more after the next.
            members = [Member(self.bell) for _ in range(missing)]
            try:
                self._unattached += members
                for member in members:
                    self._prepare(member, pool, held)
                if held:
                    self._start_without_sigint(members)
                else:
                    self._start(members)
            finally:
                self._processes.extend(each.process for each in members if each.started)
                for member in (each for each in members if not each.started):
                    self._dismiss(member)
                if self._handle:
                    self._attach_all()

    def _start(self, members: list[Member]) -> None:
        if len(members) > 1 and all(_forkall.fits(member.process) for member in members):
            _forkall.start_all(members)
        else:
            for member in members:
                member.start()

    def _start_without_sigint(self, members: list[Member]) -> None:
        """Block SIGINT in this thread, and in the processes that it starts until they unblock it.

        Ctrl-C reaches a worker that boots too, before its own handler is there. It is not blocked
        here before: _can_hold_sigint() has looked.
        """
        try:
            _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT,))
            self._start(members)
        finally:
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))

    def attach(self, native: Any, handle: int) -> None:
        """Give the started workers, and those to come, to a pool in Go."""
        with self._refilling:
            self._native, self._handle = native, handle
            self._attach_all()

    def _attach_all(self) -> None:
        for member in [each for each in self._unattached if each.started and not each.numbers]:
            try:
                self._attach(member)
            except BaseException:
                self._dismiss(member)
                raise
            self._unattached.remove(member)

    def _dismiss(self, member: Member) -> None:
        """End a worker that nobody listens to; where Go knows it, reap() does the rest."""
        if self._known(member):
            member.process.terminate()
        else:
            member.end(self._settings.kill_grace)
            with contextlib.suppress(ValueError):  # never there, or the user took it out
                self._processes.remove(member.process)
            self._unattached.remove(member)

    def _known(self, member: Member) -> bool:
        """Whether Go has the worker."""
        return bool(member.numbers) and member.numbers[0] > 0

    def _unknown(self) -> list[Member]:
        """What Go does not have, started or not."""
        return [member for member in self._unattached if not self._known(member)]

    def _prepare(self, member: Member, pool: Any, sigint_held: bool) -> None:
        """Make what a worker needs, without starting it."""
        with _fork.unforked():
            member.open()
        member.capture = capture = self._new_capture()
        member.process = process = pool.Process(
            pool._ctx,
            target=loop.main,
            args=(
                PassedFD(member.peer),
                PassedFD(_lifeline.read_end()),
                None if member.memory < 0 else PassedFD(member.memory),
                PassedFD(self.bell),
                None if capture is None else PassedFD(capture.writer),
                sigint_held,
                *self._arguments,
            ),
        )
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = self._settings.daemon

    def _new_capture(self) -> Capture | None:
        if not self._settings.capture_stderr:
            return None
        from gopool._stderr import Capture  # most pools need none

        with _fork.unforked():
            return Capture()

    def _attach(self, member: Member) -> None:
        process = member.process
        member.open_pidfd()
        ends = member.socket, member.peer, member.pidfd, member.memory
        _fork.take(member.numbers, self._native.WorkerAdd, self._handle, process.pid, *ends)
        self._members[_core.checked(member.numbers[0])] = member
        self.tell("start", name=process.name, pid=member.pid)

    def tell(self, kind: str, **about: Any) -> None:
        """Emit an event, where somebody may listen."""
        callback = self._settings.on_event
        if callback is not None or "logging" in sys.modules:
            from gopool import events

            events.emit(events.Event(kind, **about), callback)

    def reap(self, worker: int) -> int:
        """Read the status of an ended worker and tell Go.

        Returns:
            0: no replacement is wanted; else 1 plus the pause before it, in milliseconds.
        """
        with self._refilling:  # who starts a worker registers it before it can be reaped
            member = self._members.pop(worker, None)
            if self._unattached:
                member = self._take_late(worker) or member
        if member is None:
            assert self._written_off
            return 0
        code = _status(member.process)
        asked = self._native.WorkerAsked(self._handle, worker) == 1
        begun = _lastwords.read_begun(member.memory)
        if begun is not None:
            self._native.WorkerBegan(self._handle, worker, begun)
        self.last_words.keep(member.pid, *member.last_words())
        # Before its task is settled: who hears of the loss finds the dead in no list.
        with contextlib.suppress(ValueError):  # the user took it out of the pool's list
            self._processes.remove(member.process)
        verdict = self._native.WorkerReaped(
            self._handle, worker, 0 if code is None else code, int(code is not None)
        )
        member.close()
        name, pid = member.process.name, member.pid
        kind = "end" if asked or code == 0 else "crash"
        self.tell(kind, name=name, pid=pid, exitcode=code)
        return _core.checked(verdict)

    def _take_late(self, worker: int) -> Member | None:
        """The member whose attaching was interrupted once Go had it; it is attached now."""
        late = [each for each in self._unattached if worker in each.numbers]
        self._unattached[:] = [each for each in self._unattached if each not in late]
        return late[0] if late else None

    def abandon(self) -> None:
        """End the workers that were started before Go knew them, and what was prepared."""
        if not self._unattached:
            return  # without the lock, whose holder may be waiting for the thread that is here
        with self._refilling:
            unknown = self._unknown()
            for member in filter(Member.runs, unknown):
                member.process.terminate()
            for member in unknown:
                self._dismiss(member)

    def write_off(self) -> None:
        """Kill the workers of which nobody hears any more, since the program has closed their
        descriptors.
        """
        with self._refilling:
            members = [*self._members.values(), *self._unattached]
            started = [member for member in members if member.started]
            for member in started:
                member.kill()
            for member in started:
                with contextlib.suppress(ValueError):  # the user took it out of the pool's list
                    self._processes.remove(member.process)
                with contextlib.suppress(AssertionError, OSError, ValueError):
                    if _foreign_sentinel(member.process) is None:
                        member.process.join()
                    else:  # its sentinel may be a file of the program's by now
                        _let_go(member.process)
            self._members.clear()
            self._unattached.clear()
            self._written_off = True

    def staffed(self) -> bool:
        """Whether Go has a worker that was not reaped."""
        return bool(self._members) or any(map(self._known, self._unattached))


def _can_hold_sigint(pool: Any) -> bool:
    """Whether workers inherit this thread's signal mask, and the user does not block SIGINT."""
    method = getattr(getattr(pool._ctx, "Process", None), "_start_method", None)
    if method == "spawn":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # it unblocks SIGINT in the thread that starts it
    elif method != "fork":
        return False
    return _signal.SIGINT not in _signal.pthread_sigmask(_signal.SIG_BLOCK, ())


def _foreign_sentinel(process: Any) -> int | None:
    """The sentinel where the process is another's child (the forkserver's), else None."""
    if getattr(process, "_start_method", None) == "forkserver":
        sentinel: int = process.sentinel
        return sentinel
    return None


def _status(process: Any) -> int | None:
    """The exit code of an ended process; None where somebody else reaped it."""
    try:
        # Not join() first: it may wait for the sentinel, which a child that a task has forked
        # holds open.
        code = process.exitcode
        if code is None and _foreign_sentinel(process) is not None:
            process.join(_STATUS_TIMEOUT)
            code = process.exitcode
        if code is None and _still_there(process.pid):
            process.join(_STATUS_TIMEOUT)  # it was killed a moment ago
            code = process.exitcode
    except ValueError:  # the user has closed the process object
        return None
    if code is None:
        _let_go(process)  # nobody will ever read it
    else:
        process.join(0)
    return code if isinstance(code, int) else None


def _let_go(process: Any) -> None:
    """Have multiprocessing look after a process no more, the way join() does."""
    from multiprocessing import process as stdlib_process

    stdlib_process._children.discard(process)  # type: ignore[attr-defined]


def _await_imports() -> None:
    """Wait a second at most until no other thread is at an import.

    A worker that is forked in the middle of one has the module half made. The locks exist while
    an import runs; a program whose main module is imported by another holds one for ever.
    """
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", None)
    deadline = time.monotonic() + _IMPORT_PATIENCE
    while locks and time.monotonic() < deadline:
        time.sleep(0.005)  # nothing tells when an import ends


def _still_there(pid: int) -> bool:
    """Whether a child of this process has not ended."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


class Maintenance:
    """What stands behind a pool's `_worker_handler`: reaps and replaces workers, in a thread.

    `_state` is written by programs that kill a pool by hand: once it is not RUN, nothing is
    replaced. Ends when the last worker of a closed pool was reaped. Not the thread that runs
    callbacks, since a slow callback would keep the pool from refilling. No Thread object is made
    before there is work: each forked child tidies up every one that there is.
    """

    name = "gopool-maintenance"
    daemon = True

    def __init__(self, crew: Crew, native: Any, handle: int, event_fd: int) -> None:
        self._crew = crew
        self._native = native
        self._handle = handle
        self._event_fd = event_fd
        self._due: float | None = None  # when the next replacement is to be started
        self._inline = False  # _run() was called in the thread that joins
        self._kill_at: float | None = None  # when the workers' time to end is over
        self._starting = threading.RLock()  # a signal handler may terminate the pool as well
        self._state = stdlib.RUN
        self.thread: Thread | None = None
        self.ended: Callable[[], None] = _nothing
        self.most: int | None = None  # workers to start at a time

    @property
    def ident(self) -> int | None:
        """As Thread.ident: None before the thread runs."""
        return None if self.thread is None else self.thread.ident

    def ensure_started(self) -> bool:
        """Start the thread if it is not: a pool needs it when its first worker has ended.

        Returns:
            False where no thread can start: Python 3.12 allows none while it shuts down.
        """
        with self._starting:
            if self.thread is None:
                self.thread = Thread(self.name, self._run)
            if not (self.thread.launched or self._inline):
                try:
                    self.thread.start()
                except RuntimeError:
                    return False
        return True

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread; where none can start, do its work here."""
        if self.ensure_started():
            if not self._inline and self.thread is not None:
                self.thread.join(timeout)
            return
        self._inline = True
        self._run()

    def is_alive(self) -> bool:
        """Also before its first work: then it is as good as waiting for it."""
        return self.ident is None or (self.thread is not None and self.thread.is_alive())

    def untie(self) -> None:
        """Forget whom to tell of the end."""
        self.ended = _nothing

    def _run(self) -> None:
        try:
            self._loop()
        finally:
            self.ended()

    def kill_after(self, seconds: float) -> None:
        """Have the workers that are still there then killed. The eventfd is open."""
        if self._kill_at is None:  # who asks again does not put it off
            self._kill_at = time.monotonic() + seconds
        write_event(self._event_fd)

    def _loop(self) -> None:
        while True:
            worker = self._native.NextExited(self._handle)
            if worker > 0:
                self._schedule(self._crew.reap(worker))
            elif worker == _SUMMONED:
                self._schedule(1)
            elif worker == -1:
                if not (self._crew.staffed() and self._wait()):
                    return
            elif not self._wait():
                return
            now = time.monotonic()
            if self._due is not None and now >= self._due:
                self._replace()
            if self._kill_at is not None and now >= self._kill_at:
                self._kill_at = None
                self._native.PoolKill(self._handle)

    def _wait(self) -> bool:
        """Sleep until there is news, or until something is due; False: the program has closed the
        descriptor by which this thread is told.
        """
        due = [moment for moment in (self._due, self._kill_at) if moment is not None]
        if not due or popen.readable(self._event_fd, min(due) - time.monotonic()):
            return read_event(self._event_fd)
        return True

    def _schedule(self, verdict: int) -> None:
        if verdict > 0:
            due = time.monotonic() + (verdict - 1) / 1000
            self._due = due if self._due is None else max(due, self._due)

    def _replace(self) -> None:
        self._due = None
        if self._state != stdlib.RUN:
            return
        _await_imports()
        try:
            self._crew.refill(self.most)
        except Exception as error:
            self._crew.tell("restart", text=f"a worker can't be started: {error}")
            self._schedule(self._native.WorkerNotStarted(self._handle))


def _nothing() -> None:
    pass
