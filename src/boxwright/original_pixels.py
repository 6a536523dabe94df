"""The way back from the network input to the pixels of the original images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.contracts import SizedOutput
from boxwright.ops.boxes import clip_to_sizes
from boxwright.ops.finite import check_finite
from boxwright.structures import Category, Decoded, ImageSize, MaskRegion
from boxwright_runtime.arrays import to_numpy
from boxwright_runtime.detections import Detections
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.mask_pasting import paste_masks
from boxwright_runtime.size_rules import letterbox_scale


def restore_images(
    decoded: Decoded,
    image_sizes: Sequence[ImageSize],
    input_format: InputFormat,
    categories: tuple[Category, ...],
    *,
    mask_region: MaskRegion | None = None,
) -> list[Detections]:
    """Make the detections of each image in pixels of the original image, cut to it.

    Args:
        decoded: in pixels of the network input.
        image_sizes: one per image.
        input_format: how the images came to their input size.
        categories: of the labels.
        mask_region: that the cells of a mask consist of; None leaves masks out.

    Raises:
        ValueError: a score is not a number: the model has diverged.
    """
    decoded = _at_least_float32(decoded)
    check_finite(decoded.scores)
    scales = _scales(image_sizes, input_format, decoded.boxes)
    boxes = _cut_to_images(decoded.boxes * scales[:, None], image_sizes)
    detections = []
    for i, size in enumerate(image_sizes):
        keep = decoded.valid[i]
        masks = None
        if mask_region is not None and decoded.masks is not None and decoded.mask_boxes is not None:
            # A mask is of all of its region, also of what reaches beyond the image.
            whole = decoded.mask_boxes[i, keep] * scales[i]
            masks = paste_masks(
                to_numpy(decoded.masks[i, keep]), to_numpy(whole), (size.height, size.width), region=mask_region
            )
        std = decoded.sides_std[i, keep] * scales[i] if decoded.sides_std is not None else None
        detections.append(
            Detections(boxes[i, keep], decoded.scores[i, keep], decoded.labels[i, keep], masks, categories, std)
        )
    return detections


def undo_rounding(output: Any, image_sizes: Sequence[ImageSize], input_format: InputFormat) -> Any:
    """Let images end where they would without rounding, before ``decode``, where the input format asks for it.

    So effdet cuts boxes, and scales them back by one factor.
    """
    if input_format.resize != "letterbox" or not isinstance(output, SizedOutput):
        return output
    scales = [letterbox_scale(size.height, size.width, input_format.image_size) for size in image_sizes]
    exact = [(size.height * scale, size.width * scale) for size, scale in zip(image_sizes, scales, strict=True)]
    return output._replace(valid_sizes=output.valid_sizes.new_tensor(exact))


def _at_least_float32(decoded: Decoded) -> Decoded:
    """Convert to float32 where half precision would blur coordinates beyond 2048 pixels, or 256 in bfloat16."""
    if decoded.boxes.dtype not in (torch.float16, torch.bfloat16):
        return decoded
    others = decoded.masks, decoded.mask_boxes, decoded.sides_std
    floats = (None if one is None else one.float() for one in others)
    return Decoded(decoded.boxes.float(), decoded.scores.float(), decoded.labels, decoded.valid, *floats)


def _cut_to_images(boxes: Float[Tensor, "b n 4"], image_sizes: Sequence[ImageSize]) -> Float[Tensor, "b n 4"]:
    """Cut boxes to the original images, in whose pixels they are."""
    return clip_to_sizes(boxes, boxes.new_tensor([[size.height, size.width] for size in image_sizes]))


def _scales(image_sizes: Sequence[ImageSize], input_format: InputFormat, like: Tensor) -> Float[Tensor, "b 4"]:
    """Compute factors (x, y, x, y) from pixels of the network input to those of each original image."""
    if input_format.resize == "letterbox":
        scales = [(1 / letterbox_scale(size.height, size.width, input_format.image_size),) * 2 for size in image_sizes]
    else:
        scales = [(size.width / size.input_width, size.height / size.input_height) for size in image_sizes]
    return like.new_tensor(scales).repeat(1, 2)
