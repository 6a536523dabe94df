"""Weights for the backbone of a detector: of another run of ours, or of a model of another project."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boxwright.checkpoints import passport_of, read_checkpoint, weights_of
from boxwright.compose.options import Naming, construct, options_of, parse_options
from boxwright.compose.parts import find_part
from boxwright.compose.position_tables import find_resized_tables
from boxwright.contracts import RepeatedBackbone, ResidualBackbone
from boxwright.data.format_report import COLOR_OPTIONS
from boxwright.detector import Detector
from boxwright.layers.conv import FrozenBatchNorm2d
from boxwright.passport import Passport
from boxwright.version import __version__
from boxwright.weights.location import OwnCheckpoint, open_source
from boxwright.weights.model import convert_files
from boxwright.weights.projects.networks import fit_names
from boxwright.weights.recognize import assumptions_in_errors, errors_in_one_line, recognize
from boxwright.weights.source import BackboneSource, SourceFiles
from boxwright.weights.table import COUNTER
from boxwright_runtime.input_format import InputFormat

PREFIX = "backbone."

NORM_EPS_OPTION = "norm_eps"
"""Option of backbones of the ResNet family; others have the epsilons of their networks."""


class SourceBackbone(NamedTuple):
    """A backbone, read.

    ``source`` is it as the user named it; ``name`` and ``options`` are those of the part; ``tensors`` have its names.
    ``input_format`` is that of its images. ``notes`` are what its files do not say and was assumed, and ``unused``
    their tensors that no backbone here has, with the reason. ``passport`` is of the model that it is of.
    """

    source: str
    name: str
    tensors: Mapping[str, Tensor]
    input_format: InputFormat
    options: Mapping[str, Any] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    unused: Mapping[str, str] = MappingProxyType({})
    passport: Passport = Passport(version="unknown")


NO_NAMESAKE = "no tensor has this name here"
BEHIND_A_GAP = "it follows a tensor of its block that does not fit"
"""Reasons for which a tensor is skipped, but for another shape."""


class Transfer(NamedTuple):
    """Names of tensors: loaded, skipped with the reason, see ``explain_skipped``, and new, not in the source.

    Of those loaded, ``interpolated`` are tables of positions of another size.
    """

    source: str
    loaded: tuple[str, ...]
    skipped: Mapping[str, str]
    new: tuple[str, ...]
    interpolated: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return self._asdict()


def load_backbone_from(detector: Detector, source: str | Path) -> Transfer:
    """Load the tensors that fit of a backbone, whatever its task, strides and dilations were.

    Tensors fit by name and shape, or where the module that they are of knows how to make them fit: tables of positions
    are interpolated. A layer that lacks some of its tensors keeps its initial weights, and so do those that follow it
    in a residual block: statistics and weights that were learned behind another layer mean nothing there. A backbone
    made of several ResNets loads those of one into each. The moving average is read where there is one.

    Args:
        detector: its backbone is changed in place.
        source: as of ``open_source``: a run or checkpoint of ours, or a detector or backbone of another project.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no weights that are known, nothing in it fits, or it lacks weights that are frozen here.
    """
    return load_backbone_weights(detector, read_backbone_weights(source))


def read_backbone_weights(source: str | Path) -> SourceBackbone:
    """Read the backbone of a source onto the CPU; arguments and errors as of ``load_backbone_from``."""
    opened = open_source(source)
    if isinstance(opened, OwnCheckpoint):
        return _read_own(opened)
    name, kind = recognize(opened)
    return _read_backbone(opened, kind, name) if isinstance(kind, BackboneSource) else _read_detector(opened)


def preprocessing_overrides(source: SourceBackbone) -> dict[str, Any]:
    """List the options of a recipe that the weights of a backbone depend on, by dotted key: mean, std, channel order.

    A recipe takes them before what the user overrides; with other values, the weights mean little.
    """
    return {f"input.{name}": getattr(source.input_format, name) for name in COLOR_OPTIONS}


def norm_overrides(source: SourceBackbone, target: str) -> dict[str, Any]:
    """List the option of a backbone that is added to the variances of its norms, by dotted key, as of the source.

    Args:
        source: of the weights.
        target: name of the part that they are for; nothing is listed where it has no such option, or the source has
            no one epsilon.
    """
    eps = source_norm_eps(source)
    has_option = NORM_EPS_OPTION in options_of(find_part("backbones", target))
    return {f"backbone.{NORM_EPS_OPTION}": eps} if has_option and eps is not None else {}


def source_norm_eps(source: SourceBackbone) -> float | None:
    """Find the epsilon of the source's batch norms; None where they have several, or it is no part that is known."""
    naming = Naming(owner=f"backbone '{source.name}'", address="backbone", source=source.source)
    try:
        part = find_part("backbones", source.name)
        with torch.device("meta"):
            epsilons = norm_epsilons(construct(part, naming, parse_options(part, source.options, naming)))
    except ValueError:  # of a run whose parts are not there
        return None
    return epsilons.pop() if len(epsilons) == 1 else None


