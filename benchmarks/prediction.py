"""`boxwright eval` and `boxwright predict` as commands, two versions or two precisions of them in turn.

::

    python benchmarks/prediction.py --model RUN --data DIR --sources OLD/src NEW/src --rounds 5 --threads 2
    python benchmarks/prediction.py --model RUN --data DIR --precisions float32 bfloat16 --image-size 320

``eval`` measures a split. ``predict`` draws a folder of PNGs, made of the images of the same split, which are repeated
until there are enough of them. Each round starts each command anew, once for each side. Prints seconds and CPU seconds
(medians of the rounds), the median and the range of each round's ratio of the first side to the second, above 1 where
the second is faster, and AP of both. Without ``--model`` the weights are random, of a form that OLD may not read, and
AP means nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

import boxwright
from boxwright.data.open import open_data
from boxwright.structures import Category
from boxwright_runtime.images import read_image


@dataclass
class Side:
    """One of the two that are compared, and what was measured of it by command.

    Args:
        name: in the table.
        source: folder of the packages; those that this script has where None.
        precision: of the network; nothing is said to the command where None.
        seconds: of each round, by command.
        cpu_seconds: the same of all cores, in the program itself.
        ap: that `eval` measured.
    """

    name: str
    source: Path | None
    precision: str | None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)
    ap: float = 0.0

    def run(self, command: Sequence[str], threads: int) -> None:
        """Run a command once, and keep its times."""
        typed = [sys.executable, "-m", "boxwright", *command]
        typed += ["--precision", self.precision] if self.precision else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if self.source is not None:
            environment["PYTHONPATH"] = str(self.source)
        start = time.perf_counter()
        with subprocess.Popen(typed, env=environment, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        elapsed = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"{self.name}: boxwright {' '.join(command)} ended with {process.returncode}")
        self.seconds.setdefault(command[0], []).append(elapsed)
        self.cpu_seconds.setdefault(command[0], []).append(usage.ru_utime)


def make_photos(images: Sequence[Path], folder: Path, count: int) -> None:
    """Write so many PNGs of images into a folder, each image as often as it takes."""
    folder.mkdir()
    for index in range(count):
        pixels = read_image(images[index % len(images)])
        Image.fromarray(pixels).save(folder / f"{index:04d}.png", compress_level=1)


def random_model(categories: Sequence[Category], folder: Path) -> Path:
    """Save RT-DETR-R18 with random weights."""
    boxwright.save(boxwright.build("rtdetr_r18", categories=categories), folder / "random.safetensors")
    return folder / "random.safetensors"


def measure(sides: Sequence[Side], options: argparse.Namespace, folder: Path) -> None:
    """Run both commands on both sides, in turn."""
    data = open_data(options.data, options.split)
    model = str(options.model or random_model(data.categories, folder))
    make_photos([record.path for record in data.records], folder / "photos", options.photos)
    size = ["--image_size", str(options.image_size)] if options.image_size else []
    for _ in range(options.rounds):
        for side in sides:
            numbers = folder / "metrics.json"
            target = ["--data", str(options.data), "--split", options.split, "--json", str(numbers)]
            side.run(["eval", model, *target, *size], options.threads)
            side.ap = json.loads(numbers.read_text())["AP"]
        for side in sides if options.photos else ():
            side.run(["predict", model, str(folder / "photos"), "--out", str(folder / "drawn"), *size], options.threads)


def show(first: Side, second: Side, rounds: int, threads: int) -> None:
    """Print the table."""
    print(f"{threads} threads, {rounds} rounds; {first.name} / {second.name}")
    for command, seconds in first.seconds.items():
        ratios = [one / other for one, other in zip(seconds, second.seconds[command], strict=True)]
        cpu = [statistics.median(side.cpu_seconds[command]) for side in (first, second)]
        wall = [statistics.median(side.seconds[command]) for side in (first, second)]
        print(
            f"{command:8} {wall[0]:7.2f} / {wall[1]:6.2f} s = {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}); CPU {cpu[0]:7.2f} / {cpu[1]:6.2f} s = {cpu[0] / cpu[1]:.2f}"
        )
    print(f"AP {first.ap:.4f} / {second.ap:.4f}, a difference of {second.ap - first.ap:+.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--sources", type=Path, nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("--precisions", nargs=2, metavar=("FIRST", "SECOND"))
    parser.add_argument("--photos", type=int, default=200, help="PNGs to predict; 0 measures eval alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if not options.sources and not options.precisions:
        parser.error("what is compared? give --sources OLD NEW or --precisions FIRST SECOND")
    sources = options.sources or (None, None)
    precisions = options.precisions or (None, None)
    names = ("old", "new") if options.sources else precisions
    sides = [Side(*one) for one in zip(names, sources, precisions, strict=True)]
    with TemporaryDirectory() as folder:
        measure(sides, options, Path(folder))
    show(*sides, options.rounds, options.threads)


if __name__ == "__main__":
    main()
