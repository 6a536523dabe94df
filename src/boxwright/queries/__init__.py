"""Parts that query heads share: tokens, selection, decoder, matching, denoising, criterion, decoding, options."""

from boxwright.queries.class_losses import (
    ClassCost,
    ClassLoss,
    CrossEntropyLoss,
    FocalCost,
    FocalLoss,
    IoUAwareLoss,
    MatchabilityLoss,
    MatchedQueries,
    SoftmaxCost,
    VarifocalLoss,
    make_class_loss,
)
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms, normalize_targets
from boxwright.queries.decode import PairDetections, QueryOutput, decode_best_classes, decode_pairs
from boxwright.queries.decoder import LayerHeads, Refinement, build_decoder_layers, decode_queries, reset_predictors
from boxwright.queries.denoising import DenoisingQueries, draw_denoising_queries
from boxwright.queries.distribution_criterion import DistributionCriterion, DistributionLossWeights
from boxwright.queries.distributions import SideBins, decode_distributions
from boxwright.queries.encoder_queries import EncoderQueries
from boxwright.queries.mask_branch import MaskFactors, QueryMaskBranch
from boxwright.queries.matching import HungarianMatcher, Matches, NormalizedTargets
from boxwright.queries.options import (
    DecoderOptions,
    DenoisingOptions,
    QueryLossWeights,
    RefiningDecoderOptions,
    SoftmaxLossWeights,
    SupervisionOptions,
    TransformerDecoderOptions,
    UnitedSupervisionOptions,
)
from boxwright.queries.refined_queries import RefinedQueries
from boxwright.queries.selection import Anchors, Selection, make_anchors, measure_selection, select_tokens
from boxwright.queries.tokens import LevelProjections
from boxwright.queries.union import Assignment, unite_matches

__all__ = [
    "Anchors",
    "Assignment",
    "ClassCost",
    "ClassLoss",
    "CrossEntropyLoss",
    "DecoderOptions",
    "DenoisingOptions",
    "DenoisingQueries",
    "DistributionCriterion",
    "DistributionLossWeights",
    "EncoderQueries",
    "FocalCost",
    "FocalLoss",
    "HungarianMatcher",
    "IoUAwareLoss",
    "LayerHeads",
    "LevelProjections",
    "MaskFactors",
    "MatchabilityLoss",
    "MatchedQueries",
    "Matches",
    "NormalizedTargets",
    "PairDetections",
    "QueryLossWeights",
    "QueryMaskBranch",
    "QueryOutput",
    "RefinedQueries",
    "Refinement",
    "RefiningDecoderOptions",
    "Selection",
    "SetCriterion",
    "SideBins",
    "SoftmaxCost",
    "SoftmaxLossWeights",
    "SupervisionOptions",
    "TransformerDecoderOptions",
    "UnitedSupervisionOptions",
    "VarifocalLoss",
    "build_decoder_layers",
    "decode_best_classes",
    "decode_distributions",
    "decode_pairs",
    "decode_queries",
    "draw_denoising_queries",
    "layer_suffixes",
    "make_anchors",
    "make_class_loss",
    "measure_selection",
    "name_terms",
    "normalize_targets",
    "reset_predictors",
    "select_tokens",
    "unite_matches",
]
