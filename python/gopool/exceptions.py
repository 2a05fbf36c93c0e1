# SPDX-License-Identifier: MIT
"""Every exception that gopool adds to the standard library's.

    multiprocessing.ProcessError
    +-- GopoolError
        +-- WorkerLostError       a worker ended while it ran the task
        +-- BrokenPoolError       workers can't be kept alive
        |   +-- WorkerStartError  they end before their first message
        +-- PoolTerminatedError   the pool was terminated before the task was done
        +-- TaskCancelledError    the task was cancelled (also concurrent.futures.CancelledError)
        +-- TaskTimeoutError      the task took too long (also multiprocessing.TimeoutError)
        |   +-- SoftTimeoutError  raised inside the task, before it is cut short
        +-- RemoteTaskError       what the task gave can't be rebuilt here
        +-- PayloadTooLargeError  a message is larger than it may be (also ValueError)
        +-- SupervisorError       a Supervisor's children failed too often
        +-- ForkedChildError      a pool was used in a child of its process (also RuntimeError)
        +-- CoreError             Go can't be loaded or can't watch; else a bug: please report it

All survive pickling with their attributes.
"""

from __future__ import annotations

import signal
from multiprocessing import ProcessError, TimeoutError

__all__ = [
    "BrokenPoolError",
    "CoreError",
    "ForkedChildError",
    "GopoolError",
    "PayloadTooLargeError",
    "PoolTerminatedError",
    "RemoteTaskError",
    "SoftTimeoutError",
    "SupervisorError",
    "TaskCancelledError",  # noqa: F822  made by __getattr__
    "TaskTimeoutError",
    "WorkerLostError",
    "WorkerStartError",
]


class GopoolError(ProcessError):
    """Base class of all that gopool raises by itself."""


class WorkerLostError(GopoolError):
    """A worker process ended while it ran this task; all other tasks go on.

    Attributes:
        pid: int, the process that ended.
        exitcode: int, negative for a signal; None where somebody else reaped the process.
        signal_name: str such as "SIGSEGV", or None.
        seconds: float, how long the worker had the task.
        task: str, what ran: the function's name and, in a map, the number of the task.
        reason: str, what gopool knows beyond that, or "".
        dump: str, where it crashed in native code: faulthandler's tracebacks of all threads; ""
            where there are none, or where the program's own faulthandler was on and wrote them.
        stderr: str, the last lines that it wrote to descriptor 2, of a pool that was made with
            capture_stderr=True; else "".
    """

    def __init__(
        self,
        pid: int,
        exitcode: int | None = None,
        seconds: float = 0.0,
        task: str = "",
        reason: str = "",
        dump: str = "",
        stderr: str = "",
    ) -> None:
        super().__init__(pid, exitcode, seconds, task, reason, dump, stderr)
        self.pid = pid
        self.exitcode = exitcode
        self.seconds = seconds
        self.task = task
        self.reason = reason
        self.dump = dump
        self.stderr = stderr

    @property
    def signal_name(self) -> str | None:
        return signal_name(self.exitcode)

    def __str__(self) -> str:
        end = describe_exit(self.exitcode)
        text = f"worker {self.pid} {end}, {self.seconds:.3g} s into {self.task or 'its task'}"
        text = f"{text}: {self.reason}" if self.reason else text
        return f"{text}\n{self.dump.rstrip()}" if self.dump else text


class BrokenPoolError(GopoolError):
    """The pool gave up: its workers end again and again before they can take a task.

    Attributes:
        pid: int, the last worker that ended.
        exitcode: int or None, as in WorkerLostError.
        reason: str, the traceback of the initializer where it raised, or "".
    """

    def __init__(self, pid: int, exitcode: int | None = None, reason: str = "") -> None:
        super().__init__(pid, exitcode, reason)
        self.pid = pid
        self.exitcode = exitcode
        self.reason = reason

    def __str__(self) -> str:
        text = f"the initializer failed in every worker; the last, {self.pid},"
        text = f"{text} {describe_exit(self.exitcode)}"
        return f"{text}:\n{self.reason}" if self.reason else text


class WorkerStartError(BrokenPoolError):
    """Workers end before their first message; nothing of the program's own ran in them."""

    def __str__(self) -> str:
        if self.pid == 0:
            return f"no worker can be started: {self.reason}"
        text = (
            f"worker {self.pid} {describe_exit(self.exitcode)} before its first message, as those "
            "before it"
        )
        if self.reason:
            return f"{text}: {self.reason}"
        killed = self.exitcode is not None and self.exitcode < 0
        return text + (
            ". Likely causes: the system is short of memory, somebody kills the workers, or a "
            "library that they import crashes"
            if killed
            else "; its traceback is on stderr. Likely causes: the script starts processes "
            "without `if __name__ == '__main__':`, it was read from stdin and can't be read again, "
            "a module that it imports fails in the child, or gopool can't be imported there"
        )


