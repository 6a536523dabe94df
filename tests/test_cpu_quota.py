"""Threads stay within the container's quota, in control groups of both versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boxwright import cpu_quota
from boxwright.cpu_quota import count_allowed_cores, describe_quota, set_threading


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_quota.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpu_quota.os, "cpu_count", lambda: 8)


def make_root(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        pytest.param("0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, 2.5, id="version 2"),
        pytest.param("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1.0, id="of a group above"),
        pytest.param("0::/host/path\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5, id="in a container"),
        pytest.param("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8.0, id="no limit"),
        pytest.param(
            "4:cpu,cpuacct:/x\n3:memory:/x\n",
            {"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000\n", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"},
            3.0,
            id="version 1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/x\n",
            {"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"},
            8.0,
            id="version 1 without limit",
        ),
        pytest.param("", {}, 8.0, id="no control groups"),
        pytest.param("0::/\n", {"sys/fs/cgroup/cpu.max": "many\n"}, 8.0, id="what nobody knows"),
    ],
)
def test_cores_are_those_of_the_quota(tmp_path: Path, cgroup: str, files: dict[str, str], cores: float) -> None:
    root = make_root(tmp_path, cgroup, files)
    assert count_allowed_cores(root) == cores
    environment: dict[str, str] = {}
    set_threading(environment, root)
    least = max(1, int(cores))
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"} | ({} if cores == 8 else {"OMP_NUM_THREADS": str(least)})
    assert describe_quota(least, root) is None
    more = describe_quota(least + 1, root)
    assert more is not None
    assert more.endswith(f"set OMP_NUM_THREADS={least}")


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    root = make_root(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": "100000 100000\n"})
    environment = {"OMP_NUM_THREADS": "6", "OMP_WAIT_POLICY": "ACTIVE"}
    set_threading(environment, root)
    assert environment == {"OMP_NUM_THREADS": "6", "OMP_WAIT_POLICY": "ACTIVE"}


def test_commands_set_it_before_torch_is_imported() -> None:
    code = (
        "import os, sys, boxwright.cli.main as m; assert 'torch' not in sys.modules; m.main(['--version']); "
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE"
