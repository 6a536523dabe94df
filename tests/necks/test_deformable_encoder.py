"""Deformable DETR's encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from boxwright.layers.padding import resize_mask
from boxwright.layers.positions import encode_masked_sine
from boxwright.layers.recording import record_modules
from boxwright.necks.deformable_encoder import DeformableEncoder
from boxwright.necks.fpn import FPN
from boxwright.structures import Features, Level, Spec

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)}


def small(spec: Spec = SPEC, **options: object) -> DeformableEncoder:
    torch.manual_seed(0)
    defaults = {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 32, "num_layers": 2}
    return DeformableEncoder(spec, **(defaults | options)).eval()  # type: ignore[arg-type]


def maps(height: int, width: int, batch: int = 2, spec: Spec = SPEC) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(
            batch, level.channels, -(-height // level.stride), -(-width // level.stride), generator=generator
        )
        for name, level in spec.items()
    }


def padding_mask() -> Tensor:
    """Mask the padding of images of 64 x 96 and 40 x 64 pixels in one batch."""
    mask = torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[1, 40:], mask[1, :, 64:] = True, True
    return mask


def record_inputs(neck: DeformableEncoder, features: Features, mask: Tensor | None) -> dict[str, Tensor]:
    """Record the inputs of the first layer."""
    inputs: dict[str, Tensor] = {}

    def catch(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.update(zip(("tokens", "positions", "reference", "shapes", "padding"), arguments, strict=True))

    handle = neck.layers[0].register_forward_pre_hook(catch)
    neck(features, mask)
    handle.remove()
    return inputs


def test_parameters_of_the_published_model_part_by_part() -> None:
    with torch.device("meta"):
        neck = DeformableEncoder({"c3": Level(512, 8), "c4": Level(1024, 16), "c5": Level(2048, 32)})
    # 512, 1024 and 2048 channels to 256 by 1 x 1, 2048 to 256 by 3 x 3, each with a bias and a norm.
    projections = 256 * (512 + 1024 + 2048 + 9 * 2048) + 4 * 3 * 256
    # Offsets, weights, value and output; the two linear layers between 256 and 1024; two norms.
    layer = (256 + 1) * (256 + 128 + 256 + 256) + 2 * 256 * 1024 + 1024 + 256 + 4 * 256
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in neck.named_children()}
    assert counts == {"projections": projections, "layers": 6 * layer}
    assert neck.level_embedding.shape == (4, 256)


def test_levels_are_added_below_the_coarsest() -> None:
    neck = small(num_levels=5)
    assert neck.out_spec == {
        "c3": Level(16, 8),
        "c4": Level(16, 16),
        "c5": Level(16, 32),
        "c6": Level(16, 64),
        "c7": Level(16, 128),
    }
    features, seen = maps(160, 96), {}
    for name in ("c6", "c7"):
        neck.projections[name].register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
    out = neck(features)
    # The first is made of c5 as it came in, the second of the first.
    torch.testing.assert_close(seen["c6"][0], features["c5"], rtol=0, atol=0)
    torch.testing.assert_close(seen["c7"][0], seen["c6"][1], rtol=0, atol=0)
    assert [tuple(x.shape[-2:]) for x in out.values()] == [(20, 12), (10, 6), (5, 3), (3, 2), (2, 1)]


def test_names_of_added_levels_continue_those_that_come_in() -> None:
    assert list(small({"p4": Level(8, 16), "p5": Level(8, 32)}).out_spec) == ["p4", "p5", "p6", "p7"]
    assert list(small({"c9": Level(8, 16)}, num_levels=2).out_spec) == ["c9", "c10"]
    assert list(small(num_levels=2).out_spec) == ["c3", "c4", "c5"]
    assert list(small({"top": Level(8, 16)}, num_levels=3).out_spec) == ["top", "top1", "top2"]


def test_dilated_c5_has_stride_16_and_what_follows_from_it() -> None:
    neck = small({"c5": Level(10, 16)}, num_levels=1)
    assert neck.out_spec == {"c5": Level(16, 16)}
    assert small({"c5": Level(10, 16)}, num_levels=2).out_spec["c6"].stride == 32


def test_behind_a_pyramid_it_takes_the_pyramids_levels() -> None:
    pyramid = FPN(SPEC, out_channels=12)
    neck = small(pyramid.out_spec)
    out = neck(pyramid(maps(64, 96)))
    assert {name: tuple(x.shape) for name, x in out.items()} == {
        "c3": (2, 16, 8, 12),
        "c4": (2, 16, 4, 6),
        "c5": (2, 16, 2, 3),
        "c6": (2, 16, 1, 2),
    }


def test_tokens_of_a_padded_image_refer_to_their_own_image() -> None:
    reference = record_inputs(small(num_levels=3), maps(64, 96), padding_mask())["reference"]
    shapes, valid_cells = [(8, 12), (4, 6), (2, 3)], [(5, 8), (3, 4), (2, 2)]
    token = 0
    for (h, w), (rows, columns) in zip(shapes, valid_cells, strict=True):
        for row in range(h):
            for column in range(w):
                for level, ((height, width), (r, c)) in enumerate(zip(shapes, valid_cells, strict=True)):
                    x, y = (column + 0.5) / columns * c / width, (row + 0.5) / rows * r / height
                    assert reference[1, token, level].tolist() == pytest.approx([x, y], abs=1e-6)
                    whole = [(column + 0.5) / w, (row + 0.5) / h]
                    assert reference[0, token, level].tolist() == pytest.approx(whole, abs=1e-6)
                token += 1


def test_positions_are_of_the_cell_and_of_the_level() -> None:
    neck, mask = small(num_levels=3), padding_mask()
    positions = record_inputs(neck, maps(64, 96), mask)["positions"]
    expected = [
        encode_masked_sine(resize_mask(mask, h, w), 16, shift=0.5) + neck.level_embedding[i]
        for i, (h, w) in enumerate([(8, 12), (4, 6), (2, 3)])
    ]
    torch.testing.assert_close(positions, torch.cat(expected, 1), rtol=0, atol=0)
    # A level of 8 rows: its last cell is half a cell from the end.
    last = torch.tensor(2 * torch.pi * 7.5 / 8).sin()
    torch.testing.assert_close(positions[0, 95, 0] - neck.level_embedding[0, 0], last, rtol=0, atol=1e-5)


def test_no_mask_is_a_mask_without_padding() -> None:
    neck, features = small(), maps(64, 96)
    nothing = neck(features, torch.zeros(2, 64, 96, dtype=torch.bool))
    for name, level in neck(features).items():
        torch.testing.assert_close(nothing[name], level, rtol=0, atol=1e-6)


def test_layers_follow_each_other_and_come_out_as_maps() -> None:
    neck, features = small(), maps(64, 96)
    inputs = record_inputs(neck, features, None)
    tokens = inputs["tokens"]
    for layer in neck.layers:
        tokens = layer(tokens, inputs["positions"], inputs["reference"], inputs["shapes"], None)
    out = neck(features)
    torch.testing.assert_close(out["c3"][1, :, 3, 5], tokens[1, 3 * 12 + 5], rtol=0, atol=0)
    torch.testing.assert_close(out["c6"][0, :, 0, 1], tokens[0, -1], rtol=0, atol=0)


def test_starts_as_published() -> None:
    torch.manual_seed(0)
    neck = DeformableEncoder({"c5": Level(64, 32)}, num_layers=1)
    assert neck.level_embedding.std().item() == pytest.approx(1, abs=0.1)
    attention = neck.layers[0].self_attention
    assert (attention.sampling_offsets.weight == 0).all()
    assert attention.sampling_offsets.bias.view(8, 4, 4, 2)[0, :, :, 0].tolist() == [[1, 2, 3, 4]] * 4
    assert (attention.attention_weights.weight == 0).all()


def test_each_level_has_its_own_number_of_points() -> None:
    neck = small(num_points=[2, 3, 1, 4])
    assert neck.layers[0].self_attention.points == (2, 3, 1, 4)
    assert all(x.isfinite().all() for x in neck(maps(64, 96)).values())


def test_levels_apart_are_encoders_of_one_level_with_the_same_weights() -> None:
    neck, features, mask = small(across_levels=False, num_points=3, num_levels=3), maps(64, 96), padding_mask()
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    out = neck(features, mask)
    for index, name in enumerate(SPEC):
        alone = small({name: SPEC[name]}, num_levels=1, num_points=3)
        state = {key: value for key, value in neck.state_dict().items() if key in alone.state_dict()}
        alone.load_state_dict(state | {"level_embedding": neck.level_embedding[index : index + 1]})
        torch.testing.assert_close(out[name], alone({name: features[name]}, mask)[name], rtol=0, atol=1e-6)


def test_levels_apart_do_not_see_each_other_and_have_fewer_weights() -> None:
    features = maps(64, 96)
    changed = {**features, "c4": features["c4"] + 1}
    for across_levels in (True, False):
        neck = small(across_levels=across_levels, num_levels=3)
        with torch.no_grad():
            for layer in neck.layers:
                layer.self_attention.attention_weights.bias.normal_()
        before, after = neck(features), neck(changed)
        moved = {name for name in SPEC if not torch.equal(before[name], after[name])}
        assert moved == (set(SPEC) if across_levels else {"c4"})
        # 2 heads, 4 points, 3 levels or 1: two offsets and a weight each, of 16 channels and a bias.
        samples = 2 * 4 * (3 if across_levels else 1)
        attention = neck.layers[0].self_attention
        counts = [
            sum(p.numel() for p in x.parameters()) for x in (attention.sampling_offsets, attention.attention_weights)
        ]
        assert counts == [17 * 2 * samples, 17 * samples]


def test_a_cell_of_levels_apart_is_explained_by_points_of_its_own() -> None:
    neck = small(across_levels=False, num_levels=3)
    with record_modules(neck.recorded_modules()) as recorded:
        neck(maps(64, 96, batch=1))
    explained = neck.explain_cell(recorded, (40.0, 20.0), "c4")
    assert len(explained) == 2
    for attention in explained:
        assert attention.cell.level == "c4"
        assert attention.samples is not None
        assert attention.samples.level_names == ("c4",)
        # A step of the initial offsets is a cell; the cell's center is (40, 24).
        expected = torch.tensor([[40.0 + 16 * k, 24.0] for k in (1, 2, 3, 4)])
        torch.testing.assert_close(attention.samples.points[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dim": 18}, r"hidden_dim is a multiple of 4 and of num_heads \(2\), not 18"),
        ({"num_heads": 3}, r"num_heads \(3\), not 16"),
        ({"num_heads": 0}, "num_heads is at least 1, not 0"),
        ({"num_points": 0}, "num_points is one number of at least 1"),
        ({"num_points": [4, 4, 4]}, r"one for each of 4 levels, not \[4, 4, 4\]"),
        ({"num_levels": 0}, r"num_levels is at least 1, not 0"),
        ({"num_points": [4, 4, 4, 4], "across_levels": False}, "num_points is one number where across_levels is false"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
