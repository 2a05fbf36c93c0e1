# SPDX-License-Identifier: MIT
"""An exception of a signal's handler, at every moment of a pool's life at which one can come.

The pools are plain ones under fork, and their data is small (docs/design.md, section 12).

A handler runs where Python code calls or returns from C. A profile function is called at the same
moments, so one that raises at the n-th, for n = 1, 2, 3 and so on, goes through all of them. After
each nothing may be left: no descriptor, thread or child, and no pool in Go. In a storm more follow,
from a timer, while what the first one cut short is cleared up.

Every few moments are for every day; GOPOOL_CHAOS=1 (`make chaos`) takes each one.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _core, _fork, _heap, popen

LONG = bool(os.environ.get("GOPOOL_CHAOS"))
PATIENCE = 20  # seconds for what must come

pytestmark = [
    pytest.mark.timeout(1_800 if LONG else 120),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Alarm(BaseException):
    """What the handler raises."""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a weak reference's callback, or in __del__, is nobody's."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)


class Moments:
    """Raises Alarm at the n-th moment of a block; in a storm, again after each so many seconds,
    there and in the blocks that come after it.
    """

    def __init__(self, which: int, pause: float = 0.0) -> None:
        self._left = which
        self._pause = pause
        self._process = os.getpid()
        self._watching = False
        self.where = ""

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_return") or os.getpid() != self._process:
            return
        if frame.f_code.co_filename in _SPARED:
            return
        self._left -= 1
        if self._left == 0:
            name = argument.__name__ if event == "c_return" else "its first line"
            code = frame.f_code
            self.where = f"{code.co_filename}:{frame.f_lineno}, {code.co_name}, {name}"
            self._go_on()
            raise Alarm

    def _go_on(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._pause)

    def _handle(self, number: int, frame: Any) -> None:
        """The storm's handler. It raises in gopool; the test itself and logging go on."""
        if not self._watching:
            return
        self._go_on()
        files = set()
        while frame is not None:
            files.add(frame.f_code.co_filename)
            frame = frame.f_back
        if logging.__file__ not in files and any(file.startswith(_PACKAGE) for file in files):
            raise Alarm

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        handler = signal.signal(signal.SIGALRM, self._handle)
        try:
            self._watching = True
            if self.where:
                self._go_on()
            else:
                sys.setprofile(self)
            yield
        finally:
            self._watching = False
            sys.setprofile(None)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


_PACKAGE = os.path.dirname(gopool.__file__) + "/"
# Where nothing is raised: logging's lock, taken round each fork, is left taken by an exception in
# its own functions, and nobody who logs goes on then; what watches here would watch for ever.
_SPARED = {logging.__file__, contextlib.__file__, __file__}


class Holdings:
    """What this process has."""

    def __init__(self) -> None:
        gc.collect()
        self.descriptors = _descriptors()
        self.children = _children()
        self.threads = set(threading.enumerate())
        self.pools = _core.load().PoolCount()
        # What is so round a fork only.
        self.forking = bool(_heap.own or _fork.passing or popen.unadopted)

    def more(self, than: Holdings) -> list[str]:
        """What is here and was not there, in words."""
        words = [f"{fd} -> {what}" for fd, what in self.descriptors - than.descriptors]
        words += [f"child {pid}" for pid in self.children - than.children]
        words += [f"{thread}" for thread in self.threads - than.threads]
        if self.pools > than.pools:
            words.append(f"{self.pools - than.pools} pools in Go")
        if self.forking:
            words.append("what is so round a fork")
        return words


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return {(fd, target) for fd, target in found if "gopool-staging" not in target}


def _children() -> set[str]:
    """All children, also those that are no Process of anybody's."""
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as file:
            found.update(file.read().split())
    return found


def left(before: Holdings) -> list[str]:
    deadline = time.monotonic() + PATIENCE
    while (more := Holdings().more(before)) and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    return more


