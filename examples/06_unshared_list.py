# SPDX-License-Identifier: MIT
"""Shows that processes share no memory: each child changes a copy of its own."""

from multiprocessing import Process

basket = []


def put(fruit):
    """Append to the list, which is the copy of this process."""
    basket.append(fruit)
    print(f"child: the basket holds {basket}", flush=True)


def main():
    """Let three children fill the basket, and find it empty here."""
    children = [Process(target=put, args=(fruit,)) for fruit in ("apple", "pear", "plum")]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print(f"parent: the basket holds {basket}")


if __name__ == "__main__":
    main()
