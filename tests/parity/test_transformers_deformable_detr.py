"""Deformable DETR of transformers with our weights: outputs, assignments, every loss term, every gradient."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher
from transformers_deformable_detr import random_weights, renamed, transformers_deformable_detr
from transformers_detr import padded_batch
from twenty_steps import compare_training_steps

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.deformable_detr import DeformableDETR, DeformableDETROutput
from boxwright.necks.deformable_encoder import DeformableEncoder
from boxwright.queries import DecoderOptions, QueryLossWeights, normalize_targets
from boxwright.structures import Category, Targets
from boxwright_runtime.input_format import InputFormat
from conformance import compare_equal, compare_gradients, compare_tensors, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("Deformable DETR", "transformers")

TERMS = {"loss_ce": ("focal", 1), "loss_bbox": ("l1", 5), "loss_giou": ("giou", 2)}
NUM_CLASSES, WIDTH = 11, 16
VARIANTS: dict[str, dict[str, bool]] = {
    "base": {},
    "refine": {"refine": True},
    "two-stage": {"refine": True, "two_stage": True},
    "single-scale": {},
}


@dataclass
class Run:
    """One training pass: what the decoder answered, losses by transformers' names, gradients likewise."""

    output: Any
    losses: dict[str, float]
    gradients: dict[str, Tensor]


@dataclass
class Pair:
    """The same detector in both libraries, and the inputs of both."""

    ours: Detector
    theirs: Any
    images: Tensor
    mask: Tensor
    targets: list[Targets]

    @property
    def labels(self) -> list[dict[str, Tensor]]:
        return [{"class_labels": t.labels, "boxes": t.boxes_cxcywh_norm} for t in normalize_targets(self.targets)]

    def compute_ours(self) -> tuple[Any, dict[str, Tensor]]:
        """Compute output and terms of ours; transformers has no loss for the proposals of the encoder."""
        output = self.ours.train()(self.images, self.mask, self.targets)
        return output, {n: v for n, v in self.ours.loss(output, self.targets).items() if not n.endswith("_encoder")}

    @cached_property
    def run_ours(self) -> Run:
        output, losses = self.compute_ours()
        sum(losses.values()).backward()
        levels = list(self.ours.necks[0].out_spec)
        gradients = renamed({n: p.grad for n, p in self.ours.named_parameters() if p.grad is not None}, levels)
        return Run(output, {name: loss.item() for name, loss in losses.items()}, gradients)

    def compute_theirs(self) -> Any:
        """Compute the output of theirs, which has its loss."""
        return self.theirs.train()(pixel_values=self.images, pixel_mask=(~self.mask).long(), labels=self.labels)

    @cached_property
    def run_theirs(self) -> Run:
        output = self.compute_theirs()
        output.loss.backward()
        # A head that several layers share, or that the decoder knows too, has several names.
        named = self.theirs.named_parameters(remove_duplicate=False)
        gradients = {name: p.grad for name, p in named if p.grad is not None}
        losses = {n: v.item() for n, v in output.loss_dict.items() if n.startswith("loss_")}
        return Run(output, losses, gradients)


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest) -> Pair:
    torch.manual_seed(0)
    single = request.param == "single-scale"
    backbone = ResNet(depth=18, width=WIDTH, norm="frozen", levels=("c5",) if single else ("c3", "c4", "c5"))
    sizes = {"num_heads": 4, "feedforward_dim": 128, "dropout": 0.0}
    neck = DeformableEncoder(backbone.out_spec, num_layers=3, num_levels=1 if single else 4, hidden_dim=64, **sizes)
    head = DeformableDETR(
        neck.out_spec,
        NUM_CLASSES,
        hidden_dim=64,
        num_queries=20,
        decoder=DecoderOptions(num_layers=3, **sizes),
        loss_weights=QueryLossWeights(class_weight=1.0),
        **VARIANTS[request.param],
    )
    categories = [Category(i, f"class {i}") for i in range(NUM_CLASSES)]
    ours = Detector(backbone, [neck], head, categories=categories, input_format=InputFormat(image_size=64))
    images, mask, targets = padded_batch([(96, 160), (128, 100)], [7, 3], NUM_CLASSES)
    random_weights(ours, images)
    return Pair(ours, transformers_deformable_detr(ours, depth=18, width=WIDTH), images, mask, targets)


@pytest.fixture(scope="module")
def double_pair(pair: Pair) -> Pair:
    """Convert the pair to float64, where a difference of 1e-6 is a difference in the mathematics."""
    targets = [target._replace(boxes=target.boxes.double()) for target in pair.targets]
    return Pair(deepcopy(pair.ours).double(), deepcopy(pair.theirs).double(), pair.images.double(), pair.mask, targets)


