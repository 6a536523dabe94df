"""The 12 numbers against pycocotools, on random detections and on cases that can be counted by hand."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxwright.data.records import DetectionData, Record
from boxwright.evaluation.coco_metrics import NUMBERS, CocoMetrics, evaluate_detections
from boxwright.structures import Category
from boxwright_runtime.detections import Detections


def make_record(
    image_id: int,
    labels: list[int],
    boxes: Any,
    crowd: list[bool] | None = None,
    segmentations: tuple[Any, ...] = (),
    first_id: int = 1,
    side: int = 256,
) -> Record:
    bbox = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return Record(
        image_id=image_id,
        path=Path(f"{image_id}.png"),
        height=side,
        width=side,
        labels=np.asarray(labels, dtype=np.int64),
        bbox_xywh=bbox,
        area=bbox[:, 2] * bbox[:, 3],
        crowd=np.asarray(crowd or [False] * len(labels), dtype=bool),
        annotation_ids=tuple(range(first_id, first_id + len(labels))),
        segmentations=segmentations,
    )


def make_data(*records: Record, ids: tuple[int, ...] = (1, 2)) -> DetectionData:
    categories = tuple(Category(id_, f"class {id_}") for id_ in ids)
    return DetectionData(records, categories, Path("val.json"))


def make_detections(boxes_xywh: Any, scores: Any, labels: Any) -> Detections:
    boxes = torch.as_tensor(np.asarray(boxes_xywh, dtype=np.float32)).reshape(-1, 4).clone()
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        boxes,
        torch.as_tensor(np.asarray(scores, dtype=np.float32)),
        torch.as_tensor(np.asarray(labels, dtype=np.int64)),
    )


def nothing() -> Detections:
    return make_detections([], [], [])


class Oracle:
    """pycocotools on the same data, with the file's own category ids."""

    def __init__(
        self,
        data: DetectionData,
        detections: dict[int, Detections],
        iou_type: str = "bbox",
    ) -> None:
        ground_truth, detected = COCO(), COCO()
        ids = [category.id for category in data.categories]
        images = [{"id": r.image_id, "height": r.height, "width": r.width} for r in data.records]
        categories = [{"id": id_, "name": "x"} for id_ in ids]
        ground_truth.dataset = {"images": images, "categories": categories, "annotations": []}
        for record in data.records:
            for i, label in enumerate(record.labels):
                annotation = {
                    "id": len(ground_truth.dataset["annotations"]) + 1,
                    "image_id": record.image_id,
                    "category_id": ids[label],
                    "bbox": record.bbox_xywh[i].tolist(),
                    "area": float(record.area[i]),
                    "iscrowd": int(record.crowd[i]),
                }
                if record.segmentations:
                    annotation["segmentation"] = record.segmentations[i]
                ground_truth.dataset["annotations"].append(annotation)
        results = []
        for image_id, d in detections.items():
            for i, (box, score, label) in enumerate(
                zip(d.boxes.tolist(), d.scores.tolist(), d.labels.tolist(), strict=True)
            ):
                x1, y1, x2, y2 = box
                result: dict[str, Any] = {"image_id": image_id, "category_id": ids[label], "score": score}
                of_mask = iou_type == "segm" and d.masks is not None
                result |= {"segmentation": d.masks[i]} if of_mask else {"bbox": [x1, y1, x2 - x1, y2 - y1]}
                results.append(result)
        with contextlib.redirect_stdout(io.StringIO()):
            ground_truth.createIndex()
            if results:
                detected = ground_truth.loadRes(results)
            else:
                detected.dataset = {"images": images, "categories": categories, "annotations": []}
                detected.createIndex()
            self.evaluation = COCOeval(ground_truth, detected, iou_type)
            self.evaluation.evaluate()
            self.evaluation.accumulate()
            self.evaluation.summarize()

    def row(self, label: int) -> list[float]:
        """AP, AP50, APs, APm, APl of one class."""
        p = self.evaluation.eval["precision"][:, :, label, :, 2]
        parts = [p[..., 0], p[0, ..., 0], p[..., 1], p[..., 2], p[..., 3]]
        return [float(x[x > -1].mean()) if (x > -1).any() else -1.0 for x in parts]


