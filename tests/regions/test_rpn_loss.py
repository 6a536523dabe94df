"""The losses of a region proposal network, against torchvision's on the same samples."""

from __future__ import annotations

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from boxwright.ops.anchors import grid_anchors, octave_anchors
from boxwright.regions.proposals import RPNLoss, RPNOutput
from boxwright.structures import Targets

ANCHORS = grid_anchors(octave_anchors(32.0, 1, (0.5, 1.0, 2.0)), 16, 16, 8).double()
TARGETS = [
    Targets(torch.tensor([1, 0]), torch.tensor([[10.0, 12, 50, 40], [60, 60, 100, 120]]).double(), (128, 128)),
    Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4).double(), (128, 128)),
]


def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(ANCHORS))
    return (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.randn(*shape, 4, generator=generator, dtype=torch.float64).requires_grad_(),
    )


def test_losses_and_gradients_are_torchvisions() -> None:
    theirs = RegionProposalNetwork(
        AnchorGenerator(), RPNHead(4, 3), 0.7, 0.3, 64, 0.5, {"training": 9, "testing": 9},
        {"training": 9, "testing": 9}, 0.7,
    )  # fmt: skip
    ours = RPNLoss(num_samples=64)
    matched = ours.match(ANCHORS, TARGETS)
    labels, boxes = theirs.assign_targets_to_anchors([ANCHORS] * 2, [{"boxes": t.boxes} for t in TARGETS])
    for own, label in zip(matched, labels, strict=True):
        assert ((own >= 0) == (label == 1)).all()
        assert ((own == -1) == (label == 0)).all()
    samples = [torch.cat((torch.where(of >= 0)[0], torch.where(of == -1)[0][::7]))[:64].sort().values for of in matched]
    assert [len(own) for own in samples] == [64, 64]

    def sample(_: object) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        masks = [torch.zeros(len(ANCHORS)).index_fill(0, own, 1) for own in samples]
        return [m * (l == 1) for m, l in zip(masks, labels, strict=True)], [
            m * (l == 0) for m, l in zip(masks, labels, strict=True)
        ]

    theirs.fg_bg_sampler = sample
    logits, deltas = predictions()
    targets = theirs.box_coder.encode(boxes, [ANCHORS] * 2)
    expected = theirs.compute_loss(logits, deltas.flatten(0, 1), labels, targets)
    losses = ours.of_samples(logits, deltas, ANCHORS, matched, samples, TARGETS, 2.0)
    assert list(losses) == ["objectness", "rpn_box"]
    for own, other in zip(losses.values(), expected, strict=True):
        assert other > 0.01
        torch.testing.assert_close(own, other, rtol=1e-6, atol=0, check_dtype=False)
        for one, two in zip(
            torch.autograd.grad(own, (logits, deltas), retain_graph=True, allow_unused=True),
            torch.autograd.grad(other, (logits, deltas), retain_graph=True, allow_unused=True),
            strict=True,
        ):
            assert (one is None) == (two is None)
            if one is not None:
                torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-9, check_dtype=False)


def test_samples_are_drawn_and_losses_do_not_depend_on_how_images_are_spread() -> None:
    loss, (logits, deltas) = RPNLoss(num_samples=1000), predictions()
    whole = loss(RPNOutput((logits,), (deltas,), (ANCHORS,)), TARGETS, 2.0)
    own = [RPNOutput((logits[i : i + 1],), (deltas[i : i + 1],), (ANCHORS,)) for i in range(2)]
    parts = [loss(own[i], TARGETS[i : i + 1], 2.0) for i in range(2)]
    for term, value in whole.items():
        assert value > 0
        torch.testing.assert_close(parts[0][term] + parts[1][term], value)
