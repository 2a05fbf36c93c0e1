# SPDX-License-Identifier: MIT
"""What a wheel and an sdist contain, and what building them leaves behind."""

import ast
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from .conftest import MARKED_FOLDER, Built

pytestmark = pytest.mark.slow

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
EXTENSION = "gopool/_native/_pyapi" + SUFFIX  # Go's
LANE = "gopool/_worker/_lane" + SUFFIX  # the workers' own


def _names(built: Built) -> set[str]:
    with zipfile.ZipFile(built.wheel) as wheel:
        return {name for name in wheel.namelist() if ".dist-info/" not in name}


def _extension(built: Built, folder: Path, name: str = EXTENSION) -> Path:
    with zipfile.ZipFile(built.wheel) as wheel:
        return Path(wheel.extract(name, folder))


def test_wheel_is_the_package_and_its_extensions(built: Built) -> None:
    """A wheel has every Python file of python/gopool and two shared objects, and nothing else."""
    package = built.tree / "python"
    expected = {
        str(path.relative_to(package))
        for path in (package / "gopool").rglob("*")
        if path.suffix in (".py", ".pyi") or path.name == "py.typed"
    }
    assert _names(built) == expected | {EXTENSION, LANE}
    assert "gopool/_native/go.py" not in expected, "gopy's wrapper must not be shipped"


def test_wheel_is_for_this_interpreter(built: Built) -> None:
    """The wheel's tag names the interpreter's ABI and platform: another one must not take it."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert f"-{tag}-{tag}-linux_" in built.wheel.name


def test_version_has_one_place(built: Built) -> None:
    """The wheel's version is the one in pyproject.toml, and no source file spells it again."""
    lines = (built.tree / "pyproject.toml").read_text().splitlines()
    (version,) = (ast.literal_eval(line.split("=")[1].strip()) for line in lines
                  if line.startswith("version ="))
    assert built.wheel.name.split("-")[1] == version
    sources = [*(built.tree / "python").rglob("*.py"), built.tree / "setup.py"]
    assert not [str(path) for path in sources if f'"{version}"' in path.read_text()]


def test_extension_works_from_the_wheel(built: Built, tmp_path: Path) -> None:
    """The extension alone, without gopy's Python wrapper, takes and gives ints."""
    extension = _extension(built, tmp_path)
    code = "import _pyapi; print(_pyapi.pyapi_ProtocolVersion() >= 1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=extension.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("name", [EXTENSION, LANE])
def test_extension_embeds_no_local_path(built: Built, tmp_path: Path, name: str) -> None:
    """Neither the tree, the scratch folders, the home folder nor the headers' path is inside."""
    content = _extension(built, tmp_path, name).read_bytes()
    local = [
        MARKED_FOLDER,
        "gopool-build-",
        "gopool-tree-",
        str(Path.home()) + "/",
        sysconfig.get_path("include"),
    ]
    assert not [path for path in local if path.encode() in content]


@pytest.mark.parametrize("name", [EXTENSION, LANE])
def test_extension_links_no_libpython(built: Built, tmp_path: Path, name: str) -> None:
    """The interpreter that loads the extension provides Python's symbols; libc alone is linked."""
    # The dynamic string table holds the names of needed libraries; nothing else in the file
    # is called so. Reading bytes spares the test a dependency on binutils.
    content = _extension(built, tmp_path, name).read_bytes()
    assert b"libc.so.6" in content, "the search itself must work"
    assert b"libpython" not in content


def test_building_leaves_the_tree_alone(built: Built) -> None:
    """No file of the tree is changed, added or removed: go.mod and go.sum above all."""
    assert built.after == built.before


def test_sdist_has_what_a_build_needs(built: Built) -> None:
    """Go sources, Python sources and the backend are in; tests and built files are not."""
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    needed = {"go.mod", "go.sum", "setup.py", "pyproject.toml", "LICENSE", "MANIFEST.in"}
    for folder in ("gopool", "bridge", "pyapi", "python/gopool", "build_backend"):
        needed |= {
            str(path.relative_to(built.tree))
            for path in (built.tree / folder).rglob("*")
            if path.suffix in (".go", ".py", ".pyi", ".c") and not path.name.endswith("_test.go")
        }
    assert needed <= names, sorted(needed - names)
    assert not [name for name in names if name.startswith("tests/") or name.endswith(".so")]
