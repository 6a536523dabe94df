"""Models of other projects: with the weights of ours, as the tests of parity make them, and D-FINE with its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))

from authors_dfine import build_dfine_s as build_dfine_s
from authors_modules import make_labels as make_labels
from torch import nn
from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config
from transformers_deformable_detr import transformers_deformable_detr as transformers_deformable_detr
from transformers_rtdetr import transformers_rtdetr as transformers_rtdetr


def transformers_dfine_s(num_classes: int) -> nn.Module:
    """Build ``DFineForObjectDetection`` with the structure of ``dfine_s``, with random weights.

    Args:
        num_classes: of the objects.
    """
    backbone = HGNetV2Config(
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[3, 3, 3, 3],
        use_learnable_affine_block=True,
        out_features=["stage2", "stage3", "stage4"],
        depths=[1, 1, 2, 1],
        hidden_sizes=[64, 256, 512, 1024],
    )
    config = DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[256, 512, 1024],
        hidden_expansion=0.5,
        depth_mult=0.34,
        decoder_layers=3,
        decoder_n_points=[3, 6, 3],
        num_labels=num_classes,
    )
    return DFineForObjectDetection(config)
