# SPDX-License-Identifier: MIT
"""Workers that break the wire protocol: each is ended with a reason and loses its own task only.

What Go makes of single frames is tested in bridge/; this is the whole way, from a worker in Python
to the error that a caller gets.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import functions as f
import gopool
import sabotage as s
from gopool import _lastwords
from scripted import OFFENCES, STARTS, offend, scripted_context
from usage import left_since, usage

TIMEOUT = 60  # seconds for any one result

# What WorkerLostError.reason says of each offence.
REASONS = {
    "torn frame": "breaks the protocol at byte 0: length mismatch",
    "cut header": "breaks the protocol at byte 0: frame shorter than its header",
    "empty message": "empty message",
    "length too small": "breaks the protocol at byte 0: length mismatch",
    "length of 2 GiB": "breaks the protocol at byte 0: length mismatch",
    "larger than a frame": "message larger than a frame",
    "unknown kind": "kind 99 breaks the protocol at byte 5: unknown kind",
    "parent's kind": "kind 2 breaks the protocol at byte 5: unknown kind",
    "garbage": "breaks the protocol at byte 4: not an array",
    "array of 4 G": "kind 18 breaks the protocol at byte 4: wrong number of elements",
    "garbage, then an outcome": "breaks the protocol at byte 4: not an array",
    "outcome of the last again": "which it does not hold",
    "outcome of no task": "task 4711000, which it does not hold",
    "outcome of a task that was taken back": "which it does not hold",
    "Hello again": "can't go from busy to initializing",
    "Ready again": "said a second time",
    "region without descriptor": "region without descriptor",
    "descriptor without region": "descriptor without region",
    "two descriptors": "2 descriptors",
    "flood of descriptors": "descriptors",
    "flood of messages": "descriptor without region",
    "writing half closed": "closed its end",
    # Who is first: the one who reads, or the one who sends a task ahead.
    "both halves closed": "closed its end|broken pipe",
}
ALONE = [name for name in OFFENCES if name != "outcome of a task that was taken back"]


def fits(name: str, reason: str) -> bool:
    return any(text in reason for text in REASONS[name].split("|"))


def test_reasons_are_whole() -> None:
    """Every offence has a reason."""
    assert set(REASONS) == set(OFFENCES)


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """A test leaves exactly as many descriptors, threads and processes as there were."""
    before = usage()
    yield
    assert not left_since(before)


def _meet(pool: Any, folder: Any) -> set[int]:
    """Have each of two workers do a task; their pids."""
    here, there = str(folder / "here"), str(folder / "there")
    both = [pool.apply_async(f.touch_and_wait, pair) for pair in ((here, there), (there, here))]
    return {result.get(TIMEOUT) for result in both}


def _offend(pool: Any, name: str, path: str) -> gopool.WorkerLostError:
    """Submit an offence between tasks that leave traces, check these, and return its error."""
    results = [pool.apply_async(s.record, (path, number)) for number in range(6)]
    bad = pool.apply_async(offend, (name,))
    results += [pool.apply_async(s.record, (path, number)) for number in range(6, 12)]
    with pytest.raises(gopool.WorkerLostError) as caught:
        bad.get(TIMEOUT)
    assert [result.get(TIMEOUT) for result in results] == list(range(12))
    assert Counter(number for number, _ in s.records(path)) == dict.fromkeys(range(12), 1)
    return caught.value


@pytest.mark.parametrize("name", ALONE)
def test_offence(tmp_path: Any, name: str) -> None:
    """The worker is killed and replaced, its task fails with the reason, all others are done."""
    with scripted_context("fork").Pool(2) as pool:
        pids = _meet(pool, tmp_path)
        error = _offend(pool, name, str(tmp_path / "records"))
        assert fits(name, error.reason) and error.reason in str(error)
        assert error.exitcode == -signal.SIGKILL
        assert error.pid in pids
        assert pool.map(f.square, range(4), 1) == [0, 1, 4, 9]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_offences_one_after_the_other(tmp_path: Any, method: str) -> None:
    """One pool outlives every offence, under the other start methods."""
    names = [name for name in ALONE if name != "outcome of the last again"]
    with scripted_context(method).Pool(2) as pool:
        for number, name in enumerate(names):
            error = _offend(pool, name, str(tmp_path / f"records {number}"))
            assert fits(name, error.reason)


def test_outcome_of_a_task_that_was_taken_back(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not count: the task is done by the worker that it went to, once."""
    path, peeked = str(tmp_path / "records"), tmp_path / "peeked"
    monkeypatch.setenv("GOPOOL_SEND_AHEAD", "always")
    monkeypatch.setenv("GOPOOL_TEST_PEEKED", str(peeked))
    name = "outcome of a task that was taken back"
    monkeypatch.setattr(_lastwords, "new_memory", lambda owner: -1)  # tasks lie in the socket then
    with scripted_context("fork").Pool(2) as pool:
        _meet(pool, tmp_path)
        go, stay = tmp_path / "go", tmp_path / "stay"
        # Both workers hold a task; then one gets the offence and, sent ahead, what follows it.
        first = pool.apply_async(f.wait_for, (str(go),))
        held = pool.apply_async(f.wait_for, (str(stay),))
        bad = pool.apply_async(offend, (name,))
        results = [pool.apply_async(s.record, (path, number)) for number in range(4)]
        go.touch()
        assert first.get(TIMEOUT)
        assert f.wait_for(str(peeked))
        stay.touch()  # the other worker has nothing more to do, and takes back
        assert held.get(TIMEOUT)
        with pytest.raises(gopool.WorkerLostError, match=REASONS[name]):
            bad.get(TIMEOUT)
        assert [result.get(TIMEOUT) for result in results] == list(range(4))
        assert Counter(number for number, _ in s.records(path)) == dict.fromkeys(range(4), 1)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("start", STARTS)
