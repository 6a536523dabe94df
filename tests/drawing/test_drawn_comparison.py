"""Detections beside the ground truth: matched as COCO does, and drawn in three styles."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxwright.data.records import Record
from boxwright.drawing import DrawingStyle, draw_comparison, match_to_ground_truth
from boxwright.drawing.comparison import _HIT, _INVENTION, _MISS
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

SIZE = (200, 300)
GRAY = np.full((*SIZE, 3), 128, dtype=np.uint8)
CATEGORIES = (Category(1, "cell"), Category(2, "clump"))
BARE = DrawingStyle(labels="none")


def make_record(boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray) -> Record:
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float64)
    return Record(
        image_id=1,
        path=Path("a.png"),
        height=SIZE[0],
        width=SIZE[1],
        labels=labels.astype(np.int64),
        bbox_xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        crowd=crowd,
        annotation_ids=tuple(range(1, len(labels) + 1)),
    )


def make_detections(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> Detections:
    return Detections(torch.tensor(boxes).float(), torch.tensor(scores).float(), torch.tensor(labels), None, CATEGORIES)


def crowded_scene(seed: int) -> tuple[Record, Detections]:
    """Objects of two classes, crowds among them, and detections near some of them, with equal scores and boxes."""
    random = np.random.default_rng(seed)
    count = int(random.integers(0, 12))
    corners = random.integers(0, 120, (count, 2))
    boxes = np.concatenate([corners, corners + random.integers(20, 80, (count, 2))], 1)
    record = make_record(boxes, random.integers(0, 2, count), random.random(count) < 0.25)
    chosen = random.integers(0, max(count, 1), 15 if count else 0)
    near = boxes[chosen] + random.integers(-8, 9, (len(chosen), 4))
    moved = np.concatenate([near, random.integers(0, 2, (4, 4)) + np.array([9, 9, 50, 60])])
    labels = np.concatenate([record.labels[chosen], random.integers(0, 2, 4)])
    labels[random.random(len(labels)) < 0.2] = 0
    scores = -np.sort(-random.integers(1, 9, len(labels)) / 10)
    return record, make_detections(moved, scores, labels)


def coco_outcomes(record: Record, detections: Detections) -> tuple[set[tuple[int, int]], set[int], set[int]]:
    """Hits, missed objects and ignored detections of pycocotools, as positions."""
    annotations = [
        {
            "id": i + 1,
            "image_id": 1,
            "category_id": int(record.labels[i]) + 1,
            "bbox": record.bbox_xywh[i].tolist(),
            "area": float(record.area[i]),
            "iscrowd": int(record.crowd[i]),
        }
        for i in range(len(record.labels))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = {
            "images": [{"id": 1, "width": SIZE[1], "height": SIZE[0]}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        }
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(detections.to_coco(1)), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
    hits: set[tuple[int, int]] = set()
    ignored: set[int] = set()
    for category in (1, 2):
        one = evaluation.evaluateImg(1, category, [0, 1e10], 100)
        for detection, matched, is_ignored in (
            zip(one["dtIds"], one["dtMatches"][0], one["dtIgnore"][0], strict=True) if one else ()
        ):
            if is_ignored:
                ignored.add(detection - 1)
            elif matched:
                hits.add((detection - 1, int(matched) - 1))
    missed = {i for i in range(len(record.labels)) if not record.crowd[i]} - {i for _, i in hits}
    return hits, missed, ignored


@pytest.mark.parametrize("seed", range(40))
def test_matches_are_those_of_pycocotools(seed: int) -> None:
    record, detections = crowded_scene(seed)
    outcomes = match_to_ground_truth(detections, record)
    hits, missed, ignored = coco_outcomes(record, detections)
    assert set(map(tuple, outcomes.hits.tolist())) == hits
    assert set(outcomes.missed.tolist()) == missed
    assert set(outcomes.ignored.tolist()) == ignored
    others = {*outcomes.hits[:, 0].tolist(), *outcomes.ignored.tolist()}
    assert sorted({*others, *outcomes.invented.tolist()}) == list(range(len(detections)))
    assert not others & set(outcomes.invented.tolist())


def test_the_threshold_of_the_iou() -> None:
    record = make_record(np.array([[0, 0, 100, 100]]), np.zeros(1), np.zeros(1, dtype=bool))
    half = make_detections(np.array([[0, 0, 100, 50]]), np.ones(1), np.zeros(1, dtype=int))
    assert len(match_to_ground_truth(half, record).hits) == 1
    assert len(match_to_ground_truth(half, record, iou_threshold=0.51).hits) == 0
    assert match_to_ground_truth(half[:0], record).missed.tolist() == [0]


def scene() -> tuple[Record, Detections]:
    """A hit, a miss, an invention, and a crowd with a detection in it."""
    record = make_record(
        np.array([[20, 20, 80, 80], [120, 20, 180, 80], [20, 120, 80, 180]]),
        np.zeros(3),
        np.array([False, False, True]),
    )
    boxes = np.array([[20, 20, 80, 80], [220, 20, 280, 80], [30, 130, 60, 160]])
    return record, make_detections(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, dtype=int))


def drawn_part(image: np.ndarray, box: tuple[int, int, int, int], color: tuple[int, int, int]) -> float:
    """Part of the upper edge of a box that has a color."""
    return float((image[box[1], box[0] : box[2]] == color).all(1).mean())


def test_three_styles_in_one_image() -> None:
    record, detections = scene()
    drawing = draw_comparison(GRAY, record, detections, CATEGORIES, form="overlay", style=BARE)
    image = np.asarray(drawing)
    assert drawing.width == SIZE[1]
    assert drawing.height > SIZE[0]  # the legend
    assert drawn_part(image, (20, 20, 80, 80), _HIT.color) == 1
    assert drawn_part(image, (120, 20, 180, 80), _MISS.color) == pytest.approx(0.5, abs=0.1)
    assert drawn_part(image, (220, 20, 280, 80), _INVENTION.color) == pytest.approx(0.5, abs=0.1)
    runs = [
        int((np.diff((image[20, left : left + 60] == one.color).all(1).astype(int)) == 1).sum())
        for left, one in ((120, _MISS), (220, _INVENTION))
    ]
    assert 3 * runs[0] < runs[1]  # dashes are longer than dots
    assert (image[100:200] == 128).all()  # neither the crowd nor the detection in it
    without = draw_comparison(GRAY, record, detections, CATEGORIES, form="overlay", style=DrawingStyle(legend=False))
    assert without.size == (300, 200)
    higher = draw_comparison(GRAY, record, detections, CATEGORIES, form="overlay", style=BARE, threshold=0.85)
    assert (np.asarray(higher)[:100, 190:300] == 128).all()


def test_side_by_side() -> None:
    record, detections = scene()
    drawing = draw_comparison(GRAY, record, detections, CATEGORIES, scale=2.0, style=BARE)
    gap, title = drawing.width - 1200, drawing.height - 400
    assert 2 <= gap <= 20
    assert 10 <= title <= 30
    image = np.asarray(drawing)
    assert (image[:, 600 : 600 + gap] == 255).all()
    left, right = image[title:, :600], image[title:, 600 + gap :]
    assert drawn_part(left, (240, 40, 360, 160), (0, 119, 187)) == pytest.approx(0.5, abs=0.1)
    assert (left[:190, 400:] == 128).all()
    assert drawn_part(right, (440, 40, 560, 160), (0, 119, 187)) == 1
    assert (right[:190, 200:400] == 128).all()


def test_nothing_at_all() -> None:
    record = make_record(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=bool))
    nothing = make_detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int))
    assert (np.asarray(draw_comparison(GRAY, record, nothing, CATEGORIES, form="overlay"))[:200] == 128).all()
    assert draw_comparison(GRAY, record, nothing, CATEGORIES).width > 600


@pytest.mark.usefixtures("unchecked")
def test_another_form() -> None:
    record, detections = scene()
    with pytest.raises(ValueError, match="one of side_by_side, overlay, not 'both'"):
        draw_comparison(GRAY, record, detections, CATEGORIES, form="both")  # type: ignore[arg-type]
