"""``boxwright.info``: the numbers of the command, as an object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import boxwright
from boxwright.cli.main import main


def test_the_numbers_of_the_command(tmp_path: Path) -> None:
    options = ["--image-size", "64", "--num-classes", "3", "--json", str(tmp_path / "cost.json")]
    assert main(["info", "fcos_r50_fpn", *options]) == 0
    cost = boxwright.info("fcos_r50_fpn", num_classes=3, overrides={"image_size": 64})
    assert cost.to_json() == json.loads((tmp_path / "cost.json").read_text())
    assert [part.slot for part in cost.parts] == ["backbone", "neck", "head"]
    assert cost.gmac == pytest.approx(sum(part.gmac for part in cost.parts))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="num_classes is at least 1, not 0"):
        boxwright.info("fcos_r50_fpn", num_classes=0)
    with pytest.raises(ValueError, match="unknown recipe"):
        boxwright.info("fcos_r5")
    with pytest.raises(ValueError, match=r"^unknown section 'image_sise'; did you mean 'image_size'\?"):
        boxwright.info("fcos_r50_fpn", overrides={"image_sise": 64})


def test_second_stages_count() -> None:
    """They run in ``decode``."""
    cost = boxwright.info("faster_rcnn_r50_fpn", num_classes=3, overrides={"image_size": 64})
    assert cost.gmac == pytest.approx(sum(part.gmac for part in cost.parts))
    # Two fully connected layers of 256 x 7 x 7 to 1024 and 1024 to 1024, for each of up to 1000 proposals.
    assert cost.parts[-1].gmac > 1
