# SPDX-License-Identifier: MIT
"""The libraries that are measured, each behind those methods of multiprocessing.Pool that rows use.

A library of another kind gets them from a thin adapter here: each call becomes the one that the
library's own documentation shows for the purpose. What a library cannot do it is not asked for: see
`libraries` of each row.

Nothing is imported before a pool is made: what this module imports, a first pool would find.
"""

from __future__ import annotations

import sys


class Library:
    """One library.

    Attributes:
        name: in options and tables.
        module: what is imported, and what its import costs.
        distribution: its name on PyPI, None for what needs no installing.
        asked: measured only when it is named, for it starts servers of its own.
        open: takes the module, a start method and the number of workers; returns a pool.
    """

    def __init__(self, name: str, module: str, distribution: str | None, open, asked: bool = False):
        self.name = name
        self.module = module
        self.distribution = distribution
        self.open = open
        self.asked = asked

    def load(self):
        """The module, imported."""
        __import__(self.module)
        return sys.modules[self.module]


def chunk_length(count: int, workers: int) -> int:
    """Items per chunk where the caller of multiprocessing.Pool.map says nothing."""
    length, extra = divmod(count, workers * 4)
    return max(1, length + bool(extra))


def context_pool(module, method: str, workers: int, **keywords):
    """The Pool of a module with multiprocessing's own names."""
    return module.get_context(method).Pool(workers, **keywords)


class Pending:
    """A future as an AsyncResult."""

    def __init__(self, future):
        self.get = future.result


class ExecutorPool:
    """An Executor of concurrent.futures, or one with its methods, as a Pool."""

    def __init__(self, executor, workers: int):
        self._executor = executor
        self._workers = workers

    def apply(self, function, args=()):
        return self._executor.submit(function, *args).result()

    def apply_async(self, function, args=()):
        return Pending(self._executor.submit(function, *args))

    def map(self, function, items, chunksize: int | None = None) -> list:
        # Executors send single items where nothing is said: the chunks are those of Pool.map.
        chunksize = chunksize or chunk_length(len(items), self._workers)
        return list(self._executor.map(function, items, chunksize=chunksize))

    def imap(self, function, items):
        return self._executor.map(function, items)

    def imap_unordered(self, function, items):
        from concurrent.futures import as_completed

        futures = [self._executor.submit(function, item) for item in items]
        return (future.result() for future in as_completed(futures))

    def close(self) -> None:
        pass

    def join(self) -> None:
        self._executor.shutdown(wait=True)

    def terminate(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def futures_pool(module, method: str, workers: int):
    import multiprocessing

    context = multiprocessing.get_context(method)
    return ExecutorPool(module.ProcessPoolExecutor(workers, mp_context=context), workers)


class LokyPool(ExecutorPool):
    def terminate(self) -> None:
        self._executor.shutdown(wait=False, kill_workers=True)


def loky_pool(module, method: str, workers: int):
    """loky's executor with its own start method, the only one that it is made for."""
    return LokyPool(module.ProcessPoolExecutor(workers), workers)


class PebblePool(ExecutorPool):
    """pebble's ProcessPool: `submit` takes a timeout before the arguments, `map` has one future."""

    def apply(self, function, args=()):
        return self._executor.schedule(function, args=args).result()

    def apply_async(self, function, args=()):
        return Pending(self._executor.schedule(function, args=args))

    def map(self, function, items, chunksize: int | None = None) -> list:
        chunksize = chunksize or chunk_length(len(items), self._workers)
        return list(self._executor.map(function, items, chunksize=chunksize).result())

    def imap(self, function, items):
        return self._executor.map(function, items).result()

    def imap_unordered(self, function, items):
        from concurrent.futures import as_completed

        futures = [self._executor.schedule(function, args=(item,)) for item in items]
        return (future.result() for future in as_completed(futures))

    def close(self) -> None:
        self._executor.close()

    def join(self) -> None:
        self._executor.join()

    def terminate(self) -> None:
        self._executor.stop()


def pebble_pool(module, method: str, workers: int):
    import multiprocessing

    context = multiprocessing.get_context(method)
    return PebblePool(module.ProcessPool(workers, context=context), workers)


class MpirePool:
    """mpire's WorkerPool, kept alive between calls as any other pool is."""

    def __init__(self, pool):
        self._pool = pool

    def apply(self, function, args=()):
        return self._pool.apply(function, args)

    def apply_async(self, function, args=()):
        return self._pool.apply_async(function, args)

    def map(self, function, items, chunksize: int | None = None) -> list:
        return self._pool.map(
            function, items, chunk_size=chunksize, concatenate_numpy_output=False
        )

    def imap(self, function, items):
        return self._pool.imap(function, items, chunk_size=1)

    def imap_unordered(self, function, items):
        return self._pool.imap_unordered(function, items, chunk_size=1)

    def close(self) -> None:
        pass

    def join(self) -> None:
        self._pool.stop_and_join()

    def terminate(self) -> None:
        self._pool.terminate()


def mpire_pool(module, method: str, workers: int):
    return MpirePool(module.WorkerPool(workers, start_method=method, keep_alive=True))


class JoblibPool:
    """joblib.Parallel with its default backend, whose workers outlive a call by themselves."""

    def __init__(self, joblib, workers: int):
        self._joblib = joblib
        self._workers = workers

    def _call(self, function, items, **keywords):
        delayed = self._joblib.delayed(function)
        calls = (delayed(item) for item in items)
        return self._joblib.Parallel(self._workers, **keywords)(calls)

    def apply(self, function, args=()):
        call = self._joblib.delayed(function)(*args)
        return self._joblib.Parallel(self._workers)([call])[0]

    def map(self, function, items, chunksize: int | None = None) -> list:
        return self._call(function, items, batch_size=chunksize or "auto")

    def imap(self, function, items):
        return self._call(function, items, batch_size=1, return_as="generator")

    def imap_unordered(self, function, items):
        return self._call(function, items, batch_size=1, return_as="generator_unordered")

    def close(self) -> None:
        pass

    def join(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)

    def terminate(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=False, kill_workers=True)


def joblib_pool(module, method: str, workers: int):
    return JoblibPool(module, workers)


class DaskPool(ExecutorPool):
    """Dask's client of a cluster on this machine, behind the Executor that it offers."""

    def __init__(self, distributed, workers: int):
        self._cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
        )
        self._client = distributed.Client(self._cluster)
        # Not pure: results of equal calls are to be computed, not remembered.
        super().__init__(self._client.get_executor(pure=False), workers)

    def map(self, function, items, chunksize: int | None = None) -> list:
        return list(self._executor.map(function, items))  # its executor knows no chunks

    def join(self) -> None:
        super().join()
        self._client.close()
        self._cluster.close()


