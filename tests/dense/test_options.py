"""Options of dense heads."""

from __future__ import annotations

import pytest

from boxwright.dense.options import FocalOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": 1.5}, r"alpha is in \[0, 1\], not 1.5"), ({"gamma": -1.0}, "gamma is at least 0, not -1.0")],
    ids=str,
)
def test_bad_constants_of_the_focal_loss(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FocalOptions(**options)
