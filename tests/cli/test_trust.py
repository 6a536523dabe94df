"""Modules that a checkpoint or a recipe file names: no command imports them without ``--trust``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import boxwright
from boxwright.cli.main import main
from boxwright.compose.recipe import Recipe

MODULE = "my_parts_of_the_user"

SOURCE = """\
from pathlib import Path

from torch import nn

Path(__file__).with_name("ran").touch()


class Scaler(nn.Module):
    \"\"\"A neck.

    Args:
        factor: of all levels.
    \"\"\"

    def __init__(self, in_spec, *, factor: float = 1.0):
        super().__init__()
        self.out_spec, self.factor = in_spec, factor

    def forward(self, features, padding_mask):
        return {name: level * self.factor for name, level in features.items()}
"""

Refused = Callable[[Sequence[str]], str]

pytestmark = pytest.mark.usefixtures("own_neck", "own_run", "data", "recipe_file")


@pytest.fixture
def own_neck(here: Path, tiny_recipe: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A recipe with a second neck, whose module is in the current folder."""
    (here / f"{MODULE}.py").write_text(SOURCE)
    own = {**tiny_recipe, "neck": [tiny_recipe["neck"], {"name": f"{MODULE}:Scaler"}]}
    (here / "own.yaml").write_text(yaml.safe_dump(own))
    yield own
    sys.modules.pop(MODULE, None)


@pytest.fixture
def own_run(here: Path, trained: Path) -> Path:
    """A run whose checkpoints name that module; weights fit, for the neck has none."""
    run = shutil.copytree(trained, here / "run")
    content = torch.load(run / "last.pt", weights_only=True)
    content["recipe"]["neck"].append({"name": f"{MODULE}:Scaler", "factor": 1.0})
    torch.save(content, run / "last.pt")
    torch.save({name: value for name, value in content.items() if name != "optimizer"}, here / "model.pt")
    return run


WITH_RECIPE = (
    "info own.yaml",
    "train own.yaml --data data --out new",
    "train own.yaml --data data --out run --resume",
    "check data --recipe own.yaml",
    "check data --recipe own.yaml --try",
)

WITH_MODEL = (
    "info model.pt",
    "eval model.pt --data data",
    "predict model.pt data/images --out drawn",
    "convert model.pt converted.safetensors",
    "train tiny.yaml --data data --out new --weights model.pt",
    "train tiny.yaml --data data --out new --backbone.weights model.pt",
    "train tiny.yaml --data data --out run --resume",
    "check data --model model.pt",
    "check data --model run/last.pt --folds 0",
)


@pytest.mark.parametrize("line", WITH_RECIPE)
def test_a_recipe_file(line: str, refused: Refused, here: Path) -> None:
    message = refused(line.split())
    assert "is code outside Boxwright, which no file may import by itself" in message
    assert f"(--trust {MODULE})" in message
    assert not (here / "ran").exists()
    assert MODULE not in sys.modules


@pytest.mark.parametrize("line", WITH_MODEL)
def test_a_checkpoint(line: str, refused: Refused, here: Path) -> None:
    if "--backbone.weights" in line:  # takes tensors alone
        assert main([*line.split(), "--train.steps", "1"]) == 0
    else:
        assert f"(--trust {MODULE})" in refused(line.split())
    assert not (here / "ran").exists()
    assert MODULE not in sys.modules


@pytest.mark.parametrize("line", ["info own.yaml", "info model.pt", "eval model.pt --data data"])
def test_what_is_trusted_is_imported(line: str, here: Path) -> None:
    assert main([*line.split(), "--trust", MODULE]) == 0
    assert (here / "ran").exists()


def test_resuming_with_trust() -> None:
    assert main(["train", "own.yaml", "--data", "data", "--out", "run", "--resume", "--trust", MODULE]) == 0


def test_a_part_that_was_typed_needs_no_trust() -> None:
    typed = ["train", "tiny.yaml", "--data", "data", "--out", "typed", "--train.steps", "2"]
    typed += ["--neck", f"hybrid_encoder,{MODULE}:Scaler"]
    assert main(typed) == 0
    sys.modules.pop(MODULE)
    assert main([*typed, "--resume"]) == 0
    sys.modules.pop(MODULE)
    detector = boxwright.load("typed", trusted=[MODULE])
    assert len(detector.necks) == 2


def test_the_package_of_a_module_may_be_named(here: Path, refused: Refused, tiny_recipe: dict[str, Any]) -> None:
    (here / "my_parts_as_a_package" / "necks").mkdir(parents=True)
    (here / "my_parts_as_a_package" / "necks" / "scaler.py").write_text(SOURCE)
    tiny_recipe["neck"] = "my_parts_as_a_package.necks.scaler:Scaler"
    (here / "own.yaml").write_text(yaml.safe_dump(tiny_recipe))
    refused(["info", "own.yaml"])
    with pytest.raises(ValueError, match="no file may import"):
        Recipe.from_dict(tiny_recipe)
    assert Recipe.from_dict(tiny_recipe, trusted=["my_parts_as_a_package"]).necks[0].options == {"factor": 1.0}
    for name in [name for name in sys.modules if name.startswith("my_parts_as_a_package")]:
        del sys.modules[name]


def test_python_imports_nothing_either(own_run: Path, here: Path, own_neck: dict[str, Any]) -> None:
    for source in (own_run / "last.pt", here / "model.pt"):
        with pytest.raises(ValueError, match=f"import {MODULE} first"):
            boxwright.load(source)
    with pytest.raises(ValueError, match=f"import {MODULE} first"):
        boxwright.build("own.yaml", num_classes=2)
    assert not (here / "ran").exists()
    assert len(boxwright.build(own_neck, num_classes=2).necks) == 2  # that Python code wrote


@pytest.mark.parametrize("name", ["no_such_module", "broken_module", ""])
def test_a_trusted_module_that_cannot_be_imported(name: str, here: Path, refused: Refused) -> None:
    (here / "broken_module.py").write_text("1 / 0\n")
    message = refused(["info", "rtdetr_tiny", "--trust", name])
    assert "no module named" in message or "cannot be imported" in message
