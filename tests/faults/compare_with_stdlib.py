# SPDX-License-Identifier: MIT
"""Each failure under gopool and under plain multiprocessing, on the same input, side by side.

    python tests/faults/compare_with_stdlib.py

Every case runs in an interpreter of its own that has 5 seconds; what is not done then hangs.
No test: what it prints is for people.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

LIMIT = 5  # seconds

PRELUDE = """
import contextlib, os, signal, subprocess, sys, threading, time
import {package} as mp
import functions as f
import sabotage as s

def show(get):
    try:
        print("returned", repr(get())[:60])
    except BaseException as error:
        print(type(error).__name__ + ":", str(error).splitlines()[0][:110] if str(error) else "")

if __name__ == "__main__":
    context = mp.get_context("fork")
"""

# name -> body; each is indented into the guard of the prelude.
CASES = {
    "worker dies in a task": """
        pool = context.Pool(2)
        lost = pool.apply_async(s.act, ("SIGKILL",))
        others = [pool.apply_async(f.square, (x,)) for x in range(4)]
        show(lost.get)
        print("others:", [r.get() for r in others])
    """,
    "worker dies in a chunk of map": """
        pool = context.Pool(2)
        show(lambda: pool.map(s.act_or_take, ["", "segfault", ""], 1))
    """,
    "worker dies idle": """
        pool = context.Pool(1)
        os.kill(pool.apply(f.pid), signal.SIGKILL)
        show(pool.apply_async(f.square, (3,)).get)
    """,
    "argument does not pickle": """
        pool = context.Pool(1)
        show(pool.apply_async(f.identity, (f.BadArgument(),)).get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "argument does not unpickle": """
        pool = context.Pool(1)
        show(pool.apply_async(f.identity, (f.Bomb(int, "no number"),)).get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "result does not pickle": """
        pool = context.Pool(1)
        show(pool.apply_async(f.make_lambda).get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "exception does not unpickle here": """
        pool = context.Pool(1)
        show(pool.apply_async(f.raise_unpicklable_here).get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "dropped right after apply_async": """
        result = context.Pool(1).apply_async(f.square, (3,))
        show(result.get)
    """,
    "task raises SystemExit": """
        pool = context.Pool(1)
        show(pool.apply_async(s.act, ("SystemExit",)).get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "task raises KeyboardInterrupt": """
        pool = context.Pool(1)
        show(pool.apply_async(s.act, ("KeyboardInterrupt",)).get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "callback raises": """
        pool = context.Pool(1)
        pool.apply_async(f.square, (2,), callback=lambda _: 1 / 0).wait()
        show(pool.apply_async(f.square, (3,)).get)
    """,
    "initializer raises": """
        pool = context.Pool(1, f.fail_initializer)
        show(pool.apply_async(f.square, (3,)).get)
    """,
    "task closes all descriptors": """
        pool = context.Pool(1)
        show(pool.apply_async(os.closerange, (3, 256)).get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "task forks by itself": """
        pool = context.Pool(1)
        show(pool.apply_async(f.fork_and_return).get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "terminate() with a task pending": """
        pool = context.Pool(1)
        result = pool.apply_async(time.sleep, (60,))
        pool.terminate()
        show(result.get)
    """,
    "parent killed by SIGKILL": """
        pool = context.Pool(1)
        pid = pool.apply(f.pid)
        pool.apply_async(time.sleep, (60,))
        if os.fork() == 0:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1)
            try:
                alive = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
            except OSError:
                alive = "Z"
            print("the worker", "is gone" if alive == "Z" else "lives on", flush=True)
            alive == "Z" or os.kill(pid, signal.SIGKILL)
            os._exit(0)
        time.sleep(60)
    """,
    "input iterable raises in imap": """
        pool = context.Pool(1)
        items = pool.imap(f.square, (1 // (2 - x) for x in range(4)))
        print([next(items), next(items)])
        show(lambda: next(items))
    """,
    "close(), join() after half an imap": """
        pool = context.Pool(1)
        items = pool.imap(f.square, range(1000))
        next(items)
        pool.close()
        pool.join()
        print("joined")
    """,
    "a task takes too long": """
        pool = context.Pool(1)
        own = {"timeout": 0.2} if mp.__name__ == "gopool" else {}  # the stdlib has get(0.2)
        result = pool.apply_async(time.sleep, (60,), **own)
        show(lambda: result.get(None if own else 0.2))
        print("then:", pool.apply(f.square, (3,)))
    """,
    "cancel() of a queued and a running task": """
        pool = context.Pool(1)
        running = pool.apply_async(time.sleep, (60,))
        queued = pool.apply_async(f.square, (2,))
        show(lambda: queued.cancel())
        show(lambda: running.cancel(terminate=True))
        show(running.get)
        print("then:", pool.apply(f.square, (3,)))
    """,
    "no main guard under spawn": """
        import tempfile
        script = tempfile.NamedTemporaryFile("w", suffix=".py")
        script.write(f'import {mp.__name__} as mp\\n'
                     'pool = mp.get_context("spawn").Pool(1)\\n'
                     'try: pool.map(abs, [1])\\n'
                     'except BaseException as error:\\n'
                     '    print(type(error).__name__ + ":", str(error)[:95])\\n')
        script.flush()
        subprocess.run([sys.executable, "-u", script.name])
    """,
    "Ctrl-C at a terminal, four tasks busy": """
        import tempfile
        kept = tempfile.TemporaryDirectory()
        folder = kept.name
        items = [(f"{folder}/{i}", f"{folder}/never") for i in range(4)]
        master, terminal = os.openpty()
        program = subprocess.Popen(
            [sys.executable, "-c",
             "import os, functions as f, " + mp.__name__ + " as mp\\n"
             "os.close(os.open(os.ttyname(0), os.O_RDWR))\\n"
             'with mp.get_context("fork").Pool(4) as pool:\\n'
             f"    pool.starmap(f.touch_and_wait, {items}, 1)"],
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
        os.close(terminal)
        while len(os.listdir(folder)) < 4:
            time.sleep(0.01)
        begun = time.monotonic()
        os.write(master, b"\\x03")
        text = b""
        with contextlib.suppress(OSError):
            while data := os.read(master, 65536):
                text += data
        print("exit status", program.wait(), f"after {time.monotonic() - begun:.1f} s,",
              text.count(b"Traceback"), "tracebacks,",
              text.count(b"KeyboardInterrupt"), "times KeyboardInterrupt")
    """,
}


def run(package: str, body: str) -> str:
    """What a case prints, on one line; HANGS where it did not end."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    indented = "\n".join(line[4:] for line in body.splitlines())
    # A session of its own, so that nothing of a case that hangs is left.
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-u", "-c", PRELUDE.replace("{package}", package)
         + indented],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        _kill_session(process.pid)
        text, _ = process.communicate()
        text += "HANGS"
    finally:
        _kill_session(process.pid)
    return "; ".join(text.split("\n")).strip("; ")


def _kill_session(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def main() -> None:
    for name, body in CASES.items():
        print(f"{name}\n  gopool: {run('gopool', body)}", flush=True)
        print(f"  stdlib: {run('multiprocessing', body)}", flush=True)


if __name__ == "__main__":
    main()
