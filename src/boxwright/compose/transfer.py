"""Weights of one run for the backbone of another detector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from boxwright.compose.detectors import checkpoint_path, read_checkpoint
from boxwright.detector import Detector

PREFIX = "backbone."

COUNTER = "num_batches_tracked"
"""Of batch norms, and nothing that a prediction depends on: frozen norms have none."""


class GivenBackbone(NamedTuple):
    """The backbone of a run: the checkpoint, the name of the part, and its tensors."""

    source: Path
    name: str
    tensors: Mapping[str, Tensor]


class Transfer(NamedTuple):
    """Names of tensors: taken over, left for want of a place for them, and those of the new backbone that are fresh."""

    source: Path
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON knows it."""
        return {**self._asdict(), "source": str(self.source)}


def load_backbone(detector: Detector, path: str | Path) -> Transfer:
    """Take over what fits of the backbone in a run, whatever its task, strides and dilations were.

    Tensors fit by name and shape, or where the module that they are of knows how to make them fit: tables of positions
    are interpolated. A backbone made of several ResNets takes those of one in each. The moving average is taken where
    there is one.

    Args:
        detector: its backbone is changed in place.
        path: a checkpoint, or the folder of a run: its ``best.pt``, or else its ``last.pt``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of Boxwright, or nothing in it fits.
    """
    return give_backbone(detector, read_backbone(path))


def read_backbone(path: str | Path) -> GivenBackbone:
    """The backbone of a run, on the CPU; arguments and errors as of ``load_backbone``."""
    path = checkpoint_path(path)
    checkpoint = read_checkpoint(path)
    weights = checkpoint.get("ema") or checkpoint["model"]
    tensors = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in weights.items()
        if name.startswith(PREFIX) and not name.endswith(COUNTER)
    }
    return GivenBackbone(path, checkpoint["recipe"]["backbone"]["name"], tensors)


def give_backbone(detector: Detector, given: GivenBackbone) -> Transfer:
    """The second half of ``load_backbone``."""
    backbone = detector.backbone
    expected = [name for name in backbone.state_dict() if not name.endswith(COUNTER)]
    bodies = getattr(backbone, "bodies", None)
    if isinstance(bodies, nn.ModuleList) and not set(given.tensors) & set(expected):
        taken = [_taken(body, given.tensors) for body in bodies]
        loaded = [f"bodies.{i}.{name}" for i, names in enumerate(taken) for name in names]
        skipped = [name for name in given.tensors if not any(name in names for names in taken)]
    else:
        loaded = _taken(backbone, given.tensors)
        skipped = [name for name in given.tensors if name not in loaded]
    if not loaded:
        raise ValueError(
            f"{given.source}: nothing of its backbone ({given.name}) fits this one; give a run of a like backbone"
        )
    new = [name for name in expected if name not in set(loaded)]
    return Transfer(given.source, tuple(loaded), tuple(skipped), tuple(new))


def _taken(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load what fits; returns its names."""
    expected = backbone.state_dict()
    of_module: dict[str, list[str]] = defaultdict(list)
    for name in tensors:
        if name in expected:
            of_module[name.rpartition(".")[0]].append(name)
    taken: list[str] = []
    for place, names in of_module.items():
        module = backbone.get_submodule(place)
        # All at once, for some modules work out from the others what is not given; one by one, if some do not fit.
        if _loads(module, {name: tensors[name] for name in names}):
            taken += names
        else:
            taken += [name for name in names if _loads(module, {name: tensors[name]})]
    return taken


def _loads(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a module takes its own tensors of these names, which it then has."""
    try:
        module.load_state_dict({name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}, strict=False)
    except RuntimeError:  # torch's word for another shape
        return False
    return True
