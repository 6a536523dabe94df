"""Weights of one run for the backbone of another detector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boxwright.checkpoints import find_checkpoint, read_checkpoint, weights_of
from boxwright.compose.options import Naming, construct, parse_options
from boxwright.data.input_format import InputFormat
from boxwright.detector import Detector

PREFIX = "backbone."

COUNTER = "num_batches_tracked"
"""Of batch norms, and nothing that a prediction depends on: frozen norms have none."""

SHORTCUTS = ("downsample", "shortcut")
"""What the shortcuts of residual blocks are called, in timm's backbones too."""


class SourceBackbone(NamedTuple):
    """The backbone of a run: the checkpoint, the name of the part, its tensors, and how its images were made."""

    source: Path
    name: str
    tensors: Mapping[str, Tensor]
    input_format: InputFormat


class Transfer(NamedTuple):
    """Names of tensors: taken over, left for want of a place for them, and those of the new backbone that are fresh."""

    source: Path
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON knows it."""
        return {**self._asdict(), "source": str(self.source)}


def load_backbone_from(detector: Detector, path: str | Path) -> Transfer:
    """Take over what fits of the backbone in a run, whatever its task, strides and dilations were.

    Tensors fit by name and shape, or where the module that they are of knows how to make them fit: tables of positions
    are interpolated. A layer that lacks some of its own takes none, and neither do those that follow it in a residual
    block: statistics and weights that were learned behind another layer mean nothing there. A backbone made of several
    ResNets takes those of one in each. The moving average is taken where there is one.

    Args:
        detector: its backbone is changed in place.
        path: a checkpoint, or the folder of a run: its ``best.pt``, or else its ``last.pt``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of Boxwright, nothing in it fits, or it lacks weights that are frozen here.
    """
    return load_backbone_weights(detector, read_backbone_weights(path))


def read_backbone_weights(path: str | Path) -> SourceBackbone:
    """The backbone of a run, on the CPU; arguments and errors as of ``load_backbone_from``."""
    path = find_checkpoint(path)
    content = read_checkpoint(path)
    tensors = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in weights_of(content).items()
        if name.startswith(PREFIX) and not name.endswith(COUNTER)
    }
    recipe = content["recipe"]
    # The rest of the recipe may name parts that are not there, and are not needed.
    naming = Naming(owner="'input'", address="input", source=str(path))
    input_format = construct(InputFormat, naming, parse_options(InputFormat, recipe["input"], naming))
    return SourceBackbone(path, recipe["backbone"]["name"], tensors, input_format)


def load_backbone_weights(detector: Detector, given: SourceBackbone) -> Transfer:
    """The second half of ``load_backbone_from``."""
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
    frozen = [name for name, weight in backbone.named_parameters() if not weight.requires_grad and name in new]
    if frozen:
        raise ValueError(
            f"{given.source}: {len(frozen)} tensors that the recipe freezes are not in it, and would stay random, like "
            f"{frozen[0]}; give a run of a like backbone, or train all with --backbone.frozen_stages 0"
        )
    return Transfer(given.source, tuple(loaded), tuple(skipped), tuple(new))


def _taken(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load what fits; returns its names."""
    expected = backbone.state_dict()
    before = {name: tensor.clone() for name, tensor in expected.items()}
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
    meaningless = _behind_gaps(backbone, set(tensors), set(taken))
    with torch.no_grad():
        for name, tensor in expected.items():
            if name.startswith(meaningless):
                tensor.copy_(before[name])
    return [name for name in taken if not name.startswith(meaningless)]


def _behind_gaps(backbone: nn.Module, given: set[str], taken: set[str]) -> tuple[str, ...]:
    """Beginnings of the names of layers that lack something in their residual block, and of those that follow them."""
    found = []
    for place, block in backbone.named_modules():
        if not any(hasattr(block, name) for name in SHORTCUTS):
            continue
        gap = False
        for child, layer in block.named_children():
            start = f"{place}.{child}."
            if child in SHORTCUTS or not layer.state_dict():
                continue
            own = {name for name in given | taken if name.startswith(start)}
            gap = gap or not own & taken or bool(own - taken)
            if gap:
                found.append(start)
    return tuple(found)


def _loads(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a module takes its own tensors of these names, which it then has."""
    try:
        module.load_state_dict({name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}, strict=False)
    except RuntimeError:  # torch's word for another shape
        return False
    return True
