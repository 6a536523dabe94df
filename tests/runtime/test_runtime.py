"""Exported files through the runtime: every form of images, in order, masks in pixels, in both runtimes."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.detector import Detector
from boxwright_runtime import Detections, Runtime
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.mask_pasting import paste_masks
from boxwright_runtime.structures import ImageSize
from stand_in_export import CATEGORIES, OUTSIDE, make_disk, write_stand_in

KINDS = ("onnx", "xml")


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runtime]:
    folder = tmp_path_factory.mktemp("exported")
    return {kind: Runtime(write_stand_in(folder / f"stand in.{kind}")) for kind in KINDS}


@pytest.fixture(params=KINDS)
def runtime(request: pytest.FixtureRequest, runtimes: dict[str, Runtime]) -> Runtime:
    return runtimes[request.param]


def gray(value: float, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), round(value * 255), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def best_scores(several: list[Detections]) -> list[float]:
    return [round(float(one.scores[0]), 2) for one in several]


FORMS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "path": lambda _, path: path,
    "text": lambda _, path: str(path),
    "bytes": lambda image, _: png(image),
    "bytearray": lambda image, _: bytearray(png(image)),
    "memoryview": lambda image, _: memoryview(png(image)),
    "file": lambda image, _: io.BytesIO(png(image)),
    "PIL": lambda image, _: Image.fromarray(image),
    "array": lambda image, _: image,
    "array of floats": lambda image, _: image / 255.0,
    "tensor": lambda image, _: torch.from_numpy(image).permute(2, 0, 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image(runtime: Runtime, tmp_path: Path, form: str) -> None:
    Image.fromarray(gray(0.6)).save(tmp_path / "one.png")
    image = FORMS[form](gray(0.6), tmp_path / "one.png")
    one = runtime.predict(image)
    assert isinstance(one, Detections)
    assert one.boxes.tolist() == [[0, 0, 60, 40], [0, 0, 30, 20]]
    assert one.scores.tolist() == pytest.approx([0.6, 0.3])
    assert (one.boxes.dtype, one.scores.dtype, one.labels.dtype) == (np.float32, np.float32, np.int64)
    assert (one.names, one.masks, one.categories) == (["thing", "quarter"], None, CATEGORIES)
    if form != "file":  # which is at its end
        several = runtime.predict([image])
        assert isinstance(several, list)
        assert several[0].to_dict() == one.to_dict()


def test_several_are_a_folder_an_array_or_an_iterable(runtime: Runtime, tmp_path: Path) -> None:
    for name, value in (("b", 0.2), ("a", 0.8), ("c/d", 0.4)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(gray(value)).save(tmp_path / f"{name}.png")
    assert best_scores(runtime.predict(tmp_path)) == [0.8, 0.2, 0.4]
    assert best_scores(runtime.predict(np.stack([gray(0.2), gray(0.8)]))) == [0.2, 0.8]
    assert best_scores(runtime.predict(gray(value) for value in (0.2, 0.4))) == [0.2, 0.4]
    assert runtime.predict([]) == []


def test_what_is_empty_is_no_detection(runtime: Runtime) -> None:
    """Of three rows, none is valid in a black image."""
    nothing = runtime.predict(gray(0))
    assert isinstance(nothing, Detections)
    assert (len(nothing), nothing.boxes.shape, nothing.names) == (0, (0, 4), [])


def test_a_threshold(runtime: Runtime) -> None:
    assert [len(runtime.predict(gray(0.6), threshold=value)) for value in (0.0, 0.3, 0.31, 0.61)] == [2, 2, 1, 0]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_order_and_batches_whatever_the_sizes(
    runtime: Runtime, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(batch_size)
    images = [gray(i / 20 + 0.04, *rng.choice([[40, 60], [60, 40], [31, 99]])) for i in range(18)]
    shapes = []
    run = runtime.run
    monkeypatch.setattr(runtime, "run", lambda arrays: shapes.append(arrays["images"].shape) or run(arrays))
    several = runtime.predict(images, batch_size=batch_size)
    assert best_scores(several) == [round(round(255 * (i / 20 + 0.04)) / 255, 2) for i in range(18)]
    assert [one.boxes[0].tolist() for one in several] == [[0, 0, *image.shape[1::-1]] for image in images]
    assert sum(shape[0] for shape in shapes) == 18
    assert max(shape[0] for shape in shapes) == batch_size


def test_a_stream_skips_and_keeps(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [gray(0.2), tmp_path / "bad.png", png(gray(0.4))]
    stream = runtime.stream(images, on_error="skip", keep_images=True)
    results = list(stream.results())
    assert [one.source for one in results] == [0, 2]
    assert np.array_equal(results[1].image, gray(0.4))
    assert [(one.index, one.path) for one in stream.skipped] == [(1, tmp_path / "bad.png")]


@pytest.mark.parametrize(
    "images",
    [
        "none.png",
        ["none.png"],
        5,
        [5],
        b"no image",
        [gray(0.5), b""],
        np.zeros((4, 5, 2)),
        [np.full((4, 5, 3), 7.0)],
        np.zeros((4, 5, 3), dtype=np.int32),
        Path("folder"),
        None,
    ],
    ids=str,
)
def test_errors_are_those_of_a_detector(
    runtime: Runtime, make_detector: Callable[..., Detector], images: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    errors = []
    for model in (runtime, make_detector()):
        with pytest.raises((ValueError, OSError)) as caught:
            model.predict(images)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]
    assert "\n" not in errors[0][1]


@pytest.mark.parametrize("arguments", [{"threshold": 2.0}, {"batch_size": 0}])
def test_arguments_out_of_range(runtime: Runtime, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"threshold is in \[0, 1\] and batch_size at least 1"):
        runtime.predict(gray(0.5), **arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", ["bytes", "float"])
def test_masks_are_pasted_into_the_image(tmp_path: Path, kind: str, profile: str) -> None:
    runtime = Runtime(write_stand_in(tmp_path / f"a.{kind}", masks="box", profile=profile))
    first, second = runtime.predict([gray(0.6, 70, 50), gray(1, 41, 33)], batch_size=2)
    for one in (first, second):
        height, width = (70, 50) if one is first else (41, 33)
        boxes = np.array([[0, 0, width, height], [0, 0, width / 2, height / 2]], dtype=np.float32)
        whole = boxes + np.array(OUTSIDE, dtype=np.float32)
        assert one.masks == paste_masks(np.stack([make_disk()] * 2), whole, (height, width))
    assert len(first[first.scores > 0.5].masks) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_network_inputs_made_outside(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of equal input size share a batch, whatever their own; every one comes with its sizes."""
    runtime = Runtime(write_stand_in(tmp_path / f"a.{kind}", profile="float"))
    arrays: list[dict[str, np.ndarray]] = []
    run = runtime.run
    monkeypatch.setattr(runtime, "run", lambda given: arrays.append(given) or run(given))
    several = runtime.predict([gray(0.6), gray(0.2, 80, 120), gray(0.4, 120, 80)])
    assert best_scores(several) == [0.6, 0.2, 0.4]
    assert several[1].boxes.tolist() == [[0, 0, 120, 80], [0, 0, 60, 40]]
    assert [one["images"].shape for one in arrays] == [(2, 3, 32, 48), (1, 3, 48, 32)]
    assert arrays[0]["sizes"].tolist() == [list(ImageSize(40, 60, 32, 48)), list(ImageSize(80, 120, 32, 48))]
    assert arrays[0]["images"].dtype == np.float32
    assert arrays[0]["images"][0] == pytest.approx(np.full((3, 32, 48), 153 / 255))


