"""DETR's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import make_images, set_weights, uniform
from stored_gradients import check_gradients
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.detr import DETR
from boxwright.layers.positions import Positions
from boxwright.necks.detr_encoder import DETREncoder
from boxwright.queries import TransformerDecoderOptions, normalize_targets
from boxwright.structures import Category, Targets
from boxwright_runtime.input_format import InputFormat
from conformance import compare_detections, compare_equal, compare_tensors, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("DETR", "detr")

VARIANTS: dict[str, dict[str, Any]] = {
    "post_norm": {},
    "pre_norm": {"pre_norm": True},
    "learned": {"positions": "learned"},
    "dc5": {"dilated": True},
}
NUM_CLASSES, INPUT_SIZE, SIZES = 5, 96, [(64, 96), (96, 56)]


def detector(
    *, dilated: bool = False, pre_norm: bool = False, positions: Positions = "sine", eval_layers: int | None = None
) -> Detector:
    """Build a small DETR on the weights of ``formula.py``, some of them stretched so that queries differ."""
    backbone = ResNet(
        depth=50,
        width=8,
        norm="frozen",
        frozen_stages=2,
        levels=("c5",),
        dilation="after_first" if dilated else "none",
    )
    sizes = {"num_heads": 4, "feedforward_dim": 64, "dropout": 0.0, "num_layers": 3, "pre_norm": pre_norm}
    neck = DETREncoder(backbone.out_spec, hidden_dim=32, positions=positions, **sizes)
    head = DETR(
        neck.out_spec,
        NUM_CLASSES,
        hidden_dim=32,
        num_queries=12,
        decoder=TransformerDecoderOptions(**sizes, eval_layers=eval_layers),
        positions=positions,
    )
    categories = [Category(i, f"class {i}") for i in range(NUM_CLASSES)]
    detector = Detector(backbone, [neck], head, categories=categories, input_format=InputFormat(image_size=INPUT_SIZE))
    set_weights(detector)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name == "head.queries.weight":
                parameter *= 12
            elif name.endswith("attention.out_proj.weight"):
                parameter *= 3 if "cross" in name else 0.3
    # The original has one table for both.
    head.positions.load_state_dict(neck.positions.state_dict())
    return detector


def padded_images() -> tuple[Tensor, Tensor]:
    """Make a batch of two images of different sizes, and its padding mask."""
    images, mask = 2 * make_images(2, INPUT_SIZE) - 1, torch.ones(2, INPUT_SIZE, INPUT_SIZE, dtype=torch.bool)
    for i, (h, w) in enumerate(SIZES):
        mask[i, :h, :w] = False
    return images.masked_fill(mask[:, None], 0.0), mask


def objects() -> list[Targets]:
    targets = []
    for i, (h, w) in enumerate(SIZES):
        count = 4 - 2 * i
        numbers = (uniform(f"objects of {i}", count, 4) + 1) / 2
        corner, sides = 0.6 * numbers[:, :2], 0.05 + 0.35 * numbers[:, 2:]
        boxes = torch.cat((corner, corner + sides), 1) * torch.tensor([w, h, w, h])
        targets.append(Targets(torch.arange(count) + i, boxes, (h, w)))
    return targets


def collect_gradients(detector: Detector) -> dict[str, Tensor]:
    """Collect gradients by name; those of the two tables of learned positions are added up under the neck's name."""
    gradients: dict[str, Tensor] = {}
    for name, parameter in detector.named_parameters():
        if parameter.grad is not None:
            name = name.replace("head.positions", "necks.0.positions")
            gradients[name] = gradients.get(name, torch.zeros_like(parameter)) + parameter.grad
    return gradients


@pytest.fixture(scope="module")
def authors() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "authors_detr.npz") as numbers:
        return dict(numbers)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_assignments_losses_and_gradients(authors: dict[str, np.ndarray], variant: str) -> None:
    expected = {key.removeprefix(f"{variant}/"): x for key, x in authors.items() if key.startswith(f"{variant}/")}
    ours, (images, mask), targets = detector(**VARIANTS[variant]).train(), padded_images(), objects()
    output = ours(images, mask, targets)
    note_inputs(images, targets=targets)
    # Positions are made in float32 on both sides.
    compare_tensors("outputs", output.logits, expected["logits"], limit=5e-6, name="logits")
    compare_tensors("outputs", output.boxes_cxcywh_norm, expected["boxes"], limit=1e-6, name="boxes")

    matches = ours.head.criterion.matcher(output.logits, output.boxes_cxcywh_norm, normalize_targets(targets))
    compare_equal("assignment", torch.stack(tuple(matches)), expected["matches"].tolist())

    losses = ours.loss(output, targets)
    terms = dict(zip(expected["term_names"].tolist(), expected["terms"].tolist(), strict=True))
    compare_terms(losses, terms, limit=1e-6)

    sum(losses.values()).backward()
    check_gradients(collect_gradients(ours), expected, tolerance=1e-5, floor=1e-9)


@pytest.mark.parametrize("variant", ["post_norm", "pre_norm"])
@pytest.mark.parametrize("eval_layers", [1, 2, 3])
def test_the_first_layers_and_nms(authors: dict[str, np.ndarray], variant: str, eval_layers: int) -> None:
    """Their decoder cut after some layers puts out what it predicts from them in training; then torchvision's NMS."""
    logits, boxes = (torch.from_numpy(authors[f"{variant}/{name}"][eval_layers - 1]) for name in ("logits", "boxes"))
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    corners = box_convert(boxes, "cxcywh", "xyxy") * torch.tensor(SIZES).flip(1).repeat(1, 2)[:, None]
    ours = detector(**VARIANTS[variant], eval_layers=eval_layers).eval()
    with torch.no_grad():
        output = ours(*padded_images())
    note_inputs(padded_images()[0])
    compare_tensors("outputs", output.logits[-1], logits, limit=5e-6, name="logits")
    compare_tensors("outputs", output.boxes_cxcywh_norm[-1], boxes, limit=1e-6, name="boxes")
    counts = set()
    for threshold in (0.75, 0.85, 0.95):
        ours.head.nms_threshold = threshold
        decoded = ours.head.decode(output)
        for i, valid in enumerate(decoded.valid):
            kept = batched_nms(corners[i], scores[i], labels[i], threshold)
            expected = corners[i, kept], scores[i, kept], labels[i, kept]
            compare_detections([x[i, valid] for x in decoded[:3]], expected, scores=1e-6, boxes=1e-4)
            counts.add(len(kept))
    assert len(counts) > 2, "boxes that are kept depend on the threshold"
