# SPDX-License-Identifier: MIT
"""multiprocessing.popen_spawn_posix.Popen with adoption."""

from __future__ import annotations

from multiprocessing import popen_spawn_posix

from gopool.popen import Adopted


class SpawnPopen(Adopted, popen_spawn_posix.Popen):
    """multiprocessing.popen_spawn_posix.Popen with adoption."""
