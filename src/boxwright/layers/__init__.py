"""General modules, of which parts are made."""

from __future__ import annotations

from boxwright.layers.aspp import ASPP
from boxwright.layers.batch_first_attention import BatchFirstAttention
from boxwright.layers.conv import ConvNorm, FrozenBatchNorm2d
from boxwright.layers.deformable_attention import DeformableDecoderLayer, MultiScaleDeformableAttention
from boxwright.layers.deformable_transformer import DeformableEncoderLayer
from boxwright.layers.dropout import Dropout
from boxwright.layers.feature_pyramid import ExtraLevels, FeaturePyramid
from boxwright.layers.folding import fold_norms
from boxwright.layers.mlp import MLP
from boxwright.layers.non_local_block import NonLocalBlock
from boxwright.layers.option_checks import check_choice, check_counts, check_fractions, check_hidden_dim
from boxwright.layers.position_attention import PositionAttention, PositionTables
from boxwright.layers.positions import (
    LearnedGrid,
    LevelPositions,
    encode_masked_sine,
    encode_sine_grid,
    encode_unmasked_sine,
)
from boxwright.layers.predictions import InputProjection, flatten_predictions, prediction_conv
from boxwright.layers.pyramid import LightPathAggregation
from boxwright.layers.rep_vgg import CSPRepLayer, RepVGGBlock
from boxwright.layers.resnet import BasicBlock, Bottleneck, ResNetBody
from boxwright.layers.separable_conv import SeparableConv
from boxwright.layers.switchable_conv import SwitchableConv2d
from boxwright.layers.tokens import LevelTokens, flatten_levels, flatten_maps, split_maps, to_map, to_tokens
from boxwright.layers.transformer import FeedForward, TransformerDecoderLayer, TransformerEncoderLayer

__all__ = [
    "ASPP",
    "MLP",
    "BasicBlock",
    "BatchFirstAttention",
    "Bottleneck",
    "CSPRepLayer",
    "ConvNorm",
    "DeformableDecoderLayer",
    "DeformableEncoderLayer",
    "Dropout",
    "ExtraLevels",
    "FeaturePyramid",
    "FeedForward",
    "FrozenBatchNorm2d",
    "InputProjection",
    "LearnedGrid",
    "LevelPositions",
    "LevelTokens",
    "LightPathAggregation",
    "MultiScaleDeformableAttention",
    "NonLocalBlock",
    "PositionAttention",
    "PositionTables",
    "RepVGGBlock",
    "ResNetBody",
    "SeparableConv",
    "SwitchableConv2d",
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
    "check_choice",
    "check_counts",
    "check_fractions",
    "check_hidden_dim",
    "encode_masked_sine",
    "encode_sine_grid",
    "encode_unmasked_sine",
    "flatten_levels",
    "flatten_maps",
    "flatten_predictions",
    "fold_norms",
    "prediction_conv",
    "split_maps",
    "to_map",
    "to_tokens",
]
