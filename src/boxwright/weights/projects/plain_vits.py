"""Small vision transformers of DEIMv2 and EdgeCrafter: their options by shapes, and the constants of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boxwright.layers.plain_vit import HEAD_DIM
from boxwright.weights.projects.deformable import LocatedTensors, read_number

MODEL = "vit_tiny_patch16_dinov3_qkvb"
"""The model of timm that is theirs but for its width, and for what ``bare`` leaves out."""

_WIDTH = 192

NUM_BLOCKS = 12
"""Of every one of them, also where the last are not used."""

_BASE = 100.0
"""Of the periods of their rotations."""

_TOKEN = "backbone.vit.body.model.cls_token"


def infer_vit_options(tensors: LocatedTensors) -> dict[str, Any]:
    """Infer what tensors tell of a transformer, by dotted key.

    Args:
        tensors: by our names.

    Raises:
        ValueError: its width is no multiple of that of its heads.
    """
    width = tensors.side(_TOKEN, 2, ndim=3)
    if width % HEAD_DIM:
        raise ValueError(f"its transformer is {width} wide, which is no multiple of {HEAD_DIM}")
    return {"backbone.model": MODEL, "backbone.bare": True, "backbone.embed_dim": None if width == _WIDTH else width}


def read_blocks(config: Any, usual: Sequence[int], assumptions: list[str]) -> list[int]:
    """Read the blocks whose maps are taken from the part of ``config.json`` that states them, or assume the usual.

    Args:
        config: of the transformer; None where the files have none.
        usual: of published models.
        assumptions: one is appended where nothing states them.

    Raises:
        ValueError: they are no blocks in order, in one line.
    """
    stated = config.get("interaction_indexes") if isinstance(config, Mapping) else None
    if stated is None:
        assumptions.append(f"the maps of blocks {list(usual)}, which no tensor tells (backbone.blocks)")
        return list(usual)
    if not isinstance(stated, list) or not stated or not all(type(i) is int and 0 <= i < NUM_BLOCKS for i in stated):
        raise ValueError(f"its interaction_indexes are {stated}, and should be blocks of 0 to {NUM_BLOCKS - 1}")
    return list(stated)


def read_queries(config: Any) -> dict[str, Any]:
    """Read the number of queries, by dotted key, from the part of ``config.json`` that is of the decoder.

    Args:
        config: of the decoder; None where the files have none.

    Raises:
        ValueError: it is no number, in one line.
    """
    count = read_number(config, "num_queries") if isinstance(config, Mapping) else None
    return {} if count is None else {"head.num_queries": count}


def need_vit_options(options: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """List the options of a transformer that they have in one form: the value here, and the one there.

    Args:
        options: of the parts, by dotted key.
    """
    last = options["backbone.blocks"][-1]
    expected = {"backbone.model": MODEL, "backbone.bare": True, "backbone.final_norm": False}
    needed = {name: (options[name], value) for name, value in expected.items()}
    return {**needed, "the last of backbone.blocks": (last, NUM_BLOCKS - 1)}


def make_periods() -> Tensor:
    """Make the periods of the rotations, which their files store."""
    count = HEAD_DIM // 4
    return _BASE ** (torch.arange(count) / count)