def norm_epsilons(module: nn.Module) -> set[float]:
    """List what batch norms add to variances."""
    return {one.eps for one in module.modules() if isinstance(one, nn.BatchNorm2d | FrozenBatchNorm2d)}


def _read_own(own: OwnCheckpoint) -> SourceBackbone:
    content = read_checkpoint(own.path)
    recipe, source = content["recipe"], own.origin.source
    # The rest of the recipe may name parts that are not there, and are not needed.
    naming = Naming(owner="'input'", address="input", source=source)
    input_format = construct(InputFormat, naming, parse_options(InputFormat, recipe["input"], naming))
    options = {name: value for name, value in recipe["backbone"].items() if name != "name"}
    passport = passport_of(content) or Passport(version="unknown")
    return SourceBackbone(
        source,
        recipe["backbone"]["name"],
        _tensors_of_backbone(weights_of(content)),
        input_format,
        options,
        passport=replace(passport, origin=passport.origin or own.origin),
    )


def _read_detector(files: SourceFiles) -> SourceBackbone:
    model = convert_files(files)
    backbone = model.recipe.backbone
    return SourceBackbone(
        files.origin.source,
        backbone.name,
        _tensors_of_backbone(model.tensors),
        model.recipe.input,
        backbone.options,
        tuple(model.notes),
        passport=model.passport,
    )


def _read_backbone(files: SourceFiles, kind: BackboneSource, name: str) -> SourceBackbone:
    with errors_in_one_line(files, kind):
        model = kind.describe_backbone(files)
        options = {name: value for name, value in model.part.items() if name != "name"}
        part = find_part("backbones", model.part["name"])
        naming = Naming(owner=f"backbone '{model.part['name']}'", address="backbone", source=files.origin.source)
        with assumptions_in_errors(model.assumptions):
            with torch.device("meta"):
                expected = construct(part, naming, parse_options(part, options, naming)).state_dict()
            converted = model.table.read(files.tensors, expected)
    tensors = {name: tensor for name, tensor in converted.tensors.items() if not name.endswith(COUNTER)}
    return SourceBackbone(
        files.origin.source,
        model.part["name"],
        tensors,
        InputFormat(mean=model.mean, std=model.std),
        options,
        (*files.notes, *model.assumptions),
        converted.skipped,
        Passport(version=__version__, origin=replace(files.origin, kind=name)),
    )


def _tensors_of_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(PREFIX) and not name.endswith(COUNTER)
    }


def load_backbone_weights(detector: Detector, source: SourceBackbone) -> Transfer:
    """Load the weights that ``read_backbone_weights`` read; the second half of ``load_backbone_from``."""
    backbone = detector.backbone
    source = source._replace(tensors=fit_names(backbone, source.name, source.options, source.tensors, source.source))
    expected = [name for name in backbone.state_dict() if not name.endswith(COUNTER)]
    resized = find_resized_tables(backbone, source.tensors)
    if isinstance(backbone, RepeatedBackbone) and not set(source.tensors) & set(expected):
        of_copies = {path: load_matching(copy, source.tensors) for path, copy in backbone.copies()}
        loaded = [f"{path}.{name}" for path, names in of_copies.items() for name in names]
        left = [name for name in source.tensors if not any(name in names for names in of_copies.values())]
        here = {name: tensor for _, copy in backbone.copies() for name, tensor in copy.state_dict().items()}
    else:
        loaded = load_matching(backbone, source.tensors)
        left = [name for name in source.tensors if name not in loaded]
        here = backbone.state_dict()
    if not loaded:
        raise ValueError(
            f"{source.source}: nothing of its backbone ({source.name}) fits this one; take a run of a like backbone"
        )
    resized = [name for name in resized if name in loaded]
    new = [name for name in expected if name not in set(loaded)]
    frozen = [name for name, weight in backbone.named_parameters() if not weight.requires_grad and name in new]
    if frozen:
        raise ValueError(
            f"{source.source}: {len(frozen)} tensors that the recipe freezes are not in it, and would stay random, "
            f"like {frozen[0]}; take a run of a like backbone, or train all with --backbone.frozen_stages 0"
        )
    skipped = explain_skipped(left, source.tensors, here)
    return Transfer(source.source, tuple(loaded), skipped, tuple(new), tuple(resized))


def explain_skipped(names: Iterable[str], source: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> dict[str, str]:
    """Give the reason for which each of these tensors was not loaded.

    Args:
        names: of the tensors.
        source: the source's.
        here: those that they would be loaded into.
    """
    reasons = {}
    for name in names:
        if name not in here:
            reasons[name] = NO_NAMESAKE
        elif source[name].shape != here[name].shape:
            reasons[name] = f"{list(source[name].shape)} there and {list(here[name].shape)} here"
        else:
            reasons[name] = BEHIND_A_GAP
    return reasons


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
