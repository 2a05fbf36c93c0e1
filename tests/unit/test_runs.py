# SPDX-License-Identifier: MIT
"""Runs by themselves: what goes over the border together, and when."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from gopool._reserve import Places
from gopool._runs import _MOST_TASKS, Run
from gopool._submit import Desk, Functions, NoDescriptor, Submitter
from gopool._worker.channel import MAX_INLINE
from gopool._worker.pickling import LEAST_BUFFER

JOB = 7


class Go:
    """The extension's part: it keeps what it is handed, in the order of the calls."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, Any]]] = []  # of each call: index and arguments of tasks
        self.answer: Callable[[int], int] = lambda count: 5
        self.native = SimpleNamespace(
            desks=[],
            StagingOpen=lambda fd, size: 1,
            StagingClose=lambda handle: 0,
            FunctionAdd=lambda *numbers: 3,
            Submit=None,
            SubmitMany=self._submit_many,
        )
        self.desk = Desk(self.native)
        self.native.desks.append(self.desk)
        none = Places(-1)  # it keeps nothing: there is no such descriptor
        self.submitter = Submitter(self.native, 1, Functions(self.native, 1), 2, none)
        self.refused: list[tuple[int, str]] = []

    def run(self, items: Iterable[Any], quick: bool = True) -> Run:
        source = ((item,) for item in items)

        def refuse(job: int, index: int, error: BaseException) -> None:
            assert job == JOB
            self.refused.append((index, str(error)))

        return Run(self.submitter, JOB, 1, len, source, 0, quick, refuse)

    def finish(self, run: Run, most: int = 1000) -> list[tuple[int, BaseException]]:
        """Submit all; the failures on the way."""
        failures = []
        more = True
        while more:
            _, more = run.submit(most)
            if run.error is not None:
                error, (job, index, mode, function, _, options) = run.failure()
                assert (job, mode, function, options) == (JOB, 1, len, 0)
                failures.append((index, error))
        return failures

    @property
    def tasks(self) -> list[tuple[int, Any]]:
        return [task for call in self.calls for task in call]

    def _submit_many(
        self, pool: int, desk: int, count: int, job: int, first: int, *rest: int
    ) -> int:
        assert (pool, job, rest) == (1, JOB, (1, 3, 0))
        sizes = array("I", self.desk.memory[: 4 * count])
        at = 4 * count
        call = []
        for index, size in enumerate(sizes, first):
            call.append((index, pickle.loads(self.desk.memory[at : at + size])[0]))
            at += size
        self.calls.append(call)
        return self.answer(count)


@pytest.fixture
def go() -> Go:
    """What is below a run."""
    return Go()


def test_small_batches_first(go: Go) -> None:
    """All in order, each pickled by itself; the first ones do not wait for many."""
    shared: list[int] = []
    assert go.finish(go.run([shared] * 300)) == []
    assert go.tasks == [(i, []) for i in range(300)]
    objects = [item for _, item in go.tasks]
    assert len({id(item) for item in objects}) == 300, "two tasks share an object"
    sizes = [len(call) for call in go.calls]
    assert sizes[:7] == [1, 2, 4, 8, 16, 32, 64]
    assert max(sizes) == _MOST_TASKS


def test_no_more_than_asked_for(go: Go) -> None:
    """The window of imap is kept, and the rest can be had one by one."""
    run = go.run(range(200))
    for most in (1, 1, 5, 5, 2):
        before = run.index
        assert run.submit(most) == (5, True)
        assert run.index - before <= most
    done = run.index
    assert next(iter(run.rest(1))) == (JOB, done, 1, len, (done,), 0)
    assert [index for _, index, *_ in run.rest()] == list(range(done + 1, 200))
    assert run.submit(1) == (5, False)
    assert go.tasks == [(i, i) for i in range(done)]


def test_one_by_one_where_items_take_time(go: Go) -> None:
    """Where drawing runs code of the user's, the tasks before are on their way by then."""

    def items() -> Any:
        for i in range(50):
            assert len(go.tasks) == i
            yield i

    assert go.finish(go.run(items(), quick=False)) == []
    assert [len(call) for call in go.calls] == [1] * 50


