"""Results files of any project: all 24 numbers against pycocotools, without images; and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import boxwright

SIDES = (96, 150)  # height, width
IDS = (3, 7, 90)


def random_mask(generator: np.random.Generator) -> dict[str, Any]:
    """A rectangle with a hole, as run lengths; also in two columns at once, and sometimes of no pixel."""
    mask = np.zeros(SIDES, dtype=np.uint8, order="F")
    top, left = generator.integers(0, SIDES[0] - 8), generator.integers(0, SIDES[1] - 8)
    mask[top : top + generator.integers(0, 70), left : left + generator.integers(1, 70)] = 1
    mask[top + 2 : top + 4, left + 2 : left + 4] = 0
    rle = coco_mask.encode(mask)
    return {"size": list(SIDES), "counts": rle["counts"].decode()}


def draw_ground_truth(folder: Path, seed: int) -> Path:
    """An annotation file with crowds, a box without area, one outside of its image and an image without objects."""
    generator = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for image_id in range(10, 22):
        for _ in range(generator.integers(0, 6)):
            rle = random_mask(generator)
            box = coco_mask.toBbox(rle).tolist()
            crowd = bool(generator.random() < 0.1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(generator.choice(IDS)),
                    "bbox": box,
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": int(crowd),
                    "segmentation": rle,
                }
            )
    whole = coco_mask.encode(np.ones(SIDES, dtype=np.uint8, order="F"))
    whole = {"size": list(SIDES), "counts": whole["counts"].decode()}
    for box in ([5.0, 5.0, 0.0, 10.0], [160.0, 20.0, 30.0, 30.0]):
        row = {"id": len(annotations) + 1, "image_id": 11, "category_id": 7, "bbox": box, "iscrowd": 0}
        annotations.append({**row, "area": box[2] * box[3], "segmentation": whole})
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIDES[0], "width": SIDES[1]} for i in range(10, 23)]
    categories = [{"id": id_, "name": f"class {id_}"} for id_ in IDS]
    path = folder / "gt.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def draw_results(ground_truth: Path, keys: tuple[str, ...], seed: int) -> list[dict[str, Any]]:
    """Objects moved a little, some of another class, doubled or invented; equal scores; in no order."""
    generator = np.random.default_rng(seed)
    rows = []
    for one in json.loads(ground_truth.read_text())["annotations"]:
        for _ in range(generator.integers(0, 3)):
            rle = random_mask(generator) if generator.random() < 0.3 else one["segmentation"]
            box = (np.array(one["bbox"]) + generator.normal(0, 2, 4)).clip(0).round(2).tolist()
            category = one["category_id"] if generator.random() < 0.8 else int(generator.choice(IDS))
            row = {"image_id": one["image_id"], "category_id": category, "score": round(generator.random(), 1)}
            rows.append({**row, **{key: {"bbox": box, "segmentation": rle}[key] for key in keys}})
    return [rows[index] for index in generator.permutation(len(rows))]


def oracle(ground_truth: Path, results: Path, iou_type: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO(ground_truth)
        evaluation = COCOeval(data, data.loadRes(str(results)), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


@pytest.mark.parametrize("keys", [("bbox",), ("segmentation",), ("bbox", "segmentation")])
@pytest.mark.parametrize("seed", [0, 1])
def test_all_numbers_are_those_of_pycocotools(tmp_path: Path, keys: tuple[str, ...], seed: int) -> None:
    ground_truth, results = draw_ground_truth(tmp_path, seed), tmp_path / "results.json"
    results.write_text(json.dumps(draw_results(ground_truth, keys, seed)))
    files = boxwright.DataFiles(annotations={"val": ground_truth})
    with pytest.warns(UserWarning, match="without area inside their image"):
        evaluation = boxwright.evaluate_results(results, files)
    boxes = list(evaluation.boxes.numbers().values())
    np.testing.assert_allclose(boxes, oracle(ground_truth, results, "bbox"), rtol=0, atol=1e-12)
    assert 0.05 < evaluation.boxes.AP < 0.95
    assert (evaluation.masks is None) == (keys == ("bbox",))
    if evaluation.masks is not None:
        masks = list(evaluation.masks.numbers().values())
        np.testing.assert_allclose(masks, oracle(ground_truth, results, "segm"), rtol=0, atol=1e-12)


ROW = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}
RLE = {"size": [4, 6], "counts": [24]}


def small_data(folder: Path) -> boxwright.DataFiles:
    path = folder / "gt.json"
    images = [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}]
    annotations = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 2]}]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cell"}]})
    )
    return boxwright.DataFiles(annotations={"val": path})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"annotations": []}', "a list of rows with image_id, category_id, bbox and score: it holds an object with "),
        ([ROW, 7], "row 2 of 2: 7 is no object with"),
        ([ROW, {**ROW, "image_id": 2}], "row 2 of 2: image_id 2: the annotations have no such image"),
        ([{**ROW, "image_id": "1"}], 'image_id is "1", not a whole number'),
        ([{**ROW, "image_id": True}], "image_id is true, not a whole number"),
        ([{**ROW, "category_id": 0}], "category_id 0: the annotations have no such category"),
        ([{key: ROW[key] for key in ("image_id", "category_id", "bbox")}], "no score"),
        ([{**ROW, "score": float("nan")}], "score is NaN, not a finite number"),
        ([{**ROW, "score": "0.5"}], 'score is "0.5", not a finite number'),
        ([{**ROW, "bbox": [1, 2, 3]}], r"bbox is \[1, 2, 3\], not \[left, top, width, height\]"),
        ([{**ROW, "bbox": [1, 2, 3, float("inf")]}], "Infinity"),
        ([{**ROW, "bbox": [5, 5, -3, 4]}], "negative width or height"),
        ([ROW, {**ROW, "bbox": None}], "row 2 of 2: bbox is null"),
        ([{**ROW, "segmentation": [[1, 1, 2, 2, 1, 2]]}], "not run lengths with size and counts"),
        ([{**ROW, "segmentation": {**RLE, "size": [6, 4]}}], r"size \[6, 4\], and its image \[4, 6\]"),
        ([{**ROW, "segmentation": {**RLE, "counts": [25]}}], "do not add up"),
        ([{**ROW, "segmentation": {**RLE, "counts": [30, -6]}}], "do not add up"),
        ([{**ROW, "segmentation": {**RLE, "counts": "~~~"}}], "no letter of compressed counts"),
    ],
)
def test_faults_are_named(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        boxwright.evaluate_results(path, small_data(tmp_path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_no_file_and_no_detections(tmp_path: Path) -> None:
    files, path = small_data(tmp_path), tmp_path / "results.json"
    with pytest.raises(FileNotFoundError, match="no such results file"):
        boxwright.evaluate_results(path, files)
    path.write_text("[]")
    boxes = boxwright.evaluate_results(path, files).boxes
    numbers = boxes.numbers()
    assert "Images not predicted, counted as without detections: 1 of 1." in boxes.notes
    assert (numbers["AP"], numbers["AR100"]) == (0.0, 0.0)
