"""First stage: the region proposal network, its losses, and the selection of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.predictions import InputProjection, flatten_predictions, prediction_conv, run_in_full_precision
from boxwright.ops.anchors import level_anchors, octave_anchors, pyramid_anchors
from boxwright.ops.box_deltas import SMOOTH_L1_BETA, decode_deltas, encode_deltas
from boxwright.ops.box_matching import gather_matches, match_by_iou
from boxwright.ops.boxes import at_least_float32, boxes_as_rows, clip_to_sizes
from boxwright.ops.image_draws import Purpose, image_generator
from boxwright.ops.nms import nms_top_k
from boxwright.regions.options import RPNOptions
from boxwright.regions.sampling import SampledRegions, sample_balanced
from boxwright.structures import Features, Spec, Targets

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height / width of the anchors of a cell."""

MIN_PROPOSAL_SIDE = 1e-3
"""Proposals with a shorter side are dropped, in pixels."""


class RPNOutput(NamedTuple):
    """Predictions of every anchor, level by level, fine to coarse.

    ``logits`` are of an object of any class; ``deltas`` are offsets from ``anchors``, which are corner boxes in pixels
    of the network input.
    """

    logits: tuple[Float[Tensor, "b _n"], ...]
    deltas: tuple[Float[Tensor, "b _n 4"], ...]
    anchors: tuple[Float[Tensor, "_n 4"], ...]


class FirstStageOutput(NamedTuple):
    """Levels, predictions of anchors, and the (height, width) that boxes of each image, or of all, are cut to."""

    maps: Sequence[Float[Tensor, "b c _h _w"]]
    rpn: RPNOutput
    box_limits: Float[Tensor, "#b 2"]


