"""Detectors of torchvision: its own files through our door, against its own transform, network and post-processing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torchvision.models.detection._utils import overwrite_eps

from boxwright.detections import Detections
from boxwright.detector import Detector
from boxwright.ops.masks import decode_mask
from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, build_model, convert_files
from boxwright.weights.recognize import find_kind
from weights.source_checks import Expected, assert_same_detections, draw_images
from weights.torchvision_models import KINDS, MAX_SIZE, MIN_SIZE, RCNNS, make, old_names

SIZES = {"input.image_size": MIN_SIZE, "input.max_size": MAX_SIZE}


def read(tensors: dict[str, torch.Tensor], folder: Path, release: str | None = None, **overrides: Any) -> ModelWeights:
    """A file of torch's own format, read and converted."""
    torch.save(tensors, folder / "model.pth")
    files = read_source_files(folder / "model.pth")
    if release is not None:
        object.__setattr__(files, "release", release)
    return convert_files(files, {**SIZES, **overrides})


class Pair(NamedTuple):
    kind: str
    theirs: Any
    model: ModelWeights
    ours: Detector


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    theirs = make(request.param)
    model = read(theirs.state_dict(), tmp_path_factory.mktemp("file"))
    return Pair(request.param, theirs, model, build_model(model))


def test_detections_and_masks(pair: Pair) -> None:
    shift = 1 if pair.kind in RCNNS else 0
    for image in draw_images():
        with torch.no_grad():
            (expected,) = pair.theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
        assert len(expected["scores"]) > 10
        assert len(expected["labels"].unique()) > 2
        actual = pair.ours.predict(image)
        assert isinstance(actual, Detections)
        assert_same_detections(actual, Expected(expected["scores"], expected["labels"] - shift, expected["boxes"]))
        if pair.kind.startswith("mask"):
            assert_same_masks(actual, expected)


def assert_same_masks(actual: Detections, expected: dict[str, torch.Tensor]) -> None:
    """Masks of the same boxes; cells at the threshold may differ."""
    assert actual.masks is not None
    compared = 0
    for box, mask in zip(expected["boxes"], expected["masks"][:, 0], strict=True):
        distance, index = (actual.boxes - box).abs().amax(-1).min(0)
        if distance < 0.01:
            differ = torch.as_tensor(decode_mask(actual.masks[int(index)])) != (mask > 0.5)
            assert not differ[(mask - 0.5).abs() > 1e-3].any()
            compared += bool((mask > 0.5).any())
    assert compared > 10


def test_the_layout_is_torchvisions(pair: Pair) -> None:
    """Written and loaded strictly by torchvision's own model, tensor by tensor."""
    tensors = pair.theirs.state_dict()
    layout = find_kind(pair.model.origin.kind).write(pair.ours)
    assert layout.file_name == "model.pth"
    assert set(tensors) - set(layout.tensors) <= {name for name in tensors if name.endswith("num_batches_tracked")}
    for name, tensor in layout.tensors.items():
        torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=0)
    pair.theirs.load_state_dict(layout.tensors, strict=True)


@pytest.mark.parametrize(
    ("kind", "release"),
    [
        ("faster", "fasterrcnn_resnet50_fpn"),
        ("mask", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1"),
        ("retinanet", "retinanet_resnet50_fpn.COCO_V1"),
        ("fcos", "fcos_resnet50_fpn"),
    ],
)
def test_epsilon_of_a_release_is_known_and_that_of_other_files_is_assumed(
    kind: str, release: str, tmp_path: Path
) -> None:
    theirs = make(kind)
    tensors = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    for name, tensor in tensors.items():
        if name.endswith("running_var") and "layer2" in name:  # where 1e-5 is seen
            tensor.copy_(tensor * 1e-4)
            tensors[name.replace("running_var", "weight")].mul_(1e-2)
    theirs.load_state_dict(tensors)
    without = 0.0 if kind != "fcos" else 1e-5
    overwrite_eps(theirs, without)
    named, unnamed = read(tensors, tmp_path, f"torchvision:{release}"), read(tensors, tmp_path)
    assert named.recipe.backbone.options["norm_eps"] == without
    assert named.notes == ()
    assert any("backbone.norm_eps" in note for note in unnamed.notes)
    assert any("input.max_size" in note for note in unnamed.notes)
    *_, image = draw_images()
    with torch.no_grad():
        (result,) = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
    expected = Expected(result["scores"], result["labels"] - (1 if kind in RCNNS else 0), result["boxes"])
    assert_same_detections(build_model(named).predict(image), expected)
    overridden = read(tensors, tmp_path, **{"backbone.norm_eps": without})
    assert_same_detections(build_model(overridden).predict(image), expected)
    if not without:
        with pytest.raises(AssertionError):
            assert_same_detections(build_model(unnamed).predict(image), expected)


@pytest.mark.parametrize("kind", ["faster", "mask", "retinanet", "fcos"])
def test_older_names(kind: str, tmp_path: Path) -> None:
    tensors = make(kind).state_dict()
    older = old_names(tensors)
    assert set(older) != set(tensors)
    expected, actual = read(tensors, tmp_path), read(older, tmp_path)
    assert actual.recipe == expected.recipe
    assert set(actual.tensors) == set(expected.tensors)
    for name, tensor in actual.tensors.items():
        torch.testing.assert_close(tensor, expected.tensors[name], rtol=0, atol=0)
