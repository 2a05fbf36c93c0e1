# SPDX-License-Identifier: MIT
"""What workers run in the rows of real work. Like `tasks`, it imports what it needs when called."""


def count_words(path: str) -> dict[str, int]:
    """How often each word is in a file."""
    from collections import Counter

    with open(path, encoding="utf-8") as file:
        return Counter(word for line in file for word in line.lower().split())


def thumbnail(path: str) -> bytes:
    """The image in a file as a JPEG of at most 128 pixels a side."""
    from io import BytesIO

    from PIL import Image

    with Image.open(path) as image:
        image.thumbnail((128, 128))
        file = BytesIO()
        image.save(file, "JPEG")
    return file.getvalue()


def points_in_circle(seed: int, points: int) -> int:
    """How many of as many random points of a unit square lie in the quarter of a circle."""
    import numpy

    x, y = numpy.random.default_rng(seed).random((2, points))
    return int(numpy.count_nonzero(x * x + y * y <= 1.0))


def total_price(document: str) -> int:
    """What the lines of an order, a JSON document, come to."""
    import json

    return sum(line["price"] * line["amount"] for line in json.loads(document)["lines"])
