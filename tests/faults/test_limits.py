# SPDX-License-Identifier: MIT
"""Where Go can't be loaded: under small limits the standard library's pool, else one sentence."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _copies, _core

WORKS = """
import resource, sys
import functions as f
import gopool
{before}

def check(context):
    with context.Pool(2) as pool:
        print(hasattr(pool, "_engine"), pool.map(f.square, range(4)),
              pool.apply(f.add, (1,), {{"y": 2}}), list(pool.imap(f.square, [3])))
        pool.close()
        pool.join()
    for code in (0, 5):
        process = context.Process(target=f.exit_hard, args=(code,))
        process.start()
        process.join()
        print(process.exitcode, process.is_alive())

if __name__ == "__main__":
    {limit}
    check({package}.get_context(sys.argv[1]))
    check({package}.get_context(sys.argv[1]))  # no second warning
"""

PRINTED = ("False [0, 1, 4, 9] 3 [9]\n" + "0 False\n5 False\n") * 2
SPACE = "resource.setrlimit(resource.RLIMIT_AS, (600_000_000,) * 2)"
# The user's other processes come and go, so their number is given.
THREADS = (
    "_core._threads_of_user = lambda: 500; "
    "resource.setrlimit(resource.RLIMIT_NPROC, (508,) * 2)"
)

# Whoever writes beyond it is killed, which Python prevents unless a program undoes that.
FILES = (
    "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (65536,) * 2)"
)
LIMITS = {"RLIMIT_AS": SPACE, "RLIMIT_NPROC": THREADS, "RLIMIT_FSIZE": FILES}


@pytest.mark.parametrize("way", ["names", "install"])
@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_small_limit(tmp_path: Any, start_method: str, way: str, limit: str) -> None:
    """Pool and Process work under a limit too small for Go, with one RuntimeWarning in all."""
    installed = "import multiprocessing\nif __name__ == '__main__': gopool.install()"
    script = WORKS.format(
        before="from gopool import _core\n" + (installed if way == "install" else ""),
        limit=limit,
        package="multiprocessing" if way == "install" else "gopool",
    )
    done = f.run_script(tmp_path, script, start_method)
    assert (done.returncode, done.stdout) == (0, PRINTED), done.stderr
    (name,) = (name for name in LIMITS if LIMITS[name] is limit)
    assert done.stderr.count("RuntimeWarning: gopool runs without its Go core") == 1, done.stderr
    assert done.stderr.count(name) == 1, done.stderr
    assert "ulimit" in done.stderr


def test_warning_as_an_error_starts_nothing(tmp_path: Any) -> None:
    """With -W error the warning is raised before a process exists, so that none is left."""
    done = f.run_script(
        tmp_path,
        f"""
import resource
import functions as f
import gopool

if __name__ == "__main__":
    {SPACE}
    try:
        gopool.get_context("fork").Pool(1)
    except RuntimeWarning as warning:
        print("RLIMIT_AS" in str(warning), gopool.active_children())
""",
        flags=("-W", "error"),
    )
    f.assert_silent_success(done, "True []\n")


def test_workers_with_a_limit_of_their_own(tmp_path: Any, start_method: str) -> None:
    """An initializer may set RLIMIT_AS: a first pool's workers do not have Go's address space."""
    done = f.run_script(
        tmp_path,
        f"""
import resource, sys
import gopool

def limit():
    {SPACE}

def fill(size):
    return len(bytearray(size))

if __name__ == "__main__":
    with gopool.get_context(sys.argv[1]).Pool(2, limit) as pool:
        print(pool.map(fill, [300_000_000] * 4, chunksize=1))
        try:
            pool.apply(fill, (700_000_000,))
        except MemoryError:
            print("refused")
""",
        start_method,
    )
    assert (done.stdout, done.stderr) == (f"{[300_000_000] * 4}\nrefused\n", "")


@pytest.mark.parametrize("spare, enough", [(4, False), (64, True)])
def test_obstacle_counts_threads(
    monkeypatch: pytest.MonkeyPatch, spare: int, enough: bool
) -> None:
    """RLIMIT_NPROC is compared with what the user has running already."""
    limits = {resource.RLIMIT_NPROC: 500 + spare, resource.RLIMIT_AS: resource.RLIM_INFINITY}
    monkeypatch.setattr(_core, "_native", None)
    monkeypatch.setattr(_core, "_threads_of_user", lambda: 500)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which],) * 2)
    obstacle = _core.obstacle()
    assert (obstacle is None) == enough
    assert enough or "RLIMIT_NPROC is 504 and 500 are in use" in str(obstacle)


@pytest.mark.parametrize("space, enough", [(10**9, False), (10**10, True), (-1, True)])
def test_obstacle_counts_memory(
    monkeypatch: pytest.MonkeyPatch, space: int, enough: bool
) -> None:
    """RLIMIT_AS is compared with Go's need on top of what is mapped; unlimited is enough."""
    monkeypatch.setattr(_core, "_native", None)
    limits = {resource.RLIMIT_AS: space, resource.RLIMIT_NPROC: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which],) * 2)
    assert (_core.obstacle() is None) == enough
    monkeypatch.setattr(_core, "_mapped", lambda: 9_500_000_000)
    assert (_core.obstacle() is None) == (space == resource.RLIM_INFINITY)


