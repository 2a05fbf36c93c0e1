# SPDX-License-Identifier: MIT
"""The rows of what a pool takes and leaves: fairness, memory, processor time, items drawn ahead."""

from __future__ import annotations

import os
from functools import partial
from time import perf_counter, sleep

from benchmarks.libraries import LOCAL, SUBMITTING
from benchmarks.rows import LOWER, Measurement, Setup, check, finish, row
from benchmarks.tasks import identity, noop, pause, wait_after, wait_at

_LONG_TASK = 1.0  # seconds
_SHORT_TASK = 0.02
_SHORT_TASKS = 50

_QUEUED_TASKS = 100_000
_SETTLING_LIMIT = 5.0  # seconds that a figure is given to stop changing
_LOOK_INTERVAL = 0.05

_IDLE_SECONDS = 3.0
_QUIET_SECONDS = 1.0  # before that: what a pool does right after its last task is not counted

_INPUT_ITEMS = 100_000
_READ_ITEMS = 10

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@row(
    "mix", "one task of 1 s, then fifty of 20 ms: time over ideal", "times", LOWER,
    libraries=SUBMITTING,
)  # fmt: skip
def mix(setup: Setup) -> Measurement:
    long, short = (setup.size(task, task / 20) for task in (_LONG_TASK, _SHORT_TASK))
    ideal = max(long, (long + _SHORT_TASKS * short) / setup.workers)
    pool = setup.pool()
    for result in [pool.apply_async(pause, (0.0,)) for _ in range(setup.workers)]:
        result.get()
    start = perf_counter()
    results = [pool.apply_async(pause, (long,))]
    results += [pool.apply_async(pause, (short,)) for _ in range(_SHORT_TASKS)]
    got = [result.get() for result in results]
    elapsed = perf_counter() - start
    check(got == [long] + [short] * _SHORT_TASKS, f"{len(got)} results, or others than expected")
    finish(pool)
    return Measurement(elapsed / ideal)


def resident() -> int:
    """Bytes of this process in memory, shared ones included."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE_SIZE


def settled(look) -> float:
    """What `look` gives once it stays the same within one percent for three looks."""
    seen = [look()]
    deadline = perf_counter() + _SETTLING_LIMIT
    while perf_counter() < deadline:
        sleep(_LOOK_INTERVAL)
        seen.append(look())
        if len(seen) > 3 and max(seen[-3:]) <= 1.01 * min(seen[-3:]):
            break
    return seen[-1]


@row(
    "memory-queued", "memory of the parent for each queued no-op", "bytes", LOWER,
    libraries=SUBMITTING,
)  # fmt: skip
def memory_queued(setup: Setup) -> Measurement:
    from benchmarks.gates import gate

    count = setup.size(_QUEUED_TASKS, 20_000)
    with gate() as closed:
        pool = setup.pool()
        pool.apply(noop)
        held = [pool.apply_async(wait_at, (closed.path,)) for _ in range(setup.workers)]
        before = resident()
        queued = [pool.apply_async(noop) for _ in range(count)]
        taken = settled(resident) - before
        closed.open()
        for result in held:
            result.get()
        check(len(queued) == count, "results were lost")
        pool.terminate()
        pool.join()
    return Measurement(taken / count)


@row(
    "imap-ahead", "items drawn by imap of 100,000 when 10 were read", "items", LOWER,
    libraries=SUBMITTING, counts=True,
)  # fmt: skip
def imap_ahead(setup: Setup) -> Measurement:
    """At once where tasks end at once; beside it in the end, where tasks are held up."""
    from benchmarks.gates import gate

    at_once = _drawn_by_imap(setup, identity, lambda drawn: drawn())
    with gate() as closed:

        def look(drawn) -> float:
            count = settled(drawn)
            closed.open()
            return count

        held_up = _drawn_by_imap(setup, partial(wait_after, closed.path, _READ_ITEMS), look)
    return Measurement(at_once, {"tasks held up (items)": held_up})


def _drawn_by_imap(setup: Setup, function, look) -> float:
    """What `look` makes of the number of items drawn, which it can ask for, once ten were read."""
    count = setup.size(_INPUT_ITEMS, 2_000)
    drawn = 0

    def items():
        nonlocal drawn
        for item in range(count):
            drawn += 1
            yield item

    pool = setup.pool()
    results = iter(pool.imap(function, items()))
    got = [next(results) for _ in range(_READ_ITEMS)]
    seen = look(lambda: drawn)
    check(got == list(range(_READ_ITEMS)), f"read {got}")
    pool.terminate()
    pool.join()
    return seen


def family() -> list[int]:
    """This process and all that come from it."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass  # ended meanwhile
    members = [os.getpid()]
    for member in members:  # grows as it is walked
        members += [pid for pid, parent in parents.items() if parent == member]
    return members


def activity() -> tuple[int, float]:
    """Context switches and milliseconds of processor time of the family so far.

    The thread that measures is left out: it sleeps, and its looks are not the pool's.
    """
    switches, nanoseconds = 0, 0
    for pid in family():
        for thread in os.listdir(f"/proc/{pid}/task"):
            if int(thread) == os.getpid():
                continue
            with open(f"/proc/{pid}/task/{thread}/status") as file:
                switches += sum(int(line.split()[1]) for line in file if "_ctxt_switches" in line)
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                nanoseconds += int(file.read().split()[0])
    return switches, nanoseconds / 1e6


@row(
    "idle", "context switches of an idle pool in 3 s", "switches", LOWER, libraries=LOCAL,
    counts=True,
)  # fmt: skip
def idle(setup: Setup) -> Measurement:
    pool = setup.pool()
    pool.map(identity, list(range(1_000)))
    sleep(setup.size(_QUIET_SECONDS, 0.1))
    before = activity()
    sleep(setup.size(_IDLE_SECONDS, 0.1))
    after = activity()
    finish(pool)
    return Measurement(after[0] - before[0], {"processor (ms)": after[1] - before[1]})
