"""Options of query heads that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from boxwright.layers.deformable_attention import FeedForwardKind
from boxwright.layers.option_checks import check_counts, check_fractions
from boxwright.ops.deformable import Sampling, SamplingMethod
from boxwright.queries.class_losses import ClassLossName


@dataclass(frozen=True, kw_only=True)
class TransformerDecoderOptions:
    """Size of a decoder whose queries attend to every token.

    Args:
        num_layers: decoder layers.
        num_heads: heads of both attentions.
        feedforward_dim: width of the feed-forward.
        dropout: of attention weights, after both attentions, in and after the feed-forward, in [0, 1).
        pre_norm: norms before attentions and feed-forward.
        eval_layers: decoder layers that prediction uses; all where None.
    """

    num_layers: int = 6
    num_heads: int = 8
    feedforward_dim: int = 2048
    dropout: float = 0.1
    pre_norm: bool = False
    eval_layers: int | None = None

    def __post_init__(self) -> None:
        _check_decoder(self.num_layers, self.num_heads, self.eval_layers)

    @property
    def predicting_layers(self) -> int:
        """Number of layers that prediction uses."""
        return self.eval_layers or self.num_layers


def _check_decoder(num_layers: int, num_heads: int, eval_layers: int | None) -> None:
    check_counts({"num_layers": num_layers, "num_heads": num_heads})
    if eval_layers is not None and not 1 <= eval_layers <= num_layers:
        raise ValueError(f"eval_layers is between 1 and num_layers ({num_layers}), not {eval_layers}")


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Size of a deformable decoder, whose queries attend to a few points of each level.

    Args:
        num_layers: decoder layers.
        num_heads: heads of both attentions.
        num_points: samples per head and level; one number, or one for each level.
        feedforward_dim: width of the feed-forward.
        dropout: after both attentions and in and after the feed-forward, in [0, 1).
        eval_layers: decoder layers that prediction uses; all where None.
        sampling: backend of the sampling; ``auto`` is the fastest on the device.
        sampling_method: ``default`` samples bilinearly, ``discrete`` takes the value of one cell, for devices without
            bilinear sampling; its offsets are not trained, so begin with weights that were trained without it.
        offset_scale: of offsets from reference boxes, in sides of the box; positive.
        activation: of the feed-forwards, and of the small networks that predict boxes and encode references.
    """

    num_layers: int = 6
    num_heads: int = 8
    num_points: int | Sequence[int] = 4
    feedforward_dim: int = 1024
    dropout: float = 0.0
    eval_layers: int | None = None
    sampling: Sampling = "auto"
    sampling_method: SamplingMethod = "default"
    offset_scale: float = 0.5
    activation: Literal["relu", "silu"] = "relu"

    def __post_init__(self) -> None:
        _check_decoder(self.num_layers, self.num_heads, self.eval_layers)

    @property
    def predicting_layers(self) -> int:
        """Number of layers that prediction uses."""
        return self.eval_layers or self.num_layers

    @property
    def feed_forward(self) -> FeedForwardKind:
        """Kind of the layers' feed-forwards and norms."""
        return "mlp"

    @property
    def sampling_heads(self) -> int:
        """Number of heads of the attention to the levels."""
        return self.num_heads

    @property
    def is_lean(self) -> bool:
        """Tokens are selected as they are, and references encoded once."""
        return False


MAX_DENOISING = 10_000


@dataclass(frozen=True, kw_only=True)
class DenoisingOptions:
    """Noised objects that the decoder is trained to recover.

    Args:
        num_queries: objects to recover from noise per image, over all groups; 0 for none.
        label_noise: twice the probability that a noised object has another label, in [0, 2].
        box_noise: largest movement of a noised corner, in half sides; at least 0.
        mirrored: boxes that noise has turned inside out are mirrored, rather than left with a negative size.
    """

    num_queries: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.num_queries > MAX_DENOISING:
            raise ValueError(f"num_queries is at most {MAX_DENOISING:,}, not {self.num_queries}")


@dataclass(frozen=True, kw_only=True)
class QueryLossWeights:
    """Weights of the loss terms of every decoder layer.

    Args:
        class_weight: of the loss of the class scores.
        l1_weight: of the L1 distance of normalized center boxes.
        giou_weight: of 1 - GIoU.
        mask_weight: of the cross entropy of masks, at points.
        dice_weight: of the dice loss of masks, likewise.
    """

    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0


@dataclass(frozen=True, kw_only=True)
class SoftmaxLossWeights(QueryLossWeights):
    """Weights of the loss terms of every decoder layer whose class scores compete with "no object".

    Args:
        no_object_weight: of queries without object in the cross entropy of classes, in [0, 1].
    """

    no_object_weight: float = 0.1

    def __post_init__(self) -> None:
        check_fractions({"no_object_weight": self.no_object_weight})


@dataclass(frozen=True, kw_only=True)
class RefiningDecoderOptions(DecoderOptions):
    """Size of a deformable decoder whose queries get their positions from the boxes that it refines.

    Args:
        reference_encoding: network that encodes a box as a position: ``wide`` has a hidden layer of twice the width,
            ``deep`` two of the width.
        design: ``standard`` is that of RT-DETR and D-FINE. ``lean``, EdgeCrafter's, selects tokens without a layer
            before, and encodes references once rather than before each layer. ``swiglu``, DEIMv2's, is lean and has RMS
            norms and gated feed-forwards, of half the width in between. ``swiglu_shared``, that of DEIMv2 Pico, Femto
            and Atto, also has one box head for all layers, and no gates.
    """

    reference_encoding: Literal["wide", "deep"] = "wide"
    design: Literal["standard", "lean", "swiglu", "swiglu_shared"] = "standard"

    @property
    def is_lean(self) -> bool:
        """Tokens are selected as they are, and references encoded once."""
        return self.design != "standard"

    @property
    def shares_boxes(self) -> bool:
        """All layers have the same box head."""
        return self.design == "swiglu_shared"

    @property
    def feed_forward(self) -> FeedForwardKind:
        """Kind of the layers' feed-forwards and norms."""
        return "swiglu" if self.design in ("swiglu", "swiglu_shared") else "mlp"


