"""Memory of a process that reads training images, epoch by epoch.

Links one small image many times, with three boxes each, and reads all of them again and again as training does, with
one data worker; prints the memory (PSS) of the worker after each epoch, in MiB::

    python benchmarks/worker_memory.py /tmp/many --images 40000 --epochs 10
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path

import numpy as np
from PIL import Image

from boxwright.data.loading.loader import train_loader
from boxwright.data.loading.sampler import BatchSampler
from boxwright.data.open import open_data
from boxwright.data.transforms.augment import Augmentation
from boxwright_runtime.input_format import InputFormat
from opening import MIB, read_status

SIDE, BATCH = 32, 50


def write_set(folder: Path, images: int) -> None:
    """Write the annotation file and the links."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.jpg")
    for index in range(images):
        (folder / "images" / f"{index}.jpg").symlink_to(folder / "image.jpg")
    names = [{"id": i, "file_name": f"{i}.jpg", "width": SIDE, "height": SIDE} for i in range(images)]
    boxes = [
        {"id": i, "image_id": i // 3, "category_id": i % 3, "bbox": [2 + i % 9, 3, 12, 9], "area": 108, "iscrowd": 0}
        for i in range(3 * images)
    ]
    classes = [{"id": label, "name": f"class {label}"} for label in range(3)]
    document = {"images": names, "annotations": boxes, "categories": classes}
    (folder / "annotations" / "train.json").write_text(json.dumps(document))


def main() -> None:
    """Parse the arguments, make the set where there is none, and read it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    if not arguments.folder.exists():
        write_set(arguments.folder, arguments.images)
    data = open_data(arguments.folder, "train")
    steps = arguments.images // BATCH
    sampler = BatchSampler(
        seed=0,
        num_samples=len(data.records),
        batch_size=BATCH,
        num_steps=steps * arguments.epochs,
        image_sizes=(SIDE,),
    )
    loader = train_loader(
        data,
        augmentation=Augmentation(),
        input_format=InputFormat(image_size=SIDE),
        sampler=sampler,
        num_workers=1,
        cache_bytes=2**30,
    )
    for step, _ in enumerate(loader, 1):
        if step % steps == 0:
            (worker,) = (child.pid for child in multiprocessing.active_children() if child.pid)
            print(f"epoch {step // steps}: {read_status(worker, 'smaps_rollup', 'Pss:') / MIB:.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
