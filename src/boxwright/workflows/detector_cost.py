"""Size and cost of a detector; those of the recipes that come with Boxwright are stored, so that nothing is computed.

``recipes/costs.json`` has them for 80 classes; ``python tests/test_recipe_costs.py`` writes those of recipes that have
changed, and the tests there compare it with the networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxwright.compose.recipes import load_recipe

if TYPE_CHECKING:
    from boxwright.workflows.info import ModelFacts

COSTS = Path(__file__).parents[1] / "recipes" / "costs.json"

NUM_CLASSES = 80
"""Of recipes, unless the user says otherwise: COCO's."""


@dataclass(frozen=True)
class PartCost:
    """Size and cost of one part.

    Args:
        slot: backbone, neck (``neck.0`` and so on in a chain) or head.
        name: of the part.
        params: number of parameters.
        trainable_params: number of those that are trained.
        gmac: multiply-adds for one image, in billions.
    """

    slot: str
    name: str
    params: int
    trainable_params: int
    gmac: float


@dataclass(frozen=True)
class DetectorCost:
    """Size of a detector, and multiply-adds for one image of the recipe's image size.

    Args:
        params: number of parameters.
        trainable_params: number of those that are trained.
        gmac: multiply-adds in billions, of the graph that was published, so that figures compare with those of papers.
        deployed_gmac: those of prediction: branches and norms folded, and nothing computed that is not used.
        parts: one by one, in the order of execution.
        image_size: of the recipe.
        model: facts of weights; None for a recipe, which has none.
    """

    params: int
    trainable_params: int
    gmac: float
    deployed_gmac: float
    parts: tuple[PartCost, ...]
    image_size: int
    model: ModelFacts | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all but the image size as plain values, for ``json.dump``."""
        content = {name: getattr(self, name) for name in ("params", "trainable_params", "gmac", "deployed_gmac")}
        content["parts"] = [asdict(part) for part in self.parts]
        return content if self.model is None else {**content, "model": self.model.to_json()}


def read_stored_cost(recipe: str) -> DetectorCost | None:
    """Return the stored cost of a recipe, for 80 classes; None for a path, and where its network has changed.

    Args:
        recipe: name of a recipe that comes with Boxwright.
    """
    name = recipe.replace("-", "_")
    stored = json.loads(COSTS.read_text(encoding="utf-8")).get(name) if COSTS.is_file() else None
    if stored is None or stored.pop("network_sha256") != _digest(name):
        return None
    return DetectorCost(**{**stored, "parts": tuple(PartCost(*part) for part in stored["parts"])})


def write_stored_costs(costs: Iterable[tuple[str, DetectorCost]]) -> None:
    """Store the costs of recipes by their names, instead of those that are stored."""
    rows = {name: json.dumps(_to_row(name, cost)) for name, cost in costs}
    lines = ",\n".join(f'"{name}": {row}' for name, row in sorted(rows.items()))
    COSTS.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def _to_row(name: str, cost: DetectorCost) -> Mapping[str, Any]:
    parts = [list(asdict(part).values()) for part in cost.parts]
    return {**cost.to_json(), "image_size": cost.image_size, "parts": parts, "network_sha256": _digest(name)}


def _digest(name: str) -> str:
    # Of what the cost depends on: not of comments, and not of training.
    network = {section: value for section, value in load_recipe(name).items() if section not in ("augment", "train")}
    return hashlib.sha256(json.dumps(network, sort_keys=True).encode()).hexdigest()[:16]
