"""Tables of names: every tensor once, in both directions, and errors that name it."""

from __future__ import annotations

import pytest
import torch

from boxwright.weights.operations import Copies, Join, Operation, Permute, Reorder, Roll
from boxwright.weights.table import Constant, Row, Skip, Split, Table, TableError, Tie
from boxwright.weights.template import Template


@pytest.mark.parametrize(
    ("template", "name", "fields"),
    [
        ("a.{n}.norm1.{*}", "a.12.norm1.weight", {"n": "12", "*": "weight"}),
        ("lateral.c{n+2}.{*}", "lateral.c5.bias", {"n": "3", "*": "bias"}),
        ("body.{**}", "body.layer1.0.conv1.weight", {"**": "layer1.0.conv1.weight"}),
        ("a.{n}.{n}.x", "a.2.2.x", {"n": "2"}),
        ("a.b", "a.b", {}),
    ],
)
def test_a_template_reads_a_name_and_makes_it_again(template: str, name: str, fields: dict[str, str]) -> None:
    assert Template(template).match(name) == fields
    assert Template(template).fill(fields) == name


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("a.{n}.{n}.x", "a.2.3.x"),
        ("c{n+2}.x", "c1.x"),
        ("a.{*}", "a.b.c"),
        ("a.{n}", "a.x"),
        ("a.b", "a_b"),
        ("a.b", "a.b.c"),
    ],
)
def test_a_template_refuses_other_names(template: str, name: str) -> None:
    assert Template(template).match(name) is None


X = torch.arange(48.0).view(12, 4)


@pytest.mark.parametrize(
    ("operation", "count", "parts"),
    [
        (Copies(), 3, None),
        (Join(), 3, [X[:4], X[4:8], X[8:]]),
        (Roll(1), 1, None),
        (Permute(2), 1, None),
        (Reorder((1, 0, 3, 2)), 1, None),
    ],
    ids=["copies", "join", "roll", "permute", "reorder"],
)
def test_operations_go_both_ways(operation: Operation, count: int, parts: list[torch.Tensor] | None) -> None:
    written = operation.write(X, count)
    assert len(written) == count
    if parts is not None:
        assert all(torch.equal(*pair) for pair in zip(written, parts, strict=True))
    assert torch.equal(operation.read(written), X)


def test_what_operations_do() -> None:
    assert Roll(1).read([torch.tensor([9, 0, 1])]).tolist() == [0, 1, 9]
    assert Permute(2).read([torch.tensor([[1, 2, 3, 11, 12, 13]])]).tolist() == [[1, 11, 2, 12, 3, 13]]
    assert Reorder((1, 0, 3, 2)).read([torch.tensor([10, 20, 30, 40])]).tolist() == [20, 10, 40, 30]
    with pytest.raises(ValueError, match="differ"):
        Copies().read([torch.zeros(1), torch.ones(1)])


TABLE = Table(
    rows=(
        Row("stem.{*}", "backbone.stem.{*}"),
        Row(("q.{*}", "k.{*}", "v.{*}"), "attention.in_proj_{*}", Join()),
        Row(("head.weight", "copy.weight"), "classes.weight"),
    ),
    skips=(Skip("total_ops", "a count"),),
    own=(Skip("queries.weight", "drawn"),),
)
THEIRS = {
    "stem.weight": torch.ones(2),
    "stem.num_batches_tracked": torch.tensor(3),
    **{f"{name}.weight": torch.full((1, 2), i) for i, name in enumerate("qkv")},
    "head.weight": torch.zeros(3),
    "total_ops": torch.zeros(1),
}
OURS = {
    "backbone.stem.weight": torch.ones(2),
    "attention.in_proj_weight": torch.tensor([[0, 0], [1, 1], [2, 2]]),
    "classes.weight": torch.zeros(3),
    "queries.weight": torch.zeros(1),
}


