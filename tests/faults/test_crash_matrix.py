# SPDX-License-Identifier: MIT
"""The crash matrix: every place where a task can fail, every way in which it can.

Each cell is a test: what the task's caller sees is what the table says, the tasks submitted
before and after it are done once each, the pool works, and this process holds as much as before.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback
from typing import Any, NamedTuple

import pytest

import gopool
import sabotage as s
from usage import left_since, usage

METHODS = ("fork", "spawn", "forkserver")
TIMEOUT = 60  # seconds for any one result; what hangs shows all stacks by pytest's timeout
BYSTANDERS = 4  # tasks before and after each failing one

# The expected outcomes, from docs/failures.md and not from what the code did.
#
#   itself    get() raises what the task raised, with the remote traceback as its cause
#   bare      the same without a remote traceback: it was raised in this process
#   caller    the call that submits raises it: nothing was submitted
#   lost      get() raises WorkerLostError with the process's exit code; the worker is replaced
#   encoding  get() raises MaybeEncodingError
#   remote    get() raises RemoteTaskError, whose cause is what was raised
#   reported  get() gives the result; what was raised went to threading.excepthook
#   fine      get() gives the result, and the worker stays
#   replaced  no task notices; there is another worker in its place
#   broken    get() raises BrokenPoolError, for this task and every later one
#   -         no cell, see below
#
# What never comes back by itself is in test_timed_matrix.py.
#
# Pickling arguments, unpickling results and callbacks happen in the pool's own process: what ends
# a process there ends the program, with gopool as without. A SIGINT there is the main thread's
# KeyboardInterrupt, wherever that is, and so no outcome of a task; only pickling arguments is done
# by the thread that calls, which is the main thread here.
TABLE = """
                  Exception  BaseException  SystemExit  KeyboardInterrupt  SIGINT
pickle args       bare       caller         caller      caller             caller
unpickle args     itself     itself         itself      itself             itself
call              itself     itself         itself      itself             itself
pickle result     encoding   itself         itself      itself             itself
unpickle result   remote     remote         remote      remote             -
callback          reported   reported       reported    reported           -
error_callback    reported   reported       reported    reported           -
initializer       broken     broken         broken      broken             broken
idle              fine       fine           fine        fine               fine
collected         fine       fine           fine        fine               fine
dropped pool      itself     itself         itself      itself             itself

                  os._exit   SIGKILL        SIGTERM     segfault           abort
pickle args       -          -              -           -                  -
unpickle args     lost       lost           lost        lost               lost
call              lost       lost           lost        lost               lost
pickle result     lost       lost           lost        lost               lost
unpickle result   -          -              -           -                  -
callback          -          -              -           -                  -
error_callback    -          -              -           -                  -
initializer       broken     broken         broken      broken             broken
idle              replaced   replaced       replaced    replaced           replaced
collected         lost       lost           lost        lost               lost
dropped pool      lost       lost           lost        lost               lost
"""


def _cells() -> dict[str, dict[str, str]]:
    """The table as place -> way -> outcome."""
    cells: dict[str, dict[str, str]] = {}
    for block in TABLE.strip().split("\n\n"):
        header, *rows = block.splitlines()
        ways = header.split()
        for row in rows:
            *place, a, b, c, d, e = row.split()
            outcomes = zip(ways, (a, b, c, d, e), strict=True)
            cells.setdefault(" ".join(place), {}).update(outcomes)
    return cells


CELLS = _cells()


def cells_of(*places: str) -> pytest.MarkDecorator:
    """One test for each cell of these rows."""
    cells = [(p, way) for p in places for way, o in CELLS[p].items() if o != "-"]
    ids = [f"{place}-{way}".replace(" ", "_") for place, way in cells]
    return pytest.mark.parametrize(("place", "way"), cells, ids=ids)


class Stage:
    """A pool of two workers that the cells of one start method share, and its bystanders."""

    def __init__(self, method: str, folder: Any) -> None:
        self.context = gopool.get_context(method)
        self.folder = folder
        self.path = str(folder / "records")
        self.pool: Any = self.context.Pool(2)
        self._next = 0
        with pytest.raises(gopool.WorkerLostError):  # the first one starts a thread, for good
            self.pool.apply(s.act, ("SIGKILL",))

    def bystanders(self, pool: Any = None) -> list[tuple[int, Any]]:
        """Submit tasks that leave a trace; (number, result) of each."""
        numbers = range(self._next, self._next + BYSTANDERS)
        self._next += BYSTANDERS
        submit = (pool or self.pool).apply_async
        return [(number, submit(s.record, (self.path, number))) for number in numbers]

    def check(self, bystanders: list[tuple[int, Any]]) -> None:
        """All bystanders have their result, and were run once each."""
        for number, result in bystanders:
            assert result.get(TIMEOUT) == number
        runs = Counter(number for number, _ in s.records(self.path))
        assert {number: runs[number] for number, _ in bystanders} == {
            number: 1 for number, _ in bystanders
        }

    def workers(self) -> set[int]:
        return {process.pid for process in self.pool._pool}

    def refilled(self, eventually: Any) -> None:
        """Wait until there are two workers."""
        eventually(lambda: len(self.workers()) == 2, "two workers", TIMEOUT)


@pytest.fixture(scope="module", params=METHODS)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The stage of each start method; nothing of it is left at its end."""
    before = usage()
    stage = Stage(request.param, tmp_path_factory.mktemp("matrix"))
    yield stage
    stage.pool.close()
    stage.pool.join()
    stage.pool = None
    assert not left_since(before)