class Proposals(NamedTuple):
    """Equally many regions of every image, best first; those that are not ``valid`` fill up.

    ``boxes`` are corner boxes in pixels of the network input; ``scores`` are in [0, 1].
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]

    def as_rows(self) -> tuple[Float[Tensor, "r 4"], Int[Tensor, " r"]]:
        """All boxes, image after image, and the image of each."""
        return boxes_as_rows(self.boxes)


class RPN(nn.Module):
    """Region proposal network: 3 x 3 convolutions with ReLU, then a logit and four deltas for each anchor.

    Args:
        channels: width of every level.
        strides: of the levels, in pixels of the network input.
        options: convolutions and the scale of anchors.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1, over levels as in Lin et al., Feature Pyramid Networks,
    CVPR 2017, section 4.1. Checked against torchvision 0.29.2's RPNHead and AnchorGenerator.
    """

    base_anchors: Tensor

    def __init__(self, channels: int, strides: Sequence[int], options: RPNOptions) -> None:
        super().__init__()
        self.strides, self.anchor_grid, num_anchors = (
            list(strides),
            options.anchor_grid,
            options.octave_steps * len(ASPECT_RATIOS),
        )

        def make_anchors(stride: int) -> Float[Tensor, "a 4"]:
            side = options.anchor_scale * stride
            return octave_anchors(side, options.octave_steps, ASPECT_RATIOS, whole_pixels=options.whole_pixels)

        self.register_buffer("base_anchors", level_anchors(strides, make_anchors), persistent=False)
        self.convs = nn.ModuleList(prediction_conv(channels, channels) for _ in range(options.num_convs))
        self.logits, self.deltas = nn.Conv2d(channels, num_anchors, 1), nn.Conv2d(channels, num_anchors * 4, 1)
        for conv in (self.logits, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Float[Tensor, "b c _h _w"]]) -> RPNOutput:
        levels = list(maps)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            levels = [x.relu() for x in conv_over_levels(conv, levels)]
        shapes = [(x.shape[-2], x.shape[-1]) for x in levels]
        logits = [self.logits(x) for x in levels]
        deltas = [run_in_full_precision(self.deltas, x) for x in levels]
        logits, deltas = flatten_predictions(logits, 1), flatten_predictions(deltas, 4)
        anchors = pyramid_anchors(self.base_anchors, shapes, self.strides, self.anchor_grid)
        return RPNOutput(tuple([x.squeeze(-1) for x in logits]), tuple(deltas), anchors)


class FirstStage(nn.Module):
    """Levels of one width, a region proposal network over them, and the selection of its proposals.

    Args:
        in_spec: the levels that come in, fine to coarse.
        channels: width of the levels; where None, the width that they share, or else 256. Levels of another width are
            projected to it.
        options: of the network and of the selection.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3; Lin et al., Feature Pyramid Networks, CVPR 2017, section
    4.1.
    """

    def __init__(self, in_spec: Spec, channels: int | None, options: RPNOptions) -> None:
        super().__init__()
        self.options = options
        self.input_projection = InputProjection(in_spec, channels)
        self.rpn = RPN(self.input_projection.channels, self.input_projection.strides, options)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None) -> FirstStageOutput:
        """Predict objects of any class at every anchor.

        Args:
            features: maps of all levels.
            padding_mask: True on padding, None where there is none.
        """
        maps = self.input_projection(features)
        rpn = self.rpn(maps)
        return FirstStageOutput(maps, rpn, read_box_limits(padding_mask, maps[0], self.rpn.strides[0]))

    def propose(self, rpn: RPNOutput, box_limits: Float[Tensor, "#b 2"], *, training: bool) -> Proposals:
        """Select proposals; ``training`` decides which of the two numbers of each ``top_k`` option holds."""
        index = 0 if training else 1
        return select_proposals(
            rpn,
            box_limits,
            pre_nms_top_k=self.options.pre_nms_top_k[index],
            post_nms_top_k=self.options.post_nms_top_k[index],
            nms_threshold=self.options.nms_threshold,
        ).proposals


class RPNLoss:
    """Cross entropy of "object" over sampled anchors, smooth L1 over those of them that have an object.

    Both are divided by the anchors sampled in an image, and averages over images.

    Args:
        positive_iou: least IoU of an anchor with its object; each object also has the anchors that overlap it most.
        negative_iou: IoU below which an anchor is background.
        num_samples: anchors sampled in an image.
        positive_fraction: most of them with an object, as a fraction.
        beta: distance from which smooth L1 is linear; 0 for L1.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.2. Checked against torchvision 0.29.2's
    RegionProposalNetwork, which divides by the anchors sampled in the batch: the same number wherever images have
    enough anchors.
    """

    def __init__(
        self,
        *,
        positive_iou: float = 0.7,
        negative_iou: float = 0.3,
        num_samples: int = 256,
        positive_fraction: float = 0.5,
        beta: float = SMOOTH_L1_BETA,
    ) -> None:
        self.positive_iou, self.negative_iou, self.beta = positive_iou, negative_iou, beta
        self.num_samples, self.positive_fraction = num_samples, positive_fraction

    def __call__(
        self, output: RPNOutput, targets: Sequence[Targets], images_per_process: float
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute ``objectness`` and ``rpn_box``.

        Args:
            output: predictions of the anchors.
            targets: one per image.
            images_per_process: of the optimizer step.
        """
        logits, deltas, anchors = torch.cat(output.logits, 1), torch.cat(output.deltas, 1), torch.cat(output.anchors)
        matched = self.match(anchors, targets)
        generators = [
            None if target.seed is None else image_generator(target.seed, Purpose.ANCHORS, anchors.device)
            for target in targets
        ]
        samples = [
            sample_balanced(own, self.num_samples, self.positive_fraction, generator)
            for own, generator in zip(matched, generators, strict=True)
        ]
        return self.of_samples(logits, deltas, anchors, matched, samples, targets, images_per_process)

    def match(self, anchors: Float[Tensor, "n 4"], targets: Sequence[Targets]) -> Int[Tensor, "b n"]:
        """Match each anchor with an object of each image, background, or nothing."""
        match = partial(match_by_iou, positive=self.positive_iou, negative=self.negative_iou, low_quality="ties")
        return torch.stack([match(anchors, target.boxes.to(anchors.dtype)) for target in targets])

    def of_samples(
        self,
        logits: Float[Tensor, "b n"],
        deltas: Float[Tensor, "b n 4"],
        anchors: Float[Tensor, "n 4"],
        matched: Int[Tensor, "b n"],
        samples: Sequence[Int[Tensor, " _s"]],
        targets: Sequence[Targets],
        images_per_process: float,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the losses of the sampled anchors of each image."""
        with torch.autocast(anchors.device.type, enabled=False):
            logits, deltas = at_least_float32(logits), at_least_float32(deltas)
            weights = torch.zeros_like(logits)
            for own, sampled in zip(weights, samples, strict=True):
                own[sampled] = 1 / (max(1, len(sampled)) * images_per_process)
            entropy = F.binary_cross_entropy_with_logits(logits, (matched >= 0).to(logits.dtype), reduction="none")
            image, index, boxes, _ = gather_matches(matched, targets)
            target = encode_deltas(boxes.to(anchors.dtype), anchors[index])
            distance = F.smooth_l1_loss(deltas[image, index], target, reduction="none", beta=self.beta).sum(-1)
            return {"objectness": (entropy * weights).sum(), "rpn_box": (distance * weights[image, index]).sum()}


class AnchorCandidates(NamedTuple):
    """Boxes of the best anchors of each level before NMS, cut to the image.

    ``scores`` are in [0, 1]; ``levels`` are indices; ``anchors`` are indices within their level, level by level.
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    levels: Int[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]
    anchors: Sequence[Int[Tensor, "b _n"]]


class SelectedProposals(NamedTuple):
    """Proposals, the candidates that they were selected from, and the index of each among these."""

    proposals: Proposals
    candidates: AnchorCandidates
    order: Int[Tensor, "b m"]


@torch.no_grad()
def select_proposals(
    rpn: RPNOutput,
    box_limits: Float[Tensor, "#b 2"],
    *,
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_threshold: float,
    min_side: float = MIN_PROPOSAL_SIDE,
) -> SelectedProposals:
    """Select the best anchors of each level, cut to the image, that no better one of their level suppresses.

    No shape depends on data, so that the selection can be exported.

    Args:
        rpn: predictions of every anchor.
        box_limits: (height, width) that boxes are cut to, of each image, or of all of them.
        pre_nms_top_k: anchors of each level before NMS.
        post_nms_top_k: proposals of an image after it, over all levels; fewer where there are fewer anchors.
        nms_threshold: IoU above which the worse one of two is dropped, in [0, 1].
        min_side: boxes with a shorter side are dropped, in pixels.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.3; level by level as in Lin et al., Feature Pyramid
    Networks. Checked against torchvision 0.29.2's RegionProposalNetwork. Differs in filling up.
    """
    candidates = rank_anchors(rpn, box_limits, pre_nms_top_k=pre_nms_top_k, min_side=min_side)
    box, score, level_of, valid, anchors = candidates
    order, valid = nms_top_k(
        box, score, level_of, valid, threshold=nms_threshold, count=post_nms_top_k, num_groups=len(anchors)
    )
    proposals = Proposals(box.gather(1, order[..., None].expand(-1, -1, 4)), score.gather(1, order), valid)
    return SelectedProposals(proposals, candidates, order)


def rank_anchors(
    rpn: RPNOutput, box_limits: Float[Tensor, "#b 2"], *, pre_nms_top_k: int, min_side: float
) -> AnchorCandidates:
    """Select the best anchors of each level and decode their boxes; arguments are as for ``select_proposals``."""
    boxes, scores, levels, best_anchors = [], [], [], []
    for level, (logits, deltas, anchors) in enumerate(zip(*rpn, strict=True)):
        best, indices = at_least_float32(logits).topk(torch.sym_min(logits.shape[1], pre_nms_top_k), 1)
        boxes.append(decode_deltas(deltas.gather(1, indices[..., None].expand(-1, -1, 4)), anchors[indices]))
        scores.append(best.sigmoid())
        levels.append(torch.full_like(indices, level))
        best_anchors.append(indices)
    box, score, level_of = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1)
    box = clip_to_sizes(box, box_limits)
    return AnchorCandidates(box, score, level_of, (box[..., 2:] - box[..., :2] >= min_side).all(-1), best_anchors)


