"""Multi-scale deformable attention and the decoder layer that uses it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.layers.deformable_attention import DeformableDecoderLayer, MultiScaleDeformableAttention
from boxwright.ops.deformable import deformable_sampling

SHAPES = [(4, 6), (2, 3), (1, 2)]
TOKENS = sum(h * w for h, w in SHAPES)


@pytest.fixture
def attention() -> MultiScaleDeformableAttention:
    torch.manual_seed(0)
    return MultiScaleDeformableAttention(16, num_heads=8, num_levels=3, num_points=4)


def stirred(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def boxes(b: int, q: int) -> Tensor:
    return torch.cat((0.2 + 0.6 * torch.rand(b, q, 1, 2), 0.1 + 0.3 * torch.rand(b, q, 1, 2)), -1)


def test_each_head_starts_in_its_own_direction(attention: MultiScaleDeformableAttention) -> None:
    offsets = attention.sampling_offsets.bias.view(8, 3, 4, 2)
    # Eight heads: the eight neighbors of a cell, anticlockwise from the right.
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, direction in enumerate(directions):
        for point in range(4):
            expected = torch.tensor([(point + 1.0) * d for d in direction]).expand(3, 2)
            torch.testing.assert_close(offsets[head, :, point], expected, rtol=0, atol=1e-5)


def test_directions_of_six_heads_lie_on_the_unit_square() -> None:
    attention = MultiScaleDeformableAttention(12, num_heads=6, num_levels=1, num_points=1)
    offsets = attention.sampling_offsets.bias.view(6, 2)
    angles = torch.atan2(offsets[:, 1], offsets[:, 0]) % (2 * math.pi)
    torch.testing.assert_close(angles, torch.arange(6) * math.pi / 3, rtol=0, atol=1e-5)
    torch.testing.assert_close(offsets.abs().amax(1), torch.ones(6), rtol=0, atol=1e-6)


def test_fresh_attention_weighs_all_twelve_samples_alike_whatever_the_query(
    attention: MultiScaleDeformableAttention,
) -> None:
    weights = attention.attention_weights(torch.randn(2, 5, 16)).view(2, 5, 8, 12).softmax(-1)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 12), rtol=0, atol=1e-7)
    memory, reference = torch.randn(2, TOKENS, 16), boxes(2, 5).expand(2, 5, 3, 4)
    one = attention(torch.zeros(2, 5, 16), reference, memory, SHAPES)
    other = attention(torch.randn(2, 5, 16), reference, memory, SHAPES)
    assert one.abs().max() > 0.1
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_every_level_has_its_own_points() -> None:
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(16, num_heads=2, num_levels=3, num_points=[3, 6, 1])
    first = attention.sampling_offsets.bias.view(2, 10, 2)[0]
    assert first.tolist() == [[n, 0] for n in (1, 2, 3, 1, 2, 3, 4, 5, 6, 1)]
    stirred(attention)
    query, memory, box = torch.randn(2, 5, 16), torch.randn(2, TOKENS, 16), boxes(2, 5).expand(2, 5, 3, 4).clone()
    box[:, :, 1] *= 0.9
    weights = attention.attention_weights(query).view(2, 5, 2, 10).softmax(-1)
    offsets = attention.sampling_offsets(query).view(2, 5, 2, 10, 2)
    value = attention.value_projection(memory).view(2, TOKENS, 2, 8)
    for reference in (box, box[..., :2].contiguous()):
        locations = torch.empty_like(offsets)
        for point, level in enumerate([0] * 3 + [1] * 6 + [2]):
            of_level, count = reference[:, :, None, level], (3, 6, 1)[level]
            if reference.shape[-1] == 4:
                moved = offsets[:, :, :, point] / count * of_level[..., 2:] / 2
            else:
                moved = offsets[:, :, :, point] / torch.tensor(SHAPES[level]).flip(0)
            locations[:, :, :, point] = of_level[..., :2] + moved
        sampled = deformable_sampling(value, SHAPES, locations, weights, (3, 6, 1), backend="grid_sample")
        expected = attention.output_projection(sampled)
        torch.testing.assert_close(attention(query, reference, memory, SHAPES), expected, rtol=0, atol=1e-5)


def test_equal_numbers_are_as_one_number() -> None:
    attentions = []
    for num_points in (4, [4, 4, 4]):
        torch.manual_seed(0)
        attentions.append(MultiScaleDeformableAttention(16, num_heads=8, num_levels=3, num_points=num_points))
    one, other = (attention.state_dict() for attention in attentions)
    assert all(one[name].equal(tensor) for name, tensor in other.items())


@pytest.mark.parametrize("num_points", [[4, 4], [4, 4, 4, 4], [4, 0, 4], 0], ids=str)
def test_numbers_of_points_are_one_for_each_level(num_points: int | list[int]) -> None:
    with pytest.raises(ValueError, match="one number of at least 1, or one for each of 3 levels, not") as error:
        MultiScaleDeformableAttention(16, num_heads=8, num_levels=3, num_points=num_points)
    assert str(num_points) in str(error.value)


def test_samples_of_a_box_and_of_a_point(attention: MultiScaleDeformableAttention) -> None:
    stirred(attention)
    query, memory = torch.randn(2, 5, 16), torch.randn(2, TOKENS, 16)
    offsets = attention.sampling_offsets(query).view(2, 5, 8, 3, 4, 2)
    weights = attention.attention_weights(query).view(2, 5, 8, 12).softmax(-1).view(2, 5, 8, 3, 4)
    value = attention.value_projection(memory).view(2, TOKENS, 8, 2)

    def attended(locations: Tensor) -> Tensor:
        return attention.output_projection(
            deformable_sampling(value, SHAPES, locations.flatten(3, 4), weights.flatten(3), (4, 4, 4))
        )

    box = boxes(2, 5)
    center, size = box[:, :, :, None, None, :2], box[:, :, :, None, None, 2:]  # b q 1 1 1 2
    expected = attended(center + offsets / 4 * size / 2)
    torch.testing.assert_close(attention(query, box, memory, SHAPES), expected, rtol=0, atol=1e-5)

    points = torch.rand(2, 5, 3, 2)
    cells = torch.tensor([(w, h) for h, w in SHAPES]).view(1, 1, 1, 3, 1, 2)
    expected = attended(points[:, :, None, :, None] + offsets / cells)
    torch.testing.assert_close(attention(query, points, memory, SHAPES), expected, rtol=0, atol=1e-5)


def test_padded_tokens_count_as_zero(attention: MultiScaleDeformableAttention) -> None:
    stirred(attention)
    query, memory, reference = torch.randn(2, 5, 16), torch.randn(2, TOKENS, 16), boxes(2, 5).expand(2, 5, 3, 4)
    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[1, 10:20] = True
    others = memory.clone()
    others[1, 10:20] = 99.0
    before, after = (attention(query, reference, m, SHAPES, padding) for m in (memory, others))
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert (attention(query, reference, memory, SHAPES)[1] - before[1]).abs().max() > 0.01


def test_the_width_is_a_multiple_of_the_heads() -> None:
    with pytest.raises(ValueError, match="num_heads has to divide the width 10, and 4 does not"):
        MultiScaleDeformableAttention(10, num_heads=4, num_levels=1, num_points=1)


@pytest.fixture
def layer() -> DeformableDecoderLayer:
    torch.manual_seed(1)
    layer = DeformableDecoderLayer(16, num_heads=2, num_levels=3, num_points=4, hidden_dim=32).eval()
    stirred(layer)
    return layer


def test_decoder_layer_is_its_three_steps(layer: DeformableDecoderLayer) -> None:
    queries, positions = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    memory, reference = torch.randn(2, TOKENS, 16), boxes(2, 5).expand(2, 5, 3, 4)
    positioned = queries + positions
    x = layer.norm1(queries + layer.self_attention(positioned, positioned, queries)[0])
    x = layer.norm2(x + layer.cross_attention(x + positions, reference, memory, SHAPES))
    expected = layer.norm3(x + layer.feed_forward.linear2(F.relu(layer.feed_forward.linear1(x))))
    ours = layer(queries, positions, reference, memory, SHAPES)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_positions_never_enter_the_values_of_queries(layer: DeformableDecoderLayer) -> None:
    seen = []
    layer.norm1.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    queries = torch.randn(2, 1, 16).expand(2, 5, 16)
    memory, reference = torch.randn(2, TOKENS, 16), boxes(2, 5)
    for _ in range(2):
        layer(queries, torch.randn(2, 5, 16), reference.expand(2, 5, 3, 4), memory, SHAPES)
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-5)


def test_blocked_queries_are_not_seen(layer: DeformableDecoderLayer) -> None:
    queries, positions = torch.randn(1, 5, 16), torch.randn(1, 5, 16)
    memory, reference = torch.randn(1, TOKENS, 16), boxes(1, 5).expand(1, 5, 3, 4)
    blocked = torch.zeros(5, 5, dtype=torch.bool)
    blocked[2:, :2] = True
    others = queries.clone()
    others[:, :2] += 3
    before, after = (layer(x, positions, reference, memory, SHAPES, blocked=blocked) for x in (queries, others))
    torch.testing.assert_close(after[:, 2:], before[:, 2:], rtol=0, atol=1e-6)
    assert (after[:, :2] - before[:, :2]).abs().max() > 0.01
    alone = layer(queries[:, 2:], positions[:, 2:], reference[:, 2:], memory, SHAPES)
    torch.testing.assert_close(before[:, 2:], alone, rtol=0, atol=1e-5)


def test_the_last_residual_stays_within_half_precision(layer: DeformableDecoderLayer) -> None:
    seen = []
    layer.norm3.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        layer.feed_forward.linear2.weight.mul_(1e7)
    queries, memory = torch.randn(1, 5, 16), torch.randn(1, TOKENS, 16)
    out = layer(queries, queries, boxes(1, 5).expand(1, 5, 3, 4), memory, SHAPES)
    assert seen[0].abs().max() == torch.finfo(torch.float16).max
    assert out.isfinite().all()


@pytest.mark.usefixtures("unchecked")
def test_offsets_of_boxes_are_scaled(attention: MultiScaleDeformableAttention) -> None:
    stirred(attention)
    query, memory, box = torch.randn(2, 5, 16), torch.randn(2, TOKENS, 16), boxes(2, 5)
    half = attention(query, box, memory, SHAPES)
    attention.offset_scale = 0.25
    wide = torch.cat((box[..., :2], 2 * box[..., 2:]), -1)
    torch.testing.assert_close(attention(query, wide, memory, SHAPES), half, rtol=0, atol=1e-5)
    assert (attention(query, box, memory, SHAPES) - half).abs().max() > 0.01
    with pytest.raises(ValueError, match="offset_scale is positive, not 0"):
        MultiScaleDeformableAttention(16, 8, 3, 4, offset_scale=0)


@pytest.mark.usefixtures("unchecked")
def test_discrete_samples_train_no_offsets() -> None:
    torch.manual_seed(0)
    layer = DeformableDecoderLayer(16, num_heads=2, num_points=2, hidden_dim=32, sampling_method="discrete")
    queries, memory = torch.randn(2, 5, 16), torch.randn(2, TOKENS, 16)
    layer(queries, queries, boxes(2, 5), memory, SHAPES).sum().backward()
    without = [name for name, parameter in layer.named_parameters() if parameter.grad is None]
    assert without == ["cross_attention.sampling_offsets.weight", "cross_attention.sampling_offsets.bias"]
    assert not any(layer.get_parameter(name).requires_grad for name in without)
    with pytest.raises(ValueError, match=r"sampling_method is one of \['default', 'discrete'\], not 'nearest'"):
        MultiScaleDeformableAttention(16, 8, 3, 4, sampling_method="nearest")  # type: ignore[arg-type]
