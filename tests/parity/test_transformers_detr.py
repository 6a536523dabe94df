"""DETR of transformers with our weights: outputs, assignments, every loss term, the gradient of every parameter."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss, HungarianMatcher
from transformers_detr import padded_batch, random_weights, renamed, transformers_detr
from twenty_steps import compare_training_steps

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.detr import DETR, DETROutput
from boxwright.necks.detr_encoder import DETREncoder
from boxwright.queries import TransformerDecoderOptions, normalize_targets
from boxwright.structures import Category, Targets
from boxwright_runtime.input_format import InputFormat
from conformance import compare_equal, compare_gradients, compare_tensors, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("DETR", "transformers")

TERMS = {"loss_ce": ("cross_entropy", 1), "loss_bbox": ("l1", 5), "loss_giou": ("giou", 2)}
NUM_CLASSES, WIDTH = 11, 16


@dataclass
class Run:
    """One training pass: logits and boxes of all layers, losses and gradients under transformers' names."""

    output: DETROutput
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
        labels = []
        for target in self.targets:
            height, width = target.size
            x1, y1, x2, y2 = (target.boxes / target.boxes.new_tensor([width, height, width, height])).unbind(-1)
            boxes = torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)
            labels.append({"class_labels": target.labels, "boxes": boxes})
        return labels

    def compute_ours(self) -> tuple[Any, dict[str, Tensor]]:
        """Compute output and terms of ours."""
        output = self.ours.train()(self.images, self.mask, self.targets)
        return output, self.ours.loss(output, self.targets)

    @cached_property
    def run_ours(self) -> Run:
        output, losses = self.compute_ours()
        sum(losses.values()).backward()
        gradients = renamed({name: p.grad for name, p in self.ours.named_parameters()})
        return Run(
            output,
            {name: loss.item() for name, loss in losses.items()},
            {name: torch.stack(parts).sum(0) for name, parts in gradients.items()},
        )

    def compute_theirs(self) -> tuple[DETROutput, Tensor, dict[str, Tensor]]:
        """Compute output, loss and terms of theirs, with norm and heads for the output of every layer.

        With ``auxiliary_loss`` transformers hands the normed output to the next layer: another network than DETR.
        """
        layers: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda *args: layers.append(args[2]))
            for layer in self.theirs.model.decoder.layers
        ]
        self.theirs.train().model(pixel_values=self.images, pixel_mask=(~self.mask).long())
        for hook in hooks:
            hook.remove()
        decoded = self.theirs.model.decoder.layernorm(torch.stack(layers))
        logits = self.theirs.class_labels_classifier(decoded)
        boxes = self.theirs.bbox_predictor(decoded).sigmoid()
        config = deepcopy(self.theirs.config)
        config.auxiliary_loss = True
        torch.set_default_dtype(logits.dtype)  # for the weights of the classes, which it makes
        try:
            total, losses, _ = ForObjectDetectionLoss(
                logits[-1], self.labels, logits.device, boxes[-1], config, logits, boxes
            )
        finally:
            torch.set_default_dtype(torch.float32)
        return DETROutput(logits, boxes, torch.ones(1, 2)), total, losses

    @cached_property
    def run_theirs(self) -> Run:
        output, total, losses = self.compute_theirs()
        total.backward()
        gradients = {name: p.grad for name, p in self.theirs.named_parameters()}
        return Run(output, {name: loss.item() for name, loss in losses.items()}, gradients)


@pytest.fixture(scope="module", params=["sine", "learned", "dc5"])
def pair(request: pytest.FixtureRequest) -> Pair:
    torch.manual_seed(0)
    dilated, positions = request.param == "dc5", "learned" if request.param == "learned" else "sine"
    backbone = ResNet(
        depth=50, width=WIDTH, norm="frozen", levels=("c5",), dilation="after_first" if dilated else "none"
    )
    sizes = {"num_heads": 4, "feedforward_dim": 128, "dropout": 0.0}
    neck = DETREncoder(backbone.out_spec, num_layers=3, hidden_dim=64, positions=positions, **sizes)
    decoder = TransformerDecoderOptions(num_layers=4, **sizes)
    head = DETR(neck.out_spec, NUM_CLASSES, hidden_dim=64, num_queries=20, decoder=decoder, positions=positions)
    categories = [Category(i, f"class {i}") for i in range(NUM_CLASSES)]
    ours = Detector(backbone, [neck], head, categories=categories, input_format=InputFormat(image_size=64))
    images, mask, targets = padded_batch([(96, 160), (128, 100)], [5, 3], NUM_CLASSES)
    random_weights(ours, images)
    if positions == "learned":
        head.positions.load_state_dict(neck.positions.state_dict())
    return Pair(ours, transformers_detr(ours, width=WIDTH, positions=positions, dilated=dilated), images, mask, targets)


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
    # Queries and images are told apart, or there would be nothing to compare.
    assert logits.std(1).mean() > 0.15
    assert boxes.std(1).mean() > 0.02
    assert (logits[0] - logits[1]).abs().max() > 0.2
    note_inputs(pair.images)
    compare_tensors("outputs", logits, theirs.logits, limit=1e-4, name="logits")
    compare_tensors("outputs", boxes, theirs.pred_boxes, limit=1e-4, name="boxes")


