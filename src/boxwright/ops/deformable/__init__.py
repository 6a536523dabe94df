"""Multi-scale deformable sampling: a weighted sum of bilinear samples from several feature maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.deformable.discrete import discrete_bag_sampling, snap_to_cells
from boxwright.ops.deformable.embedding_bag import embedding_bag_sampling
from boxwright.ops.deformable.grid_sample import grid_sample_sampling, nearest_sampling
from boxwright.ops.deformable.rows import gathered_rows_sampling
from boxwright.ops.onnx_operators import operators_for_onnx

Sampling = Literal["auto", "grid_sample", "embedding_bag", "triton"]

SamplingMethod = Literal["default", "discrete"]
"""Bilinear samples, or the values of single cells."""

HAS_TRITON = find_spec("triton") is not None


def deformable_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m p 2"],
    weights: Float[Tensor, "b q m p"],
    points: Sequence[int],
    *,
    backend: Sampling = "auto",
    deterministic: bool = False,
    method: SamplingMethod = "default",
) -> Float[Tensor, "b q m*d"]:
    """Sample every level at its locations and add up the weighted samples.

    out[b, q, m] = sum over all p of weights[b, q, m, p] * bilinear(value of the level of p, locations[b, q, m, p])

    Computed in float32 at least. All backends give the same numbers: ``grid_sample`` is the plain form, slow and large;
    ``embedding_bag`` is for CPUs, ``torch.compile`` and ``torch.export``, and runs everywhere; ``triton`` is for GPUs;
    ``auto`` is ``triton`` on CUDA where that is installed, else, and in ``torch.export``, ``embedding_bag``.

    Args:
        value: the maps of all levels, flattened row by row and concatenated; t = sum of h * w.
        shapes: (h, w) of each level.
        locations: (x, y), where (0, 0) and (1, 1) are the outer corners of the map; samples outside count as 0. The
            points of the first level come first, then those of the second.
        weights: of each sample, in the same order.
        points: number of each level; p is their sum.
        backend: implementation to run.
        deterministic: compute the same gradients, bit by bit, every time; on, too, where torch's deterministic
            algorithms are. Only ``triton`` needs to be asked for it: ``embedding_bag`` always is deterministic,
            ``grid_sample`` always on a CPU and never on CUDA.
        method: ``discrete`` takes the value of one cell, at the edge for samples outside; see ``find_cells``.

    Returns:
        the sums, heads concatenated, in the dtype of ``value``.

    Raises:
        ValueError: for a method or backend that does not exist, cannot run here, or cannot be deterministic; for
            numbers of points that do not belong to these levels and locations.

    Source: Zhu et al., Deformable DETR, ICLR 2021, equation 3; numbers of points by level and ``discrete``: RT-DETRv2
    (Lv et al., 2024). Checked against the ``grid_sample`` form (``align_corners=False``, zero padding) and the discrete
    form of lyuwenyu/RT-DETR 068dfde and of transformers.
    """
    if method not in get_args(SamplingMethod):
        raise ValueError(f"method is one of {list(get_args(SamplingMethod))}, not {method!r}")
    _check_points(points, shapes, locations)
    chosen = choose_backend(backend, value.device, deterministic)
    if method == "discrete" and chosen != "embedding_bag":
        locations = snap_to_cells(locations, shapes, points)
    if chosen != "triton":
        return _sampler(chosen, method)(value, shapes, locations, weights, points)
    # Imported where it is needed, because Triton is large and not everywhere.
    from boxwright.ops.deformable.triton_kernels import triton_sampling

    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    return triton_sampling(value, shapes, locations, weights, points, deterministic)


def _sampler(backend: Literal["grid_sample", "embedding_bag", "gathered_rows"], method: str) -> Callable[..., Tensor]:
    if backend == "grid_sample":
        return nearest_sampling if method == "discrete" else grid_sample_sampling
    if backend == "embedding_bag":
        return discrete_bag_sampling if method == "discrete" else embedding_bag_sampling
    return gathered_rows_sampling


def _check_points(
    points: Sequence[int], shapes: Sequence[tuple[int, int]], locations: Float[Tensor, "b q m p 2"]
) -> None:
    if len(points) != len(shapes) or sum(points) != locations.shape[3]:
        raise ValueError(
            f"points are {list(points)}, for {len(shapes)} levels and {locations.shape[3]} locations of each head: "
            "give one number for each level, with the number of locations as their sum"
        )


def choose_backend(
    name: str, device: torch.device, deterministic: bool = False
) -> Literal["grid_sample", "embedding_bag", "triton", "gathered_rows"]:
    """Choose the backend that runs on a device, or that a graph for ONNX is traced with.

    Args:
        name: one of ``Sampling``.
        device: of the values.
        deterministic: require deterministic gradients.

    Raises:
        ValueError: see ``deformable_sampling``.
    """
    if ops := operators_for_onnx():
        return "grid_sample" if ops == "auto" else "gathered_rows"
    if name == "auto":
        # An exported graph has to run without Boxwright.
        gpu = device.type == "cuda" and not torch.compiler.is_exporting()
        return "triton" if HAS_TRITON and gpu else "embedding_bag"
    if name == "embedding_bag":
        return "embedding_bag"
    if name == "grid_sample":
        if deterministic and device.type == "cuda":
            raise ValueError("backend 'grid_sample' has no deterministic gradient on CUDA: take 'embedding_bag'")
        return "grid_sample"
    if name == "triton":
        if not HAS_TRITON:
            raise ValueError("backend 'triton' needs the package triton, which is not installed: take 'auto'")
        return "triton"
    raise ValueError(f"backend is one of {list(get_args(Sampling))}, not {name!r}")
