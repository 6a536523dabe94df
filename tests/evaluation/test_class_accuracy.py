"""Top-1, top-5, per class, and tables of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from boxwright.data.records import DetectionData, Record
from boxwright.evaluation.class_accuracy import class_accuracy
from boxwright.evaluation.evaluate import ClassEvaluation
from boxwright.evaluation.tables import evaluation_tables
from boxwright.structures import Category
from boxwright_runtime.detections import Detections


def record(number: int, *labels: int) -> Record:
    count = len(labels)
    return Record(
        image_id=number,
        path=Path(f"{number}.jpg"),
        height=4,
        width=4,
        labels=np.array(labels, dtype=np.int64),
        bbox_xywh=np.tile([0.0, 0.0, 4.0, 4.0], (count, 1)),
        area=np.ones(count),
        crowd=np.zeros(count, dtype=bool),
        annotation_ids=tuple(range(count)),
    )


def data(num_classes: int, *own: int) -> DetectionData:
    categories = tuple(Category(10 + i, f"class [{i}]") for i in range(num_classes))
    return DetectionData(tuple(record(i, label) for i, label in enumerate(own)), categories, Path("x"))


def detections_of(*orders: list[int]) -> dict[int, Detections]:
    return {
        i: Detections(torch.zeros(len(order), 4), torch.linspace(1, 0, len(order)), torch.tensor(order))
        for i, order in enumerate(orders)
    }


def test_numbers() -> None:
    """Right, second, sixth, and right again."""
    detections = detections_of([0, 1, 2, 3, 4], [2, 1, 0, 3, 4], [1, 0, 2, 3, 4], [5, 0, 1, 2, 3])
    accuracy = class_accuracy(data(7, 0, 1, 6, 5), detections)
    assert (accuracy.num_images, accuracy.top1, accuracy.top5) == (4, 0.5, 0.75)
    rows = accuracy.to_json()["per_class"]
    assert [row["num_images"] for row in rows] == [1, 1, 0, 0, 0, 1, 1]
    assert [row["top1"] for row in rows] == [1, 0, -1, -1, -1, 1, 0]
    assert [row["top5"] for row in rows] == [1, 1, -1, -1, -1, 1, 0]
    assert [row["taken_for"] for row in rows] == [None, "class [2]", None, None, None, None, "class [1]"]
    assert [row["category_id"] for row in rows] == list(range(10, 17))
    assert accuracy.notes == ()


def test_the_sixth_is_not_among_five() -> None:
    """Of seven classes, all in their order, the fifth is right and the sixth is not."""
    accuracy = class_accuracy(data(7, 4, 5, 6), detections_of(*[list(range(7))] * 3))
    assert (accuracy.top1, accuracy.top5) == (0.0, 1 / 3)


def test_random_orders_against_counting() -> None:
    generator = torch.Generator().manual_seed(0)
    own = torch.randint(12, (200,), generator=generator)
    logits = torch.randn(200, 12, generator=generator)
    best = logits.argsort(1, descending=True)
    accuracy = class_accuracy(data(12, *own.tolist()), detections_of(*best[:, :5].tolist()))
    assert accuracy.top1 == pytest.approx((logits.argmax(1) == own).double().mean().item(), abs=1e-12)
    among = (logits.topk(5).indices == own[:, None]).any(1)
    assert accuracy.top5 == pytest.approx(among.double().mean().item(), abs=1e-12)
    for label, row in enumerate(accuracy.per_class):
        assert row.top5 == pytest.approx(among[own == label].double().mean().item(), abs=1e-12)


def test_few_classes_make_top_5_a_matter_of_course() -> None:
    accuracy = class_accuracy(data(2, 0, 1), detections_of([1, 0], [1, 0]))
    assert (accuracy.top1, accuracy.top5) == (0.5, 1.0)
    assert accuracy.notes == ("There are 2 classes: one of the five likeliest is always right.",)


def test_nothing_to_measure() -> None:
    assert class_accuracy(data(2), {}).top1 == -1


def test_only_images_of_one_class_each() -> None:
    two = DetectionData((record(0, 0, 1),), (Category(1, "a"), Category(2, "b")), Path("x"))
    with pytest.raises(ValueError, match=r"0\.jpg has 2 objects; an image to classify has one class"):
        class_accuracy(two, detections_of([0, 1]))
    with pytest.raises(ValueError, match=r"1\.jpg: there is no result for this image"):
        class_accuracy(data(2, 0, 1), detections_of([0, 1]))


def test_tables() -> None:
    detections = detections_of([1, 0], [1, 0])
    images = data(2, 0, 1)
    evaluation = ClassEvaluation(images, detections, class_accuracy(images, detections))
    stream = io.StringIO()
    Console(file=stream, width=100, force_terminal=False).print(evaluation_tables(evaluation))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert lines[0] == ["images", "top-1", "top-5"]
    assert lines[1] == ["2", "0.500", "1.000"]
    text = stream.getvalue()
    assert "class [0]" in text
    assert "class [1]" in next(line for line in text.splitlines() if "class [0]" in line)


def test_confusion_and_calibration_of_classes() -> None:
    """Two of class 0, one of them taken for class 2; one of class 2 that is right; scores are 1 each."""
    images, detections = data(3, 0, 0, 2), detections_of([0, 1], [2, 0], [2, 1])
    evaluation = ClassEvaluation(images, detections, class_accuracy(images, detections))
    assert evaluation.confusion.counts.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert evaluation.confusion.most_confused() == [("class [0]", "class [2]", 1)]
    assert evaluation.calibration.error == pytest.approx(1 / 3)
    assert evaluation.calibration.per_class == pytest.approx((0.0, 0.0, 0.5))
