"""ViTSTA: three blocks at three strides, beside a stem."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.backbones.vit_sta import ViTSTA
from boxwright.structures import Level


def build(**options: Any) -> ViTSTA:
    torch.manual_seed(0)
    return ViTSTA(**({"model": "test_vit", "blocks": (0, 1, 3), "stem_channels": 4} | options)).double().eval()


def make_images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("embed_dim", "count"), [(None, 5_689_360), (256, 9_974_032)])
def test_parameters_are_those_of_deimv2_s_and_m(embed_dim: int | None, count: int) -> None:
    with torch.device("meta"):
        backbone = ViTSTA(bare=True, embed_dim=embed_dim)
    assert sum(p.numel() for p in backbone.parameters()) == count
    assert backbone.out_spec == {name: Level(embed_dim or 192, 8 << i) for i, name in enumerate(("c3", "c4", "c5"))}


def test_maps_of_the_stem_have_the_published_widths() -> None:
    with torch.device("meta"):
        backbone = ViTSTA(bare=True)
    stem = backbone.stem
    assert stem is not None
    convs = [m for m in stem.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [16, 32, 64, 64]


def test_levels_are_blocks_resized_beside_the_stem() -> None:
    backbone, images = build(), make_images(64, 96)
    blocks, details = backbone.vit(images), backbone.stem(images)  # type: ignore[misc]
    resized = [
        F.interpolate(blocks[0], size=(8, 12), mode="bilinear"),
        blocks[1],
        F.interpolate(blocks[2], size=(2, 3), mode="bilinear"),
    ]
    levels = backbone(images)
    for i, level in enumerate(levels.values()):
        torch.testing.assert_close(level, backbone.fuse[i](torch.cat((resized[i], details[i]), 1)))


def test_one_block_is_taken_for_all_levels() -> None:
    backbone, images = build(blocks=(2,), stem_channels=0), make_images(64, 96)
    (block,) = backbone.vit(images)
    torch.testing.assert_close(backbone(images)["c4"], backbone.fuse[1](block))
    coarse = F.avg_pool2d(block, 2)
    torch.testing.assert_close(backbone(images)["c5"], backbone.fuse[2](coarse))
    assert backbone.stem is None


def test_the_size_of_the_image_is_known_exactly() -> None:
    levels = build(out_channels=6)(make_images(100, 75))
    assert [tuple(x.shape[1:]) for x in levels.values()] == [(6, 13, 10), (6, 7, 5), (6, 4, 3)]


def test_bare_transformers_have_neither_register_tokens_nor_layer_scales() -> None:
    names = [
        name for name, _ in ViTSTA(model="vit_tiny_patch16_dinov3_qkvb", blocks=(0,), bare=True).named_parameters()
    ]
    assert not [name for name in names if "reg_token" in name or "gamma" in name]
    with torch.device("meta"):
        names = [name for name, _ in build(model="vit_small_patch14_reg4_dinov2", bare=True).named_parameters()]
    assert not [name for name in names if "reg_token" in name or "ls1" in name]


def test_exports_with_a_free_batch() -> None:
    backbone = build().float()
    program = torch.export.export(
        backbone, (torch.rand(2, 3, 100, 75),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
    )
    images = torch.rand(3, 3, 100, 75)
    for name, level in program.module()(images).items():
        torch.testing.assert_close(level, backbone(images)[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (0, 1)}, r"blocks are three, of c3, c4 and c5, or one for all of them, not \[0, 1\]"),
        ({"stem_channels": -1}, "stem_channels is at least 0, not -1"),
        ({"out_channels": 0}, "out_channels is at least 1, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