@dataclass(frozen=True, kw_only=True)
class SamplingDecoderOptions(DecoderOptions):
    """Size of a deformable decoder whose attentions may have different numbers of heads.

    Args:
        num_sampling_heads: heads of the attention to the levels; as many as of self-attention where None. RF-DETR has
            16.
    """

    num_sampling_heads: int | None = None

    @property
    def sampling_heads(self) -> int:
        """Number of heads of the attention to the levels."""
        return self.num_sampling_heads or self.num_heads


@dataclass(frozen=True, kw_only=True)
class DistillationOptions:
    """Learning from the map of a large frozen model, in training only.

    Args:
        teacher: name of a model in timm; None for no distillation.
        weights: of the teacher: a file, a folder in Hugging Face layout, or ``timm:NAME``, which is downloaded unless
            it is in the cache.
        channels: of the teacher's map.
        weight: of the loss, at the beginning.
        gradient_fraction: of the gradient, in (0, 1), that the attention layers of the neck should have, by which the
            weight is steered from one pass over the data to the next; None keeps the weight. RT-DETRv4-S has 0.11.
        tolerance: difference from ``gradient_fraction`` within which the weight stays.
        late_weight: once strong augmentation has ended, where the weight is steered.
    """

    teacher: str | None = None
    weights: str | None = None
    channels: int = 768
    weight: float = 5.0
    gradient_fraction: float | None = None
    tolerance: float = 0.01
    late_weight: float = 20.0

    def __post_init__(self) -> None:
        check_counts({"channels": self.channels})
        if min(self.weight, self.late_weight) < 0:
            raise ValueError(f"weights are at least 0, not {self.weight:g} and {self.late_weight:g}")
        middle, tolerance = self.gradient_fraction, self.tolerance
        if middle is not None and not 0 < middle - tolerance <= middle + tolerance < 1:
            raise ValueError(
                f"gradient_fraction and tolerance tell a range between 0 and 1, not {middle:g} and {tolerance:g}"
            )


@dataclass(frozen=True, kw_only=True)
class SupervisionOptions:
    """Teaching of queries: the losses and matches that they learn from.

    Args:
        class_loss: of all predictions; ``make_class_loss`` lists them.
        num_groups: groups of queries in training, each selected by heads of its own, matched by itself and attending to
            itself; the first one predicts. LW-DETR and RF-DETR have 13.
        auxiliary: dense and two-stage heads beside the decoder, in training only, whose positives become further
            queries, as in Co-DETR; their names, or with options of each: ``{faster_rcnn: {}, atss: {num_convs: 1}}``.
        auxiliary_weight: of the losses of these heads.
        auxiliary_queries: least and largest number of queries of an image that each of them gives; background fills up.
        distillation: a teacher of the features, as in RT-DETRv4.
    """

    class_loss: ClassLossName = "focal"
    num_groups: int = 1
    auxiliary: Sequence[str] | Mapping[str, Mapping[str, bool | int | float | str]] = ()
    auxiliary_weight: float = 12.0
    auxiliary_queries: tuple[int, int] = (9, 300)
    distillation: DistillationOptions = DistillationOptions()

    def __post_init__(self) -> None:
        check_counts({"num_groups": self.num_groups})
        least, most = self.auxiliary_queries
        if self.auxiliary_weight < 0 or not 1 <= least <= most:
            raise ValueError(
                "auxiliary_weight is at least 0, and auxiliary_queries are 1 or more, the least first, "
                f"not {self.auxiliary_weight} and {list(self.auxiliary_queries)}"
            )

    def auxiliary_options(self) -> Mapping[str, Mapping[str, bool | int | float | str]]:
        """List the auxiliary heads by their names, with the options of each.

        Raises:
            ValueError: two have one name.
        """
        if isinstance(self.auxiliary, Mapping):
            return self.auxiliary
        if len(set(self.auxiliary)) < len(self.auxiliary):
            raise ValueError(f"auxiliary heads have names of their own, not {list(self.auxiliary)}")
        return {name: {} for name in self.auxiliary}


EARLY_STEPS = 1000
"""Steps of a training from random weights after which class losses count as they are published."""


@dataclass(frozen=True, kw_only=True)
class UnitedSupervisionOptions(SupervisionOptions):
    """Teaching of queries whose layers may learn boxes from the matches of each other.

    Args:
        united_matches: boxes of every layer learn from the matches of all layers and of the encoder, classes from the
            layer's own.
        late_cost: fraction of the training from which on queries are matched by score and overlap alone, with the cost
            -score * IoU^4, as in DEIMv2; never where None.
        early_class_factor: what class losses are multiplied by in the first step of a training from random weights,
            falling to 1 over ``EARLY_STEPS`` steps: boxes are learned before classes, which short runs leave behind.
    """

    united_matches: bool = False
    late_cost: float | None = None
    early_class_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.early_class_factor <= 0:
            raise ValueError(f"early_class_factor is greater than 0, not {self.early_class_factor:g}")
        if self.late_cost is not None:
            check_fractions({"late_cost": self.late_cost})
