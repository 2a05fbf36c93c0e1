# SPDX-License-Identifier: MIT
"""What a pool may be asked for beyond the standard library's arguments, checked and translated.

A PoolOptions object holds what was asked of the pool; a call's own wishes are laid over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

KILL_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
RETRY_BACKOFF = 0.05  # seconds before the first retry

# gopool.RetryOn
_LOST, _TIMEOUT, _ERROR = 1, 2, 4


class PoolOptions:
    """The keyword arguments of gopool.Pool that concern its tasks and its workers' life."""

    __slots__ = (
        "idle_timeout",
        "kill_grace",
        "max_age",
        "memory_limit",
        "memory_soft_limit",
        "on_event",
        "retries",
        "retry_backoff",
        "retry_on",
        "soft_timeout",
        "timeout",
    )

    def __init__(
        self,
        *,
        task_timeout: float | None = None,
        soft_timeout: float | None = None,
        retries: int = 0,
        retry_on: Iterable[type[BaseException]] | None = None,
        retry_backoff: float = RETRY_BACKOFF,
        worker_memory_limit: int | None = None,
        worker_memory_soft_limit: int | None = None,
        worker_max_age: float | None = None,
        worker_idle_timeout: float | None = None,
        on_event: Callable[[Any], object] | None = None,
        kill_grace: float = KILL_GRACE,
    ) -> None:
        """Check everything.

        Raises:
            TypeError, ValueError: an argument is of a wrong type or out of its range.
        """
        self.timeout = positive("task_timeout", task_timeout)
        self.soft_timeout = positive("soft_timeout", soft_timeout)
        self.retries = count("retries", retries)
        self.retry_on = _LOST if retry_on is None else _outcomes(retry_on)
        self.retry_backoff = not_negative("retry_backoff", retry_backoff)
        self.memory_limit = _bytes("worker_memory_limit", worker_memory_limit)
        self.memory_soft_limit = _bytes("worker_memory_soft_limit", worker_memory_soft_limit)
        self.max_age = positive("worker_max_age", worker_max_age)
        self.idle_timeout = positive("worker_idle_timeout", worker_idle_timeout)
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event must be callable or None, not {on_event!r}")
        self.on_event = on_event
        self.kill_grace = not_negative("kill_grace", kill_grace)

    @property
    def limits(self) -> tuple[int, int, int, int, int]:
        """The middle arguments of pyapi.PoolLimits."""
        return (
            self.memory_limit,
            self.memory_soft_limit,
            milliseconds(self.max_age),
            milliseconds(self.idle_timeout),
            milliseconds(self.kill_grace),
        )


class CallOptions:
    """What one call asks for, with the pool's wishes where it says nothing."""

    __slots__ = ("retries", "soft_timeout", "timeout")

    def __init__(
        self,
        pool: PoolOptions,
        timeout: float | None,
        soft_timeout: float | None,
        retries: int | None,
    ) -> None:
        self.timeout = pool.timeout if timeout is None else positive("timeout", timeout)
        self.soft_timeout = (
            pool.soft_timeout if soft_timeout is None else positive("soft_timeout", soft_timeout)
        )
        self.retries = pool.retries if retries is None else count("retries", retries)

    @property
    def single(self) -> bool:
        """Whether each item is to be a task of its own: a timeout is an item's."""
        return self.timeout is not None or self.soft_timeout is not None

    def chunksize(self, wanted: int | None) -> int | None:
        """The chunk size of a call that asked for `wanted`.

        Raises:
            ValueError: a timeout is an item's, and chunks of several items were asked for.
        """
        if not self.single:
            return wanted
        if wanted is not None and wanted > 1:
            raise ValueError(
                f"chunksize={wanted} beside a timeout: a timeout is for one item, so leave "
                "chunksize out or set it to 1"
            )
        return 1

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, or one that gives it its soft timeout."""
        if self.soft_timeout is None:
            return function
        from gopool._worker.soft import SoftCall

        return SoftCall(self.soft_timeout, function)


def positive(name: str, value: float | None) -> float | None:
    """Seconds above zero, or None."""
    if value is None:
        return None
    if _number(name, value) <= 0:
        raise ValueError(f"{name} must be more than 0 seconds, or None for none; not {value!r}")
    return value


def not_negative(name: str, value: float) -> float:
    """Seconds, zero or more."""
    if _number(name, value) < 0:
        raise ValueError(f"{name} must be 0 seconds or more, not {value!r}")
    return value


def count(name: str, value: int) -> int:
    """A whole number, zero or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value!r}")
    return value


def milliseconds(seconds: float | None) -> int:
    """Whole milliseconds, at least one where there is any time at all; None is 0."""
    if not seconds:
        return 0
    return 2**53 if math.isinf(seconds) else min(math.ceil(seconds * 1000), 2**53)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if math.isnan(value):
        raise ValueError(f"{name} must be a number of seconds, not nan")
    return value


def _bytes(name: str, value: int | None) -> int:
    """Bytes above zero; 0 for None."""
    if value is None:
        return 0
    if count(name, value) == 0:
        raise ValueError(f"{name} must be more than 0 bytes, or None for none")
    return value


def _outcomes(kinds: Iterable[type[BaseException]]) -> int:
    """A set of gopool.RetryOn, from the exceptions that stand for its members."""
    from gopool.exceptions import TaskTimeoutError, WorkerLostError

    known = {WorkerLostError: _LOST, TaskTimeoutError: _TIMEOUT}
    known[Exception] = _LOST | _TIMEOUT | _ERROR
    wanted = 0
    for kind in kinds if isinstance(kinds, Iterable) else (kinds,):
        if kind not in known:
            raise ValueError(
                f"retry_on may hold WorkerLostError, TaskTimeoutError and Exception (which stands "
                f"for whatever a task raises, and for both), not {kind!r}"
            )
        wanted |= known[kind]
    return wanted
