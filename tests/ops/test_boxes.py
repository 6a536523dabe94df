"""Box arithmetic, against torchvision's and against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from boxwright.ops.boxes import (
    area,
    at_least_float32,
    clip_to_sizes,
    cxcywh_to_xyxy,
    generalized_iou,
    inverse_sigmoid,
    iou,
    xyxy_to_cxcywh,
)

# Corner boxes that meet in every way there is.
MEETINGS = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],
        [10.0, 0.0, 20.0, 10.0],  # shares an edge with the first
        [10.0, 10.0, 20.0, 20.0],  # shares a corner with it
        [2.0, 3.0, 5.0, 9.0],  # lies inside it
        [5.0, 5.0, 15.0, 12.0],  # overlaps it
        [30.0, 40.0, 31.0, 90.0],  # is far away
        [3.0, 3.0, 3.0, 9.0],  # has no width
        [4.0, 4.0, 4.0, 4.0],  # is a point
        [50.0, 50.0, 50.0, 50.0],  # is a point outside the others
    ]
)


def random_boxes(count: int, seed: int, scale: float = 640.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * scale * 0.8
    return torch.cat((corner, corner + torch.rand(count, 2, generator=generator) * scale * 0.4), 1)


def test_conversions_on_numbers_worked_out_by_hand() -> None:
    corners = torch.tensor([[10.0, 20.0, 40.0, 100.0]])
    centers = torch.tensor([[25.0, 60.0, 30.0, 80.0]])
    torch.testing.assert_close(xyxy_to_cxcywh(corners), centers, rtol=0, atol=0)
    torch.testing.assert_close(cxcywh_to_xyxy(centers), corners, rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-12)])
def test_conversions_undo_each_other(dtype: torch.dtype, tolerance: float) -> None:
    boxes = random_boxes(1000, seed=0).to(dtype).view(10, 100, 4)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, rtol=0, atol=tolerance)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes, rtol=0, atol=tolerance)


def test_conversions_equal_torchvisions() -> None:
    boxes = random_boxes(1000, seed=1)
    expected = torchvision.ops.box_convert(boxes, "xyxy", "cxcywh")
    torch.testing.assert_close(xyxy_to_cxcywh(boxes), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        cxcywh_to_xyxy(boxes), torchvision.ops.box_convert(boxes, "cxcywh", "xyxy"), rtol=0, atol=1e-4
    )


def test_iou_on_numbers_worked_out_by_hand() -> None:
    one, other = torch.tensor([0.0, 0.0, 4.0, 4.0]), torch.tensor([2.0, 1.0, 6.0, 5.0])
    # 2 x 3 of 16 + 16 - 6; the hull is 6 x 5.
    assert iou(one, other).item() == pytest.approx(6 / 26, abs=1e-7)
    assert generalized_iou(one, other).item() == pytest.approx(6 / 26 - 4 / 30, abs=1e-7)


@pytest.mark.parametrize("boxes", [random_boxes(80, seed=2), MEETINGS], ids=["random", "meetings"])
def test_all_pairs_equal_torchvisions(boxes: Tensor) -> None:
    expected = torchvision.ops.box_iou(boxes, boxes)
    expected_generalized = torchvision.ops.generalized_box_iou(boxes, boxes)
    # torchvision answers NaN where a quotient is 0 / 0.
    points = (area(boxes)[:, None] == 0) & (area(boxes) == 0)
    assert points.any() == expected.isnan().any()
    torch.testing.assert_close(iou(boxes[:, None], boxes), expected.nan_to_num(0), rtol=0, atol=1e-6)
    ours = generalized_iou(boxes[:, None], boxes)
    torch.testing.assert_close(ours[~points], expected_generalized[~points], rtol=0, atol=1e-6)
    assert ours.isfinite().all()


def test_identical_boxes_overlap_fully_and_touching_ones_not_at_all() -> None:
    solid = MEETINGS[area(MEETINGS) > 0]
    torch.testing.assert_close(iou(solid, solid), torch.ones(len(solid)), rtol=0, atol=0)
    torch.testing.assert_close(generalized_iou(solid, solid), torch.ones(len(solid)), rtol=0, atol=0)
    assert iou(MEETINGS[0], MEETINGS[1]).item() == iou(MEETINGS[0], MEETINGS[2]).item() == 0
    assert generalized_iou(MEETINGS[0], MEETINGS[1]).item() == 0
    assert generalized_iou(MEETINGS[0], MEETINGS[2]).item() == -0.5


def test_points_give_zero_and_not_nan() -> None:
    point = MEETINGS[7]
    assert iou(point, point).item() == 0
    assert generalized_iou(point, point).item() == 0


def test_pairs_are_taken_element_by_element() -> None:
    a, b = random_boxes(50, seed=3), random_boxes(50, seed=4)
    for overlap in (iou, generalized_iou):
        torch.testing.assert_close(overlap(a, b), overlap(a[:, None], b).diagonal(), rtol=0, atol=0)


COORDINATE = st.floats(-1000, 1000, width=32)
BOX = st.tuples(COORDINATE, COORDINATE, st.floats(0, 500, width=32), st.floats(0, 500, width=32))


@given(BOX, BOX)
def test_overlap_is_symmetric_and_bounded(one: tuple[float, ...], other: tuple[float, ...]) -> None:
    a, b = (torch.tensor([x, y, x + w, y + h], dtype=torch.float64) for x, y, w, h in (one, other))
    plain, generalized = iou(a, b).item(), generalized_iou(a, b).item()
    assert 0 <= plain <= 1
    assert -1 <= generalized <= plain + 1e-12
    assert plain == iou(b, a).item()
    assert generalized == generalized_iou(b, a).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    # 1,600 x 1,200 pixels: the area alone is beyond the 65,504 of float16.
    a = torch.tensor([[0.0, 0.0, 1600.0, 1200.0]], dtype=dtype)
    b = torch.tensor([[400.0, 300.0, 1600.0, 1200.0]], dtype=dtype)
    for function in (area, xyxy_to_cxcywh, cxcywh_to_xyxy, inverse_sigmoid):
        assert function(a).dtype == torch.float32
    assert iou(a, b).dtype == generalized_iou(a, b).dtype == torch.float32
    torch.testing.assert_close(iou(a, b), iou(a.float(), b.float()), rtol=0, atol=0)
    assert area(a).item() == a[0, 2].item() * a[0, 3].item() > 65504


def test_autocast_does_not_lower_the_precision() -> None:
    a, b = random_boxes(100, seed=5), random_boxes(100, seed=6)
    plain = generalized_iou(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(generalized_iou(a, b), plain, rtol=0, atol=0)


def test_at_least_float32() -> None:
    for dtype, expected in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == expected


@pytest.mark.parametrize("overlap", [iou, generalized_iou])
def test_gradients_are_finite_however_boxes_meet(overlap: Callable[[Tensor, Tensor], Tensor]) -> None:
    a = MEETINGS.clone().requires_grad_()
    overlap(a[:, None], MEETINGS).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_gradients_of_overlaps() -> None:
    generator = torch.Generator().manual_seed(7)
    a = torch.rand(6, 4, dtype=torch.float64, generator=generator)
    b = torch.rand(6, 4, dtype=torch.float64, generator=generator)
    a[:, 2:] += 0.5
    b[:, 2:] += 0.5
    assert torch.autograd.gradcheck(iou, (a.requires_grad_(), b))
    assert torch.autograd.gradcheck(generalized_iou, (a, b))


def test_clipping() -> None:
    boxes = torch.tensor([[-5.0, 2.0, 700.0, 90.0], [-9.0, -9.0, -1.0, -1.0], [1.0, 2.0, 3.0, 4.0]])
    expected = torch.tensor([[0.0, 2.0, 640.0, 48.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    sizes = torch.tensor([[48.0, 640.0]])
    assert torch.equal(clip_to_sizes(boxes[None], sizes)[0], expected)
    # Every image to its own size, and whatever stands between the batch and the boxes.
    several = clip_to_sizes(boxes.expand(2, 5, 3, 4), torch.tensor([[48.0, 640.0], [3.0, 2.0]]))
    assert torch.equal(several[0, 4], expected)
    assert several[1, 0].tolist() == [[0, 2, 2, 3], [0, 0, 0, 0], [1, 2, 2, 3]]


def test_inverse_sigmoid_is_the_inverse() -> None:
    x = torch.linspace(-9, 9, 181, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(x.sigmoid()), x, rtol=0, atol=1e-9)
    p = torch.linspace(0.01, 0.99, 99)
    torch.testing.assert_close(inverse_sigmoid(p), torch.logit(p), rtol=0, atol=1e-5)


def test_inverse_sigmoid_is_cut_at_both_ends_and_has_finite_gradients() -> None:
    p = torch.tensor([-3.0, 0.0, 1e-6, 0.5, 1.0 - 1e-6, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    end = math.log(1e5)
    out = inverse_sigmoid(p)
    near = math.log((1 - 1e-6) / 1e-5)
    expected = torch.tensor([-end, -end, -near, 0.0, near, end, end], dtype=torch.float64)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)
    out.sum().backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()
