# SPDX-License-Identifier: MIT
"""From the Go package ./pyapi to one extension module, `_pyapi.<EXT_SUFFIX>`.

Everything happens in a scratch copy of the Go sources, because gopy and go write where they
run. `gopy build` itself is not used: it links libpython and embeds local paths. So the
steps are done one by one here, with gopy as the generator only:

1. compile ./pyapi, for errors in plain Go terms and so that gopy has nothing left to print;
2. `gopy gen`: pyapi.go (cgo side) and build.py (a description for pybindgen);
3. replace the `#cgo` lines, keep the interpreter lock, tidy the imports with goimports;
4. `cgo -exportheader`: the C header; build.py: the module's C source;
5. `go build -buildmode=c-shared`: all of it into one shared object.

gopy's Python wrapper (go.py, pyapi.py) is left behind: importing it costs more than all else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import BuildError
from .checks import (
    Platform,
    check_compiler,
    check_headers,
    check_platform,
    find_compiler,
    include_dirs,
)
from .toolchain import need_go, required_version

GO_SOURCES = ("go.mod", "go.sum", "gopool", "bridge", "pyapi")
GENERATED = "pyext"  # folder of the generated package, inside the copied module

# All that gopy may print. Any other line is a warning, for example that it leaves out a
# function which it cannot bind.
_EXPECTED_OUTPUT = re.compile(
    r"go build -v \./pyapi|--- Processing package: gopool/pyapi ---|go: downloading .*|[\w./-]+"
)
_CGO_LINE = re.compile(r"^#cgo (\w+):.*$", re.MULTILINE)
_LOCK_LINES = re.compile(
    r"^func pyapi_\w+\(.*\{\n"
    r"(\t_saved_thread := C\.PyEval_SaveThread\(\)\n"
    r"\tdefer C\.PyEval_RestoreThread\(_saved_thread\)\n)",
    re.MULTILINE,
)
_BOUND_FUNCTION = re.compile(
    r"^(?:mod\.add|add_checked)\w*\((?:mod, )?'(pyapi_\w+)', (.*)$", re.MULTILINE
)
_C_TYPE = re.compile(r"(?:retval|param)\('([^']*)'")


def build_extension(root: Path, target: Path, python: str = sys.executable) -> None:
    """Build the extension from the Go sources in `root` into the file `target`.

    Raises BuildError with one sentence where the machine lacks something; where a command
    fails, its output follows the sentence.
    """
    check_platform(Platform.current())
    includes = include_dirs()
    check_headers(includes[0], ".".join(map(str, sys.version_info[:2])))
    compiler = find_compiler(os.environ)
    check_compiler(compiler)
    toolchain = need_go(required_version(root / "go.mod"), os.environ)
    with tempfile.TemporaryDirectory(prefix="gopool-build-") as scratch:
        module = Path(scratch) / "gopool"
        copy_go_sources(root, module)
        env = toolchain.environment(os.environ, compiler, Path(scratch))
        steps = _Steps(module, env, python, includes)
        steps.generate()
        steps.write_c_source()
        built = steps.link()
        _replace(built, target)


def copy_go_sources(root: Path, module: Path) -> None:
    """Copy what `go build ./pyapi` reads, without tests."""
    module.mkdir()
    for name in GO_SOURCES:
        source = root / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("*_test.go", "testdata")
            shutil.copytree(source, module / name, ignore=ignored)
        else:
            shutil.copy2(source, module / name)


def unexpected_output(printed: str) -> list[str]:
    """Return the lines of gopy's output that are not known to be harmless."""
    lines = (line.strip() for line in printed.splitlines())
    return [line for line in lines if line and not _EXPECTED_OUTPUT.fullmatch(line)]


def functions_beyond_ints(description: str) -> list[str]:
    """Return the pyapi functions in gopy's build.py that take or give anything but ints.

    No result counts too: gopy gives such a function an extra parameter.
    """
    return [
        name
        for name, rest in _BOUND_FUNCTION.findall(description)
        if rest.startswith("None") or set(_C_TYPE.findall(rest)) - {"int64_t"}
    ]


