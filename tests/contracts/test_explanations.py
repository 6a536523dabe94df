"""The contract of explanations: every head tells where a detection comes from, by the output it was decoded from."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import boxwright.layers.deformable_attention as deformable
from boxwright.compose.parts import find_part, list_parts
from boxwright.contracts import AttendingNeck, ExplainingHead
from boxwright.layers.padding import resize_mask
from boxwright.layers.recording import record_modules
from boxwright.mechanism import (
    DenseMechanism,
    Mechanism,
    QueryMechanism,
    TwoStageMechanism,
    move_positions,
    to_plain_values,
)
from boxwright.ops.box_deltas import decode_deltas
from boxwright.structures import Decoded
from part_checks import SPEC, VALID, build, maps, padding, valid_sizes
from random_weights import shake

NUM_CLASSES = 5

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in list_parts("heads")),
    ("rtdetr", {"decoder.eval_layers": 1}),
    ("dfine", {"decoder.eval_layers": 1}),
    ("dino", {"decoder.eval_layers": 1}),
    ("rtdetr", {"decoder.sampling_method": "discrete", "decoder.num_points": "[3, 2, 1]"}),
    ("deformable_detr", {"refine": "true"}),
    ("deformable_detr", {"refine": "true", "two_stage": "true"}),
    ("detr", {"query_positions_at": "input", "positions_at": "input"}),
    ("detr", {"nms_threshold": "0.97", "decoder.eval_layers": "1"}),
    ("retinanet", {"detection.soft_nms": "true", "detection.max_detections": "30"}),
    ("faster_rcnn", {"roi.extractor": "adaptive"}),
    ("faster_rcnn", {"roi.extractor": "soft"}),
    ("cascade_rcnn", {"averages": "logits"}),
]

cases = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))


class Explained:
    """A head with weights far from special, its output of one padded image, and what is decoded from that."""

    def __init__(self, name: str, options: dict[str, Any], *, padded: bool = True) -> None:
        self.head = build("heads", name, SPEC, NUM_CLASSES, **options).eval()
        shake(self.head)
        mask, sizes = (padding(1), valid_sizes(1)) if padded else (None, None)
        with torch.no_grad():
            self.plain: Decoded = self.head.decode(self.head(maps(batch=1), mask, None, sizes))
            with record_modules(self.head.recorded_modules()) as self.recorded:
                self.output = self.head(maps(batch=1), mask, None, sizes)
            self.decoded: Decoded = self.head.decode(self.output)
        self.indices = torch.where(self.decoded.valid[0])[0].tolist()

    def explain(self, index: int) -> Any:
        explanation = self.head.explain(self.output, self.recorded, index)
        assert isinstance(explanation, Mechanism)
        return explanation


def test_every_head_explains() -> None:
    assert [name for name in list_parts("heads") if not issubclass(find_part("heads", name), ExplainingHead)] == []


@cases
def test_an_explanation_is_of_the_detection(name: str, options: dict[str, Any]) -> None:
    explained = Explained(name, options)
    assert len(explained.indices) > 3
    for index in (*explained.indices[:3], explained.indices[-1]):
        explanation = explained.explain(index)
        # Of the forward without records, which has fused attention.
        torch.testing.assert_close(explanation.box, explained.plain.boxes[0, index], rtol=1e-5, atol=1e-3)
        assert explanation.score == pytest.approx(float(explained.plain.scores[0, index]), abs=1e-5)
        assert explanation.label == int(explained.plain.labels[0, index])


def weights_of(explanation: Any) -> list[Tensor]:
    """All attention weights, a row for each distribution."""
    rows: list[Tensor] = []
    for layer in explanation.layers:
        rows.append(layer.self_attention)
        if layer.samples is not None:
            rows.extend(layer.samples.weights)
        else:
            rows.append(torch.cat([one.values.flatten() for one in layer.maps.values()]))
    return rows


@cases
def test_the_parts_fit_together(name: str, options: dict[str, Any]) -> None:
    explained = Explained(name, options)
    for index in explained.indices[:3]:
        explanation = explained.explain(index)
        if isinstance(explanation, QueryMechanism):
            assert min(float(row.min()) for row in weights_of(explanation)) >= 0
            sums = torch.stack([row.sum() for row in weights_of(explanation)])
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
            torch.testing.assert_close(explanation.layers[-1].box, explanation.box)
            assert explanation.layers[-1].scores[explanation.label] == pytest.approx(explanation.score, abs=1e-5)
            torch.testing.assert_close(explanation.query_boxes[explanation.query], explanation.box)
            assert int(explanation.query_detections[explanation.query]) <= index
        elif isinstance(explanation, DenseMechanism):
            before = explanation.class_score * (explanation.centerness or 1)
            before = before**0.5 if explanation.centerness is not None else before
            # Soft NMS lowered it by all those before it.
            lowered = before * float(explanation.suppressed_by.factors.prod())
            assert explanation.score == pytest.approx(lowered, rel=0.05 if "detection.soft_nms" in options else 1e-5)
        elif isinstance(explanation, TwoStageMechanism):
            stages = explanation.stages
            torch.testing.assert_close(stages[0].region, explanation.proposal.box)
            for stage, following in itertools.pairwise(stages):
                torch.testing.assert_close(stage.box, following.region)
            torch.testing.assert_close(stages[-1].box, explanation.box)
            if options.get("averages") != "logits":
                mean = sum(float(stage.scores[explanation.label]) for stage in stages) / len(stages)
                assert mean == pytest.approx(explanation.score, abs=1e-5)
            if options.get("roi.extractor") != "soft":
                assert sum(stages[0].level_weights.values()) == pytest.approx(1)
        else:
            parts = sum(float(one.values.sum()) for one in explanation.maps.values()) + explanation.bias
            assert parts == pytest.approx(explanation.logit, abs=1e-4)


def test_queries_that_nms_suppressed_have_no_detection() -> None:
    explained = Explained("detr", {"nms_threshold": "0.97"})
    count = len(explained.indices)
    assert count < explained.decoded.valid.shape[1]
    assert explained.indices != list(range(count))
    for number, index in enumerate(explained.indices):
        explanation = explained.explain(index)
        assert int(explanation.query_detections[explanation.query]) == number
    numbers = explanation.query_detections
    assert sorted(numbers[numbers >= 0].tolist()) == list(range(count))


@pytest.mark.parametrize("name", ["rtdetr", "deformable_detr"])
def test_sampling_points_are_those_of_the_operator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Tensor, Tensor]] = []
    own = deformable.deformable_sampling

    def listen(value: Tensor, shapes: Any, locations: Tensor, weights: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append((locations, weights))
        return own(value, shapes, locations, weights, *rest, **options)

    monkeypatch.setattr(deformable, "deformable_sampling", listen)
    explained = Explained(name, {})
    explanation = explained.explain(0)
    assert len(explanation.layers) == 2
    for (locations, weights), layer in zip(calls[-2:], explanation.layers, strict=True):
        torch.testing.assert_close(layer.samples.weights, weights[0, explanation.query], rtol=0, atol=0)
        for level, (key, at) in enumerate(SPEC.items()):
            height, width = maps()[key].shape[-2:]
            expected = locations[0, explanation.query] * torch.tensor([width, height]) * at.stride
            own_points = layer.samples.levels == level
            torch.testing.assert_close(layer.samples.points[:, own_points], expected[:, own_points], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["retinanet", "fcos", "efficientdet"])
def test_the_anchor_is_the_one_that_predicts_the_box(name: str) -> None:
    """Moving its own prediction alone moves the box."""
    explained = Explained(name, {}, padded=False)
    for index in explained.indices[:5]:
        explanation = explained.explain(index)
        anchor = explanation.anchor
        level = list(SPEC).index(anchor.cell.level)
        width = maps()[anchor.cell.level].shape[-1]
        row = (anchor.cell.row * width + anchor.cell.column) * anchor.num_anchors + anchor.index
        own, offsets = explained.output.anchors[level][row], explained.output.offsets[level][0, row]
        torch.testing.assert_close(anchor.box, own)
        decoded = explained.head.decode_boxes(offsets[None], own[None])[0]
        limit = explained.output.valid_sizes[0].flip(-1).repeat(2)
        torch.testing.assert_close(decoded.clamp(min=0).minimum(limit), explanation.box)
        center = (anchor.box[:2] + anchor.box[2:]) / 2
        middle = (anchor.cell.box[:2] + anchor.cell.box[2:]) / 2
        assert (center - middle).abs().max() <= SPEC[anchor.cell.level].stride / 2 + 1


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_rcnn"])
def test_the_proposals_anchor_is_the_one_that_predicts_it(name: str) -> None:
    explained = Explained(name, {}, padded=False)
    rpn, levels = explained.output.rpn, set()
    for index in explained.indices:
        proposal = explained.explain(index).proposal
        anchor, names = proposal.anchor, explained.head.first_stage.input_projection.levels
        level = names.index(anchor.cell.level)
        width = maps()[anchor.cell.level].shape[-1]
        row = (anchor.cell.row * width + anchor.cell.column) * anchor.num_anchors + anchor.index
        torch.testing.assert_close(anchor.box, rpn.anchors[level][row])
        decoded = decode_deltas(rpn.deltas[level][:, row], anchor.box[None])[0]
        limit = explained.output.box_limits[0].flip(-1).repeat(2)
        torch.testing.assert_close(decoded.clamp(min=0).minimum(limit), proposal.box)
        assert proposal.objectness == pytest.approx(float(rpn.logits[level][0, row].sigmoid()))
        threshold = explained.head.first_stage.options.nms_threshold
        assert len(proposal.neighbors) == 0 or float(proposal.neighbors.overlaps.min()) > threshold - 1e-6
        levels.add(level)
    assert len(levels) > 1


def test_the_selected_cell_is_the_anchor_of_the_first_box() -> None:
    """A box head that predicts nothing leaves each box around its cell."""
    head = build("heads", "rtdetr", SPEC, NUM_CLASSES).eval()
    for parameter in head.encoder_boxes.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad(), record_modules(head.recorded_modules()) as recorded:
        output = head(maps(batch=1), padding(1), None, valid_sizes(1))
    explanation = head.explain(output, recorded, 2)
    proposal, (height, width) = explanation.proposal, VALID[0]
    assert proposal is not None
    center = (proposal.box[:2] + proposal.box[2:]) / 2
    stride = SPEC[proposal.cell.level].stride
    cells = (-(-width // stride), -(-height // stride))
    middle = [
        (at + 0.5) / of * side
        for at, of, side in zip((proposal.cell.column, proposal.cell.row), cells, (width, height), strict=True)
    ]
    torch.testing.assert_close(center, torch.tensor(middle), rtol=0, atol=stride / 2)


def test_values_are_plain_and_positions_move() -> None:
    explanation = Explained("rtdetr", {}).explain(0)
    moved = move_positions(explanation, lambda positions: positions * 2)
    torch.testing.assert_close(moved.box, explanation.box * 2)
    torch.testing.assert_close(moved.layers[0].samples.points, explanation.layers[0].samples.points * 2)
    torch.testing.assert_close(moved.layers[0].samples.weights, explanation.layers[0].samples.weights)
    values = to_plain_values(explanation)
    assert values["kind"] == "query"
    assert values["layers"][0]["box"] == explanation.layers[0].box.tolist()


def test_nothing_is_recorded_outside() -> None:
    explained = Explained("detr", {})
    count = [len(calls) for calls in explained.recorded.attention.values()]
    explained.head(maps(batch=1))
    assert [len(calls) for calls in explained.recorded.attention.values()] == count


NECKS: list[tuple[str, dict[str, Any], list[str], int]] = [
    *(("hybrid_encoder", {"variant": variant}, ["c4"], 1) for variant in ("B", "D")),
    ("hybrid_encoder", {"variant": "C"}, list(SPEC), 1),
    *(("hybrid_encoder", {"variant": variant}, ["c5"], 1) for variant in ("D_S5", "E")),
    ("hybrid_encoder", {"variant": "E", "num_layers": "2"}, ["c5"], 2),
    ("hybrid_encoder", {"variant": "A"}, [], 0),
    ("hybrid_encoder", {"num_layers": "0"}, [], 0),
    ("detr_encoder", {}, list(SPEC), 2),
    ("deformable_encoder", {"num_levels": "4"}, [*SPEC, "c6"], 2),
]


@pytest.mark.parametrize(("name", "options", "levels", "num_layers"), NECKS, ids=str)
def test_attention_of_a_cell(name: str, options: dict[str, Any], levels: list[str], num_layers: int) -> None:
    neck = build("necks", name, SPEC, **options).eval()
    shake(neck)
    assert isinstance(neck, AttendingNeck)
    with torch.no_grad(), record_modules(neck.recorded_modules()) as recorded:
        neck(maps(batch=1), padding(1))
    explained = neck.explain_cell(recorded, (70.0, 30.0), "c4")
    assert [one.layer for one in explained] == list(range(num_layers))
    for one in explained:
        stride = SPEC[one.cell.level].stride
        assert one.cell.level == ("c4" if "c4" in levels else "c5")
        assert (one.cell.row, one.cell.column) == (30 // stride, 70 // stride)
        if one.samples is not None:
            assert one.samples.level_names == tuple(levels)
            torch.testing.assert_close(one.samples.weights.sum(1), torch.ones(2))
            continue
        assert list(one.maps) == levels
        assert float(sum(level.values.sum() for level in one.maps.values())) == pytest.approx(1, abs=1e-5)
        for level, own in one.maps.items():
            weights, stride = own.values, SPEC[level].stride
            assert own.box.tolist() == [0, 0, weights.shape[1] * stride, weights.shape[0] * stride]
            assert weights.shape == maps()[level].shape[-2:]
            # Nothing attends to padding.
            assert weights[resize_mask(padding(1), *weights.shape)[0]].abs().max() == 0
