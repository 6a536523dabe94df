"""Structure of a DETR: inferred from tensors, as overrides of a recipe, and read from a detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from boxwright.detector import Detector
from boxwright.layers.resnet import BLOCKS_PER_STAGE
from boxwright.weights.projects.written_options import block_options, check_options
from boxwright.weights.table import COUNTER
from boxwright.weights.template import Template

HEADS = 8
"""Attention heads of every released DETR; no tensor depends on their number."""

_NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """Size of the encoder or decoder.

    Args:
        num_layers: transformer layers.
        feedforward_dim: width of the feed-forward; None where there is no layer.
        num_heads: attention heads.
    """

    num_layers: int
    feedforward_dim: int | None
    num_heads: int = HEADS

    def options(self) -> dict[str, Any]:
        """List them as options of a part."""
        options = {"num_layers": self.num_layers, "num_heads": self.num_heads}
        return options if self.feedforward_dim is None else {**options, "feedforward_dim": self.feedforward_dim}


@dataclass(frozen=True, kw_only=True)
class DETRStructure:
    """Parts of a DETR: a backbone with one level, encoder and decoder.

    Args:
        backbone: name and options.
        num_classes: without "no object".
        num_queries: of the decoder.
        hidden_dim: width of tokens and queries.
        encoder: size of the encoder.
        decoder: size of the decoder.
        dropout: of both.
        pre_norm: norms before attention and feed-forward.
        positions: ``sine`` or ``learned``.
    """

    backbone: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int
    num_queries: int
    hidden_dim: int
    encoder: LayerSizes
    decoder: LayerSizes
    dropout: float = 0.1
    pre_norm: bool = False
    positions: str = "sine"

    @property
    def recipe(self) -> str:
        """Name of the nearest recipe."""
        depth = self.backbone.get("depth")
        if self.pre_norm and depth == 18:
            return "table_transformer"
        dilated = "_dc5" if self.backbone.get("dilation", "none") != "none" else ""
        return f"detr_r{101 if depth == 101 else 50}{dilated}"

    def overrides(self) -> dict[str, Any]:
        """List the options of the parts, by dotted key."""
        shared = {"hidden_dim": self.hidden_dim, "positions": self.positions}
        layers = {"dropout": self.dropout, "pre_norm": self.pre_norm}
        name = self.backbone.get("name", "resnet")
        backbone = {"backbone": dict(self.backbone)} if name != "resnet" else _dotted("backbone", self.backbone)
        backbone.pop("backbone.name", None)
        return {
            **backbone,
            **_dotted("neck", {**shared, **layers, **self.encoder.options()}),
            **_dotted("head", {**shared, "num_queries": self.num_queries}),
            **_dotted("head.decoder", {**layers, **self.decoder.options()}),
        }


def infer_structure(tensors: Mapping[str, Tensor]) -> DETRStructure:
    """Infer what tensors tell, by our names.

    The number of attention heads and dilation are not among it.

    Raises:
        ValueError: a backbone that is no ResNet.
    """
    backbone = {} if any(name.startswith("backbone.body.") for name in tensors) else infer_resnet(tensors)
    return DETRStructure(
        backbone=backbone,
        num_classes=len(tensors["head.classes.weight"]) - 1,
        num_queries=len(tensors["head.queries.weight"]),
        hidden_dim=len(tensors["necks.0.projections.c5.weight"]),
        encoder=_infer_layers(tensors, "necks.0"),
        decoder=_infer_layers(tensors, "head"),
        pre_norm="necks.0.norm.weight" in tensors,
        positions="learned" if "necks.0.positions.learned.rows.weight" in tensors else "sine",
    )


def infer_resnet(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the depth and width of a ResNet from its tensors, by our names with ``backbone.`` before them.

    Raises:
        ValueError: none that there is here.
    """
    blocks = tuple(count_indices(tensors, f"backbone.layer{stage}.{{n}}.{{**}}") for stage in range(1, 5))
    has_bottlenecks = "backbone.layer1.0.conv3.weight" in tensors
    depths = [d for d, counts in BLOCKS_PER_STAGE.items() if counts == blocks and (d >= 50) == has_bottlenecks]
    stem = tensors.get("backbone.conv1.weight")
    if not depths or stem is None:
        kind = "bottlenecks" if has_bottlenecks else "basic blocks"
        raise ValueError(
            f"its backbone has stages of {', '.join(map(str, blocks))} {kind}, and is no ResNet of depth "
            f"{', '.join(map(str, BLOCKS_PER_STAGE))}"
        )
    return {"name": "resnet", "depth": depths[0], "width": len(stem)}