def replace_cgo_lines(source: str, includes: Iterable[Path]) -> str:
    """Swap gopy's `#cgo` lines for ones that link no libpython and embed no path.

    The interpreter that loads the extension provides Python's symbols.
    """
    flags = {
        "CFLAGS": " ".join(f'"-I{path}"' for path in includes),
        "LDFLAGS": "-Wl,--allow-shlib-undefined",
    }
    replaced, count = _CGO_LINE.subn(lambda line: f"#cgo {line[1]}: {flags[line[1]]}", source)
    if count != len(flags):
        raise BuildError(
            f"gopool: gopy wrote {count} #cgo lines where {len(flags)} were expected: "
            "go.mod pins a gopy that this build does not know."
        )
    return replaced


def keep_interpreter_lock(source: str) -> str:
    """Take out gopy's release and retake of the interpreter lock round each call.

    No function of pyapi blocks or waits for Python, so there is nothing to release it for; it
    costs as much as the call, and each release lets another Python thread in between two
    submissions.
    """
    kept, count = _LOCK_LINES.subn(lambda found: found[0].removesuffix(found[1]), source)
    if count == 0:
        raise BuildError(
            "gopool: gopy's calls do not release the interpreter lock in the known way: "
            "go.mod pins a gopy that this build does not know."
        )
    return kept


class _Steps:
    """The commands of one build, run in the copied module."""

    def __init__(
        self, module: Path, env: dict[str, str], python: str, includes: list[Path]
    ) -> None:
        self.module, self.env, self.python, self.includes = module, env, python, includes
        self.generated = module / GENERATED

    def generate(self) -> None:
        """Steps 1 to 3: pyapi.go and build.py."""
        self._run("go", "build", "./pyapi")
        options = [f"-vm={self.python}", f"-output={self.generated}", "-no-make"]
        printed = self._run("go", "tool", "gopy", "gen", *options, "./pyapi")
        if warnings := unexpected_output(printed):
            raise BuildError(f"gopool: gopy cannot bind all of pyapi: {'; '.join(warnings)}")
        description = (self.generated / "build.py").read_text(encoding="utf-8")
        if names := functions_beyond_ints(description):
            raise BuildError(f"gopool: pyapi may only take and return ints: {', '.join(names)}")
        wrapper = self.generated / "pyapi.go"
        source = wrapper.read_text(encoding="utf-8")
        source = keep_interpreter_lock(replace_cgo_lines(source, self.includes))
        wrapper.write_text(source, encoding="utf-8")
        self._run("go", "tool", "goimports", "-w", str(wrapper))

    def write_c_source(self) -> None:
        """Step 4: pyapi_go.h and pyapi.c, without linking anything for the header."""
        flags = [f"-I{path}" for path in self.includes]
        command = ["go", "tool", "cgo", "-objdir", str(self.module / "cgo")]
        command += ["-exportheader", "pyapi_go.h", "--", *flags, "pyapi.go"]
        self._run(*command, cwd=self.generated)
        self._run(self.python, "build.py", cwd=self.generated)

    def link(self) -> Path:
        """Step 5: the shared object."""
        built = self.module / "_pyapi.so"
        # gopy's generated C does not use every helper in it: no warnings about that.
        env = {**self.env, "CGO_CFLAGS": self.env["CGO_CFLAGS"] + " -w"}
        command = ["go", "build", "-buildmode=c-shared", "-ldflags", "-s -w", "-o", str(built), "."]
        self._run(*command, cwd=self.generated, env=env)
        return built

    def _run(
        self, *command: str, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> str:
        """Run one command and return all it printed; BuildError with that if it fails."""
        env = env or self.env
        program = shutil.which(command[0], path=env["PATH"]) or command[0]
        done = subprocess.run(
            [program, *command[1:]],
            cwd=cwd or self.module,
            env=env,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode != 0:
            called = " ".join(command[:4])
            raise BuildError(f"gopool: `{called} ...` failed in the build:\n{done.stdout}")
        return done.stdout


def _replace(built: Path, target: Path) -> None:
    """Put the built file in place by a rename: a running process may have the old one mapped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.{os.getpid()}.new")
    shutil.copy2(built, beside)
    os.replace(beside, target)
