# SPDX-License-Identifier: MIT
"""The runner beside the interpreter: `python -m gopool X` does what `python X` does.

Each test runs both as subprocesses of the interpreter that runs the tests, in a
folder of its own, and compares stdout, stderr and exit status byte by byte.
"""

from __future__ import annotations

import importlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

GOPOOL = (sys.executable, "-m", "gopool")
PYTHON = (sys.executable,)
DATA = Path(__file__).parent / "data"
METHODS = ("fork", "spawn", "forkserver")
LIMIT = 60  # s; arbitrary, far above what any of these needs

# Prints what a program can see of how it was started; the rest is whether it is run by an error.
DUMP = """
import atexit, sys, warnings
main = sys.modules["__main__"]
for name, value in list(vars(main).items()):
    if name.startswith("__"):
        print(name, value)
print(vars(main) is globals(), sys.argv, sys.path)
print(list(sys.flags), sys.warnoptions, sys._xoptions)
atexit.register(lambda: print("at exit", "__file__" in vars(main)))
if len(sys.argv) > 1:
    exec(sys.argv[1])
"""

ENDINGS = {
    "falls off": "",
    "exit 7": "sys.exit(7)",
    "exit text": "sys.exit('bye')",
    "exit none": "raise SystemExit",
    "error": "def f():\n    1 / 0\nf()",
    "chained": "try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError(3) from e",
    "context": "try:\n    1 / 0\nexcept Exception:\n    [][1]",
    "group": "raise BaseException('a')",
    "interrupt": "raise KeyboardInterrupt",
    "signal": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()",
    "hook": "sys.excepthook = lambda *a: print(a[:2], '__file__' in globals())\n1 / 0",
    "broken hook": "def hook(*a): [][1]\nsys.excepthook = hook\n1 / 0",
    "exiting hook": "sys.excepthook = lambda *a: sys.exit(5)\n1 / 0",
    "no hook": "sys.excepthook = 3\n1 / 0",
}


@dataclass(frozen=True)
class Outcome:
    """What a run shows; addresses of objects are left out, since no two runs share them."""

    stdout: str
    stderr: str
    status: int


def run(*command: object, cwd: Path, stdin: str = "", env: dict[str, str] | None = None) -> Outcome:
    """Run a command to its end."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        input=stdin,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    out, err = (re.sub(r"0x[0-9a-f]+", "0x", text) for text in (done.stdout, done.stderr))
    return Outcome(out, err, done.returncode)


def same(*words: object, cwd: Path, flags: tuple[str, ...] = (), stdin: str = "") -> Outcome:
    """Run `words` by the interpreter and by the runner, and require the same outcome."""
    want = run(*PYTHON, *flags, *words, cwd=cwd, stdin=stdin)
    got = run(*PYTHON, *flags, *GOPOOL[1:], *words, cwd=cwd, stdin=stdin)
    assert got == want
    return got


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with the dump in every shape that can be run, and other small programs."""
    (tmp_path / "dump.py").write_text(DUMP)
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "__main__.py").write_text(DUMP)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import sys; print(sys.argv)\n")
    (tmp_path / "package" / "__main__.py").write_text(DUMP)
    with zipfile.ZipFile(tmp_path / "program.pyz", "w") as archive:
        archive.writestr("__main__.py", DUMP)
    py_compile.compile(str(tmp_path / "dump.py"), cfile=str(tmp_path / "compiled.pyc"))
    shutil.copy(tmp_path / "compiled.pyc", tmp_path / "compiled_too")
    (tmp_path / "link.py").symlink_to(tmp_path / "place" / "__main__.py")
    (tmp_path / "-odd.py").write_text(DUMP)
    (tmp_path / "syntax.py").write_text("def f(:\n    pass\n")
    (tmp_path / "indent.py").write_text("if 1:\nx = 2\n")
    (tmp_path / "tabs.py").write_text("if 1:\n\tx = 2\n        y = 3\n")
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\nprint(ascii('\xe9')); 1/0 # \xe9\n")
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfprint('x')\n")
    (tmp_path / "bad.pyc").write_bytes(b"x" * 40)
    (tmp_path / "short.pyc").write_bytes((tmp_path / "compiled.pyc").read_bytes()[:30])
    (tmp_path / "header.pyc").write_bytes((tmp_path / "compiled.pyc").read_bytes()[:9])
    return tmp_path


