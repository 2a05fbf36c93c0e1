# SPDX-License-Identifier: MIT
"""gopool has every name of multiprocessing, in every module, with the same signatures."""

import importlib
import importlib.metadata
import inspect
import multiprocessing
import pkgutil
import subprocess
import sys

import pytest

import gopool

# Works on Windows alone; it cannot be imported elsewhere.
FOREIGN = {"popen_spawn_win32"}

SUBMODULES = sorted(
    name.removeprefix("multiprocessing.")
    for _, name, _ in pkgutil.walk_packages(multiprocessing.__path__, "multiprocessing.")
    if name.rpartition(".")[2] not in FOREIGN
)

# What belongs to the module object and not to its content.
MODULE_FACTS = {
    *("__name__", "__doc__", "__file__", "__cached__", "__loader__", "__spec__", "__package__"),
    *("__path__", "__builtins__", "__annotations__", "__all__", "__getattr__", "__dir__"),
}

# The names that gopool defines anew; all others must be the stdlib's own objects.
OWN_OBJECTS = {
    "": {"context", "Process"},
    "context": {
        *("Process", "ForkProcess", "SpawnProcess", "ForkServerProcess"),
        *("DefaultContext", "ForkContext", "SpawnContext", "ForkServerContext"),
        *("_default_context", "_concrete_contexts"),
    },
    "managers": {"SyncManager"},
    "pool": {
        *("Pool", "AsyncResult", "ApplyResult", "MapResult"),
        *("IMapIterator", "IMapUnorderedIterator"),
    },
}

OWN_EXCEPTIONS = {
    *("GopoolError", "WorkerLostError", "WorkerStartError", "BrokenPoolError"),
    *("PoolTerminatedError", "TaskCancelledError", "TaskTimeoutError", "RemoteTaskError"),
    *("SoftTimeoutError", "SupervisorError"),
    *("PayloadTooLargeError", "ForkedChildError", "CoreError"),
}

each_module = pytest.mark.parametrize("name", ["", *SUBMODULES])
each_submodule = pytest.mark.parametrize("name", SUBMODULES)


def load_pair(name):
    """Return gopool's module and the stdlib's; the empty name stands for the packages."""
    suffix = f".{name}" if name else ""
    own = importlib.import_module(f"gopool{suffix}")
    return own, importlib.import_module(f"multiprocessing{suffix}")


