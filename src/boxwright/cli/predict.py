"""``boxwright predict``: find objects in files, draw and list them."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from boxwright.cli.arguments import CommandParser
from boxwright.compose.detectors import load
from boxwright.data.image_check import SUFFIXES
from boxwright.data.images import read_image
from boxwright.detections import Detections
from boxwright.detector import Detector
from boxwright.files import check_folder, check_target, write_text
from boxwright.ops.masks import to_json
from boxwright.reports.drawing import draw_detections
from boxwright.structures import Category
from boxwright.training.distributed import choose_device


class ImageFile(NamedTuple):
    """A file, and the name that it goes by: relative to the folder that was given, or its own."""

    path: Path
    name: str


def run(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = CommandParser(
        "predict", description="Find objects in files, or their classes; draw them, and list them as JSON."
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, or the folder of a run")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files, folders of files, globs")
    parser.add_argument("--out", metavar="DIR", default="predictions", help="for drawn images (default: predictions)")
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=float,
        default=0.3,
        help="least score; a classifier's likeliest class is given in any case (default: 0.3)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write detections as JSON: boxes as [x, y, w, h], masks as RLE"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=1, help="images at a time (default: 1)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    parser.add_argument("--trust", metavar="MODULE", action="append", default=[], help="import parts from MODULE")
    options = parser.parse(argv)
    if not 0 <= options.threshold <= 1:
        parser.error(f"--threshold is between 0 and 1, not {options.threshold}")
    if options.batch_size < 1:
        parser.error(f"--batch-size is at least 1, not {options.batch_size}")
    files = find_images(options.paths)
    out = Path(options.out)
    _check_out(out, files)
    target = Path(options.json) if options.json else None
    if target is not None:
        check_target(target)
    detector = load(options.model, trusted=options.trust).fold().to(choose_device(options.device))
    if next(detector.parameters()).device.type == "cpu":
        detector.to(memory_format=torch.channels_last)

    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    console = Console(stderr=True)
    batches = list(_batches(files, options.batch_size))
    for batch in track(batches, "predicting", console=console, disable=not console.is_terminal):
        rows += _predict(detector, batch, out, options.threshold, failures)
    done = len(files) - len(failures)
    if done and target is not None:
        write_text(target, json.dumps(rows, indent=1) + "\n")
    if done:
        where = f", as JSON in {target}" if target is not None else ""
        found = "objects in" if detector.task == "detection" else "classes of"
        print(f"{len(rows)} {found} {done} files, drawn in {out}{where}")
    if failures:
        raise ValueError(f"{len(failures)} of {len(files)} images could not be read: {'; '.join(failures[:3])}")
    return 0


def find_images(paths: Sequence[str]) -> list[ImageFile]:
    """The images that paths mean: files as they are, folders with all below them, globs; each once, in order.

    Raises:
        FileNotFoundError: a path or a glob without a match.
        ValueError: a folder without images.
    """
    found: dict[Path, ImageFile] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise ValueError(f"{path}: no files in this folder ({', '.join(sorted(SUFFIXES))})")
            new = [ImageFile(p, p.relative_to(path).as_posix()) for p in inside]
        elif path.exists():
            new = [ImageFile(path, path.name)]
        else:
            matches = sorted(m for m in glob.glob(given, recursive=True) if Path(m).is_file())
            if not matches:
                raise FileNotFoundError(f"{given}: no such image or folder")
            new = [ImageFile(Path(m), Path(m).name) for m in matches]
        for file in new:
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def _check_out(out: Path, files: Sequence[ImageFile]) -> None:
    check_folder(out)
    sources = {p.path.resolve() for p in files}
    drawn: dict[Path, Path] = {}
    for file in files:
        target = _target(out, file)
        if target.resolve() in sources:
            raise ValueError(f"{target} is one of the files, and drawing would overwrite it; give another --out")
        if target in drawn:
            raise ValueError(
                f"{drawn[target]} and {file.path} would both be drawn to {target}; predict one of them alone, "
                "or give the folder above both"
            )
        drawn[target] = file.path


def _target(out: Path, file: ImageFile) -> Path:
    name = Path(file.name)
    # Drawn images are JPEG or PNG, whatever came in.
    return out / (name if name.suffix.lower() in (".jpg", ".jpeg", ".png") else name.with_suffix(".png"))


def _batches(files: Sequence[ImageFile], size: int) -> Iterator[Sequence[ImageFile]]:
    for first in range(0, len(files), size):
        yield files[first : first + size]


def _predict(
    detector: Detector, batch: Sequence[ImageFile], out: Path, threshold: float, failures: list[str]
) -> list[dict[str, Any]]:
    readable, images = [], []
    for file in batch:
        try:
            images.append(read_image(file.path))
            readable.append(file)
        except (OSError, ValueError) as error:
            failures.append(str(error))
    if not readable:
        return []
    rows = []
    classifies = detector.task == "classification"
    found = detector.predict(images, threshold=0.0 if classifies else threshold, batch_size=len(images))
    for file, image, detections in zip(readable, images, found, strict=True):
        assert isinstance(detections, Detections)
        target = _target(out, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        drawn = detections
        if classifies:
            best = torch.arange(len(detections.scores)) == 0
            # The boxes of an image's classes are all the same: one of them is drawn.
            drawn = detections[best]
            detections = detections[best | (detections.scores >= threshold)]
        _save(draw_detections(image, drawn, detector.categories, threshold=0.0), target)
        rows += detection_rows(file.name, detections, detector.categories)
    return rows


def _save(image: Image.Image, target: Path) -> None:
    if target.suffix.lower() == ".png":
        image.save(target)
    else:
        image.save(target, quality=95)


def detection_rows(file_name: str, detections: Detections, categories: Sequence[Category]) -> list[dict[str, Any]]:
    """Detections of one image as JSON rows: the data set's own ids, boxes (x, y, w, h) in its pixels, RLE masks."""
    rows: list[dict[str, Any]] = []
    for (x1, y1, x2, y2), score, label in zip(
        detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    ):
        rows.append(
            {
                "file_name": file_name,
                "category_id": categories[label].id,
                "category_name": categories[label].name,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
        )
    if detections.masks is not None:
        for row, mask in zip(rows, detections.masks, strict=True):
            row["segmentation"] = to_json(mask)
    return rows