def test_every_tensor_is_taken_or_skipped_with_a_reason() -> None:
    converted = TABLE.read(THEIRS, OURS)
    assert set(converted.tensors) == set(OURS) - {"queries.weight"}
    for name, tensor in converted.tensors.items():
        assert torch.equal(tensor, OURS[name]), name
    assert converted.skipped == {
        "total_ops": "a count",
        "stem.num_batches_tracked": "the norm is frozen here, and counts nothing",
    }
    written = TABLE.write(OURS)
    assert written.skipped == {"queries.weight": "drawn"}
    assert set(written.tensors) == {"stem.weight", "q.weight", "k.weight", "v.weight", "head.weight", "copy.weight"}
    assert torch.equal(written.tensors["k.weight"], THEIRS["k.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new.weight": torch.zeros(1)}, "new.weight is unknown"),
        ({"stem.weight": None}, "nothing there makes backbone.stem.weight"),
        ({"stem.weight": torch.zeros(3)}, r"stem.weight is \[3\] and should be \[2\]"),
        ({"stem.scale": torch.zeros(3)}, r"stem.scale has no counterpart here \(backbone.stem.scale\)"),
        ({"k.weight": None}, "only 2 of 3 tensors that belong together are there"),
        ({"copy.weight": torch.ones(3)}, "copies of one tensor differ"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, torch.Tensor | None], message: str) -> None:
    tensors = {name: tensor for name, tensor in {**THEIRS, **change}.items() if tensor is not None}
    with pytest.raises(TableError, match=message):
        TABLE.read(tensors, OURS)


def test_two_rows_for_one_tensor_are_an_error() -> None:
    table = Table(rows=(Row("{**}.conv.{*}", "a.{**}.{*}"), Row("{**}.{*}", "b.{**}.{*}")))
    with pytest.raises(TableError, match=r"short.conv.weight is explained 2 times"):
        table.read({"short.conv.weight": torch.zeros(1)}, {})
    rows = Table(rows=(Row("x", "{**}.weight"), Row("y", "a.{*}")))
    with pytest.raises(TableError, match=r"a.weight is in 2 rows"):
        rows.write({"a.weight": torch.zeros(1)})


def test_ours_without_a_row_is_an_error() -> None:
    with pytest.raises(TableError, match=r"unheard.weight has no counterpart there"):
        TABLE.write({"unheard.weight": torch.zeros(1)})


def test_what_is_one_tensor_there_is_read_into_each_of_ours() -> None:
    table = Table(rows=(Row("head.{*}", "classes.0.{*}"),), ties=(Tie("classes.{n}.{*}", "classes.0.{*}"),))
    ours = {f"classes.{i}.weight": torch.ones(2) for i in range(3)}
    assert set(table.read({"head.weight": torch.ones(2)}, ours).tensors) == set(ours)
    assert set(table.write(ours).tensors) == {"head.weight"}
    with pytest.raises(TableError, match=r"nothing there makes classes.0.weight"):
        table.read({}, ours)
    with pytest.raises(TableError, match=r"classes.2.weight differs from classes.0.weight, and they are one there"):
        table.write({**ours, "classes.2.weight": torch.zeros(2)})


def test_names_are_located_without_tensors() -> None:
    assert TABLE.locate(["stem.weight", "k.weight", "v.weight", "unheard"]) == {
        "backbone.stem.weight": "stem.weight",
        "attention.in_proj_weight": "k.weight",
    }


def test_counts_are_skipped_although_a_row_matches_their_names() -> None:
    table = Table(rows=(Row("norm.{*}", "bn.{*}"),), skips=(Skip("norm.total_ops", "a count", before_rows=True),))
    theirs = {"norm.weight": torch.ones(2), "norm.total_ops": torch.zeros(1)}
    assert table.read(theirs, {"bn.weight": torch.ones(2)}).skipped == {"norm.total_ops": "a count"}


def test_a_bias_that_the_other_project_does_not_have_is_zero() -> None:
    table = Table(rows=(Row("conv.weight", "conv.weight"),), constants=(Constant("{**}.bias", 0.0),))
    ours = {"conv.weight": torch.ones(2), "conv.bias": torch.ones(2)}
    assert table.read({"conv.weight": torch.ones(2)}, ours).tensors["conv.bias"].tolist() == [0, 0]
    assert set(table.write({**ours, "conv.bias": torch.zeros(2)}).tensors) == {"conv.weight"}
    with pytest.raises(TableError, match=r"conv.bias is not 0 everywhere, which has no counterpart there"):
        table.write(ours)


def test_one_tensor_there_may_be_several_here() -> None:
    table = Table(rows=(Row("q.0", "a"), Row("q.1", "b.0")), splits=(Split("q", 2),))
    whole = torch.arange(8.0).view(4, 2)
    converted = table.read({"q": whole}, {"a": torch.empty(2, 2), "b.0": torch.empty(2, 2)}).tensors
    assert torch.equal(converted["a"], whole[:2])
    assert torch.equal(converted["b.0"], whole[2:])
    assert {name: x.tolist() for name, x in table.write(converted).tensors.items()} == {"q": whole.tolist()}
    with pytest.raises(TableError, match=r"q is \[3, 2\], and should be 2 equal parts"):
        table.read({"q": whole[:3]}, {})
