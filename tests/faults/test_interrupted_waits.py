# SPDX-License-Identifier: MIT
"""An exception of a signal's handler while a result is waited for: the pool goes on.

A handler runs where Python code calls or returns from C. A profile function is called at the same
moments, so one that raises at the n-th, for n = 1, 2, 3 and so on, goes through all of them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import functions as f
import gopool

PATIENCE = 20  # seconds for what must come


class Alarm(BaseException):
    """What the handler raises."""


class Moments:
    """Raises Alarm at the n-th moment of a block."""

    def __init__(self, which: int) -> None:
        self._left = which

    @property
    def came(self) -> bool:
        return self._left <= 0

    def _look(self, frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_return"):
            self._left -= 1
            if self._left == 0:
                raise Alarm

    def __enter__(self) -> None:
        sys.setprofile(self._look)

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)


def map_async(pool: Any, release: str) -> Callable[[], object]:
    result = pool.map_async(f.wait_for, [release, release], 1)
    return lambda: result.get(0.01)


def apply_async(pool: Any, release: str) -> Callable[[], object]:
    result = pool.apply_async(f.wait_for, (release,))
    return lambda: result.get(0.01)


def imap(pool: Any, release: str) -> Callable[[], object]:
    result = pool.imap(f.wait_for, [release, release])
    return lambda: result.next(0.01)


def imap_unordered(pool: Any, release: str) -> Callable[[], object]:
    result = pool.imap_unordered(f.wait_for, [release, release])
    return lambda: result.next(0.01)


@pytest.mark.parametrize("submit", [map_async, apply_async, imap, imap_unordered])
def test_every_moment_of_a_wait(submit: Any, tmp_path: Path) -> None:
    """Whatever lock the waiter leaves taken, nobody who settles the job waits for it."""
    with gopool.get_context("fork").Pool(2) as pool:
        which = 0
        while True:
            which += 1
            release = tmp_path / f"release-{which}"
            wait = submit(pool, str(release))
            moments = Moments(which)
            with contextlib.suppress(Alarm, gopool.TimeoutError), moments:
                wait()
            release.touch()
            assert pool.map_async(f.square, range(3), 1).get(PATIENCE) == [0, 1, 4]
            if not moments.came:
                break
        assert which > 8, "the wait has more moments"


def test_timeouts_leave_nothing_with_an_iterator(tmp_path: Path) -> None:
    """Who asked an iterator again and again and got nothing is not kept by it."""
    release = tmp_path / "release"
    with gopool.get_context("fork").Pool(1) as pool:
        results = pool.imap(f.wait_for, [str(release)])
        for _ in range(5):
            with pytest.raises(gopool.TimeoutError):
                results.next(0.001)
        assert not results._waiting
        release.touch()
        results.next(PATIENCE)
