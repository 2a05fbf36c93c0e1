# SPDX-License-Identifier: MIT
"""Nothing leaks: many pools, recycled workers and terminates leave this process as it was.

The sizes are for every day; GOPOOL_CHAOS=1 (`make chaos`) takes the long ones and prints what was
there before and after.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import functions as f
import gopool
from usage import Usage, left_since, shared_files_since, usage

LONG = bool(os.environ.get("GOPOOL_CHAOS"))
POOLS = 1_000 if LONG else 100
POOLS_BOOTED = 1_000 if LONG else 10  # under each of spawn and forkserver
RECYCLED = 10_000 if LONG else 500
TERMINATES = 100 if LONG else 30
TIMEOUT = 60  # seconds for any one result

# The memory that may come on top after the warm-up, bytes. Python's and Go's allocators settle a
# few MiB later than that; a leak of one outcome ring, 1 MiB, in each of 100 pools is far beyond.
MEMORY = 16 << 20

pytestmark = pytest.mark.timeout(1_800 if LONG else 120)


def flat(name: str, rounds: int, warm_up: int, run: Callable[[int], object]) -> None:
    """Run something for so many rounds, and compare what this process holds before and after.

    Args:
        name: for the lines that are printed.
        rounds, warm_up: how often; the warm-up is for caches, desks and Go's threads.
        run: does so many rounds, and leaves nothing.
    """
    run(warm_up)
    before = usage()
    run(rounds)
    left, after = left_since(before), usage()
    print(f"\n{name}, {rounds} rounds\n  before: {before}\n  after:  {after}")
    assert not left
    assert not shared_files_since(before)
    assert after.memory - before.memory < MEMORY, _growth(before, after)


def _growth(before: Usage, after: Usage) -> str:
    return f"{(after.memory - before.memory) >> 10} KiB more resident than before"


def _pools(context: Any, rounds: int, end: str) -> None:
    for _ in range(rounds):
        pool = context.Pool(2)
        assert pool.map(f.square, range(4), 1) == [0, 1, 4, 9]
        if end != "dropped":
            getattr(pool, end)()
            pool.join()


@pytest.mark.filterwarnings("ignore:unclosed running multiprocessing pool:ResourceWarning")
@pytest.mark.parametrize("end", ["close", "terminate", "dropped"])
def test_pools(end: str) -> None:
    """Pools that were used and closed, terminated or dropped."""
    context = gopool.get_context("fork")
    flat(f"pools, {end}", POOLS // 3, 10, lambda rounds: _pools(context, rounds, end))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_of_other_start_methods(method: str) -> None:
    """Pools whose workers are not forked from this process."""
    context = gopool.get_context(method)
    flat(f"pools, {method}", POOLS_BOOTED, 3, lambda rounds: _pools(context, rounds, "close"))


def _recycle(rounds: int) -> None:
    """Replace two workers after each of ten tasks, so often."""
    highest = 0
    with gopool.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        for _ in range(rounds):
            assert len(set(pool.map(f.pid, range(10), 1))) == 10
            highest = max(highest, usage().descriptors)
        pool.close()
        pool.join()
    assert highest < usage().descriptors + 40


def test_recycled_workers() -> None:
    """Workers that are replaced after each task."""
    flat("workers recycled, ten each", RECYCLED // 10, 3, _recycle)


def _lose(rounds: int) -> None:
    """Lose four workers while large results are on their way, so often."""
    highest = 0
    with gopool.get_context("fork").Pool(2) as pool:
        for _ in range(rounds):
            results = [pool.apply_async(f.kill_self) for _ in range(4)]
            large = [pool.apply_async(bytes, (200_000,)) for _ in range(4)]
            for result in results:
                with pytest.raises(gopool.WorkerLostError):
                    result.get(TIMEOUT)
            assert all(len(result.get(TIMEOUT)) == 200_000 for result in large)
            highest = max(highest, usage().descriptors)
        pool.close()
        pool.join()
    assert highest < usage().descriptors + 40


def test_lost_workers() -> None:
    """Workers that are killed in a task, beside results in regions of their own."""
    flat("workers lost, four each", RECYCLED // 40, 3, _lose)


def _terminate(rounds: int) -> None:
    """Terminate a pool with tasks that run, wait, are drawn, and have large payloads."""
    payload = bytes(200_000)
    for _ in range(rounds):
        pool = gopool.get_context("fork").Pool(2)
        endless = pool.imap(f.square, iter(int, 1))
        next(endless)
        results = [pool.apply_async(f.identity, (payload,)) for _ in range(20)]
        results += [pool.apply_async(f.sleep, (60,)) for _ in range(2)]
        results += [pool.map_async(f.square, range(500), 1)]
        pool.terminate()
        pool.join()
        for result in results:
            result.wait(TIMEOUT)
            assert result.ready()


def test_terminates_under_load() -> None:
    """Pools that are terminated in the middle of everything."""
    flat("terminates under load", TERMINATES, 3, _terminate)
