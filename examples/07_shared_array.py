# SPDX-License-Identifier: MIT
"""Shows shared memory: an Array and a Value that children change for everybody."""

from multiprocessing import Array, Process, Value


def square_part(numbers, total, first, last):
    """Square one part of the array in place and add it to the total."""
    for index in range(first, last):
        numbers[index] *= numbers[index]
    with total.get_lock():
        total.value += sum(numbers[first:last])


def main():
    """Split an array between two children."""
    numbers = Array("i", range(10))
    total = Value("i", 0)
    bounds = [(0, 5), (5, 10)]
    children = [Process(target=square_part, args=(numbers, total, *part)) for part in bounds]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print("squares:", numbers[:])
    print("total:", total.value)


if __name__ == "__main__":
    main()
