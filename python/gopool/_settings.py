# SPDX-License-Identifier: MIT
"""What a pool can be told beyond the standard library's arguments: keywords, checked and kept.

The public signatures (gopool.pool.Pool, Pool() of the contexts) name the same keywords with the
same defaults; tests/api/test_worker_settings.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable

from gopool.exceptions import GopoolError

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# The keywords and their defaults.
DEFAULTS: dict[str, Any] = {
    "worker_exit": None,
    "daemon": True,
    "capture_stderr": False,
}


class Settings:
    """The keywords of one pool; each is an attribute."""

    __slots__ = tuple(DEFAULTS)

    worker_exit: Callable[[], object] | None
    daemon: bool
    capture_stderr: bool

    def __init__(
        self,
        *,
        worker_exit: Callable[[], object] | None = None,
        daemon: bool = True,
        capture_stderr: bool = False,
    ) -> None:
        """Check the keywords; gopool.pool.Pool tells what they mean.

        Raises:
            TypeError: one is of a type that it can't be, or is not known.
        """
        if worker_exit is not None and not callable(worker_exit):
            raise TypeError("worker_exit must be a callable")
        self.worker_exit = worker_exit
        self.daemon = _checked_bool("daemon", daemon)
        self.capture_stderr = _checked_bool("capture_stderr", capture_stderr)

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
