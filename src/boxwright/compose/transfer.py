"""Weights of one run for the backbone of another detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from boxwright.compose.detectors import checkpoint_path, read_checkpoint
from boxwright.detector import Detector

PREFIX = "backbone."

COUNTER = "num_batches_tracked"
"""Of batch norms, and nothing that a prediction depends on: frozen norms have none."""


class Transfer(NamedTuple):
    """Tensors of a backbone by name: taken over, left where they were for want of a place, and still fresh."""

    source: Path
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]


def load_backbone(detector: Detector, path: str | Path) -> Transfer:
    """Take over what fits of the backbone in a run, whatever its task, strides and dilations were.

    Tensors fit by name and shape, or where the module that they are of knows how to make them fit: tables of positions
    are interpolated. The moving average is taken where there is one.

    Args:
        detector: its backbone is changed in place.
        path: a checkpoint, or the folder of a run: its ``best.pt``, or else its ``last.pt``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of Boxwright, or nothing in it fits.
    """
    path = checkpoint_path(path)
    checkpoint = read_checkpoint(path)
    weights = checkpoint.get("ema") or checkpoint["model"]
    given = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items() if name.startswith(PREFIX)}
    transfer = _transfer(detector.backbone, given, path)
    if not transfer.loaded:
        raise ValueError(
            f"{path}: nothing of its backbone ({checkpoint['recipe']['backbone']['name']}) fits this one; "
            "give a run of a like backbone"
        )
    return transfer


def _transfer(backbone: nn.Module, given: Mapping[str, Tensor], path: Path) -> Transfer:
    expected = backbone.state_dict()
    loaded: list[str] = []
    skipped: list[str] = []
    for name, tensor in given.items():
        if name.endswith(COUNTER):
            continue
        fits = name in expected and _loads(backbone, name, tensor)
        (loaded if fits else skipped).append(name)
    new = [name for name in expected if name not in loaded and not name.endswith(COUNTER)]
    return Transfer(path, tuple(loaded), tuple(skipped), tuple(new))


def _loads(backbone: nn.Module, name: str, tensor: Tensor) -> bool:
    """Whether the module that has a tensor of this name takes this one, which it then has."""
    place, _, leaf = name.rpartition(".")
    try:
        backbone.get_submodule(place).load_state_dict({leaf: tensor}, strict=False)
    except RuntimeError:  # torch's word for another shape
        return False
    return True
