"""Auxiliary heads: in training only, beside every head of queries; candidates become queries."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import boxwright
from boxwright.heads.atss import ATSS
from boxwright.heads.fcos import FCOS
from boxwright.heads.retinanet import RetinaNet
from boxwright.ops.box_matching import BACKGROUND, IGNORED
from boxwright.queries.auxiliary import block_filled, choose_candidates
from boxwright.queries.taught_queries import Taught
from boxwright.structures import Targets, levels_for_head
from part_checks import SPEC, TWO_STAGES, build, maps, padding, valid_sizes

MakeTargets = Callable[..., list[Targets]]

SMALL: dict[str, Any] = {
    "faster_rcnn": {
        "rpn.pre_nms_top_k": "60,60",
        "rpn.post_nms_top_k": "40,40",
        "roi.num_samples": 12,
        "boxes.hidden_dim": 16,
    },
    "atss": {"num_convs": 1},
}

HEADS = ("deformable_detr", "rtdetr", "dino", "dfine", "lwdetr")


def taught(name: str, **options: Any) -> Any:
    """A small head with two auxiliary ones, one dense and one with two stages."""
    head = build("heads", name, SPEC, 4, **{"supervision.auxiliary": ("faster_rcnn", "atss"), **options})
    spec = head.auxiliary_spec()
    head.add_auxiliary({"faster_rcnn": build("heads", "faster_rcnn", spec, 4), "atss": build("heads", "atss", spec, 4)})
    return head


def no_objects(count: int) -> list[Targets]:
    return [Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), (40, 60)) for _ in range(count)]


@pytest.mark.parametrize("name", HEADS)
def test_predictions_are_those_without_them(name: str, make_targets: MakeTargets) -> None:
    alone, beside = build("heads", name, SPEC, 4).eval(), taught(name).eval()
    added = beside.load_state_dict(alone.state_dict(), strict=False)
    assert added.unexpected_keys == []
    assert all(key.startswith("auxiliary.") for key in added.missing_keys)
    inputs = maps(batch=2), padding(3)[:2], None, valid_sizes(3)[:2]
    outputs = alone(*inputs), beside(*inputs)
    assert outputs[1].taught == Taught()
    for one, other in zip(*(head.decode(x) for head, x in zip((alone, beside), outputs, strict=True)), strict=True):
        if one is not None:
            assert torch.equal(one, other)
    # The terms of the decoder too; those of noised objects and of sampled points are drawn anew.
    targets = [target._replace(seed=3) for target in make_targets([3, 1], size=(40, 60))]
    terms = []
    for head in (alone, beside):
        terms.append(head.loss(head(inputs[0], inputs[1], targets, inputs[3]), targets))
    for term, value in terms[0].items():
        torch.testing.assert_close(terms[1][term], value)
    more = set(terms[1]) - set(terms[0])
    assert {"faster_rcnn_objectness", "faster_rcnn_cross_entropy", "atss_giou", "l1_faster_rcnn", "giou_atss_0"} <= more
    assert all("faster_rcnn" in term or "atss" in term for term in more)


@pytest.mark.parametrize("counts", [[0, 0], [2, 0]])
@pytest.mark.parametrize("name", HEADS)
def test_everything_is_reached(name: str, counts: list[int], make_targets: MakeTargets) -> None:
    head, targets = taught(name).train(), make_targets(counts, size=(40, 60))
    output = head(maps(batch=2), padding(3)[:2], targets, valid_sizes(3)[:2])
    assert [group.chosen.valid.sum(1).min().item() for group in output.taught.groups] == [9, 9]
    torch.stack(list(head.loss(output, targets).values())).sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", HEADS)
def test_their_layers_of_classes_are_named(name: str) -> None:
    """All tensors whose shape follows from the number of classes are those of named layers."""
    heads = {}
    for num_classes in (4, 5):
        heads[num_classes] = head = build(
            "heads", name, SPEC, num_classes, **{"supervision.auxiliary": ("faster_rcnn", "atss")}
        )
        spec = head.auxiliary_spec()
        head.add_auxiliary({one: build("heads", one, spec, num_classes) for one in ("faster_rcnn", "atss")})
    other = heads[5].state_dict()
    changed = {key.rpartition(".")[0] for key, x in heads[4].state_dict().items() if x.shape != other[key].shape}
    assert changed == set(heads[4].class_rows())


def test_losses_have_the_weight_of_the_option(make_targets: MakeTargets) -> None:
    targets = [target._replace(seed=1) for target in make_targets([2, 1], size=(40, 60))]
    terms = []
    for weight in (1.0, 3.0):
        head = taught("rtdetr", **{"supervision.auxiliary_weight": weight}).eval()
        terms.append(head.loss(head(maps(batch=2), padding(3)[:2], targets, valid_sizes(3)[:2]), targets))
    for term, value in terms[0].items():
        ratio = 3.0 if term.startswith(("faster_rcnn_", "atss_")) else 1.0
        torch.testing.assert_close(terms[1][term], ratio * value)


def test_candidates_with_an_object_come_first_and_background_fills_up() -> None:
    objects = torch.tensor([[0, BACKGROUND, 1, IGNORED, BACKGROUND, 1, 0], [BACKGROUND] * 3 + [IGNORED] * 4])
    targets = [target._replace(seed=seed) for seed, target in enumerate(no_objects(2))]
    chosen = choose_candidates(objects, targets, (4, 6))
    assert chosen.valid.tolist() == [[True] * 4, [True] * 3 + [False]]
    assert chosen.indices[0].tolist() == [0, 2, 5, 6]
    assert chosen.objects.tolist() == [[0, 1, 1, 0], [BACKGROUND] * 4]
    assert sorted(chosen.indices[1, :3].tolist()) == [0, 1, 2]
    # As many as there may be, drawn by the seed of each image alone.
    chosen = choose_candidates(objects, targets, (1, 2))
    assert chosen.valid.tolist() == [[True, True], [True, False]]
    assert set(chosen.indices[0].tolist()) < {0, 2, 5, 6}
    again = choose_candidates(objects[1:], targets[1:], (1, 2))
    assert again.indices[0, 0] == chosen.indices[1, 0]


def test_queries_that_fill_up_are_seen_by_themselves_alone() -> None:
    assert block_filled(torch.tensor([[True, True]]), 2) is None
    blocked = block_filled(torch.tensor([[True, True], [True, False]]), 2)
    assert blocked is not None
    assert blocked[:2].tolist() == [[[False, False], [False, False]]] * 2
    assert blocked[2:].tolist() == [[[False, True], [False, False]]] * 2


@pytest.mark.parametrize("kind", [ATSS, FCOS, RetinaNet])
def test_features_of_anchors_are_those_of_their_cells(kind: type[ATSS]) -> None:
    head, features = kind(SPEC, 2, num_convs=0), maps(batch=1)
    output, targets = head(features), no_objects(1)
    boxes, indices = head.list_candidates(output, targets).boxes, torch.tensor([[0, 40, 220]])
    vectors = head.candidate_features(output, features, indices)
    assert vectors.shape[-1] == head.candidate_channels
    projected = head.input_projection(features)
    for index, vector in zip(indices[0].tolist(), vectors[0], strict=True):
        box = boxes[0, index]
        level = next(i for i, one in enumerate(output.anchors) if (one == box).all(1).any())
        center = ((box[:2] + box[2:]) / 2 / head.strides[level] + 1e-4).floor().long()
        torch.testing.assert_close(vector, projected[level][0, :, center[1], center[0]])


def build_small(auxiliary: Any) -> Any:
    overrides = {"image_size": 64, "head.auxiliary": auxiliary, "backbone.width": 8, "neck.hidden_dim": 32}
    overrides |= {"head.hidden_dim": 32, "neck.num_heads": 4, "head.num_heads": 4}
    return boxwright.build("rtdetr_tiny", num_classes=3, overrides=overrides)


def test_the_gradient_of_one_image_does_not_depend_on_the_layout_of_memory() -> None:
    """That of cells in a row may have strides, for a batch of one, that norms before them misread."""
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        detector = build_small({"atss": {"num_convs": 1}}).double().eval().to(memory_format=layout)
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
        targets = [Targets(torch.tensor([1]), torch.tensor([[3.0, 4, 50, 30]]).double(), (64, 64), seed=0)]
        output = detector(images.contiguous(memory_format=layout), None, targets)
        torch.stack(list(detector.loss(output, targets).values())).sum().backward()
        gradients.append(next(detector.backbone.parameters()).grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("auxiliary", [SMALL, str(SMALL), "[atss, fcos]", ["retinanet"]], ids=str)
def test_a_file_has_them_and_their_options(auxiliary: Any, tmp_path: Path) -> None:
    detector = build_small(auxiliary)
    detector.save(tmp_path / "model.safetensors")
    loaded = boxwright.load(tmp_path / "model.safetensors")
    assert loaded.recipe == detector.recipe
    assert list(loaded.head.auxiliary.heads) == list(detector.head.auxiliary.heads)
    state = loaded.state_dict()
    assert state.keys() == detector.state_dict().keys()
    assert all(torch.equal(state[key], x) for key, x in detector.state_dict().items())


@pytest.mark.parametrize(
    ("auxiliary", "message"),
    [
        (["atts"], "did you mean 'atss'?"),
        (["atss", "atss"], "names of their own"),
        (["detr"], "a dense or a two-stage one"),
        ({"atss": {"num_conv": 1}}, "head.supervision.auxiliary.atss.num_conv: unknown"),
        ({"atss": {"top_k": 0}}, "top_k is at least 1"),
        (["my_module:Head"], "unknown head"),
    ],
)
def test_mistakes_are_told_in_one_line(auxiliary: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        build_small(auxiliary)
    assert "\n" not in str(error.value)


def test_heads_that_are_not_there_are_named() -> None:
    head = build("heads", "rtdetr", SPEC, 4, **{"supervision.auxiliary": ("atss",)})
    with pytest.raises(ValueError, match=re.escape("the auxiliary heads (atss) are not there")):
        head(maps(batch=1), None, no_objects(1))
    with pytest.raises(ValueError, match=re.escape("that supervision.auxiliary names")):
        head.add_auxiliary({"fcos": FCOS(head.auxiliary_spec(), 4)})
    with pytest.raises(ValueError, match="auxiliary_queries"):
        build("heads", "rtdetr", SPEC, 4, **{"supervision.auxiliary_queries": (10, 9)})


def test_the_levels_are_the_decoders_and_a_coarser_one() -> None:
    spec = taught("rtdetr").auxiliary_spec()
    assert list(spec) == [*levels_for_head([SPEC]), "c6"]
    assert spec["c6"].stride == 64
    assert TWO_STAGES["channels"] == 16
