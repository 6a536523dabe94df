"""Certificates: a good file passes, and each fault that exports are known for is caught in the file itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import boxwright
from boxwright.detector import Detector
from boxwright.exporting.certificate import Certificate, find_certificate
from boxwright.exporting.export_file import export_file, write_model
from boxwright.exporting.preprocessing import NODE_PREFIX, preprocessing_graph
from boxwright.workflows.certify import certify, measure_reference
from boxwright.workflows.reading import read_split
from boxwright_runtime.exported_file import read_exported_file
from heard import Heard

Arrays = dict[str, np.ndarray]


class Exported:
    """A detector, its measured model, and its file, from which others are made."""

    def __init__(self, detector: Detector, file: Path, data: Path, folder: Path) -> None:
        self.detector, self.file, self.folder = detector, file, folder
        read = read_split(data, "val", categories=detector.categories, observer=Heard())
        self.reference = measure_reference(detector, read, data, split="val", observer=Heard())

    def write(self, name: str, *, change: Callable[[onnx.ModelProto], None] | None = None, **input_format: Any) -> Path:
        """Write a file with other preprocessing, or with a changed graph."""
        model = onnx.load(self.file)
        if input_format:
            replace_preprocessing(model, preprocessing_graph(replace(self.detector.input_format, **input_format)))
        if change is not None:
            change(model)
        onnx.checker.check_model(model)
        path = self.folder / name
        write_model(model, read_exported_file(self.file).metadata, path)
        return path

    def certify(self, path: Path) -> Certificate:
        return certify(path, self.reference, tolerance=0.1, observer=Heard())


def replace_preprocessing(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    graph = model.graph
    for field, extended in ((graph.node, other.graph.node), (graph.initializer, other.graph.initializer)):
        kept = [type(one).FromString(one.SerializeToString()) for one in field if not one.name.startswith(NODE_PREFIX)]
        assert len(kept) < len(field)
        del field[:]
        field.extend([*extended, *kept])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exported(
    rectangle_run: Path, rectangle_file: Path, rectangles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    return Exported(boxwright.load(rectangle_run), rectangle_file, rectangles, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", ["good.onnx", "good.xml"])
def test_a_good_file(exported: Exported, name: str) -> None:
    certificate = exported.certify(exported.write(name))
    assert certificate.faults == []
    assert certificate.measurements.of_model["AP"] == exported.reference.evaluation.boxes.AP  # type: ignore[union-attr]
    assert certificate.measurements.of_model["AP"] > 0.4
    assert abs(certificate.measurements.losses_beyond_rounding()["AP"]) < 0.1
    # Of so few objects, one whose IoU is all but one of COCO's thresholds is a third of a point.
    assert abs(certificate.measurements.losses()["AP"]) < 0.8
    assert certificate.agreement.num_matched == certificate.agreement.total > 30
    assert certificate.pixels is not None
    assert certificate.pixels.images == 12
    assert [one.name for one in certificate.measurements.classes] == ["red", "blue"]
    content = json.loads(json.dumps(certificate.to_json()))
    assert content["accepted"] is True
    assert content["file"]["AP"] == certificate.measurements.of_file["AP"]
    assert content["data"]["split"] == "val"
    assert len(content["data"]["content_sha256"]) == len(content["sha256"]) == 64
    assert content["machine"]["versions"]["onnxruntime"]


def nodes_of(model: onnx.ModelProto, kind: str | None) -> list[onnx.NodeProto]:
    """List the nodes of a kind; copies of all nodes where None."""
    if kind is None:
        return [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    nodes = [node for node in model.graph.node if node.op_type == kind]
    assert nodes, f"the graph has no {kind}"
    return nodes


def shift_half_a_pixel(model: onnx.ModelProto) -> None:
    for node in nodes_of(model, "Resize"):
        for attribute in node.attribute:
            if attribute.name == "coordinate_transformation_mode" and node.name.startswith("preprocessing/"):
                attribute.s = b"asymmetric"


def lose_antialias(model: onnx.ModelProto) -> None:
    (node,) = (one for one in nodes_of(model, "Resize") if one.name.startswith("preprocessing/"))
    kept = [one for one in node.attribute if one.name not in ("antialias", "exclude_outside")]
    assert len(kept) == len(node.attribute) - 2
    del node.attribute[:]
    node.attribute.extend(kept)


def shift_labels(model: onnx.ModelProto) -> None:
    """The other of the two classes, and 0 in rows that are not valid."""
    (node,) = (one for one in model.graph.node if "labels" in one.output)
    node.output[list(node.output).index("labels")] = "right_labels"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "none"))
    model.graph.node.extend(
        [
            helper.make_node("Greater", ["scores", "none"], ["is_valid"]),
            helper.make_node("Cast", ["is_valid"], ["valid_int"], to=TensorProto.INT64),
            helper.make_node("Sub", ["valid_int", "right_labels"], ["labels"]),
        ]
    )


def zero_a_layer(model: onnx.ModelProto) -> None:
    # The first, behind which nothing is seen any more: without a middle one, AP may be anything, and higher too.
    first = next(one for one in model.graph.initializer if one.name.endswith(".weight") and len(one.dims) == 4)
    first.CopyFrom(numpy_helper.from_array(np.zeros(first.dims, np.float32), first.name))


def unsettle_top_k(model: onnx.ModelProto) -> None:
    """Of equal values, take the last first: the values that come in are turned around, and so are the indices."""
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(nodes_of(model, None)):
        nodes.append(node)
        if node.op_type == "TopK" and {one.name: one.i for one in node.attribute}["axis"] == 1:
            name, (x, indices) = f"unsettled_{number}", (node.input[0], node.output[1])
            turned = [x, f"{name}_start", f"{name}_end", f"{name}_one", f"{name}_start"]
            nodes[-1:] = [
                helper.make_node("Constant", [], [f"{name}_one"], value_ints=[1]),
                helper.make_node("Constant", [], [f"{name}_start"], value_ints=[-1]),
                helper.make_node("Constant", [], [f"{name}_end"], value_ints=[-(2**40)]),
                helper.make_node("Slice", turned, [f"{name}_turned"]),
                node,
                helper.make_node("Shape", [x], [f"{name}_shape"], start=1, end=2),
                helper.make_node("Sub", [f"{name}_shape", f"{name}_one"], [f"{name}_last"]),
                helper.make_node("Sub", [f"{name}_last", f"{name}_indices"], [indices]),
            ]
            node.input[0], node.output[1] = f"{name}_turned", f"{name}_indices"
    assert len(nodes) > len(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


FAULTS: dict[str, tuple[dict[str, Any], Callable[[onnx.ModelProto], None] | None, str]] = {
    "wrong mean": ({"mean": (0.05, 0.05, 0.05)}, None, "of the pixels of the file's network input"),
    "swapped channels": ({"channel_order": "bgr"}, None, "of the pixels of the file's network input"),
    "half a pixel": ({}, shift_half_a_pixel, "of the pixels of the file's network input"),
    "lost antialias": ({}, lose_antialias, "of the pixels of the file's network input"),
    "shifted labels": ({}, shift_labels, "have no counterpart"),
    "broken weights": ({}, zero_a_layer, "points below the model's"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(exported: Exported, fault: str) -> None:
    input_format, change, reason = FAULTS[fault]
    certificate = exported.certify(exported.write(f"{fault}.onnx", change=change, **input_format))
    assert not certificate.is_accepted
    assert any(reason in line for line in certificate.faults), certificate.faults
    assert not certificate.to_json()["accepted"]
    # The model beside it is as good as ever.
    assert certificate.measurements.of_model["AP"] > 0.4


@pytest.mark.slow
def test_an_unstable_top_k_where_scores_are_equal(exported: Exported, rectangles: Path, tmp_path: Path) -> None:
    """Scores of a model that is sure of itself are all 1: which of the boxes stay is up to the order of ties."""
    detector = copy.deepcopy(exported.detector)
    for module in detector.head.modules():
        if isinstance(module, torch.nn.Conv2d) and module.out_channels in (1, 2):
            assert module.bias is not None
            is_class = module.out_channels == 2
            module.weight.data *= 1e4 if is_class else 0.0
            module.bias.data = 1e4 * (module.bias.data + 1 if is_class else torch.ones(1))
    sure = Exported(detector, export_file(detector, tmp_path / "sure.onnx").path, rectangles, tmp_path)
    good = sure.certify(sure.write("good.onnx"))
    assert good.agreement.total > 20
    assert not [line for line in good.faults if "same network input" in line]
    bad = sure.certify(sure.write("unstable.onnx", change=unsettle_top_k))
    assert any("on the same network input" in line for line in bad.faults), bad


def test_a_file_for_images_of_another_size_fails(exported: Exported) -> None:
    with pytest.raises(ValueError, match=r"another\.onnx fails in onnxruntime on images"):
        exported.certify(exported.write("another.onnx", image_size=96))


def test_every_file_has_a_certificate_of_its_own(tmp_path: Path) -> None:
    assert find_certificate(tmp_path / "x.onnx") == tmp_path / "x.onnx.certificate.json"
