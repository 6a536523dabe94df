"""Examples of files of Deformable DETR of Hugging Face."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "model.level_embed",
            "model.encoder.layers.0.self_attn.sampling_offsets.weight",
            "model.query_position_embeddings.weight",
            "model.backbone.conv_encoder.model.conv1.weight",
            "class_embed.0.weight",
            config={"model_type": "deformable_detr"},
        )
    ]
