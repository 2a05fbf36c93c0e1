# SPDX-License-Identifier: MIT
"""The functions that workers run. They do next to nothing: the pool itself is what is measured.

Spawned workers import this module, so it imports nothing.
"""

BLOB_SIZE = 64_000_000  # bytes: "64 MB" in the rows' names

_blob = b""


def noop() -> None:
    pass


def identity(item: int) -> int:
    return item


def make_blob() -> bytes:
    """64 MB that were really written: a zeroed block would be read from one shared page."""
    return b"\x5a" * BLOB_SIZE


def keep_blob() -> None:
    """The initializer of a pool whose workers send one blob again and again."""
    global _blob
    _blob = make_blob()


def kept_blob() -> bytes:
    return _blob


def size_of(blob: bytes) -> int:
    return len(blob)
