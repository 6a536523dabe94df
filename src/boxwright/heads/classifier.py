"""A classifier of whole images: how backbones are pretrained and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.layers.option_checks import check_fractions
from boxwright.layers.padding import infer_valid_sizes, resize_mask
from boxwright.mechanism import ClassifierMechanism
from boxwright.mechanism_levels import LevelMap
from boxwright.ops.boxes import at_least_float32
from boxwright.ops.finite import nan_like_any
from boxwright.ops.ranking import rank
from boxwright.recorded import Recorded
from boxwright.structures import ClassRows, Decoded, Features, LossTotals, Spec, Targets, Task, head_levels

__all__ = ["Classifier"]

NUM_BEST = 5
"""Number of classes in the detections of an image: as many as top-5 asks for."""


class ClassifierOutput(NamedTuple):
    """Logits of each image, and corner boxes around it in pixels of the network input."""

    logits: Float[Tensor, "b k"]
    boxes: Float[Tensor, "b 4"]


class Classifier(nn.Module):
    """The mean of every level over the image, side by side, dropout, and a linear layer with a logit per class.

    To detection an image's class is one object as large as the image: targets and detections are of that form. An
    image with several objects counts once for each, and one with none not at all.

    Args:
        in_spec: the levels to average; with the last one alone (``--backbone.levels c5``) this is ResNet's classifier.
        num_classes: number of logits.
        dropout: fraction of the averages that are left out in training.
        label_smoothing: fraction of a target that goes to all classes evenly, in [0, 1].

    Source: He et al., Deep Residual Learning, CVPR 2016, section 3.3 (average pooling and one layer); label smoothing
    from Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7. Checked against torchvision
    0.29.2's ResNets: same weights, same logits, losses and gradients. Differs in taking any number of levels, in
    leaving padding out of the mean, and in the initial weights of the layer: normal with standard deviation 0.01.
    """

    task: Task = "classification"

    def __init__(self, in_spec: Spec, num_classes: int, *, dropout: float = 0.0, label_smoothing: float = 0.1) -> None:
        super().__init__()
        check_fractions({"dropout": dropout, "label_smoothing": label_smoothing})
        self.levels = head_levels(in_spec)
        self.strides = [in_spec[name].stride for name in self.levels]
        self.label_smoothing = label_smoothing
        self.means = LevelMeans(self.levels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(sum(in_spec[name].channels for name in self.levels), num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> ClassifierOutput:
        """Predict; with targets or without them the same."""
        logits = self.linear(self.dropout(self.means(features, padding_mask)))
        if valid_sizes is None:
            valid_sizes = infer_valid_sizes(padding_mask, features[self.levels[0]], self.strides[0])
        # Larger by a rounding: cut to the image, in whatever pixels, it is the image and no less.
        corner = valid_sizes.flip(-1) * (1 + 1e-6)
        return ClassifierOutput(logits, torch.cat((corner * 0, corner), -1).expand(logits.shape[0], 4))

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layers with a row for each class."""
        return {"linear": ClassRows()}

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

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain`` needs."""
        return [self.means]

    @torch.no_grad()
    def explain(self, output: ClassifierOutput, recorded: Recorded, detection: int) -> ClassifierMechanism:
        """Split the logit of a class over the cells of all levels.

        Source: Zhou et al., Learning Deep Features for Discriminative Localization (class activation maps), CVPR 2016,
        section 2, with the mean in the weights, so that the cells and the bias add up to the logit.
        """
        features, padding_mask = recorded.calls[self.means][0].inputs
        scores, labels = _rank_classes(output)
        label = int(labels[0, detection])
        weights = self.linear.weight[label].split([features[name].shape[1] for name in self.levels])
        maps = {}
        for name, stride, weight in zip(self.levels, self.strides, weights, strict=True):
            level = features[name]
            own = torch.einsum("chw,c->hw", level[0].float(), weight.float()) * _weigh_cells(level, padding_mask)
            maps[name] = LevelMap.of(own, stride)
        return ClassifierMechanism(
            box=output.boxes[0].float().cpu(),
            label=label,
            score=float(scores[0, detection]),
            logit=float(output.logits[0, label]),
            bias=float(self.linear.bias[label]),
            maps=maps,
        )

    def decode(self, output: ClassifierOutput) -> Decoded:
        """Select the likeliest classes of each image, at most five, each with a box around the image."""
        scores, labels = _rank_classes(output)
        boxes = output.boxes[:, None].to(scores.dtype).expand(-1, labels.shape[1], -1)
        diverged = nan_like_any(output.logits)[:, None]
        return Decoded(boxes, scores + diverged, labels, torch.ones_like(labels, dtype=torch.bool))


class LevelMeans(nn.Module):
    """Means of the levels over the image, side by side.

    Args:
        levels: their names.
    """

    def __init__(self, levels: Sequence[str]) -> None:
        super().__init__()
        self.levels = list(levels)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None) -> Float[Tensor, "b c"]:
        return torch.cat([_mean(features[name], padding_mask) for name in self.levels], 1)


def _rank_classes(output: ClassifierOutput) -> tuple[Float[Tensor, "b n"], Int[Tensor, "b n"]]:
    return rank(at_least_float32(output.logits).softmax(-1), NUM_BEST)


def _weigh_cells(level: Float[Tensor, "b c y x"], padding_mask: Bool[Tensor, "b h w"] | None) -> Float[Tensor, "y x"]:
    """Compute the weight of each cell in the mean of the first image."""
    if padding_mask is None:
        return level.new_full(level.shape[2:], 1 / (level.shape[2] * level.shape[3]))
    shown = (~resize_mask(padding_mask, level.shape[2], level.shape[3])[0]).to(level.dtype)
    return shown / shown.sum().clamp(min=1)


def _mean(level: Float[Tensor, "b c y x"], padding_mask: Bool[Tensor, "b h w"] | None) -> Float[Tensor, "b c"]:
    """Average over the cells that show the image."""
    if padding_mask is None:
        return level.mean((2, 3))
    shown = ~resize_mask(padding_mask, level.shape[2], level.shape[3])[:, None]
    return (level * shown).sum((2, 3)) / shown.sum((2, 3)).clamp(min=1)
