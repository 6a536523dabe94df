"""Deformable DETR of other projects: sizes by shapes, and the options of ours that they lead to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any, NamedTuple

from torch import Tensor

from boxwright.detector import Detector
from boxwright.structures import Category
from boxwright.weights.labels import category_ids
from boxwright.weights.projects.detr import count_indices, infer_resnet
from boxwright.weights.projects.written_options import block_options, check_options, read_parts
from boxwright.weights.source import SourceFiles
from boxwright.weights.table import Row, Table
from boxwright.weights.template import Template

USUAL_HEADS = 8
"""Heads of every released model."""

USUAL_CLASSES = 91
"""Rows of the class layers of every released model: COCO's category ids."""

USUAL_QUERIES = 300
"""Queries of every released model."""


class DeformableCounts(NamedTuple):
    """Numbers that the shapes of tensors do not tell, None where the files state them nowhere."""

    encoder_heads: int | None = None
    decoder_heads: int | None = None
    queries: int | None = None
    dropout: float | None = None
    dilation: bool | None = None


@dataclass(frozen=True)
class DeformableVariant:
    """Form of a Deformable DETR, by the names of its tensors.

    Args:
        num_layers: of the decoder.
        refine: each layer corrects the boxes of the layer before.
        two_stage: queries come from the encoder.
    """

    num_layers: int
    refine: bool
    two_stage: bool

    @property
    def num_heads(self) -> int:
        """Number of pairs of class and box heads, copies counted."""
        return self.num_layers + self.two_stage

    @property
    def recipe(self) -> str:
        """The recipe of ours that is nearest, on several levels."""
        return "deformable_detr_r50" + ("_two_stage" if self.two_stage else "_refine" if self.refine else "")


@dataclass(frozen=True)
class Description:
    """Recipe, options and assumptions."""

    recipe: str
    overrides: dict[str, Any]
    assumptions: list[str] = field(default_factory=list)


