"""Parts that query heads share: tokens, selection, decoder, matching, denoising, criterion, decoding, options."""

from boxwright.queries.class_losses import (
    ClassCost,
    ClassLoss,
    CrossEntropyLoss,
    FocalCost,
    FocalLoss,
    MatchedQueries,
    SoftmaxCost,
    VarifocalLoss,
)
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms, normalize_targets
from boxwright.queries.decode import PairDetections, QueryOutput, decode_best_classes, decode_pairs
from boxwright.queries.decoder import LayerHeads, Refinement, build_decoder_layers, decode_queries, reset_predictors
from boxwright.queries.denoising import DenoisingQueries, draw_denoising_queries
from boxwright.queries.matching import HungarianMatcher, Matches, NormalizedTargets
from boxwright.queries.options import DecoderOptions, DenoisingOptions, QueryLossWeights, TransformerDecoderOptions
from boxwright.queries.selection import Anchors, Selection, make_anchors, measure_selection, select_tokens
from boxwright.queries.tokens import LevelProjections

__all__ = [
    "Anchors",
    "ClassCost",
    "ClassLoss",
    "CrossEntropyLoss",
    "DecoderOptions",
    "DenoisingOptions",
    "DenoisingQueries",
    "FocalCost",
    "FocalLoss",
    "HungarianMatcher",
    "LayerHeads",
    "LevelProjections",
    "MatchedQueries",
    "Matches",
    "NormalizedTargets",
    "PairDetections",
    "QueryLossWeights",
    "QueryOutput",
    "Refinement",
    "Selection",
    "SetCriterion",
    "SoftmaxCost",
    "TransformerDecoderOptions",
    "VarifocalLoss",
    "build_decoder_layers",
    "decode_best_classes",
    "decode_pairs",
    "decode_queries",
    "draw_denoising_queries",
    "layer_suffixes",
    "make_anchors",
    "measure_selection",
    "name_terms",
    "normalize_targets",
    "reset_predictors",
    "select_tokens",
]
