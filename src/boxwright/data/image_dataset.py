"""Own data sets: a sequence of images with their objects, taken wherever a data folder is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64, Int64, UInt8

from boxwright.data.annotations import Annotations, ListedImage
from boxwright.ops.masks import encode_mask
from boxwright.structures import Category, Task
from boxwright_runtime.images import ImageLike, as_rgb
from boxwright_runtime.masks import to_json


@dataclass(frozen=True, eq=False, kw_only=True)
class LabeledImage:
    """One image with its objects.

    Args:
        image: a file's path, a PIL image, an array (h, w, 3) or a tensor (3, h, w); see ``images.as_rgb``.
        labels: class of each object, 0..C-1 into the class names; one number for a classifier.
        boxes: corners (x1, y1, x2, y2) of each object, in pixels of the upright image; None for a classifier.
        masks: bool (n, h, w), the pixels of each object; None where there are none.
    """

    image: ImageLike
    labels: Any
    boxes: Any = None
    masks: Any = None


@runtime_checkable
class Samples(Protocol):
    """A sequence of samples; lists are, and so are torchvision's data sets."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return the sample at an index from 0 on."""


@dataclass(frozen=True)
class _Item:
    """An image of a sequence, read again at each call, so that the sequence alone decides what stays in memory."""

    samples: Samples
    index: int

    def __call__(self) -> UInt8[np.ndarray, "h w 3"]:
        return as_rgb(_labeled_image(self.samples[self.index], self.index).image)


class ImageDataset:
    """A data set of one's own, for training and evaluation.

    Args:
        samples: a sequence, that is, with ``len`` and indices from 0 on. Each of its items is a ``LabeledImage``, a
            mapping with the same keys, or a pair (image, mapping) or (image, label), as torchvision's data sets have
            them. An item is read once when the data set is opened, and again each time its image is needed, so it must
            stay the same: random changes are for transforms.
        class_names: name of each class, in the order of the labels.
        name: of the data set, for messages.

    Raises:
        ValueError: there are no samples, or the names of classes are not unique.

    Example::

        samples = [boxwright.LabeledImage(image="a.jpg", boxes=[[10, 20, 50, 80]], labels=[0])]
        data = boxwright.ImageDataset(samples, class_names=["screw"])
    """

    def __init__(self, samples: Samples, class_names: Sequence[str], *, name: str = "samples") -> None:
        if not isinstance(samples, Samples):
            raise ValueError(f"samples must be a sequence, with len() and indices, not {type(samples).__name__}")
        if not len(samples):
            raise ValueError("there are no samples: the sequence is empty")
        names = [class_names] if isinstance(class_names, str) else list(class_names)
        if not names or len(set(names)) < len(names) or not all(isinstance(one, str) and one.strip() for one in names):
            raise ValueError(f"class_names must be different texts, one for each class, not {names}")
        self.samples = samples
        self.class_names = tuple(names)
        self.name = name

    def __len__(self) -> int:
        return len(self.samples)

    def annotations(self, task: Task = "detection") -> Annotations:
        """Read every sample once, and return the table of its objects.

        Args:
            task: of the model; samples for classification have one label and no boxes.

        Raises:
            ValueError: an image cannot be read, or boxes, labels or masks do not fit; names the sample.
        """
        images, rows = [], []
        for index in range(len(self.samples)):
            try:
                item = _labeled_image(self.samples[index], index)
                images.append(_listed_image(item, self.samples, index))
                rows.append(_rows(item, images[-1], len(self.class_names), task))
            except (OSError, ValueError) as error:
                raise ValueError(f"{self.name}: sample {index}: {error}") from error
        segmentations = tuple(one for row in rows for one in row[2])
        return Annotations(
            path=Path(self.name),
            image_folders=(Path(),),
            categories=tuple(Category(number, name) for number, name in enumerate(self.class_names, start=1)),
            images=tuple(images),
            image_index=np.repeat(np.arange(len(images)), [len(row[0]) for row in rows]),
            labels=np.concatenate([row[0] for row in rows]),
            bbox_xywh=None if task == "classification" else np.concatenate([row[1] for row in rows]),
            segmentations=segmentations if any(segmentations) else (),
            has_category_ids=False,
        )


def _labeled_image(item: Any, index: int) -> LabeledImage:
    if isinstance(item, LabeledImage):
        return item
    if isinstance(item, Mapping):
        known = {key: item[key] for key in ("image", "labels", "boxes", "masks") if key in item}
        if {"image", "labels"} <= known.keys():
            return LabeledImage(**known)
    elif isinstance(item, tuple) and len(item) == 2:
        image, target = item
        if not isinstance(target, Mapping):
            return LabeledImage(image=image, labels=target)
        return _labeled_image({**target, "image": image}, index)
    kind = f"a mapping with {', '.join(map(str, item))}" if isinstance(item, Mapping) else type(item).__name__
    raise ValueError(
        f"a sample is a LabeledImage, a mapping with image, labels and boxes, or a pair (image, mapping), not {kind}"
    )


def _listed_image(item: LabeledImage, samples: Samples, index: int) -> ListedImage:
    if isinstance(item.image, str | Path):
        return ListedImage(index, str(item.image))
    height, width = as_rgb(item.image).shape[:2]
    return ListedImage(index, f"sample {index}", (height, width), _Item(samples, index))


def _rows(
    item: LabeledImage, image: ListedImage, num_classes: int, task: Task
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 4"], list[Any]]:
    """Return labels, boxes and segmentations of one sample."""
    labels = _array(item.labels).reshape(-1)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, 0 to {num_classes - 1}, not {labels.dtype}")
    wrong = [label for label in labels.tolist() if not 0 <= label < num_classes]
    if wrong:
        raise ValueError(f"label {wrong[0]} has no class name: labels are 0 to {num_classes - 1}")
    if task == "classification":
        if item.boxes is not None or len(labels) != 1:
            raise ValueError(f"a classifier's sample has one label and no boxes, not {len(labels)} labels")
        return labels.astype(np.int64), np.zeros((1, 4)), [None]
    if item.boxes is None:
        raise ValueError("it has no boxes, which a detector needs; an image without objects has an empty list of them")
    boxes = _array(item.boxes).astype(np.float64)
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise ValueError(f"boxes must have the shape (n, 4), corners x1, y1, x2, y2; not {boxes.shape}")
    boxes = boxes.reshape(-1, 4)
    if len(boxes) != len(labels):
        raise ValueError(f"it has {len(boxes)} boxes and {len(labels)} labels; each object has one of both")
    if not np.isfinite(boxes).all():
        raise ValueError(f"boxes must be finite numbers x1, y1, x2, y2; one is {boxes[~np.isfinite(boxes).all(1)][0]}")
    boxes[:, 2:] -= boxes[:, :2]
    return labels.astype(np.int64), boxes, _segmentations(item.masks, len(labels), image)


def _segmentations(masks: Any, count: int, image: ListedImage) -> list[Any]:
    if masks is None:
        return [None] * count
    array = _array(masks)
    if array.ndim != 3 or len(array) != count or (image.size is not None and array.shape[1:] != image.size):
        size = "h, w" if image.size is None else f"{image.size[0]}, {image.size[1]}"
        raise ValueError(f"masks must have the shape ({count}, {size}), not {array.shape}")
    return [to_json(encode_mask(torch.from_numpy(np.ascontiguousarray(mask != 0)))) for mask in array]


def _array(values: Any) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
