"""EfficientDet of effdet: its files beside its own bench and transforms, the released sizes, and the way back."""

from __future__ import annotations

from pathlib import Path

import effdet
import numpy as np
import pytest
import torch
from effdet.data.transforms import transforms_coco_eval
from PIL import Image
from torch import Tensor, nn

from boxwright.compose.detectors import build
from boxwright.data.images import resample
from boxwright.passport import Origin
from boxwright.weights.files import read_source_files
from boxwright.weights.model import build_model, convert_files
from boxwright.weights.source import SourceFiles
from boxwright.weights.sources.effdet import Effdet
from random_weights import calibrate
from weights.compared import Recorder, name_version
from weights.source_checks import Differences, Expected, assert_same_detections, draw_images

SIZE = 256
EXACT_SHAPES = ((110, 128), (512, 300), (86, 512))
"""(height, width) of images that become half or twice as large."""

RELEASED = {"d0": 784, "d1": 1004, "d2": 1076, "d3": 1270, "d4": 1474, "d5": 1622, "d6": 1818, "d7": 1818, "d7x": 2210}


def make_bench(name: str, size: int) -> effdet.DetBenchPredict:
    """Make effdet's model with weights that tell objects apart, and its bench for predictions."""
    torch.manual_seed(0)
    config = effdet.get_efficientdet_config(f"tf_efficientdet_{name}")
    config.update({"image_size": (size, size)})
    model = effdet.EfficientDet(config, pretrained_backbone=False)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1.0, 0.1)
            nn.init.normal_(norm.bias, 0.0, 0.1)
    images = torch.stack([normalize(resize(image, size)[0]) for image in draw_images()])
    calibrate(model, images)
    with torch.no_grad():
        for predict, maps, spread in zip(
            (model.class_net, model.box_net), model.eval()(images), (0.7, 0.2), strict=True
        ):
            predict.predict.conv_pw.weight.mul_(spread / torch.cat([x.flatten() for x in maps]).std())
    return effdet.DetBenchPredict(model).eval()


def resize(image: np.ndarray, size: int) -> tuple[Tensor, float]:
    """Resize as effdet's validation does, with the mean color around the image; return also the factor back."""
    transform = transforms_coco_eval(img_size=size, interpolation="bilinear", use_prefetcher=True, fill_color="mean")
    pixels, info = transform(Image.fromarray(image), {})
    return torch.from_numpy(pixels), info["img_scale"]


def normalize(pixels: Tensor) -> Tensor:
    mean, std = (255 * torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels.float() - mean) / std


@torch.no_grad()
def detect(bench: effdet.DetBenchPredict, pixels: Tensor, scale: float, image: np.ndarray) -> Expected:
    """Detect with effdet's bench."""
    height, width = image.shape[:2]
    info = {"img_scale": torch.tensor([scale]), "img_size": torch.tensor([[width, height]]).float()}
    rows: Tensor = bench(normalize(pixels)[None], info)[0]
    rows = rows[rows[:, 4] > 0]
    return Expected(rows[:, 4], rows[:, 5].long() - 1, rows[:, :4])


def source_of(tensors: dict[str, Tensor], name: str = "model.pth") -> SourceFiles:
    return SourceFiles(origin=Origin(source=name, kind=""), tensors=tensors)


def test_detections(tmp_path: Path, record_comparison: Recorder) -> None:
    bench = make_bench("d0", SIZE)
    path = tmp_path / "tf_efficientdet_d0.pth"
    torch.save({"state_dict": bench.state_dict()}, path)
    converted = convert_files(read_source_files(path), {"input.image_size": SIZE})
    ours = build_model(converted)
    assert converted.origin.kind == "effdet"
    assert converted.skipped == {"anchors.boxes": "made from the image size"}
    assert [ours.categories[i].name for i in (0, 11, 17)] == ["person", "N/A", "dog"]
    assert any("input.image_size" in note for note in converted.notes)
    # Pillow, which resizes there, and torch, which does here, round alike where the factor is a power of two.
    exact = Differences(0.0, 0.0)
    for image in draw_images(EXACT_SHAPES):
        expected = detect(bench, *resize(image, SIZE), image)
        exact = exact.join(assert_same_detections(ours.predict(image), expected))
    largest = Differences(0.0, 0.0)
    # Elsewhere one pixel in some hundred differs by 1 of 255; with ours the rest is the same.
    for image in draw_images():
        pixels, scale = resize(image, SIZE)
        height, width = ours.input_format.input_size(*image.shape[:2])
        window = ours.input_format.window(*image.shape[:2])
        own = resample(image, window, height, width, resampling=ours.input_format.resize_rule(SIZE).resampling)
        difference = (pixels[:, :height, :width].int() - own.int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 0.01
        pixels[:, :height, :width] = own
        expected = detect(bench, pixels, scale, image)
        assert len(expected.scores) == 100
        assert expected.scores.max() - expected.scores.min() > 0.05
        largest = largest.join(assert_same_detections(ours.predict(image), expected))
    project, inputs = name_version("effdet"), ours.input_format
    record_comparison("effdet", "d0, twice or half as large", project, exact, inputs=inputs, images=EXACT_SHAPES)
    record_comparison("effdet", "d0, of pixels as resized here", project, largest, inputs=inputs)

    layout = Effdet().write(ours)
    theirs = bench.model.state_dict()
    assert set(layout.tensors) == set(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in layout.tensors.items())


@pytest.mark.parametrize(
    "name", [name if name == "d0" else pytest.param(name, marks=pytest.mark.slow) for name in RELEASED]
)
def test_released_sizes(name: str) -> None:
    config = effdet.get_efficientdet_config(f"tf_efficientdet_{name}")
    with torch.device("meta"):
        theirs = effdet.EfficientDet(config, pretrained_backbone=False).state_dict()
    described = Effdet().describe(source_of(theirs, f"tf_efficientdet_{name}.pth"))
    assert described.recipe == f"efficientdet_{name}"
    with torch.device("meta"):
        ours = build(described.recipe, categories=described.categories)
    converted = described.table.read(theirs, ours.state_dict())
    assert (len(converted.tensors), len(converted.skipped)) == (RELEASED[name], 0)
    assert set(Effdet().write(ours).tensors) == set(theirs)


def test_variants_without_counterpart() -> None:
    for name, reason in (("tf_efficientdet_lite0", "lite"), ("efficientdet_d1", "without biases")):
        with torch.device("meta"):
            config = effdet.get_efficientdet_config(name)
            tensors = effdet.EfficientDet(config, pretrained_backbone=False).state_dict()
        source = source_of(tensors)
        assert Effdet().recognizes(source)
        with pytest.raises(ValueError, match=reason):
            Effdet().describe(source)


def test_only_efficientdets_are_written() -> None:
    with torch.device("meta"):
        other = build("retinanet_r18_fpn", num_classes=2)
    with pytest.raises(ValueError, match="takes an EfficientDet"):
        Effdet().write(other)
