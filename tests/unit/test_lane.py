# SPDX-License-Identifier: MIT
"""The worker's side of a lane, against a parent that is played here (PROTOCOL.md, section 8)."""

from __future__ import annotations

import copy
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gopool import _lastwords
from gopool._worker import _lane
from gopool._worker.lane import NO_NOTE, open_lane

NOTE, QUEUE, ASLEEP, LISTEN, COMMIT, READ, BEGAN = (at * 8 for at in range(0, 56, 8))
SLOTS, TASKS, OUTCOMES, RING = 512, 4096, 4096 + 65536, 65536
COLLECTOR, HUNGRY = 1, 2
PAD = 2**64 - 1


class Parent:
    """The parent's side, without its checks and without another process's races."""

    def __init__(self, fd: int, bell: int) -> None:
        self.memory = mmap.mmap(fd, _lane.LANE_SIZE)
        self.words = memoryview(self.memory).cast("Q")
        self.bell = bell

    def word(self, at: int, value: int | None = None) -> int:
        """Read a word of control, and set it."""
        before = self.words[at // 8]
        if value is not None:
            self.words[at // 8] = value
        return before

    def put(self, number: int, body: bytes, offset: int = 0) -> None:
        """Put a task in, at any place."""
        queue = self.word(QUEUE)
        slot = (queue >> 32) % 128
        self.memory[TASKS + offset : TASKS + offset + len(body)] = body
        struct.pack_into("<QII", self.memory, SLOTS + 16 * slot, number, offset, len(body))
        self.word(QUEUE, (queue + (1 << 32)) % 2**64)

    def outcome(self) -> tuple[int, int, bytes]:
        """Take the oldest outcome: when it began and ended, and its body."""
        read = self.word(READ)
        assert read < self.word(COMMIT)
        at = read % RING
        if self.words[(OUTCOMES + at) // 8] == PAD:
            read, at = read + RING - at, 0
        began, ended, size = struct.unpack_from("<QQI", self.memory, OUTCOMES + at)
        self.word(READ, read + (20 + size + 7) // 8 * 8)
        return began, ended, self.memory[OUTCOMES + at + 20 : OUTCOMES + at + 20 + size]

    def rings(self) -> int:
        """How often the bell was rung since."""
        try:
            return os.eventfd_read(self.bell)
        except BlockingIOError:
            return 0


@pytest.fixture
def pair() -> Iterator[tuple[_lane.Lane, Parent]]:
    """A lane, and its parent."""
    memory = os.memfd_create("lane")
    os.ftruncate(memory, _lane.LANE_SIZE)
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield _lane.Lane(memory, bell), Parent(memory, bell)
    os.close(memory)
    try:
        os.close(bell)
    except OSError:
        pass  # a test has closed it


Pair = tuple[_lane.Lane, Parent]


def test_nothing_to_claim(pair: Pair) -> None:
    """An empty lane has no task, and says so within the time of a look."""
    lane, parent = pair
    begun = time.monotonic()
    assert [lane.claim() for _ in range(200)] == [None] * 200
    assert time.monotonic() - begun < 20
    assert parent.word(NOTE) == parent.word(BEGAN) == 0


def test_tasks_are_claimed_in_order(pair: Pair) -> None:
    """A claimed task is noted as begun before it is seen; counts go on beyond 32 bits."""
    lane, parent = pair
    start = 2**32 - 3
    parent.word(QUEUE, start << 32 | start)
    for number in range(1, 8):
        parent.put(number, b"task %d" % number, offset=8 * number)
    for number in range(1, 8):
        assert lane.claim() == b"task %d" % number
        assert parent.word(NOTE) == number
        assert 0 < parent.word(BEGAN) <= time.monotonic_ns()
    assert lane.claim() is None
    assert parent.word(BEGAN) == 0
    assert parent.word(QUEUE) == 4 << 32 | 4


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 16385), (65536, 1), (65530, 7), (2**32 - 1, 10), (0, 2**32 - 1)]
)
def test_task_outside(pair: Pair, offset: int, size: int) -> None:
    """A slot that points outside of the tasks is an error, and not memory of another."""
    lane, parent = pair
    parent.put(1, b"")
    struct.pack_into("<QII", parent.memory, SLOTS, 1, offset, size)
    with pytest.raises(RuntimeError, match="outside"):
        lane.claim()


def test_outcomes(pair: Pair) -> None:
    """Outcomes of all sizes come out as they went in, round the ring many times."""
    lane, parent = pair
    sizes = [0, 1, 7, 8, 100, _lane.MAX_BODY, 5000, 13, _lane.MAX_BODY - 1] * 10
    for number, size in enumerate(sizes):
        parent.put(number + 1, b"x")
        lane.claim()
        body = bytes([number % 256]) * size
        assert lane.publish(body)
        assert parent.word(BEGAN) == 0
        began, ended, got = parent.outcome()
        assert got == body
        assert 0 < began <= ended <= time.monotonic_ns()
    assert parent.word(COMMIT) > 3 * RING


def test_no_room(pair: Pair) -> None:
    """A full ring takes no outcome, nor half of one, and takes them again when it is read."""
    lane, parent = pair
    body = bytes(_lane.MAX_BODY)
    taken = 0
    while lane.publish(body):
        taken += 1
    assert taken == 3
    committed = parent.word(COMMIT)
    assert not lane.publish(body)
    assert parent.word(COMMIT) == committed
    parent.outcome()
    assert lane.publish(body)
    assert not lane.publish(bytes(_lane.MAX_BODY + 1))


@pytest.mark.parametrize("body", [None, "text", bytearray(b"x"), 3])
def test_publish_takes_bytes(pair: Pair, body: object) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError):
        pair[0].publish(body)  # type: ignore[arg-type]


