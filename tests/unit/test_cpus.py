# SPDX-License-Identifier: MIT
"""The default size of a pool: what the process may use, not what the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gopool import _cpus

V2 = "0::/user/app\n"
V1 = "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n0::/\n"

# (membership, files below the mount, processors)
QUOTAS = [
    (V2, {}, None),
    (V2, {"user/app/cpu.max": "max 100000\n"}, None),
    (V2, {"user/app/cpu.max": "200000 100000\n"}, 2),
    (V2, {"user/app/cpu.max": "150000 100000\n"}, 2),
    (V2, {"user/app/cpu.max": "1000 100000\n"}, 1),
    (V2, {"user/app/cpu.max": "max 100000\n", "user/cpu.max": "300000 100000\n"}, 3),
    (V2, {"user/app/cpu.max": "400000 100000\n", "cpu.max": "100000 100000\n"}, 1),
    (V2, {"user/app/cpu.max": "nonsense\n"}, None),
    (V2, {"user/app/cpu.max": "1 0\n"}, None),
    ("0::/../..\n", {"cpu.max": "200000 100000\n"}, 2),
    (
        V1,
        {
            "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000\n",
            "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
        },
        3,
    ),
    (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    (V1, {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ("", {"cpu.max": "200000 100000\n"}, None),
    ("no colons\n", {}, None),
]


@pytest.mark.parametrize(("membership", "files", "expected"), QUOTAS)
def test_quota(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int | None
) -> None:
    """The smallest limit of the group and those above it, rounded up; nonsense is no limit."""
    (tmp_path / "membership").write_text(membership)
    mount = tmp_path / "mount"
    mount.mkdir()
    for name, text in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _cpus.quota(str(tmp_path / "membership"), str(mount)) == expected


def test_no_control_groups(tmp_path: Path) -> None:
    """Where /proc or the mount is missing there is no limit."""
    assert _cpus.quota(str(tmp_path / "none"), str(tmp_path / "none")) is None


def _workers(*options: str, first: str = "", env: dict[str, str] | None = None) -> int:
    code = f"import os, gopool\n{first}\nwith gopool.Pool() as pool: print(pool._processes)"
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **(env or {})},
    )
    return int(done.stdout)


def test_affinity() -> None:
    """A process that may use one processor gets one worker."""
    one = min(os.sched_getaffinity(0))
    assert _workers(first=f"os.sched_setaffinity(0, {{{one}}})") == 1


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python 3.13 brought -X cpu_count")
def test_users_choice() -> None:
    """What the user told Python has the last word."""
    assert _workers("-X", "cpu_count=3") == 3
    assert _workers(env={"PYTHON_CPU_COUNT": "3"}) == 3
