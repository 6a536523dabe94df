"""Files of other precisions: converted, measured, mended by layers that stay in float32, or rejected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import boxwright
from boxwright.exporting.certificate import find_certificate
from boxwright.exporting.export_file import export_file, write_model
from boxwright.exporting.precision import check_precision, open_converter
from boxwright.workflows import certified_export
from boxwright.workflows.calibration import make_calibration
from boxwright.workflows.certified_export import RejectedFileError, convert_and_certify
from boxwright.workflows.certify import ReferenceModel, measure_reference
from boxwright.workflows.reading import read_split
from boxwright_runtime.exported_file import read_exported_file
from heard import Heard

FORMS = {"onnx": "onnx", "xml": "openvino"}


class Sources:
    """Files in float32 of a trained detector, and everything that conversions need."""

    def __init__(self, run: Path, file: Path, data: Path, folder: Path) -> None:
        self.detector = boxwright.load(run)
        read, train = (
            read_split(data, split, categories=self.detector.categories, observer=Heard()) for split in ("val", "train")
        )
        self.reference: ReferenceModel = measure_reference(self.detector, read, data, split="val", observer=Heard())
        self.train, self.folder = train, folder
        self._files: dict[str, Path] = {"onnx": file}

    def file(self, suffix: str) -> Path:
        if suffix not in self._files:
            target = self.folder / f"float32.{suffix}"
            self._files[suffix] = export_file(self.detector, target, form=FORMS[suffix]).path  # type: ignore[arg-type]
        return self._files[suffix]

    def images(self, path: Path, count: int = 24) -> Any:
        return make_calibration(path, self.detector, self.train, count)


@pytest.fixture(scope="module")
def sources(
    rectangle_run: Path, rectangle_file: Path, rectangles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Sources:
    return Sources(rectangle_run, rectangle_file, rectangles, tmp_path_factory.mktemp("sources"))


measure_speed = certified_export._measure_speed


@pytest.fixture(autouse=True)
def no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the processes that measure speed."""
    monkeypatch.setattr(certified_export, "_measure_speed", lambda *_: [])


def layers_of(path: Path) -> dict[str, Any]:
    model = onnx.load(path)
    return {one.name: one for one in model.graph.initializer if one.name.endswith(".weight")}


def widen_a_channel(source: Path, target: Path, factor: float) -> str:
    """Write a file that computes the same, but with one wide channel between two convolutions; return their part.

    One scale for all channels then has no room for the others.
    """
    model = onnx.load(source)
    weights = {one.name: one for one in model.graph.initializer}
    readers = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        after = readers.get(node.output[0])
        following = None if after is None or after.op_type != "Relu" else readers.get(after.output[0])
        if node.op_type == "Conv" and following is not None and following.op_type == "Conv":
            count = sum(after.output[0] in one.input for one in model.graph.node)  # type: ignore[union-attr]
            if count == 1 and following.input[1] in weights and "backbone" in following.input[1]:
                break
    first, bias, second = (numpy_helper.to_array(weights[n]).copy() for n in (*node.input[1:3], following.input[1]))
    first[0] *= factor
    bias[0] *= factor
    second[:, 0] /= factor
    for name, array in zip((*node.input[1:3], following.input[1]), (first, bias, second), strict=True):
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, target)
    return following.input[1].removeprefix("detector.").removesuffix(".weight")


def convert(
    sources: Sources, source: Path, target: Path, precision: Any, observer: Heard, **options: Any
) -> certified_export.Certificate:
    images = sources.images(source)
    return convert_and_certify(
        source, target, sources.reference, precision=precision, images=images, observer=observer, **options
    )


def test_float32_and_half_precision(sources: Sources, tmp_path: Path) -> None:
    for precision in ("fp32", "fp16"):
        target, observer = tmp_path / f"{precision}.onnx", Heard()
        certificate = convert(sources, sources.file("onnx"), target, precision, observer)
        assert certificate.is_accepted
        assert certificate.precision == read_exported_file(target).metadata.precision == precision
        assert json.loads(find_certificate(target).read_text())["accepted"] is True
        assert observer.notes == []
    kinds = {one.data_type for one in onnx.load(tmp_path / "fp16.onnx").graph.initializer if len(one.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}.onnx{end}" for name in ("fp16", "fp32") for end in ("", ".certificate.json")
    ]


def test_a_broken_file_is_kept_under_another_name(sources: Sources, tmp_path: Path) -> None:
    """The model is as good as ever: what is measured is the file."""
    model = onnx.load(sources.file("onnx"))
    weights = [one for one in model.graph.initializer if one.name.endswith(".weight") and len(one.dims) == 4]
    for one in weights[-3:]:
        one.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(one), one.name))
    onnx.save(model, broken := tmp_path / "broken.onnx")
    target = tmp_path / "file.onnx"
    with pytest.raises(RejectedFileError, match=r"file\.onnx is rejected: AP of the file is .* points below") as caught:
        convert(sources, broken, target, "fp32", Heard())
    assert not caught.value.certificate.is_accepted
    assert not target.exists()
    assert not find_certificate(target).exists()
    rejected = tmp_path / "file.rejected.onnx"
    assert str(rejected) in str(caught.value)
    assert json.loads(find_certificate(rejected).read_text())["accepted"] is False
    assert read_exported_file(rejected).metadata.precision == "fp32"
    assert len(list(tmp_path.iterdir())) == 3


