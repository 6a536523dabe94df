"""Small detectors, objects to train them on, and a whole small run: data set, recipe and checkpoints."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
import yaml

import boxwright
from boxwright.backbones.resnet_vd import ResNetVD
from boxwright.cli.main import main
from boxwright.detector import Detector
from boxwright.exporting import graph
from boxwright.exporting.export_file import export_file
from boxwright.heads.rtdetr import RTDETR
from boxwright.necks.hybrid_encoder import HybridEncoder
from boxwright.queries import DenoisingOptions, RefiningDecoderOptions
from boxwright.structures import Category, Targets
from boxwright.training.interrupt import SIGNALS
from boxwright_runtime.input_format import InputFormat
from colored_rectangles import draw_rectangles, train_on_rectangles
from random_weights import calibrate, shake
from sparse_ids import draw_with_sparse_ids
from tiny_recipe import TINY_RECIPE

pytest_plugins = ["recorded_conformance"]

MakeTargets = Callable[..., list[Targets]]
MakeDetector = Callable[..., Detector]


@pytest.fixture(scope="session", autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """Signals as in the foreground: a job in the background, or under nohup, ignores some, and so would its tests."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in (number for number, handler in before.items() if handler is signal.SIG_IGN):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of their own for what is remembered between runs, also for the processes that tests start."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXWRIGHT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set of 10 images to train on and 6 held out, with sparse ids; not to be written to."""
    return draw_with_sparse_ids(tmp_path_factory.mktemp("drawn") / "set", train=10, val=6, image_size=80, seed=1)


@pytest.fixture
def tiny_recipe() -> dict[str, Any]:
    """A recipe that trains in seconds; a copy to change."""
    return json.loads(json.dumps(TINY_RECIPE))


@pytest.fixture
def recipe_file(tmp_path: Path, tiny_recipe: dict[str, Any]) -> Path:
    """The same as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Path:
    """The folder of a finished run of ``TINY_RECIPE`` on ``drawn``; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY_RECIPE))
    assert main(["train", str(folder / "tiny.yaml"), "--data", str(drawn), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def make_targets() -> MakeTargets:
    """Make targets with so many objects, ellipses, per image, inside an input of ``size`` (height, width)."""

    def make(
        counts: Sequence[int], *, size: tuple[int, int] = (64, 64), num_classes: int = 4, seed: int = 0
    ) -> list[Targets]:
        generator = torch.Generator().manual_seed(seed)
        height, width = size
        scale = torch.tensor([width, height, width, height])
        y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
        targets = []
        for count in counts:
            corner = torch.rand(count, 2, generator=generator) * 0.6
            sides = torch.rand(count, 2, generator=generator) * 0.35 + 0.05
            boxes = torch.cat((corner, corner + sides), 1) * scale
            labels = torch.randint(0, num_classes, (count,), generator=generator)
            center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
            (cx, cy), (rx, ry) = (values.t()[:, :, None, None] for values in (center, half))
            masks = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
            targets.append(Targets(labels, boxes, size, masks))
        return targets

    return make


@pytest.fixture
def make_detector() -> MakeDetector:
    """A whole RT-DETR of a few thousand parameters, whose weights and norm statistics are all far from special."""

    def make(*, num_classes: int = 4, seed: int = 0, num_denoising: int = 8) -> Detector:
        torch.manual_seed(seed)
        backbone = ResNetVD(depth=18, width=8)
        neck = HybridEncoder(
            backbone.out_spec, hidden_dim=16, num_heads=2, feedforward_dim=32, expansion=0.5, num_blocks=1
        )
        head = RTDETR(
            neck.out_spec,
            num_classes,
            hidden_dim=16,
            num_queries=12,
            decoder=RefiningDecoderOptions(num_heads=2, feedforward_dim=32, num_layers=3),
            denoising=DenoisingOptions(num_queries=num_denoising),
        )
        categories = [Category(10 * (i + 1), f"class {i}") for i in range(num_classes)]
        detector = Detector(backbone, [neck], head, categories=categories, input_format=InputFormat(image_size=64))
        shake(detector)
        calibrate(detector, torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3))
        return detector

    return make


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As in production: the annotations that the tests check are only read."""
    with annotations_only_read():
        yield


@pytest.fixture(scope="session", autouse=True)
def exports_are_unchecked() -> Iterator[None]:
    """While a file is traced, its sizes are symbols: no int, and fixed as soon as two of them are compared."""

    checked = graph._export

    def export_unchecked(*arguments: Any) -> Any:
        with annotations_only_read():
            return checked(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_export", export_unchecked)
        yield


@contextmanager
def annotations_only_read() -> Iterator[None]:
    """Check no types for a while."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of red and blue rectangles, not to be written to; see ``colored_rectangles``."""
    return draw_rectangles(tmp_path_factory.mktemp("rectangles") / "set", train=64, val=12)


@pytest.fixture(scope="session")
def rectangle_run(tmp_path_factory: pytest.TempPathFactory, rectangles: Path) -> Path:
    """The folder of a run that has learned to detect them; not to be written to."""
    folder = tmp_path_factory.mktemp("rectangle_run") / "run"
    train_on_rectangles(rectangles, folder)
    return folder


@pytest.fixture(scope="session")
def rectangle_file(tmp_path_factory: pytest.TempPathFactory, rectangle_run: Path) -> Path:
    """The exported file of that run, ONNX in float32 from bytes; not to be written to."""
    target = tmp_path_factory.mktemp("rectangle_file") / "rectangles.onnx"
    return export_file(boxwright.load(rectangle_run), target).path
