"""RetinaNet's head: its anchors, losses and options. The rest stands beside torchvision's in ``parity``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from boxwright.dense.options import AnchorOptions, DenseDetectionOptions, FocalOptions
from boxwright.dense.output import DenseOutput
from boxwright.heads.retinanet import RetinaNet
from boxwright.losses.focal import sigmoid_focal_loss
from boxwright.ops.box_deltas import encode_deltas
from boxwright.ops.box_matching import BACKGROUND, IGNORED
from boxwright.structures import Features, Level, LossTotals, Spec, Targets

MakeTargets = Callable[..., list[Targets]]

SPEC: Spec = {"c3": Level(16, 8), "raw": Level(4, 8, auxiliary=True), "c4": Level(16, 16), "c5": Level(16, 32)}
NUM_CLASSES = 3


def small_head(spec: Spec = SPEC, **options: Any) -> RetinaNet:
    torch.manual_seed(0)
    head = RetinaNet(spec, NUM_CLASSES, **({"num_convs": 1} | options))
    with torch.no_grad():
        for layer in (*head.class_tower, *head.box_tower, head.classes, head.boxes):
            if isinstance(layer, nn.Conv2d):
                layer.weight.normal_(std=0.12)
    return head.eval()


def maps(height: int = 64, width: int = 96, *, batch: int = 2, spec: Spec = SPEC) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def joined(output: DenseOutput) -> tuple[Tensor, Tensor, Tensor]:
    return torch.cat(output.logits, 1), torch.cat(output.offsets, 1), torch.cat(output.anchors)


def ideal(head: RetinaNet, targets: list[Targets], size: tuple[int, int]) -> DenseOutput:
    """Make the output of a head that has learned these images by heart."""
    output = head(maps(*size, batch=len(targets)))
    logits, deltas, anchors = joined(output)
    logits, deltas = torch.full_like(logits, -20.0), torch.zeros_like(deltas)
    for image, target in enumerate(targets):
        objects = head.match(output.anchors, target.boxes)
        (matched,) = torch.where(objects >= 0)
        logits[image, matched, target.labels[objects[matched]]] = 20.0
        deltas[image, matched] = encode_deltas(target.boxes[objects[matched]], anchors[matched])
    sizes = [len(level) for level in output.anchors]
    return output._replace(logits=logits.split(sizes, 1), offsets=deltas.split(sizes, 1))


def test_sides_of_anchors_are_four_strides_and_more() -> None:
    output = small_head()(maps())
    assert [len(level) for level in output.anchors] == [9 * 96, 9 * 24, 9 * 6]
    for level, side in zip(output.anchors, (32, 64, 128), strict=True):
        sides = level[:, 2:] - level[:, :2]
        assert sides[3].tolist() == [side, side]
        # Around the corner of the first cell.
        assert (level[:9, :2] == -level[:9, 2:]).all()
    assert (output.anchors[1][9] - output.anchors[1][0]).tolist() == [16, 0, 16, 0]


def test_options_of_anchors() -> None:
    options = AnchorOptions(scale=3.0, octave_steps=2, aspect_ratios=(1.0, 4.0))
    anchors = small_head(anchors=options)(maps()).anchors[0][:4]
    sides = [[24.0, 24.0], [32.0, 32.0], [12.0, 48.0], [16.0, 66.0]]  # 33 / 2 and 33 * 2, halves rounded to even
    assert (anchors[:, 2:] - anchors[:, :2]).tolist() == sides
    exact = small_head(anchors=replace(options, whole_pixels=False))(maps()).anchors[0][:4]
    root = 24 * 2**0.5
    expected = torch.tensor([[24.0, 24.0], [root, root], [12.0, 48.0], [root / 2, root * 2]])
    torch.testing.assert_close(exact[:, 2:] - exact[:, :2], expected)


def test_a_number_belongs_to_its_cell_anchor_and_class() -> None:
    head, features = small_head(num_convs=0), maps(batch=1)
    logits, deltas = (x.view(8, 12, 9, -1) for x in (head(features).logits[0], head(features).offsets[0]))
    expected = head.classes(features["c3"])[0].view(9, NUM_CLASSES, 8, 12)
    torch.testing.assert_close(logits[5, 7, 4, 2], expected[4, 2, 5, 7])
    torch.testing.assert_close(deltas[5, 7, 8], head.boxes(features["c3"])[0].view(9, 4, 8, 12)[8, :, 5, 7])


@pytest.mark.parametrize("box_loss", ["l1", "giou"])
@pytest.mark.parametrize("counts", [[5, 2], [3, 0]], ids=str)
def test_a_head_that_knows_the_objects_has_no_loss(box_loss: str, counts: list[int], make_targets: MakeTargets) -> None:
    head, size = small_head(box_loss=box_loss), (96, 128)
    targets = make_targets(counts, size=size, num_classes=NUM_CLASSES)
    terms = head.loss(ideal(head, targets, size), targets)
    assert terms["focal"] < 1e-6
    assert abs(terms[box_loss]) < 1e-5
    assert head.loss(head(maps(*size)), targets)[box_loss] > 0.1


def test_a_head_that_knows_the_objects_finds_them() -> None:
    head, size = small_head(), (96, 128)
    targets = [Targets(torch.tensor([2, 0]), torch.tensor([[3.0, 8, 60, 50], [70, 30, 110, 90]]), size)]
    decoded = head.decode(ideal(head, targets, size))
    assert decoded.valid.sum() == 2
    labels, boxes = decoded.labels[decoded.valid], decoded.boxes[decoded.valid]
    assert labels.sort().values.tolist() == [0, 2]
    torch.testing.assert_close(boxes[labels.argsort(descending=True)], targets[0].boxes)


def test_losses_as_written_out(make_targets: MakeTargets) -> None:
    head, size = small_head(focal=FocalOptions(alpha=0.3, gamma=1.5), positive_iou=0.4, negative_iou=0.3), (64, 96)
    targets = make_targets([3, 2], size=size, num_classes=NUM_CLASSES)
    output = head(maps(*size))
    logits, deltas, anchors = joined(output)
    expected = {"focal": 0.0, "l1": 0.0}
    for image, target in enumerate(targets):
        matched = head.match(output.anchors, target.boxes)
        assert {BACKGROUND, IGNORED} < set(matched.tolist())
        classes = torch.zeros_like(logits[image])
        (anchor,) = torch.where(matched >= 0)
        classes[anchor, target.labels[matched[anchor]]] = 1
        focal = sigmoid_focal_loss(logits[image], classes, alpha=0.3, gamma=1.5)[matched != IGNORED]
        l1 = (deltas[image, anchor] - encode_deltas(target.boxes[matched[anchor]], anchors[anchor])).abs()
        expected["focal"] += focal.sum().item() / len(anchor)
        expected["l1"] += l1.sum().item() / len(anchor)
    losses = head.loss(output, targets)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {name: loss / 2 for name, loss in expected.items()}, rel=1e-4
    )
    # As a part of a step of eight images on two processes.
    losses = head.loss(output, targets, LossTotals(objects=20, images=8, processes=2))
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {name: loss / 4 for name, loss in expected.items()}, rel=1e-4
    )


def test_options_of_detections() -> None:
    output = small_head()(maps())

    def scores(**options: Any) -> Tensor:
        options = {"score_threshold": 0.01, "max_detections": 2000} | options
        decoded = small_head(detection=DenseDetectionOptions(**options)).decode(output)
        return decoded.scores[0, decoded.valid[0]]

    every = scores()
    assert len(every) > 300
    torch.testing.assert_close(scores(max_detections=7), every[:7])
    torch.testing.assert_close(scores(score_threshold=0.3), every[every > 0.3])
    assert (every > 0.3).any()
    assert len(scores(nms_threshold=0.1)) < len(every)
    assert 0 < len(scores(pre_nms_top_k=2)) <= 6


def test_one_level_of_another_width_and_any_stride() -> None:
    spec: Spec = {"p": Level(12, 14)}
    head = small_head(spec, channels=16)
    assert {name for name, _ in head.input_projection.named_parameters()} == {"p.weight", "p.bias"}
    output = head(maps(28, 42, spec=spec))
    assert [len(level) for level in output.anchors] == [9 * 6]
    sides = output.anchors[0][3, 2:] - output.anchors[0][3, :2]
    assert sides.tolist() == [56, 56]
    assert (output.anchors[0][9] - output.anchors[0][0]).tolist() == [14, 0, 14, 0]


def test_starting_point() -> None:
    torch.manual_seed(0)
    head = RetinaNet({"c3": Level(64, 8)}, 20)
    assert head.classes.bias.sigmoid().tolist() == pytest.approx([0.01] * 180)
    assert (head.boxes.bias == 0).all()
    convs = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convs) == 10
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert "base_anchors" not in head.state_dict()


def test_anchors_and_losses_stay_in_float32_under_mixed_precision(make_targets: MakeTargets) -> None:
    head, targets = small_head().train(), make_targets([2, 1], size=(64, 96), num_classes=NUM_CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        output = head(maps(), None, targets)
        losses = head.loss(output, targets)
    assert output.logits[0].dtype == torch.bfloat16
    assert output.offsets[0].dtype == torch.float32
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    half = small_head().half()(dict.fromkeys(SPEC) | {k: x.half() for k, x in maps(64, 4096).items()})
    assert half.anchors[0].dtype == torch.float32
    x1, _, x2, _ = half.anchors[0][-1].tolist()
    assert (x1 + x2) / 2 == 4088  # which half precision does not have


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels is at least 1, not 0"),
        ({"num_convs": -1}, "num_convs is at least 0, not -1"),
        ({"positive_iou": 0.3}, "negative_iou <= positive_iou <= 1 does not hold for 0.4 and 0.3"),
        ({"anchors": AnchorOptions(scale=0.01)}, "no area in whole pixels"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_head(**options)


@pytest.mark.parametrize("options", [{"octave_steps": 0}, {"aspect_ratios": ()}, {"octave_steps": 101}], ids=str)
def test_numbers_of_anchors(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="octave_steps and the number of aspect_ratios are from 1 to 100"):
        AnchorOptions(**options)


def test_no_classes() -> None:
    with pytest.raises(ValueError, match="num_classes is at least 1, not 0"):
        RetinaNet(SPEC, 0)


def test_fresh_scores_are_below_the_threshold_of_detections() -> None:
    head = RetinaNet(SPEC, NUM_CLASSES, num_convs=1).eval()
    output = head(maps())
    assert math.isclose(output.logits[0].sigmoid().mean().item(), 0.01, rel_tol=0.1)
    assert not head.decode(output).valid.any()
