# SPDX-License-Identifier: MIT
"""Shows that processes have names: numbered ones by default, or one of your own."""

from multiprocessing import Process, current_process


def report(color):
    """Print under which name this process runs."""
    print(f"{current_process().name} paints in {color}", flush=True)


def main():
    """Run one child after the other, so that the lines keep their order."""
    for color in ("red", "green", "blue"):
        child = Process(target=report, args=(color,))
        child.start()
        child.join()
    named = Process(target=report, args=("gold",), name="goldsmith")
    named.start()
    named.join()
    print(f"{named.name} ended with exit code {named.exitcode}")


if __name__ == "__main__":
    main()
