"""Weights of a whole detector for another one: what fits, and of class layers the rows of shared classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from boxwright.compose.position_tables import find_resized_tables
from boxwright.detector import Detector
from boxwright.weights.backbone import PREFIX, explain_skipped, load_matching
from boxwright.weights.classes import class_tensors, copy_class_rows, match_classes
from boxwright.weights.model import ModelWeights
from boxwright.weights.table import COUNTER


class DetectorTransfer(NamedTuple):
    """Tensors of a detector and of the one that it begins with.

    ``loaded`` are whole tensors; of ``class_layers`` the rows of ``kept_classes`` were loaded, and those that are of no
    class; ``skipped`` are those of the source that were not, with the reason, and ``new`` those here that nothing fits.
    The classes that are not kept are ``new_classes``: their rows are as initialized. ``interpolated`` are tables of
    positions of another size, among those loaded.
    """

    source: str
    loaded: tuple[str, ...]
    class_layers: tuple[str, ...]
    skipped: Mapping[str, str]
    new: tuple[str, ...]
    kept_classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    interpolated: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return self._asdict()


def load_detector_weights(detector: Detector, source: ModelWeights) -> DetectorTransfer:
    """Begin with the weights of another detector, as far as they fit.

    Tensors fit by name and shape; those of the backbone also where the module that they are of makes them fit. Layers
    with rows for each class take the rows of classes that have the same name in both; the others stay as initialized,
    at the probability that training from scratch begins with.

    Args:
        detector: changed in place; fresh.
        source: read by ``read_model``.

    Raises:
        ValueError: nothing fits.
    """
    rows = class_tensors(detector)
    pairs = match_classes(detector.categories, source.categories)
    backbone = {name.removeprefix(PREFIX): x for name, x in source.tensors.items() if name.startswith(PREFIX)}
    resized = [PREFIX + name for name in find_resized_tables(detector.backbone, backbone)]
    loaded = {PREFIX + name for name in load_matching(detector.backbone, backbone)}
    layers: list[str] = []
    changed: dict[str, Tensor] = {}
    own = detector.state_dict()
    counts = len(detector.categories), len(source.categories)
    for name, tensor in source.tensors.items():
        if name not in own or name.startswith(PREFIX):
            continue
        if name in rows:
            mixed = copy_class_rows(own[name], tensor, rows[name], pairs, counts)
            if mixed is not None:
                changed[name] = mixed
                layers.append(name)
        elif tensor.shape == own[name].shape:
            changed[name] = tensor
            loaded.add(name)
    with torch.no_grad():
        for name, tensor in changed.items():
            own[name].copy_(tensor)
    transfer = _report(detector, source, loaded, layers, {here for here, _ in pairs})
    return transfer._replace(interpolated=tuple(name for name in resized if name in loaded))


def _report(
    detector: Detector, source: ModelWeights, loaded: set[str], layers: list[str], kept: set[int]
) -> DetectorTransfer:
    if not loaded:
        raise ValueError(
            f"{source.origin.source}: nothing of it fits this recipe; take a recipe with the same parts: "
            f"{_parts(source)}"
        )
    known, own = loaded | set(layers), _without_counters(detector.state_dict())
    names = [category.name for category in detector.categories]
    return DetectorTransfer(
        source=source.origin.source,
        loaded=tuple(name for name in own if name in loaded),
        class_layers=tuple(layers),
        skipped=explain_skipped(
            (name for name in _without_counters(source.tensors) if name not in known),
            source.tensors,
            detector.state_dict(),
        ),
        new=tuple(name for name in own if name not in known),
        kept_classes=tuple(name for label, name in enumerate(names) if label in kept),
        new_classes=tuple(name for label, name in enumerate(names) if label not in kept),
    )


def _parts(source: ModelWeights) -> str:
    return ", ".join(f"{address} {part.name}" for address, part in source.recipe.parts().items())


def _without_counters(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name in tensors if not name.endswith(COUNTER)]
