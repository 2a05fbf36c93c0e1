# SPDX-License-Identifier: MIT
"""How processes start: the standard library's Popen classes, whose processes Go adopts.

Death and status are two facts. Death is an event: a pidfd in Go's poller, or what join() waits
for. The status has one reader at a time, _reap() here, who reaps and then tells Go; where somebody
else reaped the process, it stays unknown.

A program that only starts processes does not load Go: that would make each of its forks a quarter
slower (docs/design.md has the figures) and nothing better. Where a pool has loaded it, Go adopts
every process. For the same reason little is imported here: after a fork each page that is
touched is copied.

ForkPopen is here; SpawnPopen and ForkServerPopen are in modules of their own, as in the standard
library.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from _thread import RLock, _count, get_ident
from collections.abc import Callable
from functools import partial
from itertools import chain, starmap
from multiprocessing import popen_fork, util
from multiprocessing import process as stdlib_process

from gopool import _fork

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

_CORE = "gopool._core"
# How many objects a child may make without a collection; arbitrary: one that does nothing makes 20.
_OBJECTS_OF_A_CHILD = 200
# With so few young objects no collection is near, by a threshold of 700 or more; where a program
# has chosen a smaller one, its children collect.
_FEW_OBJECTS = 700 - _OBJECTS_OF_A_CHILD
_HAS_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT  # for waitid, which reaps nothing then

# By thread, with its process: where to note the Popen objects that it makes. They are a pool's, who
# adopts its workers by itself, and ends one whose start was interrupted.
unadopted: dict[tuple[int, int], list[Adopted]] = {}


def open_pidfd(pid: int, sentinel: int | None = None) -> int:
    """A pidfd of a child; -1 where it is gone (and reaped) already.

    Under forkserver the child is somebody else's, who may have reaped it, and its number may
    mean another process by now: its sentinel is ready then.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if is_another(sentinel):
        os.close(pidfd)
        return -1
    return pidfd


def is_another(sentinel: int | None) -> bool:
    """Whether the number of a forkserver's child, with this sentinel, may be another's by now."""
    return sentinel is not None and readable(sentinel, 0)


def readable(fd: int, timeout: float | None) -> bool:
    """Wait until a descriptor is readable, seconds or for ever; signals are handled meanwhile."""
    import select

    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else max(0.0, timeout * 1000)))


def loaded_go() -> Any:
    """Go's functions where they are loaded and can watch a process, else None."""
    # The module has no such function while another thread is importing it.
    at_hand = getattr(sys.modules.get(_CORE), "at_hand", None)
    return None if at_hand is None else at_hand()


