"""Gradients of other projects, of which the norms and projections are stored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from formula import uniform
from torch import Tensor

from conformance import compare


def check_gradients(
    gradients: Mapping[str, Tensor | None],
    stored: Mapping[str, np.ndarray],
    *,
    prefix: str = "",
    tolerance: float,
    floor: float = 0.0,
) -> None:
    """Compare gradients with their stored norms, and with their projections on directions that follow from their names.

    Args:
        gradients: by the names of their parameters.
        stored: ``gradient_names``, ``gradient_norms`` and ``gradient_projections``, with other numbers beside them.
        prefix: of these three.
        tolerance: relative to each gradient's norm.
        floor: added to the tolerances, relative to the norm of all gradients.
    """
    names, norms, projections = (stored[f"{prefix}gradient_{kind}"] for kind in ("names", "norms", "projections"))
    assert set(gradients) == set(names.tolist())
    for name, norm, projection in zip(names.tolist(), norms, projections, strict=True):
        grad = gradients[name]
        assert grad is not None, name
        # A projection of a wrong gradient of the right norm would be off by about the norm itself.
        projected = (grad * uniform(f"direction of {name}", *grad.shape)).sum().item()
        difference = max(abs(grad.norm().item() - norm), abs(projected - projection))
        relative = difference / (norm + floor / tolerance * np.linalg.norm(norms)) if difference else 0.0
        compare("gradients", float(relative), tolerance, of=name)
