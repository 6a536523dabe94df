"""Check of what the network will see, on data with known answers and on real sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.workflows.check_network import HIDDEN_OBJECTS, STRETCHED_IMAGES, UPSAMPLED_IMAGES, check_network
from boxwright.workflows.class_views import DROPPED_OBJECTS, SMALL_OBJECTS, UNFIT_ANCHORS
from heard import Heard
from object_records import make_record, of_records

SHARED = Path(__file__).parents[3] / "shared" / "data"


def tiny(**overrides: Any) -> Recipe:
    return resolve("rtdetr_tiny", overrides).recipe


def sheet_music() -> DetectionData:
    """Pages of 3200 x 2240 pixels: note heads, stems of 2 pixels, and one clef of readable size."""
    rng = np.random.default_rng(0)
    records = []
    for page in range(6):
        corners = rng.uniform(0, 2000, (90, 2))
        sizes = [(30, 26)] * 60 + [(2, 90)] * 29 + [(90, 200)]
        boxes = [(x, y, w, h) for (x, y), (w, h) in zip(corners.tolist(), sizes, strict=True)]
        records.append(make_record((3200, 2240), boxes, [0] * 60 + [1] * 29 + [2], image_id=page))
    return of_records(records, "head", "stem", "clef")


def test_sheet_music_at_320_pixels() -> None:
    """30 x 26 pixels become 4.3 x 2.6, stems 0.29 wide, which training drops; clefs are 12.9."""
    recipe = tiny(**{"image_size": 320, "head.num_queries": 30})
    check = check_network(sheet_music(), recipe)
    head, stem, clef = check.classes
    assert (head.objects, head.small, head.tiny) == (360, 360, 0)
    assert head.median_side == pytest.approx(2.6)
    assert (stem.small, stem.tiny, stem.small_in_image) == (174, 174, 174)
    assert (stem.drawn.total, stem.drawn.dropped) == (174, 174)
    assert (clef.small, clef.drawn.dropped) == (0, 0)
    assert clef.mending_size is None
    assert head.mending_size == 992  # 320 * 8 / 2.6 = 984.6
    assert stem.mending_size == 8960  # 8 pixels in the image itself are 4 of its pixels for one
    kinds = {(finding.kind, finding.subject) for finding in check.findings}
    assert {(SMALL_OBJECTS, "head"), (SMALL_OBJECTS, "stem"), (DROPPED_OBJECTS, "stem")} <= kinds
    assert (DROPPED_OBJECTS, "head") not in kinds
    assert not any(name == "clef" for _, name in kinds)
    lines = check.lines()
    assert "534 of 540 (98.9%) below 8 pixels, 174 of 540 (32.2%) below 1" in lines[1]
    assert "6 images drawn" in lines[2]
    details = [finding.detail for finding in check.findings if finding.subject == "stem"]
    assert any("174 of 174 (100.0%) objects dropped as smaller than a pixel" in detail for detail in details)
    brief = check.brief()
    assert len(brief) == 2
    assert brief[1].startswith("objects dropped in every epoch, as smaller than a pixel: stem 100%; ")


def test_large_objects_have_no_finding() -> None:
    data = of_records([make_record((160, 160), [(10, 10, 60, 60), (50, 50, 40, 90)])] * 4)
    check = check_network(data, tiny())
    assert check.findings == ()
    assert check.brief() == []
    assert len(check.lines()) == 3


def test_limits_of_every_split_are_named() -> None:
    many = make_record((160, 160), [(i, i, 20, 20) for i in range(140)])
    few = make_record((160, 160), [(9, 9, 20, 20)])
    check = check_network({"val": of_records([many]), "train": of_records([few])}, tiny())
    limits = [(split, one) for split, one in check.split_findings if one.kind is HIDDEN_OBJECTS]
    assert [(split, one.subject) for split, one in limits] == [("val", "head.num_queries"), ("val", "COCO's metrics")]
    assert "110 of 140 objects" in limits[0][1].detail
    assert "40 of 140 objects" in limits[1][1].detail
    assert check.split == "train"


def test_images_that_grow_and_images_that_change_shape() -> None:
    data = of_records([make_record((60, 70), [(1, 1, 30, 30)])] * 3 + [make_record((100, 400), [(1, 1, 90, 90)])])
    check = check_network(data, tiny())
    assert {(finding.kind, finding.detail) for finding in check.findings} == {
        (UPSAMPLED_IMAGES, "75%"),
        (STRETCHED_IMAGES, "25%"),
    }
    assert check.brief() == []


def test_anchors_that_fit_no_object() -> None:
    lines = of_records([make_record((640, 640), [(0, 40 * i, 600, 12) for i in range(12)])] * 2, "line")
    recipe = resolve("retinanet_r18_fpn", {"backbone.width": 8, "neck.out_channels": 16}).recipe
    check = check_network(lines, recipe)
    assert [finding.kind for finding in check.findings] == [UNFIT_ANCHORS]
    assert check.classes[0].anchors.below_negative == 24
    assert "24 of 24 (100.0%) objects have no anchor of their shape or size" in check.findings[0].detail
    assert len(check.brief()) == 1


def test_a_detector_is_not_built_again() -> None:
    data = of_records([make_record((160, 160), [(10, 10, 60, 60)])])
    heard = Heard()
    detector = build_resolved(tiny(), categories=data.categories)
    assert check_network(data, detector, observer=heard).lines() == check_network(data, tiny()).lines()
    detector.recipe = None
    with pytest.raises(ValueError, match="put together by hand"):
        check_network(data, detector)
    with pytest.raises(ValueError, match="no split"):
        check_network({}, tiny())


def test_data_without_objects_or_images() -> None:
    for data in (of_records([]), of_records([make_record((50, 90), [])] * 3)):
        check = check_network(data, tiny())
        assert check.all_classes is not None
        assert check.all_classes.objects == 0
        assert not [finding for finding in check.findings if finding.kind.severity == "warning"]
    skipped = tiny(**{"train.batches.skip_empty_images": True})
    assert check_network(of_records([make_record((50, 90), [])]), skipped).sampled_images == 0


def test_a_classifier_has_no_small_objects() -> None:
    recipe = resolve("resnet18_classifier", {"backbone.width": 8}).recipe
    check = check_network(of_records([make_record((500, 500), [(0, 0, 500, 500)])] * 2, "a", "b"), recipe)
    assert check.classes == ()
    assert check.all_classes is None
    assert len(check.lines()) == 1


@pytest.mark.parametrize(("name", "split"), [("bccd", "val"), ("deeppcb", "val")])
def test_real_sets_without_trouble_have_no_finding(name: str, split: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the real data set {name!r} is not beside the repository")
    data = open_data(SHARED / name, split, check_images=False)
    recipe = resolve("rtdetr_tiny", {"image_size": 640, "head.num_queries": 300}).recipe
    assert check_network(data, recipe).findings == ()


@pytest.mark.slow
def test_more_nuclei_than_queries_and_detections() -> None:
    if not (SHARED / "nuclei").is_dir():
        pytest.skip("the real data set 'nuclei' is not beside the repository")
    data = open_data(SHARED / "nuclei", "train", check_images=False)
    recipe = resolve("rtdetr_tiny", {"image_size": 640, "head.num_queries": 300}).recipe
    check = check_network(data, recipe)
    limits = [finding.detail for finding in check.findings if finding.kind is HIDDEN_OBJECTS]
    assert "144 of 23,125 objects cannot be found" in limits[0]
    assert "the most in an image are 375" in limits[0]
    assert "Images with more than 100 objects of one class: 52" in limits[-1]
    assert check.upsampled == pytest.approx(0.67, abs=0.01)
