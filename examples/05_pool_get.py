# SPDX-License-Identifier: MIT
"""Shows result objects: get() waits for one result, or raises what the task raised."""

from multiprocessing import Pool


def invert(number):
    """Return 1 / number; zero fails in the worker."""
    return 1 / number


def main():
    """Collect results in the order of submission, errors included."""
    with Pool(3) as pool:
        results = [pool.apply_async(invert, (number,)) for number in (1, 2, 0, 4, 5)]
        pool.close()
        pool.join()
        print("ready:", all(result.ready() for result in results))
        for position, result in enumerate(results):
            try:
                print(f"result {position}: {result.get()}")
            except ZeroDivisionError as error:
                print(f"result {position}: {type(error).__name__}: {error}")
                print(f"  its cause is a {type(error.__cause__).__name__} from the worker")


if __name__ == "__main__":
    main()
