# SPDX-License-Identifier: MIT
"""Workers that retire and do not end: a pool does not lose their places."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import functions as f
import gopool

WAYS = ["thread", "finalizer", "worker_exit"]


def test_places_are_not_lost(context: Any) -> None:
    """A worker that hangs in its exit is killed after twelve times the grace and replaced, whatever
    it hangs in. Its tasks are done, and its end is no crash.
    """
    events: list[Any] = []
    with contextlib.ExitStack() as stack:
        pools = []
        for way in WAYS:
            hook = {"worker_exit": f.pause_for_ever} if way == "worker_exit" else {}
            pool = context.Pool(
                1, maxtasksperchild=1, kill_grace=0.1, on_event=events.append, **hook
            )
            pools.append((way, stack.enter_context(pool)))
        first = [pool.apply_async(f.never_end, (way,)) for way, pool in pools]
        lost = {result.get(timeout=60) for result in first}
        second = [pool.apply_async(f.pid) for _, pool in pools]
        assert not lost & {result.get(timeout=60) for result in second}
        told = [(event.kind, event.pid) for event in events]
        for pid in lost:
            # Told by two threads, so the order of the last two is open.
            assert sorted(kind for kind, who in told if who == pid) == ["end", "limit", "start"]
            (event,) = (one for one in events if one.kind == "limit" and one.pid == pid)
            assert event.text == "it was to end, and had not after 1.2s"


def test_join_after_a_worker_that_never_ends() -> None:
    """join() of a closed pool ends where one of its workers was replaced that never would."""
    pool = gopool.get_context("fork").Pool(1, maxtasksperchild=1, kill_grace=0.1)
    with pool:
        stuck = pool.apply_async(f.never_end, ("finalizer",))
        last = pool.apply_async(f.pid)
        pool.close()
        pool.join()
        assert last.get() != stuck.get()


def test_hooks_run_without_a_grace(context: Any, tmp_path: Any) -> None:
    """With a kill_grace of 0, for what is to stop at once, workers still retire in order."""
    notes = tmp_path / "notes"
    hook = functools.partial(f.note, str(notes), "exit")
    with context.Pool(1, maxtasksperchild=1, kill_grace=0, worker_exit=hook) as pool:
        pids = [pool.apply(f.pid) for _ in range(3)]  # one after the other, so two have left
        assert len(set(pids)) == 3
        assert notes.read_text().count("exit") >= 2
