"""Commands of processes that torchrun has started."""

from __future__ import annotations

import shlex
import time

import pytest

from boxwright.cli import torchrun
from boxwright.cli.main import main
from boxwright.cli.torchrun import boxwright_command

ONE_MACHINE = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "1", "RANK": "0"}
TWO_MACHINES = {**ONE_MACHINE, "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "node-1", "TORCHELASTIC_MAX_RESTARTS": "3"}
ARGUMENTS = ["train", "rtdetr_r18", "--data", "my data"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "boxwright train rtdetr_r18 --data 'my data'"),
        (ONE_MACHINE, "torchrun --standalone --nproc-per-node=4 -m boxwright train rtdetr_r18 --data 'my data'"),
        (
            TWO_MACHINES,
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d "
            "--rdzv-endpoint=node-1 --max-restarts=3 -m boxwright train rtdetr_r18 --data 'my data'",
        ),
    ],
)
def test_a_command_starts_as_many_processes(environment: dict[str, str], expected: str) -> None:
    command = boxwright_command(ARGUMENTS, environment)
    assert command == expected
    assert shlex.split(command)[-len(ARGUMENTS) :] == ARGUMENTS


@pytest.mark.parametrize(("rank", "pauses"), [("0", []), ("1", [torchrun.PAUSE])])
def test_other_processes_leave_an_error_to_the_first(
    rank: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchrun ends them while they wait; an error that they alone have is told."""
    for name, value in {**ONE_MACHINE, "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    assert main(["no-command"]) == 2
    assert waited == pauses
    assert capsys.readouterr().err.count("boxwright: error: ") == 1