def sweep(life: Callable[[Any], None], step: int, pauses: Iterator[float]) -> None:
    """Live a pool's life with an exception at the first moment, the next after so many, and so on.

    Args:
        life: called with what raises. It is to end what it has, if need be again.
        step: moments from one exception to the next.
        pauses: seconds from one exception of a storm to the next; 0: it is none.
    """
    life(Moments(0))
    before, which, failures = Holdings(), 0, []
    while True:
        which += step
        moments = Moments(which, next(pauses))
        life(moments)
        if not moments.where:
            break
        if more := left(before):
            failures.append(f"{which} at {moments.where}: {more}")
            before = Holdings()
    print(f"\n{which // step} moments")
    assert not failures, "\n".join(failures)


CONTEXT = gopool.get_context("fork")


def make(moments: Moments) -> None:
    pool = None
    with contextlib.suppress(Alarm), moments.watch():
        pool = CONTEXT.Pool(2)
    if pool is not None:
        assert pool.map(f.square, range(3)) == [0, 1, 4]
        pool.terminate()
        pool.join()


def ended_by(how: Callable[[Any], None]) -> Callable[[Moments], None]:
    """A life whose end is interrupted, and then asked for again."""

    def life(moments: Moments) -> None:
        pool = CONTEXT.Pool(2)
        assert pool.map(f.square, range(3)) == [0, 1, 4]
        for _ in range(4):
            with contextlib.suppress(Alarm), moments.watch():
                how(pool)
        how(pool)

    return life


def terminate(pool: Any) -> None:
    pool.terminate()
    pool.join()


def close(pool: Any) -> None:
    pool.close()
    pool.join()


def drop(moments: Moments) -> None:
    pool = CONTEXT.Pool(2)
    assert pool.map(f.square, range(3)) == [0, 1, 4]
    with contextlib.suppress(Alarm), moments.watch():
        del pool


def use(moments: Moments) -> None:
    with contextlib.suppress(Alarm):
        pool = CONTEXT.Pool(2)
        try:
            with moments.watch():
                assert pool.map(f.square, range(3), 1) == [0, 1, 4]
                assert list(pool.imap(f.square, range(3))) == [0, 1, 4]
                assert pool.apply(f.square, (3,)) == 9
        finally:
            pool.close()
            pool.join()


LIVES = {
    "make": make,
    "terminate": ended_by(terminate),
    "close": ended_by(close),
    "drop": drop,
    "use": use,
}


# From one exception to the next; primes, so that no loop's same turn is always met.
STEPS = {"make": 7, "terminate": 7, "close": 5, "drop": 5, "use": 7}


@pytest.mark.parametrize("life", LIVES)
def test_every_moment(life: str) -> None:
    """One exception at any moment leaves nothing behind, and lets the pool be ended."""
    sweep(LIVES[life], 1 if LONG else STEPS[life], itertools.repeat(0.0))


@pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="a handler may come between an exception and the finally, the except or the with that "
    "it goes to, and another exception there skips what they do",
)
@pytest.mark.parametrize("life", LIVES)
def test_storm(life: str) -> None:
    """Nor do more that follow, 0.1 to 5 ms from one to the next."""
    pauses = (1e-4 * 50 ** (turn * 0.618 % 1) for turn in itertools.count())
    sweep(LIVES[life], 1 if LONG else 2 * STEPS[life] + 1, pauses)


FIRST_LOAD = """
import os, sys
import gopool.pool
from gopool import _core, _fork

def raiser(left):
    def profile(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename == _core.__file__ and event in ("call", "c_return"):
            left -= 1
            if left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt
    return profile

def copies():
    with open("/proc/self/maps") as maps:
        return len({line.split()[4] for line in maps if "_pyapi" in line or "gopool-core" in line})

def live(which):
    '''Interrupt a first load, load again; whether it was interrupted.'''
    interrupted = False
    try:
        sys.setprofile(raiser(which))
        _core.load()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.setprofile(None)
    with gopool.Pool(1) as pool:
        assert pool.apply(abs, (-3,)) == 3
    assert copies() == 1, which
    polls = [os.readlink("/proc/self/fd/%d" % fd) for fd in gopool._fork.owned()]
    assert polls.count("anon_inode:[eventpoll]") == 2, (which, polls)
    return interrupted

which, interrupted = 0, True
while interrupted:
    which += 1
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = int(live(which))
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 1), (which, code)
    interrupted = bool(code)
print(which > 20)
"""


