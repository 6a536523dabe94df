"""Losses of distributions over bins."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

TEMPERATURE = 5.0


def fine_grained_localization_loss(
    logits: Float[Tensor, "*n k"], left: Int[Tensor, "*n"], right_weight: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Cross entropy with a target that lies between two neighboring bins.

    loss = -(1 - w) log p(left) - w log p(left + 1)

    Args:
        logits: of the bins, before the softmax.
        left: bin on the left of the target, 0..k-2.
        right_weight: w, how near the target is to the bin on its right, in [0, 1].

    Source: Peng et al., D-FINE, ICLR 2025, equation 6, which weights it by the IoU besides. Checked against
    ``unimodal_distribution_focal_loss`` of Peterande/D-FINE 4a1f73a.
    """
    log_p = logits.log_softmax(-1)
    both = log_p.gather(-1, torch.stack((left, left + 1), -1))
    return -(both[..., 0] * (1 - right_weight) + both[..., 1] * right_weight)


def distillation_loss(
    logits: Float[Tensor, "*#n k"], teacher_logits: Float[Tensor, "*#n k"], *, temperature: float = TEMPERATURE
) -> Float[Tensor, "*n"]:
    """Kullback-Leibler divergence from the teacher's distribution, both softened; T^2 KL(teacher || student).

    Args:
        logits: of the student.
        teacher_logits: without gradient.
        temperature: T, which logits are divided by; positive.

    Source: Peng et al., D-FINE, ICLR 2025, equation 8. Checked against ``loss_local`` of Peterande/D-FINE 4a1f73a.
    """
    student = F.log_softmax(logits / temperature, -1)
    teacher = F.softmax(teacher_logits.detach() / temperature, -1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none").sum(-1)
