"""Attention with positions: equal to its formula; tables for other sizes, with numbers; memory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from boxwright.layers.position_attention import PositionAttention, PositionTables, resized_table

KINDS: list[dict[str, Any]] = [
    {"positions": "none"},
    {"positions": "absolute"},
    {"positions": "absolute", "content": False},
    {"positions": "relative"},
    {"positions": "relative", "content": False},
]
MAPS = [(5, 5), (4, 7), (7, 3), (1, 6), (6, 1), (1, 1)]


def attention(map_size: tuple[int, int], *, channels: int = 12, heads: int = 2, **options: Any) -> PositionAttention:
    """Of logits of size 1 or so, in float64."""
    torch.manual_seed(0)
    layer = PositionAttention(channels, map_size, num_heads=heads, **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        layer.project.weight.mul_(1.5 * channels**-0.5)
    return layer


def make_image(height: int, width: int, *, channels: int = 12, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(layer: PositionAttention, x: Tensor) -> Tensor:
    """Vectors gathered for each pair of cells, image by image and head by head."""
    _, channels, height, width = x.shape
    cells = list(itertools.product(range(height), range(width)))
    weight = layer.project.weight[:, :, 0, 0]
    images = []
    for one in x:
        vectors = (weight @ one.flatten(1)).unflatten(0, (-1, layer.num_heads, layer.head_dim))
        heads = []
        for head in range(layer.num_heads):
            q, v = vectors[0, head].t() * layer.head_dim**-0.5, vectors[-1, head].t()
            logits = q @ vectors[1, head] if layer.content else q.new_zeros(len(cells), len(cells))
            if layer.relative is not None:
                r_h, r_w = layer.relative.height, layer.relative.width
                r = torch.stack(
                    [r_h[y2 - y1 + height - 1] + r_w[x2 - x1 + width - 1] for y1, x1 in cells for y2, x2 in cells]
                ).unflatten(0, (len(cells), len(cells)))
                logits = logits + (q[:, None] * r).sum(-1)
            if layer.absolute is not None:
                r = torch.stack([layer.absolute.height[y] + layer.absolute.width[x] for y, x in cells])
                logits = logits + q @ r.t()
            heads.append(logits.softmax(-1) @ v)
        images.append(torch.cat(heads, 1).t().reshape(channels, height, width))
    return torch.stack(images)


def gradients(layer: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    return list(torch.autograd.grad((y * direction).sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("size", MAPS)
def test_equals_the_formula_with_gradients(size: tuple[int, int], options: dict[str, Any]) -> None:
    layer, x = attention(size, **options), make_image(*size).requires_grad_()
    ours, theirs = layer(x), by_hand(layer, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for one, two in zip(gradients(layer, x, ours), gradients(layer, x, theirs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", KINDS)
def test_equals_the_formula_in_float32(options: dict[str, Any]) -> None:
    layer, x = attention((6, 9), channels=32, heads=4, **options), make_image(6, 9, channels=32)
    expected = by_hand(layer, x)
    torch.testing.assert_close(layer.float()(x.float()).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", KINDS[-2:])
@pytest.mark.parametrize("size", [(6, 9), (1, 4)])
def test_the_published_form_is_the_same(size: tuple[int, int], options: dict[str, Any]) -> None:
    layer, x = attention(size, **options), make_image(*size).requires_grad_()
    ours = layer(x)
    layer.count_as_published = True
    published = layer(x)
    torch.testing.assert_close(ours, published, rtol=1e-10, atol=1e-10)
    for one, two in zip(gradients(layer, x, ours), gradients(layer, x, published), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_tables_of_zeros_are_plain_attention() -> None:
    plain = attention((4, 6), positions="none")
    for positions in ("absolute", "relative"):
        layer = attention((4, 6), positions=positions)
        layer.project = plain.project
        for table in (*layer.parameters(),)[1:]:
            nn.init.zeros_(table)
        torch.testing.assert_close(layer(make_image(4, 6)), plain(make_image(4, 6)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", KINDS)
def test_an_image_does_not_depend_on_its_neighbors(options: dict[str, Any]) -> None:
    layer, x = attention((5, 4), **options), make_image(5, 4, batch=3)
    together = layer(x)
    for i in range(3):
        torch.testing.assert_close(layer(x[i : i + 1])[0], together[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (5, 4), (1, 3), (1, 1)])
def test_stride_2_averages_the_cells_that_there_are(size: tuple[int, int]) -> None:
    fine, coarse = attention(size), attention(size, stride=2)
    y, pooled = fine(make_image(*size)), coarse(make_image(*size))
    assert pooled.shape[-2:] == (-(-size[0] // 2), -(-size[1] // 2))
    for row, column in itertools.product(range(pooled.shape[-2]), range(pooled.shape[-1])):
        cells = y[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        torch.testing.assert_close(pooled[:, :, row, column], cells.mean((2, 3)), rtol=1e-12, atol=1e-12)


def test_numbers_of_parameters_and_first_values() -> None:
    torch.manual_seed(0)
    layer = PositionAttention(512, (14, 20))
    assert layer.relative is not None
    assert sum(p.numel() for p in layer.parameters()) == 3 * 512 * 512 + (27 + 39) * 128
    assert layer.project.weight.std().item() == pytest.approx(0.01, rel=0.02)
    for table in layer.relative.parameters():
        assert table.std().item() == pytest.approx(128**-0.5, rel=0.05)
        assert table.mean().item() == pytest.approx(0, abs=0.005)
    absolute = PositionAttention(512, (14, 20), positions="absolute", content=False)
    assert sum(p.numel() for p in absolute.parameters()) == 2 * 512 * 512 + (14 + 20) * 128


@pytest.mark.parametrize(("cells", "size"), [(2, 9), (3, 5), (14, 64), (64, 14), (14, 13), (7, 1), (1, 4)])
def test_tables_of_another_size_are_numpys_interpolation(cells: int, size: int) -> None:
    """Distances from end to end, centers of cells on one map; absolute ones are timm's resized bilinearly too."""
    generator = torch.Generator().manual_seed(0)
    relative, absolute = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (2 * cells - 1, cells))
    distances = np.arange(-(size - 1), size) * ((cells - 1) / max(size - 1, 1))
    centers = (np.arange(size) + 0.5) * cells / size - 0.5
    for table, positions in ((relative, distances), (absolute, centers)):
        is_relative = table is relative
        known = np.arange(-(cells - 1), cells) if is_relative else np.arange(cells)
        expected = np.stack([np.interp(positions, known, column) for column in table.T.numpy()], 1)
        actual = resized_table(table, len(positions), relative=is_relative)
        torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=0, atol=1e-12)
    column = absolute[None].float(), [size, 1], [cells, 1]
    theirs = resample_abs_pos_embed(*column, num_prefix_tokens=0, interpolation="bilinear", antialias=False)[0]
    torch.testing.assert_close(resized_table(absolute.float(), size, relative=False), theirs, rtol=0, atol=1e-6)


