# SPDX-License-Identifier: MIT
"""The worker's side of a lane, against a parent that is played here (PROTOCOL.md, section 8)."""

from __future__ import annotations

import copy
import json
import mmap
import os
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from gopool import _lastwords
from gopool._worker import _lane, message
from gopool._worker.lane import NO_NOTE, open_lane

NOTE, QUEUE, ASLEEP, LISTEN, COMMIT, READ, BEGAN = (at * 8 for at in range(0, 56, 8))
SLOTS, TASKS, OUTCOMES, RING = 512, 4096, 4096 + 65536, 65536
COLLECTOR, HUNGRY = 1, 2
PAD = 2**64 - 1
NUMBER = 2**40  # of the task whose outcomes these tests publish
MOST = _lane.MAX_BODY - 15  # bytes of such an outcome's payload


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
        """Take the oldest outcome: when it began and ended, and its payload."""
        read = self.word(READ)
        assert read < self.word(COMMIT)
        at = read % RING
        if self.words[(OUTCOMES + at) // 8] == PAD:
            read, at = read + RING - at, 0
        began, ended, size = struct.unpack_from("<QQI", self.memory, OUTCOMES + at)
        self.word(READ, read + (20 + size + 7) // 8 * 8)
        body = self.memory[OUTCOMES + at + 20 : OUTCOMES + at + 20 + size]
        kind, number, status, payload = message.decode(body, False, to_worker=False)
        assert (kind, number, status) == (message.DONE, NUMBER, 1)
        assert message.pack_done(number, status, payload)[4:] == body, "written as Go does"
        return began, ended, payload

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


def publish(lane: _lane.Lane, payload: bytes) -> bool:
    """Leave an outcome of one task, whose number and status outcome() expects."""
    return lane.publish(NUMBER, 1, payload)


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


_GOLDEN = json.loads(
    (Path(__file__).parents[2] / "bridge/testdata/frames/frames.json").read_text()
)


def _bodies() -> Iterator[bytes]:
    """Bodies of golden frames, also of those that are wrong, and what becomes of them by chance."""
    chance = random.Random(5)
    for case in (*_GOLDEN["good"], *_GOLDEN["bad"]):
        body = bytes.fromhex(case["hex"])[4:]
        yield body
        for _ in range(200 if len(body) < 1000 else 0):
            changed = bytearray(body)
            for _ in range(chance.randint(1, 3)):
                if changed:
                    changed[chance.randrange(len(changed))] = chance.randrange(256)
            yield bytes(changed)
            yield bytes(changed[: chance.randint(0, len(changed))])


def test_claim_decodes(pair: Pair) -> None:
    """What is taken for a Task is one, with the fields that Python's own decoding finds; all else
    is left to that.
    """
    lane, parent = pair
    tasks = 0
    for body in _bodies():
        if len(body) > _lane.MAX_BODY:
            continue
        parent.put(1, body)
        got = lane.claim()
        if type(got) is tuple:
            tasks += 1
            assert got == message.decode_task(body, False)
        else:
            assert got == body
    assert tasks > 100


@pytest.mark.parametrize("number", [1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, PAD])
@pytest.mark.parametrize("size", [0, 255, 256, 12000])
def test_fields_of_all_sizes(pair: Pair, number: int, size: int) -> None:
    """Numbers and lengths are read and written in each of msgpack's forms."""
    lane, parent = pair
    function = min(number, 2**32 - 1)
    payload = b"p" * size
    for definition in (None, b"d" * (size // 4 + 1)):
        body = msgpack.packb((message.TASK, number, 2, function, payload, definition))
        parent.put(number, body)
        assert lane.claim() == (number, 2, function, payload, definition)
        assert lane.publish(number, 2, payload)
        end = parent.word(COMMIT)
        done = message.pack_done(number, 2, payload)[4:]
        at = OUTCOMES + (parent.word(READ, end)) % RING
        if parent.words[at // 8] == PAD:
            at = OUTCOMES
        assert parent.memory[at + 20 : at + 20 + len(done)] == done


def test_outcomes(pair: Pair) -> None:
    """Outcomes of all sizes come out as they went in, round the ring many times."""
    lane, parent = pair
    sizes = [0, 1, 7, 8, 100, MOST, 200, 300, 5000, 13, MOST - 1] * 10
    for number, size in enumerate(sizes):
        parent.put(number + 1, b"x")
        lane.claim()
        body = bytes([number % 256]) * size
        assert publish(lane, body)
        assert parent.word(BEGAN) == 0
        began, ended, got = parent.outcome()
        assert got == body
        assert 0 < began <= ended <= time.monotonic_ns()
    assert parent.word(COMMIT) > 3 * RING


def test_no_room(pair: Pair) -> None:
    """A full ring takes no outcome, nor half of one, and takes them again when it is read."""
    lane, parent = pair
    body = bytes(MOST)
    taken = 0
    while publish(lane, body):
        taken += 1
    assert taken == 3
    committed = parent.word(COMMIT)
    assert not publish(lane, body)
    assert parent.word(COMMIT) == committed
    parent.outcome()
    assert publish(lane, body)
    assert not publish(lane, bytes(MOST + 1))


@pytest.mark.parametrize("body", [None, "text", 3, ["x"], memoryview(b"1234")[::2]])
def test_publish_takes_bytes(pair: Pair, body: object) -> None:
    """Anything else is an error, and so is what no Done can have."""
    lane, parent = pair
    assert lane.publish(NUMBER, 1, bytearray(b"x"))
    assert lane.publish(NUMBER, 1, memoryview(b"yy"))
    assert [parent.outcome()[2] for _ in range(2)] == [b"x", b"yy"]
    with pytest.raises((TypeError, BufferError)):
        lane.publish(NUMBER, 1, body)  # type: ignore[arg-type]
    for number, status in ((0, 0), (1, 3), (-1, 0), (1, -1), (2**64, 0), ("1", 0)):
        with pytest.raises((ValueError, OverflowError, TypeError)):
            lane.publish(number, status, b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="3 arguments"):
        lane.publish(1, 0)  # type: ignore[call-arg]
    assert parent.word(COMMIT) == parent.word(READ)


def test_bell(pair: Pair) -> None:
    """The bell is rung for whoever asked, once; a full counter is no error."""
    lane, parent = pair
    publish(lane, b"1")
    assert parent.rings() == 0
    parent.word(LISTEN, COLLECTOR | HUNGRY)
    publish(lane, b"2")
    publish(lane, b"3")
    assert parent.rings() == 1
    assert parent.word(LISTEN, COLLECTOR) == HUNGRY
    os.eventfd_write(parent.bell, 2**64 - 2)
    assert publish(lane, b"4")


def test_bell_is_closed(pair: Pair) -> None:
    """Without its bell a worker ends with an error; the outcome is there."""
    lane, parent = pair
    os.close(parent.bell)
    assert publish(lane, b"nobody listens")
    parent.word(LISTEN, COLLECTOR)
    with pytest.raises(OSError, match="Bad file descriptor"):
        publish(lane, b"outcome")
    assert [parent.outcome()[2] for _ in range(2)] == [b"nobody listens", b"outcome"]


def test_bell_is_another_file(pair: Pair, tmp_path: Path) -> None:
    """A file that a task opened under the bell's number is not written to."""
    lane, parent = pair
    path = tmp_path / "file"
    with path.open("wb") as file:
        os.dup2(file.fileno(), parent.bell)
        parent.word(LISTEN, COLLECTOR)
        with pytest.raises(OSError, match="Bad file descriptor"):
            publish(lane, b"outcome")
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
    uses = (lane.claim, lane.doze, lane.rouse, lambda: lane.note(1), lambda: publish(lane, b""))
    for use in uses:
        with pytest.raises(ValueError, match="closed"):
            use()
    assert parent.word(QUEUE) == 1 << 32


def test_no_memory_to_map() -> None:
    """A worker that can't map its lane says that it notes nothing, and goes without."""
    bell = os.eventfd(0)
    memory = _lastwords.new_memory([])
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
    memory = _lastwords.new_memory([])
    try:
        with pytest.raises(PermissionError):
            os.ftruncate(memory, 4096)
        import fcntl

        with pytest.raises(PermissionError):
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    finally:
        _lastwords._fork.close(memory)
