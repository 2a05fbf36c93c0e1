# SPDX-License-Identifier: MIT
"""Shows five processes started side by side, and the ways to look at one from outside."""

import os
from multiprocessing import Process


def introduce(number):
    """Say who runs here; each line comes from a process of its own."""
    print(f"child {number} runs in process {os.getpid()}", flush=True)


def main():
    """Start all children first, then wait for each of them."""
    print(f"parent runs in process {os.getpid()}", flush=True)
    children = [Process(target=introduce, args=(number,)) for number in range(5)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print("exit codes:", [child.exitcode for child in children])
    print("still alive:", [child.is_alive() for child in children])


if __name__ == "__main__":
    main()
