# SPDX-License-Identifier: MIT
"""Chunks sized by time, by themselves: on a clock that a simulated pool moves."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from gopool._chunks import GROWTH, MAX_TIME, Chunker
from gopool._feeder import MAX_WINDOW

WORKERS = 4
COST = 50e-6  # seconds for which a worker waits for its next task


class Pool:
    """Workers that take chunks in order, on a clock of its own."""

    def __init__(self, workers: int = WORKERS) -> None:
        self.now = 0.0
        self._idle = workers
        self._queue: deque[tuple[int, float]] = deque()
        self._running: list[tuple[float, int]] = []
        self.unfinished = 0

    def submit(self, chunk: int, seconds: float) -> None:
        self._queue.append((chunk, seconds + COST))
        self.unfinished += 1
        self._start()

    def _start(self) -> None:
        while self._idle and self._queue:
            chunk, seconds = self._queue.popleft()
            heapq.heappush(self._running, (self.now + seconds, chunk))
            self._idle -= 1

    def finish_one(self) -> int:
        """Let time pass until a chunk is done; returns which."""
        self.now, chunk = heapq.heappop(self._running)
        self._idle += 1
        self.unfinished -= 1
        self._start()
        return chunk


class Simulation:
    """A map over items that take so many seconds, with what was cut."""

    def __init__(self, seconds: list[float], stream: bool = False, known: bool = True) -> None:
        self.pool = Pool()
        self.sizes: list[int] = []
        self.most_unfinished = 0
        self._unfinished = 0
        self.chunker = Chunker(
            WORKERS,
            len(seconds) if known else None,
            stream=stream,
            clock=lambda: self.pool.now,
        )
        items = tuple(seconds)
        self._chunks = self.chunker.cut(items) if stream else self.chunker.cut_sequence(items)

    def run(self) -> float:
        """The makespan, in seconds."""
        cut = finished = 0
        more = True
        while more or self.pool.unfinished:
            while more and self.chunker.room(cut, finished) > 0:
                chunk = next(self._chunks, None)
                if chunk is None:
                    more = False
                    break
                self._add(cut, chunk)
                cut += 1
            wake_at = self.chunker.wake_at(cut, finished) if more else 0
            assert wake_at < self.pool.unfinished or not self.pool.unfinished, "nobody wakes it"
            while self.pool.unfinished > max(0, wake_at):
                done = self.pool.finish_one()
                self._unfinished -= self.sizes[done]
                self.chunker.settled(done)
                finished += 1
        return self.pool.now

    def _add(self, number: int, chunk: tuple[float, ...]) -> None:
        assert self.chunker.spans[number] == (sum(self.sizes), len(chunk))
        self.sizes.append(len(chunk))
        self._unfinished += len(chunk)
        self.most_unfinished = max(self.most_unfinished, self._unfinished)
        self.pool.submit(number, sum(chunk))


def fixed(seconds: list[float]) -> float:
    """The makespan of the standard library's chunks."""
    size = math.ceil(len(seconds) / (4 * WORKERS))
    pool = Pool()
    for number, start in enumerate(range(0, len(seconds), size)):
        pool.submit(number, sum(seconds[start : start + size]))
    while pool.unfinished:
        pool.finish_one()
    return pool.now


def ideal(seconds: list[float]) -> float:
    """No order of single items, free of charge, is quicker."""
    longest, share = max(seconds), sum(seconds) / WORKERS
    return max(longest, share)


def with_run(count: int, each: float, factor: float, start: int) -> list[float]:
    """A run of neighbours, as long as one of the fixed chunks, takes longer."""
    run = math.ceil(count / (4 * WORKERS))
    items = [each] * count
    items[start : start + run] = [factor * each] * run
    return items


def heavy_tail(count: int, each: float) -> list[float]:
    chance = random.Random(7)
    return [each * min(200.0, chance.paretovariate(1.2)) for _ in range(count)]


MIXES = {
    "uniform": [0.001] * 400,
    "uniform, long": [0.05] * 64,
    "uniform, quick": [5e-6] * 100_000,
    "uniform, very quick": [5e-7] * 1_000_000,
    "increasing": [i * 5e-5 for i in range(1, 401)],
    "decreasing": [i * 5e-5 for i in range(400, 0, -1)],
    "heavy tail": heavy_tail(1000, 0.001),
    "heavy tail, quick": heavy_tail(50_000, 2e-6),
    "one long": [1.0] + [0.02] * 50,
    "one long, late": [0.02] * 50 + [1.0],
}
SKEWED = {
    "run": with_run(208, 0.001, 40, 104),
    "run, early": with_run(208, 0.001, 40, 0),
    "run, late": with_run(208, 0.001, 40, 195),
    "run, quick": with_run(20_000, 1e-5, 40, 10_000),
    "long neighbours": [0.002] * 64 + [0.2] * 8 + [0.002] * 56,
}


