# SPDX-License-Identifier: MIT
"""The crash matrix, second part: every place where a task can stay for ever, every way to do so.

A timeout ends it, or the memory limit does: its task fails alone, with the error of the table, the
tasks before and after it are done once each, and its worker is replaced.

There is no cell where no task of the worker runs: an initializer that never returns has no time
limit (as in multiprocessing), and what an idle worker does is a later task's business: one that was
sent to it and not read goes to another worker (test_lost_workers.py). What stays for ever in the
pool's own process, in pickling arguments or in a callback, is the program's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import gopool
import sabotage as s

PATIENCE = 60  # seconds for what must come
TIMEOUT = 0.3  # seconds that are meant to pass
LIMIT = 250 << 20  # bytes
BYSTANDERS = 4  # tasks before and after each failing one

PLACES: dict[str, Callable[..., Any]] = {
    "unpickle args": lambda pool, way, **asked: pool.apply_async(
        s.take, (s.ActsAtUnpickling(way),), **asked
    ),
    "call": lambda pool, way, **asked: pool.apply_async(s.act, (way,), **asked),
    "pickle result": lambda pool, way, **asked: pool.apply_async(
        s.ActsAtPickling, (way,), **asked
    ),
}
MANY = ("map", "starmap", "imap", "imap_unordered")


@pytest.fixture(scope="module", params=("fork", "spawn", "forkserver"))
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A pool of two workers that all cells of one start method share."""
    with gopool.get_context(request.param).Pool(2, worker_memory_limit=LIMIT) as pool:
        yield pool


pytestmark = pytest.mark.leaves  # the pool stays from test to test


def outcome_of(get: Callable[[], Any]) -> str:
    try:
        value = get()
    except gopool.TaskTimeoutError as error:
        assert not isinstance(error, gopool.SoftTimeoutError)
        assert error.seconds >= TIMEOUT
        return "timeout"
    except gopool.WorkerLostError as error:
        assert "worker_memory_limit" in error.reason
        return "memory"
    return f"the value {value!r}"


def asked_for(way: str) -> dict[str, float]:
    return {"timeout": PATIENCE if way == "memory" else TIMEOUT}


def expected_of(way: str) -> str:
    return "memory" if way == "memory" else "timeout"


@pytest.mark.parametrize("way", s.HOLDS)
@pytest.mark.parametrize("place", PLACES)
def test_task(pool: Any, tmp_path: Any, place: str, way: str) -> None:
    """A task that stays for ever fails alone."""
    path = str(tmp_path / "records")
    before = [pool.apply_async(s.record, (path, i)) for i in range(BYSTANDERS)]
    result = PLACES[place](pool, way, **asked_for(way))
    after = [pool.apply_async(s.record, (path, BYSTANDERS + i)) for i in range(BYSTANDERS)]
    assert outcome_of(partial(result.get, PATIENCE)) == expected_of(way)
    numbers = [each.get(PATIENCE) for each in before + after]
    assert numbers == list(range(2 * BYSTANDERS))
    assert Counter(number for number, _ in s.records(path)) == dict.fromkeys(numbers, 1)


@pytest.mark.parametrize("way", s.HOLDS)
@pytest.mark.parametrize("submit", MANY)
def test_many(pool: Any, submit: str, way: str) -> None:
    """An item that stays for ever fails alone; results that come one by one are all there."""
    items = [(i, 2, way) for i in range(6)]
    asked = asked_for(way)
    if submit == "starmap":
        assert outcome_of(lambda: pool.starmap(s.hold_at, items, **asked)) == expected_of(way)
        return
    if submit == "map":
        call = partial(pool.map, s.hold_at_star, items, **asked)
        assert outcome_of(call) == expected_of(way)
        return
    results = getattr(pool, submit)(s.hold_at_star, items, **asked)
    seen: list[Any] = []
    while True:
        try:
            seen.append(results.next(PATIENCE))
        except StopIteration:
            break
        except gopool.GopoolError as error:
            seen.append(outcome_of(partial(s.raise_, error)))
    if submit == "imap":
        assert seen == [0, 1, expected_of(way), 3, 4, 5]
    else:
        assert Counter(seen) == Counter([0, 1, expected_of(way), 3, 4, 5])


def test_the_pool_is_well(pool: Any) -> None:
    """After all cells: two workers, and what they are asked for."""
    assert pool.map(s.take, range(10)) == ["taken"] * 10
    assert pool._cache == {}
