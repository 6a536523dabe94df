"""Labels by a model, for people to correct: a data set, or a file that a labeling tool imports."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from boxwright.data.records import DetectionData, Record
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.evaluation.near_duplicates import drop_near_duplicates
from boxwright.files import check_target, write_text
from boxwright.structures import Category
from boxwright.workflows.convert_data import check_data_folder, find_writer
from boxwright.workflows.label_imports import LabeledFile, Prelabel, write_cvat, write_label_studio
from boxwright.workflows.models import load_predictor
from boxwright.workflows.named_images import NamedImage, distinguish, name_images
from boxwright.workflows.observer import Observer
from boxwright.workflows.streams import StreamOptions, stream_images
from boxwright_runtime import Detections, Runtime
from boxwright_runtime.masks import decode_rle, to_json
from boxwright_runtime.streaming import ImageInput, SkippedImage, StreamedResult, Threshold

LabelFormat = Literal["coco", "yolo", "voc", "label_studio", "cvat"]

SCORES_FILE = "prelabels.jsonl"
"""File in the data set that has the score of each label, and which ones are uncertain."""

_DEFAULT_THRESHOLD = 0.3


@dataclass(frozen=True, eq=False)
class PrelabeledImages:
    """Labels that were written.

    Args:
        out: the data set, or the file.
        images: that could be read, with their objects, in the order of the input.
        skipped: images that could not be read; they are not in ``out``.
        num_repeated: detections that were left out, as better ones of their class overlap them with an IoU above 0.7.
    """

    out: Path
    images: Sequence[LabeledFile]
    skipped: Sequence[SkippedImage]
    num_repeated: int = 0

    @property
    def num_objects(self) -> int:
        """Number of labels in all images."""
        return sum(len(image.objects) for image in self.images)

    @property
    def num_uncertain(self) -> int:
        """Number of labels that ask for a look."""
        return sum(one.is_uncertain for image in self.images for one in image.objects)


def prelabel(
    model: str | Path | Detector | Runtime,
    images: ImageInput | Iterable[ImageInput],
    out: str | Path,
    *,
    to: LabelFormat = "coco",
    threshold: Threshold | None = None,
    margin: float = 0.15,
    root: str | Path | None = None,
    batch_size: int | None = None,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> PrelabeledImages:
    """Label images by a detector: what it detects above its thresholds, once, the uncertain ones marked.

    Args:
        model: as for ``predict``.
        images: files, folders and globs, as for ``predict``.
        out: for ``coco``, ``yolo`` and ``voc`` a folder that does not exist or is empty, for the split ``train`` and
            ``prelabels.jsonl``; for ``label_studio`` and ``cvat`` a file.
        to: format of the labels.
        threshold: least score; where None the tuned ones of the model, or 0.3 where there are none.
        margin: a label whose score is less than this above its threshold is uncertain, in [0, 1].
        root: folder that Label Studio reads files from; the folder that all images have in common where None.
        batch_size: as for ``predict``.
        device: as for ``predict``.
        trusted: as for ``predict``.
        observer: as for ``predict``.
        overrides: as for ``predict``.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: no detector, no images in files, an argument is out of range, or ``out`` is there already.
    """
    observer, compute, target = observer or Observer(), ComputeOptions.of(device), Path(out)
    _check(to, target, threshold, margin)
    named = distinguish(name_images(images, observer))
    if any(one.path is None for one in named):
        raise ValueError("images are labeled in files; give paths, not images in memory")
    predictor = load_predictor(model, device=compute, trusted=trusted, observer=observer, overrides=overrides)
    if predictor.task != "detection":
        raise ValueError(f"labels are boxes, and this model is for {predictor.task}")
    categories = predictor.metadata.categories if isinstance(predictor, Runtime) else predictor.categories
    labeler = _Labeler(_choose_thresholds(predictor, threshold, len(categories), observer), margin, categories)
    stream = stream_images(predictor, [one.source for one in named], compute, StreamOptions(batch_size, "skip", True))
    labeled, skipped = [], list[SkippedImage]()
    with observer.track("labeling") as progress, closing(stream):
        for one in stream.results():
            labeled.append(labeler.label(named[one.index], one))
            progress(one.index + 1, len(named))
        skipped += stream.skipped
    if not labeled:
        raise ValueError(f"none of {len(named)} images could be read: {skipped[0].reason}")
    _write(labeled, categories, target, to, root, _name_model(model))
    return PrelabeledImages(target, labeled, skipped, labeler.num_repeated)


def _check(to: str, target: Path, threshold: Threshold | None, margin: float) -> None:
    if to not in get_args(LabelFormat):
        raise ValueError(f"labels are written as {', '.join(get_args(LabelFormat))}, not as {to!r}")
    if not 0 <= margin <= 1:
        raise ValueError(f"margin is between 0 and 1, not {margin}")
    if isinstance(threshold, float | int) and not 0 <= threshold <= 1:
        raise ValueError(f"threshold is between 0 and 1, or tuned, not {threshold}")
    if to in ("label_studio", "cvat"):
        check_target(target)
    else:
        check_data_folder(target, None)


def _choose_thresholds(
    predictor: Detector | Runtime, threshold: Threshold | None, num_classes: int, observer: Observer
) -> tuple[float, ...]:
    if threshold == "tuned":
        return predictor.thresholds()
    if threshold is not None:
        return (float(threshold),) * num_classes
    try:
        return predictor.thresholds()
    except ValueError:
        observer.note(
            f"the thresholds of this model were not tuned: labels are detections of a score of {_DEFAULT_THRESHOLD} "
            "and more; `boxwright tune-thresholds` finds better ones"
        )
        return (_DEFAULT_THRESHOLD,) * num_classes


class _Labeler:
    """Detections of an image to labels.

    Args:
        thresholds: least score of each class, by its label.
        margin: above them, within which labels are uncertain.
        categories: label ``i`` is ``categories[i]``.
    """

    def __init__(self, thresholds: tuple[float, ...], margin: float, categories: Sequence[Category]) -> None:
        self.thresholds, self.margin, self.categories = thresholds, margin, categories
        self.num_repeated = 0

    def label(self, image: NamedImage, result: StreamedResult) -> LabeledFile:
        """Label one image."""
        assert image.path is not None
        assert result.image is not None
        height, width = (round(side / result.image_scale) for side in result.image.shape[:2])
        return LabeledFile(image.path, image.name, height, width, self._list(result.detections))

    def _list(self, detections: Detections) -> list[Prelabel]:
        above = detections.above(self.thresholds)
        once = drop_near_duplicates(above)
        self.num_repeated += len(above) - len(once)
        return [
            Prelabel(
                self.categories[one.label],
                one.box,
                one.score,
                one.score < self.thresholds[one.label] + self.margin,
                one.mask,
            )
            for one in once
        ]


def _name_model(model: str | Path | Detector | Runtime) -> str:
    if isinstance(model, str | Path):
        return Path(model).stem
    return Path(model.path).stem if isinstance(model, Runtime) else "boxwright"


def _write(
    images: Sequence[LabeledFile],
    categories: Sequence[Category],
    target: Path,
    to: LabelFormat,
    root: str | Path | None,
    model: str,
) -> None:
    if to == "label_studio":
        above = _common_folder(images) if root is None else Path(root)
        write_text(target, write_label_studio(images, above, model))
        return
    if to == "cvat":
        write_text(target, write_cvat(images, categories))
        return
    data = DetectionData(_make_records(images, categories), tuple(categories), target)
    find_writer(to).write({"train": data}, target, link=True)
    write_text(target / SCORES_FILE, "".join(json.dumps(row) + "\n" for row in _list_rows(images)))


def _common_folder(images: Sequence[LabeledFile]) -> Path:
    folders = [image.path.absolute().parents for image in images]
    return next(folder for folder in folders[0] if all(folder in others for others in folders))


def _make_records(images: Sequence[LabeledFile], categories: Sequence[Category]) -> tuple[Record, ...]:
    labels, records, first = {category.id: i for i, category in enumerate(categories)}, [], 1
    for number, image in enumerate(images, 1):
        corners = np.array([one.box for one in image.objects], dtype=np.float64).reshape(-1, 4)
        boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)
        areas = [
            float(decode_rle(one.mask).sum()) if one.mask is not None else float(box[2] * box[3])
            for one, box in zip(image.objects, boxes, strict=True)
        ]
        has_masks = any(one.mask is not None for one in image.objects)
        records.append(
            Record(
                image_id=number,
                path=image.path,
                height=image.height,
                width=image.width,
                labels=np.array([labels[one.category.id] for one in image.objects], dtype=np.int64),
                bbox_xywh=boxes,
                area=np.array(areas, dtype=np.float64),
                crowd=np.zeros(len(boxes), dtype=np.bool_),
                annotation_ids=tuple(range(first, first + len(boxes))),
                segmentations=tuple(None if one.mask is None else to_json(one.mask) for one in image.objects)
                if has_masks
                else (),
            )
        )
        first += len(boxes)
    return tuple(records)


def _list_rows(images: Sequence[LabeledFile]) -> Iterable[dict[str, Any]]:
    annotation = 0
    for image in images:
        for one in image.objects:
            annotation += 1
            x1, y1, x2, y2 = one.box
            yield {
                "file_name": image.name,
                "annotation_id": annotation,
                "category_name": one.category.name,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": one.score,
                "uncertain": one.is_uncertain,
            }
