"""Commands of processes that torchrun has started: the command that starts them again, and which of them speaks."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence

PAUSE = 3.0
"""Seconds that other processes leave to the first one to say what is wrong: torchrun then ends them."""


def boxwright_command(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
    """Write a command as it is to be typed, quoted, with torchrun where that has started this process.

    Args:
        arguments: of ``boxwright``.
        environment: of this process; torchrun tells there how many it has started.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        return shlex.join(["boxwright", *arguments])
    per_machine = environment.get("LOCAL_WORLD_SIZE", "1")
    machines = environment.get("GROUP_WORLD_SIZE", "1")
    options = [f"--nnodes={machines}", f"--nproc-per-node={per_machine}"]
    if machines == "1":
        options = ["--standalone", f"--nproc-per-node={per_machine}"]
    elif "MASTER_ADDR" in environment:
        # On every machine; the port is torchrun's own, that of the last run may still be in use.
        options += ["--rdzv-backend=c10d", f"--rdzv-endpoint={environment['MASTER_ADDR']}"]
    restarts = environment.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0":
        options.append(f"--max-restarts={restarts}")
    # Each machine counts its own restarts: see ``training/distributed.py``.
    lead = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 " if machines != "1" and restarts != "0" else ""
    return lead + shlex.join(["torchrun", *options, "-m", "boxwright", *arguments])


def leave_word_to_first(environment: Mapping[str, str] = os.environ) -> None:
    """Wait, in other processes than the first, before an error is printed that it may have too."""
    if environment.get("RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" in environment:
        time.sleep(PAUSE)
