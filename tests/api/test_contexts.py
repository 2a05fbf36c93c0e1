# SPDX-License-Identifier: MIT
"""gopool's contexts: whose processes they start, and the start method shared with the stdlib."""

import concurrent.futures
import copy
import multiprocessing
import multiprocessing.context
import multiprocessing.managers
import multiprocessing.spawn
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

import gopool
import gopool.context
import gopool.managers
import gopool.pool
from gopool._settings import DEFAULTS

METHODS = ["fork", "spawn", "forkserver"]
LIMIT = 30  # seconds; arbitrary, only reached when something hangs

CLASSES = {
    "fork": ("ForkContext", "ForkProcess", "ForkPopen"),
    "spawn": ("SpawnContext", "SpawnProcess", "SpawnPopen"),
    "forkserver": ("ForkServerContext", "ForkServerProcess", "ForkServerPopen"),
}

# Each statement runs after `import multiprocessing, gopool` in a fresh process. The expected
# values are those that multiprocessing alone gives; {a} and {b} are the two packages.
STATE_SCRIPTS = {
    "nothing set": """
        assert {a}.get_start_method(allow_none=True) is None
        assert {b}.get_start_method(allow_none=True) is None
        {a}.set_start_method("spawn")
    """,
    "set in one, seen in the other": """
        {a}.set_start_method("spawn")
        assert {a}.get_start_method() == {b}.get_start_method(allow_none=True) == "spawn"
        assert type({a}.get_context()) is {a}.context.SpawnContext
        assert type({b}.get_context()) is {b}.context.SpawnContext
    """,
    "set twice": """
        {a}.set_start_method("spawn")
        for package in ({a}, {b}):
            try:
                package.set_start_method("fork")
            except RuntimeError as error:
                assert str(error) == "context has already been set", error
            else:
                raise SystemExit("no RuntimeError")
        assert {b}.get_start_method() == "spawn"
    """,
    "asking for it settles it": """
        default = {a}.get_start_method()
        assert {b}.get_start_method(allow_none=True) == default
        try:
            {b}.set_start_method("spawn")
        except RuntimeError:
            pass
        else:
            raise SystemExit("no RuntimeError")
    """,
    "asking for the context settles it": """
        {a}.get_context()
        assert {b}.get_start_method(allow_none=True) is not None
    """,
    "asking for a named context does not": """
        {a}.get_context("spawn")
        assert {b}.get_start_method(allow_none=True) is None
    """,
    "force": """
        {a}.set_start_method("spawn")
        {b}.set_start_method("forkserver", force=True)
        assert {a}.get_start_method() == "forkserver"
        {a}.set_start_method(None, force=True)
        assert {b}.get_start_method(allow_none=True) is None
    """,
    "unknown method": """
        try:
            {a}.set_start_method("threads")
        except ValueError as error:
            assert str(error) == "cannot find context for 'threads'", error
        else:
            raise SystemExit("no ValueError")
        assert {b}.get_start_method(allow_none=True) is None
    """,
    "forced as a child does it": """
        {a}.context._force_start_method("forkserver")
        assert {b}.get_start_method() == "forkserver"
        assert type({b}.get_context()) is {b}.context.ForkServerContext
    """,
    "each keeps its own classes": """
        for method in ("fork", "spawn", "forkserver"):
            {a}.set_start_method(method, force=True)
            stored = multiprocessing.context._default_context._actual_context
            assert stored is multiprocessing.get_context(method), stored
            assert gopool.get_context() is gopool.get_context(method)
    """,
}

CHILD_SCRIPT = """
    import sys
    import gopool
    import multiprocessing

    def report(queue):
        import multiprocessing, gopool
        process = gopool.current_process()
        queue.put((
            gopool.get_start_method(),
            multiprocessing.get_start_method(),
            type(gopool.get_context()).__module__,
            type(process).__module__,
            process is multiprocessing.current_process(),
            gopool.parent_process().pid,
        ))

    if __name__ == "__main__":
        import os
        {package}.set_start_method("{method}")
        queue = gopool.SimpleQueue()
        process = gopool.Process(target=report, args=(queue,))
        process.start()
        process.join()
        expected = ("{method}", "{method}", "gopool.context", "gopool.context", True, os.getpid())
        assert process.exitcode == 0, process.exitcode
        found = queue.get()
        assert found == expected, found
"""


def run_script(folder, text):
    """Run a script file, which children may import again, and fail on anything on stderr."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


@pytest.fixture(params=METHODS)
def method(request):
    """The name of a start method."""
    return request.param


@pytest.fixture
def ctx(method):
    """gopool's context for the start method."""
    return gopool.get_context(method)