def test_raw_outputs(runtime: Runtime) -> None:
    outputs = runtime.run({"images": np.stack([gray(0.6), gray(0)])})
    assert set(outputs) == {"boxes", "scores", "labels", "count"}
    assert outputs["count"].tolist() == [2, 0]
    assert outputs["boxes"].shape == (2, 3, 4)
    flipped = np.stack([gray(0.6)])[:, ::-1]
    assert runtime.run({"images": flipped})["scores"][0, 0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"image": np.zeros((1, 4, 4, 3), np.uint8)},
        {"images": np.zeros((4, 4, 3), np.uint8)},
        {"images": np.zeros((1, 4, 4, 3), np.float32)},
    ],
    ids=["none", "name", "axes", "type"],
)
def test_other_arrays_are_refused(runtime: Runtime, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"stand in\.\w+ takes images uint8 of 4 axes, not \w+"):
        runtime.run(arrays)


def test_arrays_that_the_file_fails_on(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]* fails in \w+ on images \(0, 4, 4, 7\): [^\n]*$"):
        runtime.run({"images": np.zeros((0, 4, 4, 7), np.uint8)})


def test_threads_share_a_runtime(runtime: Runtime) -> None:
    values = [i / 51 for i in range(1, 50)]
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda value: runtime.predict(gray(value, 20 + round(40 * value))), values))
    assert best_scores(several) == [round(round(255 * value) / 255, 2) for value in values]


def test_openvino_computes_in_float32_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    for precision, expected in (("fp32", "f32"), ("int8", "f32"), ("bf16", "bf16")):
        runtime = Runtime(write_stand_in(tmp_path / f"{precision}.xml", precision=precision), threads=1)
        model = runtime._session._any_size.model
        assert model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == expected
        assert model.get_property("INFERENCE_NUM_THREADS") == 1


def test_metadata_and_format(runtime: Runtime) -> None:
    assert runtime.task == "detection"
    assert runtime.metadata.categories == CATEGORIES
    assert runtime.metadata.input_format == InputFormat(image_size=32, resize="shortest_side", max_size=64)
    assert runtime.runtime == ("onnxruntime" if runtime.path.suffix == ".onnx" else "openvino")
