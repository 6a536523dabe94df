"""Examples of files of D-FINE of Hugging Face."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "model.encoder_input_proj.0.0.weight",
            "model.enc_score_head.weight",
            "model.backbone.model.embedder.stem1.convolution.weight",
            "model.decoder.pre_bbox_head.layers.0.weight",
            config={"model_type": "d_fine"},
        )
    ]
