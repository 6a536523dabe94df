"""Plain vision transformers: timm's maps, and windows that are images of their own."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from boxwright.layers.plain_vit import PlainViT, RotaryTables, join_windows, split_windows
from boxwright.ops.onnx_operators import tracing_for_onnx
from conformance import compare_gradients, compare_tensors, note_inputs

DINOV3, MIXED = "vit_tiny_patch16_dinov3_qkvb", "vit_small_patch16_rope_mixed_224"
MODELS = ["test_vit", DINOV3, MIXED, "eva02_tiny_patch14_224", "vit_small_patch14_reg4_dinov2"]


def build(model: str, blocks: tuple[int, ...], **options: Any) -> PlainViT:
    torch.manual_seed(0)
    vit = PlainViT(model, blocks, **options).double().eval()
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            # Tokens and biases begin at zero, positions and scales nearly so.
            if parameter.ndim == 1 or "token" in name or "pos_embed" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return vit


def make_images(height: int, width: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.conforms("plain ViT", "timm")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("final_norm", [False, True])
def test_maps_and_gradients_are_those_of_timm(model: str, final_norm: bool) -> None:
    ours = build(model, (0, 2), final_norm=final_norm)
    peer = timm.create_model(model, num_classes=0, dynamic_img_size=True).double().eval()
    peer.prune_intermediate_layers([0, 2], prune_norm=not final_norm)
    peer.load_state_dict(ours.vit.state_dict())
    side = ours.patch_size
    images = make_images(4 * side, 3 * side)
    theirs = peer.forward_intermediates(images, indices=[0, 2], norm=final_norm, intermediates_only=True)
    maps = ours(images)
    note_inputs(images)
    for one, two in zip(maps, theirs, strict=True):
        compare_tensors("outputs", one, two, limit=1e-12)
    for some in (maps, theirs):
        sum(x.square().mean() for x in some).backward()
    pairs = zip(ours.vit.named_parameters(), peer.parameters(), strict=True)
    gradients = [(name, one.grad, two.grad) for (name, one), two in pairs]
    both = {n: one for n, one, _ in gradients}, {n: two for n, _, two in gradients}
    compare_gradients(*both, limit=1e-8, floor=1e-4, elements=(1e-8, 1e-12))


def test_images_of_any_size_are_padded_at_the_right_and_at_the_bottom() -> None:
    vit = build("test_vit", (1,), num_windows=2)
    images = make_images(70, 33)
    padded = torch.zeros(2, 3, 96, 64, dtype=torch.float64)
    padded[..., :70, :33] = images
    (one,), (two,) = vit(images), vit(padded)
    assert one.shape == (2, 64, 5, 3)
    torch.testing.assert_close(one, two[..., :5, :3], rtol=0, atol=0)


@pytest.mark.parametrize("model", ["test_vit", DINOV3, MIXED])
def test_windows_go_through_the_blocks_by_themselves(model: str) -> None:
    """Each window of a rectangle is its tokens and rotations, cut out of those of the image by hand."""
    vit, images = build(model, (1,), num_windows=2), make_images(96, 64)
    inner, first = vit.vit, vit.vit.num_prefix_tokens
    x, rope = vit._embed(images, 6, 4)
    (level,) = vit(images)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        own = [i * 4 + j for i in range(3 * row, 3 * row + 3) for j in range(2 * column, 2 * column + 2)]
        window = torch.cat((x[:, :first], x[:, [first + i for i in own]]), 1)
        for i, block in enumerate(inner.blocks):
            if rope is None:
                window = block(window)
            else:
                window = block(window, rope=(rope[i] if rope.ndim == 4 else rope)[..., own, :])
        expected = window[:, first:].transpose(1, 2).unflatten(2, (3, 2))
        actual = level[:, :, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", [DINOV3, MIXED])
def test_rotations_of_all_tokens_are_those_of_the_windows_side_by_side(model: str) -> None:
    vit, images = build(model, (1,), num_windows=2), make_images(96, 64)
    first = vit.vit.num_prefix_tokens
    _, rope = vit._embed(images, 6, 4)
    tables = RotaryTables(rope, 2, 3, 2, first)
    windows, whole = (tables.of_block(1, torch.zeros(4, 1, 1), whole=flag) for flag in (False, True))
    assert windows is not None
    assert whole is not None
    tokens, width = first + 6, windows.shape[-1]
    assert whole.shape[-2] == 4 * tokens - first
    for i in range(4):
        begin = i * tokens
        torch.testing.assert_close(whole[:, begin : begin + 6], windows[i], rtol=0, atol=0)
        if i < 3:
            between = whole[:, begin + 6 : begin + tokens]
            assert (between[..., : width // 2] == 0).all()
            assert (between[..., width // 2 :] == 1).all()


@pytest.mark.parametrize("model", ["test_vit", DINOV3])
def test_global_blocks_attend_over_the_whole_image(model: str) -> None:
    images = make_images(64, 64)
    changed = images.clone()
    changed[..., :16, :16] += 1
    for global_blocks, reached in (((), False), ((1,), True)):
        vit = build(model, (1,), num_windows=2, global_blocks=global_blocks)
        difference = (vit(changed)[0] - vit(images)[0]).abs().amax((0, 1))
        assert difference[:2, :2].min() > 1e-6
        assert bool(difference[2:, 2:].max() > 0) == reached


def test_images_of_a_batch_do_not_see_each_other() -> None:
    vit, images = build("test_vit", (0, 2), num_windows=2, global_blocks=(1,)), make_images(64, 96, batch=3)
    for together, alone in zip(vit(images), vit(images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-12)


def test_windows_are_cut_row_by_row_and_joined() -> None:
    x = torch.arange(48.0).view(2, 24, 1)
    windows = split_windows(x, 2, 3, 2)
    assert windows.shape == (8, 6, 1)
    assert windows[1].flatten().tolist() == [2.0, 3.0, 6.0, 7.0, 10.0, 11.0]
    assert windows[6, 0] == x[1, 12]
    torch.testing.assert_close(join_windows(windows, 2, 3, 2), x.view(2, 6, 4, 1), rtol=0, atol=0)


def test_blocks_beyond_the_last_are_not_built() -> None:
    vit = build("test_vit", (0, 3))
    assert len(vit.vit.blocks) == 4
    assert isinstance(vit.vit.norm, nn.Identity)


def test_options_reach_what_they_name() -> None:
    rates = [m.drop_prob for m in build("test_vit", (5,), drop_path=0.2).modules() if type(m).__name__ == "DropPath"]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.2)
    with torch.device("meta"):
        wide = PlainViT(DINOV3, (0,), embed_dim=256, bare=True)
    attention = wide.vit.blocks[0].attn
    assert (wide.channels, attention.num_heads, attention.qkv.bias.shape) == (256, 4, (768,))


def test_patches_of_convolutions_in_a_row() -> None:
    """At sizes that are no multiples of a patch, too; the same number of cells as of one convolution."""
    vit = build("test_vit", (1,), conv_patches=True)
    channels = [conv.out_channels for conv in vit.vit.patch_embed.modules() if isinstance(conv, nn.Conv2d)]
    assert channels == [8, 16, 32, 64]
    images = torch.rand(2, 3, 75, 33, dtype=torch.float64)
    assert vit(images)[0].shape == build("test_vit", (1,))(images)[0].shape == (2, 64, 5, 3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("resnet18", {}, "model resnet18 is no plain vision transformer: take it with the backbone timm"),
        ("vit_tiny", {}, "unknown timm model 'vit_tiny'; nearest: "),
        ("test_vit", {"blocks": (6,)}, r"blocks are one or more of 0 to 5, each once and in order, not \[6\]"),
        ("test_vit", {"blocks": (2, 1)}, r"blocks are one or more of 0 to 5, each once and in order, not \[2, 1\]"),
        ("test_vit", {"blocks": ()}, "blocks are one or more of 0 to 5"),
        ("test_vit", {"num_windows": 0}, "num_windows is at least 1, not 0"),
        ("test_vit", {"global_blocks": (0,)}, r"global_blocks \[0\] mean nothing without windows: set num_windows"),
        ("test_vit", {"num_windows": 2, "global_blocks": (2,)}, r"global_blocks are one or more of 0 to 1"),
        ("test_vit", {"embed_dim": 100}, "embed_dim is a positive multiple of 64, not 100"),
        (
            "vit_small_patch14_dinov2",
            {"conv_patches": True},
            "conv_patches is for patches of 4, 8, 16 or more pixels, not of 14",
        ),
        ("test_vit", {"drop_path": 1.0}, "drop_path is at least 0 and below 1, not 1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(model: str, options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        PlainViT(model, **({"blocks": (1,)} | options))


@pytest.mark.parametrize("model", ["test_vit", DINOV3])
def test_a_graph_for_onnx_has_the_same_positions(model: str) -> None:
    vit, images = build(model, (1,), num_windows=2), make_images(96, 160)
    expected = vit(images)
    with tracing_for_onnx():
        actual = vit(images)
    # Positions are resized and rotations are made in float32.
    torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=1e-5)
