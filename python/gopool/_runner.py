# SPDX-License-Identifier: MIT
"""The runner: `python -m gopool script.py` and the console command `gopool`.

Runs in the main process, before the user's program and below it on the stack.
It installs gopool in place of multiprocessing, then gives the program what
`python` itself would have given it: `__main__` (and `__mp_main__`, by which
results of children find the script's classes), sys.argv, sys.path[0], exit
codes and tracebacks. Children are looked after in `_children.py`.

Differences that stay: a program that walks the stack to its bottom sees the
runner's frames there, and the recursion limit counts them; a source file with a
wrong encoding or null bytes is refused in other words (those of compile()).

Source: Modules/main.c and Python/pythonrun.c of CPython 3.10-3.13 as observed
from outside; the tests compare with the interpreter that runs them.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, ModuleType, TracebackType
from typing import Any, cast

_START_METHODS = ("fork", "spawn", "forkserver")
_ENVIRONMENT = "GOPOOL_START_METHOD"

_USAGE = """\
usage: python -m gopool [options] script.py [argument ...]
       python -m gopool [options] -m module [argument ...]
       python -m gopool [options] -c code [argument ...]
       python -m gopool [options] - [argument ...]
"""

_HELP = (
    _USAGE
    + """
Run a program written for multiprocessing with its processes and pools handed to gopool.
A folder or zip file with a __main__.py and a .pyc file can be run, too. Options of the
interpreter go before -m: python -u -X dev -m gopool script.py

options:
  --start-method {fork,spawn,forkserver}
                  the start method for a program that does not choose one itself
                  (also by the environment variable GOPOOL_START_METHOD)
  --stats         print what ran to stderr at the end
  --version       print gopool's version and exit
  --help          print this text and exit
"""
)


@dataclass(frozen=True)
class _Order:
    """What the command line asks for.

    `kind` is one of file, module, code and stdin; `what` is the path, the
    module's name or the code (empty for stdin); `argv` is the program's sys.argv.
    """

    kind: str
    what: str
    argv: list[str]
    start_method: str | None
    stats: bool


@dataclass(frozen=True)
class _Entry:
    """An entry of sys.path for the program; `always`: in spite of -P and -I."""

    path: str
    always: bool = False


class _UsageError(Exception):
    """The command line is wrong; its text is the sentence to print."""


class _CannotOpenError(Exception):
    """The script cannot be read; its text is the interpreter's own sentence."""


# Runs the program in the module that it is given.
_Program = Callable[[ModuleType], None]

# The sys.argv that the last run was given, and our own arguments then: pdb's restart calls main()
# again in the same process, when sys.argv is the program's already.
_last_run: tuple[list[str], list[str]] | None = None


def main() -> int | None:
    """Run the program that sys.argv names, as `python` would, with gopool installed.

    Returns:
        None once the program has ended, else the exit code (0 after --help and
        --version, 2 for a wrong command line or a file that cannot be opened).

    Raises:
        whatever the program raises; the traceback that is printed at the end
        has the program's frames only.
    """
    global _last_run
    arguments = _arguments()
    if arguments[:1] in (["--help"], ["-h"]):
        print(_HELP, end="")
        return 0
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"gopool {_version()}")
        return 0
    try:
        order = _parse(arguments)
        program, entry = _find(order)
    except _UsageError as error:
        sys.stderr.write(f"{_USAGE}gopool: error: {error}\n")
        return 2
    except _CannotOpenError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    _install(order, entry)
    sys.argv[:] = order.argv
    _last_run = (list(order.argv), arguments)
    program(_fresh_main())
    return None


def _arguments() -> list[str]:
    """Our own command line, also where sys.argv was replaced by an earlier run."""
    if _last_run is not None and sys.argv == _last_run[0]:
        return _last_run[1]
    return sys.argv[1:]


# Command line


def _parse(arguments: list[str]) -> _Order:
    """Read options up to the first word that is none; the rest belongs to the program."""
    words = list(arguments)
    method = os.environ.get(_ENVIRONMENT) or None
    origin = _ENVIRONMENT
    stats = False
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            break
        if word == "--stats":
            stats = True
        elif name == "--start-method":
            if not equals:
                if not words:
                    raise _UsageError("argument --start-method: expected one argument")
                value = words.pop(0)
            method, origin = value, name
        elif word[:2] in ("-m", "-c"):
            _check_method(method, origin)
            what = word[2:] or (words.pop(0) if words else None)
            if what is None:
                raise _UsageError(f"argument {word}: expected one argument")
            kind = "module" if word[:2] == "-m" else "code"
            return _Order(kind, what, [word[:2], *words], method, stats)
        else:
            raise _UsageError(
                f"unrecognized argument: {word} (options of the interpreter go before -m gopool)"
            )
    _check_method(method, origin)
    if not words:
        raise _UsageError("a script, -m module, -c code or - is required")
    kind = "stdin" if words[0] == "-" else "file"
    return _Order(kind, words[0], words, method, stats)


