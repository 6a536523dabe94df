"""torchrun as a user calls it, on one machine, or on several that are processes of this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

COMMAND = [sys.executable, "-m", "torch.distributed.run"]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1" if "--nnodes" in command else "0"
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Start processes that work together."""
    return _run([*COMMAND, "--standalone", "--nproc-per-node", str(processes), *arguments])


def start_machines(count: int, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Start one process by each of several torchruns, which meet as those of several machines do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    command = [*COMMAND, "--nnodes", str(count), "--nproc-per-node", "1", *meeting, *arguments]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(_run, [command] * count))
