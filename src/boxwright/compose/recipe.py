"""A recipe whose parts and options are known and checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from boxwright.compose.parts import find_part
from boxwright.compose.train_options import TrainOptions
from boxwright.compose.values import plain
from boxwright.contracts import TaskHead
from boxwright.data.transforms.augment import Augmentation
from boxwright.structures import Task
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.printable_names import one_line_errors

SECTIONS: Mapping[str, type[Any]] = {"input": InputFormat, "augment": Augmentation, "train": TrainOptions}
"""The class of each section that is not a part."""


@dataclass(frozen=True)
class PartOptions:
    """A part by its name, and its options.

    Args:
        name: the name of its file, or ``package.module:Class``.
        options: all arguments of its constructor that are options, checked; groups as instances of their classes.
    """

    name: str
    options: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values."""
        return {"name": self.name, **plain(self.options)}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A detector and its training: every part with every option, parsed and checked.

    ``resolve`` makes one of a file, ``Recipe.from_dict`` of the plain values in a checkpoint, ``to_dict`` these values.

    Args:
        backbone: images to levels.
        necks: levels to levels, in order.
        head: levels to detections.
        input: size and normalization of the network input.
        augment: random changes of training images.
        train: options of training.
        name: of the recipe that it was resolved from; no part of it, and not stored.
    """

    backbone: PartOptions
    necks: tuple[PartOptions, ...]
    head: PartOptions
    input: InputFormat
    augment: Augmentation
    train: TrainOptions
    name: str | None = field(default=None, compare=False)

    @property
    def task(self) -> Task:
        """The task of the head, which its class states as ``task``; detection where it states none."""
        head = find_part("heads", self.head.name)
        return head.task if isinstance(head, TaskHead) else "detection"

    def parts(self) -> dict[str, PartOptions]:
        """List the parts by their address in a recipe: ``backbone``, ``neck`` or ``neck.0``, ``neck.1``, ``head``."""
        chained = len(self.necks) > 1
        necks = {f"neck.{i}" if chained else "neck": neck for i, neck in enumerate(self.necks)}
        return {"backbone": self.backbone, **necks, "head": self.head}

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as recipe files and checkpoints have them."""
        return {
            "backbone": self.backbone.to_dict(),
            "neck": [neck.to_dict() for neck in self.necks],
            "head": self.head.to_dict(),
            "input": plain(self.input),
            "augment": plain(self.augment),
            "train": plain(self.train),
        }

    @classmethod
    @one_line_errors()
    def from_dict(cls, content: Mapping[str, Any], *, trusted: Collection[str] | None = ()) -> Recipe:
        """Parse and check plain values; options without a value take their defaults.

        Args:
            content: sections by name.
            trusted: modules that may be imported for parts outside Boxwright, besides those that are imported already;
                None for all.

        Raises:
            ValueError: an unknown part or option, a value of the wrong type, a missing section, in one line.
        """
        # Here, not above: a draft becomes a recipe.
        from boxwright.compose.draft import Draft

        return Draft(content, "recipe").parse(trusted)


def check_task(recipe: Recipe) -> None:
    """Raise ``ValueError`` for options that would make the targets of the recipe's task wrong, in one line."""
    task, augmentation = recipe.task, recipe.augment
    wrong = []
    if task == "classification" and augmentation.iou_crop:
        wrong.append("augment.iou_crop to 0 (it looks for objects, and a classifier's are whole images)")
    if task == "detection" and recipe.input.resize == "center_crop":
        wrong.append("input.resize to square or shortest_side (center_crop hides the rim of images)")
    if task == "detection" and augmentation.rand_augment[0]:
        wrong.append("augment.rand_augment to 0,0 (it turns images without their boxes)")
    mixed = [f"augment.{name}" for name in ("mosaic", "mixup", "copy_blend") if getattr(augmentation, name)]
    if task == "classification" and mixed:
        wrong.append(f"{', '.join(mixed)} to 0 (a classifier's image is of one class)")
    if wrong:
        raise ValueError(f"for {task}, set {', and '.join(wrong)}")
