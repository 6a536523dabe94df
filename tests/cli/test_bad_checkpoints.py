"""Files that are no checkpoint, or not the right one, in every command that takes one; none of them runs code."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

COMMANDS = (
    ("eval", "x.pt", "--data", "data"),
    ("predict", "x.pt", "data/images"),
    ("train", "tiny.yaml", "--data", "data", "--out", "run", "--resume"),
)

Refused = Callable[[Sequence[str]], str]
EachRefused = Callable[[], list[str]]


@pytest.fixture
def refuse(recipe_file: Path, data: Path, refused: Refused) -> EachRefused:
    """Messages of each command about ``x.pt``, also as a run's last checkpoint."""
    assert recipe_file.parent == data.parent == Path.cwd()

    def every() -> list[str]:
        Path("run").mkdir()
        shutil.copy("x.pt", "run/last.pt")
        return [refused(command) for command in COMMANDS]

    return every


def test_a_pickle_that_would_run_a_program(refuse: EachRefused, here: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (here / "exploded",)

    torch.save({"format": "boxwright", "version": 1, "model": Bomb()}, "x.pt")
    for line in refuse():
        assert "damaged, or not weights alone: it is not readable as tensors and plain values" in line
    (here / "x.pt").write_bytes(pickle.dumps(Bomb()))
    shutil.rmtree("run")
    for line in refuse():
        assert "damaged" in line
    assert not (here / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 500, bytes(range(256)) * 20, b"PK\x03\x04" + b"\x07" * 300])
def test_random_bytes(refuse: EachRefused, here: Path, content: bytes) -> None:
    (here / "x.pt").write_bytes(content)
    for line in refuse():
        assert line.startswith(("x.pt: ", "run/last.pt: "))
        assert "damaged" in line


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.999])
def test_a_truncated_file(refuse: EachRefused, here: Path, trained: Path, fraction: float) -> None:
    whole = (trained / "last.pt").read_bytes()
    (here / "x.pt").write_bytes(whole[: int(len(whole) * fraction)])
    for line in refuse():
        assert "damaged" in line


def test_weights_of_another_project(refuse: EachRefused) -> None:
    torch.save({"state_dict": {"conv.weight": torch.zeros(3)}}, "x.pt")
    *others, resumed = refuse()
    assert all("x.pt: weights of no known kind" in line and "conv.weight" in line for line in others)
    assert resumed.endswith("holds weights, but not of Boxwright; a checkpoint comes from `boxwright train`")


def test_another_number_of_classes(refuse: EachRefused, trained: Path) -> None:
    state = torch.load(trained / "last.pt", weights_only=True)
    torch.save({**state, "categories": state["categories"][:5]}, "x.pt")
    evaluated, predicted, resumed = refuse()
    for line in (evaluated, predicted):
        assert line.startswith("x.pt: weights do not fit the recipe and its 5 classes: ")
    assert "circle" in resumed
    assert "unknown to the model" in resumed


def test_another_recipe(refuse: EachRefused, trained: Path) -> None:
    state = torch.load(trained / "last.pt", weights_only=True)
    state["recipe"]["head"]["decoder"]["num_layers"] = 1
    torch.save(state, "x.pt")
    *others, resumed = refuse()
    assert all("x.pt: weights do not fit the recipe and its 6 classes: head." in line for line in others)
    assert "run/last.pt: does not fit the run's recipe: " in resumed
    assert "head.layers.1." in resumed
