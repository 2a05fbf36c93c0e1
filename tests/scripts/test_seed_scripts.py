# SPDX-License-Identifier: MIT
"""Nine scripts that others wrote for multiprocessing run unchanged and print the same.

They are not part of this repository: the environment variable GOPOOL_SEED_SCRIPTS names their
folder, by default shared/seed_scripts beside the repository.
"""

import os
from pathlib import Path

import pytest

from .compare import Pairs, selected_params

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FOLDER = ROOT.parent / "shared" / "seed_scripts"
FOLDER = Path(os.environ.get("GOPOOL_SEED_SCRIPTS", DEFAULT_FOLDER))
NAMES = (
    "01_process",
    "02_process_names",
    "03_pool_async",
    "04_pool_sync",
    "05_pool_get",
    "06_unshared_list",
    "07_shared_array",
    "08_manager",
    "09_pool_functions",
)
# Seconds. The last one sleeps for up to 40, and all run at once on what cores there are.
LIMIT = 240

pytestmark = [
    pytest.mark.scripts,
    pytest.mark.timeout(2 * LIMIT + 30),
    # A folder that the environment names must be there: only the default may be missing.
    pytest.mark.skipif(
        "GOPOOL_SEED_SCRIPTS" not in os.environ and not DEFAULT_FOLDER.is_dir(),
        reason="no folder of seed scripts: GOPOOL_SEED_SCRIPTS is not set, and there is no "
        "shared/seed_scripts beside the repository",
    ),
]


@pytest.fixture(scope="session")
def seed_pairs(request, tmp_path_factory):
    """All selected scripts, running since the first test that asked for this fixture."""
    pairs = Pairs(tmp_path_factory.mktemp("seeds"))
    try:
        for path, method in selected_params(request.session, "seed_pairs"):
            pairs.start(path, method)
        yield pairs
    finally:
        pairs.abandon()


# None is the default of python and of gopool, fork up to 3.13.
@pytest.mark.parametrize("method", [None, "spawn", "forkserver"])
@pytest.mark.parametrize("path", [FOLDER / f"{name}.py" for name in NAMES], ids=NAMES)
def test_seed_script_prints_the_same(seed_pairs, path, method):
    """A script written for multiprocessing, not a line edited, prints what it always printed."""
    plain, gopool = seed_pairs.finish(path, method, LIMIT)
    assert plain.code == 0 and plain.out and not plain.err, plain
    assert gopool == plain
