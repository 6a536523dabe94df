"""The base of dense heads: from levels to predictions at every cell, and from these to detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.dense.decode import DecodeBoxes, decode_dense
from boxwright.dense.explanation import DenseExplainer
from boxwright.dense.options import DenseDetectionOptions
from boxwright.dense.output import DenseOutput
from boxwright.layers.level_cells import LevelCells
from boxwright.layers.option_checks import check_counts
from boxwright.layers.padding import infer_valid_sizes
from boxwright.layers.predictions import InputProjection, flatten_predictions
from boxwright.layers.tokens import flatten_maps
from boxwright.mechanism import DenseMechanism
from boxwright.ops.anchors import AnchorGrid, best_anchor_ious, level_anchors, pyramid_anchors
from boxwright.ops.box_deltas import decode_deltas
from boxwright.ops.boxes import area, at_least_float32
from boxwright.recorded import Recorded
from boxwright.structures import AnchorFits, Candidates, ClassRows, Decoded, Features, ObjectLimit, Spec, Targets

Maps = list[Float[Tensor, "b _c _h _w"]]
"""A map of each level."""


class DenseMaps(NamedTuple):
    """Predictions as convolutions put them out: maps of each level, the predictions of a cell side by side."""

    logits: Maps
    offsets: Maps
    centerness: Maps | None = None


class DenseHead(nn.Module):
    """Levels of one width in; classes and boxes of the anchors at every cell out.

    A head of the family builds its convolutions and says what they predict (``predict``), which object an anchor is
    trained on (``match``) and what it costs (``loss``).

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width to which levels of another one are projected; where None, that of the levels if they share
            one, else 256.
        make_anchors: from the stride of a level to the anchors of its first cell, corner boxes in pixels.
        detection: thresholds and limits of detections.
        anchor_grid: pixels between anchors, see ``AnchorOptions``.
    """

    base_anchors: Float[Tensor, "l a 4"]
    limit_per_level = True
    """True where ``detection.pre_nms_top_k`` holds for each level, False where for all of them together."""
    decode_boxes: DecodeBoxes = staticmethod(decode_deltas)
    """Function from offsets and anchors to boxes."""

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None,
        make_anchors: Callable[[int], Float[Tensor, "a 4"]],
        detection: DenseDetectionOptions,
        anchor_grid: AnchorGrid = "level",
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes})
        self.num_classes, self.detection, self.anchor_grid = num_classes, detection, anchor_grid
        self.input_projection = InputProjection(in_spec, channels)
        self.strides = self.input_projection.strides
        self.register_buffer("base_anchors", level_anchors(self.strides, make_anchors), persistent=False)

    def predict(self, maps: Maps) -> DenseMaps:
        """Apply the head's convolutions to levels of one width."""
        raise NotImplementedError

    def match(self, anchors: Sequence[Float[Tensor, "_n 4"]], boxes: Float[Tensor, "n 4"]) -> Int[Tensor, " a"]:
        """Match the anchors of all levels with objects: an index for each, ``BACKGROUND`` or ``IGNORED``."""
        raise NotImplementedError

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> DenseOutput:
        """Predict; with targets or without them the same."""
        del targets
        maps = self.input_projection(features)
        predictions = self.predict(maps)
        if valid_sizes is None:
            valid_sizes = infer_valid_sizes(padding_mask, maps[0], self.strides[0])
        centerness = None
        if predictions.centerness is not None:
            centerness = tuple(flatten_predictions(predictions.centerness, 1))
        return DenseOutput(
            tuple(flatten_predictions(predictions.logits, self.num_classes)),
            tuple(flatten_predictions(predictions.offsets, 4)),
            self.anchors([(x.shape[-2], x.shape[-1]) for x in maps]),
            valid_sizes,
            centerness,
        )

    @property
    def candidate_channels(self) -> int:
        """Width of the levels that all convolutions begin with."""
        return self.input_projection.channels

    def list_candidates(self, output: DenseOutput, targets: Sequence[Targets]) -> Candidates:
        """List all anchors, and the objects that they are matched with."""
        boxes = torch.cat(output.anchors).expand(len(targets), -1, -1)
        return Candidates(boxes, self.match_targets(output.anchors, targets))

    def candidate_features(
        self, output: DenseOutput, features: Features, indices: Int[Tensor, "b q"]
    ) -> Float[Tensor, "b q c"]:
        """Look up the cells that anchors belong to, in levels of one width."""
        cells, _ = flatten_maps(self.input_projection(features))
        cell = indices // self.base_anchors.shape[1]
        return cells.gather(1, cell[..., None].expand(-1, -1, cells.shape[-1]))

    def decode(self, output: DenseOutput) -> Decoded:
        """Select the best (anchor, class) pairs that no better one of their class suppresses."""
        return decode_dense(output, self.decode_boxes, self.detection, per_level=self.limit_per_level)

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain`` needs."""
        return [self.input_projection]

    def explain(self, output: DenseOutput, recorded: Recorded, detection: int) -> DenseMechanism:
        """Explain a detection by its anchor, and by the neighbors that NMS removed in its favor."""
        cells = LevelCells.of(self.input_projection, recorded)
        return DenseExplainer(
            output, self.decode_boxes, self.detection, per_level=self.limit_per_level, cells=cells
        ).explain(detection)

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layer that predicts classes, anchor after anchor."""
        return {"classes": ClassRows(blocks=self.base_anchors.shape[1])}

    def object_limits(self) -> list[ObjectLimit]:
        """List the options that limit how many objects are detected."""
        return [
            ObjectLimit("detection.max_detections", self.detection.max_detections),
            ObjectLimit("detection.pre_nms_top_k", self.detection.pre_nms_top_k, per_level=self.limit_per_level),
        ]

    def raise_limits(self, max_detections: int) -> None:
        """Make room for so many detections of an image."""
        pre_nms_top_k = max(max_detections, self.detection.pre_nms_top_k)
        self.detection = replace(self.detection, max_detections=max_detections, pre_nms_top_k=pre_nms_top_k)

    def anchors(self, shapes: Sequence[tuple[int, int]]) -> tuple[Float[Tensor, "_n 4"], ...]:
        """Lay the anchors over levels whose maps have these (height, width)."""
        return pyramid_anchors(self.base_anchors, shapes, self.strides, self.anchor_grid)

    def anchors_of(self, input_size: tuple[int, int]) -> tuple[Float[Tensor, "_n 4"], ...]:
        """Lay the anchors over the levels of a network input of this (height, width)."""
        return self.anchors([(-(-input_size[0] // s), -(-input_size[1] // s)) for s in self.strides])

    def match_targets(self, anchors: Sequence[Float[Tensor, "_n 4"]], targets: Sequence[Targets]) -> Int[Tensor, "b a"]:
        """Match the anchors of all levels with the objects of each image."""
        return torch.stack([self.match(anchors, t.boxes.to(anchors[0])) for t in targets])

    def fits_by_iou(
        self, boxes: Float[Tensor, "n 4"], input_size: tuple[int, int], *, positive: float, negative: float
    ) -> AnchorFits:
        """Compare boxes with all anchors, for heads that match by IoU; see ``AnchorFits``."""
        bases = at_least_float32(self.base_anchors)
        best = best_anchor_ious(bases, self.strides, self.anchor_grid, boxes, input_size)
        return AnchorFits(best, positive, negative, float(area(bases).max()) ** 0.5)

    def count_matched(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> int:
        """Count the anchors that are matched with an object, for heads that divide their losses by it.

        Args:
            targets: one per image.
            input_size: (height, width) of the network input.
        """
        anchors = self.anchors_of(input_size)
        return sum(int((self.match(anchors, t.boxes.to(anchors[0])) >= 0).sum()) for t in targets)
