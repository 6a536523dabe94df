"""Contracts of every part of every folder.

A new part is tested by these contracts as soon as its file is there. ``REDUCED`` only makes the tests fast: a part
that is not in it is built with its defaults.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any, get_type_hints

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.compose.options import Naming, argument_help, is_group, parse_options
from boxwright.compose.parts import Folder, find_part
from boxwright.detector import Detector
from boxwright.layers.deformable_attention import MultiScaleDeformableAttention
from boxwright.queries import DenoisingOptions, TransformerDecoderOptions
from boxwright.regions.options import BoxOptions, DetectionOptions, MaskOptions, RoIOptions, RPNOptions
from boxwright.structures import Category, Features, Level, Spec, levels_for_head, main_levels
from boxwright_runtime.input_format import InputFormat

MAX_PARAMETERS = 12

ONE_OF_EACH_FAMILY = ("rtdetr", "faster_rcnn", "retinanet", "classifier")
"""Heads that stand for their family in tests that take long; with the others they are slow tests."""

TWO_STAGES: dict[str, Any] = {
    "channels": 16,
    "rpn": RPNOptions(pre_nms_top_k=(50, 50), post_nms_top_k=(20, 20)),
    "roi": RoIOptions(num_samples=32),
    "boxes": BoxOptions(hidden_dim=16),
    "detection": DetectionOptions(score_threshold=0.0, max_detections=20),
}

DECODER = {"num_heads": 2, "feedforward_dim": 16, "num_layers": 2}

REDUCED: dict[str, dict[str, Any]] = {
    "resnet_vd": {"depth": 18, "width": 8},
    "resnet": {"depth": 18, "width": 8},
    "botnet": {"width": 8, "image_size": 64},
    "non_local": {"depth": 18, "width": 8},
    "hybrid_encoder": {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 16, "num_blocks": 1},
    "lite_encoder": {"hidden_dim": 16, "num_blocks": 1},
    "detr_encoder": {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 16, "num_layers": 2, "dropout": 0.0},
    "deformable_encoder": {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 16, "num_layers": 2, "dropout": 0.0},
    "rfp": {"depth": 18, "width": 8, "out_channels": 16},
    "timm": {"model": "test_efficientnet"},
    "vit": {"model": "test_vit", "blocks": (1, 2)},
    "vit_sta": {"model": "test_vit", "blocks": (0, 1, 2), "stem_channels": 4, "out_channels": 12},
    "fpn": {"out_channels": 16},
    "pafpn": {"out_channels": 16},
    "augfpn": {"out_channels": 16},
    "bifpn": {"out_channels": 16, "repeats": 1},
    "nas_fpn": {"out_channels": 16, "repeats": 1},
    "simple_pyramid": {"out_channels": 16},
    "averaged_pyramid": {"out_channels": 16},
    "multi_scale_projector": {"out_channels": 16, "num_blocks": 1},
    # A fresh head is sure of nothing, and a threshold would leave no detections to look at.
    "retinanet": {"channels": 16, "num_convs": 1, "detection.score_threshold": 0.0},
    "fcos": {"channels": 16, "num_convs": 1, "detection.score_threshold": 0.0},
    "atss": {"channels": 16, "num_convs": 1, "detection.score_threshold": 0.0},
    "efficientdet": {"channels": 16, "num_convs": 1},
    "faster_rcnn": TWO_STAGES,
    "cascade_rcnn": TWO_STAGES,
    "mask_rcnn": {**TWO_STAGES, "mask": MaskOptions(hidden_dim=8)},
    "detr": {
        "hidden_dim": 16,
        "num_queries": 10,
        "decoder": TransformerDecoderOptions(num_heads=2, feedforward_dim=16, num_layers=2, dropout=0.0),
    },
    "deformable_detr": {"hidden_dim": 16, "num_queries": 10, "decoder": DECODER},
    "rtdetr": {
        "hidden_dim": 16,
        "num_queries": 20,
        "decoder": DECODER,
        "denoising": DenoisingOptions(num_queries=6),
    },
    "dino": {
        "hidden_dim": 16,
        "num_queries": 20,
        "decoder": DECODER,
        "denoising": DenoisingOptions(num_queries=6),
    },
    "lwdetr": {
        "hidden_dim": 16,
        "num_queries": 20,
        "decoder": DECODER,
        "supervision.num_groups": 3,
    },
    "dfine": {
        "hidden_dim": 16,
        "num_queries": 20,
        "decoder": DECODER,
        "denoising": DenoisingOptions(num_queries=6),
    },
}

# No two widths alike, so that a mix-up is an error.
SPEC: Spec = {"c3": Level(12, 8), "c4": Level(20, 16), "c5": Level(28, 32)}


def build(folder: Folder, name: str, *wiring: object, seed: int = 0, **options: object) -> Any:
    """Build a part with small options, those of groups by dotted name; ``part+option`` sets an option to true."""
    torch.manual_seed(seed)
    name, *switches = name.split("+")
    options |= dict.fromkeys(switches, True)
    part = find_part(folder, name)
    naming = Naming(owner=name, address=folder[:-1])
    return part(*wiring, **parse_options(part, REDUCED.get(name, {}) | options, naming))


SIZE = (75, 133)
"""(height, width) of padded inputs: not square, and no multiple of a stride; no level is four cells wide."""

VALID = ((75, 88), (45, 133), (49, 75))
"""(height, width) of the images inside: every one has padding somewhere."""


def padding(batch: int = 2) -> Bool[Tensor, "b h w"]:
    """Make the mask of images of these sizes, True on padding."""
    mask = torch.ones(batch, *SIZE, dtype=torch.bool)
    for image, (height, width) in zip(mask, VALID, strict=False):
        image[:height, :width] = False
    return mask


def valid_sizes(batch: int = 2) -> Float[Tensor, "b 2"]:
    """Make the tensor of these sizes."""
    return torch.tensor(VALID[:batch], dtype=torch.float32)


def composed(backbone: str, necks: Sequence[str], head: str, num_classes: int) -> Detector:
    """Build a detector of small parts, for images of 64 pixels."""
    parts = [build("backbones", backbone)]
    for name in necks:
        parts.append(build("necks", name, main_levels(parts[-1].out_spec)))
    spec = levels_for_head([part.out_spec for part in parts])
    categories = [Category(i, f"class {i}") for i in range(num_classes)]
    return Detector(
        parts[0],
        parts[1:],
        build("heads", head, spec, num_classes),
        categories=categories,
        input_format=InputFormat(image_size=64),
    )


def maps(height: int = SIZE[0], width: int = SIZE[1], *, batch: int = 2, spec: Spec = SPEC) -> Features:
    """Make the levels of images of this size, cells rounded up."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def attends(part: nn.Module) -> bool:
    """Tell whether some cells of a part look at all others, so that padding has to be masked."""
    return any(isinstance(child, nn.MultiheadAttention | MultiScaleDeformableAttention) for child in part.modules())


