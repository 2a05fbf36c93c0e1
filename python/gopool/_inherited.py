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
from collections.abc import Iterator

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

_BUFFERED = BufferedReader, BufferedWriter, BufferedRandom


def renew() -> None:
    """In a child that was just forked beside other threads: free the buffers of the standard
    streams and of logging's files, and multiprocessing's resource tracker.

    No code of the program's runs here. Its other files are its own to look after.
    """
    for stream in {id(each): each for each in _streams()}.values():
        buffered = _buffer_of(stream)
        raw = getattr(buffered, "raw", None)
        if type(buffered) in _BUFFERED and type(raw) is FileIO and not raw.closed:
            if type(buffered) is not BufferedReader:
                buffered.__init__(BytesIO())
                TextIOWrapper.flush(stream)  # what was printed and not flushed
            buffered.__init__(raw)
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        tracker._resource_tracker._lock._at_fork_reinit()


def _streams() -> Iterator[TextIOWrapper]:
    standard = sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__
    references = list(getattr(sys.modules.get("logging"), "_handlerList", ()))
    logs = [getattr(reference(), "__dict__", {}).get("stream") for reference in references]
    stream: Any
    for stream in (*standard, *logs):
        if issubclass(type(stream), TextIOWrapper):
            yield stream


def _buffer_of(stream: TextIOWrapper) -> Any:
    try:
        return TextIOWrapper.buffer.__get__(stream)
    except ValueError:  # it was detached
        return None