@pytest.mark.parametrize("mix", MIXES | SKEWED)
def test_no_mix_takes_longer_than_fixed_chunks(mix: str) -> None:
    """The makespan is at most 1.03 that of the standard library's chunks."""
    seconds = (MIXES | SKEWED)[mix]
    assert ideal(seconds) <= Simulation(seconds).run() <= 1.03 * fixed(seconds)


@pytest.mark.parametrize("mix", SKEWED)
def test_skewed_mixes_take_half(mix: str) -> None:
    """Slow neighbours, which a fixed chunk puts on one worker, are spread."""
    assert Simulation(SKEWED[mix]).run() <= 0.5 * fixed(SKEWED[mix])


@pytest.mark.parametrize("mix", MIXES | SKEWED)
def test_all_items_are_cut_once(mix: str) -> None:
    """Nothing is lost, whatever the sizes; no chunk is empty."""
    simulation = Simulation((MIXES | SKEWED)[mix])
    simulation.run()
    assert min(simulation.sizes) >= 1
    assert sum(simulation.sizes) == len((MIXES | SKEWED)[mix])
    assert simulation.chunker.spans == {}


def test_chunks_are_large_where_items_are_quick() -> None:
    """What a task costs is spread over many items: at most 2 % of the work."""
    simulation = Simulation([5e-6] * 100_000)
    simulation.run()
    assert len(simulation.sizes) * COST <= 0.02 * 0.5


def test_the_first_chunks_are_single_items() -> None:
    """Nothing is known yet, so that nothing is risked; then they grow step by step."""
    simulation = Simulation([1e-6] * 100_000)
    simulation.run()
    assert simulation.sizes[: 2 * WORKERS] == [1] * (2 * WORKERS)
    largest = 1
    for size in simulation.sizes:
        assert size <= GROWTH * largest
        largest = max(largest, size)


def test_slow_items_are_noticed_before_they_are_done() -> None:
    """What runs for long already makes the next chunks smaller."""
    now = [0.0]
    chunker = Chunker(1, 10_000, clock=lambda: now[0])
    chunks = chunker.cut_sequence(tuple(range(10_000)))
    for number in range(6):
        size = len(next(chunks))
        now[0] += size * 1e-5
        chunker.settled(number)
    before = chunker.next_size()
    next(chunks)
    now[0] += 100 * MAX_TIME
    assert before > 50
    assert chunker.next_size() < before / 10


@pytest.mark.parametrize("each", [1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("known", [False, True])
def test_a_stream_is_bounded(each: float, known: bool) -> None:
    """Items drawn and not finished: at most 64, or 1,024 while they are quick."""
    simulation = Simulation([each] * 5000, stream=True, known=known)
    simulation.run()
    assert sum(simulation.sizes) == 5000
    assert simulation.most_unfinished <= (64 if each == 1e-3 else MAX_WINDOW)
    assert max(simulation.sizes) > 1


def test_a_buffer_is_one_of_items() -> None:
    """What is cut and not read stays within the buffersize, which also is the largest chunk."""
    chunker = Chunker(2, None, stream=True, buffersize=10, clock=iter(range(10**6)).__next__)
    chunks = chunker.cut(iter(range(1000)))
    cut = 0
    for number in range(40):
        assert chunker.unread_room(number, 0) == 1
        chunk = next(chunks)
        cut += len(chunk)
        assert cut - chunker.read <= 10
        chunker.settled(number)
        chunker.read += len(chunk) if cut - chunker.read >= 10 else 0
        if cut - chunker.read >= 10:
            assert chunker.unread_room(number + 1, 0) == 0
            chunker.read = cut


def test_a_slow_input_does_not_hold_chunks_back() -> None:
    """Where drawing takes its time, what was drawn goes out."""
    now = [0.0]
    chunker = Chunker(1, None, stream=True, clock=lambda: now[0])

    def items() -> Iterator[int]:
        for number in range(1000):
            if number >= 500:
                now[0] += 0.01
            yield number

    sizes = []
    for number, chunk in enumerate(chunker.cut(items())):
        sizes.append(len(chunk))
        if number < 10:
            now[0] += len(chunk) * 1e-6
        chunker.settled(number)
    assert max(sizes) > 10
    assert sizes[-1] == 1


def test_an_error_of_the_input_comes_behind_its_items() -> None:
    """Items that were drawn before the error are no part of it."""

    def items() -> Iterator[int]:
        yield from range(100)
        raise KeyError("input")

    chunker = Chunker(1, None, stream=True)
    got: list[Any] = []
    chunks = chunker.cut(items())
    with pytest.raises(KeyError):
        for number, chunk in enumerate(chunks):
            got += chunk
            chunker.settled(number)
    assert got == list(range(100))


def test_wakes_where_all_is_finished_meanwhile() -> None:
    """The last chunks may finish between the look for room and the question when to go on."""
    chunker = Chunker(2, None, stream=True)
    assert chunker.wake_at(4, 4) == 0
    assert chunker.wake_at(4, 3) == 0
