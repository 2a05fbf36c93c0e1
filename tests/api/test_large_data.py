# SPDX-License-Identifier: MIT
"""Large data: whatever goes to a worker and comes back is what the standard library makes of it.

On an interpreter whose default pickle protocol is 4, the standard library copies everything into
the pickle; gopool leaves large buffers out of it. What arrives must not show the difference,
except that a large array does not own its memory.
"""

from __future__ import annotations

import array
import gc
import multiprocessing
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import reduction
from typing import Any

import numpy as np
import pandas as pd
import pytest

import functions as f
import gopool
from gopool._worker import bulk, mapping, pickling, regions, warm

TIMEOUT = 60  # seconds for any one result
N = 2 * pickling.LEAST_BUFFER  # bytes or more in everything that is large here


class Blocks(np.ndarray):
    """A subclass of numpy's array."""


def _read_only(values: Any) -> Any:
    values.flags.writeable = False
    return values


def _records() -> Any:
    kind = np.dtype([("a", "<i4"), ("b", "S3"), ("c", "<f8", (2,))])
    return np.zeros(N // kind.itemsize + 1, kind)


def _object_array() -> Any:
    values = np.empty(N // 8, object)
    values[:] = "x"
    values[3] = [1, 2]
    return values


LONG = np.arange(N // 8 + 3)
ROWS = 20_000
FRAME = {
    "n": np.arange(ROWS),
    "x": np.linspace(0, 1, ROWS),
    "s": [f"row {i}" for i in range(ROWS)],
    "t": pd.date_range("2020-01-01", periods=ROWS, freq="s"),
    "c": pd.Categorical(["a", "b"] * (ROWS // 2)),
}

# What is built in each test anew, by name.
OBJECTS: dict[str, Any] = {
    "small": lambda: np.arange(10),
    "small, read-only": lambda: _read_only(np.arange(10)),
    "one dimension": LONG.copy,
    "read-only": lambda: _read_only(LONG.copy()),
    "C order": lambda: LONG[: N // 8].reshape(64, -1),
    "Fortran order": lambda: np.asfortranarray(LONG[: N // 8].reshape(64, -1)),
    "transposed": lambda: LONG[: N // 8].reshape(4, 8, -1).transpose(2, 0, 1),
    "a slice": lambda: np.arange(N)[10:-10],
    "every second": lambda: np.arange(N)[::2],
    "backwards": lambda: np.arange(N)[::-1],
    "columns": lambda: np.arange(2 * N).reshape(-1, 8)[:, 2:5],
    "broadcast": lambda: np.broadcast_to(np.arange(N), (3, N)),
    "big-endian": lambda: LONG.astype(">i8"),
    "bool": lambda: np.ones(N, bool),
    "complex": lambda: np.ones(N, complex),
    "float16": lambda: np.ones(N, np.float16),
    "datetime": lambda: np.zeros(N, "M8[ns]"),
    "str": lambda: np.full(N, "\u00e4b"),
    "bytes": lambda: np.full(N, b"abc"),
    "records": _records,
    "objects": _object_array,
    "subclass": lambda: LONG.view(Blocks),
    "matrix": lambda: np.ma.masked_array(LONG, LONG % 2),
    "empty": lambda: np.empty((0, N)),
    "no dimension": lambda: np.array(5.0),
    "scalar": lambda: np.float32(1.5),
    "bytes object": lambda: b"x" * N,
    "bytearray": lambda: bytearray(b"y" * N),
    "non-ASCII str": lambda: "\u00e4\u20ac\U0001f600" * N,
    "str with surrogates": lambda: "\udc80" * N,
    "array.array": lambda: array.array("d", [1.5]) * N,
    "huge bytes": lambda: b"z" * (mapping.LEAST_HUGE + 1),
    "nested": lambda: {"a": [LONG, (b"x" * N, {1: LONG * 2})], "b": bytearray(N)},
    "series": lambda: pd.Series(np.arange(ROWS), name="s"),
    "frame": lambda: pd.DataFrame(FRAME),
    "frame, transposed": lambda: pd.DataFrame(np.arange(N).reshape(8, -1)).T,
}


def describe(obj: Any) -> Any:
    """All that can be told of an object, but for who owns its memory."""
    if isinstance(obj, np.ma.MaskedArray):
        return "masked", describe(obj.data), describe(obj.mask)
    if isinstance(obj, np.ndarray):
        flags = obj.flags
        kinds = (flags.c_contiguous, flags.f_contiguous, flags.writeable, flags.aligned)
        values = obj.tolist() if obj.dtype.hasobject else obj.tobytes()
        return type(obj).__name__, obj.dtype.str, obj.dtype.descr, obj.shape, kinds, values
    if isinstance(obj, pd.DataFrame):
        columns = [describe(obj[name]) for name in obj.columns]
        return "frame", columns, [str(kind) for kind in obj.dtypes]
    if isinstance(obj, pd.Series):
        return "series", obj.name, str(obj.dtype), obj.tolist(), obj.index.tolist()
    if isinstance(obj, dict):
        return {key: describe(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return type(obj).__name__, [describe(item) for item in obj]
    return type(obj).__name__, obj


def same(one: Any, other: Any) -> bool:
    """Whether it is one object, in this process."""
    return one is other


def describe_and_return(obj: Any) -> tuple[Any, Any]:
    return describe(obj), obj


@pytest.fixture
def pools() -> Iterator[tuple[Any, Any]]:
    """A pool of the standard library's and one of gopool's, both by fork."""
    with (
        multiprocessing.get_context("fork").Pool(1) as theirs,
        gopool.get_context("fork").Pool(1) as ours,
    ):
        yield theirs, ours
        for pool in (theirs, ours):
            pool.close()
            pool.join()


@pytest.mark.parametrize("name", OBJECTS)
def test_objects(pools: Any, name: str) -> None:
    """Each kind of object arrives in the worker, and comes back, as in the standard library."""
    theirs, ours = (pool.apply(describe_and_return, (OBJECTS[name](),)) for pool in pools)
    assert ours[0] == theirs[0]
    assert describe(ours[1]) == describe(theirs[1])
    assert type(ours[1]) is type(theirs[1])


def test_start_methods(pool: Any) -> None:
    """Large data travels under every start method, both ways and through every call."""
    values = np.arange(N)
    items = [np.full(N, number) for number in range(5)]
    assert (pool.apply(f.identity, (values,)) == values).all()
    assert [int(item[0]) for item in pool.map(f.identity, items, 2)] == [0, 1, 2, 3, 4]
    assert [int(item[-1]) for item in pool.imap(f.identity, items)] == [0, 1, 2, 3, 4]
    assert pool.apply(len, (b"x" * 1_000_000,)) == 1_000_000


@pytest.mark.parametrize("name", ["memoryview", "not contiguous"])
def test_errors(pools: Any, name: str) -> None:
    """What does not pickle fails with the standard library's exception."""
    obj: Any = memoryview(b"x" * N)
    if name == "not contiguous":
        obj = pickle.PickleBuffer(np.arange(N)[::2])
    errors = []
    for pool in pools:
        with pytest.raises((TypeError, pickle.PicklingError, BufferError)) as caught:
            pool.apply(f.identity, (obj,))
        errors.append(type(caught.value))
    if name == "memoryview":
        assert errors[0] is errors[1]


@pytest.mark.parametrize("size", [1_000, N])
def test_pickle_buffer(pools: Any, size: int) -> None:
    """A bare PickleBuffer, which the standard library refuses below protocol 5, arrives as its
    bytes.
    """
    result = pools[1].apply(bytes, (pickle.PickleBuffer(bytearray(b"x" * size)),))
    assert result == b"x" * size


class Wrapper:
    """The documentation's example of protocol 5: rebuilt from the `obj` of what arrives."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: int) -> Any:
        if protocol >= 5:
            return type(self)._rebuild, (pickle.PickleBuffer(self.data),)
        return type(self)._rebuild, (bytearray(self.data),)

    @classmethod
    def _rebuild(cls, obj: Any) -> Wrapper:
        with memoryview(obj) as view:
            return cls(bytearray(view.obj))


def test_object_behind_a_buffer(pools: Any) -> None:
    """The `obj` of a buffer's memoryview is that buffer alone, not all that came with it."""
    one, other = Wrapper(bytearray(b"1" * N)), Wrapper(bytearray(b"2" * (N + 1)))
    result = pools[1].apply(f.identity, ([one, other],))
    assert [item.data for item in result] == [one.data, other.data]


def test_aliasing(pools: Any) -> None:
    """One array twice in a task is one array there; in two tasks it is two."""
    values = np.arange(N)
    _, ours = pools
    assert ours.apply(same, (values, values))
    first, second = ours.apply(f.identity, ([values, values],))
    assert first is second
    pool_map = ours.map(f.identity, [values] * 4, 2)
    assert pool_map[0] is pool_map[1] is not pool_map[2]
    pool_map[0][:] = 0
    assert (pool_map[2] == values).all()
    assert (values == np.arange(N)).all()


def add_one(values: Any) -> int:
    values += 1
    return int(values[0])


def test_arguments_are_the_workers_own(pools: Any) -> None:
    """A worker that writes to its argument changes neither the caller's, nor the next task's."""
    values = np.zeros(N)
    _, ours = pools
    assert [ours.apply(add_one, (values,)) for _ in range(3)] == [1, 1, 1]
    assert ours.map(add_one, [values] * 4, 1) == [1, 1, 1, 1]
    assert ours.map(add_one, [values] * 4, 2) == [1, 2, 1, 2]  # as in the standard library
    assert not values.any()


def test_argument_may_change_after_the_call(pools: Any) -> None:
    """What apply_async was given may be written to as soon as it returns."""
    values = np.zeros(N)
    results = []
    for number in range(6):
        values[:] = number
        results.append(pools[1].apply_async(f.identity, (values,)))
    assert [int(r.get(TIMEOUT)[0]) for r in results] == list(range(6))


def refilled(count: int) -> Iterator[Any]:
    values = np.zeros(N)
    for number in range(count):
        values[:] = number
        yield values


def test_generator_that_refills_one_buffer(pools: Any) -> None:
    """imap pickles each item before it draws the next, large or not."""
    got = [int(item[-1]) for item in pools[1].imap(f.identity, refilled(20))]
    assert got == list(range(20))
    got = sorted(int(item[0]) for item in pools[1].imap_unordered(f.identity, refilled(20)))
    assert got == list(range(20))


class Refilled:
    """A sequence that makes each item in one buffer when it is asked for."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._values = np.zeros(N)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        for number in range(self._count):
            self._values[:] = number
            yield self._values


def test_sequence_that_refills_one_buffer(pools: Any) -> None:
    """map() takes the items of such a sequence as the standard library does, one by one."""
    assert [int(item[0]) for item in pools[1].map(f.identity, Refilled(6), 1)] == list(range(6))


class Holder:
    """Pickled by its attributes."""

    def __init__(self, values: Any) -> None:
        self.values = values


class Filling(Holder):
    """Writes to a buffer, which others have too, when it is pickled."""

    def __init__(self, number: int) -> None:
        super().__init__(SHARED)
        self.number = number

    def __reduce__(self) -> Any:
        self.values[:] = self.number
        return Holder, (self.number,)


class FillingState(Filling):
    """Likewise, and takes the buffer with it."""

    def __reduce__(self) -> Any:
        self.values[:] = self.number
        return Holder, (self.values,)


class FillingItems(dict):  # type: ignore[type-arg]
    """Likewise, while its items are asked for."""

    def __init__(self, number: int) -> None:
        self.number = number

    def items(self) -> Any:
        SHARED[:] = self.number
        return iter([("values", SHARED)])

    @property
    def values(self) -> Any:  # type: ignore[override]
        return self["values"]


SHARED = np.zeros(N)


@pytest.mark.parametrize("kind", [Filling, FillingState, FillingItems])
@pytest.mark.parametrize("with_buffer", [True, False])
def test_pickling_that_refills_one_buffer(pools: Any, kind: Any, with_buffer: bool) -> None:
    """Nor does map() take a buffer for the one that it sent before, where code of the user's ran
    while the items were pickled.
    """
    got = []
    for pool in pools:
        SHARED[:] = 0
        items: Any = [(kind(number),) for number in range(1, 6)]
        if with_buffer:
            items = [(number, Holder(SHARED)) for number in range(2)] + [
                (*item, Holder(SHARED)) for item in items
            ]
        got.append(pool.starmap(ends_of_all, items, 1))
    assert got[0] == got[1]


def ends_of_all(*items: Any) -> list[list[float]]:
    return [np.ravel(getattr(item, "values", item))[[0, -1]].tolist() for item in items]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that this process writes into regions, one entry for each time."""
    sizes: list[int] = []
    write, copy = bulk.write_all, bulk.copy_all

    def counted(fd: int, views: Any, position: int = 0) -> None:
        sizes.append(sum(map(len, views)))
        write(fd, views, position)

    def copied(memory: Any, views: Any) -> None:
        sizes.append(sum(map(len, views)))
        copy(memory, views)

    monkeypatch.setattr(bulk, "write_all", counted)
    monkeypatch.setattr(bulk, "copy_all", copied)
    return sizes


def head_and_add(values: Any, number: int) -> int:
    """Writes to its argument, which nobody else must see."""
    values[0] += 1
    return int(values[0]) * 100 + int(values[-1]) + number


@pytest.mark.parametrize("chunksize", [1, 2, None])
def test_map_sends_a_buffer_once(pools: Any, written: list[int], chunksize: int | None) -> None:
    """One array in many tasks of a map or starmap call is written once; each task has it to
    itself, and the next call, after a change, sees the change.
    """
    values = np.zeros(N)
    for number in (0, 7):
        written.clear()
        values[-1] = number
        items = [(values, i) for i in range(12)]
        got = pools[1].starmap(head_and_add, items, chunksize)
        assert got == pools[0].starmap(head_and_add, items, chunksize)
        assert values.nbytes <= sum(written) < 2 * values.nbytes
    written.clear()
    assert pools[1].map(len, [values] * 5, chunksize) == [N] * 5
    assert sum(written) < 2 * values.nbytes


def test_map_of_different_and_equal_buffers(pools: Any, written: list[int]) -> None:
    """Tasks whose buffers differ, are partly the same, or are views of one array."""
    one, two = np.full(N, 1), np.full(N, 2)
    items = [[one], [one, two], [two], [one[::2], one], [one[: N // 2]], [one[: N // 2]]]
    items += [[np.full(N, number)] for number in range(3)] + [[two, two]]
    got = pools[1].map(f.identity, items, 1)
    for result, item in zip(got, items, strict=True):
        assert all((a == b).all() for a, b in zip(result, item, strict=True))
    assert got[-1][0] is got[-1][1]


@pytest.mark.parametrize("name", ["imap", "imap_unordered", "apply_async"])
def test_others_send_each_time(pools: Any, written: list[int], name: str) -> None:
    """imap and apply never take a buffer for the one that they sent before."""
    values = np.zeros(N)
    if name == "apply_async":
        results = [pools[1].apply_async(len, (values,)) for _ in range(4)]
        assert [result.get(TIMEOUT) for result in results] == [N] * 4
    else:
        assert list(getattr(pools[1], name)(len, [values] * 4)) == [N] * 4
    assert sum(written) >= 4 * values.nbytes


def test_map_beyond_the_budget(pools: Any, written: list[int]) -> None:
    """So does a call whose tasks wait in the backlog, and nothing is left of it afterwards."""
    values = np.zeros(20_000_000, np.uint8)
    result = pools[1].map_async(len, [values] * 12, 1)
    assert result.get(TIMEOUT) == [len(values)] * 12
    assert sum(written) < 2 * values.nbytes
    assert not pools[1]._engine._submitter._sharings


def stay(values: Any) -> None:
    """Never returns."""
    threading.Event().wait()


def test_map_that_is_terminated() -> None:
    """A call whose tasks are dropped leaves no region."""
    with gopool.get_context("fork").Pool(1) as pool:
        values = np.zeros(40_000_000, np.uint8)
        pool.map_async(stay, [values] * 12, 1)
        submitter = pool._engine._submitter
    pool.join()
    gc.collect()
    assert not submitter._sharings
    assert not warm._kept


def test_results_are_the_callers_own(pools: Any) -> None:
    """Results that are kept are never overwritten by later ones, and can be written."""
    kept = [pools[1].apply(np.full, (N, number)) for number in range(40)]
    for number, values in enumerate(kept):
        assert (values == number).all()
        values += 1
    assert all((values == number + 1).all() for number, values in enumerate(kept))


_registered: list[int] = []


def _reduce_registered(values: Any) -> Any:
    _registered.append(values.nbytes)
    return np.full, (3, 7)


def test_registered_reducer_wins(
    monkeypatch: pytest.MonkeyPatch, pools: Any
) -> None:
    """A reducer registered with ForkingPickler for numpy's array is used, however large."""
    extra: Any = reduction.ForkingPickler
    values = np.zeros(N)
    assert pools[1].apply(len, (values,)) == N
    monkeypatch.setitem(extra._extra_reducers, np.ndarray, _reduce_registered)
    assert pools[1].apply(len, (values,)) == 3
    assert _registered == [values.nbytes]
    monkeypatch.undo()
    assert pools[1].apply(len, (values,)) == N


ARROW = [
    "array",
    "chunked array",
    "table",
    "strings",
]


@pytest.mark.parametrize("name", ARROW)
def test_arrow(pools: Any, written: list[int], name: str) -> None:
    """Arrow's objects travel beside the pickle, both ways, and are equal to what was sent."""
    arrow = pytest.importorskip("pyarrow", reason="pip install pyarrow: a large package")
    column = arrow.array(np.arange(N))
    obj = {
        "array": column,
        "chunked array": arrow.chunked_array([column, column[: N // 2]]),
        "table": arrow.table({"n": column, "s": [str(i) for i in range(N)]}),
        "strings": arrow.array([f"string {i}" for i in range(N)]),
    }[name]
    mapped = len(mapping._live)
    result = pools[1].apply(f.identity, (obj,))
    assert result.equals(obj)
    assert type(result) is type(obj)
    assert sum(written) > N
    assert len(mapping._live) == mapped + 1  # its memory is the region
    del result
    gc.collect()
    assert len(mapping._live) == mapped


PROGRAM = """
import multiprocessing, sys
import numpy as np
import functions as f

def tell(values):
    flags = values.flags
    values[0] += 1  # it may be written to
    return type(values).__name__, str(values.dtype), values.shape, flags.writeable, int(values[0])

if __name__ == "__main__":
    {install}
    multiprocessing.set_start_method("{method}")
    with multiprocessing.Pool(2) as pool:
        values = np.arange(200_000).reshape(-1)
        print(pool.apply(tell, (values,)), pool.map(tell, [values] * 3))
        for obj in values, b"x" * 500_000, bytearray(500_000), "y" * 500_000, [values] * 2:
            back = pool.apply(f.identity, (obj,))
            print(type(back).__name__, len(back), back is obj)
            for item in back if isinstance(back, list) else ():
                print(tell(item))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_installed(tmp_path: Any, method: str) -> None:
    """A program under install() sees the types, and writes to the arrays, that it knows."""
    plain = f.run_script(tmp_path, PROGRAM.format(install="", method=method))
    install = "import gopool; gopool.install()"
    ours = f.run_script(tmp_path, PROGRAM.format(install=install, method=method))
    assert plain.returncode == 0, plain.stderr
    f.assert_silent_success(ours, plain.stdout)


class OldPickler(pickle.Pickler):
    """What somebody may put in ForkingPickler's place: no protocol 5, no buffer_callback."""

    _extra_reducers: dict[type, Any] = {}

    def __init__(self, file: Any, protocol: int | None = None) -> None:
        super().__init__(file, 4)

    @classmethod
    def dumps(cls, obj: Any, protocol: int | None = None) -> Any:
        return memoryview(pickle.dumps(obj, 4))


def test_other_pickler(monkeypatch: pytest.MonkeyPatch, pools: Any) -> None:
    """Another class in ForkingPickler's place gets what it takes, and large data still travels."""
    monkeypatch.setattr(reduction, "ForkingPickler", OldPickler)
    values = np.arange(N)
    assert (pools[1].apply(f.identity, (values,)) == values).all()


def test_large_exception(pools: Any) -> None:
    """An exception that carries a large array arrives with it."""
    with pytest.raises(ValueError) as caught:
        pools[1].apply(f.raise_it, (ValueError(np.arange(N)),))
    assert (caught.value.args[0] == np.arange(N)).all()


def test_nothing_is_kept_after_the_pool() -> None:
    """Regions kept for later go with the last pool; results live on."""
    gc.collect()  # pools that other tests dropped
    pool = gopool.get_context("fork").Pool(1)
    result = pool.apply(f.identity, (np.arange(N),))
    assert warm._kept
    pool.close()
    pool.join()
    assert not warm._kept
    assert (result == np.arange(N)).all()


def mapped_after(rounds: int) -> int:
    """Send some large results' worth, and count what stays mapped."""
    for _ in range(rounds):
        large = pickle.PickleBuffer(bytearray(4 << 20))
        fd, _ = regions.write([b"", pickling.Buffers((large,))])
        warm.close(fd)
    return len(warm._mapped)


def test_watched_memory() -> None:
    """A worker whose resident memory is limited keeps nothing mapped that would count."""
    context = gopool.get_context("fork")
    with context.Pool(1) as free, context.Pool(1, worker_memory_limit=1 << 34) as watched:
        assert free.apply(mapped_after, (3,)) == 1
        assert watched.apply(mapped_after, (3,)) == 0


SMALL_ONLY = """
import sys, gopool

def loaded(_):
    return [name for name in sys.modules if name.endswith((".regions", ".warm", "_sharing"))]

if __name__ == "__main__":
    with gopool.get_context("fork").Pool(1) as pool:
        print(pool.map(loaded, [1, 2]), loaded(0))
"""


def test_small_tasks_load_nothing_of_it() -> None:
    """A program's first result does not wait for what only large data needs."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL_ONLY], capture_output=True, text=True, timeout=TIMEOUT, cwd="/"
    )
    assert (done.stdout, done.stderr) == ("[[], []] []\n", "")


NO_NUMPY = """
import sys, gopool
if __name__ == "__main__":
    with gopool.get_context("fork").Pool(1) as pool:
        assert pool.apply(len, (b"x" * 200_000,)) == 200_000
        assert len(pool.apply(bytes, (200_000,))) == 200_000
    print([name for name in ("numpy", "ctypes") if name in sys.modules])
"""


def test_what_is_loaded() -> None:
    """Payloads of some hundred kilobytes load neither numpy nor ctypes."""
    done = subprocess.run(
        [sys.executable, "-c", NO_NUMPY], capture_output=True, text=True, timeout=TIMEOUT, cwd="/"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_default_timeout_of_sockets(start_method: str) -> None:
    """It is for the program's sockets: a worker waits for its tasks as long as it takes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.05)
    try:
        with gopool.get_context(start_method).Pool(1) as pool:
            pool.apply(socket.setdefaulttimeout, (0.05,))  # under spawn a worker has its own
            pid = pool.apply(f.pid)
            assert pool.apply(bytes, (N,)) == bytes(N)
            threading.Event().wait(0.1)  # idle for longer than the timeout
            assert pool.apply(f.pid) == pid
    finally:
        socket.setdefaulttimeout(before)


LARGE_RESULTS = """
import sys
import gopool

if __name__ == "__main__":
    with gopool.get_context(sys.argv[1]).Pool(2) as pool:
        print(sum(map(len, pool.map(bytes, [1 << 20] * 8, 1))))
        pool.close()
        pool.join()
"""


def test_no_warning_of_a_worker_that_sent_large_results(tmp_path: Any, start_method: str) -> None:
    """In Python's development mode, which tells of sockets that nobody has closed."""
    done = f.run_script(tmp_path, LARGE_RESULTS, start_method, flags=("-X", "dev"))
    f.assert_silent_success(done, f"{8 << 20}\n")
