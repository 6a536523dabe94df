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
from boxwright.contracts import RepeatedBackbone, ResidualBackbone
from boxwright.data.input_format import InputFormat
from boxwright.detector import Detector
from boxwright.weights.table import COUNTER

PREFIX = "backbone."


class SourceBackbone(NamedTuple):
    """The backbone of a run: the checkpoint, the name of the part, its tensors, and the format of its images."""

    path: Path
    name: str
    tensors: Mapping[str, Tensor]
    input_format: InputFormat


class Transfer(NamedTuple):
    """Names of tensors: loaded, skipped because none of that name and shape is there, and new, not in the source."""

    source: Path
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return {**self._asdict(), "source": str(self.source)}


def load_backbone_from(detector: Detector, path: str | Path) -> Transfer:
    """Load the tensors that fit of the backbone of a run, whatever its task, strides and dilations were.

    Tensors fit by name and shape, or where the module that they are of knows how to make them fit: tables of positions
    are interpolated. A layer that lacks some of its tensors keeps its initial weights, and so do those that follow it
    in a residual block: statistics and weights that were learned behind another layer mean nothing there. A backbone
    made of several ResNets loads those of one into each. The moving average is read where there is one.

    Args:
        detector: its backbone is changed in place.
        path: a checkpoint, or the folder of a run: its ``best.safetensors``, or else its ``last.pt``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of Boxwright, nothing in it fits, or it lacks weights that are frozen here.
    """
    return load_backbone_weights(detector, read_backbone_weights(path))


def read_backbone_weights(path: str | Path) -> SourceBackbone:
    """Read the backbone of a run onto the CPU; arguments and errors as of ``load_backbone_from``."""
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


def load_backbone_weights(detector: Detector, source: SourceBackbone) -> Transfer:
    """Load the weights that ``read_backbone_weights`` read; the second half of ``load_backbone_from``."""
    backbone = detector.backbone
    expected = [name for name in backbone.state_dict() if not name.endswith(COUNTER)]
    if isinstance(backbone, RepeatedBackbone) and not set(source.tensors) & set(expected):
        of_copies = {path: load_matching(copy, source.tensors) for path, copy in backbone.copies()}
        loaded = [f"{path}.{name}" for path, names in of_copies.items() for name in names]
        skipped = [name for name in source.tensors if not any(name in names for names in of_copies.values())]
    else:
        loaded = load_matching(backbone, source.tensors)
        skipped = [name for name in source.tensors if name not in loaded]
    if not loaded:
        raise ValueError(
            f"{source.path}: nothing of its backbone ({source.name}) fits this one; take a run of a like backbone"
        )
    new = [name for name in expected if name not in set(loaded)]
    frozen = [name for name, weight in backbone.named_parameters() if not weight.requires_grad and name in new]
    if frozen:
        raise ValueError(
            f"{source.path}: {len(frozen)} tensors that the recipe freezes are not in it, and would stay random, "
            f"like {frozen[0]}; take a run of a like backbone, or train all with --backbone.frozen_stages 0"
        )
    return Transfer(source.path, tuple(loaded), tuple(skipped), tuple(new))


def load_matching(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load the tensors that fit; return their names."""
    expected = backbone.state_dict()
    before = {name: tensor.clone() for name, tensor in expected.items()}
    of_module: dict[str, list[str]] = defaultdict(list)
    for name in tensors:
        if name in expected:
            of_module[name.rpartition(".")[0]].append(name)
    loaded: list[str] = []
    for path, names in of_module.items():
        module = backbone.get_submodule(path)
        # All at once, for some modules work out the others from those that there are; one by one, if some do not fit.
        if _load_module(module, {name: tensors[name] for name in names}):
            loaded += names
        else:
            loaded += [name for name in names if _load_module(module, {name: tensors[name]})]
    meaningless = _behind_gaps(backbone, set(tensors), set(loaded))
    with torch.no_grad():
        for name, tensor in expected.items():
            if name.startswith(meaningless):
                tensor.copy_(before[name])
    return [name for name in loaded if not name.startswith(meaningless)]


def _behind_gaps(backbone: nn.Module, tensors: set[str], loaded: set[str]) -> tuple[str, ...]:
    """List the prefixes of the layers that lack a tensor, in residual blocks, and of the layers that follow them."""
    if not isinstance(backbone, ResidualBackbone):
        return ()
    expected, prefixes = list(backbone.state_dict()), []
    for block in backbone.residual_blocks():
        gap = False
        for layer in block.layers:
            prefix = f"{layer}."
            if not any(name.startswith(prefix) for name in expected):
                continue
            of_layer = {name for name in tensors | loaded if name.startswith(prefix)}
            gap = gap or not of_layer & loaded or bool(of_layer - loaded)
            if gap:
                prefixes.append(prefix)
    return tuple(prefixes)


def _load_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Load tensors of these names into a module; tell whether they fitted."""
    try:
        module.load_state_dict({name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}, strict=False)
    except RuntimeError:  # torch's word for another shape
        return False
    return True
