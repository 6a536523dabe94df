"""Two-stage heads with a weight that is not a number."""

from __future__ import annotations

import torch
from torch import nn

from boxwright.ops.finite import check_finite
from boxwright.structures import Features


@torch.no_grad()
def assert_divergence_is_visible(head: nn.Module, maps: Features, broken: str) -> None:
    """Check that one NaN in the parameter ``broken`` is seen in the scores, not as an image without detections."""
    head.eval()
    check_finite(head.decode(head(maps)).scores)  # type: ignore[operator]
    head.get_parameter(broken).flatten()[0] = torch.nan
    assert head.decode(head(maps)).scores.isnan().all()  # type: ignore[operator]
