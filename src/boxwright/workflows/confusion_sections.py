"""Sections of a report on classes that are confused, and on sizes and densities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from boxwright.evaluation.confusion import Confusion
from boxwright.evaluation.slices import Slice
from boxwright.reports.section import Cell, Matrix, MatrixCell, PageTable, Section, count_cell, metric_cell

MOST_CLASSES = 20
"""Rows of a matrix that readers still take in."""

_BACKGROUND = "background"

_OF_BOXES = (
    "Rows: the class of the objects. Columns: the class of their detections, matched at IoU 0.5 whatever the classes, "
    "with scores above the thresholds of the best F1. At the right, objects without a detection; below, detections "
    "without an object."
)
_OF_IMAGES = "Rows: the class of the images. Columns: the class that is taken for the likeliest."


def confusion_section(confusion: Confusion, *, is_of_boxes: bool = True) -> Section:
    """Show classes by those that they are taken for, of many classes the ones with most confusions.

    Args:
        confusion: the counts.
        is_of_boxes: detections have thresholds, and may be of the background; else images of classes.
    """
    labels = _select_classes(confusion.counts)
    names = [confusion.names[label] for label in labels]
    index = [*labels, len(confusion.names)] if is_of_boxes else labels
    if is_of_boxes:
        names.append(_BACKGROUND)
    counts, totals = confusion.counts[np.ix_(index, index)], confusion.counts[index].sum(1)
    text = _OF_BOXES if is_of_boxes else _OF_IMAGES
    if len(labels) < len(confusion.names):
        text += f" Of {len(confusion.names)} classes, the {len(labels)} with most confusions."
    pairs = [[Cell(one.name), Cell(one.taken_for), count_cell(one.num_objects)] for one in confusion.most_confused()]
    corner = "object ↓  detection →" if is_of_boxes else "image ↓  likeliest →"
    tables = [PageTable(("class", "taken for", "objects" if is_of_boxes else "images"), pairs, "Most confused")]
    return Section(
        title="Confusion",
        text=text,
        matrix=Matrix(corner, names, _matrix_rows(names, counts, totals, is_of_boxes)),
        tables=tables if pairs else (),
    )


def _select_classes(counts: Int64[np.ndarray, "k k"]) -> list[int]:
    own = counts[:-1, :-1]
    if len(own) <= MOST_CLASSES:
        return list(range(len(own)))
    wrong = own.sum(0) + own.sum(1) - 2 * np.diag(own)
    order = np.lexsort((-own.sum(1), -wrong))
    return sorted(order[:MOST_CLASSES].tolist())


def _matrix_rows(
    names: Sequence[str], counts: Int64[np.ndarray, "n n"], totals: Int64[np.ndarray, " n"], is_of_boxes: bool
) -> list[tuple[str, list[MatrixCell]]]:
    rows = []
    for i, name in enumerate(names):
        cells = []
        for j, other in enumerate(names):
            count, part = int(counts[i, j]), float(counts[i, j] / max(totals[i], 1))
            is_nothing = is_of_boxes and i == j == len(names) - 1
            meaning = f"{name} as {other}: {count:,}, {100 * part:.0f} % of the row"
            cells.append(MatrixCell("" if is_nothing else f"{count:,}" if count else "·", part, i == j, meaning))
        rows.append((name, cells))
    return rows


def slices_section(slices: Sequence[Slice]) -> Section:
    """Show metrics by the size of objects, and by their number in an image."""
    columns = ("part", "images", "objects", "AP", "AP50", "AR")
    captions = {
        "size": "Objects by size: small below 32² pixels, large above 96²",
        "density": "Images by the number of their objects",
    }
    tables = []
    for kind, caption in captions.items():
        rows = [_slice_row(one) for one in slices if one.kind == kind and one.num_images]
        if rows:
            tables.append(PageTable(columns, rows, caption))
    return Section(
        title="Sizes and densities", text="Metrics of boxes of some objects, or images, alone.", tables=tables
    )


def _slice_row(one: Slice) -> list[Cell]:
    counts, metrics = (one.num_images, one.num_objects), (one.AP, one.AP50, one.AR)
    return [Cell(one.name), *map(count_cell, counts), *map(metric_cell, metrics)]
