"""RoIAlign, against torchvision's operator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_roi_align

from boxwright.ops.roi_align import RoIBackend, roi_align

STRIDES = (4, 8)


def maps(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, *size, generator=generator, dtype=dtype) for size in ((13, 17), (7, 9))]


def regions(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes inside, across the rim, outside, of no size and upside down; their images and levels."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(count, 4, generator=generator, dtype=torch.float64) * 120 - 30
    corners[: count // 2, 2:] = corners[: count // 2, :2] + 40
    corners[0] = torch.tensor([10.0, 10, 10, 10])
    corners[1] = torch.tensor([-100.0, -100, -60, -60])
    corners[2] = torch.tensor([0.0, 0, 68, 52])
    corners[3] = torch.tensor([66.0, 50, 200, 200])
    return corners, torch.arange(count) % 2, torch.arange(count) // 2 % 2


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("size", "ratio"), [(7, 2), (3, 1), (2, 3), (1, 2)])
def test_backends_agree_in_both_directions(size: int, ratio: int, aligned: bool) -> None:
    results: list[tuple[Tensor, ...]] = []
    boxes, images, levels = regions()
    for backend in ("embedding_bag", "torchvision"):
        own = [x.requires_grad_() for x in maps()]
        out = roi_align(
            own,
            STRIDES,
            boxes,
            images,
            levels,
            output_size=size,
            sampling_ratio=ratio,
            aligned=aligned,
            backend=backend,
        )
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        results.append((out.detach(), *torch.autograd.grad((out * weights).sum(), own)))
    assert results[0][0].shape == (40, 3, size, size)
    for ours, theirs in zip(*results, strict=True):
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("aligned", [False, True])
def test_as_many_samples_as_fit_the_region_are_torchvisions(aligned: bool) -> None:
    boxes, images, levels = regions()
    boxes[:, 2:] = torch.maximum(boxes[:, :2], boxes[:, 2:])
    options: dict[str, Any] = {"output_size": 3, "sampling_ratio": 0, "aligned": aligned}
    ours = roi_align(maps(), STRIDES, boxes, images, levels, **options)
    rows = torch.cat((images[:, None].double(), boxes), 1)
    each = [torchvision_roi_align(x, rows, 3, 1 / at, 0, aligned) for x, at in zip(maps(), STRIDES, strict=True)]
    expected = torch.stack(each)[levels, torch.arange(len(boxes))]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    upside_down, nowhere = boxes[:1, [2, 3, 0, 1]] + torch.tensor([9.0, 9, 0, 0]), torch.full_like(boxes[:1], torch.nan)
    odd = roi_align(maps(), STRIDES, torch.cat((upside_down, nowhere)), images[:2], levels[:2], **options)
    assert odd.isfinite().all()
    two = roi_align(maps(), STRIDES, boxes, images, levels, **{**options, "sampling_ratio": 2})
    assert (two - ours).abs().max() > 0.1
    with pytest.raises(ValueError, match="embedding_bag needs a sampling_ratio of at least 1"):
        roi_align(maps(), STRIDES, boxes, images, levels, **options, backend="embedding_bag")


def test_equals_torchvisions_choice_of_levels_taken_apart() -> None:
    theirs = MultiScaleRoIAlign(["0", "1"], 7, 2, canonical_scale=64, canonical_level=3)
    boxes, images, _ = regions()
    boxes = boxes[:20].float()
    features = {str(i): x for i, x in enumerate(maps(torch.float32))}
    expected = theirs(features, [boxes[images[:20] == i] for i in range(2)], [(52, 68), (52, 68)])
    sides = ((boxes[:, 2:] - boxes[:, :2]).prod(1)).sqrt()
    levels = ((3 + torch.log2(sides / 64) + 1e-6).floor().clamp(2, 3) - 2).long()
    ours = roi_align(list(features.values()), STRIDES, boxes, images[:20], levels, output_size=7)
    order = torch.cat([torch.where(images[:20] == i)[0] for i in range(2)])
    assert set(levels.tolist()) == {0, 1}
    torch.testing.assert_close(ours[order], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["embedding_bag", "torchvision"])
def test_no_regions(backend: RoIBackend) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    own = [x.requires_grad_() for x in maps()]
    out = roi_align(own, STRIDES, torch.zeros(0, 4), none, none, output_size=7, backend=backend)
    assert out.shape == (0, 3, 7, 7)
    out.sum().backward()
    assert all(x.grad is not None and (x.grad == 0).all() for x in own)


def test_half_precision_keeps_its_type_and_is_summed_in_single() -> None:
    boxes, images, levels = regions()
    half = [x.bfloat16() for x in maps()]
    out = roi_align(half, STRIDES, boxes, images, levels, output_size=7)
    exact = roi_align([x.float() for x in half], STRIDES, boxes, images, levels, output_size=7)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, exact.bfloat16(), rtol=0, atol=0)


@pytest.mark.usefixtures("unchecked")
def test_bad_options() -> None:
    boxes, images, levels = regions()
    with pytest.raises(ValueError, match=r"backend is one of \['auto', 'embedding_bag', 'torchvision'\], not 'cuda'"):
        roi_align(maps(), STRIDES, boxes, images, levels, output_size=7, backend="cuda")
    with pytest.raises(ValueError, match="at least 1 and sampling_ratio 0, not 0 and 2"):
        roi_align(maps(), STRIDES, boxes, images, levels, output_size=0)


@pytest.mark.parametrize("backend", ["embedding_bag", "torchvision"])
def test_half_precision_maps_do_not_move_boxes(backend: RoIBackend) -> None:
    slope = ((torch.arange(512.0) - 490).clamp(0, 32) / 32)[None, None, None].expand(1, 1, 8, 512)
    boxes = torch.tensor([[2001.0, 4, 2009, 20]])
    none = torch.zeros(1, dtype=torch.int64)
    options = {"output_size": 1, "backend": backend}
    exact = roi_align([slope], [4], boxes, none, none, **options)  # type: ignore[arg-type]
    results = roi_align([slope.bfloat16()], [4], boxes, none, none, **options)  # type: ignore[arg-type]
    assert results.dtype == torch.bfloat16
    # In bfloat16 the box would begin at 2000 and end at 2016, two cells further right.
    torch.testing.assert_close(results.float(), exact, rtol=0, atol=1e-6)
