"""Samples of several images: in their epochs, the same in any process, without crowds, with their objects' masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.data.loading.loader import train_loader
from boxwright.data.loading.sampler import AugmentationStage, BatchSampler, SampleKey
from boxwright.data.loading.samples import Sample, TrainSet
from boxwright.data.records import DetectionData, PseudoPart, Record
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.transform import TrainingSample, TransformContext
from boxwright.structures import Batch, Category
from boxwright_runtime.input_format import InputFormat

PLAIN: dict[str, Any] = {"photometric": 0.0, "channel_shuffle": 0.0, "zoom_out": 0.0, "iou_crop": 0.0, "flip": 0.0}
KINDS = ("mosaic", "mixup", "copy_blend")
MIXED = {"mosaic": 0.5, "mixup": 0.5, "copy_blend": 0.5}
FORMAT = InputFormat(image_size=64)
KEPT = InputFormat(image_size=60, resize="shortest_side", max_size=100)
CROWD = 5


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    """Six gray images of different sizes, each with a crowd region before an object of its own class and brightness."""
    records = []
    for i in range(6):
        height, width = 60 + 10 * i, 120 - 8 * i
        image = np.full((height, width, 3), 40, np.uint8)
        left, top, own_width, own_height = 12 + i, 8 + 2 * i, 30, 24 + 3 * i
        image[top : top + own_height, left : left + own_width] = 100 + 30 * i
        path = tmp_path / f"image_{i}.png"
        Image.fromarray(image).save(path)
        boxes = np.array([[1, 1, width - 2, height - 2], [left, top, own_width, own_height]], np.float64)
        polygons = [[[float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]] for x, y, w, h in boxes.tolist()]
        records.append(
            Record(
                image_id=100 + i,
                path=path,
                height=height,
                width=width,
                labels=np.array([CROWD, min(i, 4)]),
                bbox_xywh=boxes,
                area=boxes[:, 2] * boxes[:, 3],
                crowd=np.array([True, False]),
                annotation_ids=(2 * i, 2 * i + 1),
                segmentations=tuple(polygons),
            )
        )
    categories = tuple(Category(i + 1, f"class {i}") for i in range(6))
    return DetectionData(tuple(records), categories, tmp_path / "train.json")


def train_set(data: DetectionData, *, input_format: InputFormat = FORMAT, seed: int = 0, **options: Any) -> TrainSet:
    own = {name: options.pop(name) for name in ("image_transforms", "with_masks") if name in options}
    return TrainSet(data, augmentation=Augmentation(**options), input_format=input_format, seed=seed, **own)


def key(index: int, epoch: int = 0, **options: Any) -> SampleKey:
    return SampleKey(index, epoch, 64, **{"is_mixed": True, **options})


def batches(data: DetectionData, *, num_workers: int = 0, stage: AugmentationStage, **options: Any) -> list[Batch]:
    """Six steps of four samples."""
    sampler = BatchSampler(
        **{
            "seed": 3,
            "num_samples": 6,
            "batch_size": 4,
            "num_steps": 6,
            "image_sizes": (32, 64),
            "stage_of": lambda _: stage,
            **options,
        }
    )
    loader = train_loader(
        data,
        augmentation=Augmentation(**MIXED),
        input_format=KEPT,
        sampler=sampler,
        num_workers=num_workers,
        with_masks=True,
    )
    return list(loader)


def samples_of(batch: Batch) -> list[tuple[torch.Tensor, ...]]:
    """Each image without its padding, and its targets, where masks are within it."""
    made = []
    for image, target in zip(batch.images, batch.targets, strict=True):
        height, width = target.size
        assert target.masks is not None
        made.append((image[:, :height, :width], target.labels, target.boxes, target.masks[:, :height, :width]))
    return made


def assert_equal(first: list[tuple[torch.Tensor, ...]], second: list[tuple[torch.Tensor, ...]]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def flat(steps: list[Batch]) -> list[tuple[torch.Tensor, ...]]:
    return [sample for batch in steps for sample in samples_of(batch)]


def test_images_with_pseudo_labels_are_drawn_by_their_weight(data: DetectionData) -> None:
    """Five of six images count as one together: half of a mosaic's other images are the first, and not a sixth."""
    weighted = replace(data, pseudo=PseudoPart(5, 0.2))
    portions = []
    for one in (weighted, data):
        samples = train_set(one, **{**PLAIN, "mosaic": 1.0})
        labels = torch.cat([samples[key(0, epoch)].labels for epoch in range(60)])
        portions.append((labels == 0).double().mean().item())
    assert portions[0] > 0.55 > 0.45 > portions[1]


