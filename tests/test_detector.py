"""A detector used on images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from boxwright.data.loading.loader import collate
from boxwright.data.loading.samples import Sample
from boxwright.detector import Detector
from boxwright.layers.padding import resize_mask
from boxwright.structures import Features, ImageSize, Level, LossTotals, Spec, Targets, main_levels
from boxwright_runtime.detections import Detections
from boxwright_runtime.input_format import InputFormat
from neighbors import assert_alone_as_among_others, assert_same, make_image

MakeDetector = Callable[..., Detector]
MakeTargets = Callable[..., list[Targets]]


SQUARE = InputFormat(image_size=64)
KEPT = InputFormat(image_size=64, resize="shortest_side", max_size=96)


@pytest.fixture
def detector(make_detector: MakeDetector) -> Detector:
    return make_detector()


def test_predicts_in_evaluation_mode_and_restores_training(detector: Detector) -> None:
    detector.train()
    statistics = {name: buffer.clone() for name, buffer in detector.named_buffers()}
    modes: list[bool] = []
    detector.head.register_forward_hook(lambda module, *_: modes.append(module.training))
    in_training = detector.predict(make_image(60, 80))
    assert modes == [False]
    assert detector.training
    assert all(module.training for module in detector.modules())
    for name, buffer in detector.named_buffers():
        torch.testing.assert_close(buffer, statistics[name], rtol=0, atol=0)
    in_evaluation = detector.eval().predict(make_image(60, 80))
    assert not detector.training
    assert isinstance(in_training, Detections)
    assert isinstance(in_evaluation, Detections)
    assert_same(in_training, in_evaluation, tolerance=0)


def test_the_mode_is_restored_after_an_error_too(detector: Detector) -> None:
    detector.train()
    with pytest.raises(FileNotFoundError):
        detector.predict("no/such/image.jpg")
    assert detector.training


@pytest.mark.parametrize("input_format", [SQUARE, KEPT], ids=["square", "shortest_side"])
def test_an_image_alone_is_predicted_as_among_others(detector: Detector, input_format: InputFormat) -> None:
    detector.input_format = input_format
    assert_alone_as_among_others(detector)


def test_only_equal_input_sizes_share_a_batch(detector: Detector) -> None:
    detector.input_format = KEPT
    batches: list[tuple[int, ...]] = []
    masks: list[object] = []
    detector.backbone.register_forward_pre_hook(lambda _, inputs: batches.append(tuple(inputs[0].shape)))
    detector.head.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[1]))
    detector.predict(
        [make_image(*shape) for shape in ((60, 80), (80, 60), (120, 160), (31, 400), (6, 8))], batch_size=2
    )
    assert batches == [(2, 3, 64, 85), (1, 3, 85, 64), (1, 3, 7, 90), (1, 3, 64, 85)]
    assert masks == [None] * 4


def test_the_head_does_not_see_what_is_in_the_padding(detector: Detector) -> None:
    """Of a training batch: whatever the levels hold beside the image, outputs and losses stay."""
    detector.eval()
    boxes = torch.tensor([[4.0, 6.0, 30.0, 50.0]])
    samples = [
        Sample(
            torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)),
            torch.tensor([i]),
            boxes,
            ImageSize(height, width, height, width),
            i,
        )
        for i, (height, width) in enumerate(((64, 96), (64, 40), (35, 64)))
    ]
    batch = collate(samples, KEPT)
    mask = batch.padding_mask
    assert mask is not None
    features = detector.backbone(batch.images)
    for neck in detector.necks:
        features = neck(features, mask)
    changed = {
        name: torch.where(resize_mask(mask, *level.shape[-2:])[:, None], 50 * torch.randn_like(level), level)
        for name, level in features.items()
    }
    assert all((changed[name] - features[name]).abs().max() > 50 for name in features)
    outputs = []
    for levels in (features, changed):
        torch.manual_seed(0)  # of the denoising queries
        output = detector.head(levels, mask, batch.targets)
        outputs.append((output.logits, output.boxes_cxcywh_norm, *detector.loss(output, batch.targets).values()))
    for ours, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_boxes_lie_inside_the_original_image(detector: Detector) -> None:
    for height, width in ((60, 80), (301, 17), (1, 1)):
        detections = detector.predict(make_image(height, width))
        assert isinstance(detections, Detections)
        assert len(detections.boxes) == 12 * 4
        assert detections.boxes.min() >= 0
        assert detections.boxes[:, 0::2].max() <= width
        assert detections.boxes[:, 1::2].max() <= height
        assert (detections.boxes[:, 2:] >= detections.boxes[:, :2]).all()
        assert detections.boxes[:, 0::2].max() > 0.3 * width


def test_boxes_scale_with_the_original_image(detector: Detector) -> None:
    # One color looks the same at every size.
    small, large = (detector.predict(Image.new("RGB", size, (200, 40, 90))) for size in ((50, 40), (500, 80)))
    assert isinstance(small, Detections)
    assert isinstance(large, Detections)
    torch.testing.assert_close(small.scores, large.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(small.boxes * torch.tensor([10.0, 2, 10, 2]), large.boxes, rtol=1e-4, atol=1e-2)


def test_every_form_of_an_image_is_the_same_image(detector: Detector, tmp_path: Path) -> None:
    image = make_image(60, 80)
    image.save(tmp_path / "one.png")
    array = np.asarray(image).copy()
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    expected = detector.predict(image)
    assert isinstance(expected, Detections)
    for form in (tmp_path / "one.png", str(tmp_path / "one.png"), array, tensor, tensor / 255, array / 255.0):
        detections = detector.predict(form)
        assert isinstance(detections, Detections)
        assert_same(detections, expected, tolerance=1e-6)
    stacked = detector.predict(torch.stack((tensor, tensor)))
    assert isinstance(stacked, list)
    for detections in (*stacked, *(detector.predict(iter([image, array])))):
        assert_same(detections, expected, tolerance=1e-5)


def test_no_images(detector: Detector) -> None:
    assert detector.predict([]) == []


def test_threshold_leaves_out_lower_scores(detector: Detector) -> None:
    every = detector.predict(make_image(60, 80))
    assert isinstance(every, Detections)
    middle = every.scores[20].item()
    some = detector.predict(make_image(60, 80), threshold=middle)
    assert isinstance(some, Detections)
    assert len(some.scores) == 21
    assert some.scores.min().item() == pytest.approx(middle, abs=1e-7)
    assert (some.boxes == every.boxes[:21]).all()


@pytest.mark.parametrize("options", [{"threshold": -0.1}, {"threshold": 1.5}, {"batch_size": 0}])
def test_options_out_of_range(detector: Detector, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"threshold is in \[0, 1\] and batch_size at least 1"):
        detector.predict(make_image(8, 8), **options)


def test_a_model_that_has_diverged_says_so(detector: Detector) -> None:
    with torch.no_grad():
        for parameter in detector.head.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ValueError, match="values that are not numbers, so it has diverged"):
        detector.predict(torch.zeros(3, 40, 60, dtype=torch.uint8))


def test_predicting_leaves_no_graph(detector: Detector) -> None:
    detections = detector.predict(make_image(8, 8))
    assert isinstance(detections, Detections)
    assert not detections.boxes.requires_grad
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_a_folded_detector_predicts_the_same_and_leaves_the_original_alone(detector: Detector) -> None:
    detector.eval()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    folded = detector.fold()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, expected in zip(folded(images)[:2], detector(images)[:2], strict=True):
            assert (ours - expected).abs().max() < 1e-4
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not folded.training
    for name, tensor in detector.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in detector.parameters())


def test_folding_works_from_training_mode_too(detector: Detector) -> None:
    detector.train()
    folded = detector.fold()
    assert detector.training
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        difference = folded(images).logits - detector.eval()(images).logits
    assert difference.abs().max() < 1e-4


def test_necks_run_one_after_the_other(make_detector: MakeDetector) -> None:
    class Doubled(nn.Module):
        def __init__(self, spec: dict[str, object]) -> None:
            super().__init__()
            self.out_spec = spec

        def forward(self, features: dict[str, torch.Tensor], _: object) -> dict[str, torch.Tensor]:
            return {name: 2 * x for name, x in features.items()}

    detector = make_detector().eval()
    seen: list[dict[str, torch.Tensor]] = []
    detector.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 64, 64)
    detector(images)
    detector.necks.append(Doubled(detector.necks[0].out_spec))
    detector(images)
    for name in seen[0]:
        torch.testing.assert_close(seen[1][name], 2 * seen[0][name], rtol=0, atol=0)


class Adds(nn.Module):
    """A neck that adds 1 and offers what came in, tenfold, as an auxiliary level."""

    def __init__(self, in_spec: Spec) -> None:
        super().__init__()
        self.out_spec: Spec = {**in_spec, "more": Level(1, 8, auxiliary=True)}

    def forward(self, features: Features, _: object) -> Features:
        assert list(features) == ["c3"]
        return {"c3": features["c3"] + 1, "more": features["c3"] * 10}


class Shows(nn.Module):
    """A head that puts out what it gets."""

    def forward(self, features: Features, *_: object) -> Features:
        return features


class Splits(nn.Module):
    """A backbone that hands on its images, and thrice as much as an auxiliary level."""

    def __init__(self) -> None:
        super().__init__()
        self.out_spec: Spec = {"c3": Level(3, 1), "aside": Level(3, 1, auxiliary=True)}

    def forward(self, images: torch.Tensor) -> Features:
        return {"c3": images, "aside": images * 3}


def test_auxiliary_levels_pass_the_necks_by() -> None:
    backbone = Splits()
    first = Adds(main_levels(backbone.out_spec))
    necks = [first, Adds(main_levels(first.out_spec))]
    detector = Detector(backbone, necks, Shows(), categories=[], input_format=SQUARE)
    shown = detector(torch.full((1, 3, 2, 2), 2.0))
    assert {name: x.unique().tolist() for name, x in shown.items()} == {"aside": [6.0], "more": [30.0], "c3": [4.0]}


def test_no_table_of_positions_is_stored(detector: Detector) -> None:
    for module in (detector, detector.fold()):
        stored = set(module.state_dict()) - {name for name, _ in module.named_parameters()}
        assert {name.rpartition(".")[2] for name in stored} <= {"running_mean", "running_var", "num_batches_tracked"}


def test_loss_and_postprocess_are_the_heads(detector: Detector, make_targets: MakeTargets) -> None:
    targets = make_targets([2])
    output = detector(torch.rand(1, 3, 64, 64), None, targets)
    ours, heads = (part.loss(output, targets, LossTotals(3, 1)) for part in (detector, detector.head))
    assert {name: value.item() for name, value in ours.items()} == {n: v.item() for n, v in heads.items()}
