# SPDX-License-Identifier: MIT
"""A pool whose results are of a class of this script, and a child that makes a child.

Each line ends with the start method and with whether gopool is installed there.
"""

import multiprocessing
import sys


class Square:
    def __init__(self, number):
        self.value = number * number

    def __repr__(self):
        return f"Square({self.value})"


def installed():
    runner = sys.modules.get("gopool._install")
    return runner is not None and runner.installed()


def tell(name):
    print(name, multiprocessing.get_start_method(), installed(), flush=True)


def child():
    tell("child")
    process = multiprocessing.Process(target=tell, args=("grandchild",))
    process.start()
    process.join()


def main():
    if len(sys.argv) > 1:
        multiprocessing.set_start_method(sys.argv[1])
    with multiprocessing.Pool(2) as pool:
        results = pool.map(Square, range(3))
        print(results, multiprocessing.get_start_method(), installed(), flush=True)
        pool.close()
        pool.join()
    process = multiprocessing.Process(target=child)
    process.start()
    process.join()


if __name__ == "__main__":
    main()