def test_logits_and_boxes(pair: Pair) -> None:
    pair.ours.eval()
    pair.theirs.eval()
    with torch.no_grad():
        output = pair.ours(pair.images, pair.mask)
        logits, boxes = output.logits[-1], output.boxes_cxcywh_norm[-1]
        theirs = pair.theirs(pixel_values=pair.images, pixel_mask=(~pair.mask).long())
    # Queries are told apart, or there would be nothing to compare.
    assert logits.std(1).mean() > 0.1
    assert boxes.std(1).mean() > 0.05
    note_inputs(pair.images)
    compare_tensors("outputs", logits, theirs.logits, limit=1e-4, name="logits")
    compare_tensors("outputs", boxes, theirs.pred_boxes, limit=1e-4, name="boxes")


def test_every_layer_and_every_token(double_pair: Pair) -> None:
    ours: DeformableDETROutput = double_pair.run_ours.output
    theirs = double_pair.run_theirs.output
    layers = [*theirs.auxiliary_outputs, {"logits": theirs.logits, "pred_boxes": theirs.pred_boxes}]
    assert len(layers) == len(ours.logits)
    note_inputs(double_pair.images)
    for i, layer in enumerate(layers):
        compare_tensors("outputs", ours.logits[i], layer["logits"], limit=1e-5, name="logits")
        compare_tensors("outputs", ours.boxes_cxcywh_norm[i], layer["pred_boxes"], limit=1e-5, name="boxes")
    if double_pair.ours.head.two_stage:
        assert ours.encoder_logits is not None
        assert ours.encoder_boxes_cxcywh_norm is not None
        selected = theirs.enc_outputs_coord_logits.sigmoid()
        compare_tensors("outputs", ours.encoder_logits, theirs.enc_outputs_class, limit=1e-5, name="logits")
        compare_tensors("outputs", ours.encoder_boxes_cxcywh_norm, selected, limit=1e-5, name="boxes")


def test_every_loss_term(double_pair: Pair) -> None:
    ours, theirs = double_pair.run_ours.losses, double_pair.run_theirs.losses
    assert len(ours) == len(theirs) == 3 * len(double_pair.ours.head.layers)
    assert min(theirs.values()) > 1e-3
    expected = {}
    for name, loss in theirs.items():
        base, _, suffix = name.removeprefix("loss_").partition("_")
        term, weight = TERMS[f"loss_{base}"]
        expected[f"{term}_{suffix}" if suffix else term] = weight * loss
    note_inputs(double_pair.images, targets=double_pair.targets)
    compare_terms(ours, expected, limit=1e-6)


def test_gradient_of_every_parameter(double_pair: Pair) -> None:
    ours, theirs = double_pair.run_ours.gradients, double_pair.run_theirs.gradients
    assert set(ours) <= set(theirs)
    assert len(ours) == len({id(grad) for grad in theirs.values()})
    note_inputs(double_pair.images, targets=double_pair.targets)
    compare_gradients(ours, {name: theirs[name] for name in ours}, limit=1e-5, floor=1e-5)


def test_assignments_are_identical(pair: Pair) -> None:
    config = pair.theirs.config
    costs = {"class_cost": config.class_cost, "bbox_cost": config.bbox_cost, "giou_cost": config.giou_cost}
    matcher = DeformableDetrHungarianMatcher(**costs)
    with torch.no_grad():
        output = pair.ours(pair.images, pair.mask, pair.targets)
    targets = normalize_targets(pair.targets)
    ours = pair.ours.head.criterion.matcher(output.logits, output.boxes_cxcywh_norm, targets)
    assert len(ours.query) == len(output.logits) * 10
    note_inputs(pair.images, targets=pair.targets)
    for layer, (logits, boxes) in enumerate(zip(output.logits, output.boxes_cxcywh_norm, strict=True)):
        first = 0
        for image, (queries, objects) in enumerate(matcher({"logits": logits, "pred_boxes": boxes}, pair.labels)):
            here = (ours.layer == layer) & (ours.image == image)
            compare_equal("assignment", ours.query[here], queries)
            compare_equal("assignment", ours.object[here] - first, objects)
            first += len(pair.targets[image].labels)


@pytest.mark.slow
def test_20_training_steps(double_pair: Pair) -> None:
    ours, theirs = deepcopy(double_pair.ours), deepcopy(double_pair.theirs)
    pair = Pair(ours, theirs, double_pair.images, double_pair.mask, double_pair.targets)
    note_inputs(pair.images, targets=pair.targets)
    compute_ours = ours, lambda: sum(pair.compute_ours()[1].values())
    compare_training_steps(compute_ours, (theirs, lambda: pair.compute_theirs().loss), limit=1e-4)
