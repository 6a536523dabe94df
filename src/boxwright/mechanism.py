"""Explanation of a detection by the mechanism of its head: where it comes from, and what became of it on the way.

Positions and boxes are in pixels of the network input as a head states them; ``move_positions`` brings them elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from boxwright.mechanism_levels import POSITIONS, LevelCell, LevelMap

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class QuerySamples:
    """Points that a query sampled from the levels, of every attention head.

    Args:
        points: (x, y).
        weights: of attention, which add up to 1 over the points of a head.
        levels: index of each point's level among ``level_names``.
        level_names: fine to coarse.
    """

    points: Float[Tensor, "m p 2"] = field(metadata=POSITIONS)
    weights: Float[Tensor, "m p"]
    levels: Int[Tensor, " p"]
    level_names: tuple[str, ...]

    def level_weights(self) -> dict[str, float]:
        """Sum the weights of each level, as fractions of 1."""
        mean = self.weights.mean(0)
        return {name: float(mean[self.levels == index].sum()) for index, name in enumerate(self.level_names)}


@dataclass(frozen=True, eq=False)
class CellAttention:
    """Attention of a cell in a layer of an encoder: to all cells, or to the points that it sampled.

    Args:
        layer: from 0.
        cell: that attends.
        maps: weight of each cell, by level, the mean over attention heads; all together add up to 1.
        samples: in place of maps, of deformable attention.
    """

    layer: int
    cell: LevelCell
    maps: Mapping[str, LevelMap] = field(default_factory=dict)
    samples: QuerySamples | None = None


@dataclass(frozen=True, eq=False)
class TokenProposal:
    """The encoder's cell that became a query.

    Args:
        cell: of the encoder's output.
        rank: among all cells, from 1.
        score: that the cells were ranked by, in [0, 1].
        box: proposed by the cell.
    """

    cell: LevelCell
    rank: int
    score: float
    box: Float[Tensor, " 4"] = field(metadata=POSITIONS)


@dataclass(frozen=True, eq=False)
class QueryLayer:
    """A query in a layer of the decoder.

    Args:
        reference: box that the layer starts from, or point (x, y); None where queries have neither.
        box: that is predicted after the layer.
        scores: of the classes, after the layer, in [0, 1].
        self_attention: weight of each query, the mean over attention heads; they add up to 1.
        samples: of deformable attention to the levels.
        maps: of dense attention: weight of each cell, by level; all together add up to 1.
    """

    reference: Float[Tensor, " r"] | None = field(metadata=POSITIONS)
    box: Float[Tensor, " 4"] = field(metadata=POSITIONS)
    scores: Float[Tensor, " k"]
    self_attention: Float[Tensor, " q"]
    samples: QuerySamples | None = None
    maps: Mapping[str, LevelMap] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Candidates of a detection's class that overlap it, and whose scores NMS lowered or that it removed.

    Args:
        boxes: of each.
        scores: before, in [0, 1].
        overlaps: IoU with the detection.
        factors: of the scores; 0 for those that were removed.
    """

    boxes: Float[Tensor, "n 4"] = field(metadata=POSITIONS)
    scores: Float[Tensor, " n"]
    overlaps: Float[Tensor, " n"]
    factors: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class AnchorOrigin:
    """The anchor that something was predicted from.

    Args:
        cell: that it belongs to.
        index: among the anchors of the cell, from 0.
        num_anchors: of a cell.
        box: of the anchor; a square of a cell's size around it where the head has points.
    """

    cell: LevelCell
    index: int
    num_anchors: int
    box: Float[Tensor, " 4"] = field(metadata=POSITIONS)


@dataclass(frozen=True, eq=False)
class RegionProposal:
    """The proposal of the first stage that a detection comes from.

    Args:
        anchor: that it was predicted from.
        rank: among the proposals of the image, from 1.
        objectness: in [0, 1].
        box: proposed.
        neighbors: anchors of its level that NMS removed in its favor.
    """

    anchor: AnchorOrigin
    rank: int
    objectness: float
    box: Float[Tensor, " 4"] = field(metadata=POSITIONS)
    neighbors: Neighbors


