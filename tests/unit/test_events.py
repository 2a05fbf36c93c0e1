# SPDX-License-Identifier: MIT
"""Events: how they read, and whom they reach."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

import functions as f
import gopool
from gopool.events import Event, emit


def test_words() -> None:
    """repr() has what is set, str() is a line for people."""
    told: Any = {"task": "m.f", "attempt": 2, "text": "why"}
    event = Event("crash", name="W-1", pid=7, exitcode=-9, time=1.5, **told)
    assert repr(event) == (
        "Event(kind='crash', name='W-1', pid=7, exitcode=-9, task='m.f', attempt=2, text='why', "
        "time=1.5)"
    )
    assert str(event) == "crash, W-1 (process 7), was ended by SIGKILL, m.f, attempt 2, why"
    assert str(Event("resize", text="to 4")) == "resize, to 4"
    assert str(Event("end", pid=7, exitcode=0)) == "end, process 7, exited with code 0"
    assert repr(Event("start", time=2.0)) == "Event(kind='start', time=2.0)"
    assert abs(Event("start").time - time.time()) < 60
    assert gopool.events.Event is Event


@pytest.mark.parametrize("kind, level", [("crash", "WARNING"), ("start", "INFO")])
def test_logged_and_called(caplog: Any, kind: str, level: str) -> None:
    """An event is a log record under "gopool", which carries it, and then the callback's."""
    seen: list[Event] = []
    event = Event(kind, text="100%")
    with caplog.at_level(logging.INFO, "gopool"):
        emit(event, seen.append)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("gopool", level)
    assert (record.getMessage(), record.event) == (f"{kind}, 100%", event)
    assert seen == [event]


def test_bad_callback(monkeypatch: Any) -> None:
    """A callback's exception reaches threading.excepthook, nobody else."""
    caught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", caught.append)

    def callback(event: Event) -> None:
        raise KeyError(event.kind)

    emit(Event("start"), callback)
    (arguments,) = caught
    assert arguments.exc_type is KeyError


def test_silent_without_logging(tmp_path: Any) -> None:
    """A program that set up no logging is told nothing, and logging is not imported for events."""
    done = f.run_script(
        tmp_path,
        """
import sys
from gopool.events import Event, emit

emit(Event("crash", pid=1, exitcode=1))
print("logging" in sys.modules)
import logging
emit(Event("crash", pid=1, exitcode=1))
""",
    )
    f.assert_silent_success(done, "False\n")
