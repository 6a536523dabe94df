"""Tables of positions for maps of another size than they were made for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def fit_table(
    table: Float[Tensor, "n d"], length: int, length_across: int, cells: int, cells_across: int, relative: bool
) -> Float[Tensor, "n_out d"]:
    """Take the vectors of one axis of a map, or of the distances along it; for a map of any size.

    Args:
        table: of the axis.
        length: entries of the table.
        length_across: entries of the table of the other axis.
        cells: of the map along the axis.
        cells_across: along the other one.
        relative: whether entries are distances.
    """
    own, other = ((n + 1) // 2 if relative else n for n in (length, length_across))
    whole = max(cells, round(own * max(cells / own, cells_across / other)))
    resized = resized_table(table, 2 * whole - 1 if relative else whole, relative=relative)
    if whole == cells:
        return resized
    return resized[whole - cells : whole + cells - 1] if relative else resized[:cells]


def resized_table(table: Float[Tensor, "n d"], length: int, *, relative: bool) -> Float[Tensor, "{length} d"]:
    """Make a table of positions for a map of another size, linear between entries.

    Relative: the outermost distances keep their vectors, and so does distance 0; one entry is that of distance 0.
    Absolute: positions are the cells' centers on one map, whatever it is cut into; beyond the outermost centers the
    table is constant.

    Args:
        table: a vector for each distance, or for each position.
        length: entries to return; for distances odd, as the table's own are.
        relative: whether entries are distances.

    Source: own. Checked against numpy's ``interp``, and absolute tables against timm 1.0.31's
    ``resample_abs_pos_embed``, bilinear. timm's relative tables (``get_rel_pos`` of ``vision_transformer_sam``) are
    resized by centers of entries instead: distance 0 is equal, the outermost distances are not.
    """
    if len(table) == length:
        return table
    if relative and length == 1:
        middle = len(table) // 2
        return table[middle : middle + 1]
    return F.interpolate(table.t()[None], size=length, mode="linear", align_corners=relative)[0].t()


def bicubic_weights(length: int, cells: int, device: torch.device) -> Float[Tensor, "_cells {length}"]:
    """Make the matrix that resizes an axis of ``length`` entries to ``cells``, bicubic and antialiased.

    For graphs whose ``Resize`` cannot smooth: the rows are weights of the entries, and sum to 1.

    Source: Keys' cubic with a = -0.5, stretched where there are fewer cells than entries, as in Pillow. Checked against
    ``F.interpolate``.
    """
    step = torch.tensor(length, dtype=torch.float32, device=device) / cells
    centers = (torch.arange(cells, dtype=torch.float32, device=device) + 0.5) * step
    entries = torch.arange(length, dtype=torch.float32, device=device) + 0.5
    x = ((entries - centers[:, None]) / step.clamp(min=1)).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(1, keepdim=True)