@pytest.fixture
def plain(method):
    """The stdlib's context for the same start method."""
    return multiprocessing.get_context(method)


def test_contexts_are_the_stdlibs_with_gopools_process(ctx, plain, method):
    """isinstance checks against multiprocessing hold, and Process is gopool's subclass."""
    context_class, process_class, _ = CLASSES[method]
    assert type(ctx) is getattr(gopool.context, context_class)
    assert isinstance(ctx, type(plain))
    assert isinstance(ctx, multiprocessing.context.BaseContext)
    assert ctx.Process is getattr(gopool.context, process_class)
    assert issubclass(ctx.Process, plain.Process)
    assert ctx.get_start_method() == method
    assert ctx.get_context() is ctx
    assert ctx.get_context(method) is ctx


def test_the_default_context_is_a_default_context():
    """Code that looks at the type of the default context finds the stdlib's class."""
    default = gopool.context._default_context
    assert isinstance(default, multiprocessing.context.DefaultContext)
    assert default.Process is gopool.Process is gopool.context.Process
    assert issubclass(gopool.Process, multiprocessing.Process)
    assert gopool.get_all_start_methods() == multiprocessing.get_all_start_methods()


def test_a_concrete_context_refuses_to_be_set(ctx):
    """As in the stdlib, only the default context can be set."""
    with pytest.raises(ValueError, match="cannot set start method of concrete context"):
        ctx.set_start_method("fork")


@pytest.mark.parametrize("name", ["threads", "", 7])
def test_an_unknown_method_is_the_stdlibs_value_error(name):
    """The error and its wording are the stdlib's."""
    with pytest.raises(ValueError, match="cannot find context for") as expected:
        multiprocessing.get_context(name)
    with pytest.raises(ValueError, match="cannot find context for") as found:
        gopool.get_context(name)
    assert str(found.value) == str(expected.value)


def test_a_registered_context_of_somebody_else_is_passed_on(monkeypatch):
    """Libraries add contexts to the stdlib's table; gopool hands these out unchanged."""

    class OtherContext(multiprocessing.context.ForkContext):
        pass

    other = OtherContext()
    monkeypatch.setitem(multiprocessing.context._concrete_contexts, "other", other)
    assert gopool.get_context("other") is other


def test_a_users_context_in_force_stays_that_context(monkeypatch):
    """A context of the user's that bears the name "fork" is not mistaken for the stdlib's."""

    class OtherContext(multiprocessing.context.ForkContext):
        pass

    other = OtherContext()
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", other)
    assert gopool.get_context() is other


def test_a_process_is_started_by_gopools_popen(ctx, method):
    """A process has gopool's popen object and is seen by both packages while it lives."""
    release = ctx.Event()
    process = ctx.Process(target=release.wait, args=(LIMIT,))
    process.start()
    try:
        assert type(process._popen).__name__ == CLASSES[method][2]
        assert type(process._popen).__module__.startswith("gopool.")
        assert process in multiprocessing.active_children()
        assert process in gopool.active_children()
        assert process.exitcode is None
        assert process.is_alive()
    finally:
        release.set()
        process.join(LIMIT)
    assert process.exitcode == 0
    assert process not in multiprocessing.active_children()


@pytest.mark.parametrize("package", ["gopool", "multiprocessing"])
@pytest.mark.parametrize("method", METHODS)
def test_children_share_the_state_and_use_gopools_contexts(package, method, tmp_path):
    """In a child both packages know the start method, and its process object is gopool's."""
    run_script(tmp_path, CHILD_SCRIPT.format(package=package, method=method))


@pytest.mark.parametrize("first", ["gopool", "multiprocessing"])
@pytest.mark.parametrize("title", STATE_SCRIPTS)
def test_the_start_method_is_one_state(title, first, tmp_path):
    """Whichever package a program asks or sets, both agree, with the stdlib's errors."""
    second = {"gopool": "multiprocessing", "multiprocessing": "gopool"}[first]
    script = textwrap.dedent(STATE_SCRIPTS[title]).format(a=first, b=second)
    run_script(tmp_path, "import multiprocessing, gopool\n" + script)


@pytest.mark.parametrize("title", STATE_SCRIPTS)
def test_the_expected_states_are_the_stdlibs(title, tmp_path):
    """The scripts above also hold with multiprocessing in both roles: they state its behaviour."""
    script = textwrap.dedent(STATE_SCRIPTS[title]).format(a="multiprocessing", b="multiprocessing")
    run_script(tmp_path, "import multiprocessing, gopool\n" + script)


