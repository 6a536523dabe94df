"""Modules of the authors' repositories, imported from a clone, without their configuration and process groups."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from formula import uniform
from torch import Tensor, nn

from boxwright.detector import Detector
from boxwright.queries import HungarianMatcher, normalize_targets
from boxwright.structures import Targets
from conformance import compare_equal, compare_gradients, compare_terms, note_inputs

PACKAGES = ("src", "src.nn", "src.nn.backbone", "src.zoo")


def import_authors(root: Path, family: str, names: Sequence[str]) -> list[ModuleType]:
    """Import modules of the package ``src`` of RT-DETR and of what follows it, without their ``__init__`` files.

    Args:
        root: folder that has ``src``.
        family: the folder of its heads in ``src/zoo``.
        names: of the modules, below ``src``.
    """
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "src"}
    try:
        for name in (*PACKAGES, f"src.zoo.{family}"):
            package = ModuleType(name)
            package.__path__ = [str(root / name.replace(".", "/"))]
            sys.modules[name] = package
        # The registry and the process group have no part in the mathematics.
        core, groups = ModuleType("src.core"), ModuleType("src.misc.dist")
        core.register = _register  # type: ignore[attr-defined]
        groups.get_world_size = lambda: 1  # type: ignore[attr-defined]
        groups.is_dist_available_and_initialized = lambda: False  # type: ignore[attr-defined]
        sys.modules |= {"src.core": core, "src.misc": ModuleType("src.misc")}
        sys.modules |= {"src.misc.dist": groups, "src.misc.dist_utils": groups}
        return [import_module(f"src.{name}") for name in names]
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:
            del sys.modules[name]
        sys.modules.update(before)


def _register(*arguments: Any, **_: Any) -> Any:
    return arguments[0] if arguments and isinstance(arguments[0], type) else _register


def make_labels(targets: Sequence[Targets]) -> list[dict[str, Tensor]]:
    """Make the authors' form of objects."""
    return [{"labels": t.labels, "boxes": t.boxes_cxcywh_norm} for t in normalize_targets(list(targets))]


def freeze_statistics(module: nn.Module) -> None:
    """Put a module into training mode, but its norms into evaluation: the few cells of a small map make poor ones."""
    module.train()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()


def order_positions(encoder: Any) -> None:
    """Lay out positions row by row, as tokens are; theirs are laid out column by column, which squares do not show."""
    build = encoder.build_2d_sincos_position_embedding
    encoder.build_2d_sincos_position_embedding = lambda w, h, *options: build(h, w, *options)


@torch.no_grad()
def name_gradients(detector: Detector, source: Any) -> dict[str, Tensor]:
    """Bring gradients under the authors' names, as weights are written in them.

    Args:
        detector: whose parameters have gradients, or none where nothing trains them.
        source: kind of files that the detector is written as.
    """
    shown = deepcopy(detector)
    for copied, parameter in zip(shown.parameters(), detector.parameters(), strict=True):
        copied.copy_(torch.zeros_like(copied) if parameter.grad is None else parameter.grad)
    return dict(source.write(shown).tensors)


def make_objects(counts: list[int], size: tuple[int, int]) -> list[Targets]:
    """Make objects, the first of each image at its border, and the last two equal where there are several."""
    height, width = size
    targets = []
    for i, count in enumerate(counts):
        corner = (uniform(f"live corners of {i}", count, 2) + 1) * 0.3
        sides = (uniform(f"live sides of {i}", count, 2) + 1) * 0.2 + 0.05
        corner[:1] = 0
        boxes = torch.cat((corner, corner + sides), 1) * torch.tensor([width, height] * 2)
        labels = ((uniform(f"live labels of {i}", count) + 1) * 2.5).long()
        targets.append(Targets(labels, boxes, size))
    return targets


def compare_training(
    ours: tuple[Detector, Any],
    theirs: nn.Module,
    criterion: nn.Module,
    inputs: tuple[Tensor, list[Targets]],
    our_name: Callable[[str], str | None],
    *,
    gradients: float = 1e-5,
) -> None:
    """Compare terms, gradients and the last layer's assignments of one pass, with noised queries of the same seed.

    Args:
        ours: a detector in evaluation mode, and the kind of files that it is written as.
        theirs: with the same weights.
        criterion: their losses, with their ``matcher``.
        inputs: images and objects.
        our_name: our name of one of their terms; None where ours has none.
        gradients: largest relative difference of each gradient.
    """
    (detector, source), (images, targets) = ours, inputs
    note_inputs(images, targets=targets)
    torch.manual_seed(5)
    output = detector(images, None, targets)
    losses = detector.loss(output, targets)
    freeze_statistics(theirs)
    labels = make_labels(targets)
    torch.manual_seed(5)
    their_output = theirs(images, labels)
    expected = criterion(their_output, labels)
    compare_terms(losses, {ours: x for name, x in expected.items() if (ours := our_name(name))}, limit=1e-6)
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    grads = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    named = name_gradients(detector, source)
    compare_gradients({name: named[name] for name in grads}, grads, limit=gradients, floor=1e-4)
    matches = HungarianMatcher()(output.logits, output.boxes_cxcywh_norm, normalize_targets(targets))
    first = 0
    for image, (queries, objects) in enumerate(_match(criterion.matcher, their_output, labels)):
        here = (matches.layer == len(output.logits) - 1) & (matches.image == image)
        compare_equal("assignment", matches.query[here], queries)
        compare_equal("assignment", matches.object[here] - first, objects)
        first += len(targets[image].labels)


def _match(matcher: Any, output: Any, labels: Any) -> Any:
    """RT-DETR's matcher returns pairs, D-FINE's a dictionary with them."""
    matched = matcher(output, labels)
    return matched["indices"] if isinstance(matched, dict) else matched
