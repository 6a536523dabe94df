"""The verdict on learning: by hand, and of a small detector on images with right and with wrong boxes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.data.findings import FindingKind
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.evaluation.agreement import Agreement
from boxwright.training.overfit import OverfitResult
from boxwright.workflows.check_learning import (
    DOES_NOT_LEARN,
    LEARNED_BOXES_ONLY,
    LEARNED_BY_HEART,
    LearningCheck,
    check_learning,
)
from exchanged_annotations import exchange_classes, exchange_objects
from heard import Heard
from object_records import make_record, of_records


def learned(
    after: float, *losses: float, steps: int = 100, unseen: Agreement | None = None, is_frozen: bool = False
) -> LearningCheck:
    return LearningCheck(
        images=("a.png", "b.png"),
        objects=7,
        classes=(2, 3),
        metric="AP50",
        before=0.0,
        after=after,
        result=OverfitResult(losses, steps, 9.0),
        unseen=unseen,
        is_frozen=is_frozen,
    )


def test_enough_ap_or_half_the_loss_is_learning() -> None:
    assert learned(0.5, 4.0, 3.0, 3.9).verdict == "learns"
    assert learned(0.1, 4.0, 3.0, 2.0).verdict == "learns"
    check = learned(0.5, 4.0, 2.0, 1.0, unseen=Agreement(8, 3.5, None))
    assert (check.verdict, check.findings) == ("learns", ())
    assert check.lines() == [
        "2 images with 7 objects of 2 of 3 classes, learned by heart in 100 steps (9 s): AP50 0.00 to 0.50, loss 4 to "
        "1 (25%)",
        "8 other images: agreement in standard deviations of that with exchanged ones, at least 3 where something "
        "holds for them: boxes +3.5",
        "verdict: learns: training on all images is worth its time",
    ]


def test_nothing_learned_in_time_enough_is_a_finding() -> None:
    check = learned(0.1, 4.0, 3.5, 3.4)
    assert check.verdict == "does not learn"
    assert [finding.kind for finding in check.findings] == [DOES_NOT_LEARN]
    assert "try a higher --train.lr" in check.lines()[-1]


@pytest.mark.parametrize(
    ("check", "word"),
    [
        (learned(0.1, 4.0, 3.5, 3.4, steps=20), "20 steps in 9 s were too few"),
        (learned(0.1, 4.0, 3.5, 3.0), "100 steps in 9 s were too few"),
        (learned(0.1, 4.0, 3.5, 3.4, is_frozen=True), "--weights"),
        (learned(0.1, 4.0, 1.0, 1.0, unseen=Agreement(8, 0.3, None)), "100 steps in 9 s were too few"),
    ],
)
def test_too_little_time_or_no_weights_is_no_verdict(check: LearningCheck, word: str) -> None:
    assert (check.verdict, check.findings) == ("unclear", ())
    assert word in check.lines()[-1]


@pytest.mark.parametrize(
    ("unseen", "verdict", "kind", "end"),
    [
        (Agreement(8, 2.9, 9.0), "learns by heart only", LEARNED_BY_HEART, "boxes +2.9, classes +9.0"),
        (Agreement(8, 9.0, -0.2), "learns boxes only", LEARNED_BOXES_ONLY, "boxes +9.0, classes -0.2"),
    ],
)
def test_no_agreement_with_other_images_is_a_finding(
    unseen: Agreement, verdict: str, kind: FindingKind, end: str
) -> None:
    check = learned(0.9, 4.0, 2.0, 1.0, unseen=unseen)
    assert check.verdict == verdict
    assert [finding.kind for finding in check.findings] == [kind]
    assert check.findings[0].detail.endswith(end)


def test_boxes_of_classifiers_tell_nothing() -> None:
    check = replace(learned(0.9, 4.0, 2.0, 1.0, unseen=Agreement(8, 0.0, 3.1)), metric="top1")
    assert check.verdict == "learns"
    assert check.lines()[1].endswith(": classes +3.1")
    assert replace(check, unseen=Agreement(8, 0.0, 2.9)).verdict == "learns by heart only"


def test_data_without_objects() -> None:
    with pytest.raises(ValueError, match=r"train\.json: no image has an object"):
        check_learning(of_records([make_record((50, 50), [])]), resolve("rtdetr_tiny").recipe)


COMMON: dict[str, Any] = {
    "image_size": 64,
    "train.batch_size": 8,
    "train.lr": 2e-3,
    "train.runtime.device": "cpu",
    "train.runtime.precision": "float32",
}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "query": (
        "rtdetr_tiny",
        {"backbone.width": 16, "neck.hidden_dim": 64, "head.hidden_dim": 64, "head.num_queries": 12},
    ),
    "dense": ("retinanet_r18_fpn", {"backbone.width": 16, "neck.out_channels": 32, "head.channels": 32}),
    "two-stage": (
        "faster_rcnn_r18_fpn",
        {
            "backbone.width": 16,
            "neck.out_channels": 32,
            "head.boxes.hidden_dim": 64,
            "head.roi.num_samples": 32,
            "head.rpn.pre_nms_top_k": [100, 100],
            "head.rpn.post_nms_top_k": [50, 50],
        },
    ),
}


def small(family: str = "two-stage", **overrides: Any) -> Recipe:
    name, options = FAMILIES[family]
    return resolve(name, COMMON | options | overrides).recipe


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    folder = tmp_path_factory.mktemp("drawn")
    draw_data_set(folder, train=18, val=1, image_size=64, seed=3)
    return open_data(folder, "train")


def test_a_trial_leaves_a_given_detector_as_it_is(drawn: DetectionData) -> None:
    detector = build_resolved(small(), categories=drawn.categories)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    check = check_learning({"train": drawn}, detector, max_steps=2, observer=Heard())
    assert (check.result.steps, len(check.images)) == (2, 8)
    assert check.unseen is not None
    assert check.unseen.images == 10
    assert check.verdict == "unclear"
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


def test_a_rate_of_nearly_nothing_learns_nothing(drawn: DetectionData) -> None:
    check = check_learning(drawn, small(**{"train.lr": 1e-12}), max_steps=40)
    assert check.verdict == "does not learn", check.lines()


def test_without_time_there_is_one_pass_over_the_images(drawn: DetectionData) -> None:
    few = replace(drawn, records=drawn.records[:7])
    check = check_learning(few, small(**{"train.batch_size": 3}), limit_seconds=0.0)
    assert check.result.steps == 3  # 7 images, 3 at once
    assert len(check.result.losses) == 1
    assert check.unseen is None


def colored_squares(count: int = 40) -> DetectionData:
    """Images of noise, each with a red or a blue square, or with both."""
    random = np.random.default_rng(0)
    records = []
    for index in range(count):
        labels = random.permutation(2)[: random.integers(1, 3)]
        corners = random.integers(0, 12, (len(labels), 2)) + np.array([[4, 4], [36, 36]])[: len(labels)]
        sides = random.integers(14, 20, len(labels))
        image = random.integers(90, 160, (64, 64, 3), dtype=np.uint8)
        for (x, y), side, label in zip(corners, sides, labels, strict=True):
            image[y : y + side, x : x + side] = [(230, 20, 20), (20, 20, 230)][label]
        boxes = [(float(x), float(y), float(side), float(side)) for (x, y), side in zip(corners, sides, strict=True)]
        record = make_record((64, 64), boxes, labels.tolist(), image_id=index + 1)
        records.append(replace(record, source=partial(np.copy, image)))
    return of_records(records, "red", "blue")


def verdicts(recipe: Recipe, *variants: DetectionData, steps: int) -> list[str]:
    checks = [check_learning(one, recipe, max_steps=steps, limit_seconds=1e9) for one in variants]
    for check in checks:
        print(*check.lines(), sep="\n")
    return [check.verdict for check in checks]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_goes_the_whole_way(family: str) -> None:
    check = check_learning(colored_squares(16), small(family), max_steps=1)
    assert (check.verdict, check.metric, len(check.images)) == ("unclear", "AP50", 8)
    assert check.unseen is not None
    assert check.unseen.images == 8


@pytest.mark.parametrize(
    "family",
    ["dense", pytest.param("query", marks=pytest.mark.slow), pytest.param("two-stage", marks=pytest.mark.slow)],
)
def test_right_annotations_are_told_from_exchanged_boxes_and_classes(family: str) -> None:
    """All are learned by heart; of the right ones alone boxes and classes hold for other images."""
    data = colored_squares()
    variants = data, exchange_objects(data), exchange_classes(data)
    assert verdicts(small(family), *variants, steps=40 if family == "dense" else 60) == [
        "learns",
        "learns by heart only",
        "learns boxes only",
    ]


def test_right_classes_of_images_are_told_from_exchanged_ones() -> None:
    data = colored_squares(60)
    boxes, area = np.array([[0.0, 0.0, 64.0, 64.0]]), np.array([64.0**2])
    records = (
        replace(one, labels=one.labels[:1], bbox_xywh=boxes, area=area, crowd=one.crowd[:1], annotation_ids=(0,))
        for one in data.records
        if len(one.labels) == 1
    )
    whole = replace(data, records=tuple(records))
    recipe = resolve("resnet18_classifier", COMMON | {"backbone.width": 16}).recipe
    assert verdicts(recipe, whole, exchange_classes(whole), steps=60) == ["learns", "learns by heart only"]
