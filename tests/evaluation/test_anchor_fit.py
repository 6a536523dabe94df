"""Objects against anchors: every IoU as if all anchors had been compared, counts by hand."""

from __future__ import annotations

import pytest
import torch

from boxwright.contracts import AnchorHead
from boxwright.evaluation.anchor_fit import survey_anchors
from boxwright.heads.efficientdet import EfficientDet
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.heads.fcos import FCOS
from boxwright.heads.retinanet import RetinaNet
from boxwright.ops.anchors import AnchorGrid, anchor_steps, best_anchor_ious, grid_anchors, octave_anchors
from boxwright.ops.boxes import iou
from boxwright.structures import Level
from boxwright_runtime.input_format import InputFormat
from object_records import make_record, of_records

SPEC = {"c3": Level(8, 8), "c4": Level(8, 16), "c5": Level(8, 32)}
CPU = torch.device("cpu")


@pytest.mark.parametrize("grid", ["level", "padded_input"])
def test_the_best_is_that_of_all_anchors(grid: AnchorGrid) -> None:
    torch.manual_seed(0)
    strides, size = [8, 16, 64], (150, 210)
    bases = torch.stack([octave_anchors(4.0 * s, 2, (0.5, 1.0, 2.0)) + s / 3 for s in strides])
    corner, side = torch.rand(60, 2) * torch.tensor([200.0, 140.0]), torch.rand(60, 2) * 150 + 1
    boxes = torch.cat((corner, corner + side), 1)
    shapes = [(-(-size[0] // s), -(-size[1] // s)) for s in strides]
    steps = anchor_steps(shapes, strides, grid)
    anchors = torch.cat([grid_anchors(b, *shape, step) for b, shape, step in zip(bases, shapes, steps, strict=True)])
    expected = iou(boxes[:, None], anchors).amax(1)
    torch.testing.assert_close(best_anchor_ious(bases, strides, grid, boxes, size), expected)


def test_shapes_that_no_anchor_has_are_counted_by_class() -> None:
    """The squares and the one of 2 : 1 fit; lines of 10 : 1 and what is larger than any anchor do not."""
    fitting = [(16, 16, 64, 64), (100, 100, 64, 32)]
    lines, huge = [(0, 8, 240, 8), (0, 40, 240, 8)], [(0, 0, 250, 250)]
    data = of_records(
        [make_record((256, 256), fitting + lines, [0, 0, 1, 1]), make_record((256, 256), huge, [2])],
        "a",
        "line",
        "huge",
    )
    head = RetinaNet({"c3": Level(8, 8), "c4": Level(8, 16)}, 3)
    survey = survey_anchors(data, head, InputFormat(image_size=256), CPU)
    assert survey is not None
    assert (survey.positive_iou, survey.negative_iou) == (0.5, 0.4)
    assert survey.total.tolist() == [2, 2, 1]
    assert survey.below_negative.tolist() == [0, 2, 1]
    assert survey.below_positive.tolist() == [0, 2, 1]
    assert survey.larger.tolist() == [0, 0, 1]
    assert 95 < survey.largest_side < 105


def test_shapes_between_the_limits_are_below_the_upper_one_alone_and_crowds_have_none() -> None:
    """An object whose best anchor has an IoU of 0.45; beside it a crowd, a line of 10 : 1, which nobody trains on."""
    head, square = RetinaNet({"c3": Level(8, 8)}, 2), InputFormat(image_size=256)
    widths = [float(width) for width in range(40, 200)]
    candidates = torch.tensor([[16.0, 100, 16 + width, 116] for width in widths])
    best = head.anchor_fits(candidates, (256, 256)).best
    width = widths[int((best - 0.45).abs().argmin())]
    objects = [(16.0, 100.0, width, 16.0), (0.0, 8.0, 240.0, 8.0)]
    survey = survey_anchors(
        of_records([make_record((256, 256), objects, [0, 1], [False, True])], "a", "b"), head, square, CPU
    )
    assert survey is not None
    assert survey.total.tolist() == [1, 0]
    assert survey.below_positive.tolist() == [1, 0]
    assert survey.below_negative.tolist() == [0, 0]


def test_boxes_are_those_of_the_network_input() -> None:
    """Of an image twice as large, the same objects have the same fits."""
    small = of_records([make_record((256, 256), [(10, 20, 33, 77)])])
    large = of_records([make_record((512, 512), [(20, 40, 66, 154)])])
    fits = [survey_anchors(data, FasterRCNN(SPEC, 1), InputFormat(image_size=256), CPU) for data in (small, large)]
    assert fits[0] is not None
    assert fits[1] is not None
    assert fits[0].below_positive.tolist() == fits[1].below_positive.tolist()


@pytest.mark.parametrize(("head", "limits"), [(FasterRCNN, (0.7, 0.3)), (EfficientDet, (0.5, 0.5))])
def test_limits_are_those_of_the_heads_matching(head: type[EfficientDet], limits: tuple[float, float]) -> None:
    made = head(SPEC, 1)
    assert isinstance(made, AnchorHead)
    fits = made.anchor_fits(torch.tensor([[10.0, 10, 50, 60]]), (128, 128))
    assert (fits.positive_iou, fits.negative_iou) == limits
    assert 0.3 < float(fits.best) < 1


def test_points_have_no_shape() -> None:
    data = of_records([make_record((64, 64), [(1, 1, 9, 9)])])
    assert survey_anchors(data, FCOS(SPEC, 1), InputFormat(image_size=64), CPU) is None