@pytest.fixture
def level(stage: Stage, eventually: Any) -> Iterator[None]:
    """A cell leaves this process as many descriptors, threads and children as there were."""
    stage.refilled(eventually)
    before = usage()
    yield
    stage.refilled(eventually)
    assert not left_since(before)


# The stage's pool is there when a test begins and ends; the fixtures above look at what is left.
pytestmark = [pytest.mark.leaves, pytest.mark.usefixtures("level")]


def outcome_of(get: Callable[[], Any], way: str) -> str:
    """What a caller sees, in the words of the table; else whatever it was."""
    try:
        value = get()
    except gopool.WorkerLostError as error:
        assert error.exitcode == s.EXIT_CODES.get(way), error
        assert error.pid > 0
        return "lost"
    except gopool.BrokenPoolError as error:
        assert not isinstance(error, gopool.WorkerStartError), "its first message had come"
        assert error.exitcode == s.EXIT_CODES.get(way, error.exitcode), error
        expected = s.RAISES[way].__name__ if way in s.RAISES else ""
        assert expected in error.reason
        return "broken"
    except gopool.RemoteTaskError as error:
        assert type(error.__cause__) is s.RAISES[way]
        return "remote"
    except MaybeEncodingError:
        return "encoding"
    except BaseException as error:
        if type(error) is not s.RAISES.get(way):
            raise
        return "itself" if isinstance(error.__cause__, RemoteTraceback) else "bare"
    return "fine" if value in ("taken", "survived", "pickled") else f"the value {value!r}"


SUBMIT: dict[str, Callable[[Any, str], Any]] = {
    "pickle args": lambda pool, way: pool.apply_async(s.take, (s.ActsAtPickling(way),)),
    "unpickle args": lambda pool, way: pool.apply_async(s.take, (s.ActsAtUnpickling(way),)),
    "call": lambda pool, way: pool.apply_async(s.act, (way,)),
    "pickle result": lambda pool, way: pool.apply_async(s.ActsAtPickling, (way,)),
    "unpickle result": lambda pool, way: pool.apply_async(s.ActsAtUnpickling, (way,)),
    "collected": lambda pool, way: pool.apply_async(s.take, (s.MakesGrenade(way),)),
}


@cells_of(*SUBMIT)
def test_task(stage: Stage, place: str, way: str) -> None:
    """A task that fails on its way fails alone."""
    before = stage.bystanders()
    try:
        result = SUBMIT[place](stage.pool, way)
    except BaseException as error:
        assert type(error) is s.RAISES[way]
        outcome, after = "caller", stage.bystanders()
    else:
        after = stage.bystanders()
        outcome = outcome_of(partial(result.get, TIMEOUT), way)
    assert outcome == CELLS[place][way]
    stage.check(before + after)


