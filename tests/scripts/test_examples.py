# SPDX-License-Identifier: MIT
"""The scripts of examples/ print the same under plain python and under gopool."""

from pathlib import Path

import pytest

from .compare import Pairs, mask, selected_params

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("[0-9]*.py"))
# Seconds. Each needs less than one; all are started at once, and spawn makes 100 interpreters.
LIMIT = 120

pytestmark = [pytest.mark.scripts, pytest.mark.timeout(2 * LIMIT + 30)]


@pytest.fixture(scope="session")
def example_pairs(request, tmp_path_factory):
    """All selected examples, running since the first test that asked for this fixture."""
    pairs = Pairs(tmp_path_factory.mktemp("examples"))
    try:
        for path, method in selected_params(request.session, "example_pairs"):
            pairs.start(path, method)
        yield pairs
    finally:
        pairs.abandon()


def test_all_nine_examples_are_there():
    """A moved folder must not turn the comparison into nothing."""
    assert [path.name[:2] for path in EXAMPLES] == [f"{number:02d}" for number in range(1, 10)]


@pytest.mark.parametrize("method", [None, "fork", "spawn", "forkserver"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_the_same(example_pairs, path, method):
    """An example ends well, prints something, and the same under gopool as without it."""
    plain, gopool = example_pairs.finish(path, method, LIMIT)
    assert plain.code == 0 and plain.out and not plain.err, plain
    assert gopool == plain


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("process 123 waits\n", "process 4567 waits\n", True),
        ("Child process 3 123 Running\n", "Child process 3 99 Running\n", True),
        ("Child process 3 123 Running\n", "Child process 4 123 Running\n", False),
        ("a\nb\n", "b\na\n", True),
        ("a\na\n", "a\n", False),
        ("it took 0.10 seconds\n", "it took 2.25 seconds\n", True),
        ("result 0: 0.5\n", "result 0: 0.25\n", False),
        ("callback100\n", "callback101\n", False),
    ],
)
def test_mask_hides_only_what_varies(one, other, same):
    """A comparison that masks too much would find every pair of runs equal."""
    assert (mask(one) == mask(other)) is same
