# SPDX-License-Identifier: MIT
"""The feeders by themselves: the gate, the order of the backlog, the window of imap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gopool._feeder import MAX_WINDOW, Backlog, Gate, IMapFeeder, Room, TaskFeeder, Window

LIMIT = 30  # seconds; only reached when something hangs


def _task(number: int) -> tuple[int, int, int, Any, Any]:
    return (number, 0, 0, None, None)


def test_gate_keeps_an_opening() -> None:
    """An opening before the wait lets it through; many openings are one."""
    gate = Gate()
    for _ in range(3):
        gate.open()
    gate.wait()
    waiter = threading.Thread(target=gate.wait, daemon=True)
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive(), "the three openings counted as more than one"
    gate.open()
    waiter.join(LIMIT)
    assert not waiter.is_alive()


def test_room_wakes_all_that_wait() -> None:
    """Feeders that wait for room all look again when there may be some, and when one is stopped."""
    free = threading.Event()
    stopped = threading.Event()
    looked = threading.Semaphore(0)

    def has_room() -> bool:
        looked.release()
        return free.is_set()

    room = Room(has_room)
    waiters = [
        threading.Thread(target=room.wait, args=(stop,), daemon=True)
        for stop in (stopped.is_set, lambda: False, lambda: False)
    ]
    for waiter in waiters:
        waiter.start()
        assert looked.acquire(timeout=LIMIT)
    stopped.set()
    room.changed()
    waiters[0].join(LIMIT)
    assert [waiter.is_alive() for waiter in waiters] == [False, True, True]
    free.set()
    room.changed()
    for waiter in waiters:
        waiter.join(LIMIT)
        assert not waiter.is_alive()
    room.wait(lambda: False)  # with room nobody waits


class Stage:
    """A backlog with room for as many tasks as a test gives it."""

    def __init__(self) -> None:
        self.room = 0
        self.submitted: list[int] = []
        self.progress = threading.Condition()
        self.ended = threading.Event()
        self.changed = Room(lambda: len(self.submitted) < self.room)
        self.backlog = Backlog(self._submit, self.changed)
        self.backlog.ended = self.ended.set

    def _submit(self, task: Any) -> None:
        with self.progress:
            self.submitted.append(task[0])
            self.progress.notify_all()

    def make_room(self, room: int) -> None:
        self.room = room
        self.changed.changed()

    def wait_for(self, count: int) -> None:
        with self.progress:
            done = self.progress.wait_for(lambda: len(self.submitted) >= count, LIMIT)
        assert done, f"{len(self.submitted)} tasks were submitted, not {count}"


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage whose thread is gone afterwards."""
    made = Stage()
    yield made
    made.backlog.stop()
    made.backlog.join()


def test_backlog_keeps_the_order(stage: Stage) -> None:
    """Whatever comes in one by one or as a job, and however room comes and goes: first in, first
    out; the thread lives while there is something to submit.
    """
    backlog = stage.backlog
    assert not backlog
    backlog.add([_task(0)], 1)
    backlog.add((_task(i) for i in range(1, 10)), 9)
    backlog.add([_task(10)], 1)
    assert backlog
    assert len(backlog) == 11
    for room in (1, 4, 10):
        stage.make_room(room)
        stage.wait_for(room)
        assert stage.submitted == list(range(room))
        assert len(backlog) == 11 - room
    stage.make_room(11)
    assert stage.ended.wait(LIMIT)
    backlog.join()
    assert stage.submitted == list(range(11))
    assert not backlog
    assert len(backlog) == 0


def test_backlog_starts_again(stage: Stage) -> None:
    """After it ran dry the next task is submitted as well."""
    stage.room = 100
    for number in range(5):
        stage.ended.clear()
        stage.backlog.add([_task(number)], 1)
        assert stage.ended.wait(LIMIT)
        stage.backlog.join()
    assert stage.submitted == list(range(5))


def test_backlog_is_lazy(stage: Stage) -> None:
    """Tasks are drawn from a job only as they are submitted: nothing piles up."""
    drawn: list[int] = []

    def tasks() -> Iterator[Any]:
        for number in range(100):
            drawn.append(number)
            yield _task(number)

    stage.backlog.add(tasks(), 100)
    stage.make_room(3)
    stage.wait_for(3)
    assert len(drawn) <= 4


def test_backlog_stop_drops(stage: Stage) -> None:
    """stop() submits nothing more, ends the thread, and nothing added later starts one."""
    stage.backlog.add([_task(0), _task(1)], 2)
    stage.backlog.add([_task(2)], 1)
    stage.backlog.stop()
    assert len(stage.backlog) == 0
    stage.backlog.join()
    stage.backlog.add([_task(3)], 1)
    assert stage.submitted == []
    assert stage.backlog._thread is None


def test_backlog_join_from_its_own_thread() -> None:
    """A task whose submission joins the backlog does not wait for itself."""
    joined = threading.Event()

    def submit(task: Any) -> None:
        backlog.join()
        joined.set()

    backlog = Backlog(submit, Room(lambda: True))
    backlog.add([_task(0)], 1)
    assert joined.wait(LIMIT)
    backlog.join()


