"""Detectors of mmdetection: their files beside detections that mmdetection 3.3.0 made of the same weights and images.

The arrays were recorded with its models, test pipelines and data preprocessor on mmcv-lite 2.1.0, NMS and RoIAlign
being torchvision's: narrow models of 7 classes with the weights of ``mmdet_weights``, images of ``source_checks``, and
a scale of (333, 200), so that the longest side of the last image binds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from boxwright.compose.detectors import build
from boxwright.passport import Origin
from boxwright.weights.files import read_source_files
from boxwright.weights.model import build_model, convert_files
from boxwright.weights.operations import AppendZeros, SubtractBias
from boxwright.weights.projects.mmdet_config import MMDetConfig, read_assignments
from boxwright.weights.projects.mmdet_rfp import FoldStandardization
from boxwright.weights.recognize import find_kind, recognize
from boxwright.weights.source import SourceFiles
from weights.compared import Recorder
from weights.mmdet_weights import random_weights
from weights.source_checks import Differences, Expected, assert_same_detections, draw_images

STORED = Path(__file__).parent / "mmdet"
CLASSES = ("a", "b", "c", "d", "e", "f", "g")

CONFIG = """
backend_args = None
model = dict(
    backbone=dict({backbone}type='ResNet'),
    data_preprocessor=dict({preprocessor}),
    test_cfg=dict({test}))
