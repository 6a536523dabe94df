"""Deformable DETR's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients
from torch import Tensor, nn

from boxwright.heads.deformable_detr import DeformableDETR, DeformableDETROutput
from boxwright.layers.padding import resize_mask
from boxwright.necks.deformable_encoder import DeformableEncoder
from boxwright.queries import DecoderOptions
from boxwright.structures import Features, Level, Spec, Targets
from conformance import compare_tensors, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("Deformable DETR", "deformable_detr")

DATA = Path(__file__).parent / "data"
INPUT_SIZE = (96, 128)
SIZES = [(96, 128), (72, 80)]
NUM_CLASSES = 5
LEVELS: Spec = {"c3": Level(12, 8), "c4": Level(20, 16), "c5": Level(28, 32)}
VARIANTS: dict[str, dict[str, bool]] = {
    "base": {},
    "refine": {"refine": True},
    "two_stage": {"refine": True, "two_stage": True},
    "single_scale": {},
}


class Transformer(nn.Module):
    """Neck and head, in float64, with weights that follow from their names."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        spec = {"c5": LEVELS["c5"]} if variant == "single_scale" else LEVELS
        options = {"feedforward_dim": 48, "num_layers": 2, "dropout": 0.0}
        self.neck = DeformableEncoder(spec, num_levels=1 if variant == "single_scale" else 4, **options)
        decoder = DecoderOptions(**options)
        self.head = DeformableDETR(
            self.neck.out_spec, NUM_CLASSES, num_queries=20, decoder=decoder, **VARIANTS[variant]
        )
        set_weights(self)
        with torch.no_grad():
            # Queries that differ, and positions that count.
            self.neck.level_embedding *= 10
            if variant != "two_stage":
                self.head.queries.weight *= 10

    def forward(self, features: Features, mask: Tensor, targets: list[Targets] | None = None) -> DeformableDETROutput:
        return cast(DeformableDETROutput, self.head(self.neck(features, mask), mask, targets))


def maps(neck: DeformableEncoder) -> Features:
    height, width = INPUT_SIZE
    return {
        name: uniform(f"level {name}", 2, LEVELS[name].channels, height // stride, width // stride)
        for name, stride in ((name, LEVELS[name].stride) for name in neck.in_levels)
    }


def padding_mask() -> Tensor:
    mask = torch.ones(2, *INPUT_SIZE, dtype=torch.bool)
    for i, (height, width) in enumerate(SIZES):
        mask[i, :height, :width] = False
    return mask


def objects() -> list[Targets]:
    targets = []
    for i, (count, (height, width)) in enumerate(zip((4, 2), SIZES, strict=True)):
        corner = (uniform(f"corners of {i}", count, 2) + 1) * 0.3
        side = (uniform(f"sides of {i}", count, 2) + 1) * 0.15 + 0.05
        boxes = torch.cat((corner, corner + side), 1) * torch.tensor([width, height] * 2)
        labels = ((uniform(f"labels of {i}", count) + 1) * NUM_CLASSES / 2).long()
        targets.append(Targets(labels, boxes, (height, width)))
    return targets


def make_levels_apart() -> DeformableEncoder:
    """Build an encoder of c4, c5 and c6, apart from each other, in float64 on the weights of ``formula.py``."""
    spec = {name: LEVELS[name] for name in ("c4", "c5")}
    options = {"hidden_dim": 64, "num_heads": 4, "feedforward_dim": 48, "num_layers": 2, "dropout": 0.0}
    neck = DeformableEncoder(spec, num_levels=3, across_levels=False, **options)
    set_weights(neck)
    with torch.no_grad():
        neck.level_embedding *= 10
    return neck


@pytest.fixture(scope="module")
def authors() -> dict[str, np.ndarray]:
    with np.load(DATA / "authors_deformable_detr.npz") as numbers:
        return dict(numbers)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def transformer(variant: str) -> Transformer:
    return Transformer(variant)


def test_logits_and_boxes(authors: dict[str, np.ndarray], variant: str, transformer: Transformer) -> None:
    note_inputs(list(maps(transformer.neck).values()))
    with torch.no_grad():
        output = transformer(maps(transformer.neck), padding_mask())
        logits, boxes = output.logits[-1], output.boxes_cxcywh_norm[-1]
    assert logits.std(1).mean() > 0.05
    assert boxes.std(1).mean() > 0.02
    compare_tensors("outputs", logits, authors[f"{variant}/logits"], limit=1e-5, name="logits")
    compare_tensors("outputs", boxes, authors[f"{variant}/boxes"], limit=1e-6, name="boxes")


def test_losses_and_gradients(authors: dict[str, np.ndarray], variant: str, transformer: Transformer) -> None:
    targets = objects()
    note_inputs(list(maps(transformer.neck).values()), targets=targets)
    transformer.zero_grad(set_to_none=True)
    losses = transformer.head.loss(transformer(maps(transformer.neck), padding_mask(), targets), targets)
    terms = zip(authors[f"{variant}/term_names"].tolist(), authors[f"{variant}/terms"].tolist(), strict=True)
    compare_terms(losses, dict(terms), limit=1e-6)

    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: parameter.grad for name, parameter in transformer.named_parameters()}
    check_gradients(gradients, authors, prefix=f"{variant}/", tolerance=1e-5, floor=1e-8)


def test_levels_apart_are_the_encoder_of_one_level() -> None:
    """Their encoder of one level on one map after the other, with one set of weights; padding has no part in it."""
    neck, mask = make_levels_apart(), padding_mask()
    note_inputs(list(maps(neck).values()))
    with np.load(DATA / "authors_deformable_encoder.npz") as numbers:
        total = torch.zeros((), dtype=torch.float64)
        for name, out in neck(maps(neck), mask).items():
            valid = ~resize_mask(mask, *out.shape[-2:])[:, None]
            assert out.std() > 0.2
            compare_tensors("outputs", out * valid, numbers[name], limit=1e-6, name="levels apart", of=name)
            total = total + (out * valid * uniform(f"direction of {name}", *out.shape)).sum()
        total.backward()
        gradients = {name: parameter.grad for name, parameter in neck.named_parameters()}
        check_gradients(gradients, numbers, tolerance=1e-5, floor=1e-8)
