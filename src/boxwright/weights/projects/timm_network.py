"""Names of the tensors of timm's models, and of the same networks in other projects, in our backbone ``timm``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import timm
import torch

from boxwright.backbones.timm import Timm, list_levels
from boxwright.weights.projects.timm_models import TimmModel
from boxwright.weights.source import BackboneModel
from boxwright.weights.table import Row, Skip, Table

_BODY = "body."

_BEYOND = "behind the last feature map, as the classifier is"


def describe_timm_backbone(
    model: TimmModel,
    *,
    rows: Iterable[Row] = (),
    skips: Iterable[Skip] = (),
    assumptions: Iterable[str] = (),
) -> BackboneModel:
    """Describe a network of timm with all of its levels.

    Args:
        model: its name, and the preprocessing that its weights expect.
        rows: from names of another project to timm's, without ``body.``; the names are timm's own where there are none.
        skips: names of that project that no feature map depends on.
        assumptions: for people to read.

    Raises:
        ValueError: timm cannot give the network's feature maps.
    """
    with torch.device("meta"):
        levels = list_levels(model.architecture)
        ours = [name.removeprefix(_BODY) for name in Timm(model=model.architecture, levels=levels).state_dict()]
        names = list(timm.create_model(model.architecture, pretrained=False).state_dict())
    if rows:
        table = Table(rows=[Row(row.theirs, _BODY + row.ours, row.operation) for row in rows], skips=tuple(skips))
    else:
        own = _own_names(names, ours)
        # What torchvision and older releases call the layers behind the last feature map.
        table = Table(rows=own.rows, skips=[*own.skips, Skip("classifier.{**}", _BEYOND)])
    return BackboneModel(
        part={"name": "timm", "model": model.architecture, "levels": levels},
        mean=model.mean,
        std=model.std,
        table=table,
        assumptions=tuple(assumptions),
    )


def list_blocks(architecture: str) -> list[str]:
    """List the blocks of an EfficientNet or MobileNet of timm, ``blocks.STAGE.BLOCK``, which others count through."""
    with torch.device("meta"):
        network: Any = timm.create_model(architecture, pretrained=False)
    return [f"blocks.{i}.{j}" for i, stage in enumerate(network.blocks) for j in range(len(stage))]


def _own_names(names: list[str], ours: list[str]) -> Table:
    """Make the table from a whole model of timm to its feature maps: the same modules by nearly the same names."""
    known = set(names)
    counterparts = {_counterpart(name, known): name for name in ours}
    rows, skips = [], []
    for prefix, group in _groups(names).items():
        taken = [name for name in group if name in counterparts]
        first = counterparts[taken[0]] if taken else ""
        shift = first.removesuffix(group[0].removeprefix(prefix)) if taken else ""
        if not taken:
            skips += [Skip(name, _BEYOND) for name in group]
        elif len(taken) == len(group) and all(counterparts[n] == shift + n.removeprefix(prefix) for n in group):
            single = len(group) == 1
            rows.append(_row(group[0], counterparts) if single else Row(f"{prefix}{{**}}", f"{_BODY}{shift}{{**}}"))
        else:
            rows += [_row(name, counterparts) for name in taken]
            skips += [Skip(name, _BEYOND) for name in group if name not in counterparts]
    return Table(rows=rows, skips=skips)


def _row(name: str, counterparts: Mapping[str, str]) -> Row:
    return Row(name, _BODY + counterparts[name])


def _groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by what they begin with: the module, and its number if it is one of several."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        first, *rest = name.split(".")
        numbered = len(rest) > 1 and rest[0].isdigit()
        groups[f"{first}.{rest[0]}." if numbered else f"{first}." if rest else first].append(name)
    return dict(groups)


def _counterpart(name: str, known: set[str]) -> str:
    """Find the name in the whole model of a tensor of its feature maps."""
    for candidate in _candidates(name):
        if candidate in known:
            return candidate
    raise ValueError(f"timm's whole model has no tensor {name}")


def _candidates(name: str) -> Iterator[str]:
    yield name
    yield name.removeprefix("model.")
    # Feature maps of models that are lists of modules: stages.0 is called stages_0.
    first, _, rest = name.partition(".")
    parts = first.split("_")
    for index in range(1, len(parts)):
        yield ".".join(["_".join(parts[:index]), *parts[index:], rest])
