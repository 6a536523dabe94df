"""Mask branch of the second stage: masks of regions, and their loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.ops.boxes import at_least_float32
from boxwright.regions.auxiliary_levels import AuxiliaryLevels, needs_auxiliary
from boxwright.regions.options import MaskOptions
from boxwright.regions.roi_extractor import RoIExtractor, RoISource, fuse_maps
from boxwright.regions.sampling import SampledRegions
from boxwright.structures import ClassRows, Features, Spec, Targets

MASK_CELLS = 14
MASK_SIDE = 2 * MASK_CELLS


class MaskBranch(nn.Module):
    """Features of regions, 14 x 14 cells, through 3 x 3 convolutions and a transposed one to a mask of 28 x 28.

    With adaptive features the first convolution has one copy for each level, and their maximum or sum follows.

    Args:
        source: of the features of regions.
        num_classes: C; background has a mask too, which nothing uses.
        options: of the layers.

    Source: He et al., Mask R-CNN, ICCV 2017, figure 4 (right); Liu et al., PANet, CVPR 2018, sections 3.2 and 3.3.
    Checked against torchvision 0.29.2's MaskRCNNHeads and MaskRCNNPredictor, and ShuLiu1993/PANet f055f71. Differs from
    the latter in that the fully-connected mask may also lower logits: theirs ends in a ReLU, which the paper has not.
    """

    def __init__(self, source: RoISource, num_classes: int, options: MaskOptions) -> None:
        super().__init__()
        self.pooling, self.fusion = RoIExtractor(source, output_size=MASK_CELLS), source.options.fusion
        width = options.hidden_dim

        def conv(width_in: int, width_out: int = width, *, active: bool = True) -> nn.Module:
            if options.norm == "batch":
                return ConvNorm(width_in, width_out, 3, activation="relu" if active else None)
            plain = nn.Conv2d(width_in, width_out, 3, padding=1)
            return nn.Sequential(plain, nn.ReLU()) if active else plain

        self.first = nn.ModuleList(conv(source.channels, active=False) for _ in range(self.pooling.num_outputs))
        self.middle = nn.Sequential(*(conv(width) for _ in range(options.num_convs - 2)))
        self.last = conv(width)
        self.enlarge = nn.ConvTranspose2d(width, width, 2, 2)
        self.logits = nn.Conv2d(width, num_classes + 1, 1)
        self.whole: nn.Sequential | None = None
        if options.fully_connected:
            narrow = max(1, width // 2)
            linear = nn.Linear(narrow * MASK_CELLS**2, MASK_SIDE**2)
            self.whole = nn.Sequential(conv(width), conv(width, narrow), nn.Flatten(), linear)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(
        self,
        maps: Sequence[Float[Tensor, "b c _h _w"]],
        boxes: Float[Tensor, "r 4"],
        images: Int[Tensor, " r"],
        labels: Int[Tensor, " r"],
    ) -> Float[Tensor, "r s s"]:
        """Predict logits of the mask of each region's class, 28 x 28 cells over its box.

        Args:
            maps: of each level.
            boxes: corner boxes in pixels of the network input.
            images: the image of each box.
            labels: the class of each box.
        """
        return self.predict(self.pooling(maps, boxes, images), labels)

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layer with a row for each class."""
        return {"logits": ClassRows(others=1)}

    def predict(self, regions: Sequence[Float[Tensor, "r c t t"]], labels: Int[Tensor, " r"]) -> Float[Tensor, "r s s"]:
        """Predict logits from features of regions: ``num_outputs`` maps of 14 x 14 cells each."""
        each = [layer(x) for layer, x in zip(self.first, regions, strict=True)]
        x = self.middle(fuse_maps(each, self.fusion).relu())
        large = self.enlarge(self.last(x)).relu()
        # Only the mask of the own class: the rows of the last convolution that belong to it.
        weights = self.logits.weight[labels].flatten(1)[:, None]  # r 1 d
        assert self.logits.bias is not None
        logits = torch.baddbmm(self.logits.bias[labels][:, None, None], weights, large.flatten(2))
        if self.whole is not None:
            logits = logits + self.whole(x)[:, None]
        return logits.view(-1, MASK_SIDE, MASK_SIDE)


