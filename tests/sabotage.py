# SPDX-License-Identifier: MIT
"""Ways to fail, objects that fail at a place of a task's life, and tasks that leave a trace.

Workers import this module by name, under every start method.
"""

from __future__ import annotations

import collections
import faulthandler
import itertools
import os
import re
import resource
import signal
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

EXIT_CODE = 7  # of the way os._exit; nothing else here ends with it


class Failure(Exception):
    """What the way "Exception" raises."""


class BaseFailure(BaseException):
    """What the way "BaseException" raises."""


def raise_(error: BaseException) -> NoReturn:
    raise error


def signal_self(number: int) -> None:
    """Send this process a signal; one that is handled, SIGINT, raises right here."""
    os.kill(os.getpid(), number)


def crash(how: Callable[[], object]) -> None:
    """End in native code; leave no core file and, on stderr, no dump."""
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    how()


WAYS: dict[str, Callable[[], object]] = {
    "Exception": lambda: raise_(Failure("sabotage")),
    "BaseException": lambda: raise_(BaseFailure("sabotage")),
    "SystemExit": lambda: raise_(SystemExit(3)),
    "KeyboardInterrupt": lambda: raise_(KeyboardInterrupt()),
    "SIGINT": lambda: signal_self(signal.SIGINT),
    "os._exit": lambda: os._exit(EXIT_CODE),
    "SIGKILL": lambda: signal_self(signal.SIGKILL),
    "SIGTERM": lambda: signal_self(signal.SIGTERM),
    "segfault": lambda: crash(faulthandler._sigsegv),  # type: ignore[attr-defined]
    "abort": lambda: crash(os.abort),
}

# What the ways that raise raise.
RAISES: dict[str, type[BaseException]] = {
    "Exception": Failure,
    "BaseException": BaseFailure,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SIGINT": KeyboardInterrupt,
}

# The exit code of a process that went the other ways.
EXIT_CODES = {
    "os._exit": EXIT_CODE,
    "SIGKILL": -signal.SIGKILL,
    "SIGTERM": -signal.SIGTERM,
    "segfault": -signal.SIGSEGV,
    "abort": -signal.SIGABRT,
}


def act(way: str) -> str:
    """Fail in this way, where that is possible at all."""
    WAYS[way]()
    return "survived"


class ActsAtPickling:
    """Pickling it fails in a way."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        act(self.way)
        return str, ("pickled",)


class ActsAtUnpickling:
    """Pickling it is harmless; unpickling it fails in a way."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return act, (self.way,)


class Grenade:
    """Fails in a way when it is collected."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __del__(self) -> None:
        act(self.way)


class MakesGrenade:
    """Becomes a Grenade where it is unpickled, and is harmless here."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return Grenade, (self.way,)


def take(_: object) -> str:
    """A task whose argument is what matters."""
    return "taken"


def act_or_take(way: str) -> str:
    """Fail where there is a way to."""
    if way:
        act(way)
    return "taken"


def leave_thread(fifo: str, way: str) -> int:
    """Leave a thread behind that fails in a way once somebody reads the fifo; returns the pid.

    The reader sees the fifo's end when that is over.
    """

    def run() -> None:
        with open(fifo, "w"):
            act(way)

    threading.Thread(target=run, daemon=True).start()
    return os.getpid()


_RECORD = struct.Struct("<II")  # number of the task, pid


def record(path: str, number: int) -> int:
    """Leave a trace in a file that several processes write to; returns the number.

    One write of few bytes at the end of a file is atomic: nothing is lost or overwritten.
    """
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, _RECORD.pack(number, os.getpid()))
    finally:
        os.close(fd)
    return number


def records(path: str) -> list[tuple[int, int]]:
    """(number, pid) of every run that `record` has seen, in their order."""
    with open(path, "rb") as file:
        return parse(file.read())


def parse(data: bytes) -> list[tuple[int, int]]:
    """The same of a part of the file that begins and ends between two runs."""
    return list(_RECORD.iter_unpack(data))


def record_and_compute(path: str, number: int, steps: int) -> int:
    """Leave a trace, then be busy for a while; returns the number."""
    record(path, number)
    for _ in range(steps):
        pass
    return number


def record_or_act(path: str, number: int, way: str) -> int:
    """A bystander's trace, or the failure where there is a way."""
    if way:
        act(way)
    return record(path, number)


def record_or_act_star(item: tuple[str, int, str]) -> int:
    return record_or_act(*item)


def _use_memory() -> None:
    """Take more and more, until a limit ends this process; at 2 GB it stops."""
    held = []
    while len(held) < 40:
        held.append(b"x" * (50 << 20))
        time.sleep(0.02)
    signal.pause()


def _loop() -> None:
    while True:
        pass


# Ways never to come back: what a timeout or a limit is for. A task's timeout ends all but the last.
HOLDS: dict[str, Callable[[], object]] = {
    "SIGSTOP": lambda: signal_self(signal.SIGSTOP),
    "asleep": signal.pause,
    "Python loop": _loop,
    # Both hold the interpreter's lock; the second looks at signals, and has none without it.
    "C loop": lambda: collections.deque(itertools.repeat(0), 0),
    "pattern": lambda: re.match("(a+)+$", "a" * 40 + "b"),
    "memory": _use_memory,
}
SOFT_HOLDS = ("asleep", "Python loop")  # those that a soft timeout ends
WAYS_THAT_RETURN = tuple(WAYS)
WAYS.update(HOLDS)


def hold_at(item: int, bad: int, way: str) -> int:
    """A task of a map of which one item never comes back."""
    if item == bad:
        act(way)
    return item


def hold_at_star(item: tuple[int, int, str]) -> int:
    return hold_at(*item)
