"""Marks of a detection's mechanism, step by step: layers of a decoder, stages, levels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor

from boxwright.drawing.colors import Color, class_color
from boxwright.drawing.marks import BoxMark, MapMark, Mark, MarkedBox, MarkedSteps, MarkGroup, PointMark
from boxwright.mechanism import (
    AnchorOrigin,
    CellAttention,
    ClassifierMechanism,
    DenseMechanism,
    Mechanism,
    Neighbors,
    QueryLayer,
    QueryMechanism,
    QuerySamples,
    TwoStageMechanism,
)
from boxwright.mechanism_levels import LevelCell, LevelMap

BOX: Color = (0, 119, 187)
REFERENCE: Color = (221, 170, 51)
CELL: Color = (238, 119, 51)
OTHER: Color = (170, 68, 153)

_LARGEST = 16.0
"""Radius of a point with all the weight of a head, in pixels of a drawing with sides of about 1,000."""

_MOST = 40
"""Neighbors that are drawn, the best ones."""

_TIMES_EVEN = 4.0
"""Weight of attention that has the full color, at least, in times of one that is the same everywhere."""

OTHERS, NEIGHBORS = "other queries", "removed by NMS"


def mark_mechanism(mechanism: Mechanism, names: Sequence[str]) -> MarkedSteps:
    """Make the marks of a mechanism.

    Args:
        mechanism: in pixels of the image.
        names: of the classes, by label; labels stand for them where there are none.
    """
    if isinstance(mechanism, QueryMechanism):
        return _mark_query(mechanism, names)
    if isinstance(mechanism, DenseMechanism):
        return _mark_dense(mechanism)
    if isinstance(mechanism, TwoStageMechanism):
        return _mark_stages(mechanism)
    return _mark_classifier(cast(ClassifierMechanism, mechanism))


def mark_encoder(layers: Sequence[CellAttention], box: Float[Tensor, " 4"]) -> MarkedSteps:
    """Make the marks of the attention of an encoder's cell, layer by layer.

    Args:
        layers: of the encoder, in pixels of the image.
        box: of the detection, likewise.
    """
    groups, texts, colors = [MarkGroup([BoxMark(to_corners(box), BOX, 2)])], [], list[tuple[str, Color]]()
    for step, one in enumerate(layers):
        if one.samples is not None:
            texts.append(f"The cell {describe_cell(one.cell)} samples these points. {_levels_in_words(one.samples)}")
            colors = _level_colors(one.samples)
            groups += _mark_samples(one.samples, step)
        else:
            texts.append(
                f"The cell {describe_cell(one.cell)} attends to these cells, the more, the stronger their color. "
                f"{_largest_in_words(one.maps)}"
            )
            groups += _mark_maps(one.maps, step)
        groups.append(MarkGroup([BoxMark(to_corners(one.cell.box), CELL, 3)], step))
    names = [f"encoder layer {one.layer + 1} of {len(layers)}" for one in layers]
    return MarkedSteps(names, texts, groups, colors=tuple(dict.fromkeys(colors)))


def describe_cell(cell: LevelCell) -> str:
    """Name a cell, with rows and columns from 1."""
    return f"{cell.level}, row {cell.row + 1}, column {cell.column + 1}"


def to_corners(box: Float[Tensor, " 4"]) -> MarkedBox:
    """Convert to plain numbers."""
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2


def _mark_query(mechanism: QueryMechanism, names: Sequence[str]) -> MarkedSteps:
    groups, steps, texts = list[MarkGroup](), list[str](), list[str]()
    colors, proposal = list[tuple[str, Color]](), mechanism.proposal
    if proposal is not None:
        steps.append("encoder")
        texts.append(
            f"The encoder's cell {describe_cell(proposal.cell)} is number {proposal.rank} of all by its score, "
            f"{proposal.score:.3f}. It proposes this box (dashes) and becomes query {mechanism.query}."
        )
        box = BoxMark(to_corners(proposal.box), REFERENCE, 3, is_dashed=True)
        groups.append(MarkGroup([box, _mark_cell(proposal.cell)], 0))
    for index, layer in enumerate(mechanism.layers):
        step = len(steps)
        steps.append(f"decoder layer {index + 1} of {len(mechanism.layers)}")
        texts.append(_layer_in_words(layer, mechanism, names))
        if layer.samples is not None:
            colors = _level_colors(layer.samples)
            groups += _mark_samples(layer.samples, step)
        groups += _mark_maps(layer.maps, step)
        groups.append(MarkGroup(_mark_others(layer, mechanism, names), step, OTHERS))
        groups.append(MarkGroup([*_mark_reference(layer), BoxMark(to_corners(layer.box), BOX, 4)], step))
    return MarkedSteps(steps, texts, groups, hidden=(OTHERS,), colors=(*dict.fromkeys(colors), (OTHERS, OTHER)))


def _mark_reference(layer: QueryLayer) -> list[Mark]:
    if layer.reference is None:
        return []
    if len(layer.reference) == 2:
        x, y = layer.reference.tolist()
        return [PointMark((x, y), REFERENCE, 7.0, 1.0, "reference point")]
    return [BoxMark(to_corners(layer.reference), REFERENCE, 3, is_dashed=True, text="reference box")]


def _mark_samples(samples: QuerySamples, step: int) -> Iterator[MarkGroup]:
    """Mark points, whose area is their weight."""
    for index, (name, color) in enumerate(_level_colors(samples)):
        own = samples.levels == index
        rows = zip(
            samples.points[:, own].reshape(-1, 2).tolist(), samples.weights[:, own].flatten().tolist(), strict=True
        )
        marks = [
            PointMark((x, y), color, max(1.2, _LARGEST * math.sqrt(weight)), 0.7, f"{name}, weight {weight:.3f}")
            for (x, y), weight in sorted(rows, key=lambda row: -row[1])
        ]
        yield MarkGroup(marks, step, name)


def _mark_maps(maps: Mapping[str, LevelMap], step: int | None) -> Iterator[MarkGroup]:
    largest = max((float(one.values.max()) for one in maps.values()), default=0.0)
    # Attention that is the same everywhere shows nothing, and is pale.
    even = 1 / max(sum(one.values.numel() for one in maps.values()), 1)
    largest = max(largest, _TIMES_EVEN * even) if step is not None else largest
    for name, one in maps.items():
        yield MarkGroup(
            [MapMark(one.values.numpy(), to_corners(one.box), largest)], step, name if len(maps) > 1 else ""
        )


def _mark_others(layer: QueryLayer, mechanism: QueryMechanism, names: Sequence[str]) -> list[Mark]:
    marks: list[Mark] = []
    for query in _most_attended(layer, mechanism.query, 8):
        weight = float(layer.self_attention[query])
        opacity = min(1.0, 0.25 + weight / max(float(layer.self_attention.max()), 1e-9) * 0.75)
        text = f"{_query_in_words(query, mechanism, names)}, weight {weight:.3f}"
        marks.append(BoxMark(to_corners(mechanism.query_boxes[query]), OTHER, 2, opacity=opacity, text=text))
    return marks


def _most_attended(layer: QueryLayer, own: int, count: int) -> list[int]:
    """List the queries with the largest weights, but for the query itself."""
    order = layer.self_attention.argsort(descending=True, stable=True).tolist()
    return [query for query in order if query != own][:count]


def _query_in_words(query: int, mechanism: QueryMechanism, names: Sequence[str]) -> str:
    detection, score = int(mechanism.query_detections[query]), float(mechanism.query_scores[query])
    number = f"detection {detection + 1}" if detection >= 0 else f"query {query}"
    return f"{number} ({name_class(int(mechanism.query_labels[query]), names)} {score:.2f})"


def name_class(label: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its label as text."""
    return names[label] if names else str(label)