def test_the_layer_that_loses_most_stays_in_float32(sources: Sources, tmp_path: Path) -> None:
    part = widen_a_channel(sources.file("onnx"), wide := tmp_path / "wide.onnx", 3000.0)
    observer, target = Heard(), tmp_path / "int8.onnx"
    certificate = convert(sources, wide, target, "int8", observer, tolerance=2.0)
    assert certificate.is_accepted
    first, *others = certificate.conversions
    assert first.loss > 10
    assert first.float32 == ()
    assert 1 <= len(others) <= 6
    assert part in certificate.float32
    assert len(certificate.float32) == min(len(one.float32) for one in others if one.is_good)
    metadata = read_exported_file(target).metadata
    assert metadata.precision == "int8"
    assert len(metadata.float32_nodes) == len(certificate.float32)
    assert "searching for layers" in observer.notes[0]
    assert observer.notes[1].startswith("in float32 stay ")
    assert part in observer.notes[1]
    assert json.loads(find_certificate(target).read_text())["float32"] == list(certificate.float32)


@pytest.mark.slow
def test_the_layer_that_loses_most_stays_in_float32_in_openvino(sources: Sources, tmp_path: Path) -> None:
    part = widen_a_channel(sources.file("onnx"), wide := tmp_path / "wide.onnx", 3000.0)
    write_model(onnx.load(wide), read_exported_file(wide).metadata, tmp_path / "wide.xml")
    observer, target = Heard(), tmp_path / "int8.xml"
    certificate = convert(sources, tmp_path / "wide.xml", target, "int8", observer, tolerance=2.0)
    assert certificate.is_accepted
    first, *others = certificate.conversions
    assert first.loss > 10
    assert 1 <= len(others) <= 6
    assert part in certificate.float32
    assert part in observer.notes[1]
    assert len(certificate.float32) == min(len(one.float32) for one in others if one.is_good)
    metadata = read_exported_file(target).metadata
    assert (metadata.precision, len(metadata.float32_nodes)) == ("int8", len(certificate.float32))


@pytest.mark.slow
def test_a_search_without_success_rejects_the_best(sources: Sources, tmp_path: Path) -> None:
    widen_a_channel(sources.file("onnx"), wide := tmp_path / "wide.onnx", 3000.0)
    with pytest.raises(RejectedFileError) as caught:
        convert(sources, wide, tmp_path / "int8.onnx", "int8", Heard(), tolerance=-100.0, most_tries=1)
    conversions = caught.value.certificate.conversions
    assert len(conversions) == 2
    assert max(caught.value.certificate.measurements.losses().values()) == min(one.loss for one in conversions)


def test_numbers_beyond_half_precision_stay(sources: Sources, tmp_path: Path) -> None:
    """On a CPU they would not even be seen: it computes in float32."""
    widen_a_channel(sources.file("onnx"), wide := tmp_path / "wide.onnx", 1e6)
    converter = open_converter(wide, "fp16", sources.images(wide, 2))
    converter.write(tmp_path / "fp16.onnx")
    assert len(read_exported_file(tmp_path / "fp16.onnx").metadata.float32_nodes) >= 1


@pytest.mark.slow
def test_speed_is_measured_side_by_side(sources: Sources) -> None:
    model, file = measure_speed(sources.file("onnx"), sources.reference)
    assert (model["runtime"], file["runtime"]) == ("folded", "onnxruntime")
    assert (model["ratio"], file["precision"], file["input"]) == (1.0, "fp32", "bytes 480 x 640")
    assert file["peak_bytes"] < 0.5 * model["peak_bytes"]  # torch is not in its process


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_openvino(sources: Sources, tmp_path: Path, precision: str) -> None:
    target = tmp_path / "file.xml"
    certificate = convert(sources, sources.file("xml"), target, precision, Heard(), tolerance=2.0)
    assert certificate.is_accepted
    assert certificate.runtime == "openvino"
    assert read_exported_file(target).metadata.precision == precision
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.bin", "file.xml", "file.xml.certificate.json"]


@pytest.mark.slow
def test_inputs_in_floats(sources: Sources, tmp_path: Path) -> None:
    source = export_file(sources.detector, tmp_path / "source.onnx", profile="float").path
    certificate = convert(sources, source, tmp_path / "int8.onnx", "int8", Heard(), tolerance=2.0)
    assert certificate.pixels is None
    assert certificate.is_accepted
    assert certificate.to_json()["network_input"] is None


@pytest.mark.parametrize(
    ("precision", "form", "message"),
    [
        ("bf16", "onnx", "onnxruntime has no bfloat16 on CPUs"),
        ("int4", "onnx", "precision is fp32, fp16, bf16, int8, not 'int4'"),
    ],
)
def test_precisions_that_there_are_not(precision: str, form: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_precision(precision, form)


def test_int8_without_images(sources: Sources) -> None:
    with pytest.raises(ValueError, match=r"int8 needs images .* give --calibrate DATA"):
        open_converter(sources.file("onnx"), "int8", ())


def test_calibration_images_are_spread_over_the_split(sources: Sources) -> None:
    inputs: Sequence[Any] = sources.images(sources.file("onnx"), 5)
    expected = [sources.train.records[index].read() for index in (0, 16, 32, 47, 63)]
    assert len(inputs) == 5
    for one, image in zip(inputs, expected, strict=True):
        np.testing.assert_array_equal(one["images"][0], image)
    assert len(sources.images(sources.file("onnx"), 1000)) == 64
