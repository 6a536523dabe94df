"""``boxwright replay``: a step that failed, on paper and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.cli.main import main
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.structures import Batch, Category, ImageSize, Targets
from boxwright.training.failed_step import FAILED_STEP, FailedStep, write_failed_step


@pytest.fixture
def run(here: Path, tiny_recipe: dict[str, Any]) -> Path:
    """A folder with a step in which one weight is not finite."""
    recipe = resolve(tiny_recipe, {"train.precision": "bfloat16"}).recipe
    categories = [Category(1, "square"), Category(5, "disc")]
    torch.manual_seed(0)
    weights = build_resolved(recipe, categories=categories).state_dict()
    weights["backbone.stem.0.conv.weight"][0, 0, 0, 0] = math.inf
    target = Targets(torch.tensor([1]), torch.tensor([[8.0, 8, 40, 50]]), (64, 64))
    batch = Batch(torch.rand(2, 3, 64, 64), None, [target] * 2, [ImageSize(64, 64, 64, 64)] * 2, [31, 7])
    failed = FailedStep(
        step=11,
        noise_seed=5,
        batch=batch,
        totals=None,
        weights=weights,
        recipe=recipe.to_dict(),
        categories=categories,
        device="cpu",
        threads=torch.get_num_threads(),
        failure="the weights were bad",
    )
    write_failed_step(here / "run" / FAILED_STEP, failed)
    return here / "run"


def test_losses_images_and_the_module(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(run), "--json", "step.json", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["step 12, images 31, 7", "in training: the weights were bad", "", lines[3]]
    assert lines[3].split() == ["bfloat16", "float32"]
    assert any(line.split()[:1] == ["loss"] and "nan" in line for line in lines)
    for precision, line in zip(("bfloat16", "float32"), lines[-2:], strict=True):
        assert line.startswith(f"{precision}: in the weights of backbone.stem.0.conv (Conv2d), 1 of ")
    written = json.loads(Path("step.json").read_text(), parse_constant=pytest.fail)
    assert written["image_ids"] == [31, 7]
    assert [one["overflow"]["name"] for one in written["repeats"]] == ["backbone.stem.0.conv"] * 2


def test_nothing_else_goes_to_a_program(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(run / FAILED_STEP), "--json", "/dev/stdout", "--device", "cpu"]) == 0
    assert json.loads(capfd.readouterr().out)["step"] == 12


def test_a_file_that_would_run_a_program(run: Path, refused: Any) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (run / "exploded",)

    content = torch.load(run / FAILED_STEP, weights_only=True)
    torch.save({**content, "failure": Bomb()}, "bomb.pt")
    assert refused(["replay", "bomb.pt"]).startswith("bomb.pt: ")
    recipe = {**content["recipe"], "backbone": {"name": "dangerous_part:Part"}}
    Path("dangerous_part.py").write_text("from pathlib import Path\nPath('exploded').touch()\n")
    torch.save({**content, "recipe": recipe}, "part.pt")
    assert "dangerous_part" in refused(["replay", "part.pt"])
    assert not (run / "exploded").exists()
    assert not Path("exploded").exists()


@pytest.mark.usefixtures("run")
def test_what_is_missing_is_named(refused: Any) -> None:
    assert refused(["replay"]).startswith("the following arguments are required: FILE; see `boxwright replay --help`")
    assert refused(["replay", "nowhere.pt"]) == "nowhere.pt: no such file"
