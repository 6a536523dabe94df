"""D-FINE-S of its authors, built from a clone."""

from __future__ import annotations

from pathlib import Path

from authors_modules import import_authors
from torch import nn

LAYERS = 3
WEIGHTS = {"loss_vfl": 1, "loss_bbox": 5, "loss_giou": 2, "loss_fgl": 0.15, "loss_ddf": 1.5}


def build_dfine_s(
    root: Path, *, num_classes: int = 80, num_queries: int = 300, num_denoising: int = 100
) -> tuple[nn.Module, nn.Module]:
    """Build the model and its criterion, with random weights.

    Args:
        root: of the clone.
        num_classes: of the objects.
        num_queries: that are selected.
        num_denoising: noised queries of an image.
    """
    names = ["hybrid_encoder", "dfine_decoder", "dfine_criterion", "matcher", "dfine"]
    modules = import_authors(root, "dfine", ["nn.backbone.hgnetv2", *(f"zoo.dfine.{name}" for name in names)])
    hgnet, encoder, decoder, criterion, matcher, dfine = modules
    head = decoder.DFINETransformer(
        num_classes,
        256,
        num_queries,
        feat_channels=[256] * 3,
        num_points=[3, 6, 3],
        num_layers=LAYERS,
        num_denoising=num_denoising,
    )
    model = dfine.DFINE(
        hgnet.HGNetv2("B0", use_lab=True, freeze_at=-1, freeze_norm=False, pretrained=False),
        encoder.HybridEncoder([256, 512, 1024], depth_mult=0.34, expansion=0.5),
        head,
    )
    matching = matcher.HungarianMatcher({"cost_class": 2, "cost_bbox": 5, "cost_giou": 2}, use_focal_loss=True)
    losses = criterion.DFINECriterion(
        matching, WEIGHTS, ["vfl", "boxes", "local"], alpha=0.75, gamma=2.0, num_classes=num_classes
    )
    return model, losses
