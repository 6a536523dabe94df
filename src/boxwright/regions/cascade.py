"""Stages of a cascade: the weights of their deltas, and the scores of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.box_deltas import Weights
from boxwright.ops.boxes import at_least_float32
from boxwright.regions.box_branch import BoxPrediction

StageStds = Sequence[tuple[float, float]]
"""Standard deviations of the deltas of each stage, of centers and of sizes, in sides of the region."""

Average = Literal["scores", "logits"]


def stage_delta_weights(num_stages: int, stds: StageStds | None) -> list[Weights]:
    """Compute the weights of the deltas of each stage: later stages move boxes less.

    Args:
        num_stages: number of stages.
        stds: standard deviations of the deltas of each stage; None for weights of t times (10, 5) in stage t.

    Raises:
        ValueError: standard deviations are not positive, or those of another number of stages.

    Source: Cai and Vasconcelos, Cascade R-CNN, CVPR 2018, and the configuration of zhaoweicai/Detectron-Cascade-RCNN
    5a297fc. mmdetection 3.3.0's third stage has 0.033 and 0.067 where that has 1 / 30 and 1 / 15.
    """
    if stds is None:
        return [(10.0 * (stage + 1), 5.0 * (stage + 1)) for stage in range(num_stages)]
    if len(stds) != num_stages or min((min(pair) for pair in stds), default=0.0) <= 0:
        raise ValueError(f"stage_stds are {num_stages} pairs of positive numbers, not {list(stds)}")
    return [(1 / center, 1 / size) for center, size in stds]


def average_stages(predictions: Sequence[BoxPrediction], count: int, average: Average) -> Float[Tensor, "b n k"]:
    """Average the scores of the stages, or their logits, of equally many regions of each image.

    Args:
        predictions: of each stage for its regions.
        count: number of images.
        average: ``scores`` (detectron2), or the scores of mean ``logits`` (mmdetection).

    Source: ``logits``: CascadeRoIHead of mmdetection 3.3.0.
    """
    if average == "logits":
        logits = torch.stack([at_least_float32(one.logits) for one in predictions]).sum(0) / len(predictions)
        return BoxPrediction(logits, predictions[-1].deltas).of_images(count)[0]
    scores, *others = [one.of_images(count)[0] for one in predictions]
    for other in others:
        scores = scores + other
    return scores / len(predictions)
