"""Passports of trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from boxwright.passport import Passport, TrainingData
from boxwright.training.run import Run
from boxwright.version import __version__
from boxwright.weights.files import file_sha256
from boxwright.weights.model import ModelWeights
from boxwright.workflows.reading import Data, data_name


def training_passport(run: Run, data: Data, parent: ModelWeights | None = None) -> Passport:
    """Make the passport of a run, before anything is measured.

    Args:
        run: about to begin.
        data: as the user named it.
        parent: the detector that training begins with.
    """
    source = run.data.source
    return Passport(
        version=__version__,
        recipe=run.recipe.name,
        data=TrainingData(
            name=data_name(data),
            num_images=len(run.data.records),
            sha256=file_sha256(source) if source.is_file() else None,
        ),
        parent=None if parent is None else parent_passport(parent),
    )


def parent_passport(model: ModelWeights) -> Passport:
    """Make the parent's passport for a detector that is trained on from a model; its file is named and hashed."""
    passport, origin = model.passport, model.origin
    if passport.origin is not None:
        return passport
    if origin.sha256 is None and Path(origin.source).is_file():
        origin = replace(origin, sha256=file_sha256(Path(origin.source)))
    return replace(passport, origin=origin)
