"""Network inputs for training against torchvision's transforms, in one run and in turn.

Both read the same JPEGs, change colors, zoom out, crop around objects, mirror, resize to a square and normalize, with
the same probabilities, and make batches; as many processes do either. Images are read from a folder in a format that
``boxwright train`` takes, or drawn:

    python benchmarks/input_pipeline.py --data path/to/folder

A ratio above 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from boxwright.data.loading.loader import train_loader
from boxwright.data.loading.sampler import BatchSampler
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.data.transforms.augment import Augmentation
from boxwright_runtime.input_format import InputFormat
from side_by_side import Row, begin, make_common_parser, make_row, print_rows, turns

CASES = ("",)
QUICK = ("--image-size 64 --batch-size 2 --workers 1 --images 8",)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPOCHS = 100
TURNS = 3


class TorchvisionSamples(Dataset[tuple[Tensor, dict[str, Any]]]):
    """The published transforms of RT-DETR, as torchvision has them."""

    def __init__(self, data: DetectionData, side: int) -> None:
        self.records = data.records
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomPhotometricDistort(p=0.5),
                v2.RandomZoomOut(fill=0),
                v2.RandomApply([v2.RandomIoUCrop()], p=0.8),
                v2.SanitizeBoundingBoxes(min_size=1),
                v2.RandomHorizontalFlip(),
                v2.Resize((side, side), antialias=True),
                v2.SanitizeBoundingBoxes(min_size=1),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        record = self.records[index]
        with Image.open(record.path) as opened:
            image = opened.convert("RGB")
        single = ~record.crowd
        target = {
            "boxes": tv_tensors.BoundingBoxes(
                record.boxes()[single], format="XYXY", canvas_size=(record.height, record.width)
            ),
            "labels": torch.from_numpy(record.labels[single]),
        }
        return self.transform(image, target)


def collate_samples(samples: list[tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Stack the images of a batch."""
    return torch.stack([image for image, _ in samples]), [target for _, target in samples]


def torchvision_batches(data: DetectionData, options: argparse.Namespace) -> Iterator[Any]:
    """Make batches as torchvision's references do, without end."""
    samples = TorchvisionSamples(data, options.image_size)
    return iter(
        DataLoader(
            samples,
            batch_size=options.batch_size,
            sampler=np.random.default_rng(0).permutation(np.tile(np.arange(len(samples)), EPOCHS)).tolist(),
            num_workers=options.workers,
            collate_fn=collate_samples,
        )
    )


def own_batches(data: DetectionData, options: argparse.Namespace) -> Iterator[Any]:
    """Make batches as ``boxwright train rtdetr_r18`` does, without end."""
    sampler = BatchSampler(
        seed=0,
        num_samples=len(data.records),
        batch_size=options.batch_size,
        num_steps=len(data.records) * EPOCHS,
        image_sizes=[options.image_size],
    )
    return iter(
        train_loader(
            data,
            # torchvision changes hue, contrast ... with 0.5 each, and permutes channels with 0.5.
            augmentation=Augmentation(photometric=0.5, channel_shuffle=0.5, zoom_out=0.5, iou_crop=0.8, flip=0.5),
            input_format=InputFormat(image_size=options.image_size, mean=MEAN, std=STD),
            sampler=sampler,
            num_workers=options.workers,
        )
    )


def read_data(folder: str | None, side: int, temporary: str, *, images: int) -> DetectionData:
    """Open a data set, or draw one of so many images, as large as the network input."""
    if folder is None:
        folder = str(Path(temporary, "drawn"))
        draw_data_set(Path(folder), train=images, val=1, image_size=side)
    return open_data(folder, "train", check_images=False)


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=60, precisions=())
    parser.add_argument("--data", help="folder of a data set; drawn where it is not given")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="processes of either")
    parser.add_argument("--images", type=int, default=120, help="of the drawn data set")
    parser.set_defaults(threads=1)
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare batches made in this process, and in others."""
    begin(options)
    with tempfile.TemporaryDirectory() as temporary:
        data = read_data(options.data, options.image_size, temporary, images=options.images)
        for workers in dict.fromkeys((0, options.workers)):
            options.workers = workers
            # One at a time: the other's processes would work ahead and take the cores.
            measured = compare_here(data, options) if workers == 0 else compare_with_workers(data, options)
            work = f"augmented network inputs, {options.image_size} px, a batch of {options.batch_size}"
            yield make_row(f"{work}, {workers} workers", "torchvision transforms v2", measured, "float32")


def compare_here(data: DetectionData, options: argparse.Namespace) -> list[tuple[float, ...]]:
    """Measure batches of ours and of torchvision, made in this process in turn."""
    batches = [own_batches(data, options), torchvision_batches(data, options)]
    return turns(*(lambda one=one: next(one) for one in batches), rounds=options.rounds)


def compare_with_workers(data: DetectionData, options: argparse.Namespace) -> list[tuple[float, ...]]:
    """Measure batches of each, in turns in which one of them has all cores."""

    def turn(batches: Iterator[Any], count: int) -> float:
        for _ in range(4 * options.workers):  # until workers have begun, and nothing is ready ahead of time
            next(batches)
        start = time.perf_counter()
        for _ in range(count):
            next(batches)
        return (time.perf_counter() - start) / count

    count = max(1, options.rounds // TURNS)
    return [
        tuple(turn(make(data, options), count) for make in (own_batches, torchvision_batches)) for _ in range(TURNS)
    ]


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
