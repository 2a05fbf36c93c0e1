# SPDX-License-Identifier: MIT
"""What one call may ask for beyond the standard library's arguments, checked and translated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from gopool._settings import Settings

AUTO = "auto"  # the chunksize that is measured
KILL_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
RETRY_BACKOFF = 0.05  # seconds before the first retry

# Of calls, beyond the standard library's.
_OWN_KEYWORDS = frozenset(("buffersize", "retries", "soft_timeout", "timeout"))

_LOST, _TIMEOUT, _ERROR = 1, 2, 4  # gopool.RetryOn


class CallOptions:
    """What one call asks for, with the pool's wishes where it says nothing."""

    __slots__ = ("retries", "soft_timeout", "timeout")

    def __init__(
        self,
        pool: Settings,
        timeout: float | None,
        soft_timeout: float | None,
        retries: int | None,
    ) -> None:
        self.timeout = pool.task_timeout if timeout is None else positive("timeout", timeout)
        self.soft_timeout = (
            pool.soft_timeout if soft_timeout is None else positive("soft_timeout", soft_timeout)
        )
        self.retries = pool.retries if retries is None else count("retries", retries)

    @property
    def single(self) -> bool:
        """Whether each item is to be a task of its own: a timeout is an item's."""
        return self.timeout is not None or self.soft_timeout is not None

    def chunksize(self, wanted: int | str | None) -> int | str | None:
        """The chunk size of a call that asked for `wanted`.

        Raises:
            ValueError: a timeout is an item's, and chunks of several items were asked for; or it
                is a word that means nothing.
        """
        if isinstance(wanted, str):
            if wanted != AUTO:
                raise ValueError(f'chunksize may be a number or "auto", not {wanted!r}')
            return 1 if self.single else AUTO
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


def checked_buffersize(value: int | None) -> int | None:
    """Tasks above zero, or None; refused with the words of concurrent.futures."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"buffersize must be an integer or None, not {value!r}")
    if value < 1:
        raise ValueError(f"buffersize must be None or > 0, not {value}")
    return value


def for_original(
    original: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any]:
    """The keywords of a call that goes to the standard library's method.

    Raises:
        GopoolError: the method does not know one that is not at its default, or can't do what is
            asked for.
    """
    code = getattr(original, "__code__", None)
    parameters = code.co_varnames if code else ()
    unknown = _OWN_KEYWORDS - set(parameters)
    given = {name: keywords[name] for name in unknown & keywords.keys()}
    # The first parameter is self.
    asked = dict(zip(parameters[1:], arguments, strict=False)) | keywords
    if isinstance(asked.get("chunksize"), str):
        given["chunksize"] = asked["chunksize"]
    for name, value in given.items():
        if value is not None:
            from gopool.exceptions import GopoolError

            raise GopoolError(
                f"{original.__name__}({name}={value!r}) needs the Go core, which this pool does "
                "not have: it is a ThreadPool, a subclass with a transport of its own, or made "
                "where Go could not be loaded"
            )
    return {name: value for name, value in keywords.items() if name not in unknown}


def milliseconds(seconds: float | None) -> int:
    """Whole milliseconds, at least one where there is any time at all; None is 0."""
    if not seconds:
        return 0
    return 2**53 if math.isinf(seconds) else min(math.ceil(seconds * 1000), 2**53)


def coarser(duration: int) -> int:
    """A duration rounded up by less than a hundredth, so that there are few different ones."""
    step = 1 << max(0, duration.bit_length() - 8)
    return -(-duration // step) * step


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if math.isnan(value):
        raise ValueError(f"{name} must be a number of seconds, not nan")
    return value


def size(name: str, value: int | None) -> int | None:
    """Bytes above zero, or None."""
    if value is not None and count(name, value) == 0:
        raise ValueError(f"{name} must be more than 0 bytes, or None for none")
    return value


def outcomes(kinds: Iterable[type[BaseException]] | None) -> int:
    """A set of gopool.RetryOn, from the exceptions that stand for its members."""
    if kinds is None:
        return _LOST
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
