"""Fine-tuning on drawn shapes: a detector that knows four classes is trained further on six, against from scratch.

    python benchmarks/fine_tuning.py --recipe rtdetr_tiny --seeds 0 1 2 --image-size 128 --source-steps 300

For each seed, a detector is trained on images with circles, squares, triangles and stars alone. On other images, with
all six shapes, four runs of ``--steps`` follow: from its weights, with the recipe's learning rates times 1, 0.3 and
0.1, and from scratch. Printed are, on the held-out images of those, the COCO AP of the four classes before (of the
detector that knew no others) and at the start (the same weights in a detector of six classes), and the AP of all six
after each run; then, over the seeds, the median and the range.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import boxwright
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.data.open import open_data
from boxwright.evaluation.evaluate import Evaluation
from boxwright.weights.model import read_model
from boxwright.weights.transfer import load_detector_weights
from boxwright.workflows.draw import draw

KEPT = 4
"""Classes of the first detector: the first ones of the drawn shapes."""

ALL = ("train", "val")


def keep_classes(source: Path, folder: Path, *, whole_images: bool) -> Path:
    """Write annotations of the first classes alone, beside the same images.

    Args:
        source: a drawn set.
        folder: a new one.
        whole_images: images with objects of other classes are left out; else only their annotations are.
    """
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to((source / "images").resolve())
    for split in ALL:
        content = json.loads((source / "annotations" / f"{split}.json").read_text())
        names = {category["id"] for category in content["categories"][:KEPT]}
        others = {one["image_id"] for one in content["annotations"] if one["category_id"] not in names}
        content["annotations"] = [
            one
            for one in content["annotations"]
            if one["category_id"] in names and not (whole_images and one["image_id"] in others)
        ]
        if whole_images:
            content["images"] = [image for image in content["images"] if image["id"] not in others]
        content["categories"] = content["categories"][:KEPT]
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return folder


def measure(model: Any, data: Path) -> dict[str, float]:
    """Measure the AP of each class on the held-out images."""
    evaluation = boxwright.evaluate(model, data)
    assert isinstance(evaluation, Evaluation)
    return {one["name"]: one["AP"] for one in evaluation.to_json()["per_class"]}


def start_with(recipe: str, source: Path, data: Path, options: Mapping[str, Any]) -> Any:
    """Make the detector that fine-tuning starts with."""
    torch.manual_seed(0)
    categories = open_data(data, "val").categories
    detector = build_resolved(resolve(recipe, options).recipe, categories=categories)
    load_detector_weights(detector, read_model(source))
    return detector.eval()


def run_seed(options: argparse.Namespace, recipe: str, seed: int) -> dict[str, Any]:
    """Train the detector of four classes and all that follow it, and measure them."""
    root, size = Path(options.out), options.image_size
    first = draw(root / f"first-{size}-{seed}", train=options.images, val=50, image_size=size, seed=100 + seed)
    four = keep_classes(first, root / f"four-{size}-{seed}", whole_images=True)
    six = draw(root / f"six-{size}-{seed}", train=400, val=100, image_size=size, seed=200 + seed)
    kept = keep_classes(six, root / f"kept-{size}-{seed}", whole_images=False)
    common = {"image_size": size, "train.runtime.seed": seed, "train.schedule.evaluations": 1}
    common |= dict(each.split("=", 1) for each in options.set)

    def train(name: str, data: Path, steps: int, *, weights: Path | None = None, factor: float | None = None) -> Any:
        folder = root / f"{recipe}-{seed}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        overrides = common | {"train.steps": steps}
        if factor is not None:
            overrides["train.optimizer.fine_tune_factor"] = factor
        return boxwright.train(recipe, data, out=folder, weights=weights, overrides=overrides)

    source = train("source", four, options.source_steps).checkpoint
    before = measure(source, kept)
    at_start = measure(start_with(recipe, source, six, {"image_size": size}), six)
    result = {"recipe": recipe, "seed": seed, "before": before, "at start": {name: at_start[name] for name in before}}
    print(json.dumps(result), flush=True)
    for factor in options.factors:
        name = f"x {factor:g}"
        tuned = train(name, six, options.steps, weights=source, factor=factor)
        result[name] = tuned.best
        print(f"{recipe}, seed {seed}, {name}: {tuned.best:.3f}", flush=True)
    result["from scratch"] = train("scratch", six, options.steps).best
    print(json.dumps(result), flush=True)
    return result


def summarize(results: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Make a line of a table: medians over the seeds, and ranges."""
    cells = []
    for column in columns:
        values = [each[column] for each in results]
        values = [statistics.mean(x.values()) if isinstance(x, dict) else x for x in values]
        cells.append(f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    return " | ".join(["", str(results[0]["recipe"]), *cells, ""]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=["rtdetr_tiny"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=1000, help="drawn for four classes; a third has no others")
    parser.add_argument("--source-steps", type=int, default=300, help="of the detector of four classes")
    parser.add_argument("--steps", type=int, default=60, help="of each run that follows")
    parser.add_argument("--factors", nargs="+", type=float, default=[1.0, 0.3, 0.1])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="options of the recipe")
    parser.add_argument("--out", default="runs/fine_tuning")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for recipe in options.recipe:
        results = [run_seed(options, recipe, seed) for seed in options.seeds]
        columns = [name for name in results[0] if name not in ("recipe", "seed")]
        print(" | ".join(["", "recipe", *columns, ""]).strip())
        print(summarize(results, columns), flush=True)


if __name__ == "__main__":
    main()