def _layer_in_words(layer: QueryLayer, mechanism: QueryMechanism, names: Sequence[str]) -> str:
    best = int(layer.scores.argmax())
    text = f"{name_class(mechanism.label, names)} {float(layer.scores[mechanism.label]):.3f}"
    if best != mechanism.label:
        text += f", and {name_class(best, names)} {float(layer.scores[best]):.3f} is higher"
    others = ", ".join(
        f"{_query_in_words(query, mechanism, names)} {float(layer.self_attention[query]):.3f}"
        for query in _most_attended(layer, mechanism.query, 3)
    )
    own = float(layer.self_attention[mechanism.query])
    levels = "" if layer.samples is None else " " + _levels_in_words(layer.samples)
    levels += " " + _largest_in_words(layer.maps) if layer.maps else ""
    return (
        f"Score of {text}.{levels} Self-attention: itself {own:.3f}, then {others}." if others else f"{text}.{levels}"
    )


def _levels_in_words(samples: QuerySamples) -> str:
    weights = ", ".join(f"{name} {weight:.0%}" for name, weight in samples.level_weights().items())
    return f"Weights of the levels: {weights}."


def _largest_in_words(maps: Mapping[str, LevelMap]) -> str:
    name, one = max(maps.items(), key=lambda item: float(item[1].values.max()))
    row, column = divmod(int(one.values.argmax()), one.values.shape[1])
    return f"The largest weight is {float(one.values.max()):.3f}, at {name}, row {row + 1}, column {column + 1}."


def _level_colors(samples: QuerySamples) -> list[tuple[str, Color]]:
    # The first color is that of the box.
    return [(name, class_color(index + 1)) for index, name in enumerate(samples.level_names)]


