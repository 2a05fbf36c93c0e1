# SPDX-License-Identifier: MIT
"""The Pool API, by start method."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from multiprocessing import pool as stdlib
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _core
from gopool import pool as gopool_pool


def test_apply(pool: Any) -> None:
    """apply returns what the function returns, keywords included."""
    assert pool.apply(f.add, (1,), {"y": 2, "z": 4}) == 7
    assert pool.apply(f.pid) != os.getpid()


def test_map_family(pool: Any) -> None:
    """Every map gives the results of the builtin, whatever the chunks."""
    expected = [x * x for x in range(50)]
    for chunksize in (None, 1, 7, 100):
        assert pool.map(f.square, range(50), chunksize) == expected
        assert pool.map_async(f.square, iter(range(50)), chunksize).get() == expected
    for chunksize in (1, 7):
        assert list(pool.imap(f.square, range(50), chunksize)) == expected
        assert sorted(pool.imap_unordered(f.square, range(50), chunksize)) == expected
    assert pool.starmap(f.add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap_async(f.add, [(1, 2), (3, 4)]).get() == [3, 7]


def test_empty_maps(pool: Any) -> None:
    """A map over nothing is an empty list at once."""
    assert pool.map(f.square, []) == []
    assert list(pool.imap(f.square, [])) == []
    assert pool.map_async(f.square, []).ready()


def test_async_result(pool: Any, tmp_path: Any) -> None:
    """ready, successful, wait and get answer as in the standard library, before and after."""
    release = str(tmp_path / "release")
    result = pool.apply_async(f.wait_for, (release,))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    result.wait(timeout=0.01)
    assert not result.ready()
    open(release, "w").close()
    assert result.get(timeout=30) is True
    assert result.ready()
    assert result.successful()
    assert isinstance(result, stdlib.AsyncResult)


def test_results_take_attributes_and_weak_references(pool: Any) -> None:
    """Programs hang their own attributes on results, and refer to them weakly."""
    result = pool.apply_async(f.square, (2,))
    result.note = "mine"
    assert weakref.ref(result)() is result
    assert result.get() == 4


def test_remote_traceback(pool: Any) -> None:
    """An exception arrives as itself, with the worker's traceback as its cause."""
    with pytest.raises(ValueError) as caught:
        pool.apply(f.fail, (5,))
    assert caught.value.args == (5,)
    assert type(caught.value.__cause__) is stdlib.RemoteTraceback
    assert "# the line that a remote traceback shows" in str(caught.value.__cause__)


def test_chained_exception(pool: Any) -> None:
    """The text of the cause holds the whole chain of the worker's exceptions."""
    with pytest.raises(RuntimeError) as caught:
        pool.apply(f.chained)
    assert "KeyError: 'inner'" in str(caught.value.__cause__)


def test_map_waits_for_all_on_error(pool: Any) -> None:
    """A map with a failing item raises its error after all chunks were run."""
    with pytest.raises(ValueError, match="3"):
        pool.starmap(f.fail_at, [(x, 3) for x in range(10)], chunksize=1)


def test_callbacks(pool: Any) -> None:
    """A callback has run before get() returns, in one thread, with value or error."""
    seen: list[Any] = []
    pool.apply_async(f.square, (3,), callback=seen.append).get()
    assert seen == [9]
    with pytest.raises(ValueError):
        pool.apply_async(f.fail, (1,), error_callback=seen.append).get()
    assert isinstance(seen[1], ValueError)
    pool.map_async(f.square, range(3), callback=seen.append).get()
    assert seen[2] == [0, 1, 4]


def test_arguments_are_independent_copies(pool: Any) -> None:
    """One object given to two tasks arrives as two, within one chunk as one."""
    shared: list[int] = []
    results = [pool.apply_async(f.append_one, (shared,)) for _ in range(3)]
    assert [len(r.get()) for r in results] == [1, 1, 1]
    chunked = pool.map(f.append_one, [shared] * 3, chunksize=3)
    assert [len(items) for items in chunked] == [3, 3, 3]
    assert shared == []


