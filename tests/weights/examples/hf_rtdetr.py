"""Examples of files of RT-DETR of Hugging Face."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "model.encoder_input_proj.0.0.weight",
            "model.enc_score_head.weight",
            "model.backbone.model.embedder.embedder.0.convolution.weight",
            "model.decoder.class_embed.0.weight",
            config={"model_type": "rt_detr"},
        )
    ]
