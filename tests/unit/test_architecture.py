# SPDX-License-Identifier: MIT
"""The lines that the code must not cross: who imports whom, and what an import costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gopool

PACKAGE = Path(gopool.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
WORKER = sorted((PACKAGE / "_worker").glob("*.py"))


def _imports(path: Path) -> set[str]:
    """The modules that a source names in import statements, at whatever depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_sources_are_found() -> None:
    """The tests below look at something."""
    assert len(SOURCES) > 25
    assert len(WORKER) > 5


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_only_the_core_knows_the_extension(path: Path) -> None:
    """No module but _core imports gopool._native, or names it in a text that could be imported."""
    if path.name == "_core.py":
        return
    assert not [name for name in _imports(path) if name.startswith("gopool._native")]
    if path.parent.name != "_native":
        assert "_native._pyapi" not in path.read_text()


@pytest.mark.parametrize("path", WORKER, ids=lambda path: path.stem)
def test_the_worker_stands_alone(path: Path) -> None:
    """Worker code imports itself, the standard library and msgpack: never what loads Go.

    The exceptions, which both sides know by the same name, import nothing of gopool's.
    """
    allowed = sys.stdlib_module_names | {"msgpack"}
    for name in _imports(path):
        top = name.partition(".")[0]
        inside = name == "gopool._worker" or name.startswith("gopool._worker.")
        inside = inside or name.startswith("gopool.exceptions")
        assert inside or top in allowed, f"{path.name} imports {name}"


def _printed_by(code: str) -> str:
    """What a fresh interpreter prints that runs the code, and nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _loaded_after(statement: str) -> tuple[set[str], int]:
    """Modules and threads that a fresh interpreter has after a statement."""
    code = (
        f"{statement}\nimport os, sys\n"
        "print(len(os.listdir('/proc/self/task')), *sys.modules)"
    )
    threads, *modules = _printed_by(code).split()
    return set(modules), int(threads)


@pytest.mark.parametrize(
    "statement",
    [
        "import gopool",
        "from gopool import Process, Queue, Lock, Value",
        "import gopool; gopool.get_context('spawn').SimpleQueue()",
        "import gopool; gopool.install()",
        "import gopool.pool, gopool.popen, gopool.context",
        "import gopool._worker.loop",
    ],
)
def test_import_is_light(statement: str) -> None:
    """Neither the extension nor a thread comes with an import, nor with install()."""
    modules, threads = _loaded_after(statement)
    assert not [name for name in modules if name.startswith("gopool._native")]
    assert threads == 1


def test_import_gopool_loads_no_machinery() -> None:
    """`import gopool` costs little: no engine, no msgpack, no runner."""
    modules, _ = _loaded_after("import gopool")
    heavy = {"msgpack", "gopool._engine", "gopool.pool", "gopool._core", "gopool._runner"}
    assert not modules & heavy


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_needs_no_msgpack(method: str) -> None:
    """Nor do its workers: what gopool's two sides write is read in C, at a seventh of the time that
    the package takes to be imported. It is for what they did not write.
    """
    modules, _ = _loaded_after(
        f"import gopool, subprocess; pool = gopool.get_context({method!r}).Pool(1)\n"
        "found = pool.apply(eval, ('\"msgpack\" in __import__(\"sys\").modules',))\n"
        "large = pool.apply(bytes, (pool.apply(len, (b'x' * 200_000,)),))\n"
        "pool.close(); pool.join()\n"
        "assert not found and len(large) == 200_000"
    )
    assert not modules & {"msgpack", "datetime"}


def test_worker_modules_load_no_core() -> None:
    """What a spawned worker imports to run does not load the engine or the border to Go."""
    modules, _ = _loaded_after("import gopool._worker.loop")
    assert not modules & {"gopool._core", "gopool._engine", "gopool.pool", "gopool.popen"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_headers(path: Path) -> None:
    """Every source says its licence in one line and what it is in a docstring."""
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: MIT\n")
    assert ast.get_docstring(ast.parse(text)), f"{os.fspath(path)} has no docstring"


@pytest.mark.parametrize("enabled", [True, False])
def test_first_pool_without_collections(enabled: bool) -> None:
    """The imports of a first pool are collected by nobody, and the collector is as it was."""
    code = (
        "import gc, gopool\n"
        f"gc.enable() if {enabled} else gc.disable()\n"
        "seen = []\n"
        "gc.callbacks.append(lambda phase, about: seen.append(phase))\n"
        "from gopool import context\n"
        "context._import_pool()\n"
        f"assert not seen and gc.isenabled() == {enabled} and gc.get_freeze_count() == 0\n"
        "gc.freeze(); frozen = gc.get_freeze_count()\n"
        "context._import_pool()\n"
        "assert gc.get_freeze_count() == frozen > 0\n"
    )
    assert _printed_by(code) == ""


def test_first_pools_of_two_threads_leave_the_collector_on() -> None:
    """Another thread, which has disabled it for its own first pool, enables it at that moment."""
    code = (
        "import gc, gopool\n"
        "from gopool import context\n"
        "asked = gc.isenabled\n"
        "gc.disable()\n"
        "gc.isenabled = lambda: (asked(), gc.enable())[0]\n"
        "context._import_pool()\n"
        "print(asked())\n"
    )
    assert _printed_by(code) == "True\n"