def test_importing_gopool_later_keeps_the_state(tmp_path):
    """A start method set before the import survives it."""
    run_script(
        tmp_path,
        """
        import multiprocessing
        multiprocessing.set_start_method("spawn")
        import gopool
        assert multiprocessing.get_start_method() == gopool.get_start_method() == "spawn"
        gopool.context.DefaultContext(gopool.get_context("fork"))
        assert multiprocessing.get_start_method() == "spawn"
        """,
    )


def test_a_copy_of_the_default_context_follows_the_same_state():
    """Bound methods such as gopool.Lock can be pickled; their context has no state of its own."""
    default = gopool.context._default_context
    for other in (copy.copy(default), pickle.loads(pickle.dumps(default))):
        assert type(other) is gopool.context.DefaultContext
        assert other.get_context() is default.get_context()


def test_process_classes_pickle_by_name(ctx):
    """A spawned child finds the class of its process object under gopool.context."""
    assert pickle.loads(pickle.dumps(ctx.Process)) is ctx.Process
    assert ctx.Process.__module__ == "gopool.context"


@pytest.mark.parametrize(
    "name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"]
)
def test_synchronisation_objects_are_the_stdlibs(ctx, plain, name):
    """Locks of gopool's contexts are of the stdlib's types."""
    assert type(getattr(ctx, name)()) is type(getattr(plain, name)())


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_queues_are_the_stdlibs(ctx, plain, name):
    """Queues of gopool's contexts are of the stdlib's types."""
    mine, theirs = getattr(ctx, name)(), getattr(plain, name)()
    assert type(mine) is type(theirs)
    for queue in (mine, theirs):
        queue.close()


def test_a_gopool_process_uses_a_stdlib_queue_and_back(ctx, plain):
    """Objects of one package can be given to processes of the other."""
    for process_of, queue_of in ((ctx, plain), (plain, ctx)):
        queue = queue_of.Queue()
        process = process_of.Process(target=queue.put, args=("item",))
        process.start()
        assert queue.get(timeout=LIMIT) == "item"
        process.join(LIMIT)
        assert process.exitcode == 0
        queue.close()
        queue.join_thread()


def test_pool_is_gopools_on_this_context(ctx):
    """A context's Pool() is gopool.pool.Pool, with workers from that context."""
    with ctx.Pool(1) as pool:
        assert type(pool) is gopool.pool.Pool
        assert isinstance(pool, multiprocessing.pool.Pool)
        assert pool._ctx is ctx
        assert all(isinstance(worker, ctx.Process) for worker in pool._pool)
        assert pool.map(abs, [-1, 2]) == [1, 2]
        pool.close()
        pool.join()


def test_pool_gets_the_arguments(ctx, monkeypatch):
    """A context hands on all arguments of Pool() in the stdlib's order, and its keywords."""
    calls = []
    monkeypatch.setattr(gopool.pool, "Pool", lambda *args, **kwargs: calls.append((args, kwargs)))
    ctx.Pool(3, print, ("ready",), 7)
    ctx.Pool(processes=3, initializer=print, initargs=("ready",), maxtasksperchild=7)
    assert calls == [((3, print, ("ready",), 7), {"context": ctx, **DEFAULTS})] * 2
    calls.clear()
    keywords = dict.fromkeys(DEFAULTS, "anything")
    ctx.Pool(**keywords)
    assert calls == [((None, None, (), None), {"context": ctx, **keywords})]


def test_the_packages_pool_takes_the_context_in_force(monkeypatch):
    """gopool.Pool() passes a concrete context, since workers keep the one they were made with."""
    contexts = []
    monkeypatch.setattr(
        gopool.pool,
        "Pool",
        lambda processes, *_, context, **keywords: contexts.append((processes, context)),
    )
    gopool.Pool(1)
    assert contexts == [(1, gopool.get_context(gopool.get_start_method()))]


def test_manager_serves_from_a_gopool_process(ctx):
    """Manager() gives gopool's SyncManager, with the stdlib's proxies and gopool's pools."""
    with ctx.Manager() as manager:
        assert type(manager) is gopool.managers.SyncManager
        assert isinstance(manager, multiprocessing.managers.SyncManager)
        assert type(manager._process) is ctx.Process
        assert manager._process.name.startswith("SyncManager-")
        proxies = {
            "list": manager.list([1, 2]),
            "dict": manager.dict(a=1),
            "Namespace": manager.Namespace(x=1),
            "Value": manager.Value("i", 5),
            "Array": manager.Array("i", [1]),
            "Lock": manager.Lock(),
            "Queue": manager.Queue(),
            "Event": manager.Event(),
        }
        assert {name: proxy._token.typeid for name, proxy in proxies.items()} == {
            name: name for name in proxies
        }
        assert proxies["list"][:] == [1, 2]
        assert proxies["dict"].copy() == {"a": 1}


