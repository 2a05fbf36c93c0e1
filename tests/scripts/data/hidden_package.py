# SPDX-License-Identifier: MIT
"""Finds gopool by its own edit of sys.path, under the guard that children do not pass."""

import multiprocessing
import sys


def child():
    runner = sys.modules.get("gopool._install")
    print("child", runner is not None and runner.installed())


if __name__ == "__main__":
    sys.path.append(sys.argv[2])
    from gopool._install import install

    install()
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=child)
    process.start()
    process.join()
