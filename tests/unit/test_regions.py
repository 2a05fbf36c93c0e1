# SPDX-License-Identifier: MIT
"""Memory regions: layout, when one is used again, and what a process keeps."""

from __future__ import annotations

import errno
import gc
import mmap
import multiprocessing
import os
import pickle
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gopool._worker import bulk, mapping, pickling, regions, warm
from gopool._worker.pickling import LEAST_BUFFER, Dumper

LARGE = 4 * LEAST_BUFFER


class Frozen:
    """Pickles as a buffer of protocol 5 that may not be written."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: int) -> Any:
        return Frozen, (pickle.PickleBuffer(self.data),)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Each test begins and ends with no region kept."""
    warm.drop()
    yield
    warm.drop()


def send(obj: Any) -> tuple[int, int]:
    """Pickle into a region, as a sender does."""
    return regions.write(Dumper().dump(obj))


def receive(fd: int, size: int) -> Any:
    """Unpickle as the process does that got the descriptor by a message."""
    received = os.dup(fd)
    warm.close(fd)
    return regions.load(received, size)


def kept() -> list[int]:
    """The inodes of the regions that are kept."""
    return [os.fstat(region.fd).st_ino for region in warm._kept]


def free() -> list[bool]:
    return [region.is_free() for region in warm._kept]


@pytest.mark.parametrize(
    "obj",
    [
        b"x" * 70_000,
        (b"a" * mapping.LEAST_HUGE, b"b" * 70_000, "c" * 70_000),
        bytearray(b"y" * (mapping.LEAST_HUGE + 1)),
        "\u00e4\u20ac" * LARGE,
        [b"1" * LARGE] * 2,
        {"many": [str(i) * 3 for i in range(50_000)]},
    ],
    ids=["bytes", "huge bytes", "bytearray", "str", "twice", "many"],
)
def test_pickles(obj: Any) -> None:
    """What stays in the pickle arrives as it was, with its type, and frees the region at once."""
    result = receive(*send(obj))
    assert result == obj
    assert type(result) is type(obj)
    if obj == [b"1" * LARGE] * 2:
        assert result[0] is result[1]
    assert free() == [True]


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
def test_pickles_of_any_protocol_from_a_file(protocol: int) -> None:
    """A pickle is read from the file as from memory: lines, small pieces and large ones."""
    obj = [b"x" * 100, "line", 10**30, {"a": (1.5, None)}, b"y" * 300]
    data = pickle.dumps(obj, protocol)
    fd = os.memfd_create("test")
    os.write(fd, b"before" + data + b"after")
    assert pickle.load(regions._Stream(fd, 6, len(data))) == obj
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        pickle.load(regions._Stream(fd, 6, len(data) - 1))
    os.close(fd)


def test_buffers_lie_in_the_region() -> None:
    """A large buffer arrives without a copy: writable, aligned, and exactly its own extent."""
    fd, size = send(Frozen(bytearray(b"a" * LARGE)))
    result = receive(fd, size).data
    assert bytes(result) == b"a" * LARGE
    assert not result.readonly
    assert len(memoryview(result).obj) == LARGE  # what the documentation's example relies on
    result[0] = 65
    assert result[0] == 65
    assert free() == [False]
    del result
    assert free() == [True]


def test_read_only_buffers_stay_read_only() -> None:
    """As pickle has it: only numpy's arrays are looked after (see tests/api/test_large_data.py)."""
    result = receive(*send(Frozen(b"a" * LARGE))).data
    assert result.readonly
    assert result == b"a" * LARGE


def test_writing_is_private() -> None:
    """Two receivers of one region do not see each other's writing, nor does a later one."""
    fd, size = send(Frozen(bytearray(LARGE)))
    first = regions.load(os.dup(fd), size).data
    second = regions.load(os.dup(fd), size).data
    first[:3] = b"abc"
    assert bytes(second[:3]) == bytes(3)
    assert bytes(regions.load(fd, size).data[:3]) == bytes(3)


def test_region_is_used_again() -> None:
    """A region whose receivers are done is taken again; one that is in use, never."""
    held = receive(*send(Frozen(bytearray(b"1" * LARGE))))
    (first,) = kept()
    for _ in range(3):
        assert receive(*send(Frozen(bytearray(b"2" * LARGE)))).data[0] == ord("2")
        assert len(kept()) == 2
    assert bytes(held.data) == b"1" * LARGE
    del held
    assert free() == [True, True]
    receive(*send(Frozen(bytearray(LARGE))))
    assert first in kept()


def test_region_on_its_way_is_not_free() -> None:
    """From the writing on until the last descriptor of it is closed, unread ones included."""
    fd, _ = send(Frozen(bytearray(LARGE)))
    other = os.dup(fd)
    assert free() == [False]
    warm.close(fd)
    assert free() == [False]
    os.close(other)
    assert free() == [True]


