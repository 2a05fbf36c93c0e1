# SPDX-License-Identifier: MIT
"""Private names of multiprocessing.pool.Pool that programs touch, with an engine behind them.

Which programs touch what is listed in docs/compatibility.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from gopool._engine import Engine


class TaskQueueFace:
    """`_taskqueue`: put() takes what the standard library's task handler takes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, entry: tuple[Iterable[tuple[Any, ...]], Any] | None) -> None:
        """Submit (tasks, set_length), tasks being (job, index, function, args, kwds) each."""
        if entry is not None:
            self._engine.feed_tasks(*entry)

    def qsize(self) -> int:
        """Tasks that no worker has yet."""
        return self._engine.waiting_tasks()

    def empty(self) -> bool:
        return self.qsize() == 0


class QueueFace:
    """`_inqueue` and `_outqueue`: there is no pipe that workers share, and no lock on it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rlock = self._wlock = _FreeLock()

    @property
    def _reader(self) -> QueueFace:
        return self  # no attribute: it would keep the engine until a garbage collection

    _writer = _reader

    def put(self, entry: tuple[Any, ...] | None) -> None:
        """Submit one (job, index, function, args, kwds)."""
        if entry is not None:
            self._engine.feed_tasks([entry], None)

    def get(self) -> Any:
        raise NotImplementedError("gopool's workers share no queue that could be read")

    def poll(self, timeout: float = 0.0) -> bool:
        return not self.empty()

    def empty(self) -> bool:
        return self._engine.waiting_tasks() == 0

    def qsize(self) -> int:
        return self._engine.waiting_tasks()

    def close(self) -> None:
        pass  # the engine closes what there is


class _FreeLock:
    """A lock that nobody holds: no worker can die with it."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc: object) -> None:
        pass


class TaskHandlerFace:
    """`_task_handler`: stands for the feeders, threads that exist only while they are needed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state: str = engine.maintenance._state
        self.name = "gopool-feeders"
        self.daemon = True

    def join(self, timeout: float | None = None) -> None:
        for feeder in list(self._engine._feeders):
            if feeder is not threading.current_thread():
                feeder.join(timeout)

    def is_alive(self) -> bool:
        return self._engine.collector_thread.is_alive()
