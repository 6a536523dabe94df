"""Masks of network inputs: positions of pixels for any kind of segmentation, and messages where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from boxwright.data.crop import Crop
from boxwright.data.loading.loader import train_loader
from boxwright.data.loading.sampler import BatchSampler
from boxwright.data.masks import decode_image_mask, decode_image_masks, render_record_masks
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData, Record
from boxwright.data.synthetic.shapes import encode_run_lengths
from boxwright.data.transforms.augment import Augmentation
from boxwright.ops.masks import decode_mask, encode_mask
from boxwright_runtime.input_format import InputFormat, Window
from boxwright_runtime.masks import to_json

HEIGHT, WIDTH = 30, 40
WHOLE = Window.whole(HEIGHT, WIDTH)
PLAIN = Crop(WHOLE, (HEIGHT, WIDTH))


def blob(seed: int = 0) -> Tensor:
    """A smooth shape without symmetry, that touches the image's left edge."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    shift = seed % 5
    return (((rows - 14.3) / 9) ** 2 + ((columns - 8 - shift) / 12) ** 2 < 1) & ~((rows > 16) & (columns > 9 + shift))


def make_record(*segmentations: Any) -> Record:
    n = len(segmentations)
    return Record(
        image_id=1,
        path=Path("a.png"),
        height=HEIGHT,
        width=WIDTH,
        labels=np.zeros(n, dtype=np.int64),
        bbox_xywh=np.tile([[0.0, 5.0, 20.0, 20.0]], (n, 1)),
        area=np.full(n, 400.0),
        crowd=np.zeros(n, dtype=bool),
        annotation_ids=tuple(range(5, 5 + n)),
        segmentations=segmentations,
    )


def seen(segmentation: Any, crop: Crop) -> Tensor:
    return render_record_masks(make_record(segmentation), [0], crop)[0]


def iou(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())


RECTANGLE = [[4.0, 6, 24, 6, 24, 21, 4, 21]]
"""Columns 4 to 23, rows 6 to 20."""
DIAMOND = [[12.0, 2, 26, 15, 12, 28, 1, 15], [30.0, 3, 39, 3, 39, 12]]
"""Of two parts."""
COMPRESSED = to_json(encode_mask(blob()))
PACKED = [COMPRESSED, encode_run_lengths(blob().numpy())]
EVERYTHING = [RECTANGLE, DIAMOND, *PACKED]


@pytest.mark.parametrize("segmentation", PACKED, ids=["compressed", "numbers"])
def test_the_image_itself_shows_the_mask_itself(segmentation: Any) -> None:
    assert torch.equal(seen(segmentation, PLAIN), blob())


def test_a_polygon_covers_its_pixels() -> None:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[6:21, 4:24] = True
    assert torch.equal(seen(RECTANGLE, PLAIN), mask)
    both = seen(DIAMOND, PLAIN)
    assert both[15, 12]
    assert both[5, 37]
    assert not both[25, 30]


@pytest.mark.parametrize("segmentation", EVERYTHING, ids=["rectangle", "diamond", "compressed", "numbers"])
@pytest.mark.parametrize("flips", [(True, False), (False, True), (True, True)])
def test_mirroring_mirrors_the_mask(segmentation: Any, flips: tuple[bool, bool]) -> None:
    crop = Crop(Window(3.0, 2.0, 33.0, 27.0), (50, 45))
    axes = [axis for axis, flipped in zip((1, 0), flips, strict=True) if flipped]
    assert torch.equal(seen(segmentation, Crop(*crop[:2], *flips)), seen(segmentation, crop).flip(axes))


def test_a_mirrored_mask_is_where_mirrored_pixels_are() -> None:
    """Half pixels: the pixels of the image that the mask covers are those of the input."""
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[blob().numpy()] = 255
    for window, size in ((WHOLE, (60, 80)), (Window(5.0, 3.0, 25.0, 23.0), (40, 40)), (WHOLE, (HEIGHT, WIDTH))):
        crop = Crop(window, size, flip_x=True)
        assert iou(crop.render(image)[0] > 127, seen(COMPRESSED, crop)) > 0.97


def test_an_input_twice_as_large() -> None:
    double = Crop(WHOLE, (2 * HEIGHT, 2 * WIDTH))
    assert torch.equal(seen(COMPRESSED, double), blob().repeat_interleave(2, 0).repeat_interleave(2, 1))
    mask = torch.zeros(2 * HEIGHT, 2 * WIDTH, dtype=torch.bool)
    mask[12:42, 8:48] = True
    assert torch.equal(seen(RECTANGLE, double), mask)