class Watches:
    """Notes how many tasks are on their way when it is pickled."""

    def __init__(self, go: Go) -> None:
        self.go = go

    def __reduce__(self) -> Any:
        return int, (len(self.go.tasks),)


def test_handed_over_before_code_of_the_users_runs(go: Go) -> None:
    """What pickling runs may wait for the tasks before."""
    items: list[Any] = list(range(100))
    for place in (0, 40, 41, 99):
        items[place] = Watches(go)
    assert go.finish(go.run(items)) == []
    assert go.tasks == [(i, i) for i in range(100)]


def test_error_in_the_middle(go: Go) -> None:
    """A task that does not pickle fails alone; those before it are on their way by then."""
    items: list[Any] = list(range(100))
    items[0] = items[50] = items[51] = lambda: None
    failures = go.finish(go.run(items))
    assert [index for index, _ in failures] == [0, 50, 51]
    assert go.tasks == [(i, i) for i in range(100) if i not in (0, 50, 51)]


def test_refused(go: Go) -> None:
    """Each task of a batch that Go does not take is told of."""
    go.answer = lambda count: 5 if len(go.tasks) < 10 else -10
    assert go.finish(go.run(range(30))) == []
    assert [index for index, _ in go.refused] == list(range(7, 30))
    assert {text for _, text in go.refused} == {"Pool not running"}


def test_sizes(go: Go) -> None:
    """Whatever the sizes, all arrive in order, and none of the calls overflows the staging area."""
    items = [bytes(size) for size in [1, MAX_INLINE - 100, 2, 40_000, 30_000, 100] * 5 + [9] * 100]
    assert go.finish(go.run(items)) == []
    assert go.tasks == list(enumerate(items))


def test_large(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large task goes by itself, in its turn; one without a descriptor is told of."""
    apart: list[int] = []

    def submit_region(chunks: list[Any], shares: bool, job: int, index: int, *rest: int) -> int:
        assert [index for index, _ in go.tasks] == [i for i in range(index) if i not in (20, 30)]
        apart.append(index)
        if index == 30:
            raise NoDescriptor
        return 6

    monkeypatch.setattr(go.submitter, "submit_region", submit_region)
    items: list[Any] = list(range(60))
    items[20] = bytes(2 * MAX_INLINE)
    items[30] = pickle.PickleBuffer(bytearray(LEAST_BUFFER))
    failures = go.finish(go.run(items))
    assert apart == [20, 30]
    assert [(index, type(error)) for index, error in failures] == [(30, NoDescriptor)]
    assert len(go.tasks) == 58


class Interrupted(Exception):
    """What a signal's handler raises."""


@pytest.mark.parametrize("where", ["call", "pickle"])
def test_interrupted_while_handing_over(go: Go, where: str) -> None:
    """Nobody can say what Go has taken: that is no task's error, and nobody goes on."""

    def answer(count: int) -> int:
        if len(go.tasks) > 10:
            raise Interrupted
        return 5

    go.answer = answer
    items: list[Any] = list(range(30))
    if where == "pickle":
        items[12] = Watches(go)
    run = go.run(items)
    with pytest.raises(Interrupted):
        go.finish(run)
    assert run.error is None
    assert go.desk.dumper.chunks == []
    go.answer = lambda count: 5
    go.calls.clear()
    assert go.finish(go.run(range(5))) == []
    assert go.tasks == [(i, i) for i in range(5)], "the next one finds the desk in order"


def test_interrupted_pickle(go: Go) -> None:
    """KeyboardInterrupt within a pickle is for the caller to raise."""

    class Raises:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    [(index, error)] = go.finish(go.run([0, 1, 2, 3, 4, Raises(), 6]))
    assert (index, type(error)) == (5, KeyboardInterrupt)
    assert go.tasks[:5] == [(i, i) for i in range(5)]
