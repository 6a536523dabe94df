"""Cascade R-CNN of mmdetection: its numbers on our weights and proposals, made once (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients
from torch import Tensor, nn

from boxwright.heads.cascade_rcnn import CascadeRCNN
from boxwright.regions.box_branch import BoxPrediction
from boxwright.regions.cascade import Average
from boxwright.regions.decode import refine_boxes
from boxwright.regions.options import BoxBranchOptions, RoIOptions
from boxwright.regions.proposals import FirstStageOutput, Proposals, regions_to_proposals
from boxwright.structures import Features, Level, Spec, Targets
from conformance import compare, compare_detections, compare_equal, compare_tensors, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("Cascade R-CNN", "mmdet")

SPEC: Spec = {"c2": Level(3, 4), "c3": Level(3, 8)}
NUM_CLASSES, NUM_STAGES = 3, 3
SIDE, SIZES = 256, [(256, 256), (184, 224)]


class FixedProposals(nn.Module):
    """A first stage with the proposals that both sides start from."""

    def __init__(self, rpn: nn.Module) -> None:
        super().__init__()
        self.rpn = rpn

    def forward(self, features: Features, *_: object) -> FirstStageOutput:
        levels = list(features.values())
        return FirstStageOutput(levels, self.rpn(levels), torch.tensor(SIZES, dtype=levels[0].dtype))

    def propose(self, *_: object, **__: object) -> Proposals:
        return proposals()


def head(averages: Average = "scores") -> CascadeRCNN:
    """A small one on the weights of ``formula.py``, with more samples than there are regions."""
    roi, boxes = RoIOptions(num_samples=256, level_epsilon="inside"), BoxBranchOptions(hidden_dim=8)
    head = CascadeRCNN(SPEC, NUM_CLASSES, averages=averages, roi=roi, boxes=boxes)
    head.first_stage = FixedProposals(head.first_stage.rpn)  # type: ignore[assignment]
    set_weights(head)
    with torch.no_grad():
        for branch in head.stages:
            branch.classes.weight.mul_(10)  # classes are told apart
    return head


def maps() -> Features:
    return {
        name: uniform(f"map {name}", 2, at.channels, SIDE // at.stride, SIDE // at.stride) for name, at in SPEC.items()
    }


def objects() -> list[Targets]:
    targets = []
    for i, (h, w) in enumerate(SIZES):
        numbers = (uniform(f"objects of {i}", 3 - i, 4) + 1) / 2
        corner = 0.35 * numbers[:, :2]
        boxes = torch.cat((corner, corner + 0.3 + 0.35 * numbers[:, 2:]), 1) * torch.tensor([w, h, w, h])
        targets.append(Targets(torch.arange(3 - i) + i, boxes, (h, w)))
    return targets


def proposals() -> Proposals:
    """Twelve around each object, some of them good, and where there are fewer, some that are not valid."""
    boxes = torch.zeros(2, 36, 4, dtype=torch.float64)
    valid = torch.zeros(2, 36, dtype=torch.bool)
    for i, target in enumerate(objects()):
        sides = (target.boxes[:, 2:] - target.boxes[:, :2]).repeat(1, 2)
        shifts = uniform(f"proposals of {i}", len(sides), 12, 4) * torch.linspace(0.05, 0.5, 12)[:, None]
        near = (target.boxes[:, None] + shifts * sides[:, None]).flatten(0, 1)
        limits = torch.tensor(SIZES[i]).flip(0).repeat(2)
        boxes[i, : len(near)], valid[i, : len(near)] = near.clamp(min=0).minimum(limits), True
    return Proposals(boxes, valid.double(), valid)


def in_order(boxes: Tensor) -> np.ndarray:
    """The same in whatever order they come."""
    numbers = boxes.detach().numpy()
    return numbers[np.lexsort(numbers.T)]


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "cascade_rcnn_mmdet.npz") as numbers:
        return dict(numbers)


def test_samples_losses_gradients_and_refined_boxes(theirs: dict[str, np.ndarray]) -> None:
    ours, features, targets = head(), {name: x.requires_grad_() for name, x in maps().items()}, objects()
    note_inputs(list(features.values()), targets=targets)
    output = ours(features, None, targets)
    for stage, (boxes, regions) in enumerate(output.stages):
        counts = [len(regions.boxes), int((regions.labels >= 0).sum())]
        compare_equal("assignment", counts, theirs["counts"][stage].tolist(), name="counts")
        if stage < NUM_STAGES - 1:
            sizes = torch.tensor(SIZES, dtype=torch.float64)[regions.images]
            refined = refine_boxes(boxes.deltas[:, 0], regions.boxes, sizes, ours.delta_weights[stage])
            proposed = regions_to_proposals(regions, refined, 2)
            for i, (own, valid) in enumerate(zip(proposed.boxes, proposed.valid, strict=True)):
                # Stored in float32.
                difference = np.abs(in_order(own[valid]) - theirs[f"refined_{stage}_{i}"]).max()
                compare("outputs", float(difference), 1e-4, name="refined boxes", unit="pixels")

    terms = {name: value for name, value in ours.loss(output, targets).items() if name[-1].isdigit()}
    expected = dict(zip(theirs["term_names"].tolist(), theirs["terms"].tolist(), strict=True))
    # They add 1.2e-7 to the number of regions that they divide by.
    compare_terms(terms, expected, limit=1e-8)

    sum(terms.values()).backward()
    gradients = {name: x.grad for name, x in [*ours.stages.named_parameters(prefix="stages"), *features.items()]}
    check_gradients(gradients, theirs, tolerance=1e-8)


def test_parameters_of_the_stages_of_the_published_model() -> None:
    levels = {f"p{i}": Level(256, 2**i) for i in range(2, 7)}
    with torch.device("meta"):
        stages = CascadeRCNN(levels, 80).stages
    assert sum(parameter.numel() for parameter in stages.parameters()) == 41_948_415


@torch.no_grad()
def test_detections(theirs: dict[str, np.ndarray]) -> None:
    ours, last, predicted = head(), list[Tensor](), list[BoxPrediction]()
    ours.stages[-1].register_forward_pre_hook(lambda _, inputs: last.append(inputs[1]))
    for branch in ours.stages:
        branch.register_forward_hook(lambda *results: predicted.append(results[-1]))
    note_inputs(list(maps().values()))
    output = ours(maps())
    decoded = ours.decode(output)
    logits = torch.stack([one.logits for one in predicted]).unflatten(1, (2, -1))
    regions = proposals()._replace(boxes=last[0].unflatten(0, (2, -1)))
    deltas, weights = predicted[-1].deltas.unflatten(0, (2, -1)), ours.delta_weights[-1]
    boxes = refine_boxes(deltas[:, :, 0], regions.boxes, output.box_limits, weights)
    # They average logits, we by default what a softmax makes of them.
    scores = logits.mean(0).softmax(-1)
    for i, valid in enumerate(regions.valid):
        compare_tensors("outputs", boxes[i, valid], theirs[f"boxes_{i}"], limit=1e-4, name="boxes", unit="pixels")
        compare_tensors("outputs", scores[i, valid], theirs[f"scores_{i}"], limit=1e-6, name="scores")

    for name, decoded_boxes in (("of_logits", head("logits").decode(output)), ("of_scores", decoded)):
        for i, valid in enumerate(decoded_boxes.valid):
            expected = [torch.from_numpy(theirs[f"{name}_{key}_{i}"]) for key in ("boxes", "scores", "labels")]
            assert len(set(expected[2].tolist())) == NUM_CLASSES
            compare_detections([x[i, valid] for x in decoded_boxes[:3]], expected, scores=1e-6, boxes=1e-4)
