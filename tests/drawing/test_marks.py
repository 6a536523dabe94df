"""Marks of explanations, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boxwright.drawing.marks import MAP_COLOR, BoxMark, MapMark, MarkedSteps, MarkGroup, PointMark, draw_marks
from boxwright.drawing.mechanism_steps import mark_mechanism
from boxwright.mechanism import AnchorOrigin, DenseMechanism, Neighbors, QueryLayer, QueryMechanism, QuerySamples
from boxwright.mechanism_levels import LevelCell

RED = (255, 0, 0)


def gray() -> np.ndarray:
    return np.full((500, 1000, 3), 100, dtype=np.uint8)


def test_marks_lie_where_they_are_said_to() -> None:
    marks = [
        BoxMark((100.0, 50.0, 200.0, 150.0), RED, 4),
        PointMark((600.0, 300.0), RED, 10.0, opacity=1.0),
        BoxMark((700.0, 50.0, 800.0, 150.0), RED, 2, fill=0.5),
    ]
    drawn = np.asarray(draw_marks(gray(), marks)).astype(int)
    assert drawn.shape == (500, 1000, 3)
    assert drawn[50, 150].tolist() == list(RED)
    assert drawn[100, 150].tolist() == [100] * 3
    assert drawn[300, 600].tolist() == drawn[300, 608].tolist() == list(RED)
    assert drawn[300, 615].tolist() == [100] * 3
    # Half of the color, and half of the image.
    assert np.abs(drawn[100, 750] - [178, 50, 50]).max() <= 1


def test_small_images_are_drawn_large() -> None:
    drawn = np.asarray(draw_marks(gray()[:50, :100], [PointMark((60.0, 30.0), RED, 10.0, opacity=1.0)]))
    assert drawn.shape == (500, 1000, 3)
    assert drawn[300, 600].tolist() == list(RED)


def test_maps_are_stretched_over_their_box() -> None:
    values = np.array([[0.0, 1.0], [0.25, -3.0]], dtype=np.float32)
    drawn = np.asarray(draw_marks(gray(), [MapMark(values, (0.0, 0.0, 1000.0, 500.0))])).astype(int)
    distance = np.abs(drawn - np.array(MAP_COLOR)).sum(-1)
    nothing, most, half, negative = distance[100, 100], distance[100, 900], distance[400, 100], distance[400, 900]
    assert nothing == negative
    assert most < half < nothing
    assert abs(drawn[400, 100, 0] - (100 + (MAP_COLOR[0] - 100) * 0.25**0.75 * 215 / 255)) <= 1.5


def test_hidden_groups_and_other_steps_are_left_out() -> None:
    marks = [PointMark((float(x), 0.0), RED, 1.0) for x in range(4)]
    groups = [MarkGroup([marks[0]]), MarkGroup([marks[1]], 0), MarkGroup([marks[2]], 1), MarkGroup([marks[3]], 1, "x")]
    steps = MarkedSteps(["a", "b"], ["", ""], groups, hidden=("x",))
    assert steps.marks_of(0) == marks[:2]
    assert steps.marks_of(1) == [marks[0], marks[2]]
    assert steps.group_names() == ["x"]


def box(*sides: float) -> torch.Tensor:
    return torch.tensor(sides).float()


def test_a_query_in_words_and_marks() -> None:
    samples = QuerySamples(
        torch.tensor([[[10.0, 20.0], [30.0, 40.0]]]), torch.tensor([[0.64, 0.36]]), torch.tensor([0, 1]), ("c4", "c5")
    )
    layer = QueryLayer(
        box(1, 2, 3, 4), box(2, 2, 4, 4), torch.tensor([0.2, 0.7]), torch.tensor([0.5, 0.3, 0.2]), samples
    )
    mechanism = QueryMechanism(
        box=box(2, 2, 4, 4),
        label=0,
        score=0.2,
        query=0,
        proposal=None,
        layers=(layer,),
        query_boxes=torch.tensor([[2.0, 2, 4, 4], [5, 5, 6, 6], [7, 7, 8, 8]]),
        query_labels=torch.tensor([1, 1, 0]),
        query_scores=torch.tensor([0.7, 0.6, 0.1]),
        query_detections=torch.tensor([0, 1, -1]),
    )
    steps = mark_mechanism(mechanism, ["dog", "cat"])
    (text,) = steps.texts
    assert text == (
        "Score of dog 0.200, and cat 0.700 is higher. Weights of the levels: c4 64%, c5 36%. Self-attention: itself "
        "0.500, then detection 2 (cat 0.60) 0.300, query 2 (dog 0.10) 0.200."
    )
    points = {group.name: group.marks for group in steps.groups if group.name in ("c4", "c5")}
    (fine,), (coarse,) = points["c4"], points["c5"]
    assert isinstance(fine, PointMark)
    assert isinstance(coarse, PointMark)
    assert (fine.point, coarse.point) == ((10.0, 20.0), (30.0, 40.0))
    # Areas are as the weights.
    assert (fine.radius / coarse.radius) ** 2 == pytest.approx(0.64 / 0.36)


def test_soft_suppression_in_words() -> None:
    neighbors = Neighbors(
        torch.zeros(2, 4), torch.tensor([0.4, 0.3]), torch.tensor([0.5, 0.4]), torch.tensor([0.6, 0.7])
    )
    above = Neighbors(torch.zeros(1, 4), torch.tensor([0.9]), torch.tensor([0.3]), torch.tensor([0.8]))
    cell = LevelCell.of("c3", 8, 2, 5)
    mechanism = DenseMechanism(
        box=box(0, 0, 9, 9),
        label=1,
        score=0.4,
        anchor=AnchorOrigin(cell, 0, 9, box(0, 0, 8, 8)),
        rank=3,
        class_score=0.5,
        centerness=None,
        neighbors=neighbors,
        suppressed_by=above,
    )
    (text,) = mark_mechanism(mechanism, []).texts
    assert "anchor 1 of 9 of the cell c3, row 3, column 6 (dashes), candidate 3" in text
    assert "Soft NMS lowered the scores of 2 neighbors for it, the best of them with a score of 0.400." in text
    assert text.endswith("lowered its own score by a factor of 0.800.")
