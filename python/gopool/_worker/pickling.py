# SPDX-License-Identifier: MIT
"""Pickling by multiprocessing's rules, without a copy of what is large, and memory regions.

Used on both sides: payloads of tasks in the parent, of outcomes in the worker.
"""

from __future__ import annotations

import copyreg
import mmap
import os
import pickle
from collections import ChainMap
from collections.abc import Callable
from multiprocessing import reduction

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# writev takes at most this many buffers (IOV_MAX).
_MAX_BUFFERS = 1024


class Dumper:
    """A reused ForkingPickler that collects what it writes as a list of buffers.

    The C pickler writes a small pickle in one piece, and passes a large bytes object on as it
    is. Types registered with ForkingPickler at any time count. Not to be entered twice: whoever
    pickles takes a Dumper of his own, also inside a `__reduce__`.
    """

    __slots__ = ("_clear", "_dump", "_kind", "chunks", "write")

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.write = self.chunks.append
        self._kind: Any = None
        self._clear: Callable[[], None] = self.chunks.clear  # until there is a pickler

    def dump(self, obj: Any) -> list[Any]:
        """Pickle one object; the list is this object's own and is emptied by `clear`.

        Raises whatever pickling raises; throw the Dumper away then.
        """
        kind: Any = reduction.ForkingPickler
        if kind is not self._kind:  # the first time, or the user put another in its place
            pickler: Any = kind(self)
            # A pickler copies the registered reducers when it is made; this one lives on.
            pickler.dispatch_table = ChainMap(kind._extra_reducers, copyreg.dispatch_table)
            self._dump, self._clear, self._kind = pickler.dump, pickler.clear_memo, kind
        self._clear()  # what a dump that failed, or wrote to a list that is gone, remembered
        self._dump(obj)
        return self.chunks

    def clear(self) -> None:
        """Forget the buffers, and the objects that the pickler holds for its memo."""
        self.chunks.clear()
        self._clear()


def dumps(obj: Any) -> bytes:
    """Pickle one object into bytes."""
    return b"".join(Dumper().dump(obj))


def new_region() -> int:
    """The descriptor of a new, empty memory region; the caller closes it."""
    return os.memfd_create("gopool-region", os.MFD_CLOEXEC)


def fill_region(fd: int, chunks: list[Any]) -> int:
    """Write buffers one after the other into a region; returns its size in bytes.

    Raises:
        OSError: no memory is left.
    """
    views = [memoryview(chunk).cast("B") for chunk in chunks]
    total = first = 0
    while first < len(views):
        written = os.writev(fd, views[first : first + _MAX_BUFFERS])
        total += written
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]
    return total


def load_region(fd: int, size: int) -> Any:
    """Unpickle what lies in a region, and close its descriptor."""
    try:
        with mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
            return pickle.loads(memory)
    finally:
        os.close(fd)


def read_region(fd: int, size: int) -> bytes:
    """The bytes of a region; closes its descriptor."""
    try:
        with mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
            return memory[:]
    finally:
        os.close(fd)
