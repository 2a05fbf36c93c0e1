# SPDX-License-Identifier: MIT
"""The rows of real work, on data that each measurement makes for itself, always the same."""

from __future__ import annotations

from functools import partial
from time import perf_counter

from benchmarks.libraries import ALL, GOPOOL, PAIR
from benchmarks.rows import HIGHER, Measurement, Setup, check, finish, quantile, rate, row
from benchmarks.workload_tasks import count_words, points_in_circle, thumbnail, total_price

_FILES = 64
_WORDS = 20_000  # in each file
_VOCABULARY = 5_000

_PICTURES = 16
_PICTURE_SIZE = (1200, 900)
_USES = 4  # of each picture in one repeat

_SEEDS = 64
_POINTS = 250_000

_DOCUMENTS = 10_000
_LINES = 5  # of each document

_SAMPLES = 1_000
_FOLDS = 8


@row("words", "word count over 64 files", "files/s", HIGHER, libraries=ALL)
def words(setup: Setup) -> Measurement:
    from collections import Counter
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="benchmark-") as folder:
        paths = _text_files(folder, _FILES, setup.size(_WORDS, 100))
        expected = sum(map(count_words, paths), Counter())

        def body(pool) -> list:
            total: Counter = Counter()
            for counts in pool.imap_unordered(count_words, paths):
                total.update(counts)
            return sorted(total.items())

        return rate(setup, len(paths), body, sorted(expected.items()))


def _text_files(folder: str, files: int, words: int) -> list[str]:
    from random import Random

    random = Random(1)
    vocabulary = [
        "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 10)))
        for _ in range(_VOCABULARY)
    ]
    paths = []
    for number in range(files):
        paths.append(f"{folder}/{number}.txt")
        text = random.choices(vocabulary, k=words)
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.writelines(
                " ".join(text[first : first + 12]) + "\n" for first in range(0, words, 12)
            )
    return paths


@row(
    "thumbnails", "64 thumbnails of JPEG files, Pillow", "images/s", HIGHER, libraries=ALL,
    needs=("PIL",),
)  # fmt: skip
def thumbnails(setup: Setup) -> Measurement:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="benchmark-") as folder:
        pictures = _pictures(folder, setup.size(_PICTURES, 2))
        expected = [thumbnail(path) for path in pictures] * _USES
        paths = pictures * _USES
        return rate(setup, len(paths), lambda pool: pool.map(thumbnail, paths), expected)


def _pictures(folder: str, count: int) -> list[str]:
    from PIL import Image

    noise = Image.effect_noise(_PICTURE_SIZE, 50)
    shades = Image.linear_gradient("L").resize(_PICTURE_SIZE)
    paths = []
    for number in range(count):
        paths.append(f"{folder}/{number}.jpg")
        turned = shades.rotate(number * 360 / count)
        Image.merge("RGB", (noise, shades, turned)).save(paths[-1], quality=85)
    return paths


@row(
    "monte-carlo", "64 tasks of 250,000 random points, numpy", "tasks/s", HIGHER, libraries=ALL,
    needs=("numpy",),
)  # fmt: skip
def monte_carlo(setup: Setup) -> Measurement:
    task = partial(points_in_circle, points=setup.size(_POINTS, 1_000))
    seeds = list(range(_SEEDS))
    expected = [task(seed) for seed in seeds]
    return rate(setup, _SEEDS, lambda pool: pool.map(task, seeds), expected)


@row("json", "10,000 JSON documents of 350 bytes, one by one", "documents/s", HIGHER, libraries=ALL)
def documents(setup: Setup) -> Measurement:
    orders = _orders(setup.size(_DOCUMENTS, 200))
    expected = sorted(map(total_price, orders))

    def body(pool) -> list:
        return sorted(pool.imap_unordered(total_price, orders))

    return rate(setup, len(orders), body, expected)


def _orders(count: int) -> list[str]:
    """JSON documents of about 350 bytes."""
    import json
    from random import Random

    random = Random(2)
    return [
        json.dumps(
            {
                "order": number,
                "customer": f"customer {random.randint(1, 9999)}",
                "lines": [
                    {
                        "article": f"article {random.randint(1, 999_999)}",
                        "price": random.randint(1, 9_999),
                        "amount": random.randint(1, 9),
                    }
                    for _ in range(_LINES)
                ],
            }
        )
        for number in range(count)
    ]


@row(
    "cross-validation", "cross-validation of 8 folds, scikit-learn over joblib", "folds/s", HIGHER,
    libraries=(*PAIR, "joblib"), needs=("sklearn", "joblib"),
)  # fmt: skip
def cross_validation(setup: Setup) -> Measurement:
    """joblib's backend on multiprocessing, which gopool serves when installed; or joblib's own."""
    import joblib
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    if setup.library.__name__ == GOPOOL:
        setup.library.install()
    backend = "loky" if setup.library is joblib else "multiprocessing"
    samples, classes = make_classification(setup.size(_SAMPLES, 50), random_state=3)
    model = RandomForestClassifier(setup.size(20, 2), random_state=4)

    def scores() -> list[float]:
        return list(cross_val_score(model, samples, classes, cv=_FOLDS))

    expected = scores()

    def timed() -> float:
        start = perf_counter()
        with joblib.parallel_config(backend=backend, n_jobs=setup.workers):
            got = scores()
        elapsed = perf_counter() - start
        check(got == expected, f"scores {got} instead of {expected}")
        return _FOLDS / elapsed

    rates = setup.warm_repeat(timed)
    if backend == "loky":
        finish(setup.pool())
    return Measurement(quantile(rates, 0.5))
