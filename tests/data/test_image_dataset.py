"""Own data sets: every form of a sample, the same records as from files, one line for a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.data.image_dataset import ImageDataset, LabeledImage
from boxwright.data.loading.loader import eval_loader
from boxwright.data.masks import check_masks, decode_image_masks
from boxwright.data.open import list_splits, open_data
from boxwright.structures import Category
from boxwright_runtime.input_format import InputFormat

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
BOXES, LABELS = [[1.0, 2, 11, 7], [30.5, 20.5, 50, 40]], [1, 0]
NAMES = ["cat", "dog"]


def image_in(form: str, folder: Path) -> Any:
    path = folder / "a.png"
    Image.fromarray(PIXELS).save(path)
    return {
        "path": path,
        "text": str(path),
        "array": PIXELS,
        "tensor": torch.from_numpy(PIXELS).permute(2, 0, 1),
        "PIL": Image.fromarray(PIXELS),
    }[form]


@pytest.mark.parametrize("form", ["path", "text", "array", "tensor", "PIL"])
def test_every_form_of_an_image_is_read(form: str, tmp_path: Path) -> None:
    sample = LabeledImage(image=image_in(form, tmp_path), boxes=BOXES, labels=LABELS)
    data = open_data(ImageDataset([sample], NAMES))
    (record,) = data.records
    assert data.categories == (Category(1, "cat"), Category(2, "dog"))
    assert (record.height, record.width) == (30, 40)
    assert record.boxes().tolist() == [[1, 2, 11, 7], [30.5, 20.5, 40, 30]]
    assert record.labels.tolist() == LABELS
    np.testing.assert_array_equal(record.read(), PIXELS)


@pytest.mark.parametrize("kind", ["labeled image", "mapping", "pair", "pair of tensors"])
def test_every_form_of_a_sample_is_read(kind: str) -> None:
    target = {"boxes": BOXES, "labels": LABELS}
    sample: Any = {
        "labeled image": LabeledImage(image=PIXELS, **target),
        "mapping": {"image": PIXELS, **target, "image_id": 3},
        "pair": (PIXELS, target),
        "pair of tensors": (PIXELS, {key: torch.tensor(value) for key, value in target.items()}),
    }[kind]
    (record,) = open_data({"val": ImageDataset([sample], NAMES)}, "val").records
    assert record.boxes().tolist() == [[1, 2, 11, 7], [30.5, 20.5, 40, 30]]
    assert record.labels.tolist() == LABELS


def test_classes_are_matched_with_a_models_by_name() -> None:
    data = open_data(
        ImageDataset([LabeledImage(image=PIXELS, boxes=BOXES, labels=LABELS)], NAMES),
        categories=[Category(7, "dog"), Category(9, "bird"), Category(3, "cat")],
    )
    assert data.records[0].labels.tolist() == [0, 2]
    assert data.notes == ()


def test_masks_become_run_lengths() -> None:
    masks = np.zeros((2, 30, 40), dtype=bool)
    masks[0, 2:7, 1:11] = masks[1, 21:, 31:] = True
    data = open_data(ImageDataset([LabeledImage(image=PIXELS, boxes=BOXES, labels=LABELS, masks=masks)], NAMES))
    check_masks(data)
    np.testing.assert_array_equal(decode_image_masks(data.records[0]).numpy(), masks)


def test_images_for_a_classifier() -> None:
    data = open_data(ImageDataset([(PIXELS, 1), (PIXELS[:20], 0)], NAMES), task="classification")
    assert [record.labels.tolist() for record in data.records] == [[1], [0]]
    assert data.records[1].boxes().tolist() == [[0, 0, 40, 20]]
    with pytest.raises(ValueError, match="only one class has images, 'dog'"):
        open_data(ImageDataset([(PIXELS, 1)], NAMES), task="classification")


def test_boxes_without_area_are_dropped_with_a_note_and_images_without_objects_stay() -> None:
    samples = [
        LabeledImage(image=PIXELS, boxes=[*BOXES, [5, 5, 5, 9]], labels=[*LABELS, 1]),
        (PIXELS, {"boxes": [], "labels": []}),
    ]
    data = open_data(ImageDataset(samples, NAMES, name="cells"))
    assert [len(record.labels) for record in data.records] == [2, 0]
    assert data.notes == (
        "cells: 1 annotations without area inside their image dropped: "
        "sample 0 (annotation 3 (dog): left 5, top 5, 0 x 4 pixels, image 40 x 30)",
    )


class Lazy:
    """Opens its images on demand, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> LabeledImage:
        self.calls += 1
        return LabeledImage(image=PIXELS[: 20 + index], boxes=[[0, 0, 9, 9]], labels=[0])


def test_images_stay_in_the_sequence() -> None:
    samples = Lazy()
    data = open_data(ImageDataset(samples, NAMES))
    assert samples.calls == 3
    assert [record.read().shape[0] for record in data.records] == [20, 21, 22]
    assert samples.calls == 6


def test_workers_read_own_samples() -> None:
    data = open_data(ImageDataset(Lazy(), NAMES))
    loader = eval_loader(data, input_format=InputFormat(image_size=32), batch_size=2, num_workers=1)
    assert [len(batch.targets) for batch in loader] == [2, 1]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"image": PIXELS, "boxes": [[1, 2, 3, 4]], "labels": [2]}, "label 2 has no class name: labels are 0 to 1"),
        ({"image": PIXELS, "boxes": [[1, 2, 3, 4]], "labels": [0, 1]}, "1 boxes and 2 labels"),
        ({"image": PIXELS, "boxes": [[1, 2, 3, np.nan]], "labels": [0]}, "boxes must be finite numbers"),
        ({"image": PIXELS, "boxes": [[1, 2, 3]], "labels": [0]}, r"boxes must have the shape \(n, 4\)"),
        ({"image": PIXELS, "boxes": [[1, 2, 3, 4]], "labels": [0.5]}, "labels must be whole numbers"),
        ({"image": PIXELS, "labels": [0]}, "it has no boxes, which a detector needs"),
        ({"image": PIXELS / 2, "boxes": [], "labels": []}, r"an image of floats must lie in \[0, 1\]"),
        ({"image": PIXELS, "boxes": [[1, 2, 3, 4]], "labels": [0], "masks": PIXELS[None, ..., 0].T}, "masks must have"),
        ({"photo": PIXELS}, "a sample is a LabeledImage, .* not a mapping with photo"),
        (PIXELS, "a sample is a LabeledImage, .* not ndarray"),
    ],
)
def test_a_fault_is_one_line_that_names_the_sample(sample: Any, message: str) -> None:
    good: Any = (PIXELS, {"boxes": [], "labels": []})
    with pytest.raises(ValueError, match=f"cells: sample 1: .*{message}") as caught:
        open_data(ImageDataset([good, sample], NAMES, name="cells"))
    assert "\n" not in str(caught.value)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no samples"):
        ImageDataset([], NAMES)
    with pytest.raises(ValueError, match="class_names must be different texts"):
        ImageDataset([1], ["cat", "cat"])
    data = {"train": ImageDataset([(PIXELS, {"boxes": [], "labels": []})], NAMES)}
    assert list_splits(data) == ["train"]
    with pytest.raises(ValueError, match="no split 'val' in this data; its splits are train"):
        open_data(data, "val")
    missing = LabeledImage(image=tmp_path / "gone.png", boxes=[], labels=[])
    with pytest.raises(ValueError, match=r"of 1 images in .*, 1 missing: .*gone\.png"):
        open_data(ImageDataset([missing], NAMES))
