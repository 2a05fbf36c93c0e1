# SPDX-License-Identifier: MIT
"""Private mappings that hold no descriptor, and huge pages for memory that is about to be filled.

mmap.mmap keeps a duplicate of the descriptor as long as it lives (it can do without from Python
3.13 on): a program that holds a thousand large results would have no descriptor left. So this
calls mmap(2) through ctypes, which numpy has loaded already and which takes 2 ms otherwise. Where
there is no ctypes, nothing is mapped and nothing is advised; callers copy instead.
"""

from __future__ import annotations

import mmap
import pickle

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# Mappings that this process may hold at a time: an eighth of what the kernel grants a process by
# default (vm.max_map_count), which malloc and thread stacks need as well.
MOST_MAPPINGS = 8192

# From here on memory is filled 4 times as fast with huge pages (2 MiB): 64 MB of bytes arrive in
# 15 ms instead of 45 ms. A multiple of their size, so that at least one fits.
LEAST_HUGE = 4 << 20  # bytes

_MADV_HUGEPAGE = 14
_MAX_KINDS = 64  # array types kept; making one takes 20 us

_library: Any = None  # the C library; False: there is no ctypes here
_kinds: dict[int, Any] = {}  # ctypes array types by their size in bytes
_live: set[int] = set()  # addresses of mappings


def private(fd: int, start: int, size: int) -> memoryview | None:
    """Map a part of a file privately: writable, and what is written stays in this process.

    The memory is unmapped when its last view is gone. A forked child has a copy of its own. Pages
    that were not written show what others write to the file: nobody may, see regions.py.

    Args:
        fd: of the file; not needed any more afterwards.
        start: of the part in bytes, at a page's beginning.
        size: of the part in bytes, at least 1; the file must be that long.

    Returns:
        the memory, or None where it can't be mapped: no ctypes, too many mappings, no memory.
    """
    libc = _libc()
    if not libc or len(_live) >= MOST_MAPPINGS:
        return None
    address = libc.mmap(
        None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd, start
    )
    if address == 2**64 - 1:  # MAP_FAILED
        return None
    owner = _Owner(address, size, libc.munmap)
    memory = _kind(size).from_address(address)
    memory.owner = owner  # in its __dict__: goes with it
    # raw(): ctypes' own format, "<B", is not what a memoryview can index.
    return pickle.PickleBuffer(memory).raw()


def advise_huge(view: memoryview) -> None:
    """Have the kernel use huge pages for the whole ones within a writable memory; may do nothing.

    Has no effect on what the memory holds.
    """
    libc = _libc()
    if not libc:
        return
    import ctypes

    first = ctypes.addressof(ctypes.c_char.from_buffer(view))
    start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (first + view.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        libc.madvise(start, end - start, _MADV_HUGEPAGE)


class _Owner:
    """Unmaps when it goes."""

    __slots__ = ("_address", "_munmap", "_size")

    def __init__(self, address: int, size: int, munmap: Any) -> None:
        self._address, self._size, self._munmap = address, size, munmap
        _live.add(address)

    def __del__(self, forget: Any = _live.discard) -> None:
        forget(self._address)  # first: another thread may get the address once it is free
        self._munmap(self._address, self._size)


def _kind(size: int) -> Any:
    """The ctypes array type of so many bytes."""
    kind = _kinds.get(size)
    if kind is None:
        import ctypes

        if len(_kinds) >= _MAX_KINDS:
            _kinds.clear()
        kind = _kinds[size] = ctypes.c_ubyte * size
    return kind


def _libc() -> Any:
    """The C library, with the functions' types; False where there is no ctypes."""
    global _library
    if _library is None:
        _library = _load()
    return _library


def _load() -> Any:
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        word, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        # 64-bit Linux only, where a file's offset is a long.
        libc.mmap.argtypes = [word, size, number, number, number, ctypes.c_long]
        libc.mmap.restype = word
        libc.munmap.argtypes = [word, size]
        libc.madvise.argtypes = [word, size, number]
    except Exception:
        return False
    return libc
