# SPDX-License-Identifier: MIT
"""Go's heap is not in the processes that gopool forks, and no signal ends them otherwise for it."""

from __future__ import annotations

from typing import Any

import pytest

import functions as f

SCRIPT = """
import faulthandler, mmap, os, signal, sys, tempfile
import functions as f
import gopool

def bus_error():
    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        file.truncate(0)
        memory[0]

def hides():
    \"\"\"Whether a mapping of this process is left out of its forks.\"\"\"
    with open("/proc/self/smaps") as maps:
        return any(line.startswith("VmFlags:") and " wf" in line for line in maps)

def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        os.write(writer, b"x")
    except BrokenPipeError:
        return "BrokenPipeError"

def ends():
    \"\"\"How processes end that a signal of each kind hits, of their own fault and sent.\"\"\"
    codes = []
    for function, args in [
        (bus_error, ()), (f.segfault, ()), (signal.raise_signal, (signal.SIGBUS,)),
        (signal.raise_signal, (signal.SIGFPE,)), (signal.raise_signal, (signal.SIGSEGV,)),
        (signal.raise_signal, (signal.SIGURG,)), (signal.raise_signal, (signal.SIGPIPE,)),
    ]:
        process = context.Process(target=function, args=args)
        process.start()
        process.join()
        codes.append(process.exitcode)
    return codes

context = gopool.get_context("fork")
"""

ENDS = "[-7, -11, -7, -8, -11, 0, 0]\n"


def test_left_out_of_its_own_forks_only(tmp_path: Any) -> None:
    done = f.run_script(
        tmp_path,
        SCRIPT
        + """
if __name__ == "__main__":
    with context.Pool(1) as pool:
        print(pool.apply(hides), context.Pool(1).apply(hides), hides())
        later = context.Process(target=lambda: sys.exit(hides()))
        later.start()
        later.join()
        pid = os.fork()
        if not pid:
            os._exit(hides())
        print(later.exitcode, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
        flags=("-W", "ignore:This process:DeprecationWarning"),
    )
    # The first pool's workers are forked before Go is there.
    assert (done.stdout, done.stderr) == ("False True False\n1 0\n", ""), done.stderr


@pytest.mark.parametrize("faulthandler", ["", "before", "after"])
def test_signals_end_children_as_they_should(tmp_path: Any, faulthandler: str) -> None:
    """With the handlers of faulthandler, too, enabled before Go was loaded, or on top of Go's."""
    done = f.run_script(
        tmp_path,
        SCRIPT
        + f"""
if __name__ == "__main__":
    enable = {faulthandler!r}
    if enable == "before":
        faulthandler.enable()
    with context.Pool(1) as pool:
        pool.apply(os.getpid)
    if enable == "after":
        faulthandler.enable()
    print(ends())
    with context.Pool(1) as pool:
        print(pool.apply(hides), pool.apply(broken_pipe))
        try:
            pool.apply(bus_error)
        except gopool.WorkerLostError as error:
            print(error.exitcode)
""",
    )
    hidden = not faulthandler
    assert done.stdout == f"{ENDS}{hidden} BrokenPipeError\n-7\n", done.stderr


def test_handlers_of_the_program_stay(tmp_path: Any) -> None:
    """One that Python has installed before Go was loaded works in a child, as without Go."""
    done = f.run_script(
        tmp_path,
        SCRIPT
        + """
def note(number, frame):
    print("handled", number, flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGURG, note)
    signal.signal(signal.SIGFPE, note)
    with context.Pool(1) as pool:
        pool.apply(os.getpid)
    with context.Pool(1) as pool:
        print(pool.apply(hides), flush=True)
        pool.apply(signal.raise_signal, (signal.SIGURG,))
        pool.apply(signal.raise_signal, (signal.SIGFPE,))
""",
    )
    assert done.stdout == "True\nhandled 23\nhandled 8\n", done.stderr