def dask_pool(module, method: str, workers: int):
    return DaskPool(module, workers)


def ray_pool(module, method: str, workers: int):
    """Ray's own class with multiprocessing.Pool's methods."""
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    return module.Pool(workers)


GOPOOL = "gopool"
STDLIB = "stdlib"

LIBRARIES = {
    library.name: library
    for library in (
        Library(GOPOOL, "gopool", None, context_pool),
        Library(STDLIB, "multiprocessing", None, context_pool),
        Library("futures", "concurrent.futures.process", None, futures_pool),
        Library("billiard", "billiard", "billiard", context_pool),
        Library("loky", "loky", "loky", loky_pool),
        Library("mpire", "mpire", "mpire", mpire_pool),
        Library("pebble", "pebble", "Pebble", pebble_pool),
        Library("joblib", "joblib", "joblib", joblib_pool),
        Library("multiprocess", "multiprocess", "multiprocess", context_pool),
        Library("dask", "distributed", "distributed", dask_pool, asked=True),
        Library("ray", "ray.util.multiprocessing", "ray", ray_pool, asked=True),
    )
}

# Which of them a row asks.
PAIR = (GOPOOL, STDLIB)
ALL = tuple(LIBRARIES)
CONTEXTS = (*PAIR, "billiard", "multiprocess")  # with Process, and all of multiprocessing's names
LOCAL = tuple(name for name in ALL if not LIBRARIES[name].asked)  # workers are this process's own
# Single calls without waiting; a pool of one worker that is not the caller; an imap to give up.
SUBMITTING = tuple(name for name in ALL if name != "joblib")
CHUNKING = tuple(name for name in ALL if name != "dask")  # a million items in one call
FORKING = tuple(name for name in LOCAL if name not in ("loky", "joblib"))


def installed(name: str) -> bool:
    """Whether the library is there, found without importing it."""
    from importlib.util import find_spec

    return find_spec(LIBRARIES[name].module.partition(".")[0]) is not None
