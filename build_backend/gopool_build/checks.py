# SPDX-License-Identifier: MIT
"""Is this machine able to build gopool? Each `check_*` raises BuildError with one sentence.

The checks take what they look at as arguments, so that a test can fake any machine.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import BuildError

MIN_PYTHON = (3, 10)
# The names that `uname -m` gives for the two supported processors.
MACHINES = ("x86_64", "amd64", "aarch64", "arm64")
# In the order in which they are tried when CC is not set; gcc is cgo's own default.
COMPILERS = ("gcc", "clang", "cc")


@dataclass(frozen=True)
class Platform:
    """The facts on which support depends."""

    system: str  # as in sys.platform
    machine: str  # as in `uname -m`
    libc: str  # "glibc", or whatever else is there
    implementation: str  # as in sys.implementation.name
    python: tuple[int, int]
    bits: int  # of the interpreter: 32 on a 64-bit kernel is possible

    @classmethod
    def current(cls) -> Platform:
        """Describe the interpreter that runs this."""
        return cls(
            system=sys.platform,
            machine=platform.machine().lower(),
            libc=_libc_name(),
            implementation=sys.implementation.name,
            python=sys.version_info[:2],
            bits=64 if sys.maxsize > 2**32 else 32,
        )


def _libc_name() -> str:
    """Name the C library; only glibc answers this confstr name."""
    try:
        answer = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        answer = ""
    return answer.split(" ")[0] or "musl or another C library"


def check_platform(found: Platform) -> None:
    """Raise BuildError unless gopool supports the platform."""
    if found.system != "linux":
        raise BuildError(f"gopool runs on Linux only, this is {found.system}: use Linux or WSL 2.")
    if found.machine not in MACHINES or found.bits != 64:
        raise BuildError(
            f"gopool supports 64-bit x86-64 and arm64, this is {found.bits}-bit Python on "
            f"{found.machine}: use one of those machines."
        )
    if found.libc != "glibc":
        raise BuildError(
            f"gopool needs glibc, this system has {found.libc}: use an image that is based on "
            "glibc, such as Debian instead of Alpine."
        )
    if found.implementation != "cpython":
        raise BuildError(f"gopool needs CPython, this is {found.implementation}: use CPython.")
    if found.python < MIN_PYTHON:
        have, want = (".".join(map(str, version)) for version in (found.python, MIN_PYTHON))
        raise BuildError(f"gopool needs Python {want} or newer, this is {have}: use a newer one.")


def check_headers(include: Path, version: str) -> None:
    """Raise BuildError unless Python.h lies in the interpreter's include folder."""
    if not (include / "Python.h").is_file():
        raise BuildError(
            f"gopool: Python.h of Python {version} is not in {include}: install the headers, "
            f"for example with `apt-get install python{version}-dev`."
        )


def find_compiler(
    environ: Mapping[str, str], which: Callable[[str], str | None] = shutil.which
) -> str:
    """Return the C compiler command that cgo shall use, or raise BuildError."""
    wanted = environ.get("CC", "").strip()
    if wanted:
        if which(shlex.split(wanted)[0]):
            return wanted
        raise BuildError(
            f"gopool: CC is set to {wanted!r}, which is not found: correct or unset it."
        )
    for name in COMPILERS:
        if which(name):
            return name
    raise BuildError(
        f"gopool: no C compiler found (tried {', '.join(COMPILERS)}): install one, for example "
        "with `apt-get install gcc`, or name it in CC."
    )


def check_compiler(
    compiler: str, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> None:
    """Raise BuildError unless the compiler works and finds the C library's headers."""
    command: Sequence[str] = [*shlex.split(compiler), "-fsyntax-only", "-x", "c", "-"]
    done = run(command, input="#include <stdlib.h>\n", check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(
            f"gopool: the C compiler {compiler!r} cannot compile a file that includes stdlib.h: "
            "install the C library's headers, for example with `apt-get install libc6-dev`."
        )


def include_dirs() -> list[Path]:
    """Return the folders of Python.h and of pyconfig.h (often the same one)."""
    paths = (sysconfig.get_path("include"), sysconfig.get_path("platinclude"))
    return [Path(path) for path in dict.fromkeys(paths)]