def test_bell(pair: Pair) -> None:
    """The bell is rung for whoever asked, once; a full counter is no error."""
    lane, parent = pair
    lane.publish(b"1")
    assert parent.rings() == 0
    parent.word(LISTEN, COLLECTOR | HUNGRY)
    lane.publish(b"2")
    lane.publish(b"3")
    assert parent.rings() == 1
    assert parent.word(LISTEN, COLLECTOR) == HUNGRY
    os.eventfd_write(parent.bell, 2**64 - 2)
    assert lane.publish(b"4")


def test_bell_is_closed(pair: Pair) -> None:
    """Without its bell a worker ends with an error; the outcome is there."""
    lane, parent = pair
    os.close(parent.bell)
    assert lane.publish(b"nobody listens")
    parent.word(LISTEN, COLLECTOR)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lane.publish(b"outcome")
    assert [parent.outcome()[2] for _ in range(2)] == [b"nobody listens", b"outcome"]


def test_bell_is_another_file(pair: Pair, tmp_path: Path) -> None:
    """A file that a task opened under the bell's number is not written to."""
    lane, parent = pair
    path = tmp_path / "file"
    with path.open("wb") as file:
        os.dup2(file.fileno(), parent.bell)
        parent.word(LISTEN, COLLECTOR)
        with pytest.raises(OSError, match="Bad file descriptor"):
            lane.publish(b"outcome")
    assert path.read_bytes() == b""


def test_sleep(pair: Pair) -> None:
    """Who is about to sleep says so and looks once more; it learns whether Go wants to know."""
    lane, parent = pair
    assert lane.doze() == 1
    assert parent.word(ASLEEP) == 1
    lane.rouse()
    assert parent.word(ASLEEP) == 0
    parent.word(LISTEN, HUNGRY)
    assert lane.doze() == 2
    parent.word(ASLEEP, 2)  # Go has called
    lane.rouse()
    assert parent.word(ASLEEP) == 0
    parent.put(1, b"x")
    assert lane.doze() == 0
    assert parent.word(ASLEEP) == 0


