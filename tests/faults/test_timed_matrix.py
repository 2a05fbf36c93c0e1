# SPDX-License-Identifier: MIT
"""The crash matrix, second part: every place where a task can stay for ever, every way to do so.

A timeout ends it, or the memory limit does: its task fails alone, with the error of the table, the
tasks before and after it are done once each, and its worker is replaced. A soft timeout ends what
runs Python, or waits, inside the call: its worker stays. All else waits for the other timeout.

There is no cell where no task of the worker runs: an initializer that never returns has no time
limit (as in multiprocessing), memory is looked at while a task runs only, and what an idle worker
does is a later task's business: one that was sent to it and not read goes to another worker
(test_lost_workers.py), and where there is none, its timeout ends it (below). What stays for ever in
the pool's own process, in pickling arguments, unpickling results, a callback or its garbage
collection, is the program's own.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import functions as f
import gopool
import sabotage as s
from usage import left_since, usage

PATIENCE = 60  # seconds for what must come
TIMEOUT = 0.1  # seconds that are meant to pass
TIMEOUT_OF_MANY = 0.3  # the same, where the tasks beside it have that timeout too
ROOM = 100 << 20  # bytes, of a worker beyond what it has from this process by a fork
BYSTANDERS = 4  # tasks before and after each failing one

PLACES: dict[str, Callable[..., Any]] = {
    "unpickle args": lambda pool, way, **asked: pool.apply_async(
        s.take, (s.ActsAtUnpickling(way),), **asked
    ),
    "call": lambda pool, way, **asked: pool.apply_async(s.act, (way,), **asked),
    "pickle result": lambda pool, way, **asked: pool.apply_async(
        s.ActsAtPickling, (way,), **asked
    ),
    "collected": lambda pool, way, **asked: pool.apply_async(
        s.take, (s.MakesGrenade(way),), **asked
    ),
}
MANY = ("map", "starmap", "imap", "imap_unordered")


@pytest.fixture(scope="module", params=("fork", "spawn", "forkserver"))
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A pool of two workers that all cells of one start method share; nothing of it is left."""
    before = usage()
    limit = before.memory + ROOM
    with gopool.get_context(request.param).Pool(2, worker_memory_limit=limit) as pool:
        with pytest.raises(gopool.WorkerLostError):  # the first one starts a thread, for good
            pool.apply(s.act, ("SIGKILL",))
        yield pool
    pool.join()
    del pool
    assert not left_since(before)


@pytest.fixture
def level(pool: Any, eventually: Any) -> Iterator[None]:
    """A cell leaves this process as many descriptors, threads and children as there were."""
    two = partial(eventually, lambda: _has_two(pool), "two workers", PATIENCE)
    two()
    before = usage()
    yield
    two()
    assert not left_since(before)


def _has_two(pool: Any) -> bool:
    """Whether there are two workers, none of which has just ended and was not reaped yet."""
    try:
        return [_state(process.pid)[0] in "ZX" for process in pool._pool] == [False, False]
    except OSError:
        return False


# The pool stays from test to test; the fixtures above look at what is left.
pytestmark = [pytest.mark.leaves, pytest.mark.usefixtures("level")]


def outcome_of(get: Callable[[], Any]) -> str:
    try:
        value = get()
    except gopool.SoftTimeoutError as error:
        assert error.seconds == TIMEOUT
        return "soft timeout"
    except gopool.TaskTimeoutError as error:
        assert error.seconds >= TIMEOUT
        assert error.task
        return "timeout"
    except gopool.WorkerLostError as error:
        assert "worker_memory_limit" in error.reason
        assert error.task
        return "memory"
    return f"the value {value!r}"


def asked_for(way: str, timeout: float = TIMEOUT) -> dict[str, float]:
    return {"timeout": PATIENCE if way == "memory" else timeout}


def expected_of(way: str) -> str:
    return "memory" if way == "memory" else "timeout"


@pytest.mark.parametrize("way", s.HOLDS)
@pytest.mark.parametrize("place", PLACES)
def test_task(pool: Any, tmp_path: Any, place: str, way: str) -> None:
    """A task that stays for ever fails alone."""
    run_task(pool, str(tmp_path / "records"), place, way, expected_of(way), **asked_for(way))


SOFT_CELLS = [(place, way) for place in PLACES for way in s.SOFT_HOLDS]
SOFT_CELLS += [("call", way) for way in ("SIGSTOP", "C loop", "pattern")]


@pytest.mark.parametrize(("place", "way"), SOFT_CELLS)
def test_soft_timeout(pool: Any, tmp_path: Any, place: str, way: str) -> None:
    """A soft timeout ends what can be ended inside the call, and harms nothing anywhere else."""
    soft = place == "call" and way in s.SOFT_HOLDS
    asked = {"soft_timeout": TIMEOUT, "timeout": PATIENCE if soft else 2 * TIMEOUT}
    workers = {process.pid for process in pool._pool}
    path, expected = str(tmp_path / "records"), "soft timeout" if soft else "timeout"
    run_task(pool, path, place, way, expected, **asked)
    if soft:
        assert {process.pid for process in pool._pool} == workers