def test_no_obstacle_once_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is lowered after Go was loaded changes nothing."""
    _core.load()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1, 1))
    assert _core.obstacle() is None


NO_FILES = """
import resource, signal
import gopool

if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for _ in range(2):
        try:
            gopool.get_context("fork").Pool(1)
        except OSError as error:
            print(error, gopool.active_children())
"""


def test_no_files_at_all(tmp_path: Any) -> None:
    """Under an RLIMIT_FSIZE of 0 the standard library has no pool either: the error names it."""
    said = "File too large: 32 bytes of shared memory, RLIMIT_FSIZE is 0 (raise `ulimit -f`)"
    f.assert_silent_success(f.run_script(tmp_path, NO_FILES), f"[Errno 27] {said} []\n" * 2)


LOWERED = """
import os, resource, signal, sys
import functions as f
import gopool

def size_or_reason(result):
    try:
        return len(result.get(30))
    except OSError as error:
        return error.errno, "RLIMIT_FSIZE is" in str(error)

if __name__ == "__main__":
    context = gopool.get_context(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with context.Pool(1) as pool:
        pool.apply(len, (b"x" * 300_000,))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
        worker = pool._pool[0]
        print(size_or_reason(pool.apply_async(f.identity, (b"x" * 30_000,))))
        print(size_or_reason(pool.apply_async(f.identity, (b"x" * 300_000,))))
        print(size_or_reason(pool.apply_async(bytes, (300_000,))))  # the worker has no limit
        os.kill(worker.pid, signal.SIGKILL)
        print(pool.apply(f.square, (3,)))  # by the next worker
        print(size_or_reason(pool.apply_async(bytes, (30_000,))))
        print(size_or_reason(pool.apply_async(bytes, (300_000,))))
        print(pool.map(f.square, range(3)))
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize("limit", [64, 65_536])
def test_files_limited_later(tmp_path: Any, start_method: str, limit: int) -> None:
    """RLIMIT_FSIZE lowered below a live pool fails large tasks, each with an OSError that says so;
    all else goes on, and SIGXFSZ ends nobody, whether it is ignored or not.
    """
    refused = "(27, True)\n"
    # The forkserver has no limit, nor what it starts.
    last = "300000\n" if start_method == "forkserver" else refused
    printed = f"30000\n{refused}300000\n9\n30000\n{last}[0, 1, 4]\n"
    done = f.run_script(tmp_path, LOWERED, start_method, str(limit))
    f.assert_silent_success(done, printed)


def test_files_limited_for_a_copy(tmp_path: Any) -> None:
    """A child that would need a copy of Go, larger than RLIMIT_FSIZE, has the standard library's
    pool.
    """
    done = f.run_script(
        tmp_path,
        """
import os, resource, signal, sys, warnings
import functions as f
import gopool

if __name__ == "__main__":
    context = gopool.get_context("fork")
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with context.Pool(1) as pool:
        pool.apply(f.square, (2,))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000,) * 2)
        pid = os.fork()
        if pid == 0:
            with warnings.catch_warnings(record=True) as caught:
                with context.Pool(1) as own:
                    print(hasattr(own, "_engine"), own.apply(f.square, (3,)))
            print(["RLIMIT_FSIZE" in str(one.message) for one in caught])
            sys.stdout.flush()
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    with context.Pool(1) as pool:
        print(hasattr(pool, "_engine"))
""",
        flags=("-W", "ignore:This process:DeprecationWarning"),
    )
    f.assert_silent_success(done, "False 9\n[True]\n0\nTrue\n")


def test_threads_of_user_are_counted() -> None:
    """The count holds at least this process's own threads."""
    assert _core._threads_of_user() >= len(os.listdir("/proc/self/task"))
    assert _core._threads_of("0") == 0  # no such process
    assert _core._mapped() > 10_000_000


BROKEN = {
    "missing": "sys.modules['gopool._native._pyapi'] = None",
    "broken": (
        "import gopool._native\n"
        "open('_pyapi' + sysconfig.get_config_var('EXT_SUFFIX'), 'w').write('no ELF')\n"
        "gopool._native.__path__[:] = [os.getcwd()]"
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_extension_unusable(tmp_path: Any, how: str) -> None:
    """A missing or broken extension is one CoreError, and no process is left running."""
    done = f.run_script(
        tmp_path,
        f"""
import multiprocessing, os, sys, sysconfig
import functions as f
import gopool
{BROKEN[how]}

if __name__ == "__main__":
    context = gopool.get_context("fork")
    process = context.Process(target=f.exit_hard, args=(6,))  # needs no Go
    process.start()
    process.join()
    print(process.exitcode)
    try:
        context.Pool(1)
    except gopool.CoreError as error:
        print(str(error).startswith("the Go extension can't be loaded: "),
              isinstance(error.__cause__, ImportError))
    try:
        print(os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("no child", multiprocessing.active_children())
""",
    )
    f.assert_silent_success(done, "6\nTrue True\nno child []\n")


COPIES = """
import errno, os, sys, tempfile
import functions as f
import gopool
from gopool import _copies

def refuse(*args, **kwds):
    raise OSError(errno.EACCES, "refused by the test")

used = []

def spy(name):
    original = getattr(_copies, name)
    def copy(*args):
        used.append(name)
        return original(*args)
    copy.__name__ = name
    setattr(_copies, name, copy)

if __name__ == "__main__":
    for name in ("_copy_in_memory", "_copy_in_tmpdir", "_copy_beside"):
        spy(name)
    context = gopool.get_context("fork")
    with context.Pool(1) as pool:
        pool.apply(f.square, (2,))
    pool.join()
    pid = os.fork()
    if pid == 0:
        refused = int(sys.argv[1])
        create = os.memfd_create
        # The pool's own regions are memfds as well: only the copy is refused.
        os.memfd_create = lambda name, flags: (
            refuse() if refused and name == "gopool-core" else create(name, flags))
        make = tempfile.NamedTemporaryFile
        tempfile.NamedTemporaryFile = lambda **kwds: (
            refuse() if refused > (1 if kwds["dir"] is None else 2) else make(**kwds))
        try:
            with context.Pool(1) as own:
                print(own.apply(f.square, (3,)), used)
        except gopool.CoreError as error:
            print(str(error).count("refused by the test"), used)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
"""


@pytest.mark.parametrize("refused", range(4))
def test_copy_falls_back(tmp_path: Any, refused: int) -> None:
    """A forked child loads its copy from memory, $TMPDIR or beside, or says why none would do."""
    quiet = ("-W", "ignore:This process:DeprecationWarning")  # 3.12 on: a fork beside threads
    done = f.run_script(tmp_path, COPIES, str(refused), flags=quiet)
    attempts = ["_copy_in_memory", "_copy_in_tmpdir", "_copy_beside"][: refused + 1]
    result = 9 if refused < 3 else 3
    f.assert_silent_success(done, f"{result} {attempts}\n")
    folder = os.path.join(os.path.dirname(gopool.__file__), "_native")
    assert not [name for name in os.listdir(folder) if name.startswith("gopool-core-")]


def test_copies_find_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied is the installed file, even where the loaded module is a copy itself."""
    monkeypatch.setattr(sys.modules["gopool._native"], "_pyapi", None, raising=False)
    monkeypatch.setattr(_copies, "_load_from", lambda name, path: path)
    module = _core.load() and sys.modules.get("gopool._native._pyapi")
    if module is not None:
        monkeypatch.setattr(module.__spec__, "origin", "/proc/1/fd/99")
    assert str(_copies.load("gopool._native._pyapi")).startswith(f"/proc/{os.getpid()}/fd/")


@pytest.mark.parametrize(("limit", "workers"), [(64, 1), (64, 4), (128, 4)])
def test_few_descriptors(tmp_path: Any, limit: int, workers: int) -> None:
    """Large arguments and results wait for a descriptor where few are allowed; none is lost."""
    done = f.run_script(
        tmp_path,
        f"""
import resource
import gopool

def grow(data):
    return data + b"x"

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
    with gopool.get_context("fork").Pool({workers}) as pool:
        results = [pool.apply_async(grow, (bytes(100_000),)) for _ in range(60)]
        print({{len(result.get()) for result in results}})
        results = [pool.apply_async(bytes, (100_000,)) for _ in range(200)]
        print({{len(result.get()) for result in results}})
""",
    )
    f.assert_silent_success(done, "{100001}\n{100000}\n")


def test_daemon_threads_at_exit(tmp_path: Any) -> None:
    """Daemon threads that use a pool when the interpreter exits print nothing."""
    done = f.run_script(
        tmp_path,
        """
import threading
import functions as f
import gopool

def work(pool, begun):
    while True:
        pool.map(f.square, range(20))
        begun.set()

if __name__ == "__main__":
    pool = gopool.get_context("fork").Pool(2)
    for _ in range(3):
        begun = threading.Event()
        threading.Thread(target=work, args=(pool, begun), daemon=True).start()
        begun.wait()
    print("bye")
""",
        flags=("-W", "ignore::ResourceWarning"),
    )
    f.assert_silent_success(done, "bye\n")
