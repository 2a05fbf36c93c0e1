# SPDX-License-Identifier: MIT
"""Ctrl-C at a terminal: the whole foreground process group gets SIGINT, the pool's workers too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import functions as f

WORKERS = 4
TIMEOUT = 60  # seconds; what hangs is ended, and fails the test

# Opening its terminal makes it the controlling one of a new session's leader: only then does a
# Ctrl-C that is typed become a signal. Workers of spawn import this again, hence the guard.
SCRIPT = """
import os, sys
import functions as f
import gopool

if __name__ == "__main__":
    method, how, folder = sys.argv[1:]
    os.close(os.open(os.ttyname(0), os.O_RDWR))
    items = [(f"{folder}/started-{i}", f"{folder}/never") for i in range(%d)]
    with gopool.get_context(method).Pool(%d) as pool:
        if how == "idle":
            # Under forkserver a worker that still boots would show its traceback (docs/design.md).
            pool.starmap(f.meet, [(folder, i, len(items)) for i in range(len(items))], 1)
            f.touch_and_wait(*items[0])
        elif how == "map":
            pool.starmap(f.touch_and_wait, items, 1)
        else:
            results = [pool.apply_async(f.touch_and_wait, item) for item in items]
            pool.close()
            pool.join()
"""

# Its workers get no further than the import of their main module, or the fork.
BOOTING = """
import os, sys, time
import functions as f
import gopool

method, folder = sys.argv[1:]

def boot():
    f.touch_and_wait(f"{folder}/started-{os.getpid()}", f"{folder}/never")

if __name__ == "__main__":
    os.close(os.open(os.ttyname(0), os.O_RDWR))
    if method == "fork":
        os.register_at_fork(after_in_child=boot)
    with gopool.get_context(method).Pool(%d) as pool:
        pool.map(f.square, range(20), 1)
else:
    boot()
"""


def _session(leader: int) -> list[int]:
    """The processes of a session that run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(name))
    return found


class _Screen(threading.Thread):
    """Reads what a terminal shows until nobody has it open any more."""

    def __init__(self, master: int) -> None:
        super().__init__(name="screen")
        self._master = master
        self.text = ""

    def run(self) -> None:
        shown = bytearray()
        while data := self._read():
            shown += data
        self.text = shown.decode()

    def _read(self) -> bytes:
        try:
            return os.read(self._master, 65_536)
        except OSError:  # EIO: the last process that had the terminal has ended
            return b""


@pytest.mark.parametrize("how", ["map", "join", "idle"])
def test_ctrl_c(
    tmp_path: Path, start_method: str, how: str, eventually: Any
) -> None:
    """One traceback, the program's; it ends by SIGINT, and no process of it is left."""
    begun = 1 if how == "idle" else WORKERS
    text = SCRIPT % (WORKERS, WORKERS)
    _interrupt(tmp_path, text, [start_method, how, str(tmp_path)], begun, eventually)


# Not forkserver: its children inherit no signal mask from this process.
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ctrl_c_while_workers_boot(tmp_path: Path, method: str, eventually: Any) -> None:
    """A worker that does not yet run gopool's code shows no traceback either."""
    _interrupt(tmp_path, BOOTING % WORKERS, [method, str(tmp_path)], WORKERS, eventually)


def _interrupt(
    folder: Path, text: str, arguments: list[str], begun: int, eventually: Any
) -> None:
    """Run a script in a terminal, type Ctrl-C once so many files are there, look at the end."""
    script = folder / "script.py"
    script.write_text(text)
    path = [os.path.dirname(os.path.abspath(f.__file__)), os.environ.get("PYTHONPATH", "")]
    master, terminal = os.openpty()
    program = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )
    os.close(terminal)
    screen = _Screen(master)
    screen.start()
    try:
        eventually(lambda: len(list(folder.glob("started-*"))) == begun, "busy", TIMEOUT)
        os.write(master, b"\x03")
        assert program.wait(TIMEOUT) == -2
        eventually(lambda: not _session(program.pid), "all processes have ended", TIMEOUT)
    finally:
        for pid in _session(program.pid):
            os.kill(pid, 9)
        program.wait()
        screen.join()
        os.close(master)
    assert screen.text.count("Traceback") == 1, screen.text
    assert screen.text.count("KeyboardInterrupt") == 1, screen.text
