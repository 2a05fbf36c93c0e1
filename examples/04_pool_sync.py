# SPDX-License-Identifier: MIT
"""Shows apply(), which waits for each result: ordered, but only one worker is ever busy."""

import time
from multiprocessing import Pool


def greet(name, mark="."):
    """Print from the worker and return to the caller."""
    time.sleep(0.05)
    print(f"worker: hello {name}{mark}", flush=True)
    return len(name)


def main():
    """Call a worker as if it were a function of this process."""
    begin = time.perf_counter()
    with Pool(3) as pool:
        for name in ("Ada", "Grace", "Edsger", "Barbara"):
            length = pool.apply(greet, (name,), {"mark": "!"})
            print(f"parent: {name} has {length} letters", flush=True)
        pool.close()
        pool.join()
    print(f"it took {time.perf_counter() - begin:.2f} seconds")


if __name__ == "__main__":
    main()
