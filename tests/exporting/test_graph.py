"""Graphs of ONNX and their form."""

from __future__ import annotations

import sys

import onnx
import pytest
from graph_checks import SHORTEST_SIDE, check_export
from small_detectors import QUERIES, build_small
from torch import Tensor, nn

from boxwright.exporting.graph import export_network
from boxwright.ops.onnx_operators import Operators
from boxwright.structures import Features, Spec
from part_checks import composed


def axes(value: onnx.ValueInfoProto) -> list[str | int]:
    """List the dimensions of an input or output, free ones by name."""
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.mark.slow
def test_free_sizes_have_names_and_work() -> None:
    detector = composed("resnet", ["fpn"], "fcos", 3)
    detector.input_format = SHORTEST_SIDE
    model = check_export(detector)
    assert {value.name: axes(value) for value in model.graph.input} == {
        "images": ["batch", 3, "height", "width"],
        "sizes": ["batch", 4],
    }
    assert {value.name: axes(value)[:2] for value in model.graph.output} == {
        "boxes": ["batch", "detections"],
        "scores": ["batch", "detections"],
        "labels": ["batch", "detections"],
        "count": ["batch"],
    }


@pytest.mark.parametrize("ops", [pytest.param("auto", marks=pytest.mark.slow), "plain"])
def test_plain_graphs_sample_without_grid_sample(ops: Operators) -> None:
    detector = build_small("rtdetr_r18", QUERIES)
    training = detector.training
    model = export_network(detector, ops=ops)
    operators = {node.op_type for node in model.graph.node}
    assert ("GridSample" in operators) == (ops == "auto")
    assert not [name for name in operators if "Sequence" in name or name in ("Loop", "If", "Scan")]
    assert not operators & {"Constant", "Identity", "CastLike"}, "the graph is simplified"
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.version for entry in model.opset_import] == [20]
    assert detector.training == training


class Counting(nn.Module):
    """A neck whose output has as many channels as some map has positive cells."""

    def __init__(self, out_spec: Spec) -> None:
        super().__init__()
        self.out_spec = out_spec

    def forward(self, features: Features, _: Tensor | None = None) -> Features:
        count = int((next(iter(features.values())) > 0).sum())
        return {name: x[:, :count] for name, x in features.items()}


def test_what_cannot_be_traced_is_said_in_one_line() -> None:
    detector = composed("resnet", [], "fcos", 3)
    detector.necks.append(Counting(detector.backbone.out_spec))
    with pytest.raises(ValueError, match=r"^this detector cannot be written in ONNX: [^\n]+$"):
        export_network(detector)


def test_without_onnxscript_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"^onnxscript is not installed: pip install 'boxwright\[export\]'$"):
        export_network(composed("resnet", [], "fcos", 3))