def test_lambda_under_fork_as_initializer() -> None:
    """Initializer and its arguments are process arguments: under fork lambdas and locks go."""
    lock = multiprocessing.get_context("fork").Lock()
    with gopool.get_context("fork").Pool(1, lambda x: f.remember(x.acquire()), (lock,)) as pool:
        assert pool.apply(f.remembered) is True


def test_initializer(context: Any) -> None:
    """The initializer runs in each worker before its first task."""
    with context.Pool(2, f.remember, ("value",)) as pool:
        assert pool.map(f.identity, [1, 2]) == [1, 2]
        assert pool.apply(f.remembered) == "value"


def test_maxtasksperchild(context: Any) -> None:
    """A worker does so many tasks and is replaced; nothing is lost."""
    with context.Pool(1, maxtasksperchild=2) as pool:
        pids = pool.map(f.pid, range(6), chunksize=1)
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]


def test_close_runs_what_was_submitted(context: Any) -> None:
    """After close() nothing is taken, what was taken is done, and join() returns."""
    pool = context.Pool(2)
    results = [pool.apply_async(f.square, (x,)) for x in range(20)]
    pool.close()
    for call in (pool.apply, pool.apply_async, pool.map, pool.imap):
        with pytest.raises(ValueError, match="Pool not running"):
            call(f.square, (1,))
    pool.join()
    assert [r.get(0) for r in results] == [x * x for x in range(20)]
    assert [p.exitcode for p in pool._pool] == []


def test_terminate_ends_every_wait(context: Any, tmp_path: Any) -> None:
    """terminate() fails what is not done, at once, and calls no callback."""
    pool = context.Pool(1)
    called: list[Any] = []
    never = str(tmp_path / "never")
    running = pool.apply_async(f.wait_for, (never,), error_callback=called.append)
    mapped = pool.map_async(f.wait_for, [never] * 3, chunksize=1)
    iterator = pool.imap(f.wait_for, [never] * 3)
    pool.terminate()
    for result in (running, mapped):
        with pytest.raises(gopool.PoolTerminatedError, match="close"):
            result.get(timeout=5)
    with pytest.raises(gopool.PoolTerminatedError):
        iterator.next(timeout=5)
    with pytest.raises(StopIteration):
        iterator.next(timeout=5)
    pool.join()
    assert called == []


def test_idle_workers_end_normally(context: Any, tmp_path: Any) -> None:
    """What an idle worker had printed is not lost at terminate()."""
    output = tmp_path / "output"
    pool = context.Pool(1, f.print_to, (str(output),))
    pool.apply(print, ("from the worker",))
    workers = list(pool._pool)
    pool.terminate()
    pool.join()
    assert [w.exitcode for w in workers] == [0]
    assert output.read_text() == "from the worker\n"


def test_join_before_close(pool: Any) -> None:
    """join() of a running pool is refused."""
    with pytest.raises(ValueError, match="Pool is still running"):
        pool.join()


@pytest.mark.parametrize("size", [0, -1])
def test_wrong_size(size: int) -> None:
    """A pool has at least one process."""
    with pytest.raises(ValueError, match="at least 1"):
        gopool.Pool(size)


@pytest.mark.parametrize("maxtasks", [0, -1, 0.5, "12"])
def test_wrong_maxtasks(maxtasks: Any) -> None:
    """maxtasksperchild is a positive int or None."""
    with pytest.raises(ValueError, match="positive int or None"):
        gopool.Pool(1, maxtasksperchild=maxtasks)


def test_wrong_initializer() -> None:
    """An initializer that can't be called is refused."""
    with pytest.raises(TypeError, match="initializer must be a callable"):
        gopool.Pool(1, initializer=1)


def test_wrong_chunksize(pool: Any) -> None:
    """imap refuses chunks of less than one item at the call."""
    with pytest.raises(ValueError, match=r"Chunksize must be 1\+, not 0"):
        pool.imap(f.square, [1], 0)


def test_pool_and_results_do_not_pickle(pool: Any) -> None:
    """As in the standard library."""
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)


