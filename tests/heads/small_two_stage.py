"""Two-stage heads with small options."""

from __future__ import annotations

from typing import Any, get_type_hints

import torch

from boxwright.structures import Features, Level, Spec

SPEC: Spec = {"c2": Level(8, 4), "c3": Level(8, 8), "c5": Level(8, 32), "c6": Level(8, 64)}

SMALL: dict[str, dict[str, Any]] = {
    "rpn": {"pre_nms_top_k": (60, 40), "post_nms_top_k": (30, 20)},
    "roi": {"num_samples": 24},
    "boxes": {"hidden_dim": 16},
}


def small_head(head: Any, spec: Spec = SPEC, **options: Any) -> Any:
    """Build a head for 3 classes; groups of options are mappings, over those of ``SMALL``."""
    torch.manual_seed(0)
    groups = get_type_hints(head.__init__)
    values = {
        name: SMALL.get(name, {}) | options.get(name, {}) for name in (*SMALL, *options) if _is_group(options, name)
    }
    built = {name: groups[name](**own) for name, own in values.items()}
    return head(spec, 3, **(options | built))


def make_maps(spec: Spec = SPEC, height: int = 128, width: int = 128, *, batch: int = 2) -> Features:
    """Draw the levels of images of this size."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(batch, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def _is_group(options: dict[str, Any], name: str) -> bool:
    return isinstance(options.get(name, {}), dict)
