# SPDX-License-Identifier: MIT
"""Supervisor: policies, back-off, giving up, orderly ends, under each start method."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import unruly as u

import functions as f
import gopool
from gopool import events, supervisor

QUICK = {"backoff": (0.0, 0.0)}
LONG = 60.0


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("restart", "code", "runs"),
    [
        ("never", 0, 1),
        ("never", 1, 1),
        ("on-failure", 0, 1),
        ("on-failure", 3, 3),
        ("always", 0, 3),
        ("always", 1, 3),
    ],
)
def test_policies(tmp_path: Path, restart: str, code: int, runs: int) -> None:
    """Which ends bring a child back; after the intensity it is given up."""
    path = str(tmp_path / "runs")
    supervisor = gopool.Supervisor(
        intensity=2, context=gopool.get_context("fork"), backoff=(0.0, 0.0)
    )
    child = supervisor.add(u.run_and_exit, (path, code), restart=restart)
    if runs == 1:
        assert supervisor.wait(LONG)
        supervisor.stop()
    else:
        with pytest.raises(gopool.SupervisorError) as caught:
            supervisor.wait(LONG)
        supervisor.stop()
        assert (caught.value.exitcode, caught.value.restarts) == (code, 2)
    assert Path(path).read_text().count("run") == runs
    assert (child.state, child.exitcode, child.restarts) == ("ended", code, runs - 1)


def test_failure_is_told_once() -> None:
    """A program that catches what wait() raises is not stopped at the end of the block."""
    context = gopool.get_context("fork")
    with gopool.Supervisor(intensity=1, context=context, **QUICK) as supervisor:
        supervisor.add(f.exit_hard)
        with pytest.raises(gopool.SupervisorError):
            supervisor.wait(LONG)


def test_restart(context: Any, eventually: Callable[..., None]) -> None:
    """A child that is killed comes back under another number; the others go on."""
    seen: list[events.Event] = []
    with gopool.Supervisor(context=context, on_event=seen.append, **QUICK) as supervisor:
        child = supervisor.add(f.sleep, (LONG,), name="web")
        other = supervisor.add(f.sleep, (LONG,), name="cron")
        first, kept = child.pid, other.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: child.pid not in (None, first), "the child is back")
        assert (child.exitcode, child.restarts, child.state) == (-9, 1, "running")
        assert (other.pid, other.restarts) == (kept, 0)
        assert supervisor.children() == [child, other]
        assert not supervisor.wait(0.05)
        pids = [child.pid, other.pid]
    assert all(gone(pid) for pid in pids if pid)
    assert [child.state, other.state] == ["ended", "ended"]
    kinds = [event.kind for event in seen]
    assert kinds.count("start") == 3
    assert kinds.count("crash") == kinds.count("restart") == 1
    assert [event.name for event in seen if event.kind == "end"] == ["cron", "web"]


def test_pid_at_the_moment_of_the_end() -> None:
    """The thread that learns of an end forgets the process first, then changes the state."""
    child = supervisor.Child(1, "web", "never", lambda: None)
    child.state = "running"
    assert child.pid is None
    assert repr(child) == "<Child 'web' running, pid None, 0 restarts>"


def test_backoff() -> None:
    """A child that falls again and again is started ever later."""
    starts: list[float] = []

    def note(event: events.Event) -> None:
        if event.kind == "start":
            starts.append(time.monotonic())

    with (
        pytest.raises(gopool.SupervisorError),
        gopool.Supervisor(
            intensity=3, backoff=(0.1, 5.0), on_event=note, context=gopool.get_context("fork")
        ) as supervisor,
    ):
        supervisor.add(f.exit_hard)
        supervisor.wait(LONG)
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(pauses) == 3
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.2), strict=True))


def test_remove(context: Any) -> None:
    """A removed child is ended with its tree, and stays away."""
    with gopool.Supervisor(context=context, **QUICK) as supervisor:
        child = supervisor.add(f.sleep, (LONG,), restart="always")
        pid = child.pid
        supervisor.remove(child)
        assert pid is not None
        assert gone(pid)
        assert (child.state, supervisor.children()) == ("removed", [])
        with pytest.raises(ValueError, match="not in list"):
            supervisor.remove(child)
        assert supervisor.wait(LONG)


def test_stubborn_child(tmp_path: Path) -> None:
    """A child that ignores SIGTERM is killed after its time."""
    context = gopool.get_context("fork")
    path = str(tmp_path / "up")
    with gopool.Supervisor(context=context, stop_timeout=0.1) as supervisor:
        child = supervisor.add(u.ignore_and_wait, (path,))
        f.wait_for(path)
    assert child.exitcode == -signal.SIGKILL


def test_bad_arguments() -> None:
    """Each says what is wrong; nothing is started."""
    with pytest.raises(TypeError, match="intensity must be an int"):
        gopool.Supervisor(intensity="3")
    with pytest.raises(ValueError, match="period"):
        gopool.Supervisor(period=0)
    with pytest.raises(ValueError, match="backoff"):
        gopool.Supervisor(backoff=(-1, 2))
    with gopool.Supervisor(context=gopool.get_context("fork")) as supervisor:
        with pytest.raises(ValueError, match="restart must be one of never, on-failure, always"):
            supervisor.add(f.sleep, restart="sometimes")
        assert supervisor.children() == []
    with pytest.raises(ValueError, match="stopped"):
        supervisor.add(f.sleep)


EXIT = """
import sys
import functions as f
import gopool

if __name__ == "__main__":
    supervisor = gopool.Supervisor(context=gopool.get_context(sys.argv[1]))
    print(supervisor.add(f.sleep, (60,)).pid, flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "raise KeyError"])
def test_interpreter_exit(tmp_path: Path, start_method: str, end: str) -> None:
    """A program that ends takes its supervised processes with it, in bounded time."""
    done = f.run_script(tmp_path, EXIT.format(end=end), start_method)
    assert gone(int(done.stdout))
    assert done.returncode == (1 if "raise" in end else 0)


def test_forked_child(tmp_path: Path) -> None:
    """A supervisor is its own process's: a forked child may not use it, nor ends its children."""
    done = f.run_script(
        tmp_path,
        """
import os
import functions as f
import gopool

if __name__ == "__main__":
    with gopool.Supervisor(context=gopool.get_context("fork")) as supervisor:
        child = supervisor.add(f.sleep, (60,))
        if os.fork() == 0:
            try:
                supervisor.wait(1)
            except gopool.ForkedChildError:
                print("refused", flush=True)
            supervisor.stop()
            os._exit(0)
        os.wait()
        print(child.state)
""",
        flags=("-W", "ignore:This process:DeprecationWarning"),
    )
    f.assert_silent_success(done, "refused\nrunning\n")


def test_needs_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Go can't be loaded a supervisor says so."""
    monkeypatch.setattr("gopool._core.obstacle", lambda: "refused by the test")
    with pytest.raises(gopool.GopoolError, match="needs the Go core: refused by the test"):
        gopool.Supervisor()
