"""Own transforms beside ours: boxes, labels and masks stay together, and the seed decides everything."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from boxwright.data.image_dataset import ImageDataset, LabeledImage
from boxwright.data.loading.loader import train_loader
from boxwright.data.loading.sampler import BatchSampler, SampleKey
from boxwright.data.loading.samples import Sample, TrainSet
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.transforms.adapters import AlbumentationsTransform, TorchvisionTransform, as_transform
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.transform import PixelMasks, TrainingSample, TransformContext
from boxwright_runtime.input_format import InputFormat, ResizeRule

HEIGHT, WIDTH = 48, 64
BOXES = np.array([[4, 6, 24, 20], [40, 8, 60, 44], [0, 30, 12, 48]], dtype=np.float32)
COLORS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], dtype=np.uint8)
PLAIN: dict[str, Any] = {"photometric": 0.0, "channel_shuffle": 0.0, "zoom_out": 0.0, "iou_crop": 0.0, "flip": 0.0}


@dataclass
class BoxParams:
    """Those of albumentations."""

    format: str = "pascal_voc"
    label_fields: tuple[str, ...] = ("labels",)


class StandIn:
    """Calls like ``albumentations.Compose``: mirrors, cuts the right half off, and drops boxes but no masks."""

    def __init__(self, params: BoxParams | None = None) -> None:
        self.processors = {} if params is None else {"bboxes": type("Processor", (), {"params": params})()}

    def __call__(self, *_: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        assert not force_apply
        image, width = data["image"], data["image"].shape[1] // 2
        order = slice(None, None, -1) if random.random() < 0.5 else slice(None)
        boxes, indices = [], []
        for (x1, y1, x2, y2), index in zip(data["bboxes"], data["labels"], strict=True):
            if order.step:
                x1, x2 = image.shape[1] - x2, image.shape[1] - x1
            if x1 < width:
                boxes.append((x1, y1, min(x2, width), y2))
                indices.append(index)
        changed = {"image": image[:, order][:, :width], "bboxes": boxes, "labels": indices}
        return changed | {"masks": [mask[:, order][:, :width] for mask in data.get("masks", ())]}


def own_data(count: int = 6) -> DetectionData:
    """Gray images with three colored rectangles, whose class is their color."""
    image, masks = np.full((HEIGHT, WIDTH, 3), 100, dtype=np.uint8), np.zeros((3, HEIGHT, WIDTH), dtype=bool)
    for (x1, y1, x2, y2), color, mask in zip(BOXES.astype(int), COLORS, masks, strict=True):
        image[y1:y2, x1:x2] = color
        mask[y1:y2, x1:x2] = True
    sample = LabeledImage(image=image, boxes=BOXES, labels=[0, 1, 2], masks=masks)
    return open_data(ImageDataset([sample] * count, ["red", "green", "blue"]))


def train_set(*transforms: Any, inputs: tuple[Any, ...] = (), with_masks: bool = True, **options: Any) -> TrainSet:
    return TrainSet(
        own_data(),
        augmentation=Augmentation(**{**PLAIN, **options}),
        input_format=InputFormat(image_size=64),
        seed=0,
        with_masks=with_masks,
        image_transforms=[as_transform(one) for one in transforms],
        input_transforms=[as_transform(one) for one in inputs],
    )


def check_objects(sample: Sample) -> int:
    """Check that each object has its color under its mask and its box around it; return their number."""
    assert sample.masks is not None
    assert len(sample.labels) == len(sample.boxes) == len(sample.masks)
    for label, box, mask in zip(sample.labels.tolist(), sample.boxes.numpy(), sample.masks, strict=True):
        rows, columns = np.nonzero(mask.numpy())
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(edges - box).max() <= 2
        middle = sample.image[:, int(rows.mean()), int(columns.mean())]
        assert int(middle.argmax()) == label
    return len(sample.labels)


GEOMETRY = v2.Compose(
    [v2.RandomHorizontalFlip(0.5), v2.RandomCrop((40, 40)), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()]
)


@pytest.mark.parametrize("transform", [GEOMETRY, StandIn(BoxParams())], ids=["torchvision", "albumentations"])
def test_boxes_labels_and_masks_follow_and_are_dropped_together(transform: Any) -> None:
    samples = train_set(transform, flip=0.5)
    counts = {check_objects(samples[SampleKey(i % 6, i, 64)]) for i in range(40)}
    assert min(counts) < 3


@pytest.mark.parametrize("transform", [GEOMETRY, StandIn(BoxParams())], ids=["torchvision", "albumentations"])
def test_a_sample_depends_on_the_seed_the_epoch_and_the_image_alone(transform: Any) -> None:
    samples, keys = train_set(transform), [SampleKey(i % 6, i // 6, 64) for i in range(12)]
    state = torch.get_rng_state()
    first = [samples[key] for key in keys]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    random.seed(5)
    again = [samples[key] for key in reversed(keys)][::-1]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.boxes, other.boxes)
    assert len({one.image.numpy().tobytes() for one in first}) > 1


def test_boxes_without_area_are_dropped_without_sanitizing() -> None:
    samples = train_set(v2.RandomCrop((20, 20)))
    assert {check_objects(samples[SampleKey(i % 6, i, 64)]) for i in range(20)} != {3}


def test_strong_transforms_are_left_out_in_the_last_part_of_training() -> None:
    dark = v2.Lambda(lambda x: x // 2 if isinstance(x, torch.Tensor) and x.dtype == torch.uint8 else x)
    weak = SampleKey(0, 0, 64, is_strong=False)
    plain = train_set()[weak]
    assert not torch.equal(train_set(dark)[SampleKey(0, 0, 64)].image, plain.image)
    assert torch.equal(train_set(dark)[weak].image, plain.image)
    always = TorchvisionTransform(dark, is_strong=False)
    assert not torch.equal(train_set(always)[weak].image, plain.image)


def test_transforms_of_inputs_keep_the_size() -> None:
    sample = train_set(inputs=(v2.RandomHorizontalFlip(1.0),))[SampleKey(0, 0, 64)]
    assert check_objects(sample) == 3
    plain = train_set()[SampleKey(0, 0, 64)]
    assert torch.equal(sample.image, plain.image.flip(2))
    with pytest.raises(ValueError, match="changed the network input from 64 x 64 pixels to 40 x 40: use it among"):
        train_set(inputs=(GEOMETRY,))[SampleKey(0, 0, 64)]


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize(("returned", "name"), [(None, "NoneType"), (np.zeros((64, 64, 3), np.uint8), "ndarray")])
def test_a_function_that_returns_no_sample_is_named(inputs: bool, returned: Any, name: str) -> None:
    def forgetful(sample: TrainingSample, context: TransformContext) -> Any:
        del sample, context
        return returned

    samples = train_set(inputs=(forgetful,)) if inputs else train_set(forgetful)
    with pytest.raises(ValueError, match=f"forgetful.* returned {name}: it must return the changed TrainingSample$"):
        samples[SampleKey(0, 0, 64)]


def beside(sample: TrainingSample, context: TransformContext) -> TrainingSample:
    """Another image of the data set beside this one, as mosaic has four."""
    other = context.draw_sample()
    shift = np.array([sample.image.shape[1], 0] * 2, dtype=np.float32)
    masks = [one.mask_pixels() for one in (sample, other)]
    assert masks[0] is not None
    assert masks[1] is not None
    left, right = np.zeros_like(masks[0]), np.zeros_like(masks[1])
    return TrainingSample(
        image=np.concatenate((sample.image, other.image), axis=1),
        boxes=np.concatenate((sample.boxes, other.boxes + shift)),
        labels=np.concatenate((sample.labels, other.labels)),
        masks=PixelMasks(np.concatenate((np.concatenate((masks[0], right), 2), np.concatenate((left, masks[1]), 2)))),
    )


def test_a_transform_may_look_at_several_samples() -> None:
    samples = train_set(beside, flip=0.5)
    for i in range(6):
        assert check_objects(samples[SampleKey(i, 0, 64)]) == 6


def test_workers_run_own_transforms() -> None:
    sampler = BatchSampler(seed=0, num_samples=6, batch_size=3, num_steps=2, image_sizes=(64,))
    batches = [
        list(
            train_loader(
                own_data(),
                augmentation=Augmentation(**PLAIN),
                input_format=InputFormat(image_size=64),
                sampler=sampler,
                num_workers=workers,
                image_transforms=[as_transform(GEOMETRY)],
            )
        )
        for workers in (0, 1)
    ]
    for here, there in zip(*batches, strict=True):
        assert torch.equal(here.images, there.images)


def sample() -> TrainingSample:
    return TrainingSample(image=np.zeros((9, 9, 3), dtype=np.uint8), boxes=BOXES[:1], labels=np.array([1]))


def context() -> TransformContext:
    return TransformContext(
        rng=np.random.default_rng(0), resize_rule=ResizeRule(64), is_strong=True, draw_sample=sample
    )


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"write A\.Compose\(\[\.\.\.\], bbox_params=A\.BboxParams\(format='pascal_"):
        as_transform(StandIn())
    with pytest.raises(ValueError, match="an albumentations transform must follow boxes in corners"):
        AlbumentationsTransform(StandIn(replace(BoxParams(), format="yolo")))
    with pytest.raises(ValueError, match="3 is no transform: give a function of a sample and a context"):
        as_transform(3)
    half = TorchvisionTransform(lambda inputs: {**inputs, "labels": inputs["labels"][:0]})
    with pytest.raises(ValueError, match=r"there are \{'boxes': 1, 'labels': 0\}: it must drop all of an object"):
        half(sample(), context())
    with pytest.raises(ValueError, match=r"an image of floats must lie in \[0, 1\]"):
        TorchvisionTransform(lambda inputs: {**inputs, "image": inputs["image"].float()})(
            replace(sample(), image=np.full((9, 9, 3), 9, dtype=np.uint8)), context()
        )
    assert as_transform(beside) is beside