class Job:
    """What IMapFeeder needs of an imap job."""

    def __init__(self) -> None:
        self.finished = self.taken = 0
        self.on_finished: Callable[[], None] | None = None
        self.on_taken: Callable[[], None] | None = None
        self.length: int | None = None
        self.set = threading.Event()

    def _set_length(self, length: int) -> None:
        self.length = length
        self.set.set()

    def finish(self, count: int = 1) -> None:
        for _ in range(count):
            self.finished += 1
            if self.on_finished is not None:
                self.on_finished()

    def take(self, count: int = 1) -> None:
        for _ in range(count):
            self.taken += 1
            if self.on_taken is not None:
                self.on_taken()


class Fixed(Window):
    """A window that never changes."""

    def __init__(self, size: int, buffersize: int | None) -> None:
        super().__init__(1, buffersize)
        self.size = size

    def adapt(self, finished: int) -> None:
        pass


class Run:
    """An IMapFeeder over a job, with what it did."""

    def __init__(self, items: Any, window: int, buffersize: int | None = None) -> None:
        self.job = Job()
        self.submitted: list[tuple[int, Any]] = []
        self.failed: list[tuple[int, BaseException]] = []
        self.ended: list[Any] = []
        self.arrived = threading.Condition()
        self.feeder = IMapFeeder(
            self.job, items, Fixed(window, buffersize), self._submit,
            lambda index, error: self.failed.append((index, error)), self.ended.append,
        )

    def start(self) -> Run:
        self.feeder.start()
        return self

    def _submit(self, index: int, item: Any) -> None:
        with self.arrived:
            self.submitted.append((index, item))
            self.arrived.notify_all()

    def wait_for(self, count: int) -> None:
        with self.arrived:
            done = self.arrived.wait_for(lambda: len(self.submitted) >= count, LIMIT)
        assert done, f"{len(self.submitted)} items were submitted, not {count}"


@pytest.mark.parametrize("window", [1, 2, 7])
def test_imap_window(window: int) -> None:
    """No more than a window of items is drawn and unfinished; all of them come, in order."""
    largest = 0

    def items() -> Iterator[int]:
        nonlocal largest
        for number in range(50):
            # This item is being drawn: it counts as well.
            largest = max(largest, number + 1 - run.job.finished)
            yield number

    run = Run(items(), window)  # the generator asks for it
    run.start()
    for count in range(1, 51):
        run.wait_for(count)
        run.job.finish()
    run.feeder.join(LIMIT)
    assert largest <= window
    assert run.submitted == [(i, i) for i in range(50)]
    assert (run.job.length, run.failed, run.ended) == (50, [], [run.feeder])
    assert run.job.on_finished is None


def test_imap_waits_at_the_window() -> None:
    """A full window stops the drawing until half of it is finished, not for ever."""
    run = Run(iter(range(100)), 10).start()
    run.wait_for(10)
    run.feeder.join(0.05)
    assert len(run.submitted) == 10
    run.job.finish(4)
    run.feeder.join(0.05)
    assert len(run.submitted) <= 14
    run.job.finish()
    run.wait_for(15)
    run.feeder.stop()
    run.feeder.join(LIMIT)
    assert not run.feeder.is_alive()


def test_imap_goes_on_while_it_is_told_of_a_finished_task() -> None:
    """The thread may stop waiting while the collector looks what it waits for."""
    seen = iter([1, 0, 0])  # waits for workers, and then for nothing

    class Hasty(IMapFeeder):
        _waits = property(lambda self: next(seen), lambda self, whom: None)

    job = Job()
    Hasty(job, [], Fixed(1, None), lambda *_: None, lambda *_: None, lambda _: None)
    job.finish()
    assert next(seen) == 0, "it looked once"


def test_imap_of_a_failing_input() -> None:
    """An error of the input is delivered at its position, behind the outcomes of all items
    before it, and ends the job there.
    """

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("input")

    run = Run(items(), 10).start()
    run.wait_for(2)
    run.job.finish(1)
    assert not run.failed
    run.job.finish(1)
    assert run.job.set.wait(LIMIT)
    run.feeder.join(LIMIT)
    assert run.submitted == [(0, 1), (1, 2)]
    [(index, error)] = run.failed
    assert (index, type(error), run.job.length) == (2, KeyError, 3)


def test_imap_of_what_can_not_be_iterated() -> None:
    """Not even iter() works: the error is that of the first item."""
    run = Run(7, 10).start()
    assert run.job.set.wait(LIMIT)
    run.feeder.join(LIMIT)
    assert [(index, type(error)) for index, error in run.failed] == [(0, TypeError)]
    assert run.job.length == 1


def test_imap_stop_sets_no_length() -> None:
    """A feeder that is stopped draws no more, and leaves the end of the job to who stopped it."""
    run = Run(iter(range(100)), 3).start()
    run.wait_for(3)
    run.feeder.stop()
    run.feeder.join(LIMIT)
    assert len(run.submitted) <= 4
    assert run.ended == [run.feeder]