def test_logits_and_boxes_of_every_layer_in_float64(double_pair: Pair) -> None:
    ours, theirs = double_pair.run_ours.output, double_pair.run_theirs.output
    assert len(ours.logits) == len(theirs.logits) == 4
    # Positions are made in float32 in ours.
    note_inputs(double_pair.images)
    compare_tensors("outputs", ours.logits, theirs.logits, limit=1e-6, name="logits")
    compare_tensors("outputs", ours.boxes_cxcywh_norm, theirs.boxes_cxcywh_norm, limit=1e-6, name="boxes")


def test_every_loss_term(double_pair: Pair) -> None:
    ours, theirs = double_pair.run_ours.losses, double_pair.run_theirs.losses
    assert len(ours) == 3 * 4
    expected = {
        term + suffix: weight * theirs[name + suffix]
        for name, (term, weight) in TERMS.items()
        for suffix in ("_0", "_1", "_2", "")
    }
    assert min(expected.values()) > 1e-3
    note_inputs(double_pair.images, targets=double_pair.targets)
    compare_terms(ours, expected, limit=1e-6)


def test_gradient_of_every_parameter(double_pair: Pair) -> None:
    ours, theirs = double_pair.run_ours.gradients, double_pair.run_theirs.gradients
    note_inputs(double_pair.images, targets=double_pair.targets)
    compare_gradients(ours, theirs, limit=1e-6, floor=1e-4)


def test_assignments_are_identical(double_pair: Pair) -> None:
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    output = double_pair.run_ours.output
    ours = double_pair.ours.head.criterion.matcher(
        output.logits, output.boxes_cxcywh_norm, normalize_targets(double_pair.targets)
    )
    assert len(ours.query) == 4 * 8
    note_inputs(double_pair.images, targets=double_pair.targets)
    for layer, (logits, boxes) in enumerate(zip(*output[:2], strict=True)):
        first = 0
        for image, (queries, objects) in enumerate(
            matcher({"logits": logits, "pred_boxes": boxes}, double_pair.labels)
        ):
            here = (ours.layer == layer) & (ours.image == image)
            compare_equal("assignment", ours.query[here], queries)
            compare_equal("assignment", ours.object[here] - first, objects)
            first += len(double_pair.targets[image].labels)


def test_loss_of_the_same_outputs_without_objects(pair: Pair) -> None:
    none = [Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), t.size) for t in pair.targets]
    with torch.no_grad():
        output = pair.ours.eval()(pair.images, pair.mask, pair.targets)
    for targets in (none, [pair.targets[0], none[1]]):
        ours = pair.ours.loss(output, targets)
        labels = Pair(pair.ours, pair.theirs, pair.images, pair.mask, targets).labels
        logits, boxes = output.logits[-1], output.boxes_cxcywh_norm[-1]
        _, theirs, _ = ForObjectDetectionLoss(logits, labels, logits.device, boxes, pair.theirs.config)
        for name, (term, weight) in TERMS.items():
            assert ours[term].item() == pytest.approx(weight * theirs[name].item(), rel=1e-5, abs=1e-7)


@pytest.mark.slow
def test_20_training_steps(double_pair: Pair) -> None:
    if list(double_pair.ours.head.positions.parameters()):
        pytest.skip("one table of positions there, two here, each of which learns by itself")
    pair = Pair(
        *(deepcopy(x) for x in (double_pair.ours, double_pair.theirs)),
        double_pair.images,
        double_pair.mask,
        double_pair.targets,
    )
    note_inputs(pair.images, targets=pair.targets)
    ours = pair.ours, lambda: sum(pair.compute_ours()[1].values())
    compare_training_steps(ours, (pair.theirs, lambda: pair.compute_theirs()[1]), limit=1e-4, lr=1e-5, eps=1e-5)
