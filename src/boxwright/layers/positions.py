"""Position encodings."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def sine_grid(
    height: int, width: int, dim: int, *, temperature: float = 10000.0, device: torch.device | None = None
) -> Float[Tensor, "{height*width} {dim}"]:
    """2-D sine-cosine encoding of integer positions, row by row: [sin(y w), cos(y w), sin(x w), cos(x w)].

    w_i = temperature ** (-i / (dim / 4)) for i = 0 .. dim / 4 - 1.

    Args:
        height: rows of the map.
        width: columns of the map.
        dim: of each encoding; a multiple of 4.
        temperature: of the longest wave.

    Source: Zhao et al., RT-DETR. Checked against transformers (equal everywhere) and lyuwenyu/RT-DETR 068dfde (equal
    on square maps; on others the original flattens column by column, against its own tokens, and so scrambles them).
    """
    if dim % 4:
        raise ValueError(f"the width of a 2-D sine encoding is a multiple of 4, not {dim}")
    omega = temperature ** -(torch.arange(dim // 4, dtype=torch.float32, device=device) / (dim // 4))
    y = torch.arange(height, dtype=torch.float32, device=device)[:, None] * omega
    x = torch.arange(width, dtype=torch.float32, device=device)[:, None] * omega
    rows = torch.cat((y.sin(), y.cos()), 1)[:, None].expand(height, width, dim // 2)
    columns = torch.cat((x.sin(), x.cos()), 1)[None].expand(height, width, dim // 2)
    return torch.cat((rows, columns), -1).reshape(height * width, dim)