def test_an_input_half_as_large_shows_the_pixel_under_its_center() -> None:
    # Centers of the input's pixels lie on the corners of pixels: the later one counts, as floor does.
    assert torch.equal(seen(COMPRESSED, Crop(WHOLE, (HEIGHT // 2, WIDTH // 2))), blob()[1::2, 1::2])
    mask = torch.zeros(HEIGHT // 2, WIDTH // 2, dtype=torch.bool)
    mask[3:10, 2:12] = True
    polygon = seen([[4.0, 6, 24, 6, 24, 20, 4, 20]], Crop(WHOLE, (HEIGHT // 2, WIDTH // 2)))
    assert torch.equal(polygon, mask)


def test_a_crop_of_whole_pixels_is_a_part_of_the_mask() -> None:
    crop = Crop(Window(7.0, 4.0, 27.0, 24.0), (20, 20))
    assert torch.equal(seen(COMPRESSED, crop), blob()[4:24, 7:27])
    assert torch.equal(seen(RECTANGLE, crop), seen(RECTANGLE, PLAIN)[4:24, 7:27])


@pytest.mark.parametrize("segmentation", EVERYTHING, ids=["rectangle", "diamond", "compressed", "numbers"])
def test_an_image_in_a_larger_input_has_no_mask_around_it(segmentation: Any) -> None:
    crop = Crop(Window(-10.0, -5.0, 50.0, 45.0), (50, 60))
    mask = seen(segmentation, crop)
    assert torch.equal(mask[5:35, 10:50], seen(segmentation, PLAIN))
    mask[5:35, 10:50] = False
    assert not mask.any()


def test_a_polygon_beyond_the_image_ends_at_its_edge() -> None:
    mask = seen([[-8.0, 5, 48, 5, 48, 40, -8, 40]], Crop(Window(-10.0, -5.0, 50.0, 45.0), (50, 60)))
    assert mask[10:35, 10:50].all()
    assert mask.sum() == 25 * 40


def test_random_crops_agree_on_polygons_and_run_lengths() -> None:
    """Of the same objects: the polygon's own pixels, packed."""
    packed = to_json(encode_mask(seen(DIAMOND, PLAIN)))
    rng = np.random.default_rng(0)
    for _ in range(50):
        corner = rng.uniform(-10, 5, 2)
        window = Window(*corner.tolist(), *(corner + rng.uniform(25, 45, 2)).tolist())
        crop = Crop(window, (128, 160), bool(rng.random() < 0.5), bool(rng.random() < 0.5))
        assert iou(seen(DIAMOND, crop), seen(packed, crop)) > 0.9


def test_some_objects_in_their_order_whatever_their_kind() -> None:
    record = make_record(*EVERYTHING)
    masks = render_record_masks(record, [3, 0, 1], PLAIN)
    assert torch.equal(masks, torch.stack([seen(EVERYTHING[i], PLAIN) for i in (3, 0, 1)]))
    assert render_record_masks(record, [], PLAIN).shape == (0, HEIGHT, WIDTH)
    everything = decode_image_masks(make_record(RECTANGLE, None))
    assert torch.equal(everything[0], seen(RECTANGLE, PLAIN))
    assert not everything[1].any()
    assert torch.equal(decode_image_mask(make_record(None, DIAMOND), 1), seen(DIAMOND, PLAIN))


def test_an_object_without_one_is_named() -> None:
    with pytest.raises(ValueError, match=r"annotation 6 of image 'a\.png' has no segmentation"):
        render_record_masks(make_record(RECTANGLE, None), [0, 1], PLAIN)


def test_polygons_and_run_lengths_of_real_objects_agree(real_data: Callable[[str], Path]) -> None:
    polygons, exact = (open_data(real_data("nuclei"), split, check_images=False) for split in ("val", "val_rle"))
    rng = np.random.default_rng(1)
    overlaps = []
    for first, second in list(zip(polygons.records, exact.records, strict=True))[:6]:
        corner = rng.uniform(0, 0.4, 2) * (first.width, first.height)
        stop = corner + 0.6 * np.array([first.width, first.height])
        crop = Crop(Window(*corner.tolist(), *stop.tolist()), (512, 512), flip_x=True)
        indices = list(range(len(first.labels)))
        a, b = render_record_masks(first, indices, crop), render_record_masks(second, indices, crop)
        union = (a | b).sum((1, 2))
        overlaps += ((a & b).sum((1, 2)) / union)[union > 200].tolist()
    assert len(overlaps) > 50
    assert np.mean(overlaps) > 0.95
    assert np.mean(np.array(overlaps) > 0.9) > 0.95


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_masks_of_real_images_are_pycocotools(real_data: Callable[[str], Path]) -> None:
    """Of several polygons, beyond the edge, of crowds: every pixel."""
    for name, count in (("coco_mini", 20), ("nuclei", 5)):
        data = open_data(real_data(name), "val", check_images=False)
        for record in data.records[:count]:
            for segmentation, mask in zip(record.segmentations, decode_image_masks(record), strict=True):
                packed = coco_mask.frPyObjects(segmentation, record.height, record.width)
                theirs = coco_mask.decode(coco_mask.merge(packed) if isinstance(packed, list) else packed)
                assert np.array_equal(mask.numpy(), theirs.astype(bool))


FORMAT = InputFormat(image_size=64)


def batches(data: DetectionData, input_format: InputFormat = FORMAT, *, workers: int = 0, with_masks: bool = True):
    count = len(data.records)
    sampler = BatchSampler(seed=3, num_samples=count, batch_size=5, num_steps=2, image_sizes=(input_format.image_size,))
    augmentation = Augmentation(vertical_flip=0.5)
    return list(
        train_loader(
            data,
            augmentation=augmentation,
            input_format=input_format,
            sampler=sampler,
            num_workers=workers,
            with_masks=with_masks,
        )
    )


def test_masks_come_with_their_boxes(drawn: Path) -> None:
    """The boxes of the drawn set are those of its masks, so that a moved mask fills its moved box."""
    seen_objects = 0
    for batch in batches(open_data(drawn, "train")):
        for target in batch.targets:
            assert target.masks is not None
            assert target.masks.shape == (len(target.labels), 64, 64)
            for box, mask in zip(target.boxes, target.masks, strict=True):
                if mask.sum() < 30:
                    continue
                rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
                own = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert not (own[:2] < box[:2] - 2).any()
                assert not (own[2:] > box[2:] + 2).any()
                seen_objects += 1
    assert seen_objects > 10


def test_masks_are_there_only_where_they_are_wanted(drawn: Path) -> None:
    """And change nothing else."""
    data = open_data(drawn, "train")
    for plain, masked in zip(batches(data, with_masks=False), batches(data), strict=True):
        assert torch.equal(plain.images, masked.images)
        for first, second in zip(plain.targets, masked.targets, strict=True):
            assert first.masks is None
            assert torch.equal(first.boxes, second.boxes)


def test_workers_make_the_same_masks(drawn: Path) -> None:
    data = open_data(drawn, "train")
    for here, there in zip(batches(data), batches(data, workers=2), strict=True):
        for first, second in zip(here.targets, there.targets, strict=True):
            assert torch.equal(first.masks, second.masks)


def test_masks_are_as_large_as_the_batch(drawn: Path) -> None:
    for batch in batches(open_data(drawn, "train"), InputFormat(image_size=48, resize="shortest_side")):
        for target, padding in zip(batch.targets, batch.padding_mask, strict=True):
            assert target.masks.shape[1:] == batch.images.shape[2:]
            assert not target.masks[:, padding].any()


def test_crowds_have_no_mask(tiny) -> None:
    for annotation in tiny.document["annotations"]:
        annotation.setdefault("segmentation", [[30, 20, 40, 20, 40, 30]])
    for batch in batches(tiny.read()):
        assert all(len(target.masks) == len(target.labels) for target in batch.targets)


def test_an_image_without_masks_stops_the_loader_in_one_line(tiny) -> None:
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"annotation \d of image 'a.png' has no segmentation"):
            batches(tiny.read(), workers=workers)


def test_drawn_masks_are_those_of_the_file(drawn: Path) -> None:
    record = next(r for r in open_data(drawn, "train").records if len(r.labels))
    document = json.loads((drawn / "annotations" / "train.json").read_text())
    for annotation_id, mask in zip(record.annotation_ids, decode_image_masks(record), strict=True):
        own = next(a for a in document["annotations"] if a["id"] == annotation_id)
        assert torch.equal(decode_mask(own["segmentation"]), mask)
        assert mask.sum() == own["area"]
