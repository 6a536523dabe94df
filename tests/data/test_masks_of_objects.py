"""Masks, labels and boxes of one object stay together: crowds before it, objects that a crop drops, wide images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.data.crop import Crop
from boxwright.data.loading.sampler import SampleKey, augmentation_rng
from boxwright.data.loading.samples import TrainSet
from boxwright.data.records import DetectionData, Record
from boxwright.data.transforms.augment import Augmentation
from boxwright.structures import Category
from boxwright_runtime.input_format import InputFormat

HEIGHT, WIDTH = 60, 150
OBJECTS = {
    # label: left, top, width, height of a rectangle that is its whole object; no two are of one shape
    0: (4, 6, 20, 9),
    1: (40, 30, 12, 24),
    2: (100, 8, 33, 14),
    3: (70, 44, 25, 6),
}
FORMAT = InputFormat(image_size=64)
PLAIN = Augmentation(photometric=0.0, channel_shuffle=0.0, zoom_out=0.0, iou_crop=0.0, flip=0.0)


def make_data(tmp_path: Path, order: tuple[int, ...], crowds: tuple[int, ...]) -> DetectionData:
    """One wide image with the objects in this order, of which some are crowd regions; polygons and run lengths."""
    path = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    boxes = np.array([OBJECTS[label] for label in order], dtype=np.float64)
    segmentations = []
    for index, (x, y, w, h) in enumerate(boxes.astype(int).tolist()):
        if index % 2:
            segmentations.append([[float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]])
        else:
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            mask[y : y + h, x : x + w] = True
            segmentations.append(_run_lengths(mask))
    record = Record(
        image_id=1,
        path=path,
        height=HEIGHT,
        width=WIDTH,
        labels=np.array(order, dtype=np.int64),
        bbox_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=np.array([label in crowds for label in order]),
        annotation_ids=tuple(range(1, len(order) + 1)),
        segmentations=tuple(segmentations),
    )
    return DetectionData((record,), tuple(Category(i + 1, f"class {i}") for i in range(4)), tmp_path / "train.json")


def _run_lengths(mask: np.ndarray) -> dict[str, object]:
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": runs if not flat[0] else [0, *runs]}


def check(data: DetectionData, augmentation: Augmentation, epochs: int) -> list[list[int]]:
    """Make samples, and compare each object's mask with its box; return the labels of each sample."""
    samples, labels = TrainSet(data, augmentation=augmentation, input_format=FORMAT, seed=0, with_masks=True), []
    for epoch in range(epochs):
        sample = samples[SampleKey(0, epoch, 64)]
        assert sample.masks is not None
        assert len(sample.masks) == len(sample.boxes) == len(sample.labels)
        for mask, box in zip(sample.masks, sample.boxes, strict=True):
            rows, columns = torch.where(mask)
            if not len(rows):
                assert (box[2:] - box[:2]).min() < 2
                continue
            own = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
            torch.testing.assert_close(own, box, rtol=0, atol=1.5)
        labels.append(sample.labels.tolist())
    return labels


@pytest.mark.parametrize(
    ("order", "crowds"),
    [((0, 1, 2, 3), (0,)), ((2, 0, 3, 1), (0,)), ((3, 2, 1, 0), (3, 1)), ((1, 3, 0, 2), ()), ((0, 1, 2, 3), (3,))],
)
def test_a_crowd_before_an_object_does_not_take_its_mask(
    tmp_path: Path, order: tuple[int, ...], crowds: tuple[int, ...]
) -> None:
    """Neither where it stands first nor in the middle; crowds themselves are left out, with their masks."""
    (labels,) = check(make_data(tmp_path, order, crowds), PLAIN, 1)
    assert labels == [label for label in order if label not in crowds]


def test_an_object_that_is_cropped_away_does_not_leave_its_mask_and_label(tmp_path: Path) -> None:
    """In forty draws of every kind of crop, with a crowd before: shapes of objects tell them apart."""
    data = make_data(tmp_path, (1, 0, 2, 3), (0,))
    kinds = {
        "iou_crop": Augmentation(iou_crop=1.0, vertical_flip=0.5),
        "scale_jitter": Augmentation(scale_jitter=(0.5, 3.0)),
        "resized_crop": Augmentation(resized_crop=(0.1, 0.5)),
    }
    for name, augmentation in kinds.items():
        labels = check(data, augmentation, 40)
        assert {len(one) for one in labels} >= {1, 2}, name
        assert any(one and 1 not in one for one in labels), f"{name} never dropped the first object"


def test_labels_go_with_their_boxes_where_objects_are_dropped(tmp_path: Path) -> None:
    """The shape of a whole object, in pixels of the image, says which class it has."""
    data, seen = make_data(tmp_path, (1, 0, 2, 3), ()), set()
    samples = TrainSet(
        data, augmentation=Augmentation(iou_crop=1.0, zoom_out=0.0, flip=0.0), input_format=FORMAT, seed=1
    )
    for epoch in range(60):
        sample = samples[SampleKey(0, epoch, 64)]
        if len(sample.labels) == len(OBJECTS):
            continue
        crop_of = _crop(data, epoch)
        for box, label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
            x, y, w, h = OBJECTS[label]
            expected = crop_of.boxes(np.array([[x, y, x + w, y + h]], dtype=np.float32))[0]
            assert box == pytest.approx(expected.tolist(), abs=1e-3)
            seen.add(label)
    assert seen == set(OBJECTS)


def _crop(data: DetectionData, epoch: int) -> Crop:
    """The crop that the sample of an epoch shows, drawn again."""
    augmentation, record = Augmentation(iou_crop=1.0, zoom_out=0.0, flip=0.0), data.records[0]
    rng = augmentation_rng(1, SampleKey(0, epoch, 64))
    return augmentation.draw_crop(HEIGHT, WIDTH, record.boxes(), FORMAT.resize_rule(64), rng)[0]
