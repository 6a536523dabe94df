"""Deformable DETR of Hugging Face: folders with the files of transformers' ``DeformableDetrForObjectDetection``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch

from boxwright.detector import Detector
from boxwright.weights.operations import Join
from boxwright.weights.projects.deformable import (
    DeformableVariant,
    assume_classes,
    attention_rows,
    describe_deformable,
    find_first_level,
    locate_tensors,
    measure_own,
    query_rows,
)
from boxwright.weights.projects.deformable_config import check_config, read_counts, write_config
from boxwright.weights.projects.detr import count_indices, weights_without_counters
from boxwright.weights.projects.huggingface import (
    DETR_PROCESSOR,
    ProcessorDefaults,
    read_categories,
    read_preprocessing,
    write_categories,
    write_preprocessing,
)
from boxwright.weights.projects.huggingface_backbone import HuggingFaceBackbone, read_backbone
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Skip, Table, Tie

__all__ = ["HuggingFaceDeformableDETR"]

_KIND = "deformable_detr"

_BACKBONE = "model.backbone.conv_encoder.model."

_PROCESSOR = ProcessorDefaults(name="DeformableDetrImageProcessor", size=DETR_PROCESSOR.size)

_ENCODER, _DECODER = "model.encoder.layers.{n}", "model.decoder.layers.{n}"


class _Heads(NamedTuple):
    """Form in which class or box heads are stored.

    Args:
        names: templates of copies of one head each.
        is_tied: the head of layer 0 is stored, and stands for those of all layers.
        only_last: heads of the layers are not the same, and only that of the last counts.
    """

    names: Sequence[str]
    is_tied: bool = False
    only_last: bool = False


class HuggingFaceDeformableDETR:
    """Source: Zhu et al., Deformable DETR, ICLR 2021; names in the files that transformers 5.24 writes."""

    title = "Deformable DETR of Hugging Face"
    example = "hf:SenseTime/deformable-detr"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        names = "model.level_embed", "model.encoder.layers.0.self_attn.sampling_offsets.weight"
        return files.config.get("model_type", _KIND) == _KIND and files.has(*names)

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        check_config(files.config)
        variant = _find_variant(files)
        first_level = find_first_level(files, "model.input_proj")
        backbone = read_backbone(files, _BACKBONE, tuple(f"c{level}" for level in range(first_level, 6)))
        classes, boxes = (_find_heads(name, variant, files) for name in ("class_embed", "bbox_embed"))
        table = _table(variant, first_level, backbone.rows(_BACKBONE), classes, boxes)
        counts = read_counts(files.config, is_dilated="dilation" in backbone.options)
        other = None if backbone.options["name"] == "resnet" else backbone.options
        tensors = locate_tensors(table, files)
        model = describe_deformable(tensors, variant, counts, other)
        num_classes = tensors.side("head.classes.0.weight")
        categories, notes = read_categories(files.config, num_classes) if files.config else assume_classes(num_classes)
        preprocessing = read_preprocessing(files, _PROCESSOR)
        return SourceModel(
            recipe=model.recipe,
            overrides={**model.overrides, **preprocessing.overrides},
            categories=categories,
            table=table,
            assumptions=(*model.assumptions, *notes, *preprocessing.assumptions),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        sizes = measure_own(detector, self.title)
        variant = sizes.variant
        both = variant.refine, variant.two_stage
        boxes, classes = (
            _Heads((f"{name}.{{n}}", f"model.decoder.{name}.{{n}}") if is_double else (f"{name}.{{n}}",))
            for name, is_double in zip(("bbox_embed", "class_embed"), both, strict=True)
        )
        rows = HuggingFaceBackbone(is_timm=sizes.is_dilated).rows(_BACKBONE)
        tensors = (
            _table(variant, sizes.first_level, rows, classes, boxes).write(weights_without_counters(detector)).tensors
        )
        return Layout(
            # Copies of their own: files of safetensors hold no tensor twice.
            tensors={name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()},
            files={
                "config.json": {**write_config(sizes), **write_categories(detector.categories)},
                "preprocessor_config.json": write_preprocessing(detector.input_format, _PROCESSOR.name),
            },
        )


def _table(
    variant: DeformableVariant, first_level: int, backbone_rows: Sequence[Row], classes: _Heads, boxes: _Heads
) -> Table:
    """Make the table of names.

    Args:
        variant: of the model.
        first_level: number of the finest level.
        backbone_rows: of its ResNet.
        classes: form of the class heads.
        boxes: form of the box heads.
    """
    queries = query_rows("model.", "model.query_position_embeddings", two_stage=variant.two_stage)
    rows = (
        *backbone_rows,
        Row("model.input_proj.{n}.{**}", f"necks.0.projections.c{{n+{first_level}}}.{{**}}"),
        Row("model.level_embed", "necks.0.level_embedding"),
        *attention_rows(f"{_ENCODER}.self_attn", "necks.0.layers.{n}.self_attention"),
        Row(f"{_ENCODER}.self_attn_layer_norm.{{*}}", "necks.0.layers.{n}.norm1.{*}"),
        Row(f"{_ENCODER}.fc{{k}}.{{*}}", "necks.0.layers.{n}.feed_forward.linear{k}.{*}"),
        Row(f"{_ENCODER}.final_layer_norm.{{*}}", "necks.0.layers.{n}.norm2.{*}"),
        Row(
            tuple(f"{_DECODER}.self_attn.{letter}_proj.{{*}}" for letter in "qkv"),
            "head.layers.{n}.self_attention.in_proj_{*}",
            Join(),
        ),
        Row(f"{_DECODER}.self_attn.out_proj.{{*}}", "head.layers.{n}.self_attention.out_proj.{*}"),
        Row(f"{_DECODER}.self_attn_layer_norm.{{*}}", "head.layers.{n}.norm1.{*}"),
        *attention_rows(f"{_DECODER}.encoder_attn", "head.layers.{n}.cross_attention"),
        Row(f"{_DECODER}.encoder_attn_layer_norm.{{*}}", "head.layers.{n}.norm2.{*}"),
        Row(f"{_DECODER}.fc{{k}}.{{*}}", "head.layers.{n}.feed_forward.linear{k}.{*}"),
        Row(f"{_DECODER}.final_layer_norm.{{*}}", "head.layers.{n}.norm3.{*}"),
    )
    heads = (_head_row(classes, variant, "head.classes", "{*}"), _head_row(boxes, variant, "head.boxes", "{**}"))
    skips = [skip for form in (classes, boxes) for skip in _head_skips(form, variant)]
    ties = [
        Tie(f"head.{name}.{{n}}.{{**}}", f"head.{name}.0.{{**}}")
        for name, form in (("classes", classes), ("boxes", boxes))
        if form.is_tied
    ]
    return Table(rows=(*rows, *queries, *heads), skips=skips, ties=ties)


def _head_row(form: _Heads, variant: DeformableVariant, ours: str, field: str) -> Row:
    """Make the row of class or box heads: one of each layer with refinement, else one of all."""
    if variant.refine:
        return Row(tuple(f"{name}.{field}" for name in form.names), f"{ours}.{{n}}.{field}")
    layers = range(variant.num_heads - 1, variant.num_heads) if form.only_last else range(variant.num_heads)
    names = tuple(f"{name.replace('{n}', str(layer))}.{field}" for name in form.names for layer in layers)
    return Row(names, f"{ours}.0.{field}")


def _head_skips(form: _Heads, variant: DeformableVariant) -> list[Skip]:
    layers = range(variant.num_heads - 1) if form.only_last else ()
    return [
        Skip(f"{name.replace('{n}', str(layer))}.{{**}}", "the head of a layer before the last, which predicts nothing")
        for name in form.names
        for layer in layers
    ]


def _find_heads(name: str, variant: DeformableVariant, files: SourceFiles) -> _Heads:
    """Find the form in which heads are stored: there may be copies of one, and of all layers one."""
    names = [f"{name}.{{n}}"]
    stored = {layer for layer in range(variant.num_heads) if _has_child(files, f"{name}.{layer}")}
    inside = f"model.decoder.{name}"
    if _has_child(files, f"{inside}.0"):
        names.append(f"{inside}.{{n}}")
        stored |= {layer for layer in range(variant.num_heads) if _has_child(files, f"{inside}.{layer}")}
    if variant.refine:
        return _Heads(names, is_tied=stored == {0})
    return _Heads(names, only_last=not _are_copies(name, files))


def _are_copies(name: str, files: SourceFiles) -> bool:
    """Tell whether the heads of all layers are the same."""
    pattern = re.compile(rf"{name}\.\d+\.(.+)")
    stored = [(matched[1], tensor) for key, tensor in files.tensors.items() if (matched := pattern.fullmatch(key))]
    first: dict[str, torch.Tensor] = {}
    return all(torch.equal(first.setdefault(part, tensor), tensor) for part, tensor in stored)


def _find_variant(files: SourceFiles) -> DeformableVariant:
    two_stage = "model.pos_trans.weight" in files.tensors
    inside = _has_child(files, "model.decoder.bbox_embed.0")
    refine = files.config.get("with_box_refine", two_stage or inside or not _are_copies("bbox_embed", files))
    return DeformableVariant(count_indices(files.tensors, "model.decoder.layers.{n}.{**}"), bool(refine), two_stage)


def _has_child(files: SourceFiles, name: str) -> bool:
    return any(key.startswith(f"{name}.") for key in files.tensors)
