"""Origin of a detection: the mechanism of the head that made it, in pixels of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from boxwright.contracts import AttendingNeck, ExplainingHead
from boxwright.detector import Detector
from boxwright.explaining.saliency import ExplainedImage
from boxwright.layers.recording import record_modules
from boxwright.mechanism import (
    CellAttention,
    DenseMechanism,
    Mechanism,
    QueryMechanism,
    TwoStageMechanism,
    move_positions,
)
from boxwright.mechanism_levels import LevelCell
from boxwright.original_pixels import undo_rounding
from boxwright.prediction import evaluation_mode
from boxwright_runtime.size_rules import letterbox_scale


@dataclass(frozen=True, eq=False)
class DetectionOrigin:
    """Origin of a detection, in pixels of the image.

    Args:
        mechanism: of the head.
        encoder: attention of the cell at the detection's center, in each layer of encoders among the necks; none where
            there are no encoders.
    """

    mechanism: Mechanism
    encoder: tuple[CellAttention, ...] = ()


def trace_origin(detector: Detector, image: UInt8[np.ndarray, "h w 3"], number: int) -> DetectionOrigin | None:
    """Find where a detection comes from, in one pass of the detector over the image.

    Args:
        detector: any.
        image: RGB.
        number: of the detection, from 1, the one with the highest score.

    Returns:
        None where the head is one from outside that has no explanations.

    Raises:
        ValueError: there is no such detection.
    """
    head = cast(object, detector.head)
    prepared = ExplainedImage(detector, image)
    if not isinstance(head, ExplainingHead):
        return None
    encoders = [neck for neck in detector.necks if isinstance(neck, AttendingNeck)]
    modules = [*head.recorded_modules(), *(module for one in encoders for module in one.recorded_modules())]
    images, padding_mask = prepared.make_input()
    with torch.no_grad(), evaluation_mode(detector), record_modules(modules) as recorded:
        output = undo_rounding(detector(images, padding_mask), [prepared.size], detector.input_format)
        (valid,) = torch.where(detector.decode(output).valid[0])
        if not 1 <= number <= len(valid):
            raise ValueError(f"there is no detection {number}: there are {len(valid)}, the best is 1")
        mechanism = head.explain(output, recorded, int(valid[number - 1]))
    x1, y1, x2, y2 = mechanism.box.tolist()
    cell = main_cell(mechanism)
    center, level = ((x1 + x2) / 2, (y1 + y2) / 2), None if cell is None else cell.level
    attention = [one for encoder in encoders for one in encoder.explain_cell(recorded, center, level)]
    move = _to_image(prepared)
    return DetectionOrigin(move_positions(mechanism, move), tuple(move_positions(one, move) for one in attention))


def main_cell(mechanism: Mechanism) -> LevelCell | None:
    """Return the cell that a detection was predicted from; None where it was not one."""
    if isinstance(mechanism, QueryMechanism):
        return None if mechanism.proposal is None else mechanism.proposal.cell
    if isinstance(mechanism, DenseMechanism):
        return mechanism.anchor.cell
    return mechanism.proposal.anchor.cell if isinstance(mechanism, TwoStageMechanism) else None


def _to_image(prepared: ExplainedImage) -> Callable[[Float[Tensor, "*n r"]], Float[Tensor, "*n r"]]:
    """Make the function from pixels of the network input to those of the image."""
    own, size = prepared.detector.input_format, prepared.size
    window = own.window(size.height, size.width)
    scale = ((window.x2 - window.x1) / size.input_width, (window.y2 - window.y1) / size.input_height)
    if own.resize == "letterbox":
        scale = (1 / letterbox_scale(size.height, size.width, own.image_size),) * 2
    factor, corner = torch.tensor(scale), torch.tensor([window.x1, window.y1])

    def move(positions: Float[Tensor, "*n r"]) -> Float[Tensor, "*n r"]:
        times = positions.shape[-1] // 2
        return positions * factor.repeat(times) + corner.repeat(times)

    return move
