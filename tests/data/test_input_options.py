"""Input formats of other projects on their way through training, evaluation and prediction: the same pixels in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import boxwright
from boxwright.data.images import normalize, pad_inputs, resample
from boxwright.data.loading.loader import eval_loader, train_loader
from boxwright.data.loading.sampler import BatchSampler
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.transform import TrainingSample, TransformContext
from boxwright.detector import Detector
from boxwright.structures import Category, Decoded, Features, Level, Spec
from boxwright_runtime.input_format import InputFormat, Resampling, ResizeRule, Window

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PLAIN = {"photometric": 0.0, "channel_shuffle": 0.0, "zoom_out": 0.0, "iou_crop": 0.0, "flip": 0.0}
KEPT = InputFormat(image_size=60, resize="shortest_side", max_size=70, mean=MEAN, std=STD)
FORMATS = {
    "torchvision": replace(KEPT, size_rule="torchvision", antialias=False, resize_floats=True, pad_multiple=32),
    "mmdetection": replace(KEPT, size_rule="mmcv", antialias=False, channel_order="bgr", pad_multiple=32),
    "transformers": replace(KEPT, size_rule="transformers"),
    "effdet": InputFormat(image_size=64, resize="letterbox", mean=MEAN, std=STD),
    "padded square": InputFormat(image_size=64, pad_multiple=48),
}


class Passes(nn.Module):
    """A backbone that hands on its images."""

    def __init__(self) -> None:
        super().__init__()
        self.out_spec: Spec = {"c0": Level(3, 1)}
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Features:
        return {"c0": images * self.weight}


class Whole(nn.Module):
    """A head whose one box is all of the image inside its padding; it remembers its inputs and masks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, features: Features, padding_mask: Tensor | None, _: object, valid_sizes: Tensor) -> Any:
        self.seen.append((features["c0"].detach(), padding_mask))
        return valid_sizes.expand(len(features["c0"]), 2)

    def loss(self, *_: object) -> dict[str, Tensor]:
        raise NotImplementedError

    def decode(self, output: Tensor) -> Decoded:
        b = len(output)
        boxes = torch.cat((torch.zeros(b, 2), output.flip(1)), 1)[:, None]
        return Decoded(boxes, torch.ones(b, 1), torch.zeros(b, 1, dtype=torch.long), torch.ones(b, 1, dtype=torch.bool))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    folder = tmp_path_factory.mktemp("drawn")
    draw_data_set(folder, train=6, val=2, image_size=110)
    rng = np.random.default_rng(0)
    drawn = open_data(folder, "train")
    for record, shape in zip(
        drawn.records, [(90, 110), (110, 70), (60, 110), (90, 110), (64, 64), (83, 101)], strict=True
    ):
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(record.path)
    records = [
        replace(record, height=height, width=width)
        for record in drawn.records
        for width, height in [Image.open(record.path).size]
    ]
    return replace(drawn, records=tuple(records))


def predicted(images: Sequence[Path], input_format: InputFormat, batch_size: int = 2) -> tuple[list[Any], Whole]:
    head = Whole()
    detector = Detector(Passes(), [], head, categories=[Category(1, "thing")], input_format=input_format)
    detections = detector.predict(list(images), batch_size=batch_size)
    assert isinstance(detections, list)
    return detections, head


@pytest.mark.parametrize("name", FORMATS)
def test_training_evaluation_and_prediction_see_the_same_pixels(name: str, data: DetectionData) -> None:
    input_format, paths = FORMATS[name], [record.path for record in data.records]
    _, head = predicted(paths, input_format, batch_size=1)
    evaluated = list(eval_loader(data, input_format=input_format, batch_size=1))
    sampler = BatchSampler(seed=0, num_samples=6, batch_size=1, num_steps=6, image_sizes=(input_format.image_size,))
    trained = list(train_loader(data, augmentation=Augmentation(**PLAIN), input_format=input_format, sampler=sampler))
    by_image = {batch.image_ids[0]: batch for batch in trained}
    assert len(by_image) == len(evaluated) == 6
    index = {record.image_id: i for i, record in enumerate(data.records)}
    padded = 0
    for batch in evaluated:
        image, mask = head.seen[index[batch.image_ids[0]]]
        for other in (batch, by_image[batch.image_ids[0]]):
            assert torch.equal(other.images, image)
            assert (other.padding_mask is None) == (mask is None)
            assert mask is None or torch.equal(other.padding_mask, mask)
        size = batch.sizes[0]
        assert (size.input_height, size.input_width) == input_format.input_size(size.height, size.width)
        assert tuple(image.shape[2:]) == input_format.padded_size(size.input_height, size.input_width)
        if mask is not None:
            padded += 1
            assert not mask[0, : size.input_height, : size.input_width].any()
            assert int((~mask).sum()) == size.input_height * size.input_width
    assert padded == {"transformers": 0, "effdet": 5}.get(name, 6)


