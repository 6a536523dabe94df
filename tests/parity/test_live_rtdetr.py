"""RT-DETR's authors' code beside ours, from a clone (``--originals DIR``), on images that are not square too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from authors_modules import (
    compare_training,
    freeze_statistics,
    import_authors,
    make_labels,
    make_objects,
    name_gradients,
    order_positions,
)
from formula import make_images
from stored_heads import build_small
from torch import nn

from boxwright.detector import Detector
from boxwright.queries import DenoisingOptions
from boxwright.weights.sources.rtdetr import AuthorsRTDETR
from conformance import compare_tensors
from originals import require_original

pytestmark = [pytest.mark.conforms("RT-DETR", "rtdetr", live=True), pytest.mark.slow]

TERMS = {"loss_vfl": "varifocal", "loss_bbox": "l1", "loss_giou": "giou"}
COSTS = {"cost_class": 2, "cost_bbox": 5, "cost_giou": 2}
MODULES = ["backbone.presnet", "hybrid_encoder", "rtdetr_decoder", "rtdetr_criterion", "matcher", "rtdetr"]


def build_theirs(root: Path, ours: Detector) -> tuple[nn.Module, nn.Module]:
    """Build their R18 with our weights, and their criterion, in float64."""
    names = ["nn.backbone.presnet", *(f"zoo.rtdetr.{name}" for name in MODULES[1:])]
    presnet, encoder, decoder, criterion, matcher, rtdetr = import_authors(root, "rtdetr", names)
    model = rtdetr.RTDETR(
        presnet.PResNet(18, return_idx=[1, 2, 3], freeze_norm=False),
        encoder.HybridEncoder([128, 256, 512], expansion=0.5),
        decoder.RTDETRTransformer(5, 256, 30, feat_channels=[256] * 3, num_decoder_layers=3, num_denoising=8),
    )
    missing = model.load_state_dict(AuthorsRTDETR().write(ours).tensors, strict=False)
    assert not missing.unexpected_keys
    assert all("num_batches_tracked" in name for name in missing.missing_keys), missing
    # Their anchors are float32 in every precision.
    model.decoder._generate_anchors = partial(model.decoder._generate_anchors, dtype=torch.float64)
    matching = matcher.HungarianMatcher(COSTS, use_focal_loss=True)
    weights = {"loss_vfl": 1, "loss_bbox": 5, "loss_giou": 2}
    losses = criterion.SetCriterion(matching, weights, ["vfl", "boxes"], 0.75, 2.0, num_classes=5)
    return model.double(), losses.double()


@pytest.fixture
def root(originals: Path | None) -> Path:
    return require_original(originals, "rtdetr") / "rtdetr_pytorch"


def our_name(name: str, num_layers: int) -> str:
    """Name one of their terms as ours; the encoder's selection is one more auxiliary layer there."""
    base, _, suffix = name.removeprefix("loss_").partition("_")
    kind, _, layer = suffix.partition("_")
    where = "" if not suffix else f"_denoising_{layer}" if kind == "dn" else f"_{layer}"
    return TERMS[f"loss_{base}"] + where.replace(f"_{num_layers - 1}", "_encoder" if kind == "aux" else where[-2:])


@pytest.mark.parametrize(("size", "counts"), [((96, 96), [5, 2]), ((96, 128), [0, 1]), ((64, 160), [9, 1, 3])], ids=str)
def test_predictions_losses_and_gradients(size: tuple[int, int], counts: list[int], root: Path) -> None:
    """Positions of rectangles are those of the other test's fault, mended."""
    ours = build_small("rtdetr_r18", 30, {"head.denoising.num_queries": 8})
    theirs, criterion = build_theirs(root, ours)
    order_positions(theirs.encoder)
    images = make_images(len(counts), size)
    with torch.no_grad():
        expected, output = theirs.eval()(images), ours(images)
    compare_tensors("outputs", output.logits[-1], expected["pred_logits"], limit=5e-6, name="logits")
    compare_tensors("outputs", output.boxes_cxcywh_norm[-1], expected["pred_boxes"], limit=1e-6, name="boxes")
    targets = make_objects(counts, size)
    compare_training((ours, AuthorsRTDETR()), theirs, criterion, (images, targets), lambda name: our_name(name, 3))


def test_their_positions_of_a_rectangle_are_those_of_other_cells(root: Path) -> None:
    """They are laid out column by column, beside tokens that run row by row; of a square they are only transposed."""
    encoder = import_authors(root, "rtdetr", ["zoo.rtdetr.hybrid_encoder"])[0].HybridEncoder
    positions = encoder.build_2d_sincos_position_embedding(3, 2, 8)[0].view(2, 3, 8)
    columns = positions[..., :4]
    assert not torch.equal(columns[0], columns[1]), "cells of one column have other columns' positions"
    ours = build_small("rtdetr_r18", 30, {"head.denoising.num_queries": 8})
    theirs, _ = build_theirs(root, ours)
    images = make_images(2, (64, 128))
    with torch.no_grad():
        expected, output = theirs.eval()(images)["pred_logits"], ours(images).logits[-1]
    assert (output - expected).abs().max() > 1e-3


def test_their_gradient_of_a_batch_of_one_is_wrong_on_a_cpu(root: Path) -> None:
    """Strides that ``flatten(2).permute`` leaves in the gradient are taken for channels last by batch norm."""
    ours = build_small("rtdetr_r18", 30, {"head.denoising.num_queries": 8})
    ours.head.denoising = DenoisingOptions(num_queries=0)
    theirs, criterion = build_theirs(root, ours)
    theirs.decoder.num_denoising = 0
    targets = make_objects([4], (96, 96))
    labels = make_labels(targets)
    gradients = []
    for images, objects in ((make_images(1, 96), labels), (make_images(1, 96).repeat(2, 1, 1, 1), labels * 2)):
        freeze_statistics(theirs)
        theirs.zero_grad()
        sum(criterion(theirs(images, objects), objects).values()).backward()
        gradients.append(theirs.backbone.conv1.conv1_1.conv.weight.grad.clone())
    one, two = gradients
    # Losses are divided by the objects: the same image twice has the gradient of one.
    assert (one - two).norm() > 1e-3 * two.norm()
    sum(ours.loss(ours(make_images(1, 96), None, targets), targets).values()).backward()
    actual = name_gradients(ours, AuthorsRTDETR())["backbone.conv1.conv1_1.conv.weight"]
    assert (actual - two).norm() < 1e-5 * two.norm()
