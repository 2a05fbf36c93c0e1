# SPDX-License-Identifier: MIT
"""How many workers a pool has that was not told: as many as can run at the same time.

The standard library counts processors; before Python 3.13 also those that this process may not
use, and in no version the processor time that its control group is limited to. A container with
two of 64 processors would get 64 workers.
"""

from __future__ import annotations

import os
import sys

_MOUNT = "/sys/fs/cgroup"
_MEMBERSHIP = "/proc/self/cgroup"


def available() -> int:
    """Processors that this process may use, at least one; parts of one count as one.

    Sources: os.sched_getaffinity; cpu.max of the control group and those above it (cgroups(7),
    version 2), or cpu.cfs_quota_us (version 1). -X cpu_count and PYTHON_CPU_COUNT of Python 3.13
    have the last word.
    """
    process_cpu_count = getattr(os, "process_cpu_count", None)
    if process_cpu_count is not None and _chosen():
        return process_cpu_count() or 1
    count = len(os.sched_getaffinity(0))
    limit = quota()
    return max(1, count if limit is None else min(count, limit))


def _chosen() -> bool:
    """Whether the user has told Python how many there are."""
    return "cpu_count" in sys._xoptions or bool(os.environ.get("PYTHON_CPU_COUNT"))


def quota(membership: str = _MEMBERSHIP, mount: str = _MOUNT) -> int | None:
    """Whole processors, rounded up, that the control group may use; None: no limit, or unknown.

    Args:
        membership: the file that says which groups this process is in.
        mount: where the groups are mounted.
    """
    smallest: float | None = None
    for line in _lines(membership):
        number, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if number == "0" and not controllers:
            roots, read = [mount, os.path.join(mount, "unified")], _version2
        elif "cpu" in controllers.split(","):
            roots, read = [os.path.join(mount, name) for name in (controllers, "cpu")], _version1
        else:
            continue
        for root in roots:
            for folder in _upwards(root, path):
                limit = read(folder)
                if limit is not None and (smallest is None or limit < smallest):
                    smallest = limit
    return None if smallest is None else max(1, -int(-smallest // 1))


def _upwards(root: str, path: str) -> list[str]:
    """A group's folder and those of the groups above it."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [os.path.join(root, *parts[:depth]) for depth in range(len(parts), -1, -1)]


def _version2(folder: str) -> float | None:
    words = " ".join(_lines(os.path.join(folder, "cpu.max"))).split()
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _version1(folder: str) -> float | None:
    limits = _lines(os.path.join(folder, "cpu.cfs_quota_us"))
    periods = _lines(os.path.join(folder, "cpu.cfs_period_us"))
    return _ratio(limits[0], periods[0]) if limits and periods else None


def _ratio(limit: str, period: str) -> float | None:
    try:
        ratio = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return ratio if ratio > 0 else None  # -1: none


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split("\n")[:-1]
    except (OSError, ValueError):
        return []
