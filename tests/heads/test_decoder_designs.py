"""Designs of decoders: what is encoded once, and what layers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn

from boxwright.heads.dfine import DFINE
from boxwright.layers.swiglu import SwiGLU
from boxwright.layers.transformer import FeedForward
from boxwright.queries import EncoderQueries, RefiningDecoderOptions
from boxwright.structures import Targets
from part_checks import SPEC, build, maps

DESIGNS: Sequence[str] = get_args(get_type_hints(RefiningDecoderOptions)["design"])
HEADS = ("rtdetr", "dfine")


def head_of(name: str, design: str, **options: Any) -> EncoderQueries:
    decoder = RefiningDecoderOptions(num_heads=2, feedforward_dim=16, num_layers=3, design=design)  # type: ignore[arg-type]
    head: EncoderQueries = build("heads", name, SPEC, 5, decoder=decoder, **options)
    return head


def targets() -> list[Targets]:
    boxes = [torch.tensor([[4.0, 6.0, 40.0, 50.0], [60.0, 10.0, 90.0, 70.0]]), torch.zeros(0, 4)]
    return [Targets(torch.arange(len(box)), box, (75, 133)) for box in boxes]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_is_trained(name: str, design: str) -> None:
    head = head_of(name, design).train()
    losses = head.loss(head(maps(), None, targets()), targets())  # type: ignore[operator]
    torch.stack(list(losses.values())).sum().backward()
    assert not [name for name, p in head.named_parameters() if p.grad is None]


@pytest.mark.parametrize(("design", "calls"), [("standard", 3), ("lean", 1), ("swiglu", 1), ("swiglu_shared", 1)])
@pytest.mark.parametrize("name", HEADS)
def test_lean_heads_encode_references_once(name: str, design: str, calls: int) -> None:
    head, seen = head_of(name, design).eval(), []
    head.query_positions.register_forward_hook(lambda *_: seen.append(1))
    head(maps(), None)
    assert len(seen) == calls


@pytest.mark.parametrize("name", HEADS)
def test_lean_heads_select_tokens_as_they_come(name: str) -> None:
    lean, standard = head_of(name, "lean"), head_of(name, "standard")
    assert [name for name, _ in lean.encoder_output.named_parameters()] == []
    assert len(list(standard.encoder_output.parameters())) == 4


@pytest.mark.parametrize("design", DESIGNS)
def test_norms_and_feed_forwards_go_together(design: str) -> None:
    layer = head_of("dfine", design).layers[0]
    gated = design != "swiglu_shared"
    norms = [layer.norm1, layer.gate.norm if gated else layer.norm2, layer.norm3]
    has_swiglu = design.startswith("swiglu")
    assert {type(norm) for norm in norms} == {nn.RMSNorm if has_swiglu else nn.LayerNorm}
    assert type(layer.feed_forward) is (SwiGLU if has_swiglu else FeedForward)
    assert layer.gated is gated


@pytest.mark.parametrize(("name", "boxes"), [("rtdetr", "boxes"), ("dfine", "sides")])
def test_layers_may_have_one_box_head(name: str, boxes: str) -> None:
    assert [len(getattr(head_of(name, design), boxes)) for design in DESIGNS] == [3, 3, 3, 1]


def test_terms_without_weight_are_left_out() -> None:
    head = head_of("dfine", "swiglu_shared", **{"loss_weights.fgl_weight": 0.0, "loss_weights.ddf_weight": 0.0})
    losses = head.loss(head(maps(), None, targets()), targets())  # type: ignore[operator]
    assert {name.partition("_")[0] for name in losses} == {"varifocal", "l1", "giou"}


def test_without_the_union_boxes_learn_from_the_layers_own_matches() -> None:
    head = head_of("dfine", "standard", **{"supervision.united_matches": False})
    assert isinstance(head, DFINE)
    assert not head.divides_by_assigned
    output = head.assign(head(maps(), None, targets()), targets())
    assert output.assignment is not None
    losses = head.loss(output, targets())
    for layer, suffix in enumerate(("_0", "_1", "")):
        matched = output.assignment.of_layers.layer == layer
        index = [x[matched] for x in output.assignment.of_layers[1:3]]
        predicted = output.boxes_cxcywh_norm[layer][index[0], index[1]]
        objects = targets()[0].boxes[output.assignment.of_layers.object[matched]]
        size = torch.tensor([133.0, 75.0])
        centers = torch.cat(((objects[:, :2] + objects[:, 2:]) / 2, objects[:, 2:] - objects[:, :2]), 1)
        distance = (predicted - centers / size.repeat(2)).abs().sum() / 2
        torch.testing.assert_close(losses[f"l1{suffix}"], 5 * distance)
    assert {f"fgl{suffix}" for suffix in ("_0", "_1", "")} <= set(losses)
