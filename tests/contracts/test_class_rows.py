"""The rows of classes that every head declares: all that depends on the classes, in the order that it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boxwright.compose.parts import list_parts
from boxwright.contracts import ClassifyingHead
from boxwright.structures import Decoded
from boxwright.weights.classes import copy_class_rows
from part_checks import SPEC, build, maps, padding, valid_sizes
from random_weights import shake

ORDER = (3, 0, 4, 1, 2)
"""Labels there of the classes here."""
NUM_CLASSES = len(ORDER)

heads = pytest.mark.parametrize("name", list_parts("heads"))


def declared(head: Any) -> dict[str, Any]:
    """Tensors with rows of classes, by name."""
    assert isinstance(head, ClassifyingHead)
    names: dict[str, Any] = {}
    for path, form in head.class_rows().items():
        names |= {f"{path}.{name}": form for name in head.get_submodule(path).state_dict()}
    return names


def decode(head: Any) -> Decoded:
    with torch.no_grad():
        decoded: Decoded = head.decode(head(maps(), padding(), None, valid_sizes()))
    return decoded


@heads
def test_everything_that_depends_on_the_number_of_classes_is_declared(name: str) -> None:
    few, many = (build("heads", name, SPEC, count) for count in (NUM_CLASSES, NUM_CLASSES + 2))
    shapes = {key: tensor.shape for key, tensor in many.state_dict().items()}
    depending = {key for key, tensor in few.state_dict().items() if tensor.shape != shapes[key]}
    assert depending == set(declared(few))
    for key, form in declared(few).items():
        for head, count in ((few, NUM_CLASSES), (many, NUM_CLASSES + 2)):
            assert len(head.state_dict()[key]) == form.blocks * (count + form.others) * form.rows, key


@heads
def test_classes_in_another_order_are_detected_by_their_names(name: str) -> None:
    source, head = (build("heads", name, SPEC, NUM_CLASSES, seed=seed).eval() for seed in (0, 1))
    shake(source)
    head.load_state_dict(source.state_dict())
    weights, counts = source.state_dict(), (NUM_CLASSES, NUM_CLASSES)
    for key, form in declared(head).items():
        rows = copy_class_rows(torch.zeros_like(weights[key]), weights[key], form, list(enumerate(ORDER)), counts)
        assert rows is not None
        head.get_parameter(key).data.copy_(rows)
    ours, theirs = decode(head), decode(source)
    assert ours.valid.any()
    for image in range(len(ours.scores)):
        own = sort(ours, image, list(ORDER))
        expected = sort(theirs, image, list(range(NUM_CLASSES)))
        assert [label for _, label, _ in own] == [label for _, label, _ in expected]
        torch.testing.assert_close([box for *_, box in own], [box for *_, box in expected], rtol=1e-4, atol=1e-4)


def sort(decoded: Decoded, image: int, names: list[int]) -> list[tuple[float, int, torch.Tensor]]:
    """Scores, names of classes and boxes, of equal scores by the box."""
    valid = decoded.valid[image]
    rows = zip(decoded.scores[image, valid], decoded.labels[image, valid], decoded.boxes[image, valid], strict=True)
    listed = [(round(float(score), 4), names[int(label)], box) for score, label, box in rows]
    return sorted(listed, key=lambda row: (-row[0], row[1], row[2].tolist()))
