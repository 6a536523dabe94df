"""Finished files: they hold what was promised, agree with the detector, and exist only where they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_detectors import QUERIES, build_small

from boxwright.detector import Detector
from boxwright.exporting import export_file as module
from boxwright.exporting.comparison import compare_images, detect_on_inputs, read_outputs
from boxwright.exporting.exercise import ImageBatch, choose_batches, exercise, paint_images
from boxwright.exporting.export_file import export_file
from boxwright.exporting.graph import export_network
from boxwright.exporting.network_inputs import open_preprocessing
from boxwright.exporting.preprocessing import preprocessing_graph
from boxwright.version import __version__
from boxwright_runtime.exported_file import read_exported_file
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.runtime import Runtime

FORMS = [("onnx", "model.onnx"), ("openvino", "model.xml")]


@pytest.fixture(scope="module")
def classifier() -> Detector:
    return build_small("resnet18_classifier", {"backbone.width": 8})


@pytest.fixture(scope="module")
def network(classifier: Detector) -> onnx.ModelProto:
    return export_network(classifier)


@pytest.fixture
def exported_once(network: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the classifier's graph as it was exported before."""
    monkeypatch.setattr(module, "export_network", lambda *_, **__: network)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_small("rtdetr_r18", dict(QUERIES))


@pytest.fixture(scope="module")
def detector_files(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of a detector in both forms, by form."""
    network, folder = export_network(detector), tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "export_network", lambda *_, **__: network)
        return {form: export_file(detector, folder / name, form=form).path for form, name in FORMS}  # type: ignore[arg-type]


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize(("form", "name"), FORMS)
@pytest.mark.parametrize("profile", ["bytes", "float"])
def test_a_file_holds_what_it_promises(
    classifier: Detector, tmp_path: Path, form: module.FileKind, name: str, profile: module.Profile
) -> None:
    thresholds = {category.name: 0.25 for category in classifier.categories}
    exported = export_file(classifier, tmp_path / name, form=form, profile=profile, thresholds=thresholds)
    stored = read_exported_file(exported.path)
    assert stored.kind == form
    assert stored.metadata == exported.metadata
    assert stored.metadata.categories == classifier.categories
    assert stored.metadata.input_format == classifier.input_format
    assert stored.metadata.thresholds == thresholds
    assert (stored.metadata.profile, stored.metadata.version) == (profile, __version__)
    assert exported.report.agreement.num_matched == exported.report.agreement.total > 0
    assert exported.size == sum(path.stat().st_size for path in tmp_path.iterdir())
    names = {name} | ({"model.bin"} if form == "openvino" else set())
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing is left of the way there"
    assert not [path for path in tmp_path.iterdir() if b"stack_trace" in path.read_bytes()], "paths of this machine"
    image = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    expected, actual = classifier.predict(image), Runtime(exported.path).predict(image)
    np.testing.assert_allclose(actual.scores, expected.scores, atol=0.02)
    np.testing.assert_array_equal(actual.boxes, expected.boxes)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_detectors_file_agrees_at_every_size(detector: Detector, detector_files: dict[str, Path], form: str) -> None:
    batches = [ImageBatch(5, 70, 131), ImageBatch(1, 300, 33), ImageBatch(2, 96, 96)]
    report = exercise(detector_files[form], detector, batches=batches)
    assert report.agreement.total > 200
    assert report.agreement.box_difference < 1e-3
    assert report.agreement.score_difference < 1e-4
    assert report.describe().startswith("ran on images of 5 x 70 x 131, 1 x 300 x 33, 2 x 96 x 96: ")


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_image_does_not_depend_on_its_batch(detector_files: dict[str, Path], form: str) -> None:
    runtime, images = Runtime(detector_files[form]), paint_images(ImageBatch(3, 90, 120))
    together = read_outputs(runtime.run({"images": images}))
    for index, rows in enumerate(together):
        (alone,) = read_outputs(runtime.run({"images": images[index : index + 1]}))
        agreement = compare_images([rows], [alone])
        assert agreement.num_matched == agreement.total > 0
        assert max(agreement.box_difference, agreement.score_difference) < 1e-5


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_the_network_input_of_a_file(detector: Detector, detector_files: dict[str, Path], form: str) -> None:
    images = paint_images(ImageBatch(2, 90, 120))
    inputs = open_preprocessing(detector_files[form])(images)
    assert inputs.images.shape == (2, 3, 96, 96)
    assert inputs.sizes.tolist() == [[90, 120, 96, 96]] * 2
    expected = detect_on_inputs(detector, torch.from_numpy(inputs.images), torch.from_numpy(inputs.sizes))
    agreement = compare_images(expected, read_outputs(Runtime(detector_files[form]).run({"images": images})))
    assert agreement.num_matched == agreement.total > 0


def swap_channels(input_format: InputFormat) -> InputFormat:
    return replace(input_format, channel_order="bgr")


def lose_mean(input_format: InputFormat) -> InputFormat:
    return replace(input_format, mean=(0.4, 0.4, 0.4))


def lose_antialiasing(input_format: InputFormat) -> InputFormat:
    return replace(input_format, antialias=False)


def resize_to_squares(input_format: InputFormat) -> InputFormat:
    return replace(input_format, resize="square", image_size=96)


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (swap_channels, "of the pixels of the file's network input differ by more than one gray level"),
        (lose_mean, "of the pixels of the file's network input differ by more than one gray level"),
        (lose_antialiasing, "of the pixels of the file's network input differ by more than one gray level"),
        (resize_to_squares, r"the file makes a network input of \[39, 54, 96, 96\]"),
    ],
)
def test_faults_of_preprocessing_are_refused(
    classifier: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[InputFormat], InputFormat],
    message: str,
) -> None:
    monkeypatch.setattr(module, "preprocessing_graph", lambda one: preprocessing_graph(fault(one)))
    with pytest.raises(ValueError, match=message):
        export_file(classifier, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_other_weights_are_refused(
    classifier: Detector, network: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(network)
    kernel = max(broken.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * 1.5, kernel.name))
    monkeypatch.setattr(module, "export_network", lambda *_, **__: broken)
    with pytest.raises(ValueError, match="the file does not agree with the model: it ran on images of 1 x 39 x 54"):
        export_file(classifier, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize(("form", "name"), FORMS)
def test_nothing_is_overwritten_unless_asked(
    classifier: Detector, tmp_path: Path, form: module.FileKind, name: str
) -> None:
    standing = tmp_path / ("model.bin" if form == "openvino" else name)
    standing.write_text("mine")
    with pytest.raises(ValueError, match=f"{standing.name} exists already and is not overwritten"):
        export_file(classifier, tmp_path / name, form=form)
    assert standing.read_text() == "mine"
    export_file(classifier, tmp_path / name, form=form, overwrite=True)
    assert Runtime(tmp_path / name).metadata.task == "classification"


@pytest.mark.usefixtures("exported_once")
def test_what_stood_there_stays_where_an_export_fails(
    classifier: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("mine")
    monkeypatch.setattr(module, "preprocessing_graph", lambda one: preprocessing_graph(swap_channels(one)))
    with pytest.raises(ValueError, match="gray level"):
        export_file(classifier, target, overwrite=True)
    assert target.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]


def test_names_say_the_form(classifier: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.pt: the name of a file for openvino ends in \.xml"):
        export_file(classifier, tmp_path / "model.pt", form="openvino")


def test_thresholds_are_of_its_classes(classifier: Detector, tmp_path: Path) -> None:
    thresholds = {**{category.name: 0.5 for category in classifier.categories}, "dog": 0.5}
    with pytest.raises(ValueError, match="dog is in one of both alone"):
        export_file(classifier, tmp_path / "model.onnx", thresholds=thresholds)


@pytest.mark.parametrize(
    ("form", "package", "extra"), [("onnx", "onnxscript", "export"), ("openvino", "openvino", "openvino")]
)
def test_packages_that_are_not_installed(
    classifier: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: module.FileKind,
    package: str,
    extra: str,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    target = tmp_path / ("model.onnx" if form == "onnx" else "model.xml")
    with pytest.raises(ValueError, match=rf"{package} is not installed: pip install 'boxwright\[{extra}\]'"):
        export_file(classifier, target, form=form)


def test_batches_have_all_sizes() -> None:
    for input_format in (InputFormat(), InputFormat(resize="shortest_side", image_size=800, max_size=1333)):
        batches = choose_batches(input_format)
        assert [batch.num_images for batch in batches] == [1, 2, 5]
        assert all(len({batch[axis] for batch in batches}) == 3 for axis in (1, 2))
    sizes = [input_format.input_size(batch.height, batch.width) for batch in batches]
    assert sizes[0][0] == 800 < sizes[0][1]
    assert sizes[1][1] == 800 < sizes[1][0]
    assert sizes[2][1] >= 1333 > 3 * sizes[2][0]
