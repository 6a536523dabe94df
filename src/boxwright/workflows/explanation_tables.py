"""Tables of a detection's mechanism for its page: layers of a decoder, stages, other queries."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from boxwright.drawing.mechanism_steps import name_class
from boxwright.mechanism import Mechanism, QueryMechanism, TwoStageMechanism
from boxwright.ops.boxes import iou
from boxwright.reports.section import Cell, PageTable, Section, metric_cell

_MOST = 10
"""Rows of other queries."""


def tabulate_origin(mechanism: Mechanism, names: Sequence[str]) -> list[Section]:
    """Make the tables of a mechanism.

    Args:
        mechanism: of the detection.
        names: of the classes, by label.
    """
    if isinstance(mechanism, QueryMechanism):
        sides = [] if mechanism.side_range is None else [_tabulate_sides(mechanism.box, mechanism.side_range)]
        return [_tabulate_layers(mechanism, names), *sides, _tabulate_others(mechanism, names)]
    return [_tabulate_stages(mechanism, names)] if isinstance(mechanism, TwoStageMechanism) else []


def _tabulate_layers(mechanism: QueryMechanism, names: Sequence[str]) -> Section:
    rows = []
    for index, layer in enumerate(mechanism.layers):
        levels = {} if layer.samples is None else layer.samples.level_weights()
        if layer.maps:
            levels = {name: float(one.values.sum()) for name, one in layer.maps.items()}
        numbers = [float(layer.scores[mechanism.label]), float(iou(layer.box, mechanism.box))]
        numbers += [float(layer.self_attention[mechanism.query]), *levels.values()]
        rows.append([Cell(f"layer {index + 1}", index), *map(metric_cell, numbers)])
    columns = ["layer", name_class(mechanism.label, names), "IoU with the last box", "attention to itself", *levels]
    text = "Score, box and attention of the query after each layer; attention to the levels adds up to 1."
    return Section(title="Layer by layer", text=text, tables=[PageTable(columns, rows)])


def _tabulate_sides(box: Float[Tensor, " 4"], side_range: Float[Tensor, "2 4"]) -> Section:
    rows = []
    for name, side, low, high in zip(("left", "top", "right", "bottom"), box, *side_range, strict=True):
        rows.append([Cell(name), *(Cell(f"{value:.1f}", float(value)) for value in (side, (high - low) / 2))])
    text = "Each side in pixels of the image, and the standard deviation of the distribution that it comes from."
    table = PageTable(["side", "at", "standard deviation"], rows)
    return Section(title="How sure it is of the sides", text=text, tables=[table])


def _tabulate_others(mechanism: QueryMechanism, names: Sequence[str]) -> Section:
    """List the queries that the last layers attend to most, which say that an object is theirs already."""
    last = mechanism.layers[-1].self_attention
    order = [query for query in last.argsort(descending=True, stable=True).tolist() if query != mechanism.query]
    rows = []
    for query in order[:_MOST]:
        detection = int(mechanism.query_detections[query])
        name = f"detection {detection + 1}" if detection >= 0 else f"query {query}"
        label, score = int(mechanism.query_labels[query]), float(mechanism.query_scores[query])
        overlap = float(iou(mechanism.query_boxes[query], mechanism.box))
        weights = [metric_cell(float(layer.self_attention[query])) for layer in mechanism.layers]
        rows.append([Cell(name), Cell(name_class(label, names)), metric_cell(score), metric_cell(overlap), *weights])
    layers = [f"layer {index + 1}" for index in range(len(mechanism.layers))]
    text = (
        "Queries that the last layer of this one attends to most. Those on the same object tell each other apart here, "
        "so that one of them keeps a high score."
    )
    table = PageTable(["query", "class", "score", "IoU", *layers], rows)
    return Section(title="Other queries", text=text, tables=[table])


def _tabulate_stages(mechanism: TwoStageMechanism, names: Sequence[str]) -> Section:
    rows = []
    for index, stage in enumerate(mechanism.stages):
        numbers = [float(stage.scores[mechanism.label]), float(iou(stage.region, mechanism.box))]
        numbers += [float(iou(stage.box, mechanism.box)), *stage.level_weights.values()]
        rows.append([Cell(f"box branch {index + 1}", index), *map(metric_cell, numbers)])
    columns = ["stage", name_class(mechanism.label, names), "IoU of the region", "IoU of the box"]
    text = (
        "Score of each box branch, IoU with the detection of what it starts from and of what it predicts, and levels."
    )
    table = PageTable([*columns, *mechanism.stages[0].level_weights], rows)
    return Section(title="Stage by stage", text=text, tables=[table])
