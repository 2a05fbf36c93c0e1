# SPDX-License-Identifier: MIT
"""gopool's Thread subclasses keep out of Thread's own attributes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from gopool import _feeder


def _job() -> Any:
    class Job:
        finished = 0
        on_finished = None

    return Job()


MADE = {
    "IMapFeeder": lambda: _feeder.IMapFeeder(
        _job(), (), _feeder.Window(1), print, print, print
    ),
    "TaskFeeder": lambda: _feeder.TaskFeeder((), None, print, print),
}


@pytest.mark.parametrize("name", MADE)
def test_no_attribute_is_shadowed(name: str) -> None:
    """A name that threading.Thread uses on some version, as 3.13 does `_handle`, breaks start()."""
    own = set(vars(MADE[name]())) - set(vars(threading.Thread()))
    theirs = {*dir(threading.Thread), "_handle", "_os_thread_handle"}
    assert not own & theirs
