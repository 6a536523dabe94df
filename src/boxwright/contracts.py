"""The contracts of parts: what every backbone, neck and head has, and what some may have besides.

The detector, the workflows and the contract tests ask for nothing that is not declared here: no class, no option and
no child is looked up by its name. A capability is asked for by ``isinstance`` with one of the protocols below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.mechanism import CellAttention, Mechanism
from boxwright.recorded import Recorded
from boxwright.structures import (
    AnchorFits,
    Candidates,
    ClassRows,
    Decoded,
    Features,
    LossTotals,
    MaskRegion,
    ObjectLimit,
    ResidualBlock,
    SelectionQuality,
    Spec,
    Targets,
    Task,
    TeacherMaps,
)


class Backbone(Protocol):
    """Images to levels."""

    out_spec: Spec

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        """Maps of the levels of ``out_spec``, each of ceil(size / stride) cells."""


class Neck(Protocol):
    """Levels to levels. Auxiliary levels pass it by: its ``in_spec`` has none."""

    out_spec: Spec

    def __call__(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        """Maps of the levels of ``out_spec``; ``padding_mask`` is True on padding, None where there is none.

        A level that is finer than all that come in has a whole multiple of their cells: the image's size is not known.
        """


class Head(Protocol):
    """Levels to an output of the head's own type, which only its ``loss`` and ``decode`` look into."""

    def __call__(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> Any:
        """Predict; with ``targets`` also what ``loss`` needs.

        Args:
            features: maps of all levels.
            padding_mask: True on padding, None where there is none.
            targets: one per image, where the output is for ``loss``.
            valid_sizes: (height, width) of each image inside its padding, or of all, in pixels of the network input;
                read off ``padding_mask``, or else the finest map, where None.
        """

    def loss(self, output: Any, targets: Sequence[Targets], totals: LossTotals | None = None) -> dict[str, Tensor]:
        """Weighted, named terms, whose sum is trained on; of an output that was made with the same targets."""

    def decode(self, output: Any) -> Decoded:
        """Detections of fixed shape, best first, of an output with or without targets.

        No loop over images and no shape that depends on data: ``torch.export`` traces it. What is not a number in the
        output is not a number in the scores.
        """


@runtime_checkable
class DetectorRecipe(Protocol):
    """A resolved recipe, as far as a detector knows it."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as checkpoints have them."""


@runtime_checkable
class TaskHead(Protocol):
    """A head whose class says what it is trained for; others are for detection."""

    task: Task


@runtime_checkable
class MaskHead(Protocol):
    """A head that may be trained on masks, and then predicts them; its options decide.

    ``mask_region`` tells what its masks are of, and so how they are pasted: the box of each detection, or the image.
    It is None where there are none.
    """

    mask_region: MaskRegion | None


@runtime_checkable
class UncertainHead(Protocol):
    """A head that predicts how far each side of a box may be off."""

    def measure_sides_std(self, output: Any) -> Float[Tensor, "b n 4"]:
        """Measure the standard deviations of the sides (x1, y1, x2, y2) of what ``decode`` returns, in its units."""


@runtime_checkable
class MatchCountingHead(Protocol):
    """A head whose losses are divided by the number of predictions that are matched with objects."""

    def count_matches(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> int:
        """Count the predictions that are matched with an object, at a network input of this (height, width)."""


@runtime_checkable
class MatchWeighingHead(Protocol):
    """A head with a loss that is divided by a sum of weights of the predictions that are matched with objects."""

    def weigh_matches(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> float:
        """Add up the weights of the matched predictions, at a network input of this (height, width)."""


@runtime_checkable
class AssigningHead(Protocol):
    """A head whose losses may be divided by a number of matches that only its predictions tell; its options decide.

    Its ``loss`` counts those of its own output where ``LossTotals.matches`` is None.
    """

    divides_by_assigned: bool

    def assign(self, output: Any, targets: Sequence[Targets]) -> Any:
        """Assign predictions to objects; return the output with the assignment, from which ``loss`` goes on."""

    def count_assigned(self, output: Any) -> int:
        """Count the assigned predictions of such an output."""


@runtime_checkable
class CandidateHead(Protocol):
    """A head that tells which boxes it is trained on, so that it can be an auxiliary head of another one.

    ``candidate_channels`` is the width of the features of these boxes.
    """

    @property
    def candidate_channels(self) -> int: ...

    def list_candidates(self, output: Any, targets: Sequence[Targets]) -> Candidates:
        """List the boxes that it is trained on, of an output that was made with the same targets."""

    def candidate_features(
        self, output: Any, features: Features, indices: Int[Tensor, "b q"]
    ) -> Float[Tensor, "b q c"]:
        """Extract the features that these boxes are predicted from.

        Args:
            output: that they were listed of.
            features: that the output was made of.
            indices: of the boxes.
        """


@runtime_checkable
class TaughtHead(Protocol):
    """A head that may have auxiliary heads beside it in training, which its options name."""

    def auxiliary_options(self) -> Mapping[str, Mapping[str, Any]]:
        """List the auxiliary heads, by their names, with their options; nothing where there are none."""

    def auxiliary_spec(self) -> Spec:
        """List the levels that they get."""

    def add_auxiliary(self, heads: Mapping[str, nn.Module]) -> None:
        """Add them by their names, built for these levels and the same classes."""

    def count_auxiliary(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> tuple[float, ...]:
        """Count what their losses are divided by: matches and the sum of their weights, head by head."""


@runtime_checkable
class DistillingHead(Protocol):
    """A head that may learn from the maps of a frozen model, which training puts into targets; its options decide."""

    @property
    def steers_distillation(self) -> bool:
        """Tell whether the weight of that loss depends on the gradient of ``SteeringNeck.steering_parameters``."""

    def teacher_maps(self) -> TeacherMaps | None:
        """Return the maps that targets have to have; None where there is nothing to learn from."""

    def steer_distillation(self, fraction: float, *, ends_epoch: bool, is_late: bool) -> None:
        """Take note of a step.

        Args:
            fraction: of the gradient that those parameters had, in [0, 1].
            ends_epoch: the step was the last of a pass over the data.
            is_late: strong augmentation had ended before this pass.
        """


@runtime_checkable
class SteeringNeck(Protocol):
    """A neck with layers whose gradient tells how much a head learns from a teacher."""

    def steering_parameters(self) -> Iterable[nn.Parameter]:
        """List their parameters."""


@runtime_checkable
class ProgressHead(Protocol):
    """A head whose losses change on the way through a training; what it was told before does not matter."""

    def set_progress(self, fraction: float, steps_from_scratch: int | None = None) -> None:
        """Prepare for a step at this fraction, in [0, 1), so many steps after random weights, if they were."""


@runtime_checkable
class SelectingHead(Protocol):
    """A head whose queries are selected, and can be judged before any decoder."""

    def selection_quality(self, output: Any, targets: Sequence[Targets]) -> SelectionQuality | None:
        """Count over the selected queries; None where this head's options select none."""


@runtime_checkable
class WorstCaseHead(Protocol):
    """A head whose training steps take longer once it has learned to detect objects."""

    def worst_case_targets(self, targets: Sequence[Targets]) -> list[Targets]:
        """Make targets that give it as much to do now, for measuring how long a step will take."""


@runtime_checkable
class LimitedHead(Protocol):
    """A head that can detect only so many objects in an image."""

    def object_limits(self) -> Sequence[ObjectLimit]:
        """List the options that limit how many objects are detected."""

    def raise_limits(self, max_detections: int) -> None:
        """Make room for so many detections of an image, as far as that needs no other weights."""


@runtime_checkable
class AnchorHead(Protocol):
    """A head whose anchors are matched with objects by their IoU, so that they should have the objects' shapes."""

    def anchor_fits(self, boxes: Float[Tensor, "n 4"], input_size: tuple[int, int]) -> AnchorFits | None:
        """Compare boxes in pixels of a padded network input of this (height, width) with all anchors.

        None where this head's options match them otherwise.
        """


@runtime_checkable
class ClassifyingHead(Protocol):
    """A head with layers that have rows for each class, which another one can begin with, class by class."""

    def class_rows(self) -> Mapping[str, ClassRows]:
        """List the modules whose tensors have such rows, all alike, by their names within the head."""


@runtime_checkable
class ExplainingHead(Protocol):
    """A head that tells where a detection comes from, by its own mechanism."""

    def recorded_modules(self) -> Iterable[nn.Module]:
        """List the modules whose calls ``explain`` needs; they are recorded while an output is made."""

    def explain(self, output: Any, recorded: Recorded, detection: int) -> Mechanism:
        """Explain a detection by the output that it was decoded from.

        Args:
            output: of one image, without targets.
            recorded: calls of ``recorded_modules`` that made this output.
            detection: index among the detections that ``decode`` makes of this output.

        Returns:
            an origin with the box, label and score of that detection; positions are in pixels of the network input.
        """


@runtime_checkable
class AttendingNeck(Protocol):
    """A neck whose cells attend to each other, which can be shown."""

    def recorded_modules(self) -> Iterable[nn.Module]:
        """List the modules whose calls ``explain_cell`` needs; they are recorded while an output is made."""

    def explain_cell(
        self, recorded: Recorded, point: tuple[float, float], level: str | None = None
    ) -> Sequence[CellAttention]:
        """List the attention of a cell in each layer, first to last; nothing where this neck's options have none.

        Args:
            recorded: calls of ``recorded_modules``, of one image.
            point: (x, y) in the cell, in pixels of the network input.
            level: of the cell; the coarsest where that does not attend, or where None.
        """


@runtime_checkable
class CountedAsPublished(Protocol):
    """A module whose published graph computes more than ours; set while multiply-adds are counted."""

    count_as_published: bool


@runtime_checkable
class FoldsNorms(Protocol):
    """A module that can put its norms, and branches that add up to one convolution, into convolutions."""

    def fold_norms(self) -> None:
        """Do so, in place, for inference; once or more often."""


@runtime_checkable
class FrozenStatistics(Protocol):
    """A norm whose statistics are constants, which are loaded and never learned."""

    def is_fresh(self) -> bool:
        """Tell whether nothing was loaded yet, so that nothing is normalized."""


@runtime_checkable
class ResidualBackbone(Protocol):
    """A backbone of residual blocks, in which a layer that was not loaded makes those that follow it meaningless."""

    def residual_blocks(self) -> Iterable[ResidualBlock]:
        """List the blocks, with their layers in the order of execution."""


@runtime_checkable
class SizedBackbone(Protocol):
    """A backbone with tables of positions that are made for one size of the network input.

    Its class says so: a recipe's input size is given to the option of this name, unless the recipe or the user states
    it.
    """

    size_option: str


@runtime_checkable
class ResizedTables(Protocol):
    """A module whose weights are tables of positions; those of another size are interpolated when they are loaded."""

    def fits_table(self, name: str, shape: Sequence[int]) -> bool:
        """Tell whether a tensor of this shape can be loaded as the table of this name."""


@runtime_checkable
class SizedOutput(Protocol):
    """An output of a head, a named tuple, with the sizes of the images inside their padding, which boxes are cut to."""

    @property
    def valid_sizes(self) -> Float[Tensor, "#b 2"]:
        """(height, width) of each image, or of all, in pixels of the network input."""

    def _replace(self, **changes: Any) -> Any:
        """Copy with other values."""


@runtime_checkable
class RepeatedBackbone(Protocol):
    """A backbone that holds several copies of another one, all of which can begin with the same weights."""

    def copies(self) -> Iterable[tuple[str, Any]]:
        """List the copies by their names in the checkpoint."""


def count_totals(head: object, targets: Sequence[Targets], input_size: tuple[int, int]) -> LossTotals:
    """Count what the losses of a head divide by; counts of parts of a step add up.

    Args:
        head: of any kind; contracts that it keeps say what is counted beside objects and images.
        targets: one per image.
        input_size: (height, width) of the network input.
    """
    seen = targets, input_size
    matches = head.count_matches(*seen) if isinstance(head, MatchCountingHead) else None
    weights = head.weigh_matches(*seen) if isinstance(head, MatchWeighingHead) else None
    auxiliary = head.count_auxiliary(*seen) if isinstance(head, TaughtHead) else ()
    return LossTotals.of(targets)._replace(matches=matches, match_weights=weights, auxiliary=auxiliary)
