# SPDX-License-Identifier: MIT
"""Shows a pool that runs different functions at the same time, each in a worker of its own."""

import os
import random
import time
from multiprocessing import Pool


def cook(dish, longest):
    """Take a random time of at most `longest` seconds."""
    print(f"{dish} is started by process {os.getpid()}", flush=True)
    begin = time.perf_counter()
    time.sleep(random.uniform(0, longest))
    print(f"{dish} is ready after {time.perf_counter() - begin:.2f} seconds", flush=True)


def soup():
    """Cook the first course."""
    cook("soup", 0.2)


def roast():
    """Cook what takes longest."""
    cook("roast", 0.6)


def salad():
    """Cook next to nothing."""
    cook("salad", 0.1)


def cake():
    """Cook the last course."""
    cook("cake", 0.4)


def main():
    """Submit one call for each function and wait for all."""
    print(f"the kitchen is process {os.getpid()}", flush=True)
    with Pool(4) as pool:
        for course in (soup, roast, salad, cake):
            pool.apply_async(course)
        print("waiting for all courses", flush=True)
        pool.close()
        pool.join()
    print("dinner is served")


if __name__ == "__main__":
    main()
