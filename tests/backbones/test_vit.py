"""ViT: levels of one stride, called by their blocks."""

from __future__ import annotations

import torch

from boxwright.backbones.vit import ViT
from boxwright.structures import Level


def test_levels_are_called_by_their_blocks() -> None:
    backbone = ViT(model="test_vit", blocks=(1, 4)).eval()
    assert backbone.out_spec == {"block1": Level(64, 16), "block4": Level(64, 16)}
    images = torch.rand(2, 3, 100, 75, generator=torch.Generator().manual_seed(0))
    levels = backbone(images)
    assert [tuple(x.shape) for x in levels.values()] == [(2, 64, 7, 5)] * 2
    # The map after a block is the same, whatever other maps go out.
    other = ViT(model="test_vit", blocks=(4,)).eval()
    other.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(other(images)["block4"], levels["block4"], rtol=0, atol=0)


def test_the_default_has_three_blocks_of_a_tiny_dinov3() -> None:
    with torch.device("meta"):
        backbone = ViT()
    assert backbone.out_spec == {f"block{i}": Level(192, 16) for i in (3, 7, 11)}
    # Without the norm behind its blocks, of 2 x 192 parameters.
    assert sum(p.numel() for p in backbone.parameters()) == 5_489_664 - 2 * 192


def test_every_option_reaches_the_network() -> None:
    backbone = ViT(model="test_vit", blocks=(3,), final_norm=True, drop_path=0.3, num_windows=2, global_blocks=(1,))
    assert (backbone.vit.num_windows, backbone.vit.global_blocks) == (2, frozenset({1}))
    assert isinstance(backbone.vit.body["model"].norm, torch.nn.LayerNorm)
    rates = [m.drop_prob for m in backbone.modules() if type(m).__name__ == "DropPath"]
    assert 0 < max(rates) <= 0.3


def test_exports_with_a_free_batch() -> None:
    backbone = ViT(blocks=(0, 1), num_windows=2, global_blocks=(1,)).eval()
    program = torch.export.export(
        backbone, (torch.rand(2, 3, 100, 75),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
    )
    images = torch.rand(3, 3, 100, 75)
    for name, level in program.module()(images).items():
        torch.testing.assert_close(level, backbone(images)[name], rtol=1e-4, atol=1e-5)