def read_number(options: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    """Read a number that counts something from a configuration.

    Raises:
        ValueError: something else, in one line.
    """
    value = options.get(name, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"its {name} is {value!r}, and should be a number of at least 1")
    return value


def read_dropout(options: Mapping[str, Any], default: float | None = None) -> float | None:
    """Read a dropout from a configuration; anything but a number is left to the part, which refuses it."""
    value = options.get("dropout", default)
    return value if value is None or isinstance(value, int | float) else default


def deformable_rows(first_level: int) -> list[Row]:
    """List the rows of backbone, projections of levels, and layers of encoder and decoder, as the authors name them.

    Args:
        first_level: number of the finest level.
    """
    encoder, decoder = "transformer.encoder.layers.{n}", "transformer.decoder.layers.{n}"
    return [
        Row("backbone.0.body.{**}", "backbone.{**}"),
        Row("input_proj.{n}.{**}", f"necks.0.projections.c{{n+{first_level}}}.{{**}}"),
        Row("transformer.level_embed", "necks.0.level_embedding"),
        *attention_rows(f"{encoder}.self_attn", "necks.0.layers.{n}.self_attention"),
        Row(f"{encoder}.norm{{k}}.{{*}}", "necks.0.layers.{n}.norm{k}.{*}"),
        Row(f"{encoder}.linear{{k}}.{{*}}", "necks.0.layers.{n}.feed_forward.linear{k}.{*}"),
        Row(f"{decoder}.self_attn.{{**}}", "head.layers.{n}.self_attention.{**}"),
        *attention_rows(f"{decoder}.cross_attn", "head.layers.{n}.cross_attention"),
        # Numbered in the order of their definition there, in that of their execution here.
        Row(f"{decoder}.norm2.{{*}}", "head.layers.{n}.norm1.{*}"),
        Row(f"{decoder}.norm1.{{*}}", "head.layers.{n}.norm2.{*}"),
        Row(f"{decoder}.norm3.{{*}}", "head.layers.{n}.norm3.{*}"),
        Row(f"{decoder}.linear{{k}}.{{*}}", "head.layers.{n}.feed_forward.linear{k}.{*}"),
    ]


def attention_rows(theirs: str, ours: str) -> Iterator[Row]:
    """List the rows of a deformable attention, whose names nobody has changed."""
    for their_name, our_name in (
        ("sampling_offsets", "sampling_offsets"),
        ("attention_weights", "attention_weights"),
        ("value_proj", "value_projection"),
        ("output_proj", "output_projection"),
    ):
        yield Row(f"{theirs}.{their_name}.{{*}}", f"{ours}.{our_name}.{{*}}")


def query_rows(prefix: str, query_embedding: str, *, two_stage: bool) -> tuple[Row, ...]:
    """List the rows of what queries start from: embeddings and their points, or proposals of the encoder.

    Args:
        prefix: before all names but that of the embeddings, with its dot.
        query_embedding: name of the embeddings.
        two_stage: queries start from proposals.
    """
    if not two_stage:
        return (
            Row(f"{query_embedding}.{{*}}", "head.queries.{*}"),
            Row(f"{prefix}reference_points.{{*}}", "head.reference_points.{*}"),
        )
    return tuple(
        Row(f"{prefix}{theirs}.{{*}}", f"head.{ours}.{{*}}")
        for theirs, ours in (
            ("enc_output", "encoder_output.0"),
            ("enc_output_norm", "encoder_output.1"),
            ("pos_trans", "proposal_queries.0"),
            ("pos_trans_norm", "proposal_queries.1"),
        )
    )


def find_first_level(files: SourceFiles, prefix: str) -> int:
    """Find the number of the finest level: projections of stages are 1 x 1, the last of them on c5.

    Args:
        files: of the model.
        prefix: before the numbers of the projections.

    Raises:
        ValueError: none of them is 1 x 1.
    """
    template = Template(f"{prefix}.{{n}}.0.weight")
    stages = [name for name, x in files.tensors.items() if template.match(name) and x.ndim == 4 and x.shape[-1] == 1]
    if not 1 <= len(stages) <= 4:
        raise ValueError(f"it takes {len(stages)} stages of its backbone; Boxwright's have one to four, up to c5")
    return 6 - len(stages)


def assume_classes(num_classes: int) -> tuple[list[Category], list[str]]:
    """List classes of a model whose files name none, by number or as COCO's category ids, and say so in a line."""
    categories = category_ids(num_classes)
    names = "COCO's, by their ids" if num_classes == USUAL_CLASSES else "class_0 and so on"
    return categories, [f"the names of its {num_classes} classes are not in its files: they are called {names}"]


class LocatedTensors(dict[str, Tensor]):
    """Tensors by our names; what is not there, or has other dimensions, is an error in one line."""

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(f"nothing there makes {name}")

    def side(self, name: str, dim: int = 0, *, ndim: int = 2) -> int:
        """Return one side of a tensor.

        Raises:
            ValueError: there is no such tensor, it has other dimensions, or none of its sides.
        """
        shape = self[name].shape
        if len(shape) != ndim or not all(shape):
            raise ValueError(f"what makes {name} is {list(shape)}, and should have {ndim} dimensions")
        return shape[dim]


def locate_tensors(table: Table, files: SourceFiles) -> LocatedTensors:
    """List their tensors by our names, in their form."""
    return LocatedTensors({ours: files.tensors[theirs] for ours, theirs in table.locate(files.tensors).items()})


def describe_deformable(
    tensors: LocatedTensors,
    variant: DeformableVariant,
    counts: DeformableCounts,
    other_backbone: Mapping[str, Any] | None = None,
) -> Description:
    """Describe a Deformable DETR in our words.

    Args:
        tensors: theirs, by our names.
        variant: its form.
        counts: what the shapes do not tell.
        other_backbone: name and options of a backbone that is no ResNet.

    Raises:
        ValueError: a form that there is no counterpart of here, in one line.
    """
    if variant.two_stage and not variant.refine:
        raise ValueError("queries from the encoder without refinement of boxes have no counterpart here")
    num_levels, hidden_dim = (tensors.side("necks.0.level_embedding", dim) for dim in (0, 1))
    if gcd(32, hidden_dim // 2) != 32:
        raise ValueError(f"its tokens have {hidden_dim} channels; here their group norms need a multiple of 64")
    stages = [name for name in ("c2", "c3", "c4", "c5") if f"necks.0.projections.{name}.0.weight" in tensors]
    notes: list[str] = []
    if counts.dilation is None and len(stages) == 1:
        notes.append("a dilated c5 leaves no trace in the weights: backbone.dilation is assumed to be none")
    dilation = "after_first" if counts.dilation else "none"
    resnet = {} if other_backbone else {**_measure_resnet(tensors), "levels": stages, "dilation": dilation}
    overrides: dict[str, Any] = {
        **({"backbone": dict(other_backbone)} if other_backbone else {}),
        **{f"backbone.{option}": value for option, value in resnet.items()},
        "neck.num_levels": num_levels,
        "head.num_queries": _count_queries(tensors, counts, notes),
        "head.refine": variant.refine,
        "head.two_stage": variant.two_stage,
    }
    for option, part, attention, num_heads in (
        ("neck", "necks.0", "self_attention", counts.encoder_heads),
        ("head.decoder", "head", "cross_attention", counts.decoder_heads),
    ):
        samples = tensors.side(f"{part}.layers.0.{attention}.attention_weights.weight") // num_levels
        heads = num_heads or _assume_heads(samples, hidden_dim, option, notes)
        options = {
            "num_layers": count_indices(tensors, f"{part}.layers.{{n}}.{{**}}"),
            "feedforward_dim": tensors.side(f"{part}.layers.0.feed_forward.linear1.weight"),
            "num_heads": heads,
            "num_points": samples // heads,
            **({} if counts.dropout is None else {"dropout": counts.dropout}),
        }
        overrides |= {f"{option}.{name}": value for name, value in options.items()}
        overrides[f"{option.partition('.')[0]}.hidden_dim"] = hidden_dim
    return Description(_nearest_recipe(variant, num_levels, bool(counts.dilation)), overrides, notes)


def _measure_resnet(tensors: LocatedTensors) -> dict[str, Any]:
    tensors.side("backbone.conv1.weight", ndim=4)
    return {option: value for option, value in infer_resnet(tensors).items() if option != "name"}


def _nearest_recipe(variant: DeformableVariant, num_levels: int, is_dilated: bool) -> str:
    if num_levels > 1 or variant.refine:
        return variant.recipe
    return "deformable_detr_r50_single_scale" + ("_dc5" if is_dilated else "")


def _count_queries(tensors: LocatedTensors, counts: DeformableCounts, notes: list[str]) -> int:
    if "head.queries.weight" in tensors:
        return tensors.side("head.queries.weight")
    if counts.queries is None:
        notes.append(f"queries from the encoder leave no trace in the weights: head.num_queries is {USUAL_QUERIES}")
        return USUAL_QUERIES
    return counts.queries


def _assume_heads(samples: int, hidden_dim: int, option: str, notes: list[str]) -> int:
    """Assume the usual number of heads, or the largest that fits; heads times points is what the weights tell."""
    heads = gcd(USUAL_HEADS, gcd(samples, hidden_dim))
    notes.append(
        f"the number of heads is not in the weights: {option}.num_heads {heads} and {option}.num_points "
        f"{samples // heads} are assumed; the two have a product of {samples}"
    )
    return heads


class OwnSizes(NamedTuple):
    """Options of the three parts of a detector of ours that is a Deformable DETR."""

    backbone: Mapping[str, Any]
    neck: Mapping[str, Any]
    head: Mapping[str, Any]

    @property
    def variant(self) -> DeformableVariant:
        """Form of the model."""
        return DeformableVariant(self.head["decoder"]["num_layers"], self.head["refine"], self.head["two_stage"])

    @property
    def first_level(self) -> int:
        """Number of the finest level: 3 of c3."""
        return int(self.backbone["levels"][0][1:])

    @property
    def num_levels(self) -> int:
        """Number of levels that the encoder puts out."""
        return max(int(self.neck["num_levels"]), len(self.backbone["levels"]))

    @property
    def is_dilated(self) -> bool:
        """True where c5 has stride 16."""
        return bool(self.backbone["dilation"] != "none")


def measure_own(detector: Detector, kind: str) -> OwnSizes:
    """Read the sizes of a detector that is to be written.

    Args:
        detector: any.
        kind: what is written, for the message.

    Raises:
        ValueError: it is no Deformable DETR as published, in one line.
    """
    backbone, neck, head = read_parts(detector, kind, ("resnet", "deformable_encoder", "deformable_detr"))
    if neck["hidden_dim"] != head["hidden_dim"]:
        raise ValueError(
            f"{kind} has one width, and this detector two: neck.hidden_dim {neck['hidden_dim']} and "
            f"head.hidden_dim {head['hidden_dim']}"
        )
    if backbone["norm_eps"] != 1e-5 or backbone["dilation"] == "all":
        raise ValueError(
            f"{kind} has a ResNet with backbone.norm_eps 1e-05 and backbone.dilation none or after_first; "
            f"this detector has {backbone['norm_eps']} and {backbone['dilation']}"
        )
    check_options({**block_options(detector.backbone), "neck.across_levels": (neck["across_levels"], True)})
    return OwnSizes(backbone, neck, head)
