"""Groups of queries are so many heads with one decoder: in training all of them, in prediction the first."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from boxwright.structures import Targets
from part_checks import SIZE, SPEC, VALID, build, maps, padding

GROUPS = 3

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rtdetr": ("rtdetr", {}),
    "rtdetr_vanilla": ("rtdetr", {"query_selection": "vanilla"}),
    "rtdetr_without_denoising": ("rtdetr", {"denoising.num_queries": 0}),
    "dfine": ("dfine", {}),
    "dfine_lean": ("dfine", {"decoder.design": "swiglu_shared"}),
    "dino": ("dino", {}),
    "lwdetr": ("lwdetr", {}),
    "deformable_detr": ("deformable_detr", {}),
    "deformable_detr_two_stages": ("deformable_detr", {"refine": True, "two_stage": True}),
}

cases = pytest.mark.parametrize("case", CASES)


def grouped(case: str, num_groups: int = GROUPS) -> Any:
    """Build a head whose groups differ, in float64."""
    name, options = CASES[case]
    head = build("heads", name, SPEC, 4, **options, **{"supervision.num_groups": num_groups}).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in head.named_parameters():
            if key != "denoising_classes.weight":
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return head


def names_of_group(head: Any, case: str) -> dict[str, str]:
    """List the prefixes of the first group's parameters by those of a further group, {} standing for its index."""
    if case == "deformable_detr":
        return {"groups.{}.": "queries."}
    if case == "deformable_detr_two_stages":
        last = len(head.classes) - 1
        names = {"output": "encoder_output", "classes": f"classes.{last}", "boxes": f"boxes.{last}"}
        return {f"groups.{{}}.{ours}.": f"{first}." for ours, first in names.items()}
    parts = ("classes", "boxes") if case == "dfine_lean" else ("output", "classes", "boxes")
    names = {f"group_encoders.{{}}.{part}.": f"encoder_{part}." for part in parts}
    if case in ("dino", "lwdetr"):
        names["group_contents.{}."] = "contents."
    if case == "lwdetr":
        names["group_moves.{}."] = "moves."
    return names


def one_group(head: Any, case: str, group: int) -> Any:
    """Build the head that has this group alone."""
    alone, state = grouped(case, 1), head.state_dict()
    chosen = {key: state[key] for key in alone.state_dict()}
    if group > 0:
        for ours, first in names_of_group(head, case).items():
            prefix = ours.format(group - 1)
            values = {first + key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
            assert values
            assert values.keys() <= chosen.keys()
            chosen |= values
    alone.load_state_dict(chosen)
    return alone


def run(head: Any, targets: list[Targets]) -> tuple[Any, dict[str, Tensor]]:
    torch.manual_seed(3)
    features = {name: x.double() for name, x in maps().items()}
    output = head(features, padding(), targets)
    return output, head.loss(output, targets)


@pytest.fixture
def targets(make_targets: Callable[..., Any]) -> list[Targets]:
    return [t._replace(size=size, masks=None) for t, size in zip(make_targets([3, 1], size=SIZE), VALID, strict=False)]


@cases
def test_groups_are_heads_by_themselves(case: str, targets: list[Targets]) -> None:
    head = grouped(case)
    output, terms = run(head, targets)
    assert len(head(maps_of(head), padding()).logits) == 1
    separate = [run(one_group(head, case, group), targets) for group in range(GROUPS)]
    others = output.others.layers if case.startswith("dfine") else output.others
    for group, (alone, _) in enumerate(separate):
        logits = output.logits if group == 0 else others.logits[:, 2 * group - 2 : 2 * group]
        boxes = output.boxes_cxcywh_norm if group == 0 else others.boxes_cxcywh_norm[:, 2 * group - 2 : 2 * group]
        torch.testing.assert_close(logits, alone.logits, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(boxes, alone.boxes_cxcywh_norm, rtol=1e-9, atol=1e-12)
    assert (separate[0][0].logits - separate[1][0].logits).abs().max() > 1e-3
    for name, term in terms.items():
        values = [alone[name] for _, alone in separate]
        if "denoising" in name:
            expected = values[0]
        elif case.startswith("dfine") and not name.startswith("varifocal"):
            continue  # divided by the sizes of all unions
        else:
            expected = torch.stack(values).mean()
        if not case.startswith("dfine") or not name.startswith("ddf"):
            assert term.item() == pytest.approx(expected.item(), rel=1e-9), name


@cases
def test_equal_groups_have_the_losses_of_one(case: str, targets: list[Targets]) -> None:
    head = grouped(case)
    state = head.state_dict()
    for ours, first in names_of_group(head, case).items():
        for key in state:
            if key.startswith(first):
                for group in range(GROUPS - 1):
                    state[ours.format(group) + key.removeprefix(first)] = state[key]
    head.load_state_dict(state)
    _, terms = run(head, targets)
    _, expected = run(one_group(head, case, 0), targets)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}, rel=1e-6
    )


def maps_of(head: nn.Module) -> dict[str, Tensor]:
    return {name: x.to(next(head.parameters()).dtype) for name, x in maps().items()}


@cases
def test_prediction_runs_the_first_group_alone(case: str) -> None:
    head = grouped(case)
    prediction, alone = (one(maps_of(head), padding()) for one in (head, one_group(head, case, 0)))
    assert prediction.others is None
    assert torch.equal(prediction.logits, alone.logits)
    assert torch.equal(prediction.boxes_cxcywh_norm, alone.boxes_cxcywh_norm)
    prediction.logits.sum().backward()
    further = {name for name, p in head.named_parameters() if re.match(r"group", name) and p.grad is not None}
    assert not further


@cases
def test_every_parameter_learns(case: str, targets: list[Targets]) -> None:
    """Also from images without objects, as processes wait for each other's gradients."""
    empty = [t._replace(labels=t.labels[:0], boxes=t.boxes[:0]) for t in targets]
    for objects in (targets, empty):
        head = grouped(case)
        torch.stack(list(run(head, objects)[1].values())).sum().backward()
        assert not [name for name, p in head.named_parameters() if p.requires_grad and p.grad is None]


def test_number_of_groups() -> None:
    with pytest.raises(ValueError, match="num_groups is at least 1, not 0"):
        grouped("rtdetr", 0)