def run_python(code):
    """Run code in a fresh interpreter and return its output; anything on stderr is a failure."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def content_of(twin):
    """Return the names of a stdlib module, private ones included, without its module facts.

    Names of submodules are left out: they depend on what was imported before.
    """
    return [name for name in dir(twin) if name not in MODULE_FACTS and name not in set(SUBMODULES)]


def signature_of(function):
    """Return the parameters of a callable, None where Python itself cannot tell."""
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return None


def without_extras(own, twin):
    """Remove from a signature the keyword-only parameters with defaults that the twin lacks."""
    kept = [
        parameter
        for parameter in own.parameters.values()
        if parameter.name in twin.parameters
        or parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        or parameter.default is inspect.Parameter.empty
    ]
    return [(parameter.name, parameter.kind, parameter.default) for parameter in kept]


def compare_signatures(own, twin, where, differences):
    """Compare one callable, and of a class its constructor and its public methods."""
    expected, found = signature_of(twin), signature_of(own)
    if expected is not None:
        plain = without_extras(expected, expected)
        if found is None or without_extras(found, expected) != plain:
            differences.append(f"{where}: {found}, expected {expected}")
    if not inspect.isclass(twin):
        return
    for name, _ in inspect.getmembers(twin, callable):
        if not name.startswith("_"):
            mine, theirs = getattr(own, name, None), getattr(twin, name)
            if not inspect.isclass(theirs):
                compare_signatures(mine, theirs, f"{where}.{name}", differences)


@each_module
def test_every_name_of_the_twin_is_there(name):
    """Public and private names can be read, and dir() lists them."""
    own, twin = load_pair(name)
    names = [entry for entry in dir(twin) if entry.rpartition(".")[2] not in FOREIGN]
    assert [entry for entry in names if not hasattr(own, entry)] == []
    assert set(content_of(twin)) - set(dir(own)) == set()


@each_submodule
def test_submodules_have_the_same_all(name):
    """A star import of a submodule asks for the same names."""
    own, twin = load_pair(name)
    assert sorted(getattr(own, "__all__", ["missing"])) == sorted(
        getattr(twin, "__all__", ["missing"])
    )


def test_package_all_is_the_stdlibs_and_gopools_own():
    """A star import brings multiprocessing's names and gopool's, each listed once."""
    expected = {*multiprocessing.__all__, "install", "uninstall", "Supervisor", *OWN_EXCEPTIONS}
    assert sorted(gopool.__all__) == sorted(expected)
    namespace = {}
    exec("from gopool import *", namespace)
    assert expected - set(namespace) == set()


def test_the_package_has_no_public_name_beside_all():
    """What gopool needs for itself is private, so that nothing looks exported by accident."""
    public = {
        name
        for name, value in vars(gopool).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    # `annotations` is what the future import leaves behind.
    assert public - {*gopool.__all__, *dir(multiprocessing), "annotations"} == set()


@each_module
def test_only_the_named_objects_are_gopools(name):
    """Whatever is not listed as gopool's own is the stdlib's object itself."""
    own, twin = load_pair(name)
    different = set()
    for entry in content_of(twin):
        mine, theirs = getattr(own, entry), getattr(twin, entry)
        bound_to = getattr(theirs, "__self__", None)
        if not name and bound_to is multiprocessing.context._default_context:
            assert mine.__self__ is gopool.context._default_context, entry
            assert mine.__name__ == theirs.__name__
        elif mine is not theirs:
            different.add(entry)
    allowed = OWN_OBJECTS.get(name, set())
    assert different <= allowed, f"new objects: {sorted(different - allowed)}"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pool", "ThreadPool"),
        ("pool", "RUN"),
        ("pool", "CLOSE"),
        ("pool", "TERMINATE"),
        ("pool", "RemoteTraceback"),
        ("pool", "MaybeEncodingError"),
        ("pool", "mapstar"),
        ("synchronize", "SEM_VALUE_MAX"),
        ("managers", "BaseManager"),
        ("managers", "AutoProxy"),
        ("managers", "PoolProxy"),
        ("context", "BaseContext"),
        ("context", "TimeoutError"),
        ("process", "_children"),
        ("util", "_finalizer_registry"),
    ],
)
def test_names_that_programs_lean_on_are_the_stdlibs(module, name):
    """Private and half-private names that real programs import exist and are the same object."""
    own, twin = load_pair(module)
    assert getattr(own, name) is getattr(twin, name)


@each_module
def test_signatures_are_the_stdlibs(name):
    """Every public callable takes what its twin takes, apart from optional keywords of gopool."""
    own, twin = load_pair(name)
    differences = []
    for entry in content_of(twin):
        theirs = getattr(twin, entry)
        if not entry.startswith("_") and callable(theirs):
            compare_signatures(getattr(own, entry), theirs, entry, differences)
    assert differences == []


def test_the_signature_comparison_sees_differences():
    """A changed default, a new positional or a missing parameter is reported, an extra is not."""

    def twin(a, b=1): ...

    def extra(a, b=1, *, c=None): ...

    def default(a, b=2): ...

    def positional(a, b=1, c=None): ...

    def missing(a): ...

    def required(a, b=1, *, c): ...

    differences = []
    for other in (twin, extra, default, positional, missing, required):
        compare_signatures(other, twin, other.__name__, differences)
    found = [line.partition(":")[0] for line in differences]
    assert found == ["default", "positional", "missing", "required"]


@each_submodule
def test_a_submodule_can_be_imported_first(name):
    """All forms of import work in a fresh process and give the same module each time."""
    run_python(
        f"import gopool.{name}\n"
        f"import sys, multiprocessing.{name}\n"
        f"from gopool.{name} import *\n"
        f"module = sys.modules['gopool.{name}']\n"
        f"assert gopool.{name} is module, module\n"
        f"twin = multiprocessing.{name}\n"
        "assert set(getattr(twin, '__all__', ())) <= set(globals())\n"
        "assert module is twin or module.__name__.startswith('gopool.'), module\n"
    )


@pytest.mark.parametrize("name", [name for name in SUBMODULES if "." not in name])
def test_a_submodule_is_an_attribute_without_an_import(name):
    """`multiprocessing.queues` after a mere Queue() works in the stdlib, hence always here."""
    run_python(
        "import gopool, importlib\n"
        f"found = gopool.{name}\n"
        f"assert importlib.import_module('gopool.{name}') is found is gopool.{name}\n"
    )


def test_dummy_is_loaded_once():
    """A second copy of the thread modules would have a second list of active children."""
    run_python(
        "import gopool.dummy.connection, multiprocessing.dummy.connection\n"
        "assert gopool.dummy.connection is multiprocessing.dummy.connection\n"
        "assert gopool.dummy is multiprocessing.dummy\n"
    )


def test_import_loads_nothing_beyond_multiprocessing():
    """`import gopool` adds to `import multiprocessing` a few small modules of its own alone."""
    output = run_python(
        "import sys, multiprocessing\n"
        "before = set(sys.modules)\n"
        "import gopool\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    allowed = {"__future__", "gopool", "gopool._fork", "gopool._mirror", "gopool.context"}
    assert set(output.split()) - allowed == set()


def test_import_starts_no_thread_and_no_process():
    """A program that imports gopool and does nothing else stays single-threaded."""
    run_python(
        "import gopool, os, threading\n"
        "assert threading.active_count() == 1\n"
        "assert len(os.listdir('/proc/self/task')) == 1\n"
        "assert gopool.active_children() == []\n"
    )


@pytest.mark.parametrize("name", sorted(OWN_EXCEPTIONS))
def test_exceptions_are_reachable_from_the_package(name):
    """The package's exception is the one that gopool.exceptions defines, a ProcessError."""
    from gopool import exceptions

    assert getattr(gopool, name) is getattr(exceptions, name)
    assert issubclass(getattr(gopool, name), multiprocessing.ProcessError)


