"""The format of checkpoints: write, read, check. Nothing that a file brings is executed.

A checkpoint is a mapping in torch's own file format: ``format`` and ``version``; ``recipe``, resolved, as plain values;
``categories``, the (id, name) of each label; ``model``, the weights by name; perhaps ``ema``, their moving average; and
what training needs to go on. Those of earlier versions are brought to the present names when they are read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxwright import legacy
from boxwright.structures import Category

FORMAT = "boxwright"

BEST, LAST = "best.pt", "last.pt"
"""The checkpoints in the folder of a run."""


def pack_checkpoint(
    recipe: Mapping[str, Any], categories: Sequence[Category], weights: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Put together what every checkpoint holds; training adds keys of its own.

    Args:
        recipe: resolved, as plain values.
        categories: label i means ``categories[i]``.
        weights: the detector's state.
    """
    return {
        "format": FORMAT,
        "version": legacy.VERSION,
        "recipe": dict(recipe),
        "categories": [(category.id, category.name) for category in categories],
        "model": weights,
    }


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; an earlier file stays whole until the new one is complete on disk."""
    unfinished = path.with_suffix(".unfinished")
    with open(unfinished, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with today's names.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of Boxwright, or a damaged one.
    """
    content = _load(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: holds weights, but not of Boxwright; a checkpoint comes from `boxwright train`")
    if content.get("version") not in range(1, legacy.VERSION + 1):
        raise ValueError(
            f"{path}: has checkpoint format {content.get('version')}, this release reads 1 to {legacy.VERSION}; use "
            "the release that wrote it"
        )
    missing = [key for key in ("recipe", "categories", "model") if key not in content]
    if missing:
        raise ValueError(f"{path}: a damaged checkpoint, without {', '.join(missing)}")
    return legacy.upgrade_checkpoint(content)


def find_checkpoint(path: str | Path) -> Path:
    """Find a checkpoint's file: ``path`` itself, or the best or else the last checkpoint of a run's folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in (BEST, LAST):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path}: no checkpoint in this folder; a run has {BEST} or {LAST}")


def categories_of(content: Mapping[str, Any]) -> list[Category]:
    """Read the categories of a checkpoint's content."""
    return [Category(int(number), str(name)) for number, name in content["categories"]]


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Take the weights to predict with: the moving average, where there is one."""
    weights: Mapping[str, Tensor] = content.get("ema") or content["model"]
    return weights


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a checkpoint (.pt) or the folder of a run")
    try:
        with warnings.catch_warnings():
            # Of other files torch complains in several lines; the error below is one.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # Unpickling bytes that are no pickle raises nearly every type there is.
        raise ValueError(
            f"{path}: not a checkpoint, or a damaged one: it is not readable as plain tensors and values"
        ) from error
