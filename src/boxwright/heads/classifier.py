"""A classifier, which says what a whole image shows: how backbones are pretrained and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.detections import Detections
from boxwright.layers.option_checks import check_shares
from boxwright.layers.padding import resize_mask
from boxwright.ops.boxes import at_least_float32
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets, Task, head_levels

__all__ = ["Classifier"]

NUM_BEST = 5
"""Classes that are handed on for an image: as many as top-5 asks for."""


class ClassifierOutput(NamedTuple):
    """``boxes`` are the canvas, as corners in pixels of the network's input."""

    logits: Float[Tensor, "b k"]
    boxes: Float[Tensor, "b 4"]

    def prediction(self) -> tuple[Float[Tensor, "b 1 k"], Float[Tensor, "b 1 4"]]:
        """Logits and corner boxes of the one object of each image, which is the image."""
        return self.logits[:, None], self.boxes[:, None]


class Classifier(nn.Module):
    """The mean of every level over the image, side by side, dropout, and a linear layer with a logit per class.

    To detection an image's class is one object as large as the image: targets and detections are of that form. A
    image with several objects counts once for each, and one with none not at all.

    Args:
        in_spec: the levels to average; with the last one alone (``--backbone.levels c5``) this is ResNet's classifier.
        num_classes: number of logits.
        dropout: share of the averages that are left out in training.
        label_smoothing: share of a target that goes to all classes evenly, in [0, 1].

    Source: He et al., Deep Residual Learning, CVPR 2016, section 3.3 (average pooling and one layer); label smoothing
    from Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7. Checked against torchvision
    0.29.2's ResNets: same weights, same logits, losses and gradients. Differs in taking any number of levels, in
    leaving padding out of the mean, and in the first weights of the layer: normal with deviation 0.01.
    """

    task: Task = "classification"

    def __init__(self, in_spec: Spec, num_classes: int, *, dropout: float = 0.0, label_smoothing: float = 0.1) -> None:
        super().__init__()
        check_shares({"dropout": dropout, "label_smoothing": label_smoothing})
        self.levels = head_levels(in_spec)
        self.finest_stride = in_spec[self.levels[0]].stride
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(sum(in_spec[name].channels for name in self.levels), num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> ClassifierOutput:
        """The logits of each image."""
        means = [_mean(features[name], padding_mask) for name in self.levels]
        logits = self.linear(self.dropout(torch.cat(means, 1)))
        height, width = (side * self.finest_stride for side in features[self.levels[0]].shape[-2:])
        canvas = torch.tensor([0.0, 0.0, width, height], device=logits.device)
        return ClassifierOutput(logits, canvas.expand(logits.shape[0], 4))

    def loss(
        self, output: ClassifierOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``class``: the cross entropy, averaged over the objects of the step."""
        totals = totals or LossTotals.of(targets)
        logits = at_least_float32(output.logits)
        counts = torch.tensor([len(target.labels) for target in targets], device=logits.device)
        labels = torch.cat([target.labels for target in targets])
        total = F.cross_entropy(
            logits.repeat_interleave(counts, 0), labels, label_smoothing=self.label_smoothing, reduction="sum"
        )
        return {"class": total / totals.objects_per_process}

    def postprocess(self, output: ClassifierOutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """The likeliest classes of each image, at most five, each with a box around the image."""
        scores = at_least_float32(output.logits).softmax(-1).float()
        best = scores.topk(min(NUM_BEST, scores.shape[1]))
        found = []
        for values, labels, size in zip(best.values, best.indices, image_sizes, strict=True):
            whole = torch.tensor([0.0, 0.0, size.width, size.height], device=scores.device)
            found.append(Detections(whole.repeat(len(labels), 1), values, labels))
        return found


def _mean(level: Float[Tensor, "b c y x"], padding_mask: Bool[Tensor, "b h w"] | None) -> Float[Tensor, "b c"]:
    """Over the cells that show the image."""
    if padding_mask is None:
        return level.mean((2, 3))
    shown = ~resize_mask(padding_mask, level.shape[2], level.shape[3])[:, None]
    return (level * shown).sum((2, 3)) / shown.sum((2, 3)).clamp(min=1)
