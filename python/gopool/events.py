# SPDX-License-Identifier: MIT
"""What happens to workers, tasks and supervised processes, as it happens.

Each event goes to Python's logging, under "gopool", and to the callback `on_event` of the pool or
supervisor. Runs in the parent, in whatever thread learns of the event.
"""

from __future__ import annotations

import sys
import time as _time
from collections.abc import Callable

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    import logging

__all__ = ["Event"]

# Kinds that are worth a warning; all others are logged as information.
WARNINGS = frozenset({"broken", "crash", "limit", "restart", "retry", "timeout"})

_FIELDS = ("kind", "name", "pid", "exitcode", "task", "attempt", "text", "time")


class Event:
    """One thing that happened.

    Attributes:
        kind: str: "start", "end", "crash", "retire", "limit", "restart", "timeout", "retry" or
            "broken". Those of one death may come in any order.
        name: str, the process's name, or "".
        pid: int, the process that it happened to, or None.
        exitcode: int, negative for a signal; None where there is none, or nobody knows it.
        task: str, the task that it happened to, as in WorkerLostError, or "".
        attempt: int, which try or start this was, counted from 1, or None.
        text: str, details for people, or "".
        time: float, when it happened, as time.time().
    """

    __slots__ = _FIELDS

    def __init__(
        self,
        kind: str,
        *,
        name: str = "",
        pid: int | None = None,
        exitcode: int | None = None,
        task: str = "",
        attempt: int | None = None,
        text: str = "",
        time: float | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.pid = pid
        self.exitcode = exitcode
        self.task = task
        self.attempt = attempt
        self.text = text
        self.time = _time.time() if time is None else time

    def __repr__(self) -> str:
        values = ((field, getattr(self, field)) for field in _FIELDS)
        told = [f"{field}={value!r}" for field, value in values if value not in (None, "")]
        return f"Event({', '.join(told)})"

    def __str__(self) -> str:
        parts = [self.kind]
        if self.name or self.pid is not None:
            pid = "" if self.pid is None else f"process {self.pid}"
            parts.append(f"{self.name} ({pid})" if self.name and pid else self.name or pid)
        if self.exitcode is not None:
            from gopool.exceptions import describe_exit

            parts.append(describe_exit(self.exitcode))
        if self.task:
            parts.append(self.task)
        if self.attempt is not None:
            parts.append(f"attempt {self.attempt}")
        if self.text:
            parts.append(self.text)
        return ", ".join(parts)


def emit(event: Event, callback: Callable[[Event], object] | None = None) -> None:
    """Log an event under "gopool", then call the callback with it.

    Never raises: an exception of the callback goes to threading.excepthook.
    """
    if "logging" in sys.modules:  # else nobody can listen, and importing it takes milliseconds
        level = 30 if event.kind in WARNINGS else 20  # logging.WARNING, logging.INFO
        _logger().log(level, "%s", event, extra={"event": event})
    if callback is not None:
        try:
            callback(event)
        except BaseException as error:
            from gopool._jobs import report

            report(error)


_known: logging.Logger | None = None


def _logger() -> logging.Logger:
    """The logger. A program that set up no logging is told nothing on stderr.

    Looked up once: logging has a lock for it that an exception of a signal's handler may leave
    taken.
    """
    global _known
    if _known is None:
        import logging

        _known = logging.getLogger("gopool")
    if not _known.handlers:
        import logging

        _known.addHandler(logging.NullHandler())
    return _known
