# SPDX-License-Identifier: MIT
"""The functions that workers run. They do next to nothing: the pool itself is what is measured.

Spawned workers import this module, so it imports nothing.
"""

BLOB_SIZE = 64_000_000  # bytes: "64 MB" in the rows' names

_blob = b""
_arrays: dict = {}


def noop() -> None:
    pass


def identity(item: int) -> int:
    return item


def pause(seconds: float) -> float:
    """A task of a known length that needs no processor."""
    from time import sleep

    sleep(seconds)
    return seconds


def make_blob(size: int = BLOB_SIZE) -> bytes:
    """64 MB that were really written: a zeroed block would be read from one shared page."""
    return b"\x5a" * size


def kept_blob(size: int = BLOB_SIZE) -> bytes:
    """A blob that the worker made at its first call."""
    global _blob
    if len(_blob) != size:
        _blob = make_blob(size)
    return _blob


def size_of(blob: bytes) -> int:
    return len(blob)


def make_array(size: int):
    """An array of doubles, `size` bytes long, that were really written."""
    import numpy

    return numpy.arange(size // 8, dtype=numpy.float64)


def keep_array(size: int) -> None:
    """Have this worker make the array that `kept_array` returns."""
    _arrays[size] = make_array(size)


def kept_array(size: int):
    if size not in _arrays:
        keep_array(size)
    return _arrays[size]


def last_of(array) -> float:
    return float(array[-1])


def sum_of(array) -> float:
    return float(array.sum())


def negative_of(array):
    return -array


def wait_at(path: str) -> None:
    """Keep the worker until the gate at this path is opened: see `gates`."""
    try:
        with open(path, "rb") as gate:
            gate.read()
    except FileNotFoundError:
        pass  # opened before, and gone


def wait_after(path: str, free: int, item: int) -> int:
    """Like `identity` for items below `free`; each other item waits at the gate."""
    if item >= free:
        wait_at(path)
    return item