@pytest.mark.filterwarnings("ignore:unclosed running:ResourceWarning")
def test_dropped_pool_and_result_still_run(tmp_path: Any, eventually: Any) -> None:
    """A task runs even if its pool and its result are dropped right after apply_async."""
    done, release = str(tmp_path / "done"), str(tmp_path / "release")
    pool = gopool.get_context("fork").Pool(1)
    pool.apply_async(f.touch_and_wait, (done, release))
    del pool
    gc.collect()
    eventually(lambda: os.path.exists(done), "the task began")
    open(release, "w").close()
    eventually(lambda: gc.collect() >= 0 and not multiprocessing.active_children(), "gone")


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is garbage before the test is gone, and the collector finds nothing during it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("end", ["join", "terminate"])
@pytest.mark.usefixtures("no_collection")
def test_ended_pool_is_freed_at_once(end: str) -> None:
    """No cycle keeps the engine and the threads of a pool that has ended: each later fork would
    have to tidy them up, in the child.
    """
    pool = gopool.get_context("fork").Pool(1)
    assert pool.apply_async(f.square, (3,), callback=str).get(60) == 9
    assert list(pool.imap(f.square, range(3))) == [0, 1, 4]
    parts = [pool, pool._engine, pool._worker_handler, pool._result_handler, pool._inqueue]
    references = [weakref.ref(part) for part in parts]
    if end == "join":
        pool.close()
    else:
        pool.terminate()
    pool.join()
    del pool, parts
    assert [reference() for reference in references] == [None] * 5


def test_unclosed_pool_warns() -> None:
    """A pool that is dropped while it runs says so, as in the standard library, and ends."""
    pool = gopool.get_context("fork").Pool(1)
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()


def test_pool_outlives_its_thread(context: Any) -> None:
    """A pool whose creating thread ended goes on."""
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(context.Pool(2)))
    thread.start()
    thread.join()
    with made[0] as pool:
        assert pool.map(f.square, range(5)) == [0, 1, 4, 9, 16]


def test_submit_while_pickling(pool: Any) -> None:
    """An argument whose pickling submits another task harms neither."""
    f.Submits.pool = pool
    f.Submits.results = []
    assert pool.apply(f.identity, (f.Submits(),)) == 0
    assert [r.get() for r in f.Submits.results] == [49]
    f.Submits.pool = None


def test_submit_from_a_callback(context: Any) -> None:
    """A callback of one pool may wait for another pool, and submit to its own."""
    with context.Pool(1) as one, context.Pool(1) as other:
        chain: list[Any] = []

        def callback(value: int) -> None:
            chain.append(other.apply(f.square, (value,)))
            chain.append(one.apply_async(f.square, (value + 1,)))

        one.apply_async(f.square, (2,), callback=callback).get()
        assert chain[0] == 16
        assert chain[1].get() == 25


def test_terminate_from_a_callback(context: Any) -> None:
    """terminate() inside a callback ends the pool."""
    pool = context.Pool(2)
    ended = threading.Event()

    def callback(_: Any) -> None:
        pool.terminate()
        ended.set()

    pool.apply_async(f.square, (1,), callback=callback)
    assert ended.wait(20)
    pool.join()


@pytest.mark.parametrize("size", [10, 59_990, 70_000, 5_000_000])
def test_payload_sizes(pool: Any, size: int) -> None:
    """Payloads of every way of travelling arrive whole, in both directions."""
    data = os.urandom(size)
    assert pool.apply(f.identity, (data,)) == data
    assert pool.map(f.identity, [data, data], chunksize=1) == [data, data]


def test_many_large_tasks(pool: Any) -> None:
    """More payload than the budget is taken at once, and all of it runs, in order."""
    block = bytes(3_000_000)
    results = [pool.apply_async(len, (block,)) for _ in range(60)]
    assert {r.get() for r in results} == {3_000_000}
    assert pool.map(len, [block] * 60, chunksize=1) == [3_000_000] * 60


def test_imap_draws_a_bounded_window(pool: Any, tmp_path: Any) -> None:
    """imap does not run ahead of its workers by more than its window."""
    drawn: list[int] = []
    never = str(tmp_path / "release")

    def endless() -> Any:
        while True:
            drawn.append(1)
            yield never

    iterator = pool.imap(f.wait_for, endless())
    feeder = next(t for t in threading.enumerate() if t.name == "gopool-imap")
    while len(drawn) < 64:
        feeder.join(0.01)
    feeder.join(0.1)
    assert len(drawn) == 64
    open(never, "w").close()
    assert next(iterator) is True
    pool.terminate()


