"""The ranking of label errors, on detections and planted errors that are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64, Int64
from scipy.optimize import isotonic_regression

from boxwright.data.records import DetectionData, Record
from boxwright.evaluation.label_errors import Suspicion, rank_label_errors, rise
from boxwright.evaluation.label_evidence import (
    compare_annotations,
    match_objects,
    merge_detections,
    pairwise_iou,
    shift_boxes,
)
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

CLASSES = (Category(3, "bolt"), Category(5, "nut"), Category(9, "washer"))
SIZE = 320

Planted = dict[str, set[tuple[int, int]]]
"""Pairs of image id and annotation id, by the kind of error."""


def make_record(image_id: int, boxes: Float64[np.ndarray, "n 4"], labels: Int64[np.ndarray, " n"]) -> Record:
    """An image with corner boxes; annotation ids count from 100 times its own."""
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    return Record(
        image_id=image_id,
        path=Path(f"{image_id}.jpg"),
        height=SIZE,
        width=SIZE,
        labels=labels,
        bbox_xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        crowd=np.zeros(len(labels), dtype=np.bool_),
        annotation_ids=tuple(range(100 * image_id, 100 * image_id + len(labels))),
    )


def make_data(images: int = 60, seed: int = 0) -> DetectionData:
    """Images with up to 9 objects on a grid, 30 to 60 pixels large."""
    random = np.random.default_rng(seed)
    records = []
    for image_id in range(1, images + 1):
        cells = random.choice(9, random.integers(1, 10), replace=False)
        corners = np.stack([cells % 3, cells // 3], 1) * 100.0 + random.uniform(20, 40, (len(cells), 2))
        boxes = np.concatenate([corners, corners + random.uniform(30, 60, (len(cells), 2))], 1)
        records.append(make_record(image_id, boxes, random.integers(0, len(CLASSES), len(cells))))
    return DetectionData(tuple(records), CLASSES, Path("set"))


def detect(
    data: DetectionData, *, jitter: float = 0.0, missed: float = 0.0, confused: float = 0.0, false: int = 0
) -> dict[int, Detections]:
    """Detections of a model: of every object, but for a fraction; moved by a fraction of its size, of another class.

    ``false`` detections per image are of nothing, with lower scores.
    """
    random = np.random.default_rng(1)
    detections = {}
    for record in data.records:
        boxes, labels = record.boxes().astype(np.float64), record.labels.copy()
        seen = random.random(len(labels)) >= missed
        boxes, labels = boxes[seen], labels[seen]
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes = boxes + jitter * sides * random.standard_normal(boxes.shape)
        wrong = random.random(len(labels)) < confused
        labels = np.where(wrong, (labels + 1) % len(CLASSES), labels)
        scores = 1 - random.beta(1, 8, len(labels)) if jitter else np.ones(len(labels))
        corners = random.uniform(0, SIZE - 50, (false, 2))
        boxes = np.concatenate([boxes, np.concatenate([corners, corners + 45], 1)])
        labels = np.concatenate([labels, random.integers(0, len(CLASSES), false)])
        scores = np.concatenate([scores, random.beta(1, 4, false)])
        detections[record.image_id] = Detections(
            torch.from_numpy(boxes.clip(0, SIZE)), torch.from_numpy(scores), torch.from_numpy(labels)
        )
    return detections


def plant(data: DetectionData, rate: float = 0.05, seed: int = 2) -> tuple[DetectionData, Planted]:
    """Remove, swap and shift a fraction of the objects each."""
    random = np.random.default_rng(seed)
    planted: Planted = {"removed": set(), "swapped": set(), "shifted": set()}
    records = []
    for record in data.records:
        labels, boxes = record.labels.copy(), record.boxes().astype(np.float64)
        draw = random.random(len(labels))
        swapped, shifted, removed = draw < rate, (draw >= rate) & (draw < 2 * rate), draw >= 1 - rate
        labels[swapped] = (labels[swapped] + random.integers(1, 3, int(swapped.sum()))) % len(CLASSES)
        boxes[shifted] = shift_boxes(boxes[shifted], random.uniform(0.4, 0.6, int(shifted.sum())), random)
        for kind, chosen in (("removed", removed), ("swapped", swapped), ("shifted", shifted)):
            planted[kind] |= {(record.image_id, record.annotation_ids[i]) for i in np.flatnonzero(chosen)}
        changed = make_record(record.image_id, boxes[~removed], labels[~removed])
        kept = tuple(one for one, gone in zip(record.annotation_ids, removed, strict=True) if not gone)
        records.append(replace(changed, annotation_ids=kept))
    return replace(data, records=tuple(records)), planted


def count_named(data: DetectionData, planted: Planted, first: list[Suspicion]) -> Counter[str]:
    """Count the planted errors that suspicions name, by kind."""
    names = {(one.image_id, one.annotation_id) for one in first}
    named = Counter({kind: len(planted[kind] & names) for kind in ("swapped", "shifted")})
    for record in data.records:
        boxes = [one.box for one in first if one.image_id == record.image_id and one.kind == "overlooked"]
        removed = [i for i, one in enumerate(record.annotation_ids) if (record.image_id, one) in planted["removed"]]
        overlap = pairwise_iou(record.boxes()[removed].astype(np.float64), np.array(boxes, float).reshape(-1, 4))
        named["removed"] += int((overlap.max(1, initial=0.0) >= 0.5).sum())
    return named


def count_planted(planted: Planted) -> int:
    return sum(map(len, planted.values()))


def test_perfect_detections_rank_every_planted_error_first() -> None:
    data = make_data()
    wrong, planted = plant(data)
    total = count_planted(planted)
    assert total > 30
    ranking = rank_label_errors(wrong, detect(data))
    named = count_named(data, planted, ranking[:total])
    assert named == {kind: len(errors) for kind, errors in planted.items()}
    assert ranking[total - 1].probability > 0.4
    assert ranking[total].probability < 0.01
    kinds = Counter(one.kind for one in ranking[:total])
    expected = {"wrong_class": "swapped", "badly_placed": "shifted", "overlooked": "removed"}
    assert kinds == {kind: len(planted[error]) for kind, error in expected.items()}


def test_perfect_detections_of_clean_labels_leave_nothing_to_suspect() -> None:
    data = make_data()
    ranking = rank_label_errors(data, detect(data))
    assert len(ranking) == sum(len(record.labels) for record in data.records)
    assert max(one.probability for one in ranking) < 0.2


@pytest.mark.parametrize(
    ("noise", "least"),
    [
        ({"jitter": 0.03}, 0.98),
        ({"jitter": 0.06, "missed": 0.05, "confused": 0.03, "false": 2}, 0.85),
        ({"jitter": 0.08, "missed": 0.1, "confused": 0.06, "false": 3}, 0.60),
    ],
)
def test_noisy_detections_still_rank_most_planted_errors_first(noise: dict[str, float], least: float) -> None:
    data = make_data(200)
    wrong, planted = plant(data)
    ranking = rank_label_errors(wrong, detect(data, **noise))  # type: ignore[arg-type]
    annotations = sum(one.annotation_id is not None for one in ranking)
    named = count_named(data, planted, ranking[: round(0.15 * annotations)])
    assert sum(named.values()) / count_planted(planted) >= least


def test_the_first_of_noisy_detections_are_as_probable_as_they_say() -> None:
    data = make_data(300)
    wrong, planted = plant(data)
    ranking = rank_label_errors(wrong, detect(data, jitter=0.06, missed=0.05, confused=0.03, false=2))
    probable = [one for one in ranking if one.probability >= 0.5]
    named = sum(count_named(data, planted, probable).values())
    expected = sum(one.probability for one in probable)
    assert named == pytest.approx(expected, rel=0.15)


def test_noise_alone_is_seldom_suspected() -> None:
    data = make_data(200)
    ranking = rank_label_errors(data, detect(data, jitter=0.06, false=2))
    assert sum(one.probability >= 0.5 for one in ranking) <= 0.01 * len(ranking)


def test_every_annotation_appears_once_and_every_object_without_one() -> None:
    data = make_data(20)
    wrong, planted = plant(data, rate=0.2)
    ranking = rank_label_errors(wrong, detect(data, jitter=0.03))
    ids = [(one.image_id, one.annotation_id) for one in ranking if one.annotation_id is not None]
    assert sorted(ids) == [(r.image_id, one) for r in wrong.records for one in r.annotation_ids]
    assert [one.kind for one in ranking if one.annotation_id is None] == ["overlooked"] * len(planted["removed"])
    assert [one.odds for one in ranking] == sorted((one.odds for one in ranking), reverse=True)


def test_a_suspicion_says_what_is_seen() -> None:
    boxes = np.array([[10.0, 10, 50, 50], [100, 100, 140, 150], [200, 200, 250, 250]])
    seen = np.array([[10.0, 10, 50, 50], [115, 112, 155, 162], [20, 200, 60, 240]])
    record = make_record(7, boxes, np.array([0, 1, 2]))
    detections = Detections(torch.from_numpy(seen), torch.tensor([0.9, 0.8, 0.7]), torch.tensor([2, 1, 0]))
    ranking = rank_label_errors(DetectionData((record,), CLASSES, Path("set")), {7: detections})
    by_id = {one.annotation_id: one for one in ranking}
    assert len(by_id) == len(ranking) == 4
    swapped, shifted, nothing, overlooked = by_id[700], by_id[701], by_id[702], by_id[None]
    assert (swapped.kind, swapped.label, swapped.predicted_label) == ("wrong_class", 0, 2)
    assert swapped.confidence == pytest.approx(0.9)
    assert (shifted.kind, shifted.predicted_box) == ("badly_placed", (115, 112, 155, 162))
    assert shifted.overlap == pytest.approx(25 * 38 / (2 * 40 * 50 - 25 * 38))
    assert (nothing.kind, nothing.predicted_label, nothing.predicted_box, nothing.overlap) == (
        "spurious",
        None,
        None,
        0,
    )
    assert (overlooked.kind, overlooked.label, overlooked.box) == ("overlooked", 0, (20, 200, 60, 240))


def test_crowd_regions_are_no_objects_and_hide_detections() -> None:
    boxes = np.array([[10.0, 10, 50, 50], [100, 100, 300, 300]])
    record = replace(make_record(1, boxes, np.array([0, 1])), crowd=np.array([False, True]))
    seen = torch.tensor([[10.0, 10, 50, 50], [120, 120, 160, 160], [60, 60, 90, 90]])
    detections = Detections(seen, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 1]))
    ranking = rank_label_errors(DetectionData((record,), CLASSES, Path("set")), {1: detections})
    assert {(one.kind, one.box) for one in ranking if one.annotation_id is None} == {("overlooked", (60, 60, 90, 90))}
    assert [one.annotation_id for one in ranking if one.annotation_id is not None] == [100]


def test_the_same_seed_gives_the_same_ranking_and_another_one_hardly_another() -> None:
    data = make_data(100)
    wrong, planted = plant(data)
    detections = detect(data, jitter=0.06, missed=0.05, false=2)
    first, again = rank_label_errors(wrong, detections), rank_label_errors(wrong, detections)
    assert first == again
    other = rank_label_errors(wrong, detections, seed=5)
    total = count_planted(planted)
    names = [{(one.image_id, one.box) for one in ranking[:total]} for ranking in (first, other)]
    assert len(names[0] & names[1]) >= 0.9 * total


def test_an_image_without_predictions_is_an_error() -> None:
    data = make_data(3)
    detections = detect(data)
    del detections[2]
    with pytest.raises(ValueError, match=r"^set: 1 images without predictions, the first is 2\.jpg$"):
        rank_label_errors(data, detections)


@pytest.mark.parametrize("classes", [1, 3])
def test_images_without_annotations_or_detections_and_a_single_class(classes: int) -> None:
    none = np.zeros((0, 4))
    record = make_record(1, none, np.zeros(0, dtype=np.int64))
    full = make_record(2, np.array([[10.0, 10, 50, 50]]), np.array([0]))
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    one = Detections(torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([0.9]), torch.tensor([0]))
    data = DetectionData((record, full), CLASSES[:classes], Path("set"))
    assert [one.kind for one in rank_label_errors(replace(data, records=(record,)), {1: nothing})] == []
    kinds = [one.kind for one in rank_label_errors(data, {1: one, 2: nothing})]
    assert sorted(kinds) == ["overlooked", "spurious"]
    assert len(rank_label_errors(data, {1: nothing, 2: one})) == 1


def test_detections_at_one_place_are_one_object_with_scores_of_several_classes() -> None:
    boxes = torch.tensor([[10.0, 10, 50, 50], [12, 10, 50, 50], [100, 100, 140, 140], [200, 200, 240, 240]])
    detections = Detections(boxes, torch.tensor([0.3, 0.6, 0.5, 0.01]), torch.tensor([0, 2, 1, 1]))
    merged = merge_detections(detections, 3)
    assert merged.boxes.tolist() == [[12, 10, 50, 50], [100, 100, 140, 140]]
    assert merged.scores == pytest.approx(np.array([[0.3, 0, 0.6], [0, 0.5, 0]]))


def test_a_confident_detection_wins_a_shifted_annotation_over_a_doubtful_one() -> None:
    overlap = np.array([[0.5, 0.9], [0.05, 0.0]])
    assert match_objects(overlap, np.array([0.95, 0.05])).tolist() == [0, -1]
    assert match_objects(overlap, np.array([0.95, 0.9])).tolist() == [1, -1]


@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_shifted_boxes_have_the_overlap_that_was_asked_for(seed: int, overlap: float) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(-50, 50, (5, 2))
    boxes = np.concatenate([corner, corner + random.uniform(1, 300, (5, 2))], 1)
    shifted = shift_boxes(boxes, np.full(5, overlap), random)
    assert np.diagonal(pairwise_iou(boxes, shifted)) == pytest.approx(overlap, abs=1e-6)
    assert (shifted[:, 2:] - shifted[:, :2]) == pytest.approx(boxes[:, 2:] - boxes[:, :2])


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=60), st.floats(0.01, 1.0))
@settings(max_examples=100, deadline=None)
def test_rising_fractions_are_those_of_scipy(pairs: list[tuple[int, bool]], weight: float) -> None:
    values = np.array([value / 8 for value, _ in pairs])
    is_planted = np.array([planted for _, planted in pairs])
    weights = np.where(is_planted, weight, 1.0)
    unique = np.unique(values)
    total = np.array([weights[values == one].sum() for one in unique])
    fraction = np.array([(weights * is_planted)[values == one].sum() for one in unique]) / total
    expected = isotonic_regression(fraction, weights=total).x[np.searchsorted(unique, values)]
    assert rise(values, is_planted, weights) == pytest.approx(expected, abs=1e-9)


def test_the_scores_of_an_image_are_those_of_the_formulas() -> None:
    record = make_record(1, np.array([[0.0, 0, 40, 40], [100, 100, 140, 140]]), np.array([0, 1]))
    boxes = torch.tensor([[0.0, 0, 40, 40], [0, 0, 40, 40], [110, 100, 150, 140], [200, 0, 240, 40]])
    detections = Detections(boxes, torch.tensor([0.2, 0.7, 0.9, 0.6]), torch.tensor([0, 2, 1, 1]))
    compared = compare_annotations(record, detections, 3, np.random.default_rng(0))
    assert compared.matches.tolist() == [1, 0]
    assert compared.evidence.wrong_class == pytest.approx([0.7 * 0.8, 0.0])
    assert compared.evidence.badly_placed == pytest.approx([0.0, 0.9 * (1 - 0.6)])
    assert compared.evidence.spurious == pytest.approx([1 - 0.7, 1 - 0.9 * 0.6])
    assert compared.evidence.overlooked == pytest.approx([0.6])
    assert compared.planted.overlooked == pytest.approx([0.7, 0.9])
