"""Files of EdgeCrafter's authors: read and written, with and without masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import boxwright
from boxwright.detector import Detector
from boxwright.heads.dfine import DFINE
from boxwright.weights.files import read_source_files
from boxwright.weights.sources.ecdet import AuthorsECDet
from parity.formula import uniform
from weights.compared import Recorder
from weights.sources.stored_detections import (
    DATA,
    NUM_QUERIES,
    SIZE,
    assert_same_model,
    build_stored,
    compare_stored,
    save_layout,
)

SMALL = {"head.num_queries": 30, "image_size": 96}
STORED = "authors_ecdet_s_detections.npz"


def save(detector: Detector, path: Path) -> Path:
    return save_layout(AuthorsECDet().write(detector), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"head.masks": True, "head.bin_scale": 6.0},
        # As in size L.
        {"backbone.embed_dim": 128, "neck.0.out_channels": 64, "neck.1.hidden_dim": 64, "head.hidden_dim": 64},
    ],
)
def test_files_are_read_as_they_were_written(options: dict[str, Any], tmp_path: Path) -> None:
    detector = boxwright.build("ecdet_s", num_classes=80, overrides=SMALL | options).eval()
    again = boxwright.load(save(detector, tmp_path / "ecdet_s.pth"), overrides={"head.num_queries": 30})
    assert_same_model(again, detector)


def test_blocks_and_widths_of_the_transformer(tmp_path: Path) -> None:
    """Those of size X have wider hidden layers, which none here has."""
    files = read_source_files(save(boxwright.build("ecdet_s", num_classes=3, overrides=SMALL), tmp_path / "s.pth"))
    described = AuthorsECDet().describe(replace(files, config={"backbone": {"interaction_indexes": [4, 5]}}))
    assert described.overrides["backbone.blocks"] == [4, 5]
    hidden = "backbone.backbone.blocks.0.mlp.fc1.weight"
    wide = replace(files, tensors={**files.tensors, hidden: torch.zeros(1152, 192)})
    with pytest.raises(ValueError, match=r"are 1152 wide, as in size X, and have to be 768"):
        AuthorsECDet().describe(wide)


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "deimv2_s",
            {},
            "ECDet has the parts vit, averaged_pyramid, hybrid_encoder and dfine; this detector has vit_sta",
        ),
        (
            "ecdet_s",
            {"backbone.bare": False, "neck.1.activation": "gelu"},
            "backbone.bare is False, and has to be True there; neck.1.activation is gelu, and has to be silu there",
        ),
    ],
)
def test_what_their_code_has_not_is_not_written(recipe: str, overrides: dict[str, Any], message: str) -> None:
    detector = boxwright.build(recipe, num_classes=3, overrides=SMALL | overrides)
    with pytest.raises(ValueError, match=message):
        AuthorsECDet().write(detector)


def test_the_same_detections_and_masks(tmp_path: Path, record_comparison: Recorder) -> None:
    """The authors' code made the stored ones of files like this: weights that follow from names, our pixels.

    Their masks of the first queries, of an image of patches, are those of all blocks, as they train them: where it
    predicts, their code leaves out all but the first block.
    """
    path = save(build_stored("ecdet_s", STORED, {"head.masks": True}), tmp_path / "ecseg_s.pth")
    detector, largest = compare_stored(path, STORED)
    assert isinstance(detector.head, DFINE)
    with np.load(DATA / STORED) as numbers:
        expected = torch.from_numpy(numbers["masks"].astype(np.float32))
    with torch.no_grad():
        output: Any = detector(uniform("images", 1, 3, SIZE, SIZE).float())
    masks = output.masks.probabilities(torch.arange(NUM_QUERIES)[None])[0, : len(expected)]
    assert expected.std() > 0.02
    torch.testing.assert_close(masks, expected, rtol=0, atol=1e-3)
    project, note = (
        "Intellindust-AI-Lab/EdgeCrafter 706d037, its detections stored",
        "pixels resized by torch, not Pillow",
    )
    record_comparison("ecdet", "ecdet_s, with masks", project, largest, inputs=detector.input_format, note=note)