@pytest.mark.parametrize("name", FORMATS)
def test_boxes_end_where_the_image_ends(name: str, data: DetectionData) -> None:
    detections, head = predicted([record.path for record in data.records], FORMATS[name])
    for record, one in zip(data.records, detections, strict=True):
        expected = torch.tensor([0.0, 0.0, record.width, record.height])
        # A letterbox has one scale for both sides, of which one was rounded.
        tolerance = 2.0 if name == "effdet" else 1e-4
        torch.testing.assert_close(one.boxes[0], expected, atol=tolerance, rtol=0)
    # Only equal input sizes before padding share a batch, although padding would make more of them equal.
    assert len(head.seen) == (3 if name == "padded square" else 5)
    for images, mask in head.seen:
        assert mask is None or (mask == mask[0]).all()
        assert len(images) <= 2


def test_padding_is_zero_and_of_a_letterbox_the_mean_in_bytes() -> None:
    image = np.full((20, 40, 3), 200, dtype=np.uint8)
    for input_format, value in (
        (replace(KEPT, pad_multiple=32), [0.0, 0.0, 0.0]),
        (FORMATS["effdet"], [(128 / 255 - 0.5) / 0.2, 0.0, (76 / 255 - 0.3) / 0.4]),
        (replace(FORMATS["effdet"], channel_order="bgr"), [(76 / 255 - 0.3) / 0.4, 0.0, (128 / 255 - 0.5) / 0.2]),
    ):
        size = input_format.input_size(20, 40)
        pixels = normalize(resample(image, Window.whole(20, 40), *size), input_format)
        padded, mask = pad_inputs([pixels], *input_format.padded_size(*size), input_format)
        assert mask.any()
        assert torch.equal(padded[0, :, : size[0], : size[1]], pixels)
        filled = padded[0][:, mask[0]]
        torch.testing.assert_close(filled, torch.tensor(value)[:, None].expand_as(filled), atol=1e-6, rtol=0)


def test_channels_swap_after_mean_and_std() -> None:
    image = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None]
    rgb = InputFormat(mean=MEAN, std=STD)
    assert torch.equal(normalize(image, replace(rgb, channel_order="bgr")), normalize(image, rgb).flip(0))
    expected = torch.tensor([(1 - 0.3) / 0.4, (0.2 - 0.4) / 0.3, -0.5 / 0.2])[:, None, None]
    torch.testing.assert_close(normalize(image, replace(rgb, channel_order="bgr")), expected)


def test_floats_are_the_bytes_before_rounding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    rounded, exact = (
        resample(image, Window.whole(90, 70), 33, 41, resampling=Resampling(True, f)) for f in (False, True)
    )
    assert exact.dtype == torch.float32
    difference = (exact - rounded).abs()
    assert 0.1 < difference.mean() < 0.35
    assert difference.max() < 1.01
    # A window that reaches outside is filled in floats too.
    part = resample(image, Window(-10, 0, 60, 90), 45, 35, (9, 8, 7), Resampling(False, True))
    assert part[:, 0, 0].tolist() == [9, 8, 7]
    assert part[0, :, 6].frac().any()


def test_colors_change_in_floats_too(data: DetectionData) -> None:
    """With the same chance, bytes are the rounded floats; own transforms of inputs take bytes."""
    seen: list[np.ndarray] = []

    def look(sample: TrainingSample, _: TransformContext) -> TrainingSample:
        seen.append(sample.image)
        return sample

    def batches(input_format: InputFormat, **options: Any) -> list[Tensor]:
        sampler = BatchSampler(seed=1, num_samples=6, batch_size=3, num_steps=2, image_sizes=(64, 96))
        augmentation = Augmentation(photometric=1.0)
        loader = train_loader(data, augmentation=augmentation, input_format=input_format, sampler=sampler, **options)
        return [batch.images * 255 for batch in loader]

    square = InputFormat(image_size=64)
    exact = batches(replace(square, resize_floats=True))
    for floats, rounded in zip(exact, batches(square), strict=True):
        difference = (floats - rounded).abs()
        assert difference.max() < 3
        assert 0.1 < difference.mean() < 1
        assert floats.min() >= 0
        assert floats.max() <= 255.001
    for floats, rounded in zip(
        exact, batches(replace(square, resize_floats=True), input_transforms=[look]), strict=True
    ):
        assert (floats - rounded).abs().max() < 0.501
    assert {image.dtype for image in seen} == {np.dtype(np.uint8)}


