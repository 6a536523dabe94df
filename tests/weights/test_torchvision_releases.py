"""Names of torchvision's releases, against torchvision's own lists."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import ResNet50_Weights, get_model
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, FCOS_ResNet50_FPN_Weights

from boxwright.weights.files import read_source_files
from boxwright.weights.labels import UNUSED, category_ids
from boxwright.weights.model import build_model, convert_files
from boxwright.weights.projects.torchvision_releases import find_release, release_of_file
from weights.compared import Recorder, name_version
from weights.released import find_file, read_image
from weights.source_checks import Differences, Expected, assert_same_detections
from weights.torchvision_models import RELEASED_NAMES


def test_a_release_is_found_by_any_of_its_names() -> None:
    release = find_release("fasterrcnn_resnet50_fpn")
    assert release.url == FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url
    assert release.sha256_prefix == "258fb6c6"
    assert release.builder == "fasterrcnn_resnet50_fpn"
    assert "BSD-3-Clause" in release.license
    for name in ("fasterrcnn_resnet50_fpn.COCO_V1", "FasterRCNN_ResNet50_FPN_Weights.COCO_V1", release.name.lower()):
        assert find_release(name) is release
        assert find_release(f"torchvision:{name}") is release
    assert find_release("fcos_resnet50_fpn").recipes_note == FCOS_ResNet50_FPN_Weights.COCO_V1.meta["recipe"]
    assert release_of_file("258fb6c6" + 56 * "0") is release
    assert release_of_file("258fb6c7" + 56 * "0") is release_of_file(None) is None


def test_a_builder_stands_for_its_default_weights() -> None:
    assert find_release("resnet50").url == ResNet50_Weights.IMAGENET1K_V2.url
    assert find_release("resnet50.IMAGENET1K_V1").url == ResNet50_Weights.IMAGENET1K_V1.url


def test_names_of_classes_are_cocos() -> None:
    names = [category.name for category in category_ids(91)]
    assert find_release("maskrcnn_resnet50_fpn_v2").categories == ("__background__", *names[1:])
    assert names.count(UNUSED) == 11


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("fasterrcnn_resnet50", "fasterrcnn_resnet50_fpn, "),
        ("retinanet_r50", "retinanet_resnet50_fpn"),
        ("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_resnet50_fpn"),
        ("qqq", "fasterrcnn_resnet50_fpn, "),
    ],
)
def test_other_names_lead_to_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"torchvision has no weights '{name}' that can be read here; .*{nearest}"):
        find_release(name)


@pytest.mark.parametrize("name", RELEASED_NAMES)
@torch.no_grad()
def test_released_files_detect_as_in_torchvision(name: str, record_comparison: Recorder) -> None:
    """No golden values of theirs are published: both sides run, on an image and two parts of it."""
    path, image = find_file(find_release(name).url), read_image()
    theirs, weights = get_model(name, weights="DEFAULT").eval(), convert_files(read_source_files(path))
    ours, shift, largest = build_model(weights), 1 if "rcnn" in name else 0, Differences(0.0, 0.0)
    images = [image, image[:, 150:400].copy(), image[100:350].copy()]
    for one in images:
        (result,) = theirs([torch.from_numpy(one.copy()).permute(2, 0, 1) / 255])
        expected = Expected(result["scores"], result["labels"] - shift, result["boxes"])
        largest = largest.join(assert_same_detections(ours.predict(one), expected))
    shapes = [(one.shape[0], one.shape[1]) for one in images]
    source, variant, project = weights.origin.kind, f"{name}, the released file", name_version("torchvision")
    record_comparison(source, variant, project, largest, inputs=ours.input_format, images=shapes, size="released")