def check_levels(features: Features, spec: Spec, height: int, width: int, *, batch: int = 2) -> None:
    """Maps are what ``out_spec`` promises for an image of this size."""
    assert list(features) == list(spec)
    for name, level in spec.items():
        cells = (-(-height // level.stride), -(-width // level.stride))
        assert features[name].shape == (batch, level.channels, *cells), name
        assert features[name].isfinite().all()
    strides = [level.stride for level in spec.values()]
    assert strides == sorted(strides)


def check_name(folder: Folder, name: str) -> None:
    """One class, named as its file."""
    module = import_module(f"boxwright.{folder}.{name}")
    (class_name,) = module.__all__
    assert find_part(folder, name).__name__ == class_name
    assert class_name.lower() == name.replace("_", "")


def check_constructor(part: type[nn.Module], wiring: tuple[str, ...]) -> None:
    """Beyond what ``compose`` passes, arguments are keyword-only, typed and have defaults; a part has 12 at most.

    Groups of options, which are frozen dataclasses, keep to the same.
    """
    parameters = list(inspect.signature(part).parameters.values())
    assert tuple(p.name for p in parameters[: len(wiring)]) == wiring
    assert len(parameters) <= MAX_PARAMETERS, f"{part.__name__} has {len(parameters)} parameters; group them"
    hints = get_type_hints(part.__init__)
    for parameter in parameters:
        assert parameter.name in hints, f"{parameter.name} has no type"
    for option in parameters[len(wiring) :]:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY, option.name
        assert option.default is not inspect.Parameter.empty, f"{option.name} has no default"
        assert not option.name.endswith("_"), option.name
    for group in groups_of(part):
        check_constructor(group, ())


def check_docstring(part: type[nn.Module], wiring: tuple[str, ...]) -> None:
    """Every option is explained, nothing else is, and a part that has any names its source.

    Groups of options explain theirs, but for the source, which is the part's.
    """
    check_arguments(part, wiring)
    options = [name for name in inspect.signature(part).parameters if name not in wiring]
    if options:
        assert re.search(r"^Source: \S", inspect.getdoc(part) or "", re.MULTILINE), "no source"
    for group in groups_of(part):
        check_arguments(group, ())


def check_arguments(part: type[Any], wiring: tuple[str, ...]) -> None:
    """The docstring's first line is a sentence, and its ``Args:`` are the options, in order."""
    doc = inspect.getdoc(part)
    assert doc, f"{part.__name__} has no docstring"
    assert doc.partition("\n")[0].endswith((".", ".)"))
    options = [name for name in inspect.signature(part).parameters if name not in wiring]
    # A group that extends another may explain what it adds alone.
    added = [name for name in inspect.get_annotations(part) if is_group(part)]
    assert [name for name in argument_help(doc) if name not in wiring] in (options, added), part.__name__


def groups_of(part: type[Any]) -> list[type[Any]]:
    """The groups of options among a constructor's arguments, and those within them."""
    groups = [hint for name, hint in get_type_hints(part.__init__).items() if name != "return" and is_group(hint)]
    return [*groups, *(inner for group in groups for inner in groups_of(group))]


def check_gradients(part: nn.Module, outputs: list[Tensor]) -> None:
    """A random projection of all outputs reaches every trainable parameter."""
    generator = torch.Generator().manual_seed(2)
    sum((x * torch.randn(x.shape, generator=generator)).sum() for x in outputs).backward()
    for name, parameter in part.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} is never reached"
            assert parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


def check_state_round_trip(part: nn.Module, other: nn.Module, outputs: Any) -> None:
    """Another part with the state of this one puts out the same; ``outputs`` runs a part."""
    before = outputs(part.eval())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    other.load_state_dict(part.state_dict())
    for one, two in zip(before, outputs(other.eval()), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def check_equal_seeds_give_equal_weights(one: nn.Module, same: nn.Module, other: nn.Module) -> None:
    """``one`` and ``same`` were built from one seed, ``other`` from another."""
    state = same.state_dict()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
    if any(parameter.ndim > 1 for parameter in one.parameters()):
        assert any((a != b).any() for a, b in zip(one.parameters(), other.parameters(), strict=True))
