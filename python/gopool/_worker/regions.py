# SPDX-License-Identifier: MIT
"""Large payloads in memory regions (for both sides; layout: PROTOCOL.md section 5).

A region holds a pickle and, beside it, the buffers that the pickle refers to (pickle protocol 5).
Both are written straight from the objects' memory. The receiver maps buffers privately, so that
an array arrives writable and without a copy, and reads the pickle from the file: large bytes
objects are filled by the kernel, at once where they will stay.

`warm` has the regions themselves, `mapping` the receiver's memory. All of these are imported with
the first large payload, since the first result of a program waits for all that is imported before.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import pickle
import struct
from collections.abc import Callable

from gopool._worker import bulk, filesize, mapping, warm
from gopool._worker.pickling import Buffers

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

_MAGIC = 0x31_6E_6F_69_67_65_72_67  # "gregion1"
_ALIGNMENT = 64  # bytes: a cache line, and what every vector instruction wants
# Magic, offset of the pickle, its bytes, bytes of the largest bytes object in it that was written
# as it is, number of buffers.
_FOOTER = struct.Struct("<QQQQQ")
_SPAN = struct.Struct("<QQ")  # offset and bytes of a buffer


def write(pieces: list[Any]) -> tuple[int, int]:
    """Write a pickle, and the buffers beside it, into a region.

    Args:
        pieces: what the pickler wrote, in order; buffers last, if there are any (`Buffers`).

    Returns:
        (descriptor to be sent, which the caller closes by warm.close; size in bytes)

    Raises:
        OSError: no descriptor or memory is left, or RLIMIT_FSIZE is too small.
    """
    layout = Layout(pieces)
    region = write_new(layout)
    return warm.lend(region), layout.end


def write_once(pieces: list[Any]) -> tuple[int, int]:
    """As `write`, with no more than one descriptor at any time: nothing of the region is kept."""
    layout = Layout(pieces)
    region = write_new(layout)
    region.unmap()
    return region.fd, layout.end


def write_new(layout: Layout) -> warm.Region:
    """Write into a region that nobody else sees; the caller lends or discards it."""
    region = warm.take(layout.end)
    try:
        if region.memory is not None and layout.end <= len(region.memory):
            bulk.copy_all(region.memory, layout.views)
            return region
        filesize.check(layout.end)
        try:
            bulk.write_all(region.fd, layout.views)
        except OSError:
            if not warm.drop():  # what is kept may be what is missing
                raise
            bulk.write_all(region.fd, layout.views)
    except BaseException:
        warm.discard(region)
        raise
    region.capacity = max(region.capacity, layout.end)
    return region


def append(region: warm.Region, layout: Layout) -> None:
    """Write behind what a region holds, which others may read meanwhile."""
    filesize.check(layout.end)
    bulk.write_all(region.fd, layout.views, layout.start)
    region.capacity = max(region.capacity, layout.end)


class Layout:
    """Where a pickle and its buffers lie in a region.

    Attributes:
        views: what is to be written, one after the other.
        start, end: where that begins and ends, in bytes.
        offsets: of each buffer.
    """

    __slots__ = ("end", "offsets", "start", "views")

    def __init__(
        self, pieces: list[Any], start: int = 0, known: dict[int, int] | None = None
    ) -> None:
        """
        Args:
            start: a multiple of 64.
            known: offsets of buffers that lie in the region already, by their place in the list.
        """
        buffers: Any = ()
        if type(pieces[-1]) is Buffers:
            *pieces, buffers = pieces
        self.start = start
        self.views = [_view(piece) for piece in pieces]
        length = sum(map(len, self.views))
        largest = _largest_bytes(self.views)
        self.end = start + length
        self.offsets: list[int] = []
        spans = []
        for place, buffer in enumerate(buffers):
            view = buffer.raw()
            offset = self._add(view) if known is None or place not in known else known[place]
            self.offsets.append(offset)
            spans.append(_SPAN.pack(offset, len(view)))
        footer = _FOOTER.pack(_MAGIC, start, length, largest, len(spans))
        self._add(memoryview(b"".join(spans) + footer))

    def _add(self, view: memoryview) -> int:
        """Returns the view's offset."""
        missing = -self.end % _ALIGNMENT
        if missing:
            self.views.append(memoryview(bytes(missing)))
        self.views.append(view)
        offset = self.end + missing
        self.end = offset + len(view)
        return offset


class Received:
    """A region that came with a message; whoever drops it unread closes the descriptor."""

    __slots__ = ("_fd", "_size")

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._size = fd, size

    def load(self) -> Any:
        """What `load` says; once."""
        fd, self._fd = self._fd, -1
        return load(fd, self._size)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def load(
    fd: int, size: int, close: Callable[[int], object] = os.close, *, spare: bool = True
) -> Any:
    """Unpickle what lies in a region; closes its descriptor, by `close`.

    spare says whether one descriptor more may be in use for so long.

    What is large in it stays in the region until the last object that uses it is gone.

    Raises:
        OSError: the region is not what it should be; whatever unpickling raises.
    """
    try:
        start, length, largest, spans = _footer(fd, size)
        buffers = _map_buffers(fd, size, spans) if spans else ()
        if largest >= mapping.LEAST_HUGE:
            return pickle.load(_Stream(fd, start, length), buffers=buffers)
        if length < mmap.PAGESIZE:
            return pickle.loads(os.pread(fd, length, start), buffers=buffers)
        if not spare:
            return pickle.loads(_copy(fd, start, length), buffers=buffers)
        return _loads_mapped(fd, start, length, buffers)
    finally:
        close(fd)