class PoolTerminatedError(GopoolError):
    """The pool was terminated (or left by its `with` block) before this task was done.

    Call close() and join() first where all tasks should run to their end.
    """


class TaskTimeoutError(GopoolError, TimeoutError):
    """The task took longer than its timeout: it was cut short, and its worker ended.

    Attributes:
        seconds: float, how long it had run.
        task: str, what ran, as in WorkerLostError.
        pid: int, the worker that ran it.
    """

    def __init__(self, seconds: float = 0.0, task: str = "", pid: int = 0) -> None:
        super().__init__(seconds, task, pid)
        self.seconds = seconds
        self.task = task
        self.pid = pid

    def __str__(self) -> str:
        what = self.task or "the task"
        return f"{what} was cut short after {self.seconds:.3g} s, its timeout; worker {self.pid}"


class SoftTimeoutError(TaskTimeoutError):
    """Raised inside a task whose soft timeout is over, for it to clean up and end.

    Attributes:
        seconds: float, the soft timeout.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(seconds)

    def __reduce__(self) -> tuple[type[SoftTimeoutError], tuple[float]]:
        return SoftTimeoutError, (self.seconds,)

    def __str__(self) -> str:
        return f"the task took longer than its soft timeout of {self.seconds:.3g} s"


class RemoteTaskError(GopoolError):
    """What the task returned or raised can't be unpickled in this process.

    The error of unpickling is the cause.

    Attributes:
        type_name: str, the qualified name of the exception's type; "" for a result.
        text: str, repr of the exception; "" for a result.
        traceback: str, the traceback in the worker; "" for a result.
    """

    def __init__(self, type_name: str = "", text: str = "", traceback: str = "") -> None:
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        if not self.type_name:
            return "the task's result can't be unpickled in this process; the cause says why"
        return f"the task raised {self.text}, which can't be unpickled here\n{self.traceback}"


class PayloadTooLargeError(GopoolError, ValueError):
    """A message is larger than the protocol allows."""


class SupervisorError(GopoolError):
    """A Supervisor's children ended more often than its intensity allows; all were stopped.

    Attributes:
        name: str, the child whose end was one too many.
        restarts: int, how often that child had been started again.
        exitcode: int or None, of its last end.
    """

    def __init__(self, name: str, restarts: int = 0, exitcode: int | None = None) -> None:
        super().__init__(name, restarts, exitcode)
        self.name = name
        self.restarts = restarts
        self.exitcode = exitcode

    def __str__(self) -> str:
        return (
            f"too many restarts: child {self.name!r} {describe_exit(self.exitcode)} after "
            f"{self.restarts} restarts of its own; all children were stopped"
        )


class ForkedChildError(GopoolError, RuntimeError):
    """A pool was used in a process that was forked from its own.

    The pool's workers and threads belong to the parent: make a pool in the child.
    """


class CoreError(GopoolError):
    """Go can't be loaded, or can't watch processes any more: the text says why. With any other text
    it is a bug of gopool's: please report it.
    """


def amend(error: WorkerLostError | TaskTimeoutError | BrokenPoolError, **learned: str) -> None:
    """Set attributes that were learned after the error was made; repr() tells them as well."""
    for name, value in learned.items():
        setattr(error, name, value)
    code = type(error).__init__.__code__
    error.args = tuple(getattr(error, name) for name in code.co_varnames[1 : code.co_argcount])


def signal_name(exitcode: int | None) -> str | None:
    """The name of the signal that an exit code stands for, or None."""
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


def describe_exit(exitcode: int | None) -> str:
    """An exit code in words, as in "was ended by SIGKILL"."""
    if exitcode is None:
        return "ended (with what exit code is unknown: something else reaped it)"
    name = signal_name(exitcode)
    return f"exited with code {exitcode}" if name is None else f"was ended by {name}"


def __getattr__(name: str) -> type[GopoolError]:
    """TaskCancelledError, made when it is first asked for.

    Its second base class would otherwise have every program import concurrent.futures and
    logging, which takes longer than loading Go.
    """
    if name != "TaskCancelledError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    from concurrent.futures import CancelledError

    namespace = {"__module__": __name__, "__doc__": "The task was cancelled."}
    kind = type(name, (GopoolError, CancelledError), namespace)
    made: type[GopoolError] = globals().setdefault(name, kind)
    return made
