"""Tables of positions of a whole detector: interpolated where images have another size, with a note in one line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import boxwright
from boxwright.backbones.botnet import BoTNet
from boxwright.checkpoints import read_checkpoint, write_checkpoint
from boxwright.detector import Detector
from boxwright.layers.position_attention import resized_table
from boxwright.weights.model import read_model
from boxwright.workflows.beginning import Beginning
from boxwright.workflows.observer import Observer
from random_weights import shake

SMALL = {"backbone": {"name": "botnet", "depth": 50, "width": 8, "num_heads": 2}, "neck.out_channels": 16}
NOTE = (
    "6 tables of positions, made for inputs of 64 pixels, are interpolated to 128: --backbone.image_size 64 keeps them"
)


def build(size: int, **more: Any) -> Detector:
    torch.manual_seed(0)
    return boxwright.build("retinanet_r18_fpn", num_classes=2, overrides={"image_size": size, **SMALL, **more})


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    detector = build(64)
    shake(detector)
    detector.save(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def tables(detector: Detector) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in detector.state_dict().items() if ".relative." in name}


@pytest.mark.parametrize(
    "options", [{"image_size": 128}, {"overrides": {"image_size": 128}}, {"overrides": {"backbone.image_size": 128}}]
)
def test_a_detector_is_loaded_at_another_size(options: dict[str, Any], trained: Path) -> None:
    before = tables(boxwright.load(trained))
    with pytest.warns(UserWarning, match="tables") as heard:
        detector = boxwright.load(trained, **options)
    assert NOTE in [str(one.message) for one in heard]
    assert len(tables(detector)) == len(before) == 6
    for name, table in tables(detector).items():
        assert len(table) == 2 * len(before[name]) + 1
        assert torch.equal(table, resized_table(before[name], len(table), relative=True))
    # What was interpolated once is what an unchanged table gives in each pass over an image of this size.
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for one, other in zip(detector(images).logits, boxwright.load(trained)(images).logits, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("overrides", [{}, {"image_size": 128, "backbone.image_size": 64}, {"image_size": 64}])
def test_tables_of_the_same_size_stay_and_nothing_is_said(overrides: dict[str, Any], trained: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector = boxwright.load(trained, overrides=overrides)
    assert all(torch.equal(tensor, tables(boxwright.load(trained))[name]) for name, tensor in tables(detector).items())


def test_training_that_begins_with_them_says_so(trained: Path) -> None:
    notes: list[str] = []

    class Notes(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    detector = build(128)
    Beginning(detector=read_model(trained)).load(detector, Notes())
    assert notes == [NOTE]
    before = tables(boxwright.load(trained))
    for name, table in tables(detector).items():
        assert torch.equal(table, resized_table(before[name], len(table), relative=True))


def test_tables_of_another_width_or_without_a_middle_are_refused(trained: Path) -> None:
    content = read_checkpoint(trained)
    name = next(name for name in content["model"] if name.endswith("relative.height"))
    for table in (torch.zeros(7, 5), torch.zeros(6, content["model"][name].shape[1]), torch.zeros(7)):
        write_checkpoint(trained, {**content, "model": {**content["model"], name: table}})
        with pytest.raises(ValueError, match=f"weights do not fit .*{name} is ") as caught:
            boxwright.load(trained)
        assert "\n" not in str(caught.value)


def test_without_positions_there_is_nothing_to_interpolate(tmp_path: Path) -> None:
    build(64, **{"backbone.positions": "none"}).save(tmp_path / "b.safetensors")
    assert read_model(tmp_path / "b.safetensors", overrides={"image_size": 128}).notes == ()


def test_an_absolute_table_is_fitted_by_its_width_alone() -> None:
    tables_of_rows = BoTNet(width=8, positions="absolute", num_heads=2, image_size=64).layer4[0].conv2.absolute
    assert tables_of_rows.fits_table("height", (6, 32))
    assert not tables_of_rows.fits_table("height", (6, 31))
    assert not tables_of_rows.fits_table("depth", (6, 32))