@dataclass(frozen=True, eq=False)
class RegionStage:
    """A region in a box branch of the second stage.

    Args:
        region: that features were extracted from.
        box: predicted from them, of the detection's class.
        scores: of the classes, in [0, 1].
        level_weights: fraction of the features that comes from each level; they add up to 1, but for extractors that
            weigh each level by itself.
    """

    region: Float[Tensor, " 4"] = field(metadata=POSITIONS)
    box: Float[Tensor, " 4"] = field(metadata=POSITIONS)
    scores: Float[Tensor, " k"]
    level_weights: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mechanism:
    """Origin of a detection; which kind of origin depends on the head's family.

    Args:
        box: of the detection, as its head states it.
        label: its class.
        score: in [0, 1].
    """

    kind: ClassVar[str]

    box: Float[Tensor, " 4"] = field(metadata=POSITIONS)
    label: int
    score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryMechanism(Mechanism):
    """The query of a detection, from layer to layer.

    Args:
        query: its index.
        proposal: that it was selected by; None where the query is a learned one.
        layers: of the decoder.
        query_boxes: of all queries, after the last layer.
        query_labels: best class of each.
        query_scores: of that class.
        query_detections: index of the best detection of each query, -1 where it has none.
        side_range: the corners of the box, each moved by a standard deviation of its side to smaller, then to larger x
            and y; None where the head predicts no distributions.
    """

    kind = "query"

    query: int
    proposal: TokenProposal | None
    layers: tuple[QueryLayer, ...]
    query_boxes: Float[Tensor, "q 4"] = field(metadata=POSITIONS)
    query_labels: Int[Tensor, " q"]
    query_scores: Float[Tensor, " q"]
    query_detections: Int[Tensor, " q"]
    side_range: Float[Tensor, "2 4"] | None = field(default=None, metadata=POSITIONS)


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseMechanism(Mechanism):
    """The anchor or point of a detection, and its neighbors.

    Args:
        anchor: that it was predicted from.
        rank: among the candidates of the image before NMS, from 1.
        class_score: probability of the class, in [0, 1].
        centerness: likewise; None where the head has none.
        neighbors: that it suppressed.
        suppressed_by: better detections that lowered its score (soft NMS).
    """

    kind = "dense"

    anchor: AnchorOrigin
    rank: int
    class_score: float
    centerness: float | None
    neighbors: Neighbors
    suppressed_by: Neighbors


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoStageMechanism(Mechanism):
    """The proposal of a detection, its way through the box branches, and its neighbors.

    Args:
        proposal: of the first stage.
        stages: box branches, in order.
        rank: among the candidates of the image before the last NMS, from 1.
        neighbors: that NMS removed in its favor.
    """

    kind = "two_stage"

    proposal: RegionProposal
    stages: tuple[RegionStage, ...]
    rank: int
    neighbors: Neighbors


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifierMechanism(Mechanism):
    """Contributions of all cells to the logit of a class.

    Args:
        logit: of the class.
        bias: part of the logit that no cell contributes.
        maps: contribution of each cell, by level; with the bias they add up to the logit.
    """

    kind = "classifier"

    logit: float
    bias: float
    maps: Mapping[str, LevelMap]


def move_positions(explanation: _T, move: Callable[[Tensor], Tensor]) -> _T:
    """Copy an explanation, or a part of one, with all of its positions moved.

    Args:
        explanation: one of the dataclasses of this module.
        move: called with points (..., 2) and corner boxes (..., 4).
    """
    assert is_dataclass(explanation)
    assert not isinstance(explanation, type)
    changes = {one.name: _move(value, move, one.metadata == POSITIONS) for one, value in _values(explanation)}
    moved: _T = replace(explanation, **changes)
    return moved


def to_plain_values(value: Any) -> Any:
    """Convert an explanation to values that JSON has: fields by name, tensors as nested lists."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": value.kind} if isinstance(value, Mechanism) else {}
        return kind | {one.name: to_plain_values(own) for one, own in _values(value)}
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: to_plain_values(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain_values(own) for own in value]
    return value


def _values(explanation: Any) -> Iterator[tuple[Any, Any]]:
    own = vars(explanation)
    return ((one, own[one.name]) for one in fields(explanation))


def _move(value: Any, move: Callable[[Tensor], Tensor], is_position: bool) -> Any:
    if isinstance(value, Tensor):
        return move(value) if is_position else value
    if isinstance(value, tuple):
        return tuple(_move(one, move, is_position) for one in value)
    if isinstance(value, Mapping):
        return {name: _move(own, move, is_position) for name, own in value.items()}
    return move_positions(value, move) if is_dataclass(value) else value