def count_indices(names: Iterable[str], template: str) -> int:
    """Count the numbers that stand for ``{n}`` in names of a template."""
    at = Template(template)
    return len({fields["n"] for name in names if (fields := at.match(name)) is not None})


def read_structure(detector: Detector) -> DETRStructure:
    """Read the structure of a detector that other projects' DETR has too.

    Raises:
        ValueError: another kind of detector, or options that they do not have, in one line.
    """
    if detector.recipe is None:
        raise ValueError("a detector that was put together by hand has no recipe to read its structure from")
    recipe: Mapping[str, Any] = detector.recipe.to_dict()
    backbone, necks, head = recipe["backbone"], recipe["neck"], recipe["head"]
    names = [backbone["name"], *(neck["name"] for neck in necks), head["name"]]
    if names != ["resnet", "detr_encoder", "detr"]:
        raise ValueError(f"not a DETR with a ResNet and one encoder, but {' > '.join(names)}")
    decoder = head["decoder"]
    needed = {
        "backbone.levels": (list(backbone["levels"]), ["c5"]),
        "backbone.norm_eps": (backbone.get("norm_eps", _NORM_EPS), _NORM_EPS),
        **block_options(detector.backbone),
        "backbone.dilation": (backbone["dilation"] if backbone["dilation"] == "all" else "none", "none"),
        "neck.hidden_dim": (necks[0]["hidden_dim"], head["hidden_dim"]),
        "neck.pre_norm": (necks[0]["pre_norm"], decoder["pre_norm"]),
        "neck.positions": (necks[0]["positions"], head["positions"]),
        "neck.positions_at": (necks[0]["positions_at"], "attention"),
        "head.positions_at": (head["positions_at"], "attention"),
        "head.query_positions_at": (head["query_positions_at"], "attention"),
        "head.decoder.eval_layers": (decoder["eval_layers"] or decoder["num_layers"], decoder["num_layers"]),
        "head.nms_threshold": (head["nms_threshold"], None),
    }
    check_options(needed)
    if head["positions"] == "none":
        raise ValueError("head.positions is none, and has to be sine or learned there")
    return DETRStructure(
        backbone={key: backbone[key] for key in ("name", "depth", "width", "dilation")},
        num_classes=len(detector.categories),
        num_queries=head["num_queries"],
        hidden_dim=head["hidden_dim"],
        encoder=_sizes(necks[0]),
        decoder=_sizes(decoder),
        dropout=necks[0]["dropout"],
        pre_norm=decoder["pre_norm"],
        positions=head["positions"],
    )


def weights_without_counters(detector: Detector) -> dict[str, Tensor]:
    """List the tensors of a detector but for counters of batch norms, which frozen norms do not have."""
    return {name: tensor for name, tensor in detector.state_dict().items() if not name.endswith(COUNTER)}


def _sizes(options: Mapping[str, Any]) -> LayerSizes:
    return LayerSizes(**{key: options[key] for key in ("num_layers", "feedforward_dim", "num_heads")})


def _infer_layers(tensors: Mapping[str, Tensor], part: str) -> LayerSizes:
    first = tensors.get(f"{part}.layers.0.feed_forward.linear1.weight")
    return LayerSizes(
        num_layers=count_indices(tensors, f"{part}.layers.{{n}}.{{**}}"),
        feedforward_dim=None if first is None else len(first),
    )


def _dotted(prefix: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in options.items()}