class Adopted:
    """What adoption adds to a Popen class; `super()` is the standard library's."""

    # Under forkserver the child is not ours: when it ends, its status follows on the sentinel.
    _status_on_sentinel = False
    _pidfd = -1
    _process = 0  # Go's number
    _over = False  # somebody has waited until it had ended
    _release: Any = None
    rusage: Any = None  # resource.struct_rusage once the status was read, never under forkserver
    returncode: int | None = None
    finalizer: Any = None  # closes the ends of pipes
    sentinel: int
    pid: int

    def __init__(self, process_obj: Any) -> None:
        # One reader of the status at a time; never held waiting. Reentrant, since a handler of
        # SIGCHLD that calls active_children() may interrupt the reader.
        self._reaping = RLock()
        self._generation = _fork.generation
        self._told: list[Any] = []  # what os.wait4() said
        noted = unadopted.get((get_ident(), _fork.generation)) if unadopted else None
        if noted is not None:
            noted.append(self)
        try:
            native = loaded_go() if _CORE in sys.modules else None
            if native is not None:
                self._heed(native)
            super().__init__(process_obj)  # type: ignore[call-arg]
            if native is not None and noted is None:
                self._adopt(native)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """End what was started, whose start() has failed, without anybody knowing it. It may be
        called again where it was interrupted.
        """
        if getattr(self, "pid", 0) > 0:
            try:
                if self.returncode is None:
                    os.kill(self.pid, 9)
            except ProcessLookupError:
                pass  # somebody else reaped it
            self.wait()
        for finalizer in (self._release, self.finalizer):
            if finalizer is not None:
                finalizer()

    def _heed(self, native: Any) -> None:
        """Prepare to start a process beside a loaded Go."""

    def _adopt(self, native: Any) -> None:
        pidfds: list[int] = []
        numbers: list[int] = []  # Go's
        # Each step is noted as it is made: an exception of a signal's handler loses none.
        self._release = util.Finalize(self, _release, args=(native, numbers, pidfds))
        try:
            _fork.take(pidfds, os.pidfd_open, self.pid)
        except OSError:
            return  # no descriptor is left, or pidfds are forbidden here: it goes without Go
        if is_another(self.sentinel if self._status_on_sentinel else None):
            _fork.close_all(pidfds)
            return
        self._pidfd = _fork.own(pidfds[0])
        _fork.take(numbers, native.ProcessAdopt, self.pid, self._pidfd)
        # A negative number: Go's poller has no room for it.
        self._process = max(numbers[0], 0)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        return self.wait() if flag == 0 else self._reap()

    def _reap(self) -> int | None:
        """Read the status if there is one, and give it; one thread at a time."""
        if self.returncode is not None:
            return self.returncode
        if self._generation != _fork.generation:  # by a handler, maybe, while this one waited
            _leave_to_parent()
            return None
        code: int | None
        with self._reaping:
            if self.returncode is not None:  # read while this one waited for the lock
                return self.returncode
            if not self._status_on_sentinel and self._read_status():
                code = self.returncode
            else:
                code = super().poll(os.WNOHANG)  # type: ignore[misc]
            if code is None:
                code = self.returncode  # read meanwhile, by a signal handler's poll()
        if code is not None and self._process:
            self._report(code)
        return code

    def _read_status(self) -> bool:
        """Reap the child if it has ended, with what it used; False where it is not to be had here.

        Then the standard library's poll() asks again, by os.waitpid, which other packages replace
        (gevent's knows the children that gevent has reaped).
        """
        told = self._told
        try:
            if not (told and told[-1][0]):  # else an interrupted look has reaped it
                # start() looks at each child before it forks, and most run: that is quicker so.
                if not self._over and os.waitid(os.P_PID, self.pid, _HAS_ENDED) is None:
                    return True
                told.extend(starmap(os.wait4, ((self.pid, os.WNOHANG),)))  # as in fork()
        except ChildProcessError:
            return False
        for pid, status, usage in tuple(told):
            if pid:
                self.returncode, self.rusage = os.waitstatus_to_exitcode(status), usage
                return True
        told.clear()
        return True

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end, which reaps nothing, and read the status."""
        # In a child of os.fork there is nothing to wait for; _reap() looks after that.
        if self.returncode is not None or self._generation != _fork.generation:
            return self._reap()
        if timeout is None and self._pidfd < 0 and not self._status_on_sentinel:
            try:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                pass  # somebody else reaped it
        elif not self._await_by_descriptor(timeout):
            return None
        self._over = True
        return self._reap()

    def _await_by_descriptor(self, timeout: float | None) -> bool:
        if self._status_on_sentinel:
            return readable(self.sentinel, timeout)
        if self._pidfd >= 0:
            return readable(self._pidfd, timeout)
        return self._await_by_pidfd(timeout)

    def _await_by_pidfd(self, timeout: float | None) -> bool:
        made: list[int] = []
        try:
            _fork.take(made, os.pidfd_open, self.pid)
            return readable(made[0], timeout)
        except ProcessLookupError:
            return True
        except OSError:  # no descriptor is left, or pidfds are forbidden here
            return readable(self.sentinel, timeout)
        finally:
            if made:
                os.close(made[0])

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        if self._release is not None:
            self._pidfd = -1
            self._release()

    def _report(self, code: int) -> None:
        process, self._process = self._process, 0
        native = loaded_go()
        if native is not None:
            native.ProcessReaped(process, code, 1)


def _release(native: Any, numbers: list[int], pidfds: list[int]) -> None:
    """Give up the watch and the descriptor of a process that nobody can ask for any more."""
    if numbers and numbers[0] > 0:
        native.ProcessReaped(numbers[0], 0, 0)  # refused where its end was reported before
    _fork.close_all(pidfds)


class ForkPopen(Adopted, popen_fork.Popen):
    """multiprocessing.popen_fork.Popen with adoption, whose start may be interrupted.

    _launch() is the standard library's but for this: what a call of C gives is noted in the same
    step, so that an exception of a signal's handler loses neither the child nor a pipe.
    """

    _ends: list[int]  # of the two pipes
    _forked: list[int]  # what fork() gave

    def fork(self, process_obj: Any) -> None:
        """Make the pipes and the process, which does not come back from here.

        All that can be done before the fork is: after it the child and this process copy pages at
        the same time, and each waits for the other.
        """
        code = 1
        if gc.get_count()[0] > _FEW_OBJECTS:
            _collect_if_soon_due()
        # Threads made by Python, and those made in C that run Python code.
        threads = _count() or len(sys._current_frames()) > 1
        if threads:
            from gopool import _inherited
        self._ends, self._forked = [], []
        self._ends.extend(chain.from_iterable(starmap(os.pipe, ((), ()))))
        parent_r, _, child_r, parent_w = self._ends
        # By the list: whatever else closes them, nothing is closed twice.
        self.finalizer = util.Finalize(self, _fork.close_all, (self._ends,))
        self.sentinel = parent_r
        try:
            if threads:
                _fork.first_in_child[get_ident()] = _inherited.renew
            # By itself: after a fork each function that is called has pages copied, on both sides.
            self._forked.extend(starmap(os.fork, ((),)))
        finally:
            if threads:
                _fork.first_in_child.pop(get_ident(), None)
        if self._forked == [0]:
            try:
                if sys.version_info >= (3, 13):
                    atexit._clear()
                    atexit.register(util._exit_function)  # type: ignore[attr-defined]
                os.close(parent_r)
                os.close(parent_w)
                code = process_obj._bootstrap(parent_sentinel=child_r)
            finally:
                if sys.version_info >= (3, 13):
                    atexit._run_exitfuncs()
                os._exit(code)
        # Those of the child, each taken out and closed in one step.
        _ = [*map(os.close, map(self._ends.pop, (1, 1)))]
        (self.pid,) = self._forked

    _launch = fork

    def _heed(self, native: Any) -> None:
        # Of this object alone: without Go each child would pay for one more call.
        self._launch = partial(self._launch_beside_go, native)  # type: ignore[method-assign]

    def _launch_beside_go(self, native: Any, process_obj: Any) -> None:
        del self._launch  # it refers back to this object
        fork_beside_go(native, partial(self._launch, process_obj))

    def undo(self) -> None:
        try:
            if self.__dict__.get("_forked"):
                (self.pid,) = self._forked
                super().undo()
        finally:
            _fork.close_all(self.__dict__.get("_ends", []))


def _collect_if_soon_due() -> None:
    """Have the younger objects collected here, once, where each child from now on would do it,
    which copies their pages. As Python would: the middle generation in its turn; and where all
    are due it is left to Python, who would never come to it else.
    """
    young, middle, old = gc.get_count()
    due, due_middle, due_old = gc.get_threshold()
    if gc.isenabled() and due and young > due - _OBJECTS_OF_A_CHILD and old <= due_old:
        gc.collect(int(middle > due_middle))


def fork_beside_go(native: Any, fork: Callable[[], None]) -> None:
    """Call what forks; Go's heap stays out of the children, and no warning tells of its threads.

    No lock is held: os.fork() takes other packages' locks, whose holders may fork as well.
    """
    from gopool import _heap
    from gopool._worker._lane import leave_out_of_forks

    try:
        _heap.leave_out(native)
        _quietly(fork)
    finally:
        leave_out_of_forks()
        _heap.own.clear()


def _quietly(fork: Callable[[], None]) -> None:
    if sys.version_info >= (3, 12):
        from gopool._forkwarning import without_fork_warning

        with without_fork_warning():
            fork()
    else:
        fork()


def _leave_to_parent() -> None:
    """In a child of os.fork, forget the parent's processes: at its exit it ends all it knows.

    multiprocessing does so in its own children only. Here it is done when the child first looks
    at one, which active_children() does.
    """
    for process in list(stdlib_process._children):  # type: ignore[attr-defined]
        popen = process._popen
        if isinstance(popen, Adopted) and popen._generation != _fork.generation:
            stdlib_process._children.discard(process)  # type: ignore[attr-defined]
            popen._pidfd, popen._process = -1, 0  # closed here, and a number of the parent's Go
