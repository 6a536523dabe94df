"""Detectors behind a service answer as ``boxwright.predict`` does; real images, several at a time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

import boxwright
from asgi_requests import Answered
from boxwright.detector import Detector
from boxwright.serving.served_model import ServedModel, open_model
from service_client import Client, run_service


def served(model: Path | Detector, images: list[Path]) -> list[Answered]:
    async def ask(client: Client) -> list[Answered]:
        return await asyncio.gather(*(client.ask("/predict?threshold=0.05", one.read_bytes()) for one in images))

    return run_service(open_model(model), ask)


@pytest.mark.parametrize("kind", ["detector", "exported"])
def test_answers_are_those_of_predict(
    kind: str, rectangle_run: Path, rectangle_file: Path, rectangles: Path, tmp_path: Path
) -> None:
    model = rectangle_run if kind == "detector" else rectangle_file
    images = sorted((rectangles / "images").glob("val*"))[:6]
    assert len(images) == 6
    boxwright.predict(model, [str(one) for one in images], threshold=0.05, json=tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows
    for image, answer in zip(images, served(model, images), strict=True):
        expected = [row for row in rows if row["file_name"] == image.name]
        actual = answer.content["images"][0]["detections"]
        assert [row["category_id"] for row in actual] == [row["category_id"] for row in expected]
        for key, tolerance in (("score", 1e-3), ("bbox", 0.1)):
            np.testing.assert_allclose([row[key] for row in actual], [row[key] for row in expected], atol=tolerance)


def test_facts_of_a_detector(make_detector: object) -> None:
    assert callable(make_detector)
    model = open_model(make_detector())
    assert isinstance(model, ServedModel)
    facts = json.loads(json.dumps(model.describe()))
    assert facts["task"] == "detection"
    assert facts["runtime"].startswith("torch")
    assert len(facts["categories"]) == len(model.categories)
