"""The region proposal network, against torchvision's with the same weights."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers

from boxwright.regions.options import RPNOptions
from boxwright.regions.proposals import RPN

STRIDES = (4, 8, 16)


@pytest.mark.parametrize("num_convs", [1, 2])
def test_equals_torchvisions(num_convs: int) -> None:
    torch.manual_seed(0)
    ours, theirs = RPN(6, STRIDES, RPNOptions(num_convs=num_convs)), RPNHead(6, 3, conv_depth=num_convs)
    for conv, other in zip(ours.convs, theirs.conv, strict=True):
        other[0].load_state_dict(conv.state_dict())
    theirs.cls_logits.load_state_dict(ours.logits.state_dict())
    theirs.bbox_pred.load_state_dict(ours.deltas.state_dict())
    maps = [torch.randn(2, 6, 128 // stride, 192 // stride) * 100 for stride in STRIDES]
    output = ours(maps)
    expected = concat_box_prediction_layers(*theirs(maps))
    torch.testing.assert_close(torch.cat(output.logits, 1).view(-1, 1), expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat(output.deltas, 1).view(-1, 4), expected[1], rtol=0, atol=1e-5)
    generator = AnchorGenerator(((32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 3)
    anchors = generator(ImageList(torch.zeros(1, 3, 128, 192), [(128, 192)]), maps)[0]
    torch.testing.assert_close(torch.cat(output.anchors), anchors, rtol=0, atol=0)


def test_anchors_of_the_padded_input_are_torchvisions() -> None:
    size = (160, 224)
    maps = [torch.zeros(1, 6, -(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 64)]
    generator = AnchorGenerator(((32,), (64,), (512,)), ((0.5, 1.0, 2.0),) * 3)
    (expected,) = generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    anchors = torch.cat(RPN(6, (4, 8, 64), RPNOptions(anchor_grid="padded_input"))(maps).anchors)
    torch.testing.assert_close(anchors, expected, rtol=0, atol=0)
    assert (torch.cat(RPN(6, (4, 8, 64), RPNOptions())(maps).anchors) - expected).abs().max() == 24


def test_fractional_anchors() -> None:
    anchors = RPN(6, (4,), RPNOptions(whole_pixels=False))([torch.zeros(1, 6, 1, 1)]).anchors[0]
    # mmdetection 3.3.0's AnchorGenerator(strides=[4], ratios=[0.5, 1.0, 2.0], scales=[8]).
    expected = [[-22.6274, -11.3137, 22.6274, 11.3137], [-16, -16, 16, 16], [-11.3137, -22.6274, 11.3137, 22.6274]]
    torch.testing.assert_close(anchors, torch.tensor(expected), rtol=0, atol=1e-4)
