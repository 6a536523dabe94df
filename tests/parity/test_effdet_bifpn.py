"""BiFPN beside effdet's, which loads google/automl's weights: the same weights, outputs, gradients and statistics."""

from __future__ import annotations

import re
from typing import Any

import effdet
import pytest
import torch
from torch import nn

from boxwright.necks.bifpn import BiFPN
from boxwright.structures import Features, Level, Spec
from conformance import compare_gradients, compare_tensors, note_inputs
from random_weights import calibrate, shake

SIZE = (260, 180)  # odd and even maps, down to 3 x 2 on P7 and 2 x 1 on P8
D0: Spec = {"c3": Level(40, 8), "c4": Level(112, 16), "c5": Level(320, 32)}
D0_OPTIONS: dict[str, Any] = {"out_channels": 64, "repeats": 3, "activation": "before_conv"}
SMALL: Spec = {"c3": Level(5, 8), "c4": Level(8, 16), "c5": Level(7, 32)}  # c4 has the width of the neck
SMALL_OPTIONS: dict[str, Any] = {"out_channels": 8, "repeats": 2, "activation": "before_conv"}

# effdet's model and what is changed in it, our levels and options
VARIANTS: dict[str, tuple[str, dict[str, Any], Spec, dict[str, Any]]] = {
    "d0": ("tf_efficientdet_d0", {}, D0, D0_OPTIONS),
    "sum": ("tf_efficientdet_d7x", {}, SMALL, SMALL_OPTIONS | {"fusion": "sum", "num_levels": 6}),
    "softmax": ("tf_efficientdet_d0", {"fpn_name": "bifpn_attn"}, SMALL, SMALL_OPTIONS | {"fusion": "softmax"}),
    "after_norm": (
        "tf_efficientdet_d0",
        {"conv_bn_relu_pattern": True},
        SMALL,
        SMALL_OPTIONS | {"activation": "after_norm"},
    ),
}


def pair(variant: str) -> tuple[BiFPN, nn.Module, Features]:
    """Ours and theirs with the same weights in float64, statistics and fusion weights away from their start; maps."""
    model, changes, spec, options = VARIANTS[variant]
    torch.manual_seed(0)
    ours = BiFPN(spec, **options).double()
    features = {
        name: torch.randn(2, level.channels, *(-(-side // level.stride) for side in SIZE), dtype=torch.float64)
        for name, level in spec.items()
    }
    shake(ours)
    for cell in ours.cells:
        for node in [*cell.down.values(), *cell.up.values()]:
            if node.weights is not None:
                nn.init.uniform_(node.weights, 0.2, 2.0)
    if ours.cells[0].up["c4"].weights is not None:
        ours.cells[0].up["c4"].weights.data[1] = -0.5
    momenta = [norm.momentum for norm in ours.modules() if isinstance(norm, nn.BatchNorm2d)]
    calibrate(ours, features)
    for norm in ours.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = momenta.pop(0)

    config = effdet.get_efficientdet_config(model)
    config.update({"image_size": SIZE, "fpn_channels": options["out_channels"], "fpn_cell_repeats": options["repeats"]})
    config.update(changes)
    theirs = effdet.efficientdet.BiFpn(config, [{"num_chs": level.channels} for level in spec.values()]).double()
    for module in theirs.modules():
        # With conv_bn_relu_pattern, theirs leave out the bias that the norm takes away again.
        if isinstance(module, nn.Conv2d) and module.bias is None and module.groups == 1:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    theirs.double().load_state_dict({their_name(name, ours): tensor for name, tensor in ours.state_dict().items()})
    return ours, theirs, features


def their_name(name: str, ours: BiFPN) -> str:
    """effdet numbers the maps: the levels that come into a cell, fine to coarse, then the nodes in order."""
    levels = list(ours.out_spec)
    name = re.sub(r"^project\.(.*)", lambda m: f"resample.{len(ours.incoming)}.conv.{m[1]}", name)
    if match := re.match(r"cells\.(\d+)\.(down|up)\.(\w+)\.(.*)", name):
        cell, path, level, rest = match.groups()
        position, last = levels.index(level), len(levels) - 1
        node = last - 1 - position if path == "down" else last - 1 + position
        # Only what comes into the cell has another width: the node's own level, or the coarsest on the path down.
        rest = re.sub(
            r"^projections\.(\d)", lambda m: f"combine.resample.{position if m[1] == '0' else last}.conv", rest
        )
        rest = re.sub(r"^weights$", "combine.edge_weights", rest)
        rest = re.sub(r"^conv\.depthwise", "after_combine.conv.conv_dw", rest)
        rest = re.sub(r"^conv\.pointwise\.conv", "after_combine.conv.conv_pw", rest)
        rest = re.sub(r"^conv\.pointwise\.norm", "after_combine.conv.bn", rest)
        name = f"cell.{cell}.fnode.{node}.{rest}"
    return name.replace(".norm.", ".bn.")


@pytest.mark.conforms("BiFPN", "effdet")
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_gradients_and_statistics(variant: str, training: bool) -> None:
    ours, theirs, features = pair(variant)
    levels = list(ours.train(training)(features).values())
    expected = theirs.train(training)(list(features.values()))
    assert len(levels) == len(expected) == len(ours.out_spec)
    note_inputs(list(features.values()))
    for level, other in zip(levels, expected, strict=True):
        compare_tensors("outputs", level, other, limit=1e-9)

    generator = torch.Generator().manual_seed(1)
    projections = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in levels]
    for outputs in (levels, expected):
        sum((x * projection).sum() for x, projection in zip(outputs, projections, strict=True)).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    ours_by_name = {their_name(name, ours): parameter.grad for name, parameter in ours.named_parameters()}
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    compare_gradients(ours_by_name, gradients, limit=1e-9, floor=1e-2, elements=(0.0, 1e-9 * largest))

    state = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, state[their_name(name, ours)], rtol=0, atol=1e-9)
