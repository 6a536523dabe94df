"""The verdict on learning: by hand, and of a small detector on images with right and with wrong boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.data.few_images import exchange_objects
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.training.overfit import OverfitResult
from boxwright.workflows.check_learning import (
    DOES_NOT_LEARN,
    LEARNED_BY_HEART,
    LearningCheck,
    UnseenLosses,
    check_learning,
)
from heard import Heard
from object_records import make_record, of_records


def learned(
    after: float, *losses: float, steps: int = 100, unseen: UnseenLosses | None = None, is_frozen: bool = False
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
    check = learned(0.5, 4.0, 2.0, 1.0, unseen=UnseenLosses(8, 3.0, 4.0))
    assert (check.verdict, check.findings) == ("learns", ())
    assert check.lines() == [
        "2 images with 7 objects of 2 of 3 classes, learned by heart in 100 steps (9 s): AP50 0.00 to 0.50, loss 4 to "
        "1 (25%)",
        "8 other images: loss 3 with their own objects, 4 with those of each other (+25.0%)",
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
    ],
)
def test_too_little_time_or_no_weights_is_no_verdict(check: LearningCheck, word: str) -> None:
    assert (check.verdict, check.findings) == ("unclear", ())
    assert word in check.lines()[-1]


def test_objects_no_likelier_than_those_of_other_images_were_learned_by_heart() -> None:
    check = learned(0.9, 4.0, 2.0, 1.0, unseen=UnseenLosses(8, 4.01, 4.0))
    assert check.verdict == "learns by heart only"
    assert [finding.kind for finding in check.findings] == [LEARNED_BY_HEART]
    assert check.findings[0].detail.endswith("(-0.2%)")


def test_data_without_objects() -> None:
    with pytest.raises(ValueError, match=r"train\.json: no image has an object"):
        check_learning(of_records([make_record((50, 50), [])]), resolve("rtdetr_tiny").recipe)


def small(**overrides: Any) -> Recipe:
    options: dict[str, Any] = {
        "image_size": 64,
        "backbone.width": 16,
        "neck.out_channels": 32,
        "head.boxes.hidden_dim": 64,
        "head.roi.num_samples": 32,
        "head.rpn.pre_nms_top_k": [100, 100],
        "head.rpn.post_nms_top_k": [50, 50],
        "train.batch_size": 8,
        "train.lr": 2e-3,
        "train.runtime.device": "cpu",
        "train.runtime.precision": "float32",
    }
    return resolve("faster_rcnn_r18_fpn", options | overrides).recipe


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    folder = tmp_path_factory.mktemp("drawn")
    draw_data_set(folder, train=12, val=1, image_size=64, seed=3)
    return open_data(folder, "train")


def test_a_trial_leaves_a_given_detector_as_it_is(drawn: DetectionData) -> None:
    detector = build_resolved(small(), categories=drawn.categories)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    check = check_learning({"train": drawn}, detector, max_steps=2, observer=Heard())
    assert (check.result.steps, len(check.images)) == (2, 8)
    assert check.unseen is not None
    assert check.unseen.images == 4
    assert check.unseen.own > 0
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


@pytest.mark.slow
def test_wrong_boxes_have_a_worse_verdict(tmp_path: Path) -> None:
    """Both are learned by heart; of the right ones alone something holds for other images."""
    draw_data_set(tmp_path, train=16, val=1, image_size=96, seed=3)
    data = open_data(tmp_path, "train")
    recipe = small(**{"image_size": 96, "neck.out_channels": 64})
    right = check_learning(data, recipe, max_steps=48)
    wrong = check_learning(exchange_objects(data), recipe, max_steps=48)
    assert right.verdict == "learns", right.lines()
    assert wrong.verdict == "learns by heart only", wrong.lines()
