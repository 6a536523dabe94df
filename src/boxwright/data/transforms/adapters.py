"""Transforms of torchvision and albumentations, as transforms of training samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from boxwright.data.transforms.seeding import fork_random_state
from boxwright.data.transforms.transform import (
    PixelMasks,
    TrainingSample,
    Transform,
    TransformContext,
    keep_visible,
    to_image,
)
from boxwright_runtime.images import as_rgb

MIN_SIDE = 1e-3
"""Boxes with a side below this, in pixels of the changed image, are dropped."""


@dataclass(frozen=True)
class TorchvisionTransform:
    """A transform of ``torchvision.transforms.v2``, or several in a ``v2.Compose``.

    It gets a dictionary with ``image`` (a ``tv_tensors.Image``), ``boxes``, ``labels`` and, for detectors with masks,
    ``masks``. Objects whose box has no area left are dropped. torch's random numbers come from the sample's own
    generator while it runs.

    Args:
        transform: the transform.
        is_strong: it is left out in the stages of training without strong augmentation.
    """

    transform: Callable[[dict[str, Any]], dict[str, Any]]
    is_strong: bool = True

    def __call__(self, sample: TrainingSample, context: TransformContext) -> TrainingSample:
        """Return the changed sample; see ``Transform``."""
        if self.is_strong and not context.is_strong:
            return sample
        size = sample.image.shape[:2]
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(sample.boxes), format="XYXY", canvas_size=size)
        inputs = {
            "image": tv_tensors.Image(to_image(sample.image)),
            "boxes": boxes,
            "labels": torch.from_numpy(sample.labels),
        }
        masks = sample.mask_pixels()
        if masks is not None:
            inputs["masks"] = tv_tensors.Mask(torch.from_numpy(masks))
        with fork_random_state(context.rng):
            outputs = self.transform(inputs)
        moved = F.convert_bounding_box_format(outputs["boxes"], new_format=tv_tensors.BoundingBoxFormat.XYXY)
        return _check_changes(
            self.transform,
            outputs["image"],
            moved.numpy(),
            outputs["labels"].numpy(),
            None if masks is None else outputs["masks"].numpy(),
        )


@dataclass(frozen=True)
class AlbumentationsTransform:
    """A composition of albumentations with boxes in corners, ``A.Compose(..., bbox_params=...)``.

    It gets ``image``, ``bboxes``, the label field of its ``bbox_params`` and, for detectors with masks, ``masks``. The
    label field holds the index of each object, so that masks of dropped boxes are dropped too. Random numbers come from
    the sample's own generator while it runs.

    Args:
        transform: the composition.
        is_strong: it is left out in the stages of training without strong augmentation.

    Raises:
        ValueError: the composition has no boxes in corners, or not one label field.
    """

    transform: Any
    is_strong: bool = True

    def __post_init__(self) -> None:
        params = self._box_params()
        fields = list(getattr(params, "label_fields", None) or ())
        if getattr(params, "format", None) != "pascal_voc" or len(fields) != 1:
            raise ValueError(
                "an albumentations transform must follow boxes in corners with one label field: write "
                "A.Compose([...], bbox_params=A.BboxParams(format='pascal_voc', label_fields=['labels']))"
            )

    def __call__(self, sample: TrainingSample, context: TransformContext) -> TrainingSample:
        """Return the changed sample; see ``Transform``."""
        if self.is_strong and not context.is_strong:
            return sample
        (field,) = self._box_params().label_fields
        inputs: dict[str, Any] = {
            "image": sample.image.copy(),
            "bboxes": sample.boxes.tolist(),
            field: list(range(len(sample.boxes))),
        }
        masks = sample.mask_pixels()
        if masks is not None:
            inputs["masks"] = [mask.astype(np.uint8) for mask in masks]
        with fork_random_state(context.rng) as seed:
            if hasattr(self.transform, "set_random_seed"):  # from 1.4.19 on, it draws from a generator of its own
                self.transform.set_random_seed(seed % 2**32)
            outputs = self.transform(**inputs)
        indices = np.asarray(outputs[field], dtype=np.int64).reshape(-1)
        boxes = np.asarray(outputs["bboxes"], dtype=np.float32).reshape(len(indices), -1)[:, :4]
        return _check_changes(
            self.transform,
            outputs["image"],
            boxes,
            sample.labels[indices],
            None if masks is None else _stack(outputs["masks"], outputs["image"].shape[:2])[indices],
        )

    def _box_params(self) -> Any:
        return getattr(getattr(self.transform, "processors", {}).get("bboxes"), "params", None)


def as_transform(transform: Any) -> Transform:
    """Return a transform of training samples for one of one's own, of torchvision or of albumentations.

    Args:
        transform: a function of a sample and a context, see ``Transform``; a transform of
            ``torchvision.transforms.v2``; a composition of albumentations.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(transform, TorchvisionTransform | AlbumentationsTransform):
        return transform
    if isinstance(transform, nn.Module):
        return TorchvisionTransform(transform)
    if callable(transform):
        parameters = list(inspect.signature(transform).parameters.values())
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return AlbumentationsTransform(transform)
        if sum(parameter.kind in _POSITIONAL for parameter in parameters) == 2:
            return cast(Transform, transform)
    raise ValueError(
        f"{transform!r} is no transform: give a function of a sample and a context, a transform of "
        "torchvision.transforms.v2, or an albumentations.Compose"
    )


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _check_changes(transform: Any, image: Any, boxes: Any, labels: Any, masks: Any) -> TrainingSample:
    """Check that all of a sample was changed alike, and drop objects whose box has no area left."""
    pixels = as_rgb(image)
    counts = {"boxes": len(boxes), "labels": len(labels)} | ({} if masks is None else {"masks": len(masks)})
    if len(set(counts.values())) > 1:
        raise ValueError(f"after {transform!r} there are {counts}: it must drop all of an object, or nothing")
    if masks is not None and masks.shape[1:] != pixels.shape[:2]:
        raise ValueError(f"after {transform!r} masks of {masks.shape[1:]} do not fit the image of {pixels.shape[:2]}")
    sample = TrainingSample(
        image=pixels,
        boxes=boxes.astype(np.float32).reshape(-1, 4),
        labels=labels.astype(np.int64),
        masks=None if masks is None else PixelMasks(masks.astype(bool)),
    )
    return keep_visible(sample, MIN_SIDE)


def _stack(masks: Any, size: tuple[int, ...]) -> Any:
    return np.stack(list(masks)) if len(masks) else np.zeros((0, *size), dtype=bool)