def test_neither_workers_nor_processes_nor_resuming_change_a_sample(data: DetectionData) -> None:
    whole = batches(data, stage=AugmentationStage.MIXED)
    assert_equal(flat(batches(data, num_workers=2, stage=AugmentationStage.MIXED)), flat(whole))
    assert_equal(flat(batches(data, stage=AugmentationStage.MIXED, start_step=4)), flat(whole[4:]))
    parts = [batches(data, stage=AugmentationStage.MIXED, world_size=2, rank=rank) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert_equal(samples_of(parts[0][step]) + samples_of(parts[1][step]), samples_of(batch))
    assert {len(labels) for _, labels, *_ in flat(whole)} > {1, 2, 4}


def test_padding_is_where_no_image_is(data: DetectionData) -> None:
    for batch in batches(data, stage=AugmentationStage.MIXED):
        for i, (target, size) in enumerate(zip(batch.targets, batch.sizes, strict=True)):
            height, width = target.size
            assert (size.input_height, size.input_width) == (height, width)
            if batch.padding_mask is not None:
                assert not batch.padding_mask[i, :height, :width].any()
                assert batch.padding_mask[i].sum() == batch.padding_mask[i].numel() - height * width
            assert (target.boxes <= torch.tensor([width, height] * 2)).all()
            assert target.masks is not None
            assert target.masks.shape[1:] == batch.images.shape[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_objects_keep_their_masks_and_crowds_are_no_objects(kind: str, data: DetectionData) -> None:
    """The box of every mask is its object's, and no crowd region, which covers the image, is one."""
    samples, counts = train_set(data, with_masks=True, **{**PLAIN, kind: 1.0}), set()
    for epoch in range(30):
        sample = samples[key(epoch % 6, epoch)]
        assert sample.masks is not None
        assert len(sample.masks) == len(sample.boxes) == len(sample.labels)
        assert CROWD not in sample.labels
        for mask, box in zip(sample.masks, sample.boxes, strict=True):
            rows, columns = torch.where(mask)
            if not len(rows):
                assert (box[2:] - box[:2]).min() < 2
                continue
            own = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (own[:2] >= box[:2] - 1.5).all()
            assert (own[2:] <= box[2:] + 1.5).all()
            if kind != "mosaic":
                torch.testing.assert_close(own.float(), box, rtol=0, atol=1.5)
        counts.add(len(sample.labels))
    assert counts >= {"mosaic": {3, 4}, "mixup": {2}, "copy_blend": {2}}[kind]


def test_labels_are_those_of_the_pixels(data: DetectionData) -> None:
    """A mosaic shows every class at its brightness: the middle of a box tells the label."""
    samples, seen = train_set(data, **{**PLAIN, "mosaic": 1.0}), set()
    for epoch in range(20):
        sample = samples[key(epoch % 6, epoch)]
        for label, box in zip(sample.labels.tolist(), sample.boxes.tolist(), strict=True):
            x1, y1, x2, y2 = box
            if min(x1, y1) > 0 and max(x2, y2) < 64 and min(x2 - x1, y2 - y1) > 6:
                pixel = int(sample.image[0, int((y1 + y2) / 2), int((x1 + x2) / 2)])
                assert min((pixel - 100) // 30, 4) == label
                seen.add(label)
    assert seen == {0, 1, 2, 3, 4}


def is_plain(sample: Sample, plain: Sample) -> bool:
    return torch.equal(sample.image, plain.image) and torch.equal(sample.boxes, plain.boxes)


def test_only_in_its_epochs(data: DetectionData) -> None:
    """Mosaic and mixup are on where images are mixed, CopyBlend where augmentation is strong."""
    plain = train_set(data, **PLAIN)
    for kind in KINDS:
        samples = train_set(data, **{**PLAIN, kind: 1.0})
        for index in range(6):
            expected = plain[key(index)]
            assert not is_plain(samples[key(index)], expected)
            assert is_plain(samples[key(index, is_strong=False)], expected)
            assert is_plain(samples[key(index, is_mixed=False)], expected) == (kind != "copy_blend")


def test_each_with_its_probability(data: DetectionData) -> None:
    """CopyBlend leaves out what mixup has mixed."""
    keys = [key(i % 6, i) for i in range(240)]
    plain = train_set(data, **PLAIN)
    expected = {"mosaic": 0.25, "mixup": 0.25, "copy_blend": 0.25}
    for kind, probability in expected.items():
        samples = train_set(data, **{**PLAIN, kind: probability})
        changed = np.mean([not is_plain(samples[one], plain[one]) for one in keys])
        assert changed == pytest.approx(probability, abs=0.09)
    both = train_set(data, **{**PLAIN, "mixup": 0.5, "copy_blend": 1.0})
    counts = [len(both[one].labels) for one in keys[:60]]
    assert set(counts) == {2}


def test_a_single_image_is_changed_as_without_mixing(data: DetectionData) -> None:
    """A sample that chance leaves unmixed is the one that a run without mixing has."""
    without, rarely = train_set(data), train_set(data, mosaic=0.1, mixup=0.1, copy_blend=0.1)
    same = [is_plain(rarely[key(i % 6, i)], without[key(i % 6, i)]) for i in range(60)]
    assert 0.5 < np.mean(same) < 1.0


def test_own_transforms_change_all_images_of_a_sample(data: DetectionData) -> None:
    """Whole images are painted in one color, which all parts of a mosaic and of a mixed input then have."""

    def paint(sample: TrainingSample, context: TransformContext) -> TrainingSample:
        del context
        return replace(sample, image=np.full_like(sample.image, 200))

    mixed = train_set(data, **{**PLAIN, "mixup": 1.0}, image_transforms=(paint,))
    tiled = train_set(data, **{**PLAIN, "mosaic": 1.0}, image_transforms=(paint,))
    for index in range(6):
        assert (mixed[key(index)].image == 200).all()
        values = tiled[key(index)].image[0]
        assert ((values == 0) | (values == 200)).float().mean() > 0.85


def test_floats_stay_floats(data: DetectionData) -> None:
    floats = InputFormat(image_size=64, resize_floats=True)
    for kind in KINDS:
        assert train_set(data, input_format=floats, **{**PLAIN, kind: 1.0})[key(0)].image.dtype == torch.float32


def test_images_without_objects_can_be_mixed(data: DetectionData) -> None:
    empty = replace(data, records=tuple(replace(one, crowd=np.ones_like(one.crowd)) for one in data.records))
    for kind in KINDS:
        sample = train_set(empty, with_masks=True, **{kind: 1.0})[key(0)]
        assert sample.boxes.shape == (0, 4)
        assert sample.masks is not None
        assert sample.masks.shape == (0, 64, 64)