def assert_equals_oracle(
    data: DetectionData,
    detections: dict[int, Detections],
    iou_type: Any = "bbox",
) -> CocoMetrics:
    oracle = Oracle(data, detections, iou_type)
    ours = evaluate_detections(data, detections, iou_type=iou_type)
    np.testing.assert_allclose(list(ours.numbers().values()), oracle.evaluation.stats, rtol=0, atol=1e-12)
    for label, row in enumerate(ours.per_class):
        values = [row.AP, row.AP50, row.APs, row.APm, row.APl]
        np.testing.assert_allclose(values, oracle.row(label), rtol=0, atol=1e-12, err_msg=row.name)
        curve = oracle.evaluation.eval["precision"][0, :, label, 0, 2]
        if row.num_objects:
            np.testing.assert_allclose(row.precision50, curve, rtol=0, atol=1e-12)
        else:
            assert row.precision50 == ()
    return ours


def assert_numbers(metrics: CocoMetrics, **expected: float) -> None:
    numbers = metrics.numbers()
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def random_boxes(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Boxes of all three sizes of COCO, some of them beyond the border."""
    sides = np.exp(rng.uniform(np.log(6), np.log(180), (n, 2)))
    return np.concatenate([rng.uniform(-10, side - 20, (n, 2)), sides], 1).round(2)


def random_case(seed: int) -> tuple[DetectionData, dict[int, Detections]]:
    """Ties, crowds, images without objects or detections, a class without objects, > 100 detections."""
    rng = np.random.default_rng(seed)
    records, detections = [], {}
    image_ids = rng.permutation(1000)[:12].tolist()
    for index, image_id in enumerate(image_ids):
        n = 0 if index % 5 == 0 else int(rng.integers(1, 12))
        boxes = random_boxes(rng, n, 256)
        labels = rng.integers(0, 3, n)
        record = make_record(image_id, labels.tolist(), boxes, (rng.random(n) < 0.2).tolist())
        # Objects fill their boxes more or less, so that some are small in a box that is not.
        records.append(replace(record, area=record.area * np.random.default_rng(image_id).uniform(0.2, 1, n)))
        if index % 4 == 1:
            continue
        extra = 250 if index == 2 else int(rng.integers(0, 15))
        again = rng.integers(0, max(n, 1), 2 * n)
        near = boxes[again] + rng.normal(0, 3, (len(again), 4)) if n else np.zeros((0, 4))
        near[:, 2:] = near[:, 2:].clip(1)
        detected = np.concatenate([near, random_boxes(rng, extra, 256)])
        guessed = np.concatenate([labels[again] if n else [], rng.integers(0, 4, extra)])
        # Nine levels of score: most scores are ties, inside an image and between images.
        detections[image_id] = make_detections(detected, rng.integers(1, 10, len(detected)) / 10, guessed)
    return make_data(*records, ids=(3, 7, 18, 90)), detections


@pytest.mark.parametrize("seed", range(12))
def test_boxes_equal_pycocotools(seed: int) -> None:
    data, detections = random_case(seed)
    metrics = assert_equals_oracle(data, detections)
    assert 0 < metrics.AP < 1
    assert metrics.per_class[3].AP == -1
    assert [row.category_id for row in metrics.per_class] == [3, 7, 18, 90]


def test_order_of_ties_is_the_order_of_the_input() -> None:
    record = make_record(1, [0], [[10, 10, 50, 50]])
    good, bad = [10, 10, 50, 50], [150, 150, 50, 50]
    data = make_data(record)
    good_first = {1: make_detections([good, bad], [0.5, 0.5], [0, 0])}
    bad_first = {1: make_detections([bad, good], [0.5, 0.5], [0, 0])}
    assert_numbers(assert_equals_oracle(data, good_first), AP=1.0)
    assert_numbers(assert_equals_oracle(data, bad_first), AP=0.5)


def run_lengths(mask: np.ndarray) -> list[int]:
    """Plain COCO run lengths: column by column, zeros first."""
    runs = [(value, len(list(run))) for value, run in itertools.groupby(mask.ravel(order="F").tolist())]
    return [0] * bool(runs[0][0]) + [length for _, length in runs]


def random_masks(rng: np.random.Generator, boxes: np.ndarray, side: int) -> list[Any]:
    """Polygons, compressed and plain run lengths in turn, all about ellipses in the boxes."""
    masks: list[Any] = []
    ys, xs = np.mgrid[:side, :side] + 0.5
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for i, (x, y, w, h) in enumerate(boxes):
        cx, cy = x + w / 2, y + h / 2
        if i % 3 == 0:
            points = np.stack([cx + w / 2 * np.cos(angles), cy + h / 2 * np.sin(angles)], 1)
            masks.append([points.clip(0, side).ravel().tolist()])
            continue
        inside = ((xs - cx) / (w / 2)) ** 2 + ((ys - cy) / (h / 2)) ** 2 <= 1
        inside &= rng.random((side, side)) < 0.95
        if i % 3 == 1:
            rle = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
            masks.append({"size": rle["size"], "counts": rle["counts"].decode()})
        else:
            masks.append({"size": [side, side], "counts": run_lengths(inside)})
    return masks


@pytest.mark.parametrize("seed", range(4))
def test_masks_equal_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    side = 96
    records, detections = [], {}
    for image_id in range(6):
        n = image_id * 2
        boxes = random_boxes(rng, n, side)
        labels = rng.integers(0, 2, n)
        crowd = rng.random(n) < 0.2
        ground_truth = random_masks(rng, boxes, side)
        records.append(make_record(image_id, labels.tolist(), boxes, crowd.tolist(), tuple(ground_truth), side=side))
        near = np.concatenate([boxes + rng.normal(0, 2, boxes.shape), random_boxes(rng, 5, side)])
        near[:, 2:] = near[:, 2:].clip(2)
        # Results are compressed run lengths.
        masks = tuple(random_masks(rng, near.repeat(3, 0), side)[1::3])
        one = make_detections(
            near, rng.integers(1, 10, len(near)) / 10, np.concatenate([labels, rng.integers(0, 2, 5)])
        )
        detections[image_id] = replace(one, masks=masks)
    data = make_data(*records)
    segm = assert_equals_oracle(data, detections, "segm")
    assert 0 < segm.AP < 1
    assert segm.AP != assert_equals_oracle(data, detections).AP


@pytest.mark.parametrize("images", ["no image", "empty images"])
def test_no_detections_at_all(images: str) -> None:
    data = make_data(make_record(4, [0, 1], [[0, 0, 20, 20], [0, 0, 60, 60]]), make_record(9, [], []))
    detections = {} if images == "no image" else {4: nothing(), 9: nothing()}
    metrics = assert_equals_oracle(data, detections)
    assert_numbers(metrics, AP=0.0, APs=0.0, APm=0.0, APl=-1.0, AR100=0.0, ARl=-1.0)
    assert [len(note) > 0 for note in metrics.notes] == [True] * (images == "no image")


def test_no_objects_at_all() -> None:
    data = make_data(make_record(4, [], []))
    metrics = assert_equals_oracle(data, {4: make_detections([[1, 1, 5, 5]], [0.5], [1])})
    assert set(metrics.numbers().values()) == {-1.0}
    assert metrics.notes == ("Classes without objects in this data, left out of the means: 2 of 2.",)


def test_no_images() -> None:
    metrics = evaluate_detections(make_data(), {})
    assert set(metrics.numbers().values()) == {-1.0}


def test_detections_on_a_crowd_region_do_not_count() -> None:
    record = make_record(1, [0, 0], [[10, 10, 40, 40], [100, 100, 120, 120]], [False, True])
    boxes = [[110, 110, 30, 30], [150, 150, 30, 30], [10, 10, 40, 40]]
    detections = {1: make_detections(boxes, [0.9, 0.8, 0.7], [0, 0, 0])}
    metrics = assert_equals_oracle(make_data(record), detections)
    assert_numbers(metrics, AP=1.0)
    assert metrics.per_class[0].num_objects == 1


def test_boxes_are_those_of_the_file_not_clipped_ones() -> None:
    data = make_data(make_record(1, [0], [[-20, 0, 40, 40]]))
    # Against the clipped box the overlap is 1, against the file's it is 0.5.
    metrics = assert_equals_oracle(data, {1: make_detections([[0, 0, 20, 40]], [0.9], [0])})
    assert_numbers(metrics, AP=0.1)


def test_an_annotation_with_id_0_is_detected() -> None:
    data = make_data(make_record(1, [0], [[10, 10, 50, 50]], first_id=0))
    metrics = evaluate_detections(data, {1: make_detections([[10, 10, 50, 50]], [0.9], [0])})
    assert_numbers(metrics, AP=1.0)


def many(labels: list[int]) -> tuple[DetectionData, dict[int, Detections]]:
    boxes = [[12 * (i % 20), 12 * (i // 20), 10, 10] for i in range(len(labels))]
    data = make_data(make_record(1, labels, boxes))
    return data, {1: make_detections(boxes, np.linspace(0.9, 0.1, len(labels)), labels)}


def test_more_than_100_objects_of_one_class_are_reported() -> None:
    metrics = assert_equals_oracle(*many([0] * 120))
    assert_numbers(metrics, AR100=100 / 120)
    assert metrics.notes[1:] == (
        "Images with more than 100 objects of one class: 1. "
        "COCO counts the best 100 detections per image and class, so 20 of 120 objects cannot be found, "
        "and AR100 cannot reach 1.",
        "Images with more than 100 detections of one class, of which the best 100 count: 1.",
    )


def test_more_than_coco_counts() -> None:
    """The default numbers stay COCO's; with a higher limit nothing is hidden, and the number has another name."""
    data, detections = many([0] * 120)
    metrics = evaluate_detections(data, detections, max_detections=120)
    assert metrics.numbers()["AR120"] == 1.0
    assert "AR100" not in metrics.numbers()
    assert metrics.numbers()["AP"] == pytest.approx(1.0)
    assert metrics.notes[1:] == (
        "Counted are the best 120 detections per image and class, where COCO counts 100: the numbers are not COCO's.",
    )
    with pytest.raises(ValueError, match="max_detections is at least 10, for AR10, not 9"):
        evaluate_detections(data, detections, max_detections=9)


def test_the_cap_of_100_is_per_class() -> None:
    metrics = assert_equals_oracle(*many([0, 1] * 60))
    assert_numbers(metrics, AP=1.0, AR100=1.0)
    assert metrics.notes == ()


def test_json_holds_the_12_numbers_and_the_classes() -> None:
    metrics = evaluate_detections(
        make_data(make_record(1, [0], [[10, 10, 50, 50]])),
        {1: make_detections([[10, 10, 50, 50]], [0.9], [0])},
    )
    read = json.loads(json.dumps(metrics.to_json()))
    assert list(read) == [*NUMBERS, "per_class"]
    assert (read["AP"], read["APs"]) == (pytest.approx(1.0), -1.0)
    one = pytest.approx(1.0)
    assert read["per_class"] == [
        {"name": "class 1", "category_id": 1, "num_objects": 1}
        | {"AP": one, "AP50": one, "APs": -1.0, "APm": one, "APl": -1.0, "AP75": one, "AR": one},
        {"name": "class 2", "category_id": 2, "num_objects": 0}
        | {"AP": -1.0, "AP50": -1.0, "APs": -1.0, "APm": -1.0, "APl": -1.0, "AP75": -1.0, "AR": -1.0},
    ]


class TestErrors:
    data = make_data(make_record(1, [0], [[10, 10, 50, 50]]))

    def test_unknown_image(self) -> None:
        with pytest.raises(ValueError, match=r"val\.json: there is no image 8, for which"):
            evaluate_detections(self.data, {8: nothing()})

    @pytest.mark.parametrize(("box", "score"), [([0, 0, float("nan"), 4], 0.5), ([0, 0, 4, 4], float("inf"))])
    def test_not_finite(self, box: list[float], score: float) -> None:
        with pytest.raises(ValueError, match="image 1: a detection's box or score is not a finite number"):
            evaluate_detections(self.data, {1: make_detections([box], [score], [0])})

    @pytest.mark.parametrize("label", [-1, 2])
    def test_label_without_class(self, label: int) -> None:
        with pytest.raises(ValueError, match=f"a detection has label {label}, but val.json has only the 2 classes"):
            evaluate_detections(self.data, {1: make_detections([[0, 0, 4, 4]], [0.5], [label])})

    def test_no_segmentation(self) -> None:
        with pytest.raises(ValueError, match=r"val\.json: annotation 1 of image 1 has no segmentation"):
            evaluate_detections(self.data, {}, iou_type="segm")

    def test_no_masks(self) -> None:
        square = ([[10, 10, 60, 10, 60, 60, 10, 60]],)
        data = make_data(make_record(1, [0], [[10, 10, 50, 50]], segmentations=square))
        with pytest.raises(ValueError, match="image 1 has 1 detections and 0 masks"):
            evaluate_detections(data, {1: make_detections([[0, 0, 4, 4]], [0.5], [0])}, iou_type="segm")


def test_objects_that_were_dropped_are_missed() -> None:
    """They lie outside of their image, and pycocotools counts them all the same."""
    whole = make_data(make_record(1, [0, 0, 1], [[10, 10, 50, 50], [300, 20, 30, 30], [80, 80, 40, 40]]))
    detections = {1: make_detections([[10, 10, 50, 50], [80, 80, 40, 40]], [0.9, 0.8], [0, 1])}
    dropped = make_record(1, [0], [[300, 20, 30, 30]])
    kept = make_record(1, [0, 1], [[10, 10, 50, 50], [80, 80, 40, 40]])
    ours = evaluate_detections(replace(whole, records=(kept,), dropped=(dropped,)), detections)
    assert ours.numbers() == assert_equals_oracle(whole, detections).numbers()
    assert [row.num_objects for row in ours.per_class] == [2, 1]
    assert ours.AR100 == 0.75