def _numbers(drawn: list[int], count: int) -> Iterator[int]:
    for number in range(count):
        drawn.append(number)
        yield number


@pytest.mark.parametrize("buffersize", [1, 3])
def test_imap_buffersize(buffersize: int) -> None:
    """No more is drawn than the buffer holds beyond what was taken, however much is finished; one
    taken result lets one item in.
    """
    drawn: list[int] = []
    run = Run(_numbers(drawn, 20), 64, buffersize).start()
    for count in range(buffersize, 20):
        run.wait_for(count)
        run.job.finish(count - run.job.finished)
        run.feeder.join(0.01)
        assert len(drawn) == count
        run.job.take()
    run.wait_for(20)
    run.job.finish(20 - run.job.finished)
    run.job.take(buffersize)
    run.feeder.join(LIMIT)
    assert (run.job.length, run.failed) == (20, [])
    assert run.job.on_taken is None


def test_imap_window_holds_beside_a_buffersize() -> None:
    """A large buffer does not widen the window."""
    drawn: list[int] = []
    run = Run(_numbers(drawn, 50), 4, 1000).start()
    run.wait_for(4)
    run.feeder.join(0.01)
    assert len(drawn) == 4
    run.job.finish(2)
    run.wait_for(6)
    run.feeder.stop()
    run.feeder.join(LIMIT)
    assert len(drawn) == 6


def test_imap_without_its_reader() -> None:
    """Once nobody can read, nothing more is drawn, and the job ends with what was drawn."""
    drawn: list[int] = []
    run = Run(_numbers(drawn, 50), 64, 3).start()
    run.wait_for(3)
    run.feeder.lose_reader()
    run.feeder.join(LIMIT)
    assert (run.job.length, run.failed, drawn) == (3, [], [0, 1, 2])


@pytest.mark.parametrize(("length", "failed"), [(3, 0), (4, 1)])
def test_imap_ends_unread(length: int, failed: int) -> None:
    """Where no reader is waited for, an input that ends at the full buffer is complete; one that
    goes on ends with an error behind the results.
    """
    drawn: list[int] = []
    run = Run(_numbers(drawn, length), 64, 3).start()
    run.wait_for(3)
    run.feeder.end_unread(lambda: LookupError("unread"))
    run.job.finish(3)
    run.feeder.join(LIMIT)
    assert [(index, type(error)) for index, error in run.failed] == [(3, LookupError)] * failed
    assert run.job.length == length
    assert run.submitted == [(0, 0), (1, 1), (2, 2)]


def test_imap_that_no_reader_holds_up_ends_as_usual() -> None:
    """end_unread() changes nothing where the buffer has room: the workers are waited for."""
    drawn: list[int] = []
    run = Run(_numbers(drawn, 6), 2, 6).start()
    run.wait_for(2)
    run.feeder.end_unread(lambda: LookupError("unread"))
    for count in range(2, 7):
        run.wait_for(count)
        run.job.finish()
    run.job.finish()
    run.feeder.join(LIMIT)
    assert (run.job.length, run.failed) == (6, [])


def test_window_follows_the_pace() -> None:
    """Quick tasks widen it, twofold at a time, up to its most; slow ones narrow it at once."""
    now = [0.0]
    window = Window(2, clock=lambda: now[0])
    assert window.size == window.least == 64
    finished = 0
    for expected in (128, 256, 512, 1024, 1024):
        finished += window.size // 2
        now[0] += window.size // 2 * 1e-6
        window.adapt(finished)
        assert window.size == expected
    window.adapt(finished + 3)
    assert window.size == MAX_WINDOW, "three tasks tell nothing"
    now[0] += 1.0
    window.adapt(finished + 512)
    assert window.size == 64
    now[0] += 0.015625
    window.adapt(finished + 512 + 160)
    assert window.size == 102  # as many as last for WINDOW_TIME
    assert Window(100).size == 400


def _feed(tasks: Any, *, stop_at: int = -1) -> tuple[list[Any], list[int], list[Any]]:
    """What a TaskFeeder submitted, the length that it set, and whether it said its end."""
    submitted: list[Any] = []
    lengths: list[int] = []
    ended: list[Any] = []

    def submit(task: Any, stopped: Callable[[], bool]) -> None:
        submitted.append(task)
        if task[1] == stop_at:
            assert not stopped()
            feeder.stop()
            assert stopped()

    feeder = TaskFeeder(tasks, lengths.append, submit, ended.append)
    feeder.start()
    feeder.join(LIMIT)
    assert ended == [feeder]
    return submitted, lengths, ended


def test_tasks_put_by_hand_are_fed() -> None:
    """Tasks of the standard library's form go out in order; the length is set at the end."""
    tasks = [(1, i, len, ("",), {}) for i in range(5)]
    assert _feed(iter(tasks))[:2] == (tasks, [5])
    assert _feed([])[:2] == ([], [0])


def test_task_feeder_stops() -> None:
    """A stopped feeder submits no more and sets no length."""
    tasks = [(1, i, len, ("",), {}) for i in range(5)]
    assert _feed(tasks, stop_at=1)[:2] == (tasks[:2], [])
