"""Backbones in the forms that detectors of the papers have, narrow."""

from __future__ import annotations

from typing import Any

SQUEEZED: dict[str, Any] = {"squeeze_excitation": "all", "activation": "silu", "start_as_shortcut": True}

DEEP: dict[str, Any] = {"start_as_shortcut": True}
"""Else 66 blocks of random weights multiply the rounding of float32 by ten thousand."""

FORMS: dict[str, dict[str, Any]] = {
    "resnet200": {"name": "resnet", "depth": 200, "width": 8, "block": DEEP},
    "senet": {"name": "resnet", "depth": [1, 2, 3, 1], "width": 16, "block": SQUEEZED},
    "botnet152": {"name": "botnet", "depth": 152, "width": 8, "block": DEEP},
    "botnet200": {"name": "botnet", "depth": 200, "width": 8, "block": DEEP},
    "botnet_t": {
        "name": "botnet",
        "depth": [1, 1, 2, 4],
        "width": 16,
        "c5_stride": 1,
        "block": {**SQUEEZED, "shortcut_activation": "all"},
    },
    "non_local": {"name": "non_local", "depth": 50, "width": 8, "num_blocks": 5},
    "hgnetv2_l": {"name": "timm", "model": "hgnetv2_b4"},
    "hgnetv2_x": {"name": "timm", "model": "hgnetv2_b5"},
    "hgnetv2_h": {"name": "timm", "model": "hgnetv2_b6"},
}
"""Options of a backbone by the name of its form; HGNetv2 has one width for each size."""

LARGER = {"botnet152": "botnet200", "hgnetv2_x": "hgnetv2_l", "hgnetv2_h": "hgnetv2_l"}
"""Forms that differ from another one in size alone."""

EXPORTED = [name for name in FORMS if name not in LARGER]
"""Forms that are exported."""