@torch.no_grad()
def regions_to_proposals(regions: SampledRegions, boxes: Float[Tensor, "r 4"], num_images: int) -> Proposals:
    """Make proposals of refined regions, for the next stage to sample from.

    Objects' own boxes are left out by their position among the samples, not by their value, because the next sampling
    adds them again: a proposal that was cut to the image may equal the box of an object that fills it, and stays.

    Args:
        regions: of all images, before they were refined.
        boxes: each region refined, corner boxes in pixels of the network input.
        num_images: number of images.

    Source: Cai and Vasconcelos, Cascade R-CNN, CVPR 2018, section 4. Checked against the rule of mmdetection 3.3.0's
    ``BBoxHead.refine_bboxes``, and its numbers.
    """
    refined = [boxes[(regions.images == image) & ~regions.is_ground_truth] for image in range(num_images)]
    scores = pad_sequence([torch.ones_like(x[:, 0]) for x in refined], batch_first=True)
    return Proposals(pad_sequence(refined, batch_first=True), scores, scores > 0)


def read_box_limits(
    mask: Bool[Tensor, "b h w"] | None, finest: Float[Tensor, "b c y x"], stride: int
) -> Float[Tensor, "#b 2"]:
    """Read the (height, width) that boxes of each image, or of all, are cut to, in pixels of the network input.

    It is the size of the image inside its padding; without a mask that of the finest map, which may be up to a cell
    larger than the image.

    Args:
        mask: True on padding, which is at the right and at the bottom.
        finest: the finest map.
        stride: of that map, in pixels.
    """
    if mask is None:
        height, width = finest.shape[-2] * stride, finest.shape[-1] * stride
        return torch.tensor([[height, width]], device=finest.device, dtype=torch.float32)
    valid = ~mask
    return torch.stack((valid[:, :, 0].sum(1), valid[:, 0].sum(1)), -1).float()
