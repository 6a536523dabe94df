"""Golden values of released files, of the image ``released.IMAGE``: published in transformers' own tests and scripts.

Authors' files and those of the hub have the same weights, and so the same values. Logits are the first three of the
first queries, boxes are normalized and without their height.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.detector import Detector

GITHUB = "https://github.com/lyuwenyu/storage/releases/download"


class Values(NamedTuple):
    """Logits and boxes of the first queries, (q, 3) each; boxes where they were published."""

    logits: list[list[float]]
    boxes: list[list[float]] | None


class Released(NamedTuple):
    """Values of a model that both the hub and its authors' pages have; ``url`` is the authors' file."""

    url: str
    values: Values


def one(logits: list[float], box: list[float] | None) -> Values:
    """Make values of the first query alone."""
    return Values([logits], None if box is None else [box])


DETR_R50 = Values(
    [[-19.1194, -0.0893, -11.0154], [-17.3640, -1.8035, -14.0219], [-20.0461, -0.5837, -11.1060]],
    [[0.4433, 0.5302, 0.8853], [0.5494, 0.2517, 0.0529], [0.4998, 0.5360, 0.9956]],
)

DEFORMABLE_DETR: dict[str, Values] = {
    "deformable-detr": Values(
        [[-9.6645, -4.3449, -5.8705], [-9.7035, -3.8504, -5.0724], [-10.5634, -5.3379, -7.5116]],
        [[0.8693, 0.2289, 0.2492], [0.3150, 0.5489, 0.5845], [0.5563, 0.7580, 0.8518]],
    ),
    "deformable-detr-single-scale": one([-9.9051, -4.2541, -6.4852], None),
    "deformable-detr-with-box-refine": one([-8.8895, -5.4187, -6.8153], [0.7828, 0.2208, 0.4323]),
    "deformable-detr-with-box-refine-two-stage": one([-6.7108, -4.3213, -6.3777], [0.2583, 0.5499, 0.4683]),
}
"""By the name on the hub, of SenseTime."""

RTDETR: dict[str, Released] = {
    "rtdetr_r18vd": Released(
        f"{GITHUB}/v0.1/rtdetr_r18vd_dec3_6x_coco_from_paddle.pth",
        one([-4.3364253, -6.465683, -3.6130402], [0.16868353, 0.19833282, 0.21182671]),
    ),
    "rtdetr_r34vd": Released(
        f"{GITHUB}/v0.1/rtdetr_r34vd_dec4_6x_coco_from_paddle.pth",
        one([-4.3727384, -4.7921476, -5.7299604], [0.258278, 0.5497808, 0.4732004]),
    ),
    "rtdetr_r50vd_m": Released(
        f"{GITHUB}/v0.1/rtdetr_r50vd_m_6x_coco_from_paddle.pth",
        one([-4.319764, -6.1349025, -6.094794], [0.2582739, 0.55071366, 0.47660282]),
    ),
    "rtdetr_r50vd": Released(
        f"{GITHUB}/v0.1/rtdetr_r50vd_6x_coco_from_paddle.pth",
        one([-4.6476398, -5.001154, -4.9785104], [0.16880608, 0.19992264, 0.21225442]),
    ),
    "rtdetr_r101vd": Released(
        f"{GITHUB}/v0.1/rtdetr_r101vd_6x_coco_from_paddle.pth",
        one([-4.6162, -4.9189, -4.6656], [0.7707, 0.4124, 0.4585]),
    ),
    "rtdetr_v2_r18vd": Released(
        f"{GITHUB}/v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1.pth",
        one([-3.7045, -5.1913, -6.1787], [0.2582, 0.5497, 0.4764]),
    ),
    "rtdetr_v2_r34vd": Released(
        f"{GITHUB}/v0.1/rtdetrv2_r34vd_120e_coco_ema.pth",
        one([-4.6108, -5.9453, -3.8505], [0.1691, 0.1984, 0.2118]),
    ),
    "rtdetr_v2_r50vd_m": Released(
        f"{GITHUB}/v0.1/rtdetrv2_r50vd_m_7x_coco_ema.pth",
        one([-2.7453, -5.4595, -7.3702], [0.7711, 0.4135, 0.4577]),
    ),
    "rtdetr_v2_r50vd": Released(
        f"{GITHUB}/v0.1/rtdetrv2_r50vd_6x_coco_ema.pth",
        one([-4.7881, -4.6754, -6.1624], [0.2588, 0.5487, 0.4747]),
    ),
    "rtdetr_v2_r101vd": Released(
        f"{GITHUB}/v0.1/rtdetrv2_r101vd_6x_coco_from_paddle.pth",
        one([-4.6162, -4.9189, -4.6656], [0.7707, 0.4124, 0.4585]),
    ),
}
"""By the name on the hub, of PekingU."""


@torch.no_grad()
def assert_values(detector: Detector, pixels: Tensor, values: Values, *, box_tolerance: float = 1e-3) -> None:
    """Make sure that the first queries of the last layer have these values."""
    output, logits = detector(pixels), torch.tensor(values.logits)
    torch.testing.assert_close(output.logits[-1, 0, : len(logits), :3], logits, rtol=0, atol=1e-3)
    if values.boxes is not None:
        boxes = output.boxes_cxcywh_norm[-1, 0, : len(values.boxes), :3]
        torch.testing.assert_close(boxes, torch.tensor(values.boxes), rtol=0, atol=box_tolerance)