def test_error_of_the_input(pool: Any) -> None:
    """An iterable that raises does so at its place, without a remote traceback."""

    def broken() -> Any:
        yield 1
        yield 2
        raise KeyError("input")

    for method in (pool.imap, pool.imap_unordered):
        for chunksize in (1, 2):
            iterator, results, errors = method(f.square, broken(), chunksize), [], []
            while not errors:
                try:
                    results.append(next(iterator))
                except KeyError as error:
                    errors.append(error)
            assert errors[0].__cause__ is None
            assert set(results) <= {1, 4}
            assert method == pool.imap_unordered or chunksize > 1 or results == [1, 4]
    with pytest.raises(KeyError):
        pool.map(f.square, broken())


def test_private_names(pool: Any) -> None:
    """What programs touch beyond the public API is there (docs/compatibility.md)."""
    assert len(pool._pool) == pool._processes == 2
    assert all(w.is_alive() and w.pid for w in pool._pool)
    assert {w.name.rsplit("-", 1)[0][-10:] for w in pool._pool} == {"PoolWorker"}
    assert pool._taskqueue.qsize() == 0
    assert not pool._cache
    assert pool._worker_handler._state == stdlib.RUN
    assert pool._ctx.Process
    pool._inqueue._rlock.release()
    pool._check_running()
    result = pool.map_async(f.square, range(4), chunksize=1)
    result.wait()
    assert result._number_left == 0
    assert not result._cache


def test_istarmap_recipe(pool: Any) -> None:
    """The patch that adds istarmap to Pool by private names works."""
    chunks = gopool_pool.Pool._get_tasks(f.add, [(1, 2), (3, 4), (5, 6)], 2)
    result = stdlib.IMapIterator(pool)
    pool._taskqueue.put(
        (
            pool._guarded_task_generation(result._job, stdlib.starmapstar, chunks),
            result._set_length,
        )
    )
    assert [item for chunk in result for item in chunk] == [3, 7, 11]


def test_endless_task_queue(pool: Any) -> None:
    """Tasks that are put into _taskqueue are drawn as workers keep up, and no more at the end."""
    drawn = [0]

    def endless() -> Any:
        while True:
            yield (-1, drawn[0], f.square, (drawn[0],), {})
            drawn[0] += 1

    pool._taskqueue.put((endless(), None))
    assert pool.apply(f.square, (3,)) == 9
    settled = pool._engine.native.PoolStat(pool._engine.handle, 1)
    assert drawn[0] <= settled + 1024 + 1000  # and what was settled since
    pool.terminate()


def test_imap_of_large_items(pool: Any) -> None:
    """imap keeps no more payload unsettled than the budget allows."""
    load = []

    def items() -> Any:
        for _ in range(60):
            load.append(pool._engine.native.PoolStat(pool._engine.handle, 7))
            yield bytes(4_000_000)

    assert list(pool.imap(len, items())) == [4_000_000] * 60
    assert max(load) <= 80_000_000


def test_repopulate(context: Any) -> None:
    """_repopulate_pool() refills at any time."""
    with context.Pool(2) as pool:
        pool._repopulate_pool()
        assert len(pool._pool) == 2


def test_identity_of_workers() -> None:
    """Workers have the names and numbers that programs derive slots from."""
    context = gopool.get_context("fork")
    with context.Pool(2) as pool:
        names = {w.name for w in pool._pool}
    assert all(name.startswith("ForkPoolWorker-") for name in names)


def test_subclass_with_its_own_process() -> None:
    """A context whose Process is not daemonic gives workers that may have children."""

    class NoDaemonProcess(gopool.get_context("fork").Process):  # type: ignore[misc]
        @property
        def daemon(self) -> bool:
            return False

        @daemon.setter
        def daemon(self, value: bool) -> None:
            pass

    class NoDaemonContext(type(gopool.get_context("fork"))):  # type: ignore[misc]
        Process = NoDaemonProcess

    with gopool_pool.Pool(1, context=NoDaemonContext()) as pool:
        assert pool.apply(f.nested_pool, ("fork",)) == [0, 1, 4, 9]


