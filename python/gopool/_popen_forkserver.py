# SPDX-License-Identifier: MIT
"""multiprocessing.popen_forkserver.Popen with adoption."""

from __future__ import annotations

from multiprocessing import popen_forkserver

from gopool.popen import Adopted


class ForkServerPopen(Adopted, popen_forkserver.Popen):
    """multiprocessing.popen_forkserver.Popen with adoption."""

    _status_on_sentinel = True
