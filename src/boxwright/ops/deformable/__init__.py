"""Multi-scale deformable sampling: a weighted sum of bilinear samples from several feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.deformable.embedding_bag import embedding_bag_sampling
from boxwright.ops.deformable.grid_sample import grid_sample_sampling

Sampling = Literal["auto", "grid_sample", "embedding_bag", "triton"]

HAS_TRITON = find_spec("triton") is not None


def deformable_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m l p 2"],
    weights: Float[Tensor, "b q m l p"],
    *,
    body: Sampling = "auto",
    deterministic: bool = False,
) -> Float[Tensor, "b q m*d"]:
    """Sample every level at every location and add up what was found.

    out[b, q, m] = sum over l, p of weights[b, q, m, l, p] * bilinear(value of level l, locations[b, q, m, l, p])

    Computed in float32 at least. All bodies give the same numbers:

    - ``grid_sample`` is the plain form, slow and large;
    - ``embedding_bag`` is for CPUs, ``torch.compile`` and ``torch.export``, and runs everywhere;
    - ``triton`` is for GPUs;
    - ``auto`` is ``triton`` on CUDA where that is installed, else, and in ``torch.export``, ``embedding_bag``.

    Args:
        value: the maps of all levels, flattened row by row and concatenated; t = sum of h * w.
        shapes: (h, w) of each level.
        locations: (x, y), where (0, 0) and (1, 1) are the outer corners of the map; samples outside count as 0.
        weights: of each sample.
        body: which of them runs.
        deterministic: the same gradients, bit by bit, every time; on, too, where torch's deterministic algorithms
            are. It is something to ask for with ``triton`` only: ``embedding_bag`` always is, ``grid_sample`` always
            on a CPU and never on CUDA.

    Returns:
        the sums, heads concatenated, in the dtype of ``value``.

    Raises:
        ValueError: for a body that does not exist or cannot run here, or that cannot be deterministic.

    Source: Zhu et al., Deformable DETR, ICLR 2021, equation 3. Checked against the ``grid_sample`` form
    (``align_corners=False``, zero padding) of lyuwenyu/RT-DETR 068dfde and of transformers.
    """
    body = choose_backend(body, value.device, deterministic)
    if body == "grid_sample":
        return grid_sample_sampling(value, shapes, locations, weights)
    if body == "embedding_bag":
        return embedding_bag_sampling(value, shapes, locations, weights)
    # Imported where it is needed, because Triton is large and not everywhere.
    from boxwright.ops.deformable.triton_kernels import triton_sampling

    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    return triton_sampling(value, shapes, locations, weights, deterministic)


def choose_backend(
    name: str, device: torch.device, deterministic: bool = False
) -> Literal["grid_sample", "embedding_bag", "triton"]:
    """The body that runs on a device.

    Args:
        name: one of ``Sampling``.
        device: of the values.
        deterministic: whether gradients have to be.

    Raises:
        ValueError: see ``deformable_sampling``.
    """
    if name == "auto":
        # What is exported has to run without Boxwright.
        gpu = device.type == "cuda" and not torch.compiler.is_exporting()
        return "triton" if HAS_TRITON and gpu else "embedding_bag"
    if name == "embedding_bag":
        return "embedding_bag"
    if name == "grid_sample":
        if deterministic and device.type == "cuda":
            raise ValueError("body 'grid_sample' has no deterministic gradient on CUDA: take 'embedding_bag'")
        return "grid_sample"
    if name == "triton":
        if not HAS_TRITON:
            raise ValueError("body 'triton' needs the package triton, which is not installed: take 'auto'")
        return "triton"
    raise ValueError(f"body is one of {list(get_args(Sampling))}, not {name!r}")
