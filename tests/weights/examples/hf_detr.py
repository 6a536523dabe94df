"""Examples of DETR of Hugging Face."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make the names of DETR's files, and of its panoptic model's."""
    names = (
        "model.backbone.conv_encoder.model.conv1.weight",
        "model.encoder.layers.0.self_attn.q_proj.weight",
        "model.query_position_embeddings.weight",
        "model.input_projection.weight",
        "class_labels_classifier.weight",
        "bbox_predictor.layers.0.weight",
    )
    config = {"model_type": "detr"}
    return [example_files(*names, config=config), example_files(*(f"detr.{name}" for name in names), config=config)]