def _loads_mapped(fd: int, start: int, length: int, buffers: Any) -> Any:
    page = start // mmap.PAGESIZE * mmap.PAGESIZE
    end = start + length
    try:
        mapped = mmap.mmap(fd, end - page, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=page)
    except OSError:  # until Python 3.13 it needs a descriptor of its own
        return pickle.loads(_copy(fd, start, length), buffers=buffers)
    with (
        mapped as memory,
        memoryview(memory) as whole,
        whole[start - page :] as stream,
    ):
        return pickle.loads(stream, buffers=buffers)


def read(fd: int, size: int, close: Callable[[int], object] = os.close) -> bytes:
    """The pickle in a region as bytes; closes its descriptor, by `close`."""
    try:
        start, length, _, _ = _footer(fd, size)
        data = bytearray(length)
        _read_into(fd, memoryview(data), start)
        return bytes(data)
    finally:
        close(fd)


def _largest_bytes(views: list[memoryview]) -> int:
    """Bytes of the largest bytes or bytearray object that is a piece of its own; 0: there is none.

    What comes before such a piece ends with an opcode and the length: 4 or 8 bytes. (A large str
    is a piece of its own too; it is better decoded from mapped memory.)
    """
    largest = 0
    for before, view in itertools.pairwise(views):
        if len(view) > largest and _announces(bytes(before[-9:]), len(view)):
            largest = len(view)
    return largest


def _announces(head: bytes, size: int) -> bool:
    """Whether a pickle goes on with a bytes or bytearray object of so many bytes."""
    length = struct.pack("<Q", size)
    if head[-9:-8] in (b"\x8e", b"\x96"):  # BINBYTES8, BYTEARRAY8
        return head[-8:] == length
    return head[-5:] == b"B" + length[:4]  # BINBYTES


def _view(piece: Any) -> memoryview:
    if type(piece) is pickle.PickleBuffer:  # in the pickle, whatever its shape
        return piece.raw()
    return memoryview(piece).cast("B")


def _read_into(fd: int, view: memoryview, position: int) -> None:
    if not bulk.read_into(fd, view, position):
        raise _broken("it is shorter than it says")


def _footer(fd: int, size: int) -> tuple[int, int, int, list[tuple[int, int]]]:
    """(offset of the pickle, its bytes, its largest piece, (offset, bytes) of each buffer)."""
    end = size - _FOOTER.size
    if end < 0 or os.fstat(fd).st_size < size:
        raise _broken(f"it has fewer than {max(size, _FOOTER.size)} bytes")
    magic, start, length, largest, count = _FOOTER.unpack(os.pread(fd, _FOOTER.size, end))
    table = end - count * _SPAN.size
    if magic != _MAGIC or table < 0 or start + length > table:
        raise _broken("it does not end as a region does")
    spans = list(_SPAN.iter_unpack(os.pread(fd, end - table, table)))
    if any(offset + span > table for offset, span in spans):
        raise _broken("a buffer lies outside of it")
    return start, length, largest, spans


def _broken(what: str) -> OSError:
    return OSError(errno.EBADMSG, f"a memory region of gopool's is damaged: {what}")


def _map_buffers(fd: int, size: int, spans: list[tuple[int, int]]) -> list[Any]:
    """The buffers in a region: views of one mapping, or copies."""
    start = min(offset for offset, _ in spans) // mmap.PAGESIZE * mmap.PAGESIZE
    # The region stays as a whole while one of them is used, so it must be worth it.
    worth = 2 * sum(span for _, span in spans) >= size
    views = None
    if worth:
        within = [(offset - start, span) for offset, span in spans]
        views = mapping.private(fd, start, size - start, within)
    return [_copy(fd, offset, span) for offset, span in spans] if views is None else views


def _copy(fd: int, offset: int, size: int) -> bytearray:
    data = bytearray(size)
    _read_into(fd, memoryview(data), offset)
    return data


class _Stream:
    """The pickle in a region as a file: large bytes objects are read to where they will stay."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        self._fd = fd
        self._position = start
        self._end = start + length

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, min(size, self._end - self._position), self._position)
        self._position += len(data)
        if len(data) < size and data:  # a call reads 2 GiB at most
            return data + self.read(size - len(data))
        return data

    def readline(self) -> bytes:
        line = os.pread(self._fd, self._end - self._position, self._position)
        line = line[: line.find(b"\n") + 1] or line
        self._position += len(line)
        return line

    def readinto(self, view: Any) -> int:
        with memoryview(view).cast("B") as memory:
            size = min(len(memory), self._end - self._position)
            if size >= mapping.LEAST_HUGE:
                mapping.advise_huge(memory)
            _read_into(self._fd, memory[:size], self._position)
        self._position += size
        return size
