"""Models to serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from service_client import GatedModel
from stand_in_export import write_stand_in


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file with masks and tuned thresholds."""
    tuning = {"thresholds": {"thing": 0.5, "quarter": 0.9}}
    return write_stand_in(tmp_path_factory.mktemp("serving") / "model.onnx", masks="box", tuning=tuning)


@pytest.fixture
def gated() -> GatedModel:
    return GatedModel()