def test_version_is_the_installed_one():
    """`gopool.__version__` cannot disagree with what pip shows."""
    assert gopool.__version__ == importlib.metadata.version("gopool")


def test_install_and_uninstall_are_functions():
    """The hand-over is reached from the package, and is the one of gopool's module for it."""
    run_python(
        "import gopool\n"
        "assert callable(gopool.install) and callable(gopool.uninstall)\n"
        "from gopool._install import install, uninstall\n"
        "assert (gopool.install, gopool.uninstall) == (install, uninstall)\n"
    )


@pytest.mark.parametrize("name", ["", "context", "managers", "pool"])
def test_an_unknown_name_is_an_attribute_error_of_gopool(name):
    """The message names the module that was asked, not the stdlib's behind it."""
    own, _ = load_pair(name)
    with pytest.raises(AttributeError, match=f"^module '{own.__name__}' has no attribute 'nope'$"):
        own.nope  # noqa: B018  (the access is the test)
    assert not hasattr(own, "__nope__")


@pytest.mark.parametrize("name", ["context", "managers", "pool", "process", "util"])
def test_what_the_stdlib_rebinds_is_seen(name, monkeypatch):
    """A module of gopool holds no stale copy of the stdlib's global variables."""
    own, twin = load_pair(name)
    value = object()
    monkeypatch.setattr(twin, "_rebound_by_a_test", value, raising=False)
    assert own._rebound_by_a_test is value
    assert "_rebound_by_a_test" in dir(own)
