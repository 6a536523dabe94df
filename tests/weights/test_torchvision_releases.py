"""Names of torchvision's releases, against torchvision's own lists."""

from __future__ import annotations

import pytest
from torchvision.models import ResNet50_Weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, FCOS_ResNet50_FPN_Weights

from boxwright.weights.labels import UNUSED, category_ids
from boxwright.weights.projects.torchvision_releases import find_release, release_of_file


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