def run_task(
    pool: Any, path: str, place: str, way: str, expected: str, **asked: float
) -> None:
    """One such task with others before and after it, which are done once each."""
    before = [pool.apply_async(s.record, (path, i)) for i in range(BYSTANDERS)]
    result = PLACES[place](pool, way, **asked)
    after = [pool.apply_async(s.record, (path, BYSTANDERS + i)) for i in range(BYSTANDERS)]
    assert outcome_of(partial(result.get, PATIENCE)) == expected
    numbers = [each.get(PATIENCE) for each in before + after]
    assert numbers == list(range(2 * BYSTANDERS))
    assert Counter(number for number, _ in s.records(path)) == dict.fromkeys(numbers, 1)


@pytest.mark.parametrize("way", s.HOLDS)
@pytest.mark.parametrize("submit", MANY)
def test_many(pool: Any, submit: str, way: str) -> None:
    """An item that stays for ever fails alone; results that come one by one are all there."""
    run_many(pool, submit, way, expected_of(way), **asked_for(way, TIMEOUT_OF_MANY))


@pytest.mark.parametrize("way", s.SOFT_HOLDS)
@pytest.mark.parametrize("submit", MANY)
def test_soft_timeout_of_many(pool: Any, submit: str, way: str) -> None:
    """An item that a soft timeout ends fails alone, in a worker that stays."""
    workers = {process.pid for process in pool._pool}
    run_many(pool, submit, way, "soft timeout", soft_timeout=TIMEOUT)
    assert {process.pid for process in pool._pool} == workers


def run_many(pool: Any, submit: str, way: str, expected: str, **asked: float) -> None:
    """Six items of which the third stays for ever."""
    items = [(i, 2, way) for i in range(6)]
    if submit == "starmap":
        assert outcome_of(lambda: pool.starmap(s.hold_at, items, **asked)) == expected
        return
    if submit == "map":
        assert outcome_of(lambda: pool.map(s.hold_at_star, items, **asked)) == expected
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
        assert seen == [0, 1, expected, 3, 4, 5]
    else:
        assert Counter(seen) == Counter([0, 1, expected, 3, 4, 5])


@pytest.mark.parametrize("submit", MANY)
def test_chunk(pool: Any, tmp_path: Any, eventually: Any, submit: str) -> None:
    """A chunk whose item exceeds the memory limit is lost as one task, and no other is."""
    path = str(tmp_path / "records")
    items = [(path, i, "memory" if i == 7 else "") for i in range(20)]
    function = s.record_or_act if submit == "starmap" else s.record_or_act_star
    if submit in ("map", "starmap"):
        get = partial(getattr(pool, submit), function, items, 5)
    else:
        get = partial(list, getattr(pool, submit)(function, items, 5))
    assert outcome_of(get) == "memory"
    ran = set(range(20)) - {7, 8, 9}
    eventually(lambda: len(s.records(path)) >= len(ran), "all other chunks ran", PATIENCE)
    assert Counter(number for number, _ in s.records(path)) == dict.fromkeys(ran, 1)


@pytest.mark.parametrize("way", s.HOLDS)
def test_dropped_pool(pool: Any, tmp_path: Any, eventually: Any, way: str) -> None:
    """A pool that is dropped with such a task under way ends it all the same, and goes."""
    path = str(tmp_path / "records")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the standard library's: not closed
        dropped = pool._ctx.Pool(1, worker_memory_limit=usage().memory + ROOM)
        result = dropped.apply_async(s.act, (way,), **asked_for(way))
        after = [dropped.apply_async(s.record, (path, i)) for i in range(BYSTANDERS)]
        reference = weakref.ref(dropped)
        del dropped
        assert outcome_of(partial(result.get, PATIENCE)) == expected_of(way)
        assert [each.get(PATIENCE) for each in after] == list(range(BYSTANDERS))
        del result, after
        eventually(lambda: reference() is None, "the pool is collected", PATIENCE)
    assert Counter(number for number, _ in s.records(path)) == dict.fromkeys(range(BYSTANDERS), 1)


# What an idle worker can do so that it reads nothing.
DEAF: dict[str, Callable[[str, int], bool]] = {
    "SIGSTOP": lambda state, ticks: state == "T",
    "C loop": lambda state, ticks: ticks > 20,  # 0.2 s: it sleeps but for that
}


@pytest.mark.parametrize("way", DEAF)
def test_idle(pool: Any, tmp_path: Any, eventually: Any, way: str) -> None:
    """A task sent to an idle worker that does not read, the only one, ends at its timeout."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with pool._ctx.Pool(1) as lonely:
        deaf = lonely.apply(s.leave_thread, (fifo, way))
        _, used = _state(deaf)
        with open(fifo):  # the thread begins
            eventually(lambda: _is_deaf(deaf, used, way), "the worker is deaf", PATIENCE)
            result = lonely.apply_async(s.take, (0,), timeout=TIMEOUT)
            later = lonely.apply_async(f.pid)
            assert outcome_of(partial(result.get, PATIENCE)) == "timeout"
        assert later.get(PATIENCE) != deaf
    lonely.join()


def _is_deaf(pid: int, used: int, way: str) -> bool:
    state, ticks = _state(pid)
    return DEAF[way](state, ticks - used)


def _state(pid: int) -> tuple[str, int]:
    """A process's state, and the CPU time it has used in ticks."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])


def test_the_pool_is_well(pool: Any) -> None:
    """After all cells: two workers, and what they are asked for."""
    assert pool.map(s.take, range(10)) == ["taken"] * 10
    assert pool._cache == {}