def test_a_process_works_on_a_proxy(ctx):
    """A child that receives a proxy connects to the manager's server."""
    with ctx.Manager() as manager:
        shared = manager.list()
        process = ctx.Process(target=shared.append, args=("item",))
        process.start()
        process.join(LIMIT)
        assert process.exitcode == 0
        assert shared[:] == ["item"]


def test_a_pool_lives_in_the_managers_server(ctx):
    """m.Pool() makes a gopool.pool.Pool there, reached through the stdlib's proxy."""
    entry = gopool.managers.SyncManager._registry["Pool"]
    assert entry[0] is gopool.pool.Pool
    assert multiprocessing.managers.SyncManager._registry["Pool"][0] is not entry[0]
    with ctx.Manager() as manager:
        pool = manager.Pool(1)
        assert type(pool) is multiprocessing.managers.PoolProxy
        assert "gopool.pool.Pool" in str(pool)
        assert pool.map(abs, [-1, 2]) == [1, 2]
        assert pool.apply(os.getpid) not in (os.getpid(), manager._process.pid)
        pool.terminate()


def test_a_manager_without_context_uses_gopools_and_a_given_one_is_kept(ctx, plain):
    """SyncManager() of gopool.managers falls back to gopool's default context."""
    default = gopool.managers.SyncManager()
    assert default._ctx is gopool.get_context()
    for given in (ctx, plain):
        assert gopool.managers.SyncManager(ctx=given)._ctx is given
        assert gopool.managers.SyncManager(None, b"key", "pickle", given)._ctx is given


def test_registering_with_gopools_manager_leaves_the_stdlibs_alone():
    """A type registered with gopool's SyncManager or a subclass is not seen by the stdlib's."""

    class Manager(gopool.managers.SyncManager):
        pass

    Manager.register("Custom", dict)
    assert "Custom" in Manager._registry
    assert "Custom" not in gopool.managers.SyncManager._registry
    assert "Custom" not in multiprocessing.managers.SyncManager._registry


def test_an_executor_works_with_gopools_context(ctx):
    """concurrent.futures.ProcessPoolExecutor starts its workers through gopool's context."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=ctx) as executor:
        assert executor.submit(abs, -3).result(LIMIT) == 3
        assert {type(process) for process in executor._processes.values()} == {ctx.Process}


@pytest.mark.parametrize("name", ["current_process", "parent_process", "active_children"])
def test_process_functions_are_the_stdlibs(name, ctx):
    """There is one table of processes, whichever package or context is asked."""
    assert getattr(gopool, name) is getattr(multiprocessing, name)
    assert getattr(ctx, name) is getattr(multiprocessing, name)


def test_the_reducer_is_shared(ctx, monkeypatch):
    """A reducer set through gopool's context is the one that multiprocessing uses, and back."""
    original = multiprocessing.context.reduction
    monkeypatch.setattr(multiprocessing.context, "reduction", original)  # restored at the end
    replacement = type(original)("replacement")
    ctx.reducer = replacement
    assert multiprocessing.context.reduction is replacement
    assert gopool.context._default_context.reducer is replacement
    assert gopool.context.reduction is replacement
    assert gopool.reducer is original


def test_the_executable_is_shared(monkeypatch):
    """set_executable of gopool sets what the stdlib's spawn uses."""
    original = multiprocessing.spawn.get_executable()
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", original)  # restored at the end
    gopool.set_executable("/somewhere/python")
    assert os.fsdecode(multiprocessing.spawn.get_executable()) == "/somewhere/python"


def test_the_preload_list_is_shared(monkeypatch):
    """set_forkserver_preload of gopool fills the stdlib's list."""
    from multiprocessing import forkserver

    server = forkserver._forkserver
    monkeypatch.setattr(server, "_preload_modules", server._preload_modules)
    gopool.set_forkserver_preload(["json"])
    assert server._preload_modules == ["json"]


def test_the_logger_is_shared():
    """get_logger of gopool is the stdlib's logger object."""
    assert gopool.get_logger() is multiprocessing.get_logger()


def test_freeze_support_does_nothing_here():
    """A program that calls freeze_support() first, as on Windows, goes on."""
    assert gopool.freeze_support() is None
    assert gopool.allow_connection_pickling() is None
