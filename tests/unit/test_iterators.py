# SPDX-License-Identifier: MIT
"""The iterators of imap by themselves: who takes what, who waits, and when it ends."""

from __future__ import annotations

import multiprocessing
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from gopool import _jobs
from gopool._jobs import Cache, IMapIterator, IMapUnorderedIterator, Reading

LIMIT = 30  # seconds; only reached when something hangs

each_kind = pytest.mark.parametrize("kind", [IMapIterator, IMapUnorderedIterator])


def _job(kind: Any) -> Any:
    return kind(SimpleNamespace(_cache=Cache()))


def _waits(job: Any) -> None:
    """Return once a reader waits."""
    while not job._waiting:
        threading.Event().wait(0.001)


def test_results_come_in_order() -> None:
    """The ordered iterator keeps what comes early; the other gives it at once."""
    ordered, unordered = _job(IMapIterator), _job(IMapUnorderedIterator)
    for job in (ordered, unordered):
        for index in (2, 0, 3, 1):
            job._set(index, (True, index))
        job._set_length(4)
        assert (job.finished, job._cache, job._pool) == (4, {}, None)
    assert list(ordered) == [0, 1, 2, 3]
    assert list(unordered) == [2, 0, 3, 1]
    for job in (ordered, unordered):
        with pytest.raises(StopIteration):
            next(job)


@each_kind
def test_an_error_is_one_result(kind: Any) -> None:
    """It is raised at its place, and the iterator goes on behind it."""
    job = _job(kind)
    job._set(0, (True, "a"))
    job._set(1, (False, KeyError("b")))
    job._set(2, (True, "c"))
    assert next(job) == "a"
    with pytest.raises(KeyError):
        next(job)
    assert next(job) == "c"


@each_kind
def test_next_takes_a_timeout(kind: Any) -> None:
    """next(timeout) raises TimeoutError where nothing comes, and loses nothing."""
    job = _job(kind)
    for timeout in (0, 0.001):
        with pytest.raises(multiprocessing.TimeoutError):
            job.next(timeout)
    job._set(0, (True, 7))
    assert job.next(0) == 7
    assert job.taken == 1


@each_kind
def test_a_reader_is_woken(kind: Any) -> None:
    """A reader that waits gets the next result, an earlier result does not wake it, and all
    readers see the end.
    """
    job = _job(kind)
    seen: list[Any] = []
    readers = [
        threading.Thread(target=lambda: seen.extend(job), daemon=True) for _ in range(3)
    ]
    for reader in readers:
        reader.start()
    while len(job._waiting) < 3:
        threading.Event().wait(0.001)
    for index in range(100):
        job._set(index, (True, index))
    job._set_length(100)
    for reader in readers:
        reader.join(LIMIT)
        assert not reader.is_alive()
    assert sorted(seen) == list(range(100))


@each_kind
def test_the_length_may_come_last(kind: Any) -> None:
    """A reader that has everything waits until it knows that this is all."""
    job = _job(kind)
    job._set(0, (True, 1))
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.extend(job), daemon=True)
    reader.start()
    _waits(job)
    assert job._cache
    job._set_length(1)
    reader.join(LIMIT)
    assert (got, job._cache) == ([1], {})


@each_kind
def test_nothing_is_lost_between_collector_and_reader(kind: Any) -> None:
    """One thread sets, one reads as quickly as it can: all of it arrives, and the end."""
    for _ in range(20):
        job = _job(kind)
        got: list[Any] = []
        reader = threading.Thread(target=lambda j=job, g=got: g.extend(j), daemon=True)  # type: ignore[misc]
        reader.start()
        for index in range(500):
            job._set(index, (True, index))
        job._set_length(500)
        reader.join(LIMIT)
        assert got == list(range(500))


@each_kind
def test_a_failed_job_ends(kind: Any) -> None:
    """It gives what has arrived, then the error, then stops; a late length changes nothing."""
    job = _job(kind)
    job._set(0, (True, "a"))
    _jobs.fail(job, OSError("gone"))
    job._set(1, (True, "late"))
    job._set_length(10)
    assert next(job) == "a"
    with pytest.raises(OSError, match="gone"):
        next(job)
    assert list(job) == []


def test_a_lost_reading_is_told() -> None:
    """What imap(buffersize=) gives reads like its job, and says when nobody has it any more."""
    job = _job(IMapIterator)
    lost: list[bool] = []
    reading = Reading(job, lambda: lost.append(True))
    assert iter(reading) is reading
    job._set(0, (True, 1))
    job._set(1, (True, 2))
    assert reading.next(timeout=0) == 1
    assert next(reading) == 2
    with pytest.raises(multiprocessing.TimeoutError):
        reading.next(0)
    assert not lost
    del reading
    assert lost