@pytest.mark.parametrize(
    "options", [{}, {"scale_range": (0.6, 1.0), "size_crop": 0.5, "zoom_out": 0.0, "iou_crop": 0.0}]
)
@pytest.mark.parametrize("name", ["torchvision", "effdet"])
def test_random_sizes_and_crops_follow_the_format(name: str, options: dict[str, Any], data: DetectionData) -> None:
    """Multi-scale batches are padded to the format's multiple, or to the square of their step's image size."""
    sampler = BatchSampler(seed=2, num_samples=6, batch_size=3, num_steps=12, image_sizes=(64, 96))
    loader = train_loader(data, augmentation=Augmentation(**options), input_format=FORMATS[name], sampler=sampler)
    shapes = set()
    for batch in loader:
        height, width = batch.images.shape[2:]
        shapes.add((height, width))
        assert height % 32 == width % 32 == 0
        for i, target in enumerate(batch.targets):
            mask = torch.zeros(height, width, dtype=torch.bool) if batch.padding_mask is None else batch.padding_mask[i]
            assert tuple(target.size) == (int((~mask[:, 0]).sum()), int((~mask[0]).sum()))
            if name == "effdet":
                assert max(target.size) <= height
    assert shapes == {(64, 64), (96, 96)} if name == "effdet" else len(shapes) > 1


@pytest.mark.parametrize("options", [{"scale_jitter": (0.3, 0.5)}, {"zoom_out": 1.0}])
def test_augmentation_fills_a_letterbox_with_its_own_color(options: dict[str, Any], data: DetectionData) -> None:
    """The rest of an input looks as in prediction; of other formats it is black."""
    colors = []
    for input_format in (FORMATS["effdet"], FORMATS["padded square"]):
        sampler = BatchSampler(seed=0, num_samples=6, batch_size=6, num_steps=1, image_sizes=(64,))
        augmentation = Augmentation(**{**PLAIN, "zoom_out_max": 9.0, **options})
        (batch,) = train_loader(data, augmentation=augmentation, input_format=input_format, sampler=sampler)
        pixels = batch.images[:, :, :64, :64].permute(0, 2, 3, 1).flatten(0, 2)
        values, counts = pixels.unique(dim=0, return_counts=True)
        assert counts.max() > 0.3 * len(pixels)
        colors.append(values[counts.argmax()])
    torch.testing.assert_close(colors[0], torch.tensor([(128 / 255 - 0.5) / 0.2, 0.0, (76 / 255 - 0.3) / 0.4]))
    assert colors[1].tolist() == [0, 0, 0]


class TestInputFormat:
    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"resize": "letterbox", "image_size": 100}, "multiple of 32, not 100; nearest is 96"),
            ({"resize": "letterbox", "max_size": 640}, "max_size 640 needs resize shortest_side"),
            ({"pad_multiple": 0}, "pad_multiple must be at least 1, which is no padding, not 0"),
            ({"channel_order": "brg"}, "channel_order must be rgb or bgr, not brg"),
            ({"size_rule": "effdet"}, "size_rule must be detr or transformers or torchvision or mmcv, not effdet"),
        ],
    )
    def test_refuses_options_that_there_are_not(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            InputFormat(**options)

    @pytest.mark.parametrize("name", FORMATS)
    def test_other_sizes_keep_the_rule(self, name: str) -> None:
        input_format = FORMATS[name]
        rule = input_format.resize_rule(96)
        assert rule == input_format.at_size(96).resize_rule(96)
        assert (rule.size_rule, rule.pad_multiple) == (input_format.size_rule, input_format.pad_multiple)
        assert rule.resampling == Resampling(input_format.antialias, input_format.resize_floats)
        assert rule.input_size(50, 70) == input_format.at_size(96).input_size(50, 70)

    def test_defaults_are_the_rule_of_before(self) -> None:
        assert InputFormat(image_size=64).resize_rule(64) == ResizeRule(64)
        assert InputFormat().padded_size(33, 47) == (33, 47)

    def test_a_checkpoint_keeps_them(self, tmp_path: Path) -> None:
        options = {
            f"input.{name}": value
            for name, value in {
                "image_size": 64,
                "max_size": 96,
                "resize": "shortest_side",
                "size_rule": "mmcv",
                "antialias": False,
                "channel_order": "bgr",
                "pad_multiple": 32,
                "resize_floats": True,
            }.items()
        }
        detector = boxwright.build("retinanet_r18_fpn", num_classes=2, overrides=options)
        detector.save(tmp_path / "one.pt")
        loaded = boxwright.load(tmp_path / "one.pt", image_size=96)
        assert loaded.input_format == detector.input_format.at_size(96)
        assert loaded.input_format.max_size == 144
        assert loaded.input_format.channel_order == "bgr"
