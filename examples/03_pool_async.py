# SPDX-License-Identifier: MIT
"""Shows a pool of four workers that share twelve tasks, with a callback for each result.

Every task takes a tenth of a second. One worker would need 1.2 seconds for all, four need a good
third of a second, and the callbacks arrive as the tasks end.
"""

import os
import time
from multiprocessing import Pool

WORKERS = 4
TASKS = 12
TASK_SECONDS = 0.1


def work(number):
    """Pretend to compute; return what a caller wants to know about this task."""
    time.sleep(TASK_SECONDS)
    return number, number * number, os.getpid()


def main():
    """Submit all tasks at once and let the callback print them."""

    def show(result):
        number, square, pid = result
        print(f"  task {number:2d} of {TASKS}  ->  {square:3d}   by process {pid}", flush=True)

    print(f"{TASKS} tasks of {TASK_SECONDS} s for {WORKERS} workers:", flush=True)
    begin = time.perf_counter()
    with Pool(WORKERS) as pool:
        for number in range(1, TASKS + 1):
            pool.apply_async(work, (number,), callback=show)
        pool.close()
        pool.join()
    seconds = time.perf_counter() - begin
    print(f"all done, it took {seconds:.2f} seconds;")
    print(f"one worker alone would have needed {TASKS * TASK_SECONDS:.1f} s")


if __name__ == "__main__":
    main()
