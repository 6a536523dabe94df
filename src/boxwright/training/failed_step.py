"""The file of a step whose numbers were not finite: all that repeats it. Reading it executes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from boxwright.checkpoints import write_checkpoint
from boxwright.structures import Batch, Category, ImageSize, LossTotals, Targets
from boxwright.tensor_files import read_tensor_file

FAILED_STEP = "failed_step.pt"
"""The file in the folder of a run: the last step that failed, and no other."""

_FORMAT = "boxwright step"

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FailedStep:
    """A step as it was before it failed.

    Args:
        step: steps of the run that were done before it.
        noise_seed: that torch was seeded with.
        batch: images of the process that failed, on the CPU.
        totals: of the whole step; None where the head counts for itself.
        weights: of the detector, statistics of norms too.
        recipe: resolved, as plain values.
        categories: label i means ``categories[i]``.
        device: that computed it, ``cpu`` or ``cuda``.
        threads: of that process.
        failure: what was not finite, in one line.
    """

    step: int
    noise_seed: int
    batch: Batch
    totals: LossTotals | None
    weights: Mapping[str, Tensor]
    recipe: Mapping[str, Any]
    categories: Sequence[Category]
    device: str
    threads: int
    failure: str


def write_failed_step(path: Path, failed: FailedStep) -> None:
    """Write the file; one that stood there stays whole until it is complete."""
    batch = failed.batch
    targets = [
        {
            "labels": t.labels,
            "boxes": t.boxes,
            "size": list(t.size),
            "masks": t.masks,
            "seed": t.seed,
            "most_objects": t.most_objects,
        }
        for t in batch.targets
    ]
    write_checkpoint(
        path,
        {
            **vars(failed),
            "format": _FORMAT,
            "version": _VERSION,
            "categories": [(category.id, category.name) for category in failed.categories],
            "totals": None if failed.totals is None else list(failed.totals),
            "weights": dict(failed.weights),
            "batch": {
                # Copies: of a part of a larger tensor, torch writes all.
                "images": batch.images.clone(),
                "padding_mask": None if batch.padding_mask is None else batch.padding_mask.clone(),
                "targets": targets,
                "sizes": [list(size) for size in batch.sizes],
                "image_ids": list(batch.image_ids),
            },
        },
    )


def read_failed_step(path: Path) -> FailedStep:
    """Read the file onto the CPU.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another file, or a damaged one.
    """
    content = read_tensor_file(path).content
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path}: no step that failed; training leaves one in its folder, as RUN/{FAILED_STEP}")
    if content.get("version") != _VERSION:
        raise ValueError(f"{path}: of another release, which can replay it")
    try:
        return _parse(content)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"{path}: damaged: {' '.join(str(error).split())}") from error


def _parse(content: Mapping[str, Any]) -> FailedStep:
    stored, totals = content["batch"], content["totals"]
    targets = [
        Targets(_tensor(t["labels"]), _tensor(t["boxes"]), tuple(t["size"]), t["masks"], t["seed"], t["most_objects"])
        for t in stored["targets"]
    ]
    sizes = [ImageSize(*map(int, size)) for size in stored["sizes"]]
    images, ids = _tensor(stored["images"]), [int(number) for number in stored["image_ids"]]
    if not len(images) == len(targets) == len(sizes) == len(ids):
        raise ValueError(f"{len(images)} images have {len(targets)} targets, {len(sizes)} sizes and {len(ids)} ids")
    return FailedStep(
        step=int(content["step"]),
        noise_seed=int(content["noise_seed"]),
        batch=Batch(images, stored["padding_mask"], targets, sizes, ids),
        totals=None if totals is None else LossTotals(*totals),
        weights={str(name): _tensor(tensor) for name, tensor in content["weights"].items()},
        recipe=dict(content["recipe"]),
        categories=[Category(int(number), str(name)) for number, name in content["categories"]],
        device=str(content["device"]),
        threads=int(content["threads"]),
        failure=str(content["failure"]),
    )


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"a tensor is expected, not {type(value).__name__}")
    return value