def test_pool_in_a_process(context: Any, start_method: str) -> None:
    """A child of a process that uses Go makes pools of its own."""
    with gopool.get_context("fork").Pool(1) as pool:
        pool.apply(f.pid)  # Go is in use here
        answers = context.Queue()
        process = context.Process(target=f.process_pool, args=(start_method, answers))
        process.start()
        assert answers.get(timeout=60) == [0, 1, 4, 9]
        process.join()
        answers.close()
        answers.join_thread()


def test_pool_in_a_manager(context: Any) -> None:
    """A Pool inside a Manager's server works through its proxy."""
    with context.Manager() as manager, manager.Pool(2) as pool:
        assert pool.map(f.square, range(4)) == [0, 1, 4, 9]
        assert list(pool.imap(f.square, range(4))) == [0, 1, 4, 9]


def test_executor(context: Any) -> None:
    """concurrent.futures takes gopool's contexts."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(f.square, range(5))) == [0, 1, 4, 9, 16]


def test_threads_end_with_the_pool(context: Any) -> None:
    """After join() no thread of the pool's is left, and Go has forgotten it."""
    before = set(threading.enumerate())
    pool = context.Pool(2)
    pool.map(f.square, range(10))
    pool.close()
    pool.join()
    assert set(threading.enumerate()) == before
    assert _core.load().PoolCount() == 0


def test_registered_reducers_count(context: Any) -> None:
    """A type registered with ForkingPickler after the pool was made is pickled by its reducer."""
    from multiprocessing.reduction import ForkingPickler

    class Local:
        pass

    with context.Pool(1) as pool:
        assert pool.apply(f.square, (2,)) == 4
        ForkingPickler.register(Local, _reduce_to_three)
        try:
            assert pool.apply(f.identity, (Local(),)) == 3
        finally:
            del ForkingPickler._extra_reducers[Local]


def _reduce_to_three(_: object) -> Any:
    return int, ("3",)


def test_pool_module_in_a_task(tmp_path: Any, start_method: str) -> None:
    """multiprocessing.pool is there for tasks that only import multiprocessing, as in the
    standard library's workers, and costs a worker nothing before."""
    done = f.run_script(
        tmp_path,
        f"""
import multiprocessing
import sys

import gopool

def imported():
    return "multiprocessing.pool" in sys.modules

def use():
    with multiprocessing.pool.ThreadPool(1) as threads:
        return threads.apply(len, ("four",))

def misuse():
    return multiprocessing.no_such_name

if __name__ == "__main__":
    with gopool.get_context({start_method!r}).Pool(1) as pool:
        print(pool.apply(imported), pool.apply(use))
        try:
            pool.apply(misuse)
        except AttributeError as error:
            print(str(error).split(";")[0])
""",
    )
    missing = "module 'multiprocessing' has no attribute 'no_such_name'"
    f.assert_silent_success(done, f"{start_method == 'fork'} 4\n{missing}\n")


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
def test_imap_error_comes_last(pool: Any, kind: str) -> None:
    """An input that raises does so behind the results of the items before it."""

    def items() -> Any:
        yield from range(10)
        raise KeyError("input")

    results = getattr(pool, kind)(f.square, items())
    assert sorted(next(results) for _ in range(10)) == [i * i for i in range(10)]
    with pytest.raises(KeyError):
        next(results)


def test_outcomes_of_one_worker_come_in_its_order(context: Any) -> None:
    """Whatever way each takes: large results go through the socket, small ones through the lane."""
    sizes = [100_000 if i % 3 == 0 else 10 for i in range(100)]
    with context.Pool(1) as pool:
        for _ in range(3):
            results = pool.imap_unordered(bytes, sizes)
            assert [len(result) for result in results] == sizes


@pytest.mark.parametrize("name", ["apply", "apply_async", "map", "map_async", "starmap"])
def test_unknown_keyword(pool: Any, name: str) -> None:
    """The error names the method as the standard library's does."""
    arguments = ([f.square],) if name.startswith("apply") else (f.square, [1])
    texts = []
    for method in (getattr(pool, name), partial(getattr(stdlib.Pool, name), pool)):
        with pytest.raises(TypeError) as caught:
            method(*arguments, chunk_size=3)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
