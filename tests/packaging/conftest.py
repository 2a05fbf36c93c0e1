# SPDX-License-Identifier: MIT
"""One wheel and one sdist per test session, both from a copy of the tree."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BACKEND = ROOT / "build_backend"

# A folder name that occurs nowhere else, so that it can be searched for in the extension.
MARKED_FOLDER = "gopool-tree-under-test"
_NOT_SOURCES = shutil.ignore_patterns(
    *(".git", ".venv", "build", "dist", "*.so", "*.egg-info"),
    *("__pycache__", ".*_cache", ".hypothesis"),
)
_HOOK = (
    "import sys; from gopool_build import backend; "
    "print(getattr(backend, sys.argv[1])(*sys.argv[2:]))"
)


@dataclass(frozen=True)
class Built:
    """What the backend made of a tree, and what became of the tree."""

    tree: Path
    wheel: Path
    sdist: Path
    before: dict[str, str]  # relative path -> digest
    after: dict[str, str]


def digests(tree: Path) -> dict[str, str]:
    """Map each file below `tree` to a digest of its content; bytecode does not count."""
    files = (path for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def run_hook(tree: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Call one hook of the backend in its own process, in `tree`, as a front end does."""
    env = {**os.environ, "PYTHONPATH": str(tree / "build_backend"), **environ}
    return subprocess.run(
        [sys.executable, "-c", _HOOK, *arguments],
        cwd=tree,
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )


def copy_tree(target: Path) -> Path:
    """Copy the project's sources to `target` and return it."""
    shutil.copytree(ROOT, target, ignore=_NOT_SOURCES)
    return target


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build a wheel and an sdist with the backend's hooks, without pip's isolation."""
    tree = copy_tree(tmp_path_factory.mktemp("packaging") / MARKED_FOLDER)
    target = tmp_path_factory.mktemp("dist")
    before = digests(tree)
    for hook in ("build_wheel", "build_sdist"):
        done = run_hook(tree, hook, str(target))
        assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Built(tree, wheel, sdist, before, digests(tree))
