"""Pure functions on tensors: boxes, masks, NMS, RoIAlign, deformable sampling."""

from __future__ import annotations

from boxwright.ops.anchors import anchor_steps, grid_anchors, level_anchors, octave_anchors, pyramid_anchors
from boxwright.ops.box_deltas import decode_deltas, encode_deltas
from boxwright.ops.box_matching import match_by_iou
from boxwright.ops.boxes import (
    area,
    boxes_as_rows,
    clip_to_sizes,
    cxcywh_to_xyxy,
    generalized_iou,
    inverse_sigmoid,
    iou,
    xyxy_to_cxcywh,
)
from boxwright.ops.deformable import deformable_sampling
from boxwright.ops.masks import decode_mask, encode_mask, mask_box, rasterize
from boxwright.ops.nms import nms_keep_mask, nms_top_k
from boxwright.ops.roi_align import roi_align

__all__ = [
    "anchor_steps",
    "area",
    "boxes_as_rows",
    "clip_to_sizes",
    "cxcywh_to_xyxy",
    "decode_deltas",
    "decode_mask",
    "deformable_sampling",
    "encode_deltas",
    "encode_mask",
    "generalized_iou",
    "grid_anchors",
    "inverse_sigmoid",
    "iou",
    "level_anchors",
    "mask_box",
    "match_by_iou",
    "nms_keep_mask",
    "nms_top_k",
    "octave_anchors",
    "pyramid_anchors",
    "rasterize",
    "roi_align",
    "xyxy_to_cxcywh",
]
