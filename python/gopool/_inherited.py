# SPDX-License-Identifier: MIT
"""Locks in C that a forked child inherits taken, by threads that it does not have.

A thread that waits in sys.stdin.readline(), or writes a line to sys.stdout or to a log, holds the
lock of the file's buffer, and a child that is forked meanwhile waits for ever where it needs it: at
its very start, which closes sys.stdin; at a print(); at its end, which flushes. A program needs no
thread of its own for that: a pool replaces its workers from one. CPython has this open (its issue
84579); what it and logging renew in a child is Python's own locks.

Nobody can ask whether such a lock is taken. But a buffer that is initialised again has a new one.
What the parent has not written yet is the parent's to write, and is dropped here.
"""

from __future__ import annotations

import sys
from _io import BufferedRandom, BufferedReader, BufferedWriter, BytesIO, FileIO, TextIOWrapper

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

_BUFFERED = BufferedReader, BufferedWriter, BufferedRandom
_STANDARD = "stdin", "stdout", "stderr", "__stdout__", "__stderr__"


def renew() -> None:
    """In a child that was just forked beside other threads: free the buffers of the standard
    streams and of logging's files, and multiprocessing's resource tracker.

    Of Python's own types only: no code of the program's runs here.
    """
    streams: list[Any] = [getattr(sys, name, None) for name in _STANDARD]
    for reference in list(getattr(sys.modules.get("logging"), "_handlerList", ())):
        streams.append(getattr(reference(), "__dict__", {}).get("stream"))
    for stream in {id(each): each for each in streams}.values():
        if issubclass(type(stream), TextIOWrapper):
            _renew(stream)
    # Another thread may have been at its import.
    module = sys.modules.get("multiprocessing.resource_tracker")
    tracker = getattr(module, "_resource_tracker", None)
    if tracker is not None:
        tracker._lock._at_fork_reinit()


def _renew(stream: TextIOWrapper) -> None:
    buffered: Any = TextIOWrapper.buffer.__get__(stream)
    if type(buffered) not in _BUFFERED or type(buffered.raw) is not FileIO or buffered.raw.closed:
        return
    raw = buffered.raw
    try:
        if type(stream) is TextIOWrapper and type(buffered) is not BufferedReader:
            buffered.__init__(BytesIO())
            stream.flush()  # drops what was printed and not flushed
    finally:
        buffered.__init__(raw)
