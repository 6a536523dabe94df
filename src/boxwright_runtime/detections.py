"""Detections of one image, as users hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from boxwright_runtime.arrays import Array, like, to_device, to_numpy
from boxwright_runtime.masks import decode_rle, to_json
from boxwright_runtime.structures import RLE, Category

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor
    from torch import device as Device


@dataclass(frozen=True)
class Detection:
    """One object.

    Args:
        box: corners (x1, y1, x2, y2) in pixels of the image.
        score: in [0, 1].
        label: 0..C-1.
        category: the class with its id and name in the data set; None where it is not known.
        mask: run lengths of the image's size, or None.
        sides_std: standard deviations of the sides (x1, y1, x2, y2) in pixels, or None.
    """

    box: tuple[float, float, float, float]
    score: float
    label: int
    category: Category | None = None
    mask: RLE | None = None
    sides_std: tuple[float, float, float, float] | None = None

    @property
    def name(self) -> str:
        """The name of its class; the label as text where the class is not known."""
        return self.category.name if self.category is not None else str(self.label)


@dataclass(eq=False)
class Detections:
    """Objects of one image, best first.

    ``len`` counts them, iteration gives one ``Detection`` at a time, and an index, a slice, positions or a mask select.

    A detector gives tensors of torch, an exported file arrays of NumPy; everything here is the same for both.

    Args:
        boxes: (n, 4) corners (x1, y1, x2, y2) in pixels of the original image; they lie inside it.
        scores: (n,) in [0, 1].
        labels: (n,) 0..C-1.
        masks: run lengths of the original image's size for each, or None where the task has none.
        categories: label ``i`` is ``categories[i]``; empty where the classes are not known.
        sides_std: (n, 4) standard deviations of the sides (x1, y1, x2, y2) in pixels of the original image: how far the
            detector thinks that a side may be off. None unless they were asked for.
    """

    boxes: Array
    scores: Array
    labels: Array
    masks: tuple[RLE, ...] | None = None
    categories: tuple[Category, ...] = ()
    sides_std: Array | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for i in range(len(self)):
            yield self._one(i)

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any] | Tensor) -> Detections: ...

    def __getitem__(self, index: int | slice | Sequence[int] | npt.NDArray[Any] | Tensor) -> Detection | Detections:
        """Select one object by its position, or those at several positions or where a mask is True.

        Raises:
            IndexError: a position is beyond the last object, or a mask has another length.
            TypeError: the index is something else, such as fractions, or True alone.
        """
        positions = self._positions(index)
        if positions.ndim == 0:
            return self._one(int(positions))
        masks = None if self.masks is None else tuple(self.masks[i] for i in positions.tolist())
        boxes, scores, labels = (values[positions] for values in (self.boxes, self.scores, self.labels))
        std = None if self.sides_std is None else self.sides_std[positions]
        return Detections(boxes, scores, labels, masks, self.categories, std)

    @property
    def names(self) -> list[str]:
        """Names of the objects' classes; labels as text where the classes are not known."""
        return [one.name for one in self]

    def above(self, thresholds: float | Sequence[float]) -> Detections:
        """Select detections whose score is at least a threshold.

        Args:
            thresholds: one for all classes, or one for each, by its label.
        """
        scores = to_numpy(self.scores)
        # In the precision of the scores: one that is equal is above.
        least = np.asarray(thresholds, dtype=scores.dtype)
        return self[scores >= (least[to_numpy(self.labels)] if least.ndim else least)]

    def calibrated(self, temperatures: Sequence[float], shifts: Sequence[float]) -> Detections:
        """Scale scores to the fraction of detections with such scores that are right; the order stays.

        Args:
            temperatures: of each class, by its label, as ``boxwright tune-thresholds`` fits them.
            shifts: likewise.
        """
        scores, labels = to_numpy(self.scores).astype(np.float64).clip(1e-6, 1 - 1e-6), to_numpy(self.labels)
        logits = np.log(scores / (1 - scores)) / np.asarray(temperatures)[labels] + np.asarray(shifts)[labels]
        scaled = like(1 / (1 + np.exp(-logits)), self.scores)
        return replace(self, scores=scaled)

    def to(self, device: Device | str) -> Detections:
        """Copy to another device; arrays, which are on the CPU, stay there.

        Raises:
            ValueError: they are arrays, and the device is not the CPU.
        """
        boxes, scores, labels = (to_device(values, device) for values in (self.boxes, self.scores, self.labels))
        std = None if self.sides_std is None else to_device(self.sides_std, device)
        return Detections(boxes, scores, labels, self.masks, self.categories, std)

    def cpu(self) -> Detections:
        """Copy to the CPU."""
        return self.to("cpu")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values: ``boxes`` as corners, ``scores``, ``labels``, ``names``, and what else there is."""
        masks = None if self.masks is None else [to_json(mask) for mask in self.masks]
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "labels": self.labels.tolist(),
            "names": self.names,
            **({} if masks is None else {"masks": masks}),
            **({} if self.sides_std is None else {"sides_std": self.sides_std.tolist()}),
        }

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Make rows of a COCO results file: the data set's own category ids, boxes as [x, y, width, height], RLE masks.

        Args:
            image_id: of the image in the annotation file.

        Raises:
            ValueError: the classes are not known.
        """
        if len(self) and not self.categories:
            raise ValueError("category ids are not known: detections of a detector have them, these have labels only")
        rows = []
        for one in self:
            assert one.category is not None
            x1, y1, x2, y2 = one.box
            row = {"image_id": image_id, "category_id": one.category.id, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            mask = {} if one.mask is None else {"segmentation": to_json(one.mask)}
            rows.append({**row, "score": one.score, **mask})
        return rows

    def to_supervision(self) -> Any:
        """Convert to ``supervision.Detections``, with class names in its data.

        Raises:
            ImportError: the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("supervision is not installed: pip install supervision") from error
        masks = None
        if self.masks is not None:
            masks = np.array([decode_rle(mask) for mask in self.masks] or np.empty((0, 0, 0)), dtype=bool)
        return supervision.Detections(
            xyxy=to_numpy(self.boxes).reshape(-1, 4),
            confidence=to_numpy(self.scores),
            class_id=to_numpy(self.labels),
            mask=masks,
            data={"class_name": np.array(self.names)},
        )

    def _one(self, i: int) -> Detection:
        x1, y1, x2, y2 = self.boxes[i].tolist()
        label = int(self.labels[i])
        category = self.categories[label] if self.categories else None
        mask = None if self.masks is None else self.masks[i]
        std = None if self.sides_std is None else tuple(self.sides_std[i].tolist())
        return Detection((x1, y1, x2, y2), float(self.scores[i]), label, category, mask, std)

    def _positions(self, index: Any) -> Int[np.ndarray, "*m"]:
        """Positions from 0: one without an axis for a whole number, else on one axis."""
        if isinstance(index, slice):
            return np.array(range(len(self))[index], dtype=np.int64)
        selected = _read_index(index)
        if selected.dtype == np.bool_:
            if len(selected) != len(self):
                raise IndexError(f"a mask has one value for each of {len(self)} detections, not {len(selected)}")
            return np.flatnonzero(selected)
        if selected.size and not (selected.min() >= -len(self) and selected.max() < len(self)):
            if selected.ndim == 0:
                raise IndexError(f"there is no detection {int(selected)}, there are {len(self)}")
            raise IndexError(f"positions are from {-len(self)} to {len(self) - 1}, not {selected.tolist()}")
        return np.asarray(selected % max(len(self), 1))


def _read_index(index: Any) -> Bool[np.ndarray, " m"] | Int[np.ndarray, "*m"]:
    """Read an index that is no slice: a mask, or positions as they were given, one of them without an axis."""
    try:
        selected = to_numpy(index)
    except (TypeError, ValueError):
        raise TypeError(f"{_INDICES}, not {index!r}") from None
    if selected.shape == (0,) and isinstance(index, Sequence):  # NumPy takes an empty list for fractions
        return selected.astype(np.int64)
    if selected.dtype.kind not in "biufc":
        raise TypeError(f"{_INDICES}, not {index!r}")
    if selected.ndim > 1 or selected.dtype.kind in "fc":
        raise TypeError(f"{_INDICES}, not {selected.dtype} of shape {selected.shape}")
    if selected.dtype == np.bool_:
        if selected.ndim == 0:
            raise TypeError(f"{_INDICES}, not {bool(selected)}")
        return selected
    return selected.astype(np.int64)


_INDICES = "an index is a whole number, a slice, a list of whole numbers, or a mask of True and False for each object"
