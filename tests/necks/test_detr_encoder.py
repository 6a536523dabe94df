"""DETR's encoder: what becomes of tokens, positions and padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.layers.positions import encode_masked_sine, encode_unmasked_sine
from boxwright.layers.tokens import to_tokens
from boxwright.necks.detr_encoder import DETREncoder
from boxwright.structures import Level

SPEC = {"c5": Level(12, 32)}
TWO = {"c4": Level(8, 16), "c5": Level(12, 32)}


def encoder(spec: dict[str, Level] = SPEC, **options: Any) -> DETREncoder:
    torch.manual_seed(0)
    defaults = {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 24, "num_layers": 2}
    return DETREncoder(spec, **(defaults | options)).eval()


def level(batch: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def make_mask(height: int, width: int, *sizes: tuple[int, int]) -> Tensor:
    """Make the padding mask of images of these sizes."""
    mask = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for i, (h, w) in enumerate(sizes):
        mask[i, :h, :w] = False
    return mask


def test_levels_keep_their_names_and_strides() -> None:
    assert encoder(TWO).out_spec == {"c4": Level(16, 16), "c5": Level(16, 32)}
    assert encoder({"c5": Level(12, 16)}).out_spec == {"c5": Level(16, 16)}


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_cells_go_through_the_layers_row_by_row(pre_norm: bool) -> None:
    neck, x, mask = encoder(pre_norm=pre_norm), level(2, 12, 3, 4), make_mask(96, 128, (64, 128), (96, 70))
    tokens = to_tokens(neck.projections["c5"](x))
    cells = torch.zeros(2, 3, 4, dtype=torch.bool)
    cells[0, 2:] = True
    cells[1, :, 3:] = True  # column 3 begins at pixel 96, column 2 at 64
    for layer in neck.layers:
        tokens = layer(tokens, encode_masked_sine(cells, 16), cells.flatten(1))
    tokens = F.layer_norm(tokens, (16,)) if pre_norm else tokens
    expected = tokens.transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(neck({"c5": x}, mask)["c5"], expected, rtol=0, atol=1e-6)


def test_a_padded_image_is_encoded_as_one_alone() -> None:
    neck, x = encoder(), level(2, 12, 3, 4)
    x[0, :, 2:] = 7.0  # what convolutions leave on padding
    together = neck({"c5": x}, make_mask(96, 128, (64, 128), (96, 128)))["c5"]
    alone = neck({"c5": x[:1, :, :2]})["c5"]
    torch.testing.assert_close(together[:1, :, :2], alone, rtol=0, atol=1e-5)
    assert (neck({"c5": x})["c5"][:1, :, :2] - alone).abs().max() > 1e-2


@pytest.mark.parametrize("positions", ["sine", "learned"])
def test_positions_at_the_input_are_added_once(positions: str) -> None:
    neck, x = encoder(positions=positions, positions_at="input"), level(1, 12, 3, 4)
    added = encode_unmasked_sine(3, 4, 16) if positions == "sine" else neck.positions.learned(3, 4)
    tokens = to_tokens(neck.projections["c5"](x)) + added
    for layer in neck.layers:
        tokens = layer(tokens, None)
    ours = to_tokens(neck({"c5": x})["c5"])
    torch.testing.assert_close(ours, tokens, rtol=0, atol=1e-6)
    at_attention = encoder(positions=positions)
    at_attention.load_state_dict(neck.state_dict())
    assert (to_tokens(at_attention({"c5": x})["c5"]) - ours).abs().max() > 1e-2


def test_without_positions_the_order_does_not_matter() -> None:
    x = level(1, 12, 3, 4)
    for positions, same in (("none", True), ("sine", False)):
        neck = encoder(positions=positions)
        straight, flipped = neck({"c5": x})["c5"], neck({"c5": x.flip(3)})["c5"].flip(3)
        difference = (straight - flipped).abs().max()
        assert difference < 1e-5 if same else difference > 1e-2


def test_cells_of_all_levels_attend_to_each_other() -> None:
    neck = encoder(TWO)
    features = {"c4": level(1, 8, 4, 4).requires_grad_(), "c5": level(1, 12, 2, 2).requires_grad_()}
    neck(features)["c4"][..., 3, 3].square().sum().backward()
    for x in features.values():
        assert x.grad is not None
        assert (x.grad.abs().amax(1) > 0).all()


def test_learned_positions_have_an_end() -> None:
    neck = encoder(positions="learned", num_layers=1)
    assert neck({"c5": level(1, 12, 50, 1)})["c5"].shape == (1, 16, 50, 1)
    with pytest.raises(ValueError, match="51 x 1"):
        neck({"c5": level(1, 12, 51, 1)})


def test_without_layers_the_projection_is_left() -> None:
    neck, x = encoder(num_layers=0), level(1, 12, 3, 4)
    torch.testing.assert_close(neck({"c5": x})["c5"], neck.projections["c5"](x), rtol=0, atol=0)
    assert {name for name, _ in neck.named_parameters()} == {"projections.c5.weight", "projections.c5.bias"}


def test_published_size() -> None:
    layer = 1_315_072  # (49,415,200 - 33,634,336) / 12, from the published 12 and 0 layers
    for num_layers in (0, 3, 6, 12):
        neck = DETREncoder({"c5": Level(2048, 32)}, num_layers=num_layers)
        assert sum(p.numel() for p in neck.parameters()) == 2048 * 256 + 256 + num_layers * layer
    assert sum(p.numel() for p in DETREncoder(SPEC, pre_norm=True, positions="learned", num_layers=1).parameters()) == (
        12 * 256 + 256 + layer + 2 * 256 + 2 * 50 * 128
    )


def test_attention_starts_from_xaviers_distribution() -> None:
    torch.manual_seed(0)
    neck = DETREncoder(SPEC, num_layers=1)
    attention, feed_forward = neck.layers[0].self_attention, neck.layers[0].feed_forward
    for weight in (attention.in_proj_weight, attention.out_proj.weight, feed_forward.linear1.weight):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    # The projection of levels is outside of the original's transformer.
    assert neck.projections["c5"].weight.abs().max().item() == pytest.approx(12**-0.5, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 0}, "at least 1"),
        ({"num_layers": -1}, "at least 0, not 2 and -1"),
        ({"hidden_dim": 15}, r"multiple of num_heads \(2\), not 15"),
        ({"hidden_dim": 18}, "multiple of 4, not 18"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**options)
