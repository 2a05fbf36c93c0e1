# SPDX-License-Identifier: MIT
"""What a process holds: descriptors, threads, children, memory, shared memory files."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """A look at this process; `memory` in bytes resident."""

    descriptors: int
    memfds: int
    python_threads: int
    threads: int  # the operating system's: Python's, and Go's
    children: int
    shared_files: frozenset[str]  # in /dev/shm, where other programs have theirs too
    memory: int

    def __str__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.memfds} memfds, {self.python_threads} Python "
            f"threads, {self.threads} threads, {self.children} children, "
            f"{len(self.shared_files)} files in /dev/shm, {self.memory >> 10} KiB"
        )


def usage() -> Usage:
    """Look at this process, after a garbage collection."""
    gc.collect()
    targets = _targets()
    return Usage(
        descriptors=len(targets),
        memfds=sum(target.startswith("/memfd:") for target in targets),
        python_threads=threading.active_count(),
        threads=len(os.listdir("/proc/self/task")),
        children=len(multiprocessing.active_children()),
        shared_files=frozenset(os.listdir("/dev/shm")),
        memory=_resident(),
    )


def left_since(before: Usage, *, go_threads: int = 16, timeout: float = 10.0) -> list[str]:
    """Wait until nothing but memory, and files, is above what was there before.

    Args:
        before: an earlier look.
        go_threads: how many threads the Go runtime may have made since; it keeps them.
        timeout: seconds.

    Returns:
        what there is more of than before, in words; memory is the caller's to judge.
    """
    deadline = time.monotonic() + timeout
    while (left := _excess(before, usage(), go_threads)) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return left


def shared_files_since(before: Usage, *, timeout: float = 10.0) -> frozenset[str]:
    """What came into /dev/shm since a look, and does not go within some seconds.

    Programs that run beside this one have files there as well; theirs are taken to go.
    """
    deadline = time.monotonic() + timeout
    appeared = usage().shared_files - before.shared_files
    while appeared and time.monotonic() < deadline:
        threading.Event().wait(0.01)
        appeared &= usage().shared_files
    return appeared


def _excess(before: Usage, now: Usage, go_threads: int) -> list[str]:
    counts = [
        ("descriptors", now.descriptors, before.descriptors),
        ("memfds", now.memfds, before.memfds),
        ("Python threads", now.python_threads, before.python_threads),
        ("threads", now.threads, before.threads + go_threads),
        ("children", now.children, before.children),
    ]
    return [f"{what}: {have} instead of {had}" for what, have, had in counts if have > had]


def _targets() -> list[str]:
    """What the descriptors stand for, without the desks that threads at submission keep."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue  # the listing's own
    return [target for target in found if "gopool-staging" not in target]


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE
