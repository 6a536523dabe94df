"""Two-stage heads whose weights are numbers no more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from boxwright.structures import Features, ImageSize


@torch.no_grad()
def assert_says_that_it_has_diverged(head: nn.Module, maps: Features, broken: str) -> None:
    """With one number of the parameter ``broken`` missing, in the place of finding nothing; ``maps`` of 128 pixels."""
    head.eval()
    sizes = [ImageSize(128, 128, 128, 128)] * 2
    head.postprocess(head(maps), sizes)
    head.get_parameter(broken).flatten()[0] = torch.nan
    with pytest.raises(ValueError, match="not a number, so it has diverged; train it again with a lower learning rate"):
        head.postprocess(head(maps), sizes)
