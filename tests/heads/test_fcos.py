"""FCOS's head: its points, losses, scores and options."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from boxwright.dense.options import DenseDetectionOptions, FocalOptions
from boxwright.dense.output import DenseOutput
from boxwright.heads.fcos import FCOS, decode_distances
from boxwright.structures import Features, Level, LossTotals, Spec, Targets

MakeTargets = Callable[..., list[Targets]]

SPEC: Spec = {"c3": Level(16, 8), "c4": Level(16, 16), "c5": Level(16, 32)}


def small_head(spec: Spec = SPEC, num_classes: int = 4, **options: Any) -> FCOS:
    torch.manual_seed(0)
    head = FCOS(spec, num_classes, **({"num_convs": 1} | options))
    with torch.no_grad():
        for layer in (head.classes, head.distances, head.centerness):
            layer.weight.normal_(std=0.1)
    return head.eval()


def maps(height: int = 64, width: int = 64, *, batch: int = 2, spec: Spec = SPEC) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def ideal(head: FCOS, targets: list[Targets], size: tuple[int, int]) -> DenseOutput:
    """Make the output of a head that has learned these images by heart."""
    output = head(maps(*size, batch=len(targets)))
    squares = torch.cat(output.anchors)
    point, side = (squares[:, :2] + squares[:, 2:]) / 2, squares[:, 2:] - squares[:, :2]
    assert output.centerness is not None
    parts = (output.logits, output.offsets, output.centerness)
    logits, distances, centerness = (torch.cat(x, 1).detach() for x in parts)
    logits.fill_(-9.0)
    distances.fill_(1.0)
    centerness.fill_(-9.0)
    for image, target in enumerate(targets):
        objects = head.match(output.anchors, target.boxes)
        (point_index,) = torch.where(objects >= 0)
        boxes = target.boxes[objects[point_index]]
        near, far = point[point_index] - boxes[:, :2], boxes[:, 2:] - point[point_index]
        logits[image, point_index, target.labels[objects[point_index]]] = 9.0
        distances[image, point_index] = torch.cat((near, far), 1) / side[point_index].repeat(1, 2)
        central = (torch.minimum(near, far) / torch.maximum(near, far)).prod(1).sqrt()
        centerness[image, point_index, 0] = central.logit(1e-4)
    counts = [len(level) for level in output.anchors]
    return output._replace(
        logits=logits.split(counts, 1), offsets=distances.split(counts, 1), centerness=centerness.split(counts, 1)
    )


@pytest.mark.parametrize(("offset", "first"), [(0.5, 4.0), (0.0, 0.0), (0.25, 2.0)])
def test_points_lie_where_the_option_says(offset: float, first: float) -> None:
    output = small_head(point_offset=offset)(maps(24, 40))
    assert [len(level) for level in output.anchors] == [15, 6, 2]
    finest = output.anchors[0]
    assert (finest[0] == torch.tensor([first - 4, first - 4, first + 4, first + 4])).all()
    assert (finest[1] - finest[0] == torch.tensor([8.0, 0.0, 8.0, 0.0])).all()
    assert (finest[5] - finest[0] == torch.tensor([0.0, 8.0, 0.0, 8.0])).all()
    assert (output.anchors[2][:, 2:] - output.anchors[2][:, :2] == 32).all()


def test_every_point_reads_its_own_cell() -> None:
    head, features = small_head(num_convs=0), maps(24, 40, batch=1)
    before = head(features)
    features["c3"][0, :, 2, 3] += 1
    changed = (head(features).logits[0] - before.logits[0]).abs().amax((0, 2)).view(3, 5) > 0
    rows, columns = torch.where(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 2, 2, 4)


@pytest.mark.parametrize("counts", [[5, 2], [3, 0]], ids=str)
def test_a_head_that_knows_the_objects_has_hardly_a_loss(counts: list[int], make_targets: MakeTargets) -> None:
    head, size = small_head(center_radius=None), (96, 128)
    targets = make_targets(counts, size=size)
    terms = head.loss(ideal(head, targets, size), targets)
    assert terms["focal"] < 1e-6
    assert terms["giou"] < 1e-5
    assert head.loss(head(maps(*size)), targets)["giou"] > 0.1


def test_a_head_that_knows_the_objects_finds_them() -> None:
    head, size = small_head(), (96, 128)
    targets = [Targets(torch.tensor([2, 0]), torch.tensor([[3.0, 8, 60, 50], [70, 30, 110, 90]]), size)]
    decoded = head.decode(ideal(head, targets, size))
    assert decoded.valid.sum() == 2
    labels, boxes = decoded.labels[decoded.valid], decoded.boxes[decoded.valid]
    assert labels.sort().values.tolist() == [0, 2]
    torch.testing.assert_close(boxes[labels.argsort(descending=True)], targets[0].boxes, rtol=0, atol=1e-3)


def test_losses_as_written_out(make_targets: MakeTargets) -> None:
    head, size = small_head(focal=FocalOptions(alpha=0.3, gamma=1.5)), (64, 64)
    targets = make_targets([3, 2], size=size)
    output = head(maps(*size))
    assert output.centerness is not None
    logits, distances, centerness = (torch.cat(x, 1) for x in (output.logits, output.offsets, output.centerness))
    squares = torch.cat(output.anchors)
    classes, giou, central, count = torch.zeros_like(logits), [], [], 0
    for image, target in enumerate(targets):
        for point_index, index in enumerate(head.match(output.anchors, target.boxes).tolist()):
            if index < 0:
                continue
            count += 1
            classes[image, point_index, target.labels[index]] = 1
            stride, box = squares[point_index, 2] - squares[point_index, 0], target.boxes[index]
            x, y = squares[point_index, :2] + stride / 2
            l, t, r, b = distances[image, point_index] * stride
            giou.append(generalized_box_iou_loss(torch.stack((x - l, y - t, x + r, y + b)), box))
            l, t, r, b = x - box[0], y - box[1], box[2] - x, box[3] - y
            ratio = math.sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))
            logit = centerness[image, point_index, 0]
            central.append(F.binary_cross_entropy_with_logits(logit, torch.tensor(ratio)))
    assert count > 5
    assert head.count_matches(targets, size) == count
    expected = {
        "focal": sigmoid_focal_loss(logits, classes, alpha=0.3, gamma=1.5, reduction="sum") / count,
        "giou": torch.stack(giou).sum() / count,
        "centerness": torch.stack(central).sum() / count,
    }
    torch.testing.assert_close(head.loss(output, targets), expected, rtol=1e-5, atol=1e-6)
    thrice = head.loss(output, targets, LossTotals(5, 2, matches=3 * count))
    torch.testing.assert_close(thrice, {name: value / 3 for name, value in expected.items()}, rtol=1e-5, atol=1e-6)


def test_totals_without_matches_are_refused(make_targets: MakeTargets) -> None:
    head, targets = small_head(), make_targets([1, 1])
    with pytest.raises(ValueError, match="matches"):
        head.loss(head(maps()), targets, LossTotals.of(targets))


@pytest.mark.parametrize("size", [(64, 64), (100, 75), (9, 30)], ids=str)
def test_matches_are_counted_on_the_cells_that_maps_have(size: tuple[int, int], make_targets: MakeTargets) -> None:
    head = small_head()
    # The valid size may be smaller than the input size.
    targets = make_targets([4, 0, 2], size=(min(size[0], 50), min(size[1], 60)))
    output = head(maps(*size, batch=3))
    matched = sum(int((head.match(output.anchors, target.boxes) >= 0).sum()) for target in targets)
    assert head.count_matches(targets, size) == matched
    assert head.count_matches([], size) == 0


def test_scores_are_geometric_means() -> None:
    detection = DenseDetectionOptions(
        score_threshold=0.0, nms_threshold=1.0, pre_nms_top_k=10_000, max_detections=10_000
    )
    head = small_head(detection=detection)
    output = head(maps())
    assert output.centerness is not None
    classes, centerness = torch.cat(output.logits, 1).sigmoid(), torch.cat(output.centerness, 1).sigmoid()
    scores, pairs = (classes * centerness).sqrt().flatten(1).sort(descending=True, stable=True)
    decoded = head.decode(output)
    torch.testing.assert_close(decoded.scores, scores, rtol=0, atol=1e-6)
    assert (decoded.boxes[..., 2:] >= decoded.boxes[..., :2]).all()
    boxes = decode_distances(torch.cat(output.offsets, 1), torch.cat(output.anchors).expand(2, -1, -1)).clamp(0, 64)
    best = pairs[:, :1, None] // 4
    torch.testing.assert_close(decoded.boxes[:, :1], boxes.gather(1, best.expand(-1, -1, 4)))


def test_detections_keep_to_thresholds_and_counts() -> None:
    features = maps(batch=1)

    def detections(**options: Any) -> Tensor:
        defaults = {"score_threshold": 0.2, "nms_threshold": 0.6, "max_detections": 100}
        head = small_head(detection=DenseDetectionOptions(**(defaults | options)))
        decoded = head.decode(head(features))
        return decoded.scores[0, decoded.valid[0]]

    scores = detections(score_threshold=0.0, nms_threshold=1.0, pre_nms_top_k=10_000, max_detections=10_000)
    assert len(scores) == 4 * (64 + 16 + 4)
    limit = scores[100].item()
    above = detections(score_threshold=limit, nms_threshold=1.0, max_detections=1000)
    assert torch.equal(above, scores[:100])
    assert len(detections(score_threshold=0.0, max_detections=7)) == 7
    assert len(detections(score_threshold=0.0, nms_threshold=1.0, pre_nms_top_k=5)) == 15
    assert len(detections(score_threshold=0.0, nms_threshold=0.1, max_detections=1000)) < len(scores)


@pytest.mark.parametrize(
    "spec",
    [
        {"only": Level(16, 32)},
        {"c3": Level(12, 8), "c4": Level(20, 16), "c5": Level(28, 16)},
        {"fine": Level(16, 4), "coarse": Level(16, 32)},
        {"c3": Level(16, 8), "raw": Level(5, 8, auxiliary=True), "c4": Level(16, 16)},
    ],
    ids=["one level", "DC5", "a gap", "auxiliary"],
)
def test_any_levels_train(spec: Spec, make_targets: MakeTargets) -> None:
    head = small_head(spec, channels=16 if len({level.channels for level in spec.values()}) > 2 else None).train()
    targets = make_targets([3, 1])
    sum(head.loss(head(maps(spec=spec)), targets).values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert head.count_matches(targets, (64, 64)) > 0


def test_norms() -> None:
    wide = {"c3": Level(64, 8)}
    groups = [layer for layer in FCOS(wide, 2).modules() if isinstance(layer, torch.nn.GroupNorm)]
    assert [norm.num_groups for norm in groups] == [32] * 8
    none = FCOS(wide, 2, norm="none")
    assert not any(isinstance(layer, torch.nn.GroupNorm) for layer in none.modules())
    for head in (FCOS(wide, 2), none):
        assert all(conv.bias is not None for conv in head.modules() if isinstance(conv, torch.nn.Conv2d))


def test_every_class_starts_at_one_percent() -> None:
    logits = torch.cat(FCOS(SPEC, 3)(maps()).logits, 1)
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)


def test_boxes_and_losses_stay_in_float32_under_autocast(make_targets: MakeTargets) -> None:
    head, targets = small_head(), make_targets([2, 1])
    with torch.autocast("cpu", torch.bfloat16):
        output = head(maps())
        losses = head.loss(output, targets)
    assert output.logits[0].dtype == torch.bfloat16
    for x in (*output.offsets, *output.anchors, head.decode(output).boxes, *losses.values()):
        assert x.dtype == torch.float32
    expected = head.loss(head(maps()), targets)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=0.05, atol=0.01)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_classes", 0),
        ("channels", 0),
        ("num_convs", -1),
        ("point_offset", 1.5),
        ("center_radius", -1.0),
    ],
)
def test_bad_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(str(value))):
        FCOS(SPEC, **({"num_classes": 4} | {option: value}))