test_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(keep_ratio=True, scale=(333, 200), type='Resize'),
    dict(meta_keys=('img_id',), type='PackDetInputs'),
]
"""
RGB = "bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], pad_size_divisor={}"
BGR = "bgr_to_rgb=False, mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], pad_size_divisor={}"


class Case(NamedTuple):
    """One model: kind and recipe of ours, number and elements of the released tensors, facts of the configuration."""

    kind: str
    recipe: str
    counts: tuple[int, int]
    caffe: bool = False
    multiple: int = 32
    predictions: float = 1.0

    def config(self) -> str:
        preprocessor = (BGR if self.caffe else RGB).format(self.multiple)
        test = "" if self.kind == "mmdet_rcnn" else "min_bbox_size=0, nms_pre=1000"
        return CONFIG.format(backbone="style='caffe', " * self.caffe, preprocessor=preprocessor, test=test)


CASES = {
    "faster_rcnn": Case("mmdet_rcnn", "faster_rcnn_r50_fpn", (295, 41806176)),
    "mask_rcnn_caffe": Case("mmdet_rcnn", "mask_rcnn_r50_fpn", (307, 44449456), caffe=True),
    "cascade_rcnn": Case("mmdet_rcnn", "cascade_rcnn_r50_fpn", (311, 69447886)),
    "faster_rcnn_pafpn": Case("mmdet_rcnn", "faster_rcnn_r50_pafpn", (307, 45346656)),
    "cascade_rcnn_rfp": Case("mmdet_rcnn", "detectors_r50", (804, 94364559)),
    "retinanet": Case("mmdet_retinanet", "retinanet_r50_fpn", (136, 21419700), predictions=0.3),
    "retinanet_nasfpn": Case("mmdet_retinanet", "retinanet_r50_nasfpn", (788, 78955444), multiple=128),
}


def read_case(name: str) -> tuple[dict[str, Tensor], list[Expected]]:
    """Draw the weights of a stored case, and read its detections."""
    case, stored = CASES[name], np.load(STORED / f"{name}.npz")
    names = stored["names"].tobytes().decode().split("\n")
    shapes = [tuple(int(side) for side in shape if side) for shape in stored["shapes"]]
    weights = random_weights(
        dict(zip(names, shapes, strict=True)), input_std=60.0 if case.caffe else 1.0, predictions=case.predictions
    )
    rows = [torch.from_numpy(stored[f"detections_{i}"]) for i in range(3)]
    return weights, [Expected(x[:, 4], x[:, 5].long(), x[:, :4]) for x in rows]


def source_of(tensors: dict[str, Tensor], meta: dict[str, Any] | None = None) -> SourceFiles:
    return SourceFiles(
        origin=Origin(source="model.pth", kind=""), tensors=tensors, extra={"meta": meta} if meta else {}
    )


@pytest.mark.parametrize("name", CASES)
def test_detections(name: str, tmp_path: Path, record_comparison: Recorder) -> None:
    case = CASES[name]
    weights, expected = read_case(name)
    meta = {"cfg": case.config(), "dataset_meta": {"CLASSES": CLASSES}}
    torch.save({"meta": meta, "state_dict": weights}, tmp_path / "model.pth")
    converted = convert_files(read_source_files(tmp_path / "model.pth"))
    assert converted.origin.kind == case.kind
    assert (converted.notes, converted.skipped) == ((), {})
    ours = build_model(converted)
    assert tuple(one.name for one in ours.categories) == CLASSES
    assert ours.input_format.channel_order == ("bgr" if case.caffe else "rgb")
    largest = Differences(0.0, 0.0)
    for image, theirs in zip(draw_images(), expected, strict=True):
        assert len(theirs.scores) == 100
        actual = ours.predict(image)
        largest = largest.join(assert_same_detections(actual, theirs, score_tolerance=1e-3, box_tolerance=0.1))
    project = "mmdetection 3.3.0, its detections stored"
    record_comparison(case.kind, name, project, largest, inputs=ours.input_format)


@pytest.mark.parametrize("name", CASES)
def test_released_sizes(name: str) -> None:
    case, (weights, _) = CASES[name], read_case(name)
    described = find_kind(case.kind).describe(source_of(weights, {"cfg": case.config()}))
    assert described.recipe == case.recipe
    structure = (
        "backbone.depth",
        "backbone.levels",
        "neck.extra",
        "neck.extra_levels",
        "neck.wiring",
        "head.norm",
        "backbone.atrous",
    )
    kept = {key: value for key, value in described.overrides.items() if key in structure}
    with torch.device("meta"):
        ours = build(case.recipe, num_classes=80, overrides=kept).state_dict()
    written = described.table.write(ours).tensors
    uncounted = {key: tensor for key, tensor in written.items() if not key.endswith("num_batches_tracked")}
    assert set(uncounted) == set(weights)
    assert (len(uncounted), sum(tensor.numel() for tensor in uncounted.values())) == case.counts


def test_files_without_a_configuration_say_what_is_assumed() -> None:
    weights, _ = read_case("faster_rcnn")
    described = find_kind("mmdet_rcnn").describe(source_of(weights))
    assert any("style pytorch" in line and "backbone.stride_in 1x1" in line for line in described.assumptions)
    assert described.overrides["input.image_size"] == 800
    assert described.overrides["input.max_size"] == 1333
    assert described.overrides["input.size_rule"] == "mmcv"


def test_variants_without_counterpart() -> None:
    weights, _ = read_case("faster_rcnn")
    source = find_kind("mmdet_rcnn")
    for name, reason in (
        ("backbone.layer2.0.conv2.conv_offset.weight", "deformable convolutions"),
        ("backbone.layer2.0.conv2.switch.weight", "switchable convolutions"),
    ):
        with pytest.raises(ValueError, match=reason):
            source.describe(source_of({**weights, name: torch.zeros(1)}))
    grouped = {**weights, "backbone.layer1.0.conv2.weight": torch.zeros(16, 4, 3, 3)}
    with pytest.raises(ValueError, match="ResNeXt"):
        source.describe(source_of(grouped))
    config = "model = dict(rpn_head=dict(anchor_generator=dict(type='LegacyAnchorGenerator')))"
    with pytest.raises(ValueError, match="is LegacyAnchorGenerator, and can only be AnchorGenerator here"):
        source.describe(source_of(weights, {"cfg": config}))


def test_operations_and_their_inverses() -> None:
    weight, scale, shift = torch.randn(5, 3, 3, 3) + 1, torch.rand(5, 1, 1, 1), torch.randn(5, 1, 1, 1)
    folded = FoldStandardization().read([weight, scale, shift])
    torch.testing.assert_close(folded.flatten(1).mean(1), shift.flatten())
    torch.testing.assert_close(FoldStandardization().read(FoldStandardization().write(folded, 3)), folded)
    rows = AppendZeros(4).read([torch.ones(8, 3)])
    assert rows.shape == (12, 3)
    assert rows[8:].abs().sum() == 0
    assert AppendZeros(4).write(rows, 1)[0].shape == (8, 3)
    mean, bias = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])
    assert SubtractBias().read([mean, bias]).tolist() == [0.5, 3.0]
    assert [x.tolist() for x in SubtractBias().write(mean, 2)] == [[1.0, 2.0], [0.0, 0.0]]


def test_each_file_is_of_one_kind() -> None:
    for name, case in CASES.items():
        assert recognize(source_of(read_case(name)[0]))[0] == case.kind


def test_configurations_are_not_executed() -> None:
    text = "a = __import__('os').system('false')\nb = dict(c=[1, -2.5, (True, None)], d=open('x'), **e)\nf = {'g': 'h'}"
    assert read_assignments(text) == {"a": None, "b": {"c": (1, -2.5, (True, None)), "d": None}, "f": {"g": "h"}}
    assert read_assignments("a = (") == {}
    assert read_assignments("a = " + "[" * 5000) == {}
    config = MMDetConfig(read_assignments("model = dict(x=[dict(y=3)], z='text')"))
    assert config.get("model.x.0.y") == 3
    assert config.get("model.x.1.y", "absent") == "absent"
    assert config.number("model.z", 4.0) == 4.0
