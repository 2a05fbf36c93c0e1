# SPDX-License-Identifier: MIT
"""Loading a second copy of the Go extension, from a fresh inode (for _core.py alone).

Memory first, then a temporary file, then a file beside the original: vm.memfd_noexec forbids the
first on some machines, a /tmp mounted noexec the second.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from types import ModuleType

from gopool._worker import filesize
from gopool.exceptions import CoreError


def load(name: str) -> ModuleType:
    """Load a copy of the extension module `name`, which is not put into sys.modules.

    Raises:
        CoreError: no way to make a copy works; the text has them all.
    """
    origin = _origin(name)
    errors = []
    for attempt in (_copy_in_memory, _copy_in_tmpdir, _copy_beside):
        try:
            with attempt(origin) as path:
                return _load_from(name, path)
        except (ImportError, OSError) as error:
            errors.append(f"{attempt.__name__}: {error}")
    raise CoreError("no copy of the Go extension can be loaded: " + "; ".join(errors))


def size(name: str) -> int:
    """How many bytes a copy of the extension module takes.

    Raises:
        CoreError: it can't be found.
    """
    return os.path.getsize(_origin(name))


def _origin(name: str) -> str:
    """Where the extension module is installed.

    Not asked of importlib's find_spec: it would answer with the module that is loaded already,
    which in a child of a child is itself a copy, whose path means nothing here.
    """
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_native")
    spec = importlib.machinery.PathFinder.find_spec(name, [folder])
    if spec is None or spec.origin is None:
        raise CoreError("the Go extension can't be found: install gopool again")
    return spec.origin


def _load_from(name: str, path: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def _copy_in_memory(origin: str) -> Iterator[str]:
    filesize.check(os.path.getsize(origin))
    fd = os.memfd_create("gopool-core", os.MFD_CLOEXEC)
    try:
        with open(origin, "rb") as source, open(fd, "wb", closefd=False) as copy:
            shutil.copyfileobj(source, copy)
        # The interpreter keeps loaded extensions by path, and a forked child inherits that
        # table: with the pid in it, no generation finds its parent's copy.
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)


@contextlib.contextmanager
def _copy_in_folder(origin: str, folder: str | None) -> Iterator[str]:
    filesize.check(os.path.getsize(origin))
    with tempfile.NamedTemporaryFile(dir=folder, prefix="gopool-core-", suffix=".so") as copy:
        with open(origin, "rb") as source:
            shutil.copyfileobj(source, copy)
        copy.flush()
        yield copy.name


def _copy_in_tmpdir(origin: str) -> contextlib.AbstractContextManager[str]:
    return _copy_in_folder(origin, None)


def _copy_beside(origin: str) -> contextlib.AbstractContextManager[str]:
    return _copy_in_folder(origin, os.path.dirname(origin))
