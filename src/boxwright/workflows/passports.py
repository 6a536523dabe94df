"""Passports of trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from boxwright.compose.recipe import Recipe
from boxwright.data.content_hash import content_sha256, images_sha256, order_sha256
from boxwright.data.records import DetectionData
from boxwright.passport import Passport, TrainingData
from boxwright.version import __version__
from boxwright.weights.backbone import SourceBackbone
from boxwright.weights.files import file_sha256
from boxwright.weights.model import ModelWeights
from boxwright.workflows.reading import Data, data_name


def training_passport(
    recipe: Recipe,
    data: TrainingData,
    validation: TrainingData | None = None,
    *,
    parent: ModelWeights | None = None,
    backbone: SourceBackbone | None = None,
) -> Passport:
    """Make the passport of a run, before anything is measured.

    Args:
        recipe: that it is trained with.
        data: that it is trained on.
        validation: what is measured on the way.
        parent: the detector that training begins with.
        backbone: likewise, of a backbone alone.
    """
    return Passport(
        version=__version__,
        recipe=recipe.name,
        data=data,
        validation=validation,
        parent=None if parent is None else identify(parent),
        backbone=None if backbone is None else _hash_file(backbone.passport),
    )


def describe_data(read: DetectionData, data: Data) -> TrainingData:
    """Describe a split for a passport, as it was read and as the user named it."""
    source, pseudo = read.source, read.pseudo
    return TrainingData(
        name=data_name(data),
        num_images=len(read.records),
        sha256=file_sha256(source) if source.is_file() and pseudo is None else None,
        content_sha256=content_sha256(read),
        images_sha256=images_sha256(read),
        order_sha256=order_sha256(read),
        num_pseudo=0 if pseudo is None else pseudo.count,
        pseudo_weight=None if pseudo is None else pseudo.weight,
    )


def check_same_data(passport: Passport, data: TrainingData, folder: Path) -> None:
    """Make sure that a run goes on with the data that it began with; the same under another name is fine.

    Raises:
        ValueError: it is other data.
    """
    before = passport.data
    difference = None if before is None else describe_difference(before, data)
    if difference is not None:
        raise ValueError(
            f"{folder}: the run was trained {difference}; to go on with other data is fine-tuning: "
            f"leave --resume out and give --weights {folder} and another --out"
        )


def note_other_validation(passport: Passport, validation: TrainingData | None, folder: Path) -> str | None:
    """Say what a run was measured on, and what is other data now; None where nothing is known to differ.

    It may go on: it trains as it would have, but its best value so far is of other images or objects.
    """
    before = passport.validation
    if before is None or validation is None or (difference := describe_difference(before, validation)) is None:
        return None
    return (
        f"{folder}: the run was measured {difference} (split val); its best weights stay the best until others have a "
        "higher value on the new split"
    )


def describe_difference(before: TrainingData, data: TrainingData) -> str | None:
    """Say what a run was trained on, or measured, and what is other data now; None where nothing is known to differ."""
    if before.num_images != data.num_images:
        return f"on {before.num_images} images of {before.name}, and {data.name} has {data.num_images}"
    has_other_images = _differ(before.images_sha256, data.images_sha256)
    if before.has_same_content(data) is False:
        knows = before.images_sha256 is not None and data.images_sha256 is not None
        what = "annotations" if knows and not has_other_images else "images or annotations"
        return f"on {before.name}, and the {what} of {data.name} are others"
    if has_other_images:
        return f"on {before.name}, and image files of {data.name} are others, with the same names"
    of_before, of_data = ((one.num_pseudo, one.pseudo_weight) for one in (before, data))
    if of_before != of_data:
        return f"on {_describe_pseudo(before)}, and not on {_describe_pseudo(data)}"
    if _differ(before.order_sha256, data.order_sha256):
        return f"on {before.name}, and the images of {data.name} are in another order"
    return None


def _describe_pseudo(data: TrainingData) -> str:
    weight = f" of weight {data.pseudo_weight:g}" if data.num_pseudo else ""
    return f"{data.num_pseudo} images with pseudo-labels{weight}"


def _differ(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one != other


def identify(model: ModelWeights) -> Passport:
    """Return the passport of a model; one that Boxwright trained names the file that it was read from, and its hash."""
    return _hash_file(replace(model.passport, origin=model.passport.origin or model.origin))


def _hash_file(passport: Passport) -> Passport:
    """Add the hash of the file that weights were read from, which reading them alone does not need."""
    origin = passport.origin
    if origin is None or origin.sha256 is not None or not Path(origin.source).is_file():
        return passport
    return replace(passport, origin=replace(origin, sha256=file_sha256(Path(origin.source))))