def test_fork_of_the_receiver() -> None:
    """A forked child's copy of a view keeps the region, whatever descriptors the child closes: what
    the sender writes next is not seen there.
    """
    result = receive(*send(Frozen(bytearray(b"1" * LARGE))))
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        os.closerange(3, there.fileno())
        os.closerange(there.fileno() + 1, 1_000)
        there.send(b"r")
        there.recv(1)
        there.send(bytes(result.data[-1:]))
        os._exit(0)
    there.close()
    try:
        assert here.recv(1) == b"r"
        del result
        assert free() == [False]
        receive(*send(Frozen(bytearray(b"2" * LARGE))))
        here.send(b"g")
        assert here.recv(1) == b"1"
    finally:
        here.close()
        os.waitpid(child, 0)
    assert free() == [True, True]


def test_fork_of_the_sender() -> None:
    """A forked child keeps none of its parent's regions, open or mapped."""
    for _ in range(2):
        receive(*send(Frozen(bytearray(4 << 20))))
    assert warm._mapped
    send_fd, _ = send(Frozen(bytearray(LARGE)))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        names = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(writer) if _is_open(fd)]
        found = [name for name in names if "gopool-region" in name]
        lent = 1 if warm.close is os.close else 0  # has no registry: not gopool's parent
        with open("/proc/self/maps") as maps:
            mapped = maps.read().count("gopool-region")
        os.write(writer, b"%d" % (len(found) - lent + mapped))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 9) == b"0"
    for fd in (reader, writer):
        os.close(fd)
    warm.close(send_fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_descriptor_that_was_closed_and_used_again(tmp_path: Any) -> None:
    """A program that closes all descriptors and opens files of its own keeps what is in them."""
    for size in (LARGE, 4 * LARGE, 4 * LARGE):
        receive(*send(Frozen(bytearray(size))))
    assert warm._mapped
    first, second = (region.fd for region in warm._kept)
    os.close(first)
    with open(tmp_path / "theirs", "w+b", buffering=0) as file:
        file.write(b"data")
        os.dup2(file.fileno(), second)
        for size in (LARGE, 4 * LARGE):
            assert receive(*send(Frozen(bytearray(size)))).data[-1] == 0
        assert not warm._mapped
        assert (tmp_path / "theirs").read_bytes() == b"data"
        warm.drop()
        assert os.fstat(second).st_ino == os.fstat(file.fileno()).st_ino
        os.close(second)


def test_region_much_too_large_is_not_taken() -> None:
    """A small result that is kept does not keep a large region."""
    receive(*send(Frozen(bytearray(8 * LARGE))))
    receive(*send(Frozen(bytearray(LARGE))))
    assert len(kept()) == 2


def test_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes are kept, the latest; a region that is larger than that is not, and drives
    out no other.
    """
    monkeypatch.setattr(warm, "BUDGET", 5 * LARGE)
    for count in (1, 2, 3):
        receive(*send(Frozen(bytearray(count * LARGE))))
    assert [region.capacity // LARGE for region in warm._kept] == [3]
    receive(*send(Frozen(bytearray(6 * LARGE))))
    assert [region.capacity // LARGE for region in warm._kept] == [3]


def test_budget_on_small_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Where there is little memory, or many processors for whose workers it is, less is kept; a
    limit of the control group counts, and one that says nothing does not.
    """
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = tmp_path / "limit"
    monkeypatch.setattr(warm, "_LIMITS", (str(tmp_path / "nowhere"), str(limit)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    for text, memory in ("max", whole), ("9223372036854771712", whole), ("536870912", 512 << 20):
        limit.write_text(text + "\n")
        assert warm._affordable() == memory // 128
    monkeypatch.setattr(warm, "_share", 5 * LARGE)
    for count in (1, 2, 3):
        receive(*send(Frozen(bytearray(count * LARGE))))
    assert [region.capacity // LARGE for region in warm._kept] == [3]


def test_warm_regions_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is used again is written through a mapping, up to so many bytes of them; each payload
    arrives whole, and nothing is left when the regions go.
    """
    monkeypatch.setattr(warm, "MAPPED", 3 << 20)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(4):
        held = [
            receive(*send([b"x" * 70_000, Frozen(bytearray([number + n]) * (1 << 20))]))
            for n in range(4)
        ]
        assert [bytes(one[1].data) for one in held] == [
            bytes([number + n]) * (1 << 20) for n in range(4)
        ]
        assert [one[0] for one in held] == [b"x" * 70_000] * 4
        mapped = [region for region in warm._kept if region.memory is not None]
        assert len(mapped) == len(warm._mapped) == (2 if number else 0)
        del held
    warm.drop()
    assert not warm._mapped
    assert len(os.listdir("/proc/self/fd")) == before


def test_regions_that_are_not_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones are not, nor any where memory is watched, or where the kernel refuses."""
    for _ in range(3):
        receive(*send(Frozen(bytearray(LARGE))))
    monkeypatch.setattr(warm, "may_map", False)
    for _ in range(3):
        receive(*send(Frozen(bytearray(2 << 20))))
    monkeypatch.undo()
    monkeypatch.setattr(mmap, "mmap", _refuse)
    receive(*send(Frozen(bytearray(2 << 20))))
    assert len(kept()) == 2
    assert not warm._mapped


def _refuse(*args: Any, **kwds: Any) -> Any:
    raise OSError(errno.ENOMEM, "mmap")


def test_region_that_grew_beyond_its_mapping() -> None:
    """A mapping is used for what fits into it only."""
    for _ in range(2):
        receive(*send(Frozen(bytearray(2 << 20))))
    (region,) = warm._kept
    warm._kept.clear()
    end = region.capacity
    regions.append(region, regions.Layout([b"", pickling.Buffers()], -(-end // 64) * 64))
    warm.keep(region)
    size = region.capacity - 200
    assert receive(*send(Frozen(bytearray(b"z" * size)))).data == b"z" * size


def test_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many regions are kept, fewer where RLIMIT_NOFILE is low."""
    held = [receive(*send(Frozen(bytearray(LARGE)))) for _ in range(warm.MOST + 5)]
    assert len(kept()) == warm.MOST
    monkeypatch.setattr(os, "sysconf", {"SC_OPEN_MAX": 64}.__getitem__)
    held.append(receive(*send(Frozen(bytearray(LARGE)))))
    assert len(kept()) == 2
    assert [bytes(one.data[:1]) for one in held] == [b"\0"] * len(held)


def test_region_that_stays_lent_is_given_up() -> None:
    """A region whose receiver keeps it is not looked at for ever."""
    held = receive(*send(Frozen(bytearray(LARGE))))
    for _ in range(warm._MAX_MISSES + 1):
        receive(*send(Frozen(bytearray(LARGE))))
    assert len(kept()) == 1
    assert bytes(held.data[:1]) == b"\0"


def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a second description can't be opened, regions are used once."""

    def refuse(own: int) -> int:
        raise FileNotFoundError

    for _ in range(2):
        receive(*send(Frozen(bytearray(2 << 20))))
    assert warm._mapped
    monkeypatch.setattr(warm, "_lend", refuse)
    for size in (LARGE, 2 << 20):
        assert receive(*send(Frozen(bytearray(b"x" * size)))).data[0] == ord("x")
    assert not kept()
    assert not warm._mapped


@pytest.mark.parametrize("why", ["no ctypes", "too many mappings", "small beside the rest"])
def test_copies_instead_of_mappings(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Where nothing can be mapped, or it would keep a much larger region, buffers are copied."""
    obj: Any = Frozen(bytearray(b"x" * LARGE))
    if why == "no ctypes":
        monkeypatch.setattr(mapping, "_library", False)
    elif why == "too many mappings":
        monkeypatch.setattr(mapping, "MOST", 0)
    else:
        obj = obj, b"y" * 2 * LARGE
    result = receive(*send(obj))
    result = result[0] if why == "small beside the rest" else result
    assert type(result.data) is bytearray
    assert result.data == b"x" * LARGE
    assert free() == [True]


def test_mappings_keep_no_descriptor() -> None:
    """A thousand large results that are kept are mapped, and leave the descriptors to the program;
    all of it goes with the results.
    """
    gc.collect()
    before, mapped = len(os.listdir("/proc/self/fd")), len(mapping._live)
    held = [receive(*send(Frozen(bytearray(LEAST_BUFFER)))) for _ in range(1_000)]
    assert len(os.listdir("/proc/self/fd")) <= before + warm.MOST
    assert len(mapping._live) == mapped + 1_000
    held.clear()
    assert len(mapping._live) == mapped


def test_mappings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond the bound is copied."""
    monkeypatch.setattr(mapping, "MOST", len(mapping._live) + 3)
    held = [receive(*send(Frozen(bytearray([n]) * LEAST_BUFFER))) for n in range(5)]
    assert [type(one.data) is bytearray for one in held] == [False] * 3 + [True] * 2
    assert [one.data[-1] for one in held] == list(range(5))


def test_mapping_that_the_kernel_refuses() -> None:
    """Where the file can't be mapped, nothing is left, and the caller copies."""
    mapped = len(mapping._live)
    assert mapping.private(-1, 0, 4096, [(0, 10)]) is None
    assert len(mapping._live) == mapped


class Reads:
    """Reads its memory when it is finalized."""

    data: Any
    seen: list[bytes] = []

    def __del__(self) -> None:
        self.seen.append(bytes(self.data[:1]))


def test_garbage_cycles() -> None:
    """Views that are part of cyclic garbage are readable by its finalizers, and unmapped."""
    mapped = len(mapping._live)
    views = receive(*send([Frozen(bytearray(b"x" * LARGE)) for _ in range(3)]))
    for view in views:
        reads: Any = Reads()
        reads.data = view.data
        reads.itself = reads, views
    del views, view, reads
    gc.collect()
    assert Reads.seen == [b"x"] * 3
    assert len(mapping._live) == mapped


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda fd, size: os.ftruncate(fd, size - 1), "fewer than"),
        (lambda fd, size: os.pwrite(fd, b"\0", size - 40), "does not end"),
        (lambda fd, size: os.pwrite(fd, b"\xff", size - 27), "does not end"),
        (lambda fd, size: os.pwrite(fd, b"\xff", size - 7), "does not end"),
        (lambda fd, size: os.pwrite(fd, b"\xff", size - 51), "outside"),
    ],
    ids=["cut", "magic", "pickle", "count", "buffer"],
)
def test_damaged_region(change: Any, said: str) -> None:
    """A region that is not what it should be is an OSError: never a crash, and nothing is left."""
    fd, size = send(Frozen(bytearray(LARGE)))
    change(warm._kept[0].fd, size)
    with pytest.raises(OSError, match=said):
        regions.load(fd, size)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory: what is kept is given up first, then it is the system's error; nothing leaks."""
    receive(*send(Frozen(bytearray(LARGE))))
    before = len(os.listdir("/proc/self/fd")) - 1
    write, calls = bulk.write_all, []

    def full(fd: int, views: Any) -> None:
        calls.append(fd)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bulk, "write_all", full)
    with pytest.raises(OSError, match="No space left"):
        send(Frozen(bytearray(2 * LARGE)))
    assert len(calls) == 2
    assert not kept()
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.setattr(bulk, "write_all", write)
    assert receive(*send(Frozen(bytearray(LARGE)))).data[0] == 0


@pytest.mark.parametrize("threads", [True, False], ids=["two threads", "no thread to be had"])
def test_copying_by_two(monkeypatch: pytest.MonkeyPatch, threads: bool) -> None:
    """Very large objects are read by two threads, and arrive whole."""
    monkeypatch.setattr(bulk, "LEAST_FOR_TWO", 5 << 20)
    calls = []
    start = bulk._thread.start_new_thread

    def start_or_refuse(function: Any, args: Any) -> Any:
        calls.append(function)
        if not threads:
            raise RuntimeError("can't start new thread")
        return start(function, args)

    monkeypatch.setattr(bulk._thread, "start_new_thread", start_or_refuse)
    obj = [b"small", os.urandom(6 << 20) + b"end", "between", bytearray(os.urandom(9 << 20))]
    result = receive(*send((obj, Frozen(bytearray(obj[3])))))
    assert result[0] == obj
    assert result[1].data == obj[3]
    assert len(calls) == 3  # the buffer, small beside the rest, is copied


def test_copying_by_two_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of either thread is raised, after both have ended."""
    monkeypatch.setattr(bulk, "LEAST_FOR_TWO", 5 << 20)
    fd = os.memfd_create("test")
    with pytest.raises(OSError, match="Bad file"):
        bulk.read_into(-1, memoryview(bytearray(6 << 20)), 0)
    os.pwrite(fd, bytes(5 << 20), 0)
    assert not bulk.read_into(fd, memoryview(bytearray(6 << 20)), 0)
    os.close(fd)


def test_zeros_that_were_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Very large memory of any kind is advised where that can be, and written as it is."""
    monkeypatch.setattr(bulk, "LEAST_FOR_TWO", 1 << 20)
    data = bytes(3 << 20)
    views = [memoryview(data), memoryview(data)[5:], memoryview(bytearray(2 << 20))]
    fd = os.memfd_create("test")
    bulk.write_all(fd, views, 7)
    size = 7 + sum(map(len, views))
    assert os.pread(fd, size + 1, 0) == bytes(size)
    os.close(fd)


def test_threads_never_share_a_region() -> None:
    """Many threads that send and receive at once each find what they sent."""
    import threading

    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(100):
            result = receive(*send(Frozen(bytearray([number]) * LEAST_BUFFER)))
            if bytes(result.data) != bytes([number]) * LEAST_BUFFER:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert multiprocessing.active_children() == []
