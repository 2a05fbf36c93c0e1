# SPDX-License-Identifier: MIT
"""Private mappings, and huge pages for memory that is about to be filled.

Both need ctypes, which numpy has loaded already and which takes 2 ms otherwise. Where there is
none, nothing is mapped and nothing is advised; callers copy instead. No mapping keeps a descriptor.
"""

from __future__ import annotations

import mmap
import pickle

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# At most so many regions are mapped at a time: an eighth of the mappings that the kernel grants a
# process by default (vm.max_map_count); malloc and thread stacks need some as well.
MOST = 8192

# From here on memory is filled 3 times as fast with huge pages (2 MiB): 64 MB of bytes arrive in
# 15 ms instead of 45 ms. A multiple of their size, so that at least one fits.
LEAST_HUGE = 4 << 20  # bytes

_MADV_HUGEPAGE = 14
_MAP_FIXED = 0x10
_MAX_KINDS = 64  # array types kept; making one takes 20 us

_library: Any = None  # the C library; False: there is no ctypes here
_kinds: dict[int, Any] = {}  # ctypes array types by their size in bytes
_live: set[int] = set()  # the mappings that there are, by id


class _Memory(mmap.mmap):
    """A mapping that is counted.

    Unmapping is its deallocation's work. It must not be a finalizer's: the garbage collector calls
    those of all that it found before it clears any of it, and another one may read the memory.
    """

    __slots__ = ()

    def __del__(self, forget: Any = _live.discard) -> None:
        forget(id(self))


def private(fd: int, start: int, size: int, spans: list[tuple[int, int]]) -> list[Any] | None:
    """Map a part of a file privately: writable, and what is written stays in this process.

    The memory is unmapped when its last view is gone. A forked child has a copy of its own. Pages
    that were not written show what others write to the file: nobody may, see warm.py.

    Args:
        fd: of the file; not needed any more afterwards.
        start: of the part in bytes, at a page's beginning.
        size: of the part in bytes, at least 1; the file must be that long.
        spans: (offset from `start`, bytes) of what is wanted of it.

    Returns:
        a memoryview of each, or None where it can't be mapped: no ctypes, too many mappings, no
        memory.
    """
    if not _libc() or len(_live) >= MOST:
        return None
    try:
        memory = _Memory(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        _live.add(id(memory))
        _fill(memory, fd, start)
    except OSError:
        return None
    return [_view(memory, offset, length) for offset, length in spans]


def _fill(memory: mmap.mmap, fd: int, start: int) -> None:
    """Put a file's memory in the place of an anonymous mapping.

    The object would keep a descriptor if it had mapped the file itself, until Python 3.13 always:
    a program that holds many large results would run out of them.
    """
    import ctypes

    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    rights, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
    if _libc().mmap(address, len(memory), rights, kind, fd, start) != address:
        raise OSError(ctypes.get_errno(), "mmap")


def _view(memory: mmap.mmap, offset: int, length: int) -> memoryview:
    # An exporter of its own for each: the `obj` of what the user gets is then this buffer and not
    # the whole region. No memoryview may export another: if both are garbage at a time, CPython
    # 3.11 crashes (memory_clear).
    kind = _kind(length)
    # raw(): ctypes' own format, "<B", is not what a memoryview can index.
    return pickle.PickleBuffer(kind.from_buffer(memory, offset)).raw()


def advise_huge(view: memoryview) -> None:
    """Have the kernel use huge pages for the whole ones within a memory; may do nothing.

    Has no effect on what the memory holds.

    Args:
        view: of something writable, or of a whole bytes object; nothing is done for others.
    """
    libc = _libc()
    if not libc:
        return
    import ctypes

    if not view.readonly:
        first = ctypes.addressof(ctypes.c_char.from_buffer(view))
    elif type(view.obj) is bytes and len(view.obj) == view.nbytes:
        first = ctypes.cast(ctypes.c_char_p(view.obj), ctypes.c_void_p).value or 0
    else:
        return
    start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (first + view.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        libc.madvise(start, end - start, _MADV_HUGEPAGE)


def _kind(size: int) -> Any:
    """The ctypes array type of so many bytes."""
    kind = _kinds.get(size)
    if kind is None:
        import ctypes

        if len(_kinds) >= _MAX_KINDS:
            _kinds.clear()
        kind = _kinds[size] = ctypes.c_ubyte * size
    return kind


def prepare() -> None:
    """Import what mapping needs, while there is a descriptor for that."""
    _libc()


def _libc() -> Any:
    """The C library, with the functions' types; False where there is no ctypes."""
    global _library
    if _library is None:
        _library = _load()
    return _library


def _load() -> Any:
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,  # off_t, 64 bits on all machines that gopool builds for
        ]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    except Exception:
        return False
    return libc