def test_first_load(tmp_path: Any) -> None:
    """Wherever the first load of Go is cut short, the next goes on with it: Go is there once."""
    f.assert_silent_success(f.run_script(tmp_path, FIRST_LOAD), "True\n")


class Refused(CONTEXT.Process):  # type: ignore[name-defined, misc]
    """A process that can't be started."""

    def start(self) -> None:
        raise OSError("no more processes")


def test_handler_inside_of_a_block_without_forks() -> None:
    """A handler that comes where no other thread may fork may fail to make a pool, and end one."""

    class Context(type(CONTEXT)):  # type: ignore[misc]
        Process = Refused

    pool = CONTEXT.Pool(1)
    with _fork.unforked():
        with pytest.raises(OSError, match="no more processes"):
            Context().Pool(1)
        pool.terminate()
        pool.join()


def test_closing_what_is_being_closed() -> None:
    """A handler may close the descriptors that are being closed."""
    owner = [os.dup(0) for _ in range(3)]

    class Twice(list):  # type: ignore[type-arg]
        def pop(self, index: int = -1) -> int:  # type: ignore[override]
            fd: int = super().pop(index)
            if len(self) == 1:
                _fork.close_all(self)
            return fd

    twice = Twice(owner)
    _fork.close_all(twice)
    assert not twice
    for fd in owner:
        with pytest.raises(OSError):
            os.close(fd)


def test_imap_over_an_endless_input() -> None:
    """An imap that was interrupted before anybody had its iterator draws no more."""
    with CONTEXT.Pool(1) as pool:
        for which in itertools.count(1, 3):
            moments, iterator, enough = Moments(which), None, threading.Event()
            with contextlib.suppress(Alarm), moments.watch():
                iterator = pool.imap(f.square, iter(enough.is_set, True))
            if iterator is not None:
                assert next(iterator) == 0
                enough.set()
            if not moments.where:
                break
        pool.close()
        assert pool.join(timeout=PATIENCE)


def test_the_undoing_of_a_start_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An imap() that was interrupted before its thread was, and again while it undid that, is
    nothing that join() waits for.
    """

    class Stubborn(set[Any]):
        """Gives nothing up the first time."""

        left = 1

        def discard(self, item: Any) -> None:
            if self.left:
                self.left -= 1
                raise Alarm
            super().discard(item)

    def interrupted(feeder: Any) -> None:
        raise Alarm

    pool: Any = CONTEXT.Pool(1)
    pool._engine._feeders = Stubborn()
    with monkeypatch.context() as patch, pytest.raises(Alarm):
        patch.setattr("gopool._feeder.IMapFeeder.start", interrupted)
        pool.imap(f.square, range(3))
    pool.close()
    assert pool.join(timeout=PATIENCE)


def test_the_undoing_of_a_submission_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a map() has pickled that was interrupted, and again while it threw that away, is in no
    later task.
    """

    def interrupted(*_: Any) -> None:
        raise Alarm

    with CONTEXT.Pool(1) as pool:
        assert pool.map(f.square, range(3), 1) == [0, 1, 4]
        with monkeypatch.context() as patch, pytest.raises(Alarm):
            patch.setattr("gopool._runs.Run._hand_over", interrupted)
            patch.setattr("gopool._runs.Dumper", interrupted)
            pool.map(f.square, range(5, 8), 1)
        assert pool.map(f.square, range(3), 1) == [0, 1, 4]
