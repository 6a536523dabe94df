"""Checkpoints and recipes of earlier releases.

``tests/checkpoints/version1_*`` were written by Boxwright 0.1.0 (checkpoint format 1), ``version2_*`` by 0.2.0 in its
format 2: a Faster R-CNN of one channel with AugFPN, six steps on eight drawn images, the best and the last checkpoint
of its run, and the detections of the best one on an image of random colors, each of 12 x 12 pixels.
"""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxwright import load
from boxwright.checkpoints import LastCheckpoint, categories_of, read_checkpoint
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.layers.block_options import BlockOptions
from boxwright.legacy import upgrade_checkpoint
from boxwright.passport import Passport
from boxwright.training.checkpoint import load_progress
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer import make_optimizer

CHECKPOINTS = Path(__file__).parent / "checkpoints"


EACH_VERSION = pytest.mark.parametrize("version", [1, 2])


def unpack(name: str, version: int, folder: Path) -> Path:
    """A stored checkpoint, unpacked into a folder."""
    path = folder / f"{name}.pt"
    path.write_bytes(lzma.decompress((CHECKPOINTS / f"version{version}_{name}.pt.xz").read_bytes()))
    return path


@EACH_VERSION
def test_an_earlier_checkpoint_predicts_the_same(version: int, tmp_path: Path) -> None:
    unpack("best", version, tmp_path)
    detector = load(tmp_path)
    assert detector.passport == Passport(version="unknown")
    stored = np.load(CHECKPOINTS / f"version{version}_predictions.npz")
    image = np.kron(stored["image"], np.ones((12, 12, 1), dtype=np.uint8))
    detections = detector.predict(image)
    # Bit for bit on the machine that wrote it; others may add up in another order.
    torch.testing.assert_close(detections.boxes, torch.from_numpy(stored["boxes"]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(detections.scores, torch.from_numpy(stored["scores"]), rtol=1e-5, atol=1e-5)
    assert detections.labels.tolist() == stored["labels"].tolist()


@EACH_VERSION
def test_its_recipe_is_one_of_today(version: int, tmp_path: Path) -> None:
    content = read_checkpoint(unpack("last", version, tmp_path))
    assert content["version"] == 5
    train = Recipe.from_dict(content["recipe"]).train
    assert train.schedule.evaluations == 2
    assert (train.steps, train.ema_decay, train.batches.accumulate_steps, train.schedule.no_aug_fraction) == (
        6,
        0.9,
        2,
        0.5,
    )
    assert (train.optimizer.max_grad_norm, train.runtime.device) == (5.0, "cpu")


@EACH_VERSION
def test_training_goes_on_from_an_earlier_checkpoint(version: int, tmp_path: Path) -> None:
    path = unpack("last", version, tmp_path)
    content = read_checkpoint(path)
    recipe = Recipe.from_dict(content["recipe"])
    detector = build_resolved(recipe, categories=categories_of(content))
    optimizer, average = make_optimizer(detector, recipe.train), MovingAverage(detector)
    progress = load_progress(LastCheckpoint(path, content), detector, average, optimizer)
    assert (progress.step, progress.steps) == (6, 6)
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, content["model"][name]), name
    for name, tensor in average.model.state_dict().items():
        assert torch.equal(tensor, content["ema"][name]), name
    # The state of the optimizer is stored in the order of the parameters, which has to be what it was.
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(optimizer.state) == len(parameters)
    for parameter in parameters:
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_what_has_the_present_format_is_left_as_it_is() -> None:
    content = {"version": 5, "recipe": {"train": {"clip_norm": 3}}, "model": {"head.raw.x": 0}, "passport": None}
    assert upgrade_checkpoint(content) == content


def test_values_are_mapped_too() -> None:
    recipe = {"input": {"resize": "centre_crop"}, "head": {"name": "classifier"}, "neck": [{"name": "identity"}]}
    content = {"version": 1, "recipe": recipe, "model": {"head.raw.x": 0, "backbone.widths.x": 1}}
    upgraded = upgrade_checkpoint(content)
    assert upgraded["recipe"] == recipe | {"input": {"resize": "center_crop"}}
    assert upgraded["model"] == {"head.aux_boxes.x": 0, "backbone.widths.x": 1}
    assert content["version"] == 1


def test_options_of_format_2_that_have_other_names_now() -> None:
    content = {
        "version": 2,
        "recipe": {"train": {"evaluations": 4, "lr": 1.0}, "head": {"evaluations": 3}},
        "model": {},
    }
    upgraded = upgrade_checkpoint(content)
    assert upgraded["recipe"] == {"train": {"schedule": {"evaluations": 4}, "lr": 1.0}, "head": {"evaluations": 3}}
    assert (upgraded["version"], upgraded["passport"]) == (5, None)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(("before", "now"), [(False, "none"), (True, "attention")])
def test_the_authors_relu_in_botnets_of_earlier_formats(version: int, before: bool, now: str) -> None:
    backbone = {"name": "botnet", "width": 4, "attention": [1, 1, 1], "shortcut_relu": before}
    content = {
        "version": version,
        "recipe": {"backbone": backbone, "neck": [{"name": "identity"}], "head": {"name": "classifier"}},
        "model": {},
    }
    upgraded = upgrade_checkpoint(content)["recipe"]["backbone"]
    block = {"shortcut_activation": now}
    assert upgraded == {"name": "botnet", "width": 4, "attention": [1, 1, 1], "block": block}
    recipe = resolve("botnet50_classifier", {"backbone": upgraded}).recipe
    assert recipe.backbone.options["block"] == BlockOptions(shortcut_activation=now)  # type: ignore[arg-type]
    # Other backbones have no such option.
    other = {"version": version, "recipe": {"backbone": {"name": "resnet", "shortcut_relu": before}}, "model": {}}
    assert upgrade_checkpoint(other)["recipe"]["backbone"] == {"name": "resnet", "shortcut_relu": before}


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "faster_rcnn_r50_fpn",
            {"head.num_candidates": 3},
            r"^head.num_candidates: it is called head.*pre_nms_top_k now",
        ),
        (
            "retinanet_r50_fpn",
            {"head.max_candidates": 3},
            r"^head.max_candidates: it is called head.*pre_nms_top_k now",
        ),
        ("rtdetr_r18", {"train.clip_norm": 3}, r"^train.clip_norm: it is called train.*max_grad_norm now"),
        (
            "rtdetr_r18",
            {"input.resize": "centre_crop"},
            r"^input.resize: .*'centre_crop'; it is called center_crop now",
        ),
    ],
)
def test_an_earlier_name_is_an_error_that_says_the_present_one(
    recipe: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(recipe, overrides)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("head", ["rtdetr", "dfine", "dino"])
def test_options_of_query_heads_until_format_4(version: int, head: str) -> None:
    content = {
        "version": version,
        "recipe": {"head": {"name": head, "class_loss": "mal", "eval_layers": 2, "decoder": {"num_layers": 3}}},
        "model": {},
    }
    upgraded = upgrade_checkpoint(content)["recipe"]["head"]
    assert upgraded == {
        "name": head,
        "supervision": {"class_loss": "mal"},
        "decoder": {"num_layers": 3, "eval_layers": 2},
    }
    recipe = resolve("rtdetr_r18", {"head": upgraded}).recipe
    assert recipe.head.options["decoder"].eval_layers == 2  # type: ignore[attr-defined]
    # So do those of DETR.
    detr = {"version": version, "recipe": {"head": {"name": "detr", "no_object_weight": 0.4}}, "model": {}}
    assert upgrade_checkpoint(detr)["recipe"]["head"] == {"name": "detr", "loss_weights": {"no_object_weight": 0.4}}
    # Heads without such options keep their own names.
    other = {"version": version, "recipe": {"head": {"name": "fcos", "eval_layers": 2}}, "model": {}}
    assert upgrade_checkpoint(other)["recipe"]["head"] == {"name": "fcos", "eval_layers": 2}