SHAPES = {
    "script": ("dump.py",),
    "relative": ("./place/../dump.py",),
    "link": ("link.py",),
    "folder": ("./place",),
    "zip": ("program.pyz",),
    "pyc": ("compiled.pyc",),
    "pyc by content": ("compiled_too",),
    "module": ("-m", "dump"),
    "module joined": ("-mdump",),
    "package": ("-m", "package"),
    "code": ("-c", DUMP),
    "stdin": ("-",),
    "after --": ("--", "-odd.py"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", ["script", "folder", "pyc", "module", "code", "stdin"])
def test_program_ends_as_under_the_interpreter(folder: Path, shape: str, ending: str) -> None:
    """`__main__`, sys.argv, sys.path, output, traceback and exit status are the interpreter's."""
    got = same(*SHAPES[shape], ENDINGS[ending], "--stats", cwd=folder, stdin=DUMP)
    assert "__name__ __main__" in got.stdout


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flag", ["-u", "-I", "-OWerror", "-Xdev"])
def test_flags_of_the_interpreter_hold(folder: Path, shape: str, flag: str) -> None:
    """Flags before -m gopool hold for the program; -I keeps its folder out of sys.path."""
    if flag == "-I" and shape.startswith(("module", "package")):
        # Under -I a module of the current folder is not found, which the outcome below shows.
        assert same(*SHAPES[shape], cwd=folder, flags=(flag,)).status == 1
        return
    got = same(*SHAPES[shape], "1 / 0", cwd=folder, flags=(flag,), stdin=DUMP)
    assert got.status == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P came with Python 3.11")
@pytest.mark.parametrize("shape", ["script", "folder", "zip", "code", "stdin"])
def test_safe_path_is_respected(folder: Path, shape: str) -> None:
    """With -P no entry of sys.path is replaced: the first is the standard library's."""
    assert same(*SHAPES[shape], cwd=folder, flags=("-P",), stdin=DUMP).status == 0


@pytest.mark.parametrize(
    "words",
    [
        ("missing.py", "--help"),
        ("missing/../x.py",),
        ("dump.py/x",),
        (".",),
        ("syntax.py",),
        ("indent.py",),
        ("tabs.py",),
        ("latin.py",),
        ("bom.py",),
        ("bad.pyc",),
        ("short.pyc",),
        ("header.pyc",),
        ("-m", "missing"),
        ("-m", "package.missing"),
        ("-m", "syntax"),
        ("-c", "def f(:"),
        ("-c", "def f():\n    [][1]\nf()"),
    ],
    ids="_".join,
)
def test_what_cannot_run_is_refused_as_by_the_interpreter(
    folder: Path, words: tuple[str, ...]
) -> None:
    """Missing files, modules and broken sources give the interpreter's sentence and status."""
    same(*words, cwd=folder)


@pytest.mark.parametrize("name", ["--stats", "top", "-c"])
def test_all_words_after_the_program_are_its_own(folder: Path, name: str) -> None:
    """Options after the program reach it; a script may be called like a command or an option."""
    (folder / name).write_text("import sys; print(sys.argv)\n")
    got = run(*GOPOOL, f"./{name}", "--start-method", "-m", "--help", cwd=folder)
    assert got == Outcome(f"['./{name}', '--start-method', '-m', '--help']\n", "", 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--nonsense", "dump.py"], "unrecognized argument: --nonsense"),
        (["-u", "dump.py"], "unrecognized argument: -u"),
        (["--start-method"], "argument --start-method: expected one argument"),
        (["--start-method", "vfork", "dump.py"], "invalid choice: 'vfork'"),
        (["--start-method=", "dump.py"], "invalid choice: ''"),
        (["-m"], "argument -m: expected one argument"),
        (["-c"], "argument -c: expected one argument"),
        ([], "a script, -m module, -c code or - is required"),
    ],
)
def test_wrong_command_line(folder: Path, words: list[str], sentence: str) -> None:
    """A wrong command line runs nothing, prints usage and one sentence, and ends with 2."""
    got = run(*GOPOOL, *words, cwd=folder)
    assert (got.stdout, got.status) == ("", 2)
    assert got.stderr.startswith("usage: ")
    assert sentence in got.stderr.splitlines()[-1]


def test_wrong_environment(folder: Path) -> None:
    """A start method that does not exist is refused in the environment as well."""
    got = run(*GOPOOL, "dump.py", cwd=folder, env={"GOPOOL_START_METHOD": "vfork"})
    assert got.status == 2
    assert "GOPOOL_START_METHOD: invalid choice: 'vfork'" in got.stderr


def test_help_and_version(folder: Path) -> None:
    """--help and --version print to stdout and end with 0."""
    usage = run(*GOPOOL, "--help", cwd=folder)
    assert (usage.stderr, usage.status) == ("", 0)
    assert "--start-method {fork,spawn,forkserver}" in usage.stdout
    version = run(*GOPOOL, "--version", cwd=folder)
    assert (version.stderr, version.status) == ("", 0)
    assert re.fullmatch(r"gopool \d\S*\n", version.stdout)


def test_console_command(folder: Path) -> None:
    """The command `gopool` replaces its own folder in sys.path and hides its own frames."""
    command = Path(sys.executable).parent / "gopool"
    want = run(*PYTHON, "dump.py", "1 / 0", cwd=folder)
    assert run(command, "dump.py", "1 / 0", cwd=folder) == want


def test_script_elsewhere_does_not_import_from_the_current_folder(folder: Path) -> None:
    """A colorsys.py in the current folder does not pass for the standard library's."""
    (folder / "colorsys.py").write_text("print('wrong')\n")
    (folder / "place" / "x.py").write_text("import colorsys\nprint('fine')\n")
    assert same("place/x.py", cwd=folder).stdout == "fine\n"


@pytest.mark.parametrize("ending", ["falls off", "exit 7", "error", "chained"])
@pytest.mark.parametrize("shape", ["script", "module", "code"])
def test_prompt_after_the_program(folder: Path, shape: str, ending: str) -> None:
    """Under -i the prompt has the program's globals, and sys.last_traceback its frames only."""
    lines = (
        "print(sorted(n for n in globals() if n != '__file__'), sys.excepthook)\n"
        "tb = getattr(sys, 'last_traceback', None)\n"
        "print(tb and tb.tb_frame.f_code)\n"
        "print('__file__' in globals())\n"
    )
    words = SHAPES[shape]
    flags = ("-i", "-q")
    want = run(*PYTHON, *flags, *words, ENDINGS[ending], cwd=folder, stdin=lines)
    got = run(*PYTHON, *flags, *GOPOOL[1:], *words, ENDINGS[ending], cwd=folder, stdin=lines)
    assert got == want
    assert "main" in got.stdout


# Children


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", ["script", "module", "option"])
def test_results_of_the_scripts_own_classes(folder: Path, shape: str, method: str) -> None:
    """Children return instances of a class of the script; they and theirs are installed."""
    shutil.copy(DATA / "own_class.py", folder)
    words: dict[str, list[object]] = {
        "script": ["own_class.py", method],
        "module": ["-m", "own_class", method],
        "option": ["--start-method", method, "own_class.py"],
    }
    got = run(*GOPOOL, *words[shape], cwd=folder)
    assert got == Outcome(
        f"[Square(0), Square(1), Square(4)] {method} True\nchild {method} True\n"
        f"grandchild {method} True\n",
        "",
        0,
    )


@pytest.mark.parametrize("method", METHODS)
def test_plain_interpreter_agrees_about_classes(folder: Path, method: str) -> None:
    """The same script under the plain interpreter differs in nothing but being installed."""
    shutil.copy(DATA / "own_class.py", folder)
    want = run(*PYTHON, "own_class.py", method, cwd=folder)
    got = run(*GOPOOL, "own_class.py", method, cwd=folder)
    assert got.stdout.replace("True", "False") == want.stdout
    assert (got.stderr, got.status) == (want.stderr, want.status)


def test_script_chooses_its_own_start_method(folder: Path) -> None:
    """The option is a default only: set_start_method neither fails nor loses against it."""
    code = (
        "import multiprocessing as m; m.set_start_method('fork'); print(m.get_start_method());"
        "m.set_start_method('spawn')"
    )
    got = run(*GOPOOL, "--start-method", "spawn", "-c", code, cwd=folder)
    assert got.stdout == "fork\n"
    assert got.stderr.splitlines()[-1] == "RuntimeError: context has already been set"


def test_option_wins_over_environment(folder: Path) -> None:
    """GOPOOL_START_METHOD is heard where there is no option; set_start_method stays possible."""
    code = "import multiprocessing as m; print(m.get_start_method(True), m.get_start_method())"
    env = {"GOPOOL_START_METHOD": "spawn"}
    assert run(*GOPOOL, "-c", code, cwd=folder, env=env).stdout == "None spawn\n"
    option = ("--start-method=forkserver", "-c", code)
    assert run(*GOPOOL, *option, cwd=folder, env=env).stdout == "None forkserver\n"
    env = {"GOPOOL_START_METHOD": ""}
    assert run(*GOPOOL, "-c", code, cwd=folder, env=env).stdout == "None fork\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_find_gopool_where_the_script_did(folder: Path, method: str) -> None:
    """gopool found by the script's sys.path edit alone is found by its children as well.

    A folder and a module of that name in the current folder must not pass for it.
    """
    hidden = folder / "hidden"
    hidden.mkdir()
    for name in ("gopool", "msgpack"):
        package = importlib.import_module(name)
        (hidden / name).symlink_to(Path(str(package.__file__)).parent)
    shutil.copy(DATA / "hidden_package.py", folder)
    for decoy in ("none", "folder", "module"):
        here = folder / decoy
        here.mkdir()
        if decoy == "folder":
            (here / "gopool").mkdir()
        if decoy == "module":
            (here / "gopool.py").write_text("print('wrong')\n")
        # -S -E: without the packages that are installed; the script adds its own folder.
        got = run(*PYTHON, "-S", "-E", "../hidden_package.py", method, hidden, cwd=here)
        assert got == Outcome("child True\n", "", 0), decoy


def test_preparation_data_is_equal_and_survives_other_wrappers(folder: Path) -> None:
    """The dict that children get equals the stdlib's; wrappers of others stay where they are."""
    got = run(*PYTHON, DATA / "wrappers.py", cwd=folder)
    assert got == Outcome("fine\n", "", 0)


# Tools around and below the runner


def test_pdb_around_the_runner(folder: Path) -> None:
    """`python -m pdb -m gopool` stops in the script, and its restart runs the same script."""
    (folder / "script.py").write_text("import sys\nvalue = sys.argv[1:]\nprint('ran', value)\n")
    lines = f"b {folder}/script.py:3\nc\np value\nc\nc\np value\nc\nq\n"
    got = run(*PYTHON, "-m", "pdb", "-m", "gopool", "script.py", "a", cwd=folder, stdin=lines)
    assert got.stdout.count("(Pdb) ['a']\n") == 2
    assert got.stdout.count("ran ['a']\n") == 2


def test_pdb_below_the_runner(folder: Path) -> None:
    """`python -m gopool -m pdb script.py` is a plain session of pdb."""
    (folder / "script.py").write_text("value = 3\nprint('ran', value)\n")
    words = ("-m", "pdb", "script.py")
    assert "ran 3" in same(*words, cwd=folder, stdin="n\nn\np value\nq\n").stdout


def test_profiler_in_both_orders(folder: Path) -> None:
    """cProfile around and below the runner counts the script's function."""
    (folder / "script.py").write_text("def work():\n    pass\nwork()\nprint('ran')\n")
    around = run(*PYTHON, "-m", "cProfile", "-m", "gopool", "script.py", cwd=folder)
    below = run(*GOPOOL, "-m", "cProfile", "script.py", cwd=folder)
    for got in (around, below):
        assert (got.stderr, got.status) == ("", 0)
        assert got.stdout.startswith("ran\n")
        assert "script.py:1(work)" in got.stdout


@pytest.mark.parametrize(
    ("order", "method"),
    [
        *(("around", method) for method in METHODS),
        # Below, coverage itself decides what __mp_main__ is, and under spawn and forkserver its
        # choice makes this script hang with the plain interpreter as well.
        ("below", "fork"),
    ],
)
def test_coverage_in_both_orders(folder: Path, order: str, method: str) -> None:
    """coverage measures the script and its children, around and below the runner."""
    pytest.importorskip("coverage", reason="coverage is not installed")
    shutil.copy(DATA / "own_class.py", folder)
    # A pool worker that gets no task makes coverage warn that it collected nothing.
    (folder / "rc").write_text(
        "[run]\nparallel = true\nconcurrency = multiprocessing\n"
        "disable_warnings = no-data-collected\n"
    )
    tool = ("-m", "coverage", "run", "--rcfile=rc")
    orders = {
        "around": (*PYTHON, *tool, "-m", "gopool", "own_class.py", method),
        "below": (*GOPOOL, *tool, "own_class.py", method),
    }
    got = run(*orders[order], cwd=folder)
    assert got.stdout.startswith(f"[Square(0), Square(1), Square(4)] {method} True\n")
    assert (got.stderr, got.status) == ("", 0)
    combined = run(*PYTHON, "-m", "coverage", "combine", "--rcfile=rc", "-q", cwd=folder)
    assert combined.status == 0, combined
    report = run(*PYTHON, "-m", "coverage", "report", "--rcfile=rc", cwd=folder)
    # Lines that only a child and only a grandchild reach are among those measured.
    assert re.search(r"^own_class\.py .* 100%", report.stdout, re.MULTILINE), report


def test_error_under_coverage_shows_the_scripts_frames(folder: Path) -> None:
    """A traceback through coverage and the runner has no frame of either."""
    pytest.importorskip("coverage", reason="coverage is not installed")
    want = run(*PYTHON, "dump.py", "1 / 0", cwd=folder)
    got = run(*PYTHON, "-m", "coverage", "run", "-m", "gopool", "dump.py", "1 / 0", cwd=folder)
    assert (got.stderr, got.status) == (want.stderr, want.status)


# --stats


@pytest.mark.parametrize("ending", ["falls off", "exit 7", "error"])
def test_stats_are_printed_once_at_the_end(folder: Path, ending: str) -> None:
    """--stats adds lines to the end of stderr, once, and changes nothing else."""
    (folder / "pools.py").write_text(
        "import multiprocessing, sys\n"
        "pool = multiprocessing.get_context('fork').Pool(2)\n"
        "print(pool.map(abs, [-1, -2]))\npool.close()\npool.join()\nexec(sys.argv[1])\n"
    )
    plain = run(*GOPOOL, "pools.py", ENDINGS[ending], cwd=folder)
    got = run(*GOPOOL, "--stats", "pools.py", ENDINGS[ending], cwd=folder)
    assert (got.stdout, got.status) == (plain.stdout, plain.status)
    assert got.stderr.startswith(plain.stderr)
    figures = got.stderr[len(plain.stderr) :].splitlines()
    assert figures, got
    assert len(set(figures)) == len(figures)
