# SPDX-License-Identifier: MIT
"""Fixtures for all Python tests, which run against the installed package.

Every test is watched for what it leaves behind: child processes, threads, descriptors, pools in
Go. A test that is meant to leave something says so with the marker `leaves`.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gopool

if getattr(gopool, "__file__", None) is None:
    raise pytest.UsageError(
        "`import gopool` found the Go sources' folder, not the Python package: install it first "
        "(`make test`, or `pip install .`)"
    )

# A shell ignores it for what runs in the background, and Python has no KeyboardInterrupt then.
signal.signal(signal.SIGINT, signal.default_int_handler)

START_METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    """One test per start method."""
    return str(request.param)


@pytest.fixture
def context(start_method: str) -> Any:
    """gopool's context of each start method."""
    return gopool.get_context(start_method)


@pytest.fixture
def pool(context: Any) -> Iterator[Any]:
    """A pool of two workers, closed and joined by the test's end."""
    pool = context.Pool(2)
    yield pool
    if pool._state == "RUN":
        pool.close()
    pool.join()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until a condition that nobody signals becomes true."""

    def wait(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
            threading.Event().wait(0.005)

    return wait


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own
    return found


def _left(before: dict[int, str], threads: set[threading.Thread]) -> list[str]:
    """What is there beyond the descriptors and threads of before, in words."""
    left = [f"process {child!r}" for child in multiprocessing.active_children()]
    left += [f"thread {t.name}" for t in threading.enumerate() if t not in threads]
    after = _descriptors()
    lasting = ("anon_inode:[eventpoll]", "gopool-staging")
    left += [
        f"descriptor {fd} -> {target}"
        for fd, target in after.items()
        if before.get(fd) != target and not any(word in target for word in lasting)
    ]
    return left


# What a process makes once and keeps: helpers of the standard library, the lifeline, Go's own.
_KEPT_FDS = 8


@pytest.fixture(autouse=True)
def leak_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves processes, threads or more than a few lasting descriptors."""
    if request.node.get_closest_marker("leaves"):
        yield
        return
    before, threads = _descriptors(), set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while True:
        gc.collect()
        left = _left(before, threads)
        fds = [item for item in left if item.startswith("descriptor")]
        rest = [item for item in left if not item.startswith("descriptor")]
        if not rest and len(fds) <= _KEPT_FDS:
            return
        assert time.monotonic() < deadline, f"left behind: {left}"
        threading.Event().wait(0.01)


@pytest.fixture(scope="session", autouse=True)
def warm() -> None:
    """Have what lasts for the process's life made before tests are watched."""
    for method in START_METHODS:
        with gopool.get_context(method).Pool(1) as pool:
            pool.apply(len, ("",))