def _mark_neighbors(neighbors: Neighbors, name: str, step: int | None) -> MarkGroup:
    marks: list[Mark] = []
    rows = zip(neighbors.boxes, neighbors.scores.tolist(), neighbors.overlaps.tolist(), strict=True)
    for box, score, overlap in list(rows)[:_MOST]:
        marks.append(BoxMark(to_corners(box), OTHER, 2, opacity=0.7, text=f"score {score:.3f}, IoU {overlap:.2f}"))
    return MarkGroup(marks, step, name)


def _mark_anchor(anchor: AnchorOrigin) -> list[Mark]:
    box = BoxMark(to_corners(anchor.box), REFERENCE, 3, is_dashed=True, text="anchor")
    return [box, _mark_cell(anchor.cell)]


def _mark_cell(cell: LevelCell) -> BoxMark:
    return BoxMark(to_corners(cell.box), CELL, 3, fill=0.45, text="cell")


def _anchor_in_words(anchor: AnchorOrigin) -> str:
    kind = "the point of" if anchor.num_anchors == 1 else f"anchor {anchor.index + 1} of {anchor.num_anchors} of"
    return f"{kind} the cell {describe_cell(anchor.cell)}"


def _mark_dense(mechanism: DenseMechanism) -> MarkedSteps:
    is_soft = bool((mechanism.neighbors.factors > 0).any()) or len(mechanism.suppressed_by) > 0
    name = "lowered by soft NMS" if is_soft else NEIGHBORS
    text = (
        f"Predicted from {_anchor_in_words(mechanism.anchor)} (dashes), candidate {mechanism.rank} of the image. "
        f"Class probability {mechanism.class_score:.3f}"
    )
    text += "" if mechanism.centerness is None else f", centerness {mechanism.centerness:.3f}"
    text += f". {_neighbors_in_words(mechanism.neighbors)}"
    if len(mechanism.suppressed_by):
        factor = float(mechanism.suppressed_by.factors.prod())
        text += f" Better detections lowered its own score by a factor of {factor:.3f}."
    groups = [
        _mark_neighbors(mechanism.neighbors, name, None),
        MarkGroup([*_mark_anchor(mechanism.anchor), BoxMark(to_corners(mechanism.box), BOX, 4)]),
    ]
    return MarkedSteps(["detection"], [text], groups, colors=((name, OTHER),))


def _neighbors_in_words(neighbors: Neighbors) -> str:
    if not len(neighbors):
        return "NMS removed no neighbor in its favor."
    best = f"the best of them with a score of {float(neighbors.scores.max()):.3f}"
    if bool((neighbors.factors > 0).any()):
        return f"Soft NMS lowered the scores of {len(neighbors)} neighbors for it, {best}."
    return f"NMS removed {len(neighbors)} in its favor, {best}."


def _mark_stages(mechanism: TwoStageMechanism) -> MarkedSteps:
    proposal, count = mechanism.proposal, len(mechanism.stages)
    texts = [
        f"Proposal {proposal.rank} of the image, objectness {proposal.objectness:.3f}, from "
        f"{_anchor_in_words(proposal.anchor)} (dashes). {_neighbors_in_words(proposal.neighbors)}"
    ]
    groups = [
        _mark_neighbors(proposal.neighbors, NEIGHBORS, 0),
        MarkGroup([*_mark_anchor(proposal.anchor), BoxMark(to_corners(proposal.box), BOX, 4)], 0),
    ]
    for step, stage in enumerate(mechanism.stages, start=1):
        levels = ", ".join(f"{name} {weight:.0%}" for name, weight in stage.level_weights.items() if weight)
        text = f"Features of the region (dashes) are from {levels}. Score {float(stage.scores[mechanism.label]):.3f}."
        if step == count:
            groups.append(_mark_neighbors(mechanism.neighbors, NEIGHBORS, step))
            text += f" Candidate {mechanism.rank} of the image. {_neighbors_in_words(mechanism.neighbors)}"
        region = BoxMark(to_corners(stage.region), REFERENCE, 3, is_dashed=True, text="region")
        groups.append(MarkGroup([region, BoxMark(to_corners(stage.box), BOX, 4)], step))
        texts.append(text)
    names = ["proposal", *(f"box branch {step} of {count}" for step in range(1, count + 1))]
    return MarkedSteps(names, texts, groups, colors=((NEIGHBORS, OTHER),))


def _mark_classifier(mechanism: ClassifierMechanism) -> MarkedSteps:
    parts = {name: float(one.values.sum()) for name, one in mechanism.maps.items()}
    words = ", ".join(f"{name} {part:+.2f}" for name, part in parts.items())
    text = f"The logit is {mechanism.logit:.2f}: cells of {words}, bias {mechanism.bias:+.2f}. Colored cells add to it."
    return MarkedSteps(["class"], [text], list(_mark_maps(mechanism.maps, None)))
