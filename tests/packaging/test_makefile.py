# SPDX-License-Identifier: MIT
"""Which interpreter `make` takes for .venv, and what it says of one that will not do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import BACKEND, ROOT

STAMP = ".venv/stamps/venv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile and no .venv."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def _make(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a terminal: nothing of a `make test` around this comes through."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env={**env, **environ}, capture_output=True, text=True
    )


def _python(path: Path, version: tuple[int, int]) -> Path:
    """Write an interpreter that gives itself out for one of another version."""
    first = f"import sys; sys.version_info = {version}; sys.version = '%d.%d' % sys.version_info"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!/bin/sh\ntest \"$1\" = -c || exit 99\nexec {sys.executable} -c \"{first}\n$2\"\n"
    )
    path.chmod(0o755)
    return path


def _venv(folder: Path, version: tuple[int, int]) -> None:
    """Make what passes for a finished .venv."""
    _python(folder / ".venv/bin/python", version)
    (folder / ".venv/stamps").mkdir()
    (folder / STAMP).touch()


def test_missing_interpreter_is_one_sentence(folder: Path) -> None:
    """A PYTHON that does not exist is named, before anything is made."""
    done = _make(folder, STAMP, "PYTHON=python-of-nowhere")
    assert done.returncode != 0
    assert done.stdout.startswith("gopool: PYTHON=python-of-nowhere is not found: ")
    assert not (folder / ".venv").exists()


def test_old_interpreter_is_one_sentence(folder: Path) -> None:
    """A Python that is too old is told so before .venv is made, so that no bad one stays."""
    old = _python(folder / "old-python", (3, 9))
    done = _make(folder, STAMP, f"PYTHON={old}")
    assert done.returncode != 0
    assert f"gopool needs Python 3.10 or newer, {old} is 3.9: " in done.stderr
    assert not (folder / ".venv").exists()


def test_version_is_that_of_the_build() -> None:
    """The Makefile asks for the version that the build asks for."""
    pattern = r"MIN_PYTHON = \((\d+), (\d+)\)"
    (wanted,) = re.findall(pattern, (BACKEND / "gopool_build/checks.py").read_text())
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"sys\.version_info < \((\d+), (\d+)\)", makefile) == [wanted]
    assert f"gopool needs Python {'.'.join(wanted)} or newer" in makefile


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_another_interpreter_makes_venv_anew(folder: Path, given: str) -> None:
    """PYTHON counts also when .venv is there; the one that .venv has changes nothing."""
    _venv(folder, (3, 11))
    for version, stale in (((3, 11), 0), ((3, 13), 1)):
        python = str(_python(folder / "python", version))
        arguments = [f"PYTHON={python}"] if given == "argument" else []
        environ = {"PYTHON": python} if given == "environment" else {}
        assert _make(folder, "-q", STAMP, *arguments, **environ).returncode == stale


def test_venv_stays_where_nothing_is_asked_for(folder: Path) -> None:
    """Without PYTHON the .venv that is there is used, whatever python3 is."""
    _venv(folder, (3, 12))
    assert _make(folder, "-q", STAMP).returncode == 0


def test_broken_venv_is_made_anew(folder: Path) -> None:
    """A .venv whose interpreter is gone does not stay."""
    _venv(folder, (3, 12))
    (folder / ".venv/bin/python").unlink()
    assert _make(folder, "-q", STAMP).returncode == 1


def test_libraries_to_compare_with_are_those_of_the_group() -> None:
    """Where the group can't be installed as a whole, make tries its members one by one."""
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    done = _make(ROOT, "--eval=show: ; @echo $(BENCH_GROUP)", "show")
    assert done.stdout.split() == groups["bench"]
