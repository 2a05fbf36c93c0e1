# SPDX-License-Identifier: MIT
"""Tasks that take too long, die, or use too much, as often as a test wants."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import functions as f
import gopool

LONG = 60.0  # seconds that nobody waits for


def runs(path: str) -> int:
    """Note one more run in a file; returns how many there were."""
    with open(path, "a") as notes:
        notes.write("run\n")
    with open(path) as notes:
        return len(notes.readlines())


def slow_at(x: int, bad: int) -> int:
    """Returns x, at once but for one of them."""
    if x == bad:
        time.sleep(LONG)
    return x


def die_times(path: str, times: int) -> int:
    """Kills its worker so many times, counted in a file; then returns how often it was run."""
    count = runs(path)
    if count <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def raise_times(path: str, times: int) -> int:
    count = runs(path)
    if count <= times:
        raise ValueError(count)
    return count


def sleep_times(path: str, times: int) -> int:
    count = runs(path)
    if count <= times:
        time.sleep(LONG)
    return count


def start_tree(path: str) -> None:
    """Starts a process that starts another, notes their numbers, and waits."""
    command = f"sleep {LONG:.0f} & echo $$ $! >{path}.tmp; mv {path}.tmp {path}; wait"
    subprocess.Popen(["sh", "-c", command])
    time.sleep(LONG)


def hold_memory(size: int, started: str, release: str) -> int:
    held = bytearray(os.urandom(1)) * size  # written, so resident
    f.touch_and_wait(started, release)
    return len(held)


def interrupted(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except gopool.SoftTimeoutError as error:
        return f"soft {error.seconds}"
    return "slept"


def ignore_soft() -> str:
    try:
        time.sleep(LONG)
    except gopool.SoftTimeoutError:
        time.sleep(LONG)
    return "slept"


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def initialize_for_ever() -> None:
    """An initializer that starts a program and waits for it."""
    subprocess.run(["sleep", f"{LONG:.0f}"])


def hang_the_first_time(path: str) -> None:
    """An initializer."""
    if runs(path) == 1:
        time.sleep(LONG)


def run_and_exit(path: str, code: int) -> None:
    runs(path)
    os._exit(code)


def ignore_and_wait(path: str) -> None:
    ignore_sigterm()
    f.touch_and_wait(path, path + ".never")
