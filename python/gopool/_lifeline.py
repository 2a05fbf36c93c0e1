# SPDX-License-Identifier: MIT
"""The lifeline: a pipe that nobody writes to, and that ends with this process.

Its write end is open in this process alone (_fork closes it in every child). Pool workers have
the kernel kill them when it closes: see gopool._worker.lifeline.
"""

from __future__ import annotations

import os

from gopool import _fork

_read_end = -1
_generation = -1  # whose pipe it is


def read_end() -> int:
    """The descriptor that workers watch; made at the first call in a process."""
    global _read_end, _generation
    # A child that another thread forks with the write end open would keep orphans alive; and two
    # first pools must not make two pipes.
    with _fork.unforked():
        if _generation != _fork.generation:
            reader, writer = os.pipe()
            _fork.own(writer)
            _read_end = _fork.own(reader)
            _generation = _fork.generation
    return _read_end
