"""Norms of frozen parts: their statistics stay as they are, whatever is trained beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from flat_options import train_options
from torch import Tensor, nn

import boxwright
from boxwright.detector import Detector
from boxwright.layers.freezing import frozen_norms
from boxwright.structures import Batch
from boxwright.training.loop import run_training
from boxwright.training.optimizer import make_optimizer
from boxwright.training.run import Run
from boxwright.training.step import train_step

MakeDetector = Callable[..., Detector]


def statistics(detector: Detector) -> dict[str, Tensor]:
    return {
        name: buffer.clone()
        for name, buffer in detector.named_buffers()
        if name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }


def changed(detector: Detector, batch: Batch, steps: int = 3) -> set[str]:
    """Names of the statistics that some steps of training change."""
    before = statistics(detector)
    options = train_options(batch_size=4)
    optimizer = make_optimizer(detector, options)
    for _ in range(steps):
        train_step(detector, detector, optimizer, batch, options, torch.device("cpu"))
    after = statistics(detector)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_frozen_backbone_keeps_its_statistics(make_detector: MakeDetector, batch: Batch) -> None:
    detector = make_detector(num_classes=6)
    detector.backbone.requires_grad_(False)
    detector.train()
    names = changed(detector, batch)
    assert not any(name.startswith("backbone.") for name in names)
    assert names == {name for name in statistics(detector) if not name.startswith("backbone.")}
    assert {norm.training for norm in detector.backbone.modules() if isinstance(norm, nn.BatchNorm2d)} == {False}


def test_nothing_is_frozen_by_itself(make_detector: MakeDetector, batch: Batch) -> None:
    detector = make_detector(num_classes=6).train()
    assert changed(detector, batch) == statistics(detector).keys()


def test_a_norm_by_itself(make_detector: MakeDetector, batch: Batch) -> None:
    """Its convolution is trained all the same."""
    detector = make_detector(num_classes=6)
    detector.backbone.stages["c3"][0].conv1.norm.requires_grad_(False)
    detector.train()
    unchanged = statistics(detector).keys() - changed(detector, batch)
    assert unchanged == {name for name in statistics(detector) if name.startswith("backbone.stages.c3.0.conv1.norm.")}


def test_unfreezing_trains_the_statistics_again(make_detector: MakeDetector, batch: Batch) -> None:
    detector = make_detector(num_classes=6)
    detector.backbone.requires_grad_(False)
    detector.train().eval()
    detector.backbone.requires_grad_(True)
    assert changed(detector.train(), batch) == statistics(detector).keys()


def test_frozen_stages_keep_theirs_where_norms_are_trained(tiny_recipe: dict[str, Any], batch: Batch) -> None:
    detector = boxwright.build(
        tiny_recipe, num_classes=6, overrides={"backbone.frozen_stages": 3, "backbone.norm": "batch"}
    )
    names = changed(detector.train(), batch, steps=1)
    assert not any(name.startswith(("backbone.stem.", "backbone.stages.c2.", "backbone.stages.c3.")) for name in names)
    assert any(name.startswith("backbone.stages.c4.") for name in names)


def test_a_whole_run(make_run: Callable[..., Run]) -> None:
    run = make_run(steps=2, schedule__evaluations=1)
    run.detector.backbone.requires_grad_(False)
    before = statistics(run.detector)
    run_training(run)
    for name, value in statistics(run.detector).items():
        assert torch.equal(value, before[name]) == name.startswith("backbone."), name


def test_a_norm_without_parameters_follows_what_surrounds_it() -> None:
    plain = nn.BatchNorm2d(3, affine=False)
    part = nn.Sequential(nn.Conv2d(3, 3, 1), plain)
    assert list(frozen_norms(nn.Sequential(part))) == []
    assert list(frozen_norms(nn.Sequential(part.requires_grad_(False), nn.Conv2d(3, 3, 1)))) == [plain]
    assert list(frozen_norms(plain)) == []


@pytest.mark.parametrize(("size", "count"), [(32, 1)])
def test_a_batch_with_one_cell_says_what_to_do(
    make_detector: MakeDetector, batch: Batch, size: int, count: int
) -> None:
    detector = make_detector(num_classes=6).train()
    one = batch._replace(images=batch.images[:count, :, :size, :size], targets=batch.targets[:count])
    options = train_options(batch_size=1)
    with pytest.raises(
        ValueError,
        match=r"^a batch norm has nothing to average: a batch of 1 image of 32 x 32 pixels comes down to one cell; "
        r"give a larger --image-size, or more images to a batch",
    ):
        train_step(detector, detector, make_optimizer(detector, options), one, options, torch.device("cpu"))


def test_a_slot_that_there_is_not_freezes_nothing(make_detector: MakeDetector) -> None:
    detector = make_detector()
    with pytest.raises(ValueError, match=r"^there is no slot 'bakbone' to freeze: the slots are backbone, neck, head$"):
        detector.freeze(["head", "bakbone"])
    assert all(parameter.requires_grad for parameter in detector.parameters())
    detector.freeze("head")
    assert not any(parameter.requires_grad for parameter in detector.head.parameters())
    assert all(parameter.requires_grad for parameter in detector.necks.parameters())