class AuxiliaryMaskHead(AuxiliaryLevels):
    """One mask branch, shared by the auxiliary levels, that sees each region on each of them; in training only.

    Args:
        in_spec: the levels that come in; those that are not auxiliary are left out.
        num_classes: C.
        options: of the layers.

    Raises:
        ValueError: there is no auxiliary level.

    Source: Gus-Guo/AugFPN, commit ffc7e5e, ``mask_auxiliary`` of its Mask R-CNN, of which the paper says nothing.
    Checked against its AuxAllLevelRoIExtractor and FCNMaskHead: same weights, same loss and gradients.
    """

    def __init__(self, in_spec: Spec, num_classes: int, options: MaskOptions) -> None:
        super().__init__(in_spec, output_size=MASK_CELLS)
        self.branch = MaskBranch(self.source, num_classes, options)

    def forward(
        self, features: Features, boxes: Float[Tensor, "r 4"], images: Int[Tensor, " r"], labels: Int[Tensor, " r"]
    ) -> Sequence[Float[Tensor, "r s s"]]:
        """Predict logits of the masks of the regions, level by level."""
        return [self.branch.predict(maps, labels) for maps in self.extract(features, boxes, images)]


def build_auxiliary_mask_head(in_spec: Spec, num_classes: int, options: MaskOptions) -> AuxiliaryMaskHead | None:
    """Build the auxiliary branch; None where its loss has no weight or there is no auxiliary level."""
    if not needs_auxiliary(in_spec, options.aux_weight):
        return None
    return AuxiliaryMaskHead(in_spec, num_classes, options)


def mask_loss(
    logits: Float[Tensor, "r s s"],
    covered: Float[Tensor, "r s s"],
    images: Int[Tensor, " r"],
    images_per_process: float,
) -> Float[Tensor, ""]:
    """Compute the binary cross entropy of the mask of each region's own class, the mean over its cells.

    It is divided by the regions with an object of the same image, and an average over images; an image without
    such regions counts as 0.

    Args:
        logits: of the masks of all regions with an object.
        covered: ``mask_targets`` of these regions, with as many cells.
        images: the image of each region.
        images_per_process: of the optimizer step.

    Source: He et al., Mask R-CNN, ICCV 2017, section 3. Checked against torchvision 0.29.2's maskrcnn_loss, which
    divides by the regions of the batch: the same number wherever images have equally many.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        entropy = F.binary_cross_entropy_with_logits(logits, covered.to(logits.dtype), reduction="none").mean((1, 2))
        return (entropy / (torch.bincount(images)[images] * images_per_process)).sum()


@torch.no_grad()
def mask_targets(regions: SampledRegions, targets: Sequence[Targets], size: int) -> Float[Tensor, "r {size} {size}"]:
    """Compute the fraction of each cell of a region that the region's object covers, in [0, 1].

    Args:
        regions: regions with an object, all of them.
        targets: one per image, with masks.
        size: cells per side.

    Raises:
        ValueError: an image with objects has no masks.
    """
    # Where it is needed: importing it takes a second.
    from torchvision.ops import roi_align

    covered = regions.boxes.new_zeros(len(regions.boxes), size, size)
    for image, target in enumerate(targets):
        (own,) = torch.where(regions.images == image)
        if not len(own):
            continue
        if target.masks is None:
            raise ValueError("this head is trained on masks, and the targets have none")
        # Of the objects that some region has: an image may show hundreds.
        objects, indices = regions.objects[own].unique(return_inverse=True)
        masks = target.masks[objects][:, None].to(covered.dtype)
        rows = torch.cat((indices[:, None].to(covered.dtype), regions.boxes[own]), 1)
        covered[own] = roi_align(masks, rows, size)[:, 0]
    return covered
