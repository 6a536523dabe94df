"""Causes of lost precision in words: of constructed cases, in which one cause is planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from random_detections import draw_case
from test_coco_metrics import make_data, make_detections, make_record

from boxwright.data.records import DetectionData, Record
from boxwright.evaluation.evaluate import measure_detections
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

CARDS = ("jack", "queen", "king", "ten", "ace")
PLACE = [10, 10, 60, 60]


def texts(data: DetectionData, detections: dict[int, Detections]) -> list[str]:
    return [one.text for one in measure_detections(data, detections).findings]


def cards(labels: Sequence[int], detected: Sequence[int]) -> tuple[DetectionData, dict[int, Detections]]:
    """One card in each image, and its detection, of some class; the later ones have higher scores."""
    records = [make_record(i, [label], [PLACE]) for i, label in enumerate(labels)]
    categories = tuple(Category(label + 1, name) for label, name in enumerate(CARDS))
    data = replace(make_data(*records), categories=categories)
    scores = np.linspace(0.6, 0.9, len(labels))
    return data, {i: make_detections([PLACE], [scores[i]], [label]) for i, label in enumerate(detected)}


def test_a_few_classes_that_are_taken_for_each_other() -> None:
    labels = [0, 1, 2, 3, 4] * 8
    swapped = {0: 1, 1: 2, 2: 0}
    detected = [swapped.get(label, label) if i >= 20 else label for i, label in enumerate(labels)]
    evaluation = measure_detections(*cards(labels, detected))
    (finding,) = evaluation.findings
    assert finding.text == (
        "100 % of the lost AP50: between jack, queen and king, 12 detections with the wrong one of these classes, "
        "12 of them above the thresholds of the best F1"
    )
    assert finding.cost == pytest.approx(1 - evaluation.boxes.AP50)
    assert (finding.kind, finding.num_errors, finding.fraction) == ("classification", 12, pytest.approx(1))


def test_a_pair_of_classes_stays_a_pair() -> None:
    labels = [0, 1, 2, 3, 4] * 8
    detected = [{0: 1, 1: 0}.get(label, label) if i >= 20 else label for i, label in enumerate(labels)]
    assert texts(*cards(labels, detected))[0].startswith("100 % of the lost AP50: between jack and queen, 8 detections")


def test_classes_that_are_all_taken_for_each_other_are_not_named() -> None:
    labels = [0, 1, 2, 3, 4] * 12
    rng = np.random.default_rng(0)
    detected = [int(rng.integers(0, 5)) for _ in labels]
    first, *_ = texts(*cards(labels, detected))
    assert "objects with the class of another one" in first
    assert "between" not in first


def grid(image_id: int, sides: Sequence[float]) -> Record:
    """Objects of one class, that are squares of some sides, in columns of 100 pixels."""
    boxes = [[100 * (i % 8), 100 * (i // 8), side, side] for i, side in enumerate(sides)]
    return make_record(image_id, [0] * len(boxes), boxes, side=800)


def detect(record: Record, which: Sequence[bool], score: float = 0.9) -> Detections:
    boxes = record.bbox_xywh[np.asarray(which, dtype=bool)]
    return make_detections(boxes, np.full(len(boxes), score), np.zeros(len(boxes)))


def test_small_objects_that_are_missed() -> None:
    records = [grid(i, [20] * 4 + [60] * 12) for i in range(4)]
    detections = {one.image_id: detect(one, [False] * 4 + [True] * 12) for one in records}
    assert texts(make_data(*records, ids=(1,)), detections) == [
        "100 % of the lost AP50: 16 objects that no detection is near to, 100 % of them small (below 32 x 32 pixels), "
        "as 25 % of all objects are"
    ]


def test_objects_that_are_small_as_all_others_are_not_called_so() -> None:
    records = [grid(i, [20] * 16) for i in range(4)]
    detections = {one.image_id: detect(one, [i < 8 for i in range(16)]) for one in records}
    assert texts(make_data(*records, ids=(1,)), detections) == [
        "100 % of the lost AP50: 32 objects that no detection is near to"
    ]


def test_objects_of_dense_images_that_are_missed() -> None:
    records = [grid(1, [60] * 40)] + [grid(i, [60] * 8) for i in range(2, 10)]
    detections = {one.image_id: detect(one, [i < 16 for i in range(len(one.labels))]) for one in records}
    assert texts(make_data(*records, ids=(1,)), detections) == [
        "100 % of the lost AP50: 24 objects that no detection is near to, 100 % of them in images with 21 or more "
        "objects, as 38 % of all objects are"
    ]


def test_duplicates_background_and_boxes_that_are_off() -> None:
    record = grid(1, [60] * 30)
    data = make_data(record, ids=(1,))
    everything = detect(record, [True] * 30, 0.5).boxes.numpy()

    def with_errors(move: list[float]) -> list[str]:
        """Each second object has one more detection, which is moved, between the scores of the others."""
        wrong = everything[::2] + np.array(move * 2, dtype=np.float32)
        boxes = np.concatenate([everything[:15], wrong, everything[15:]])
        scores = np.concatenate([np.full(15, 0.9), np.full(15, 0.8), np.full(15, 0.7)])
        one = make_detections(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), scores, np.zeros(45))
        return [text.split(": ", 1)[1].split(",")[0] for text in texts(data, {1: one})]

    assert with_errors([1, 0])[0] == "second detections of an object"
    assert with_errors([38, 0]) == ["boxes that are off (IoU 0.1 to 0.5)"]
    assert with_errors([0, 450]) == ["detections where there is no object"]


def test_nothing_is_said_of_little() -> None:
    labels = [0, 1, 2, 3, 4] * 4
    assert texts(*cards(labels, labels)) == []
    few = [0] * 19
    assert texts(*cards(few, [1] * 19)) == []
    assert len(texts(*cards([*few, 0], [1] * 20))) == 1


def test_the_order_of_images_is_of_no_matter() -> None:
    data, detections = draw_case(0, num_images=40)
    expected = texts(data, detections)
    assert len(expected) == 2
    turned = replace(data, records=tuple(reversed(data.records)))
    assert texts(turned, dict(reversed(detections.items()))) == expected
