"""Objects that a limit hides: counted, and reported in one line."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.data.masks import decode_image_masks
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData, Record
from boxwright.dense.options import DenseDetectionOptions
from boxwright.evaluation.coco_metrics import evaluate_detections
from boxwright.evaluation.limits import Beyond, class_totals, coco_limit, head_limits, objects_per_class
from boxwright.heads.cascade_rcnn import CascadeRCNN
from boxwright.heads.efficientdet import EfficientDet
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.heads.fcos import FCOS
from boxwright.heads.mask_rcnn import MaskRCNN
from boxwright.heads.retinanet import RetinaNet
from boxwright.ops.masks import encode_mask
from boxwright.regions.options import DetectionOptions, RPNOptions
from boxwright.regions.two_stage import TwoStageHead
from boxwright.structures import Category, Level, ObjectLimit
from boxwright_runtime.detections import Detections

NUCLEI = Path(__file__).parents[3] / "shared" / "data" / "nuclei"


def make_data(*counts: tuple[int, int]) -> DetectionData:
    """Images with so many objects of two classes, and as many crowd regions, which do not count."""
    records = []
    for image_id, (first, second) in enumerate(counts):
        labels = np.repeat([0, 1, 0], [first, second, first])
        boxes = np.tile([[1.0, 1, 5, 5]], (len(labels), 1))
        crowd = np.arange(len(labels)) >= first + second
        ids = tuple(range(len(labels)))
        records.append(
            Record(image_id, Path("a.png"), 9, 9, labels.astype(np.int64), boxes, boxes[:, 2] * 5, crowd, ids)
        )
    return DetectionData(tuple(records), (Category(1, "a"), Category(2, "b")), Path("val.json"))


@dataclass
class Limited:
    """A head with these limits, by the names of its options."""

    limits: dict[str, int]

    def object_limits(self) -> list[ObjectLimit]:
        return [ObjectLimit(option, limit) for option, limit in self.limits.items()]

    def raise_limits(self, max_detections: int) -> None:
        raise NotImplementedError


def test_what_a_limit_hides() -> None:
    data = make_data((7, 0), (3, 5), (0, 0), (2, 1))
    counts = [objects_per_class(record) for record in data.records]
    assert [own.tolist() for own in counts] == [[7], [3, 5], [], [2, 1]]
    assert class_totals(data).tolist() == [12, 6]
    assert Beyond.of(counts, 4) == Beyond(images=2, objects=4, total=18, most=7)
    assert Beyond.of([own.sum(keepdims=True) for own in counts], 4) == Beyond(images=2, objects=7, total=18, most=8)
    assert Beyond.of(counts, 7).objects == 0
    assert Beyond.of([], 4) == Beyond(0, 0, 0, 0)
    assert class_totals(make_data()).tolist() == [0, 0]


def test_every_option_of_a_head_that_hides_objects_has_its_line() -> None:
    data = make_data((7, 0), (3, 5), (0, 0), (2, 1))
    assert head_limits(data, Limited({"num_queries": 8, "detection.max_detections": 5})) == {
        "detection.max_detections": "val.json: 2 of 4 images have more than 5 objects: 5 of 18 objects cannot be found "
        "(head.detection.max_detections is 5 in prediction; the most in an image are 8)"
    }
    assert list(head_limits(data, Limited({"num_queries": 7, "detection.max_detections": 5}))) == [
        "num_queries",
        "detection.max_detections",
    ]
    assert head_limits(data, object()) == {}


def make_two_stage(head: type[TwoStageHead], pre_nms_top_k: int, post_nms_top_k: int) -> TwoStageHead:
    rpn = RPNOptions(pre_nms_top_k=(1000, pre_nms_top_k), post_nms_top_k=(1000, post_nms_top_k))
    options: dict[str, Any] = {"rpn": rpn, "detection": DetectionOptions(max_detections=1000)}
    return head({"c4": Level(4, 16)}, 2, **options)


@pytest.mark.parametrize("head", [FasterRCNN, MaskRCNN, CascadeRCNN])
def test_a_two_stage_head_finds_no_more_than_it_proposes(head: type[TwoStageHead]) -> None:
    limited = make_two_stage(head, 2000, 500)
    assert head_limits(make_data((600, 0), (400, 100)), limited) == {
        "rpn.post_nms_top_k": "val.json: 1 of 2 images have more than 500 objects: 100 of 1,100 objects cannot be "
        "found (head.rpn.post_nms_top_k is 500 in prediction; the most in an image are 600)"
    }
    assert head_limits(make_data((500, 0)), limited) == {}


@pytest.mark.parametrize("head", [FasterRCNN, MaskRCNN, CascadeRCNN])
def test_a_two_stage_head_finds_no_more_of_a_level_than_it_looks_at(head: type[TwoStageHead]) -> None:
    assert head_limits(make_data((600, 0), (100, 0)), make_two_stage(head, 100, 1000)) == {
        "rpn.pre_nms_top_k": "val.json: 1 of 2 images have more than 100 objects: 500 of 700 objects cannot be found "
        "where those of an image share a level, as objects of one size do "
        "(head.rpn.pre_nms_top_k is 100 in prediction; the most in an image are 600)"
    }


@pytest.mark.parametrize("head", [RetinaNet, FCOS, EfficientDet])
def test_a_dense_head_finds_no_more_than_it_looks_at(head: type[RetinaNet]) -> None:
    limited = head({"c4": Level(4, 16)}, 2, detection=DenseDetectionOptions(pre_nms_top_k=5, max_detections=9))
    lines = head_limits(make_data((7, 0), (2, 1)), limited)
    assert list(lines) == ["detection.pre_nms_top_k"]
    line = lines["detection.pre_nms_top_k"]
    assert "2 of 10 objects cannot be found" in line
    assert ("where those of an image share a level, as" in line) == limited.limit_per_level
    assert "(head.detection.pre_nms_top_k is 5 in prediction; the most in an image are 7)" in line


@pytest.mark.parametrize("head", [FasterRCNN, MaskRCNN, CascadeRCNN])
def test_limits_of_a_two_stage_head_can_be_raised(head: type[TwoStageHead]) -> None:
    limited = make_two_stage(head, 100, 100)
    limited.raise_limits(600)
    assert head_limits(make_data((600, 0)), limited) == {}


@pytest.mark.parametrize("head", [RetinaNet, FCOS, EfficientDet])
def test_limits_of_a_dense_head_can_be_raised(head: type[RetinaNet]) -> None:
    limited = head({"c4": Level(4, 16)}, 2)
    limited.raise_limits(2000)
    assert head_limits(make_data((2000, 0)), limited) == {}


def test_images_are_counted_one_by_one() -> None:
    """Of very many classes there is never a table with a row for each image."""
    few = make_data((3, 5))
    many = replace(few, records=few.records * 500, categories=tuple(Category(i, str(i)) for i in range(2000)))
    tracemalloc.start()
    assert coco_limit(many) is None
    assert list(head_limits(many, Limited({"num_queries": 7}))) == ["num_queries"]
    assert class_totals(many)[:3].tolist() == [1500, 2500, 0]
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_cocos_limit_is_per_class() -> None:
    assert coco_limit(make_data((100, 100))) is None
    line = coco_limit(make_data((101, 100), (150, 3)))
    assert line is not None
    assert "one class: 2. COCO counts the best 100 detections per image and class, so 51 of 354 objects" in line
    assert coco_limit(make_data((101, 100)), 101) is None


@pytest.fixture(scope="module")
def nuclei() -> DetectionData:
    """Every dense image of a real data set and some others, with exact masks."""
    if not NUCLEI.is_dir():
        pytest.skip("the real data set 'nuclei' is not beside the repository")
    data = open_data(NUCLEI, "val_rle", check_images=False)
    chosen = [r for i, r in enumerate(data.records) if i < 20 or len(r.labels) > 100]
    return DetectionData(tuple(chosen), data.categories, data.source)


@pytest.fixture(scope="module")
def perfect(nuclei: DetectionData) -> dict[int, Detections]:
    """Detections of a detector that finds every object exactly."""
    detections = {}
    for record in nuclei.records:
        boxes, labels = torch.from_numpy(record.boxes()), torch.from_numpy(record.labels)
        masks = tuple(encode_mask(mask) for mask in decode_image_masks(record))
        detections[record.image_id] = Detections(boxes, torch.linspace(1, 0.5, len(labels)), labels, masks)
    return detections


def test_masks_of_a_real_file_have_their_areas(nuclei: DetectionData) -> None:
    record = nuclei.records[0]
    assert decode_image_masks(record).sum((1, 2)).tolist() == record.area.tolist()


def test_perfect_masks_have_ap_1_up_to_the_limit_which_is_reported(
    nuclei: DetectionData, perfect: dict[int, Detections]
) -> None:
    sparse = replace(nuclei, records=tuple(r for r in nuclei.records if len(r.labels) <= 100))
    metrics = evaluate_detections(sparse, {r.image_id: perfect[r.image_id] for r in sparse.records}, iou_type="segm")
    assert metrics.numbers()["AP"] == pytest.approx(1.0, abs=1e-12)
    assert metrics.notes == ()

    beyond = Beyond.of(map(objects_per_class, nuclei.records), 100)
    assert (beyond.images, beyond.most) == (13, 313)
    capped = evaluate_detections(nuclei, perfect, iou_type="segm")
    recall = 1 - beyond.objects / beyond.total
    assert capped.numbers()["AR100"] == pytest.approx(recall, abs=1e-12)
    # Of 101 positions on the axis of recall, those that are reached have precision 1.
    assert capped.numbers()["AP"] == pytest.approx((int(100 * recall) + 1) / 101, abs=1e-12)
    assert any(f"so {beyond.objects:,} of {beyond.total:,} objects cannot be found" in n for n in capped.notes)

    whole = evaluate_detections(nuclei, perfect, iou_type="segm", max_detections=beyond.most)
    assert whole.numbers()["AP"] == pytest.approx(1.0, abs=1e-12)
