# SPDX-License-Identifier: MIT
"""chunksize="auto": chunks that are cut when workers have room, sized by measured time.

A chunk is to take so long that what a task costs disappears beside it, and so short that no worker
has much left when the others are done. How long items take is measured as the chunks before them
finish: the time that workers were busy over the items that they did.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from gopool._feeder import MAX_WINDOW, WINDOW_TIME, Window

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# Seconds that a chunk takes at the least: between two tasks that are not sent ahead a worker waits
# for 50 to 100 us.
MIN_TIME = 0.004
LEAST_TIME = 0.001  # of the last chunks, which are small so that all workers end together
# At the most, where many items are left: a worker may be done so much earlier than another.
MAX_TIME = 0.02
STREAM_TIME = 0.002  # where results are read as they come
# A chunk is to be no more than this share of a worker's part of what is left, by time and by
# number: the time is an estimate, which a run of slow items makes wrong.
TIME_SHARES = 64
ITEM_SHARES = 4
# A chunk has at most so many times the items of the largest that was finished: the first items may
# be quicker than all others.
GROWTH = 16
KEEP = 0.6  # of what is known, once each worker has finished another chunk
DRAW_TIME = 0.001  # seconds after which a chunk is submitted as it is: the input is slow


class Chunker(Window):
    """Cuts the input of one job, and says how many chunks may be unfinished.

    One thread cuts, another says what is finished.

    Args:
        left: items of the input, None where nobody knows.
        stream: whether unfinished items are bounded, by the same window as single tasks.
        buffersize: items cut and not read, at most; None: any number.
        clock: seconds.
    """

    def __init__(
        self,
        workers: int,
        left: int | None,
        *,
        stream: bool = False,
        buffersize: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(workers, buffersize, clock)
        self.left = left
        # First item and number of items of each unfinished chunk, by the number of the chunk.
        self.spans: dict[int, tuple[int, int]] = {}
        self.read = 0  # items that were read; counted by the reader
        self._workers = workers
        self._stream = stream
        self._lock = threading.Lock()  # guards what stands below, and spans
        self._chunks = self._items = 0  # that were cut
        self._unfinished = 0  # items
        self._keep = KEEP ** (1 / workers)
        self._largest = 1  # items of a finished chunk
        self._since = clock()
        self._accrued = 0.0  # seconds that workers were busy since the last chunk finished
        self._busy = self._done = 0.0  # the same in the past, and items finished meanwhile

    # What a feeder asks.

    def room(self, drawn: int, finished: int) -> int:
        """One chunk more, or none: the next may be of another size."""
        if self._stream and self._unfinished >= self._most_items():
            return 0
        return int(drawn - finished < self._depth())

    def wake_at(self, drawn: int, finished: int) -> int:
        """Unfinished chunks at which to go on: before the workers have only what they run."""
        depth = self._depth()
        below = min(drawn - finished, max(depth // 2, min(depth, 2 * self._workers)))
        return max(0, below - 1)  # all may be finished since there was no room

    def unread_room(self, drawn: int, taken: int) -> int:
        """One chunk more, or none, by items."""
        assert self.buffersize is not None
        return int(self._items - self.read < self.buffersize)

    def adapt(self, finished: int) -> None:
        """Nothing: every finished chunk is measured."""

    # Cutting.

    def cut(self, items: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        """The chunks of an input whose length is unknown or not to be trusted."""
        source = _Source(iter(items))
        while True:
            chunk = source.draw(self.next_size(), self._clock)
            if not chunk:
                return
            self._sent(len(chunk))
            yield chunk
            del chunk  # the task alone holds it

    def cut_sequence(self, items: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """The chunks of a list or tuple that nobody changes."""
        position = 0
        while position < len(items):
            size = self.next_size()
            position += size
            self._sent(size)
            yield tuple(items[position - size : position])

    def next_size(self) -> int:
        """Items of a chunk that is cut now."""
        bounds = [GROWTH * self._largest]
        each = self._each()
        bounds.append(round(self._target(each) / each) if each else 1)
        if self.left is not None:
            share = math.ceil(self.left / (ITEM_SHARES * self._workers))
            bounds += self.left, max(share, int(LEAST_TIME / each) if each else 1)
        if self._stream:
            bounds.append(self._most_items() - self._unfinished)
        if self.buffersize is not None:
            bounds.append(self.buffersize - (self._items - self.read))
        return max(1, min(bounds))

    def _sent(self, size: int) -> None:
        with self._lock:
            self._accrue()
            self.spans[self._chunks] = self._items, size
            self._chunks += 1
            self._items += size
            self._unfinished += size
            if self.left is not None:
                self.left = max(0, self.left - size)

    # Measuring.

    def settled(self, chunk: int) -> None:
        """A chunk is finished, however it ended."""
        with self._lock:
            self._accrue()
            _, size = self.spans.pop(chunk, (0, 0))
            self._unfinished -= size
            self._largest = max(self._largest, size)
            self._busy = self._keep * self._busy + self._accrued
            self._done = self._keep * self._done + size
            self._accrued = 0.0

    def _accrue(self) -> None:
        now = self._clock()
        self._accrued += (now - self._since) * min(len(self.spans), self._workers)
        self._since = now

    def _each(self) -> float | None:
        """Seconds that an item takes, None before one is finished. What runs counts: items that
        have become slow show before they are done.
        """
        with self._lock:
            self._accrue()
            return max((self._busy + self._accrued) / self._done, 1e-9) if self._done else None

    def _target(self, each: float) -> float:
        """Seconds that a chunk is to take."""
        if self._stream or self.left is None:
            return STREAM_TIME
        return min(MAX_TIME, max(MIN_TIME, each * self.left / (TIME_SHARES * self._workers)))

    def _depth(self) -> int:
        """Unfinished chunks: one that runs and one that waits for each worker, and so many that
        the workers have something to do while other threads keep a feeder from running.
        """
        each = self._each()
        if each is None:
            return 2 * self._workers
        return self._workers * (1 + math.ceil(WINDOW_TIME / max(each, self._target(each))))

    def _most_items(self) -> int:
        """Unfinished items of a stream: as many as last for STREAM_TIME and WINDOW_TIME."""
        each = self._each()
        if each is None:
            return self.least
        wanted = int(self._workers * (2 * STREAM_TIME + WINDOW_TIME) / each)
        return max(self.least, min(MAX_WINDOW, wanted))


class _Source:
    """Draws chunks from a user's iterator; its error comes behind the items before it."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._error: BaseException | None = None

    def draw(self, size: int, clock: Callable[[], float]) -> tuple[Any, ...]:
        """Up to so many items, fewer where that takes too long; none at the end."""
        if self._error is not None:
            raise self._error
        chunk: list[Any] = []
        try:
            self._fill(chunk, size, clock)
        except BaseException as error:
            if not chunk:
                raise
            self._error = error
        return tuple(chunk)

    def _fill(self, chunk: list[Any], size: int, clock: Callable[[], float]) -> None:
        deadline = clock() + DRAW_TIME
        for item in self._items:
            chunk.append(item)
            if len(chunk) >= size or clock() >= deadline:
                break
