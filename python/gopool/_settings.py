# SPDX-License-Identifier: MIT
"""What a pool can be told beyond the standard library's arguments: keywords, checked and kept.

The public signatures (gopool.pool.Pool, Pool() of the contexts) name the same keywords with the
same defaults; tests/api/test_worker_settings.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gopool._options import (
    KILL_GRACE,
    RETRY_BACKOFF,
    count,
    milliseconds,
    not_negative,
    outcomes,
    positive,
    size,
)
from gopool.exceptions import GopoolError

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# The keywords and their defaults.
DEFAULTS: dict[str, Any] = {
    "task_timeout": None,
    "soft_timeout": None,
    "retries": 0,
    "retry_on": None,
    "retry_backoff": RETRY_BACKOFF,
    "worker_memory_limit": None,
    "worker_memory_soft_limit": None,
    "worker_max_age": None,
    "worker_idle_timeout": None,
    "worker_start_timeout": None,
    "worker_exit": None,
    "daemon": True,
    "capture_stderr": False,
    "kill_grace": KILL_GRACE,
    "on_event": None,
}


class Settings:
    """The keywords of one pool; each is an attribute."""

    __slots__ = (*DEFAULTS, "retry_mask")

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
        worker_start_timeout: float | None = None,
        worker_exit: Callable[[], object] | None = None,
        daemon: bool = True,
        capture_stderr: bool = False,
        kill_grace: float = KILL_GRACE,
        on_event: Callable[[Any], object] | None = None,
    ) -> None:
        """Check the keywords; gopool.pool.Pool tells what they mean.

        Raises:
            TypeError: one is of a type that it can't be, or is not known.
            ValueError: one is out of its range.
        """
        self.task_timeout = positive("task_timeout", task_timeout)
        self.soft_timeout = positive("soft_timeout", soft_timeout)
        self.retries = count("retries", retries)
        self.retry_on = retry_on
        self.retry_mask = outcomes(retry_on)
        self.retry_backoff = not_negative("retry_backoff", retry_backoff)
        self.worker_memory_limit = size("worker_memory_limit", worker_memory_limit)
        self.worker_memory_soft_limit = size("worker_memory_soft_limit", worker_memory_soft_limit)
        self.worker_max_age = positive("worker_max_age", worker_max_age)
        self.worker_idle_timeout = positive("worker_idle_timeout", worker_idle_timeout)
        self.worker_start_timeout = positive("worker_start_timeout", worker_start_timeout)
        self.worker_exit = _checked_callable("worker_exit", worker_exit)
        self.daemon = _checked_bool("daemon", daemon)
        self.capture_stderr = _checked_bool("capture_stderr", capture_stderr)
        self.kill_grace = not_negative("kill_grace", kill_grace)
        self.on_event = _checked_callable("on_event", on_event)

    @property
    def plain_tasks(self) -> bool:
        """Whether tasks are to be run and nothing else."""
        return self.task_timeout is self.soft_timeout is None and not self.retries

    @property
    def limits(self) -> tuple[int, ...]:
        """The arguments of pyapi.PoolLimits from the second on."""
        return (
            self.worker_memory_limit or 0,
            self.worker_memory_soft_limit or 0,
            milliseconds(self.worker_max_age),
            milliseconds(self.worker_idle_timeout),
            milliseconds(self.worker_start_timeout),
            milliseconds(self.kill_grace),
            int(not self.daemon),
        )

    def changed(self) -> list[str]:
        """The keywords that are not at their defaults."""
        return [name for name, default in DEFAULTS.items() if getattr(self, name) != default]

    def refuse_changed(self, reason: str) -> None:
        """Before a pool becomes the standard library's, which has none of this.

        Raises:
            GopoolError: a keyword is not at its default.
        """
        if changed := self.changed():
            raise GopoolError(f"{', '.join(changed)} needs the Go core: {reason}")


def without_settings(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords that the standard library's Pool knows too."""
    return {name: value for name, value in keywords.items() if name not in DEFAULTS}


def _checked_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _checked_callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a callable")
    return value
