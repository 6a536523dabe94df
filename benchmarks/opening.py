"""Time and memory of opening a large COCO file without decoding its images.

Makes a data set of links to one image, opens it twice, each time in a fresh process, and prints seconds and the
memory (PSS) of the process and four data workers together::

    python benchmarks/opening.py /tmp/large --images 200000 --boxes 2000000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 640, 480
WORKERS = 4
MIB = 2**20


def write_set(folder: Path, images: int, boxes: int) -> None:
    """Write the annotation file and the links, ten thousand in a folder."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / "image.jpg")
    rng = np.random.default_rng(0)
    with (folder / "annotations" / "train.json").open("w") as file:
        file.write('{"images": [')
        for index in range(images):
            name = f"{index // 10_000:03d}/{index:07d}.jpg"
            if index % 10_000 == 0:
                (folder / "images" / name).parent.mkdir()
            (folder / "images" / name).symlink_to(folder / "image.jpg")
            entry = f'{{"id": {index + 1}, "file_name": "{name}", "width": {WIDTH}, "height": {HEIGHT}}}'
            file.write(", " * (index > 0) + entry)
        file.write('], "categories": [')
        file.write(", ".join(f'{{"id": {label}, "name": "class {label}"}}' for label in range(1, 81)))
        file.write('], "annotations": [')
        for start in range(0, boxes, 100_000):
            rows = np.arange(start, min(start + 100_000, boxes))
            corners = rng.uniform(0, 400, (len(rows), 4)).round(2) + 1
            labels = rng.integers(1, 81, len(rows))
            lines = [
                f'{{"id": {row + 1}, "image_id": {row * images // boxes + 1}, "category_id": {label}, "bbox": {box}, '
                f'"area": {box[2] * box[3]:.3f}, "iscrowd": 0}}'
                for row, label, box in zip(rows.tolist(), labels.tolist(), corners.tolist(), strict=True)
            ]
            file.write(", " * (start > 0) + ", ".join(lines))
        file.write("]}")


def measure(folder: Path) -> None:
    """Open the set in this process, then read some batches with workers."""
    from boxwright.data.loading.loader import eval_loader
    from boxwright.data.open import open_data
    from boxwright_runtime.input_format import InputFormat

    began = time.monotonic()
    data = open_data(folder, "train", check_images=False)
    opened = time.monotonic() - began
    peak = read_status(os.getpid(), "status", "VmHWM:")
    print(f"opened in {opened:.1f} s; peak {peak / MIB:.0f} MiB; {len(data.records):,} images", flush=True)
    began = time.monotonic()
    loader = eval_loader(data, input_format=InputFormat(image_size=64), batch_size=16, num_workers=WORKERS)
    batches = iter(loader)
    for _ in range(50):
        next(batches)
    children = subprocess.run(
        ["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False
    ).stdout.split()
    pss = sum(read_status(int(pid), "smaps_rollup", "Pss:") for pid in (os.getpid(), *children) if _is_alive(pid))
    print(f"50 batches after {time.monotonic() - began:.1f} s; PSS with {len(children)} children {pss / MIB:.0f} MiB")
    os._exit(0)


def _is_alive(pid: int | str) -> bool:
    return Path(f"/proc/{pid}/smaps_rollup").exists()


def read_status(pid: int, file: str, key: str) -> int:
    """Sum the lines of a file of ``/proc`` that begin with a key, in bytes; 0 where the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (OSError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    """Write the set where it is not there yet, and open it twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--boxes", type=int, default=2_000_000)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.folder)
        return
    if not options.folder.exists():
        write_set(options.folder, options.images, options.boxes)
    os.environ.setdefault("BOXWRIGHT_CACHE", str(options.folder / "cache"))
    for name in ("first", "second"):
        print(f"{name} opening:", flush=True)
        subprocess.run([sys.executable, __file__, str(options.folder), "--measure"], check=True)


if __name__ == "__main__":
    main()