def _check_method(method: str | None, origin: str) -> None:
    if method is not None and method not in _START_METHODS:
        choices = ", ".join(map(repr, _START_METHODS))
        raise _UsageError(f"argument {origin}: invalid choice: {method!r} (choose from {choices})")


def _version() -> str:
    from importlib import metadata

    return metadata.version("gopool")


# The program, and what becomes of sys.path


def _find(order: _Order) -> tuple[_Program, _Entry]:
    """Find the program: how to run it in a fresh `__main__`, and its entry in sys.path."""
    if order.kind == "module":
        return _module_program(order.what), _Entry(os.getcwd())
    if order.kind == "code":
        return _code_program(order.what), _Entry("")
    if order.kind == "stdin":
        return _stdin_program(), _Entry("")
    path = _absolute(order.what)
    if _is_importable_place(path):
        # What is run is found through this entry, so it is there under -P and -I as well.
        return _place_program(), _Entry(path, always=True)
    return _file_program(path), _Entry(os.path.dirname(os.path.realpath(path)))


def _absolute(path: str) -> str:
    """Make a path absolute as the interpreter does: without normalising it otherwise."""
    if os.path.isabs(path):
        return path
    if path == "." and sys.version_info >= (3, 11):
        return os.getcwd()
    return os.path.join(os.getcwd(), path)


def _is_importable_place(path: str) -> bool:
    """Tell whether `path` is a folder or zip file, into which an import can look."""
    import pkgutil

    return pkgutil.get_importer(path) is not None


def _install(order: _Order, entry: _Entry) -> None:
    """Install gopool and put the program's entry in the place of our own in sys.path.

    Meanwhile our own entry (the current folder for `python -m gopool`, the
    folder of the console command) is away, so that no file there passes for a
    module of the standard library, unless it is where gopool itself was found.
    """
    # Without sys.flags.safe_path (3.11), -I alone keeps the interpreter from adding an entry.
    has_own = not getattr(sys.flags, "safe_path", sys.flags.isolated)
    own = [sys.path.pop(0)] if has_own and sys.path else []
    lent = [path for path in own if _holds_gopool(path)]
    sys.path[:0] = lent
    try:
        from gopool._install import install

        install()
        if order.start_method is not None:
            _set_default_start_method(order.start_method)
        if order.stats:
            _print_stats_at_exit()
    finally:
        del sys.path[: len(lent)]
        if own or entry.always:
            sys.path.insert(0, entry.path)


def _holds_gopool(folder: str) -> bool:
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.realpath(folder) == os.path.realpath(home)


def _set_default_start_method(method: str) -> None:
    """Make `method` what a program gets that does not choose.

    Not by set_start_method: the program's own call would then raise "context
    has already been set". Children by spawn are told by their parent.
    """
    from multiprocessing import context

    default = cast(Any, context)._default_context
    default._default_context = default.get_context(method)


def _print_stats_at_exit() -> None:
    """Have gopool's figures printed at the end of this process, not of its children.

    As multiprocessing's own last finalizer, by its priority: by then the pools
    have ended and the children were joined. Finalizers belong to one process.
    """
    from multiprocessing import util

    def print_stats() -> None:
        from gopool._core import stats_text

        if sys.stderr is not None:
            sys.stderr.write(stats_text().rstrip("\n") + "\n")

    util.Finalize(None, print_stats, exitpriority=-1_000_000)


# `__main__`


def _fresh_main() -> ModuleType:
    """Make the module that the program runs in, and let it be `__main__` and `__mp_main__`.

    The second name is multiprocessing's alias, made when it was imported; left
    at the runner's own module, results of children would look for their
    classes there, not find them, and hang the caller.
    """
    from importlib.machinery import BuiltinImporter

    main = ModuleType("__main__")
    namespace = vars(main)
    namespace["__loader__"] = BuiltinImporter
    namespace["__annotations__"] = {}
    namespace["__builtins__"] = builtins
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    return main


def _module_program(name: str) -> _Program:
    def run(main: ModuleType) -> None:
        import runpy

        _call(lambda: cast(Any, runpy)._run_module_as_main(name))

    return run


def _place_program() -> _Program:
    def run(main: ModuleType) -> None:
        import runpy

        # False: sys.argv[0] stays the folder's or zip file's name.
        _call(lambda: cast(Any, runpy)._run_module_as_main("__main__", False))

    return run


def _code_program(text: str) -> _Program:
    def run(main: ModuleType) -> None:
        def run_code() -> None:
            code = compile(text, "<string>", "exec", dont_inherit=True)
            _show_source_lines(text, code)
            exec(code, vars(main))

        _call(run_code)

    return run


def _show_source_lines(text: str, code: CodeType) -> None:
    """Let tracebacks show lines of -c code, where the interpreter does that (3.13)."""
    if sys.version_info >= (3, 13):
        import linecache

        # 3.13.0 keeps the lines by file name, later releases by code object.
        by_code = hasattr(linecache, "_interactive_cache")
        cast(Any, linecache)._register_code(code if by_code else "<string>", text, "<string>")


