"""Chains of kills: a run that is killed at random moments and resumed until it comes to its end.

    python tests/training/kill_chains.py retinanet_r18_fpn --data DIR --out FOLDER --chains 5 --overrides JSON

Each attempt is a process forked from this one, so that it begins at once, and ends by SIGKILL wherever it is: at its
start, in a step, an evaluation or in the middle of a write. The last line is the number of kills. A chain that does not
end with the checkpoints and the log of the unbroken run is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import boxwright
from boxwright.checkpoints import BEST, LAST, read_checkpoint
from boxwright.files import UNFINISHED
from boxwright.training import log, saving
from boxwright.training.folder_lock import LOCK
from boxwright.training.log import read_log
from boxwright.workflows.observer import Observer
from equality import assert_equal, timeless

MODULES = "modules.txt"
"""Beside the runs: the modules that one has imported."""


class Silent(Observer):
    """Hears everything and says nothing."""

    def note(self, line: str) -> None:
        """Take a line."""


class Chains:
    """Runs of one recipe.

    Args:
        recipe: its name.
        data: folder of the data set.
        overrides: of the recipe.
        processes: that train together.
    """

    def __init__(self, recipe: str, data: Path, overrides: Mapping[str, Any], processes: int) -> None:
        self.recipe, self.data, self.overrides, self.processes = recipe, data, overrides, processes

    def begin(self, out: Path) -> list[int]:
        """Start the processes of an attempt; return their ids."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return [pid for rank in range(self.processes) if (pid := self._fork(out, rank, port))]

    def _fork(self, out: Path, rank: int, port: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        if self.processes > 1:
            world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.processes, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in world.items()} | {"MASTER_ADDR": "127.0.0.1"}
        try:
            boxwright.train(self.recipe, self.data, out=out, resume="auto", overrides=self.overrides, observer=Silent())
            out.with_name(MODULES).write_text("\n".join(sys.modules))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def attempt(self, out: Path, limit: float | None) -> bool:
        """Train until the end, or for ``limit`` seconds; return whether it came to its end."""
        pids, end = self.begin(out), time.monotonic() + (limit or 3600.0)
        codes: dict[int, int] = {}
        while len(codes) < len(pids):
            for pid in set(pids) - codes.keys():
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                for pid in set(pids) - codes.keys():
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                return False
            time.sleep(0.001)
        if any(codes.values()):
            raise RuntimeError(f"an attempt ended with {codes}")
        return True


def import_all(names: Iterable[str]) -> None:
    """Import in this process what a run has imported, so that no other has to."""
    for name in names:
        with suppress(Exception):
            import_module(name)


def compare(broken: Path, unbroken: Path) -> None:
    """Make sure that two runs ended alike, bit by bit, and that nothing else was left."""
    for name in (LAST, BEST):
        assert_equal(read_checkpoint(broken / name), read_checkpoint(unbroken / name), name)
    if timeless(read_log(broken)) != timeless(read_log(unbroken)):
        raise AssertionError(f"{broken}: another log")
    if left := [path.name for path in broken.iterdir() if path.name.endswith(UNFINISHED) or path.name == LOCK]:
        raise AssertionError(f"{broken}: {left}")


def main() -> None:
    """Run chains, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chains", type=int, default=5)
    parser.add_argument("--overrides", type=json.loads, default={})
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.modules["torch.utils.tensorboard"] = None  # type: ignore[assignment]  # a second for each attempt
    for module, name, value in ((log, "LOG_INTERVAL", 0.0), (saving, "seconds", lambda *_: -1.0)):
        patch.object(module, name, value).start()  # a row and a checkpoint for each step
    chains = Chains(options.recipe, options.data, options.overrides, options.processes)
    generator, kills = random.Random(options.seed), 0
    began = time.monotonic()
    chains.attempt(options.out / "unbroken", None)
    whole = time.monotonic() - began
    import_all((options.out / MODULES).read_text().splitlines())
    for number in range(options.chains):
        out = options.out / str(number)
        while not chains.attempt(out, generator.uniform(0, whole)):
            kills += 1
        compare(out, options.out / "unbroken")
    print(f"{options.chains} chains, {kills} kills")


if __name__ == "__main__":
    main()