def test_note(pair: Pair) -> None:
    """A task that came by the socket is noted like others; what is no number is refused."""
    lane, parent = pair
    lane.note(2**64 - 2)
    assert parent.word(NOTE) == 2**64 - 2
    assert parent.word(BEGAN) > 0
    assert lane.claim() is None
    assert parent.word(BEGAN) == 0, "its outcome may have gone by the socket as well"
    for wrong, error in ((-1, OverflowError), (2**64, OverflowError), ("x", TypeError)):
        with pytest.raises(error):
            lane.note(wrong)  # type: ignore[arg-type]


def test_opening(tmp_path: Path) -> None:
    """What can't be a lane is an error, and never a crash later."""
    bell = os.eventfd(0)
    small, whole = os.memfd_create("small"), os.memfd_create("whole")
    os.ftruncate(small, _lane.LANE_SIZE - 1)
    os.ftruncate(whole, _lane.LANE_SIZE)
    with pytest.raises(ValueError, match=str(_lane.LANE_SIZE - 1)):
        _lane.Lane(small, bell)
    for memory, ring in ((-1, bell), (whole, -1), (bell, bell)):
        with pytest.raises((OSError, ValueError)):
            _lane.Lane(memory, ring)
    for arguments in ((), (whole,), (whole, "x"), (None, bell), (whole, bell, 1), (2**40, bell)):
        with pytest.raises((TypeError, OverflowError)):
            _lane.Lane(*arguments)  # type: ignore[call-overload,arg-type,call-arg]
    lane = _lane.Lane(whole, bell)
    with pytest.raises(TypeError):
        copy.copy(lane)
    with pytest.raises(TypeError):
        type("Sub", (_lane.Lane,), {})
    os.close(whole)
    assert lane.claim() is None, "the descriptor is not needed any more"
    assert "whole" in Path("/proc/self/maps").read_text()
    del lane
    assert "whole" not in Path("/proc/self/maps").read_text()
    os.close(small)
    os.close(bell)


def test_identity() -> None:
    """A descriptor is known by what is open under its number, not by the number."""
    first, second = os.eventfd(0), os.open("/dev/null", os.O_RDONLY)
    identity = _lane.identify(second)
    assert _lane.is_still(second, *identity)
    assert not _lane.is_still(first, *identity)
    os.dup2(first, second)
    assert not _lane.is_still(second, *identity)
    os.close(second)
    assert not _lane.is_still(second, *identity)
    with pytest.raises(OSError):
        _lane.identify(second)
    for arguments in ((), (first, 1), (first, "x", 1), (first, -1, 1)):
        with pytest.raises((TypeError, OverflowError)):
            _lane.is_still(*arguments)  # type: ignore[call-arg,arg-type]
    os.close(first)


def test_closed(pair: Pair) -> None:
    """A closed lane can't be used by mistake."""
    lane, parent = pair
    parent.put(1, b"x")
    lane.close()
    lane.close()
    for use in (lane.claim, lane.doze, lane.rouse, lambda: lane.note(1), lambda: lane.publish(b"")):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert parent.word(QUEUE) == 1 << 32


def test_no_memory_to_map() -> None:
    """A worker that can't map its lane says that it notes nothing, and goes without."""
    bell = os.eventfd(0)
    memory = _lastwords.new_memory()
    reading = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY)
    try:
        os.pwrite(memory, b"\0" * 8, 0)
        with pytest.raises(OSError):
            open_lane(reading, bell)  # nor can it write the note there
        assert _lastwords.read_begun(memory) == 0
        assert open_lane(memory, bell) is not None
        os.pwrite(memory, NO_NOTE.to_bytes(8, "little"), 0)
        assert _lastwords.read_begun(memory) is None
    finally:
        os.close(reading)
        os.close(bell)
        _lastwords._fork.close(memory)


def test_memory_is_sealed() -> None:
    """A worker can't take away what Go has mapped, nor forbid to map it."""
    memory = _lastwords.new_memory()
    try:
        with pytest.raises(PermissionError):
            os.ftruncate(memory, 4096)
        import fcntl

        with pytest.raises(PermissionError):
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    finally:
        _lastwords._fork.close(memory)
