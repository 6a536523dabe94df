"""Parts that dense heads share: a base, towers, matching, decoding, options."""

from boxwright.dense.atss_matching import match_adaptively
from boxwright.dense.centerness import compute_centerness
from boxwright.dense.decode import decode_dense, stable_top_k
from boxwright.dense.head import DenseHead, DenseMaps
from boxwright.dense.options import AnchorOptions, DenseDetectionOptions, FocalOptions
from boxwright.dense.output import DenseOutput
from boxwright.dense.point_matching import match_points, scale_ranges
from boxwright.dense.separable_tower import SeparableTower
from boxwright.dense.towers import ConvTower

__all__ = [
    "AnchorOptions",
    "ConvTower",
    "DenseDetectionOptions",
    "DenseHead",
    "DenseMaps",
    "DenseOutput",
    "FocalOptions",
    "SeparableTower",
    "compute_centerness",
    "decode_dense",
    "match_adaptively",
    "match_points",
    "scale_ranges",
    "stable_top_k",
]