@cells_of("callback", "error_callback")
def test_callback(stage: Stage, place: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that raises is reported; its result and all others arrive."""
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    before = stage.bystanders()
    task = ("Exception",) if place == "error_callback" else ("",)
    result = stage.pool.apply_async(s.act_or_take, task, **{place: lambda _: s.act(way)})
    after = stage.bystanders()
    if place == "callback":
        assert result.get(TIMEOUT) == "taken"
    else:
        with pytest.raises(s.Failure):
            result.get(TIMEOUT)
    stage.check(before + after)
    assert [hook.exc_type for hook in reported] == [s.RAISES[way]]
    assert CELLS[place][way] == "reported"


@cells_of("initializer")
def test_initializer(stage: Stage, place: str, way: str) -> None:
    """A pool whose workers fail at their start breaks, and says why to every caller."""
    with stage.context.Pool(1, s.act, (way,)) as pool:
        early = pool.apply_async(s.take, (0,))
        assert outcome_of(partial(early.get, TIMEOUT), way) == CELLS[place][way]
        late = pool.map_async(s.take, range(3))
        assert outcome_of(partial(late.get, TIMEOUT), way) == CELLS[place][way]
    pool.join()
    stage.check(stage.bystanders())


@cells_of("idle")
def test_idle(stage: Stage, place: str, way: str, eventually: Any) -> None:
    """What a thread that a task left behind does to an idle worker harms no task."""
    fifo = str(stage.folder / f"fifo {way}")
    os.mkfifo(fifo)
    victim = stage.pool.apply_async(s.leave_thread, (fifo, way)).get(TIMEOUT)
    with open(fifo) as reader:
        assert reader.read() == ""  # it is over
    if CELLS[place][way] == "replaced":
        eventually(lambda: victim not in stage.workers(), "the worker is replaced", TIMEOUT)
    stage.check(stage.bystanders())
    assert (victim in stage.workers()) == (CELLS[place][way] == "fine")


@cells_of("dropped pool")
def test_dropped_pool(stage: Stage, place: str, way: str, eventually: Any) -> None:
    """A pool that is dropped with its task under way gives that task's outcome, and goes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the standard library's: not closed
        pool = stage.context.Pool(1)
        before = stage.bystanders(pool)
        result = pool.apply_async(s.act, (way,))
        after = stage.bystanders(pool)
        reference = weakref.ref(pool)
        del pool
        assert outcome_of(partial(result.get, TIMEOUT), way) == CELLS[place][way]
        stage.check(before + after)
        del before, after, result
        eventually(lambda: reference() is None, "the pool is collected", TIMEOUT)


# The other ways to submit, for the place "call": item BAD of ITEMS fails.

ITEMS, BAD, CHUNK = 20, 7, 5


class Seen(NamedTuple):
    """What the caller sees, and which items were run."""

    before: set[int]  # values that come before the error; of imap_unordered: at any time
    after: set[int]  # values that come after it
    ran: set[int]  # each once; the others never


ALL = set(range(ITEMS)) - {BAD}
# A chunk is one task: of the chunk with the bad item, those before it ran and those behind did not.
RAN = ALL - {8, 9}
SEEN = {
    ("map", 1): Seen(set(), set(), ALL),
    ("map", CHUNK): Seen(set(), set(), RAN),
    ("starmap", 1): Seen(set(), set(), ALL),
    ("starmap", CHUNK): Seen(set(), set(), RAN),
    ("imap", 1): Seen(set(range(7)), set(range(8, 20)), ALL),
    ("imap", CHUNK): Seen(set(range(5)), set(), RAN),
    ("imap_unordered", 1): Seen(ALL, set(), ALL),
    # An iterator over items ends with its first error, as in multiprocessing; what came before it
    # depends on who was quicker.
    ("imap_unordered", CHUNK): Seen(ALL - {5, 6, 8, 9}, set(), RAN),
}


def _read(results: Any, way: str) -> tuple[list[int], str, list[int]]:
    """(values before the error, the error in the table's words, values after it)."""
    parts: list[list[int]] = [[], []]
    outcome = "no error"
    while True:
        try:
            parts[outcome != "no error"].append(results.next(TIMEOUT))
        except StopIteration:
            return parts[0], outcome, parts[1]
        except BaseException as error:
            assert outcome == "no error", f"a second error: {error!r}"
            outcome = outcome_of(partial(s.raise_, error), way)


@pytest.mark.parametrize("way", s.WAYS_THAT_RETURN)
@pytest.mark.parametrize(("submit", "chunksize"), SEEN)
def test_many(stage: Stage, submit: str, chunksize: int, way: str, eventually: Any) -> None:
    """An item that fails takes its chunk with it and nothing else."""
    path = str(stage.folder / f"{submit} {chunksize} {way}")
    items = [(path, i, way if i == BAD else "") for i in range(ITEMS)]
    seen = SEEN[submit, chunksize]
    before = stage.bystanders()
    if submit in ("map", "starmap"):
        function = s.record_or_act if submit == "starmap" else s.record_or_act_star
        result = getattr(stage.pool, f"{submit}_async")(function, items, chunksize)
        after = stage.bystanders()
        assert outcome_of(partial(result.get, TIMEOUT), way) == CELLS["call"][way]
    else:
        iterator = getattr(stage.pool, submit)(s.record_or_act_star, items, chunksize)
        after = stage.bystanders()
        if chunksize > 1:
            iterator = _Generator(iterator)
        first, outcome, second = _read(iterator, way)
        assert outcome == CELLS["call"][way]
        if submit == "imap":
            assert first == sorted(seen.before) and second == sorted(seen.after)
        elif chunksize == 1:
            assert sorted(first + second) == sorted(seen.before)
        else:
            assert set(first) <= seen.before and not second
    stage.check(before + after)
    eventually(lambda: len(s.records(path)) >= len(seen.ran), "all other chunks ran", TIMEOUT)
    assert sorted(number for number, _ in s.records(path)) == sorted(seen.ran)


class _Generator:
    """With chunks, imap gives a generator, which has no next(timeout)."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def next(self, timeout: float) -> Any:
        return next(self._generator)


def test_table_is_whole() -> None:
    """Every place has an outcome for every way."""
    assert all(set(row) == set(s.WAYS_THAT_RETURN) for row in CELLS.values()), CELLS
    known = {"itself", "bare", "caller", "lost", "encoding", "remote", "reported", "fine"}
    known |= {"replaced", "broken", "-"}
    assert {outcome for row in CELLS.values() for outcome in row.values()} == known