def _stdin_program() -> _Program:
    def run(main: ModuleType) -> None:
        if sys.stdin is not None and sys.stdin.isatty():
            _interact(main)
            return
        source = b"" if sys.stdin is None else sys.stdin.buffer.read()
        _run_as_file(main, "<stdin>", lambda: _compile(source, "<stdin>"))

    return run


def _interact(main: ModuleType) -> None:
    """Read and run lines from a terminal, as `python -` does there."""
    import code

    try:
        import readline  # noqa: F401  (importing it gives input() its line editing)
    except ImportError:
        pass
    hint = 'Type "help", "copyright", "credits" or "license" for more information.'
    banner = f"Python {sys.version} on {sys.platform}\n{hint}"
    code.interact(banner, local=vars(main), exitmsg="")


def _file_program(path: str) -> _Program:
    from importlib.machinery import SourceFileLoader, SourcelessFileLoader
    from importlib.util import MAGIC_NUMBER

    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        # The interpreter names itself as it was called.
        reason = f"[Errno {error.errno}] {error.strerror}"
        sentence = f"{sys.orig_argv[0]}: can't open file {path!r}: {reason}"
        raise _CannotOpenError(sentence) from None
    compiled = path.endswith(".pyc") or data[:2] == MAGIC_NUMBER[:2]

    def run(main: ModuleType) -> None:
        loader = SourcelessFileLoader if compiled else SourceFileLoader
        vars(main)["__loader__"] = loader("__main__", path)
        _run_as_file(main, path, lambda: _load(data) if compiled else _compile(data, path))

    return run


def _compile(source: bytes, path: str) -> CodeType:
    return compile(source, path, "exec", dont_inherit=True)


def _load(data: bytes) -> CodeType:
    """Take the code object out of the bytes of a .pyc file."""
    import marshal
    from importlib.util import MAGIC_NUMBER

    if data[:4] != MAGIC_NUMBER:
        raise RuntimeError("Bad magic number in .pyc file")
    if len(data) < 16:
        raise EOFError("EOF read where not expected")
    try:
        code = marshal.loads(data[16:])
    except (EOFError, TypeError, ValueError):
        code = None
    if not isinstance(code, CodeType):
        raise RuntimeError("Bad code object in .pyc file")
    return code


def _run_as_file(main: ModuleType, path: str, load: Callable[[], CodeType]) -> None:
    """Run code with `__file__` set; as in the interpreter, it is gone once the code has ended."""
    namespace = vars(main)
    namespace["__file__"] = path
    namespace["__cached__"] = None

    def forget() -> None:
        namespace.pop("__file__", None)
        namespace.pop("__cached__", None)

    def run_code() -> None:
        exec(load(), namespace)

    _call(run_code, forget=forget)
    forget()


# Tracebacks


def _call(function: Callable[[], None], forget: Callable[[], None] | None = None) -> None:
    """Call `function`; of an exception, the interpreter's report leaves out our own frames.

    The exception itself goes on, so that exit code, SIGINT status and `-i`
    come out as the interpreter's own. `forget` is called after the report.
    """
    try:
        function()
    except BaseException as error:
        # The interpreter reports SystemExit only under -i. A program that deleted its hook gets
        # the interpreter's complaint about that, with all frames.
        reported = not isinstance(error, SystemExit) or sys.flags.inspect
        if reported and hasattr(sys, "excepthook"):
            sys.excepthook = _Report(error, forget)
        raise


def _without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Cut the runner's frames off the top; none is left for an error of compile()."""
    while trace is not None and trace.tb_frame.f_code.co_filename == _call.__code__.co_filename:
        trace = trace.tb_next
    return trace


class _Report:
    """A sys.excepthook for one exception: calls the program's own hook with the program's frames.

    Called by the interpreter as the last of all, after every frame has ended;
    the program's hook is back in its place by then.
    """

    def __init__(self, error: BaseException, forget: Callable[[], None] | None) -> None:
        self._error = error
        self._trace = _without_own_frames(error.__traceback__)
        self._forget = forget
        self._hook = sys.excepthook

    def __call__(
        self,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        sys.excepthook = self._hook
        if error is not self._error:
            self._hook(kind, error, trace)
            return
        error.__traceback__ = self._trace
        sys.last_traceback = self._trace
        try:
            self._hook(kind, error, self._trace)
        except SystemExit:
            # The interpreter exits at once, and forgets nothing.
            raise
        except BaseException as failure:
            self._complain(failure)
        if self._forget is not None:
            self._forget()

    def _complain(self, failure: BaseException) -> None:
        """Report a hook that failed, in the interpreter's words but without our frame."""
        failure.__traceback__ = _without_own_frames(failure.__traceback__)
        for title, error in (
            ("Error in sys.excepthook:", failure),
            ("\nOriginal exception was:", self._error),
        ):
            sys.stderr.write(f"{title}\n")
            sys.__excepthook__(type(error), error, error.__traceback__)
