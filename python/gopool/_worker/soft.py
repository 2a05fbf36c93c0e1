# SPDX-License-Identifier: MIT
"""Soft timeouts: an exception raised inside the task once its time is over (runs in the worker).

One thread of the worker watches the clock and sends the main thread a signal, which also ends a
system call such as sleep(). The handler raises only while the call it was meant for is running, so
that a signal that comes late harms nobody. A task that is busy in C hears of it when it returns.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any


class SoftCall:
    """A function that raises SoftTimeoutError when it takes longer than `seconds`."""

    __slots__ = ("function", "seconds")

    def __init__(self, seconds: float, function: Callable[..., Any]) -> None:
        self.seconds = seconds
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return SoftCall, (self.seconds, self.function)

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        watch = _Watch.of_this_process()
        watch.begin(self.seconds)
        try:
            return self.function(*args, **kwds)
        finally:
            watch.end()


class _Watch:
    """The thread, the signal, and the time of the one call that runs."""

    _current: _Watch | None = None

    @classmethod
    def of_this_process(cls) -> _Watch:
        watch = cls._current
        if watch is None or not watch._thread.is_alive():  # a fork leaves the thread behind
            watch = cls._current = _Watch()
        return watch

    def __init__(self) -> None:
        self._due: float | None = None  # monotonic time at which the running call is to be ended
        self._seconds = 0.0
        self._changed = threading.Condition(threading.Lock())
        self._main = threading.get_ident()
        self._signal = _free_signal()
        signal.signal(self._signal, self._on_signal)
        self._thread = threading.Thread(target=self._run, name="gopool-soft-timeout", daemon=True)
        self._thread.start()

    def begin(self, seconds: float) -> None:
        with self._changed:
            self._seconds = seconds
            self._due = time.monotonic() + seconds
            self._changed.notify()

    def end(self) -> None:
        self._due = None  # the thread finds out when it wakes up: no switch to it per call

    def _run(self) -> None:
        with self._changed:
            while True:
                due = self._due
                if due is None:
                    self._changed.wait()
                elif due > time.monotonic():
                    self._changed.wait(due - time.monotonic())
                else:
                    signal.pthread_kill(self._main, self._signal)
                    while self._due == due:
                        self._changed.wait()

    def _on_signal(self, number: int, frame: Any) -> None:
        due = self._due
        if due is not None and time.monotonic() >= due:
            from gopool.exceptions import SoftTimeoutError

            self._due = None
            raise SoftTimeoutError(self._seconds)


def _free_signal() -> int:
    """A real-time signal that nobody uses, from the end of their range."""
    for number in range(int(signal.SIGRTMAX), int(signal.SIGRTMIN), -1):
        if signal.getsignal(number) is signal.SIG_DFL:
            return number
    raise OSError("every real-time signal has a handler: no soft timeout is possible")