def test_start_of_one(start: str, method: str, eventually: Any) -> None:
    """A worker that comes up wrongly is replaced; no task was its own, so none fails."""
    with scripted_context(method, [start]).Pool(2) as pool:
        assert pool.map(f.square, range(20), 1) == [x * x for x in range(20)]
        eventually(lambda: _stat(pool, 0) == 3, "a third worker was added", TIMEOUT)
        assert _stat(pool, 5) == 1  # one has crashed


START_REASONS = {
    "Ready before Hello": "can't go from starting to idle",
    "Hello twice": "can't go from initializing to initializing",
    "outcome before Hello": "which it does not hold",
    "garbage before Hello": "breaks the protocol at byte 0: length mismatch",
    "Hello of version 9": "version 9, version 1 is needed",
    "nothing, writing half closed": "closed its end",
}


@pytest.mark.parametrize("start", STARTS)
def test_start_of_all(start: str) -> None:
    """A pool whose workers all come up wrongly breaks, and says why to every caller."""
    with scripted_context("fork", [start] * 50).Pool(2) as pool:
        for _ in range(2):
            with pytest.raises(gopool.BrokenPoolError) as caught:
                pool.apply_async(f.square, (3,)).get(TIMEOUT)
            assert START_REASONS[start] in str(caught.value)


def _stat(pool: Any, which: int) -> int:
    count: int = pool._engine.native.PoolStat(pool._engine.handle, which)
    return count


def test_worker_that_never_reads(tmp_path: Any) -> None:
    """What it is sent is done by another worker, and none is lost, while it lives on."""
    path = str(tmp_path / "records")
    with scripted_context("fork", ["never reads"]).Pool(2) as pool:
        deaf = pool._pool[0].pid
        results = [pool.apply_async(s.record, (path, number)) for number in range(40)]
        assert [result.get(TIMEOUT) for result in results] == list(range(40))
        assert Counter(number for number, _ in s.records(path)) == dict.fromkeys(range(40), 1)
        assert deaf not in {pid for _, pid in s.records(path)}


def test_worker_that_closed_its_reading_half(tmp_path: Any) -> None:
    """A worker that can't be sent anything is ended, and what it was to do is done elsewhere."""
    path = str(tmp_path / "records")
    with scripted_context("fork", ["reading half closed"]).Pool(2) as pool:
        deaf = pool._pool[0].pid
        results = [pool.apply_async(s.record, (path, number)) for number in range(40)]
        assert [result.get(TIMEOUT) for result in results] == list(range(40))
        assert Counter(number for number, _ in s.records(path)) == dict.fromkeys(range(40), 1)
        assert deaf not in {pid for _, pid in s.records(path)}
