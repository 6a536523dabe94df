"""Images through a detector: every form of them, in every precision and mode, and what is no image."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from boxwright import prediction
from boxwright.detector import Detector
from boxwright.devices import ComputePrecision
from boxwright.prediction import evaluation_mode
from boxwright.structures import Decoded, Features
from boxwright_runtime.detections import Detections
from passing_detector import Mean, Passes, gray, make_detector, png, scores


@pytest.fixture
def detector() -> Detector:
    return make_detector()


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
def test_every_form_of_an_image(detector: Detector, tmp_path: Path, form: str) -> None:
    Image.fromarray(gray(0.6)).save(tmp_path / "one.png")
    image = FORMS[form](gray(0.6), tmp_path / "one.png")
    one = detector.predict(image)
    assert isinstance(one, Detections)
    assert one.boxes.tolist() == [[0, 0, 60, 40], [0, 0, 30, 20]]
    if form != "file":  # which is at its end
        several = detector.predict([image])
        assert isinstance(several, list)
        assert scores(several) == scores([one]) == [0.6]


def test_an_open_file(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(png(gray(0.2)))
    with (tmp_path / "one.png").open("rb") as file:
        one = detector.predict(file)
    assert isinstance(one, Detections)
    assert scores([one]) == [0.2]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_four_dimensions_are_several(detector: Detector, as_tensor: bool) -> None:
    images: Any = np.stack([gray(0.2), gray(0.8)])
    several = detector.predict(torch.from_numpy(images).permute(0, 3, 1, 2) if as_tensor else images)
    assert isinstance(several, list)
    assert scores(several) == [0.2, 0.8]


def test_a_folder_in_the_order_of_its_names(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for value, name in ((0.2, "b.png"), (0.4, "a.png"), (0.6, "deep/c.PNG")):
        (tmp_path / name).write_bytes(png(gray(value)))
    (tmp_path / "notes.txt").write_text("no image")
    several = detector.predict(tmp_path)
    assert isinstance(several, list)
    assert scores(several) == [0.4, 0.2, 0.6]
    paths = [path for path, _ in detector.stream(str(tmp_path)).items()]
    assert paths == [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "deep" / "c.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no images in this folder"):
        detector.predict(tmp_path / "empty")


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_image(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no image .*nowhere\.png"):
        detector.predict(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"images are paths, bytes of files, .* or several of them, not int"):
        detector.predict(cast(Any, 3))
    with pytest.raises(ValueError, match="image 1: these bytes are no image file"):
        detector.predict([gray(0.1), b"no image"])
    with pytest.raises(ValueError, match=r"image 0: .*not dict"):
        detector.predict(cast(Any, [{"image": 3}]))
    with pytest.raises(ValueError, match="on_error is 'raise' or 'skip', not 'ignore'"):
        detector.stream([], on_error=cast(Any, "ignore"))


def test_half_an_image_in_memory(detector: Detector) -> None:
    whole = png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="image 0: "):
        detector.predict(whole[: len(whole) // 2])


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_precision_is_that_of_the_network_alone(
    detector: Detector, precision: ComputePrecision, dtype: torch.dtype
) -> None:
    seen: list[torch.dtype] = []

    def multiply(features: Features, *_: object) -> Tensor:
        product = features["c0"] @ torch.eye(features["c0"].shape[-1])
        seen.append(product.dtype)
        return product

    def decode_after(output: Tensor) -> Decoded:
        seen.append((torch.eye(2) @ torch.eye(2)).dtype)
        return decode(output)

    head = cast(Mean, detector.head)
    decode = head.decode
    cast(Any, head).forward, cast(Any, head).decode = multiply, decode_after
    (one,) = cast(list[Detections], detector.predict([gray(0.5)], precision=precision))
    assert seen == [dtype, torch.float32]
    assert one.boxes.dtype == torch.float32
    assert one.boxes[0].tolist() == [0, 0, 60, 40]
    assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(ValueError, match="precision is auto, float32 or bfloat16, not 'half'"):
        detector.predict([], precision=cast(Any, "half"))


def test_every_module_gets_its_own_mode_back_between_results(detector: Detector) -> None:
    detector.train()
    cast(Passes, detector.backbone).norm.eval()
    before = [module.training for module in detector.modules()]
    assert len(set(before)) == 2
    modes: list[bool] = []
    detector.head.register_forward_hook(lambda module, *_: modes.append(module.training))
    stream = detector.stream([gray(0.1)] * 4, batch_size=1)
    for _ in range(2):
        next(stream)
        assert [module.training for module in detector.modules()] == before
        assert torch.is_grad_enabled()
    assert modes == [False] * 2


def test_every_module_gets_its_own_mode_back_after_an_error(detector: Detector) -> None:
    detector.train()
    cast(Passes, detector.backbone).norm.eval()
    before = [module.training for module in detector.modules()]
    with contextlib.suppress(RuntimeError), evaluation_mode(detector):
        assert not any(module.training for module in detector.modules())
        raise RuntimeError
    assert [module.training for module in detector.modules()] == before


def test_modes_come_back_after_an_image_that_cannot_be_predicted(detector: Detector) -> None:
    detector.train()
    detector.backbone.eval()
    before = [module.training for module in detector.modules()]

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    with detector.head.register_forward_hook(fail), pytest.raises(RuntimeError, match="no memory"):
        detector.predict(gray(0.5))
    assert [module.training for module in detector.modules()] == before
    assert len(set(before)) == 2
    assert not prediction._SWITCHED


def test_a_detector_in_evaluation_is_not_touched(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    detector.eval()
    switched: list[str] = []
    plain = nn.Module.__setattr__

    def set_attribute(module: nn.Module, name: str, value: Any) -> None:
        switched.append(name)
        plain(module, name, value)

    monkeypatch.setattr(nn.Module, "__setattr__", set_attribute)
    with evaluation_mode(detector):
        pass
    assert "training" not in switched


@pytest.mark.parametrize("first_leaves_first", [True, False])
def test_threads_share_a_detector_in_training(detector: Detector, first_leaves_first: bool) -> None:
    """None of two that overlap sees a module in training, whoever ends first, and all modes come back."""
    detector.train()
    cast(Passes, detector.backbone).norm.eval()
    before = [module.training for module in detector.modules()]
    inside = [threading.Event(), threading.Event()]
    leave = [threading.Event(), threading.Event()]
    modes: dict[float, list[bool]] = {}

    def wait(_module: nn.Module, inputs: Any, _output: Any) -> None:
        which = round(inputs[0]["c0"].mean().item())
        inside[which].set()
        assert leave[which].wait(60)
        modes[which] = [module.training for module in detector.modules()]

    with detector.head.register_forward_hook(wait), ThreadPoolExecutor(2) as pool:
        futures = []
        for which in (0, 1):
            futures.append(pool.submit(detector.predict, gray(float(which))))
            assert inside[which].wait(60)
        order = (0, 1) if first_leaves_first else (1, 0)
        for which in order:
            leave[which].set()
            assert scores([cast(Detections, futures[which].result(60))]) == [which]
            if which == order[0]:
                assert not any(module.training for module in detector.modules())
    assert not any(modes[0] + modes[1])
    assert [module.training for module in detector.modules()] == before


def test_many_threads_predict_what_one_does(detector: Detector) -> None:
    detector.train()
    images = [gray(i / 40, *((40, 60) if i % 3 else (60, 40))) for i in range(40)]
    expected = scores(cast(list[Detections], detector.predict(images)))
    with ThreadPoolExecutor(8) as pool:
        assert scores([cast(Detections, one) for one in pool.map(detector.predict, images)]) == expected
    assert all(module.training for module in detector.modules())


def test_results_are_ordinary_tensors(detector: Detector) -> None:
    one = detector.predict(gray(0.5))
    assert isinstance(one, Detections)
    for tensor in (one.boxes, one.scores, one.labels):
        assert not tensor.is_inference()
        assert not tensor.requires_grad
    one.boxes += 1
    (one.boxes * torch.ones(4, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(detector: Detector, dtype: torch.dtype) -> None:
    shapes = cast(Passes, detector.backbone).shapes
    one = detector.to(dtype).predict(gray(0.5))
    assert isinstance(one, Detections)
    assert len(shapes) == 1
    assert one.scores[0].item() == pytest.approx(0.5, abs=0.01)
    assert one.boxes.dtype == one.scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_a_compiled_detector(detector: Detector) -> None:
    expected = detector.predict([gray(0.3), gray(0.7, 60, 40)])
    calls: list[int] = []

    def backend(graph: Any, _: object) -> Any:
        calls.append(1)
        return graph.forward

    detector.compile(backend=backend)
    actual = detector.predict([gray(0.3), gray(0.7, 60, 40)])
    assert calls
    assert isinstance(expected, list)
    assert isinstance(actual, list)
    assert scores(actual) == scores(expected)
    calls.clear()
    folded = detector.fold()
    folded.predict(gray(0.3))
    assert not calls
    folded.compile(backend=backend)
    folded.predict(gray(0.3))
    assert calls