def line(n: int) -> Tensor:
    """A table that is linear in distance, with a slope and an offset of its own in each of 3 dimensions."""
    distances = torch.arange(-(n - 1), n, dtype=torch.float64)[:, None]
    return distances * torch.tensor([1.0, -2.0, 0.5]) + torch.tensor([3.0, 0.0, -1.0])


def test_relative_tables_of_another_size_by_numbers() -> None:
    table = torch.tensor([[0.0], [1.0], [4.0], [9.0], [16.0]], dtype=torch.float64)  # of 3 cells
    expected = [0, 0.5, 1, 2.5, 4, 6.5, 9, 12.5, 16]  # of 5
    assert resized_table(table, 9, relative=True)[:, 0].tolist() == pytest.approx(expected)
    assert resized_table(table, 3, relative=True)[:, 0].tolist() == pytest.approx([0, 4, 16])
    # Distances of 4 cells reach from -3 to 3, and are two thirds of those of 3.
    assert resized_table(table, 7, relative=True)[:, 0].tolist() == pytest.approx([0, 2 / 3, 2, 4, 22 / 3, 34 / 3, 16])


@pytest.mark.parametrize(("cells", "size"), [(3, 5), (7, 32), (14, 64), (64, 14), (14, 13), (2, 9)])
def test_a_table_linear_in_distance_stays_linear_from_end_to_end(cells: int, size: int) -> None:
    table = line(cells)
    resized = resized_table(table, 2 * size - 1, relative=True)
    expected = (line(size) - line(size)[size - 1]) * (cells - 1) / (size - 1) + table[cells - 1]
    torch.testing.assert_close(resized, expected, rtol=1e-12, atol=1e-12)
    for end in (0, -1):
        torch.testing.assert_close(resized[end], table[end], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cells", [2, 7, 14, 64])
@pytest.mark.parametrize("expected", [1, 2, 5, 7, 14, 23, 64])
def test_distance_0_keeps_its_vector(cells: int, expected: int) -> None:
    table = torch.randn(2 * cells - 1, 3, dtype=torch.float64)
    resized = resized_table(table, 2 * expected - 1, relative=True)
    assert resized.shape == (2 * expected - 1, 3)
    torch.testing.assert_close(resized[expected - 1], table[cells - 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cells", [3, 8])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_up_by_a_whole_factor_and_down_again_is_exact(cells: int, factor: int) -> None:
    relative = torch.randn(2 * cells - 1, 3, dtype=torch.float64)
    up = resized_table(relative, 2 * (factor * (cells - 1) + 1) - 1, relative=True)
    torch.testing.assert_close(resized_table(up, len(relative), relative=True), relative, rtol=1e-12, atol=1e-12)
    # The cells' old centers are among the new ones where the factor is odd.
    absolute = torch.randn(cells, 3, dtype=torch.float64)
    again = resized_table(resized_table(absolute, factor * cells, relative=False), cells, relative=False)
    assert ((again - absolute).abs().max() < 1e-12) == (factor == 3)


def test_absolute_tables_of_another_size_by_numbers() -> None:
    table = torch.tensor([[0.0], [4.0], [8.0]], dtype=torch.float64)
    # Centers at 1/6, 1/2 and 5/6 of the map; six cells have theirs at 1/12, 3/12, ..
    assert resized_table(table, 6, relative=False)[:, 0].tolist() == pytest.approx([0, 1, 3, 5, 7, 8])
    assert resized_table(table, 1, relative=False)[:, 0].tolist() == pytest.approx([4])
    assert resized_table(table[:1] + 2, 4, relative=False)[:, 0].tolist() == [2] * 4


def test_tables_of_one_cell_are_constant_and_those_of_their_own_size_themselves() -> None:
    one = torch.randn(1, 3)
    assert torch.equal(resized_table(one, 5, relative=True), one.expand(5, 3))
    table = torch.randn(5, 3)
    assert resized_table(table, 5, relative=True) is table
    assert resized_table(table, 5, relative=False) is table


@pytest.mark.parametrize("positions", ["absolute", "relative"])
def test_a_map_of_another_size_gets_interpolated_tables_with_gradients(positions: Any) -> None:
    small, large = attention((4, 3), positions=positions), attention((8, 6), positions=positions)
    tables = small.relative or small.absolute
    others = large.relative or large.absolute
    assert tables is not None
    assert others is not None
    large.project = small.project
    relative = positions == "relative"
    with torch.no_grad():
        for mine, other in zip(tables.parameters(), others.parameters(), strict=True):
            other.copy_(resized_table(mine, len(other), relative=relative))
    y = small(make_image(8, 6))
    torch.testing.assert_close(y, large(make_image(8, 6)), rtol=1e-12, atol=1e-12)
    y.square().sum().backward()
    for table in tables.parameters():
        assert table.grad is not None
        assert (table.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(("size", "whole"), [((5, 7), (7, 7)), ((7, 2), (7, 7)), ((6, 9), (9, 9)), ((3, 4), (4, 4))])
def test_a_narrow_map_has_the_vectors_of_the_corner_of_a_square_one(
    size: tuple[int, int], whole: tuple[int, int], relative: bool
) -> None:
    tables = PositionTables((7, 7), 3, relative=relative).double()
    for cells, of, table, square in zip(size, whole, tables(*size), tables(*whole), strict=True):
        assert len(square) == (2 * of - 1 if relative else of)
        # The vector of distance d is entry d + of - 1 of the square map's, and d + cells - 1 of its own.
        assert torch.equal(table, square[of - cells : of + cells - 1] if relative else square[:cells])
    if whole == (7, 7):
        assert all(torch.equal(square, own) for square, own in zip(tables(7, 7), tables.parameters(), strict=True))


def test_one_factor_upsamples_tables_that_are_not_square() -> None:
    tables = PositionTables((4, 6), 3).double()
    rows, columns = tables(6, 6)
    assert torch.equal(rows, resized_table(tables.height, 6, relative=False)), "1.5 times as large: 6 rows, 9 columns"
    assert torch.equal(columns, resized_table(tables.width, 9, relative=False)[:6])


@pytest.mark.parametrize("positions", ["absolute", "relative"])
def test_a_checkpoint_of_another_size_is_interpolated(positions: Any) -> None:
    trained, ours = attention((4, 3), positions=positions), attention((8, 6), positions=positions)
    state = trained.state_dict()
    ours.load_state_dict(state)
    for name, tensor in ours.state_dict().items():
        expected = state[name]
        if name != "project.weight":
            expected = resized_table(expected, len(tensor), relative=positions == "relative")
        assert torch.equal(tensor, expected)
    torch.testing.assert_close(ours(make_image(8, 6)), trained(make_image(8, 6)), rtol=1e-12, atol=1e-12)
    # What was given is left alone.
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in state.items())


def test_tables_of_another_kind_or_width_are_no_match() -> None:
    ours = attention((4, 4))
    with pytest.raises(RuntimeError, match=r"Missing key.*relative.height"):
        ours.load_state_dict(attention((4, 4), positions="absolute").state_dict())
    with pytest.raises(RuntimeError, match=r"size mismatch for height"):
        PositionTables((4, 4), 6).load_state_dict(PositionTables((4, 4), 5).state_dict())


@pytest.mark.parametrize("options", [*KINDS, {"stride": 2}])
def test_exported_with_a_free_batch(options: dict[str, Any]) -> None:
    layer = attention((4, 7), **options).float().eval()
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    # Tables of the map's own size, and interpolated ones.
    for size in ((4, 7), (5, 6)):
        program = torch.export.export(layer, (make_image(*size).float(),), dynamic_shapes=(batch,)).module()
        for count in (1, 3):
            x = make_image(*size, batch=count).float()
            torch.testing.assert_close(program(x), layer(x), rtol=1e-5, atol=1e-5)


class Memory(TorchDispatchMode):
    """Bytes that the results of operators take up: of the largest, and at most of all that are there at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[int, tuple[StorageWeakRef, int]] = {}
        self.largest = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.there[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self.largest = max(self.largest, storage.nbytes())
        self.there = {key: (ref, size) for key, (ref, size) in self.there.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.there.values()))
        return out


def memory(layer: PositionAttention, x: Tensor) -> Memory:
    """Of a pass forward and back."""
    with Memory() as measured:
        layer(x).sum().backward()
    return measured


@pytest.mark.parametrize("options", KINDS)
def test_no_tensor_holds_all_pairs(options: dict[str, Any]) -> None:
    layer, x = attention((20, 24), channels=8, **options).float(), make_image(20, 24, channels=8).float()
    assert memory(layer, x).largest < 4 * 2 * 2 * (20 * 24) ** 2 / 5


@pytest.mark.parametrize("options", KINDS[-2:])
def test_half_of_the_memory_at_most_that_the_published_form_takes(options: dict[str, Any]) -> None:
    layer, x = attention((32, 32), channels=32, **options).float(), make_image(32, 32, channels=32, batch=1).float()
    ours = memory(layer, x)
    layer.count_as_published = True
    published = memory(layer, x)
    assert published.largest == 4 * 2 * 32**4
    assert published.peak > 2 * published.largest
    assert ours.peak < published.peak / 2


@pytest.mark.parametrize("options", KINDS)
def test_in_bfloat16_logits_are_as_exact_as_in_the_plain_form(options: dict[str, Any]) -> None:
    layer, x = attention((10, 12), channels=64, heads=2, **options), make_image(10, 12, channels=64)
    with torch.no_grad():
        exact = layer(x)
        layer.float()
        errors = []
        for published in (False, True):
            layer.count_as_published = published
            with torch.autocast("cpu", torch.bfloat16):
                errors.append((layer(x.float()).double() - exact).norm() / exact.norm())
    assert errors[0] < 0.02
    # Without distances both are one form; with them, the plain one rounds the sum of all logits.
    assert errors[0] <= errors[1]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((12, (4, 4)), {"num_heads": 5}, "num_heads divides the 12 channels that attention has, and 5 does not"),
        ((12, (4, 4)), {"num_heads": 0}, "num_heads is at least 1, not 0"),
        ((12, (0, 4)), {}, "rows is at least 1, not 0"),
        ((12, (4, 0)), {}, "columns is at least 1, not 0"),
        ((12, (4, 4)), {"stride": 3}, r"stride is one of \[1, 2\], not 3"),
        ((12, (4, 4)), {"positions": "none", "content": False}, "attention needs content, positions or both"),
    ],
)
def test_what_the_constructor_refuses(arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PositionAttention(*arguments, **options)


@pytest.mark.usefixtures("unchecked")
def test_unknown_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"positions is one of \['none', 'absolute', 'relative'\], not 'sine'"):
        PositionAttention(12, (4, 4), positions="sine")  # type: ignore[arg-type]
