"""Passports of trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from boxwright.compose.recipe import Recipe
from boxwright.data.records import DetectionData
from boxwright.passport import Passport, TrainingData
from boxwright.version import __version__
from boxwright.weights.files import file_sha256
from boxwright.weights.model import ModelWeights
from boxwright.workflows.reading import Data, data_name


def training_passport(recipe: Recipe, data: Data, read: DetectionData, parent: Passport | None = None) -> Passport:
    """Make the passport of a run, before anything is measured.

    Args:
        recipe: of the run.
        data: as the user named it.
        read: the training split.
        parent: of the detector that training begins with.
    """
    return Passport(
        version=__version__,
        recipe=recipe.name,
        data=TrainingData(
            name=data_name(data),
            num_images=len(read.records),
            sha256=file_sha256(read.source) if read.source.is_file() else None,
        ),
        parent=parent,
    )


def parent_passport(model: ModelWeights) -> Passport:
    """Make the parent's passport for a detector that is trained on from a model; its file is named and hashed."""
    passport, origin = model.passport, model.origin
    if passport.origin is not None:
        return passport
    if origin.sha256 is None and Path(origin.source).is_file():
        origin = replace(origin, sha256=file_sha256(Path(origin.source)))
    return replace(passport, origin=origin)
