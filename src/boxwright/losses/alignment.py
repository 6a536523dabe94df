"""Distance of a map of features from a teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32


def alignment_loss(
    student: Float[Tensor, "b c y x"], teacher: Float[Tensor, "b c y x"], valid: Bool[Tensor, "b y x"]
) -> Float[Tensor, " b"]:
    """Compute the mean cosine distance of each image's cells, in [0, 2]: 1 - cos(student, teacher).

    Args:
        student: features that learn.
        teacher: features that they are to point the same way as, whatever their length.
        valid: False on padding, which does not count.

    Source: Liao et al., RT-DETRv4, 2025. Checked against ``loss_distillation`` of RT-DETRs/RT-DETRv4 df44122. Differs
    in leaving padding out.
    """
    distance = 1 - F.cosine_similarity(at_least_float32(student), at_least_float32(teacher), dim=1)
    return (distance * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
