"""Cascade R-CNN of mmdetection: its numbers on our weights and proposals, made once (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from torch import Tensor, nn

from boxwright.heads.cascade_rcnn import CascadeRCNN, refined
from boxwright.regions.assignment import regions_to_proposals
from boxwright.regions.first_stage import FirstStage
from boxwright.regions.proposals import Proposals
from boxwright.structures import Features, Level, Spec, Targets

SPEC: Spec = {"c2": Level(3, 4), "c3": Level(3, 8)}
NUM_CLASSES, NUM_STAGES = 3, 3
CANVAS, SIZES = 256, [(256, 256), (184, 224)]


class Given(nn.Module):
    """A first stage that proposes what both sides start from."""

    def __init__(self, rpn: nn.Module) -> None:
        super().__init__()
        self.rpn = rpn

    def forward(self, features: Features, *_: object, **__: object) -> FirstStage:
        levels = list(features.values())
        content = torch.tensor(SIZES, dtype=levels[0].dtype)
        return FirstStage(levels, self.rpn(levels), content, proposals())


def head() -> CascadeRCNN:
    """A small one on the weights of ``formula.py``, with more samples than there are regions."""
    head = CascadeRCNN(SPEC, NUM_CLASSES, hidden_dim=8, num_samples=256, level_epsilon="inside")
    head.first_stage = Given(head.first_stage.rpn)  # type: ignore[assignment]
    set_weights(head)
    with torch.no_grad():
        for branch in head.stages:
            branch.classes.weight.mul_(10)  # classes are told apart
    return head


def maps() -> Features:
    return {
        name: uniform(f"map {name}", 2, at.channels, CANVAS // at.stride, CANVAS // at.stride)
        for name, at in SPEC.items()
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
    """Twelve around each object, some of them good, and where there are fewer, places that are not valid."""
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
    output = ours(features, None, targets)
    for number, (said, regions) in enumerate(output.stages):
        counts = [len(regions.boxes), int((regions.labels >= 0).sum())]
        assert counts == theirs["counts"][number].tolist()
        if number < NUM_STAGES - 1:
            content = torch.tensor(SIZES, dtype=torch.float64)[regions.images]
            found = regions_to_proposals(regions, refined(said.deltas[:, 0], regions.boxes, content, number), 2)
            for i, (boxes, valid) in enumerate(zip(found.boxes, found.valid, strict=True)):
                # Stored in float32.
                assert np.abs(in_order(boxes[valid]) - theirs[f"refined_{number}_{i}"]).max() < 1e-4

    terms = {name: value for name, value in ours.loss(output, targets).items() if name[-1].isdigit()}
    expected = dict(zip(theirs["term_names"].tolist(), theirs["terms"].tolist(), strict=True))
    # They add 1.2e-7 to the number of regions that they divide by.
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-8)

    sum(terms.values()).backward()
    gradients = {name: x.grad for name, x in [*ours.stages.named_parameters(prefix="stages"), *features.items()]}
    assert set(gradients) == set(theirs["gradient_names"].tolist())
    for name, norm, projection in zip(
        theirs["gradient_names"].tolist(), theirs["gradient_norms"], theirs["gradient_projections"], strict=True
    ):
        grad = gradients[name]
        assert grad is not None
        assert grad.norm().item() == pytest.approx(norm, rel=1e-8), name
        direction = uniform(f"direction of {name}", *grad.shape)
        assert (grad * direction).sum().item() == pytest.approx(projection, abs=1e-8 * norm), name


def test_parameters_of_the_stages_of_the_published_model() -> None:
    levels = {f"p{i}": Level(256, 2**i) for i in range(2, 7)}
    with torch.device("meta"):
        stages = CascadeRCNN(levels, 80).stages
    assert sum(parameter.numel() for parameter in stages.parameters()) == 41_948_415


@torch.no_grad()
def test_detections(theirs: dict[str, np.ndarray]) -> None:
    ours, last = head(), list[Tensor]()
    ours.stages[-1].register_forward_pre_hook(lambda _, inputs: last.append(inputs[1]))
    output = ours(maps())
    logits = torch.stack([said.logits for said, _ in output.stages]).unflatten(1, (2, -1))
    regions = proposals()._replace(boxes=last[0].unflatten(0, (2, -1)))
    content = torch.tensor(SIZES, dtype=torch.float64)
    deltas = output.stages[-1].boxes.deltas.unflatten(0, (2, -1))
    boxes = refined(deltas[:, :, 0], regions.boxes, content, NUM_STAGES - 1)
    # They average logits, we average what a softmax makes of them.
    scores = logits.mean(0).softmax(-1)
    for i, valid in enumerate(regions.valid):
        assert np.abs(boxes[i, valid].numpy() - theirs[f"boxes_{i}"]).max() < 1e-4
        assert np.abs(scores[i, valid].numpy() - theirs[f"scores_{i}"]).max() < 1e-6

    for name, found in (
        ("of_logits", ours.detect(scores[..., :-1], deltas, regions, content)),
        ("of_scores", output.found),
    ):
        for i, valid in enumerate(found.valid):
            expected = {key: theirs[f"{name}_{key}_{i}"] for key in ("boxes", "scores", "labels")}
            assert found.labels[i, valid].tolist() == expected["labels"].tolist()
            assert len(set(expected["labels"].tolist())) == NUM_CLASSES
            assert np.abs(found.scores[i, valid].numpy() - expected["scores"]).max() < 1e-6
            assert np.abs(found.boxes[i, valid].numpy() - expected["boxes"]).max() < 1e-4
