"""D-FINE's authors' code beside ours, from a clone (``--originals DIR``), with no object, one and several."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_dfine import LAYERS, build_dfine_s
from authors_modules import compare_training, make_objects, order_positions
from formula import make_images
from stored_heads import build_small
from torch import nn

from boxwright.detector import Detector
from boxwright.weights.sources.dfine import AuthorsDFINE
from conformance import compare_tensors
from originals import require_original

pytestmark = [pytest.mark.conforms("D-FINE", "dfine", live=True), pytest.mark.slow]

TERMS = {"vfl": "varifocal", "bbox": "l1", "giou": "giou", "fgl": "fgl", "ddf": "ddf"}
SUFFIXES = {"aux_": "", "enc_0": "encoder", "dn_pre": "denoising_initial", "pre": "initial", "dn_": "denoising_"}
ANCHORS = ("decoder.anchors", "decoder.valid_mask")


def build_theirs(root: Path, ours: Detector) -> tuple[nn.Module, nn.Module]:
    """Build their S with our weights, and their criterion, in float64."""
    model, losses = build_dfine_s(root, num_classes=5, num_queries=30, num_denoising=8)
    # Anchors of the input size of their evaluation, which theirs makes for each input instead.
    tensors = {name: x for name, x in AuthorsDFINE().write(ours).tensors.items() if name not in ANCHORS}
    loaded = model.load_state_dict(tensors, strict=False)
    assert not loaded.unexpected_keys
    assert all("num_batches_tracked" in name for name in loaded.missing_keys), loaded
    order_positions(model.encoder)
    # Their anchors are float32 in every precision.
    head: Any = model.decoder
    head._generate_anchors = partial(head._generate_anchors, dtype=torch.float64)
    model.double()
    for name, buffer in model.named_buffers():
        if name.endswith("num_points_scale"):
            # One by the number of points, which theirs rounds to float32.
            buffer.copy_(1 / (1 / buffer).round())
    return model, losses.double()


def our_name(name: str) -> str | None:
    """Name one of their terms as ours; distilling the last layer into itself, always 0, is none of them."""
    base, _, suffix = name.removeprefix("loss_").partition("_")
    if base == "ddf" and suffix == f"dn_{LAYERS - 1}":
        return None
    for theirs, ours in SUFFIXES.items():
        if suffix.startswith(theirs):
            return f"{TERMS[base]}_{ours}{suffix.removeprefix(theirs)}"
    return TERMS[base]


@pytest.fixture
def root(originals: Path | None) -> Path:
    return require_original(originals, "dfine")


@pytest.mark.parametrize(("size", "counts"), [((96, 96), [5, 2]), ((96, 128), [0, 1]), ((128, 64), [4, 1, 3])], ids=str)
def test_predictions_losses_and_gradients(
    size: tuple[int, int], counts: list[int], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The weights of neighboring bins are float32 there in every precision, which float64 beside them does not allow.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    ours = build_small("dfine_s", 30, {"head.denoising.num_queries": 8})
    theirs, criterion = build_theirs(root, ours)
    images = make_images(len(counts), size)
    with torch.no_grad():
        expected, output = theirs.eval()(images), ours(images)
    compare_tensors("outputs", output.logits[-1], expected["pred_logits"], limit=1e-6, name="logits")
    compare_tensors("outputs", output.boxes_cxcywh_norm[-1], expected["pred_boxes"], limit=1e-7, name="boxes")
    inputs = images, make_objects(counts, size)
    # Noised queries differ by 1e-7, as parts of theirs stay float32, and gradients of small norms by up to 1e-5. The
    # quality of a location sorts the probabilities of bins: at 64 x 160 pixels two of one side are equal to 2e-7,
    # theirs sorts them the other way, and the gradient of one loss term is 5e-3 off, which is why it is no case here.
    compare_training((ours, AuthorsDFINE()), theirs, criterion, inputs, our_name, gradients=1e-4)
