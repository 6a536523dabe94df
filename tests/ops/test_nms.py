"""NMS within groups, against NMS of each group alone, in float64."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from boxwright.ops.nms import find_suppressed, nms_keep_mask, nms_top_k
from boxwright.ops.onnx_operators import tracing_for_onnx

BATCH = 8
THRESHOLD = 0.5


def close_calls(num_pairs: int, num_groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes in float32, in pairs of one group that overlap a hair more or less than the threshold, on 8 images."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(BATCH, num_pairs, 2, generator=generator) * 1000
    sides = torch.rand(BATCH, num_pairs, 2, generator=generator) * 200 + 8
    hair = 1 + 1e-3 * torch.randn(BATCH, num_pairs, generator=generator)
    shift = torch.zeros_like(corners)
    shift[..., 0] = sides[..., 0] * (1 - THRESHOLD) / (1 + THRESHOLD) * hair
    boxes = torch.cat((corners, corners + sides), -1)
    boxes = torch.cat((boxes, boxes + shift.repeat(1, 1, 2)), 1)
    groups = torch.randint(num_groups, (BATCH, num_pairs), generator=generator).repeat(1, 2)
    scores = torch.rand(BATCH, 2 * num_pairs, generator=generator)
    return boxes, scores, groups, torch.rand(scores.shape, generator=generator) > 0.05


def one_group_at_a_time(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """Keep boxes image by image and group by group, without any shift of coordinates."""
    kept = torch.zeros_like(valid)
    for image in range(len(boxes)):
        for group in groups[image].unique():
            (own,) = torch.where(valid[image] & (groups[image] == group))
            kept[image, own[nms(boxes[image, own].double(), scores[image, own].double(), THRESHOLD)]] = True
    return kept


@pytest.mark.parametrize("form", ["eager", "compiled", "onnx"])
# More than 1,000 boxes go another way through torchvision.
@pytest.mark.parametrize("num_pairs", [60, 100])
@pytest.mark.parametrize("num_groups", [5, 365, 1203])
def test_groups_of_images_are_suppressed_as_each_alone(
    num_groups: int, num_pairs: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: form == "compiled")
    cases = close_calls(num_pairs, num_groups)
    expected = one_group_at_a_time(*cases)
    valid = cases[3]
    assert 0.1 < (valid & ~expected).float().mean() < 0.4
    with tracing_for_onnx() if form == "onnx" else nullcontext():
        together = nms_keep_mask(*cases, THRESHOLD, num_groups)
        assert torch.equal(together, expected)
        for image in range(BATCH):
            alone = nms_keep_mask(*(field[image : image + 1] for field in cases), THRESHOLD, num_groups)
            assert torch.equal(alone[0], together[image])


def test_neighbors_change_nothing() -> None:
    boxes, scores, groups, valid = close_calls(60, 1203)
    alone = nms_keep_mask(boxes[:1], scores[:1], groups[:1], valid[:1], THRESHOLD, 1203)
    for far in (0.0, 1.0, 10.0):
        others = boxes[1:] * (1 + far)
        among = nms_keep_mask(torch.cat((boxes[:1], others)), scores, groups, valid, THRESHOLD, 1203)
        assert torch.equal(among[:1], alone)


def test_the_best_come_first_and_others_fill_up() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [50, 50, 60, 60], [70, 70, 80, 80]])[None]
    scores = torch.tensor([[0.5, 0.9, 0.7, 0.9, 1.0]])
    groups = torch.tensor([[0, 0, 1, 0, 0]])
    valid = torch.tensor([[True, True, True, True, False]])
    indices, kept = nms_top_k(boxes, scores, groups, valid, threshold=THRESHOLD, count=4, num_groups=2)
    assert indices[0, :3].tolist() == [1, 3, 2]
    assert kept.tolist() == [[True, True, True, False]]
    nobody = nms_top_k(boxes, scores, groups, ~valid & valid, threshold=THRESHOLD, count=4, num_groups=2)
    assert not nobody[1].any()


def test_each_dropped_box_has_one_that_it_is_dropped_for() -> None:
    """Box by box: the first kept one, in the order of scores, that overlaps it by more than the threshold."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(120, 2, generator=generator) * 30
    boxes = torch.cat((corner, corner + 10 + 20 * torch.rand(120, 2, generator=generator)), 1)
    # Many equal scores.
    scores = (torch.rand(120, generator=generator) * 20).round() / 20
    groups, valid = torch.arange(120) % 3, torch.arange(120) % 10 > 0
    keep = nms_keep_mask(boxes[None], scores[None], groups[None], valid[None], THRESHOLD, 3)[0]
    expected: dict[int, list[int]] = {index: [] for index in torch.where(keep)[0].tolist()}
    order = scores.argsort(descending=True, stable=True).tolist()
    for index in order:
        if not valid[index] or keep[index]:
            continue
        best = next(
            other
            for other in order
            if keep[other] and groups[other] == groups[index] and box_iou(boxes, other, index) > THRESHOLD
        )
        expected[best].append(index)
    assert max(len(dropped) for dropped in expected.values()) > 2
    for kept, dropped in expected.items():
        own = find_suppressed(boxes, scores, groups, valid, THRESHOLD, kept)
        assert own.tolist() == dropped


def box_iou(boxes: Tensor, a: int, b: int) -> float:
    """IoU of two boxes, written out."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = boxes[a].tolist(), boxes[b].tolist()
    both = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    return both / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - both)
