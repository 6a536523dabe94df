"""The passport of a model: where its weights come from, and what was done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from types import NoneType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A file of weights that another project, or another run, has made.

    Args:
        source: as a user would type it: ``hf:PekingU/rtdetr_r50vd``, or the path of a file.
        kind: of the source, like ``hf_rtdetr``; ``boxwright`` for a checkpoint of ours.
        revision: of a repository, where there is one.
        sha256: of the file with the weights, in hexadecimal digits.
        license: as the source states it; None where it states none.
    """

    source: str
    kind: str
    revision: str | None = None
    sha256: str | None = None
    license: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The data set that a model was trained on, or the one that told which of its weights are the best.

    Args:
        name: of the folder or file.
        num_images: of the split.
        sha256: of the annotation file; None where there is not one file.
        content_sha256: of images and objects as they were read, the same for other files with the same in them; None
            in passports of earlier versions.
        images_sha256: of the names and bytes of all image files; None where they were not read, or are in no files.
        order_sha256: of the names of the images in their order, which training depends on.
        num_pseudo: images with pseudo-labels, the last of all.
        pseudo_weight: of each of these; None where there are none.
    """

    name: str
    num_images: int
    sha256: str | None = None
    content_sha256: str | None = None
    images_sha256: str | None = None
    order_sha256: str | None = None
    num_pseudo: int = 0
    pseudo_weight: float | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingData:
        """Read plain values; of those that a later release added, none.

        Raises:
            ValueError: they describe no data.
        """
        return cls(**_known(cls, content))

    def has_same_content(self, other: TrainingData) -> bool | None:
        """Tell whether two data sets hold the same; None where too little is known of them."""
        pairs = ((self.sha256, other.sha256), (self.content_sha256, other.content_sha256))
        known = [one == two for one, two in pairs if one is not None and two is not None]
        return any(known) if known else None


@dataclass(frozen=True, kw_only=True)
class Passport:
    """Origin and history of a model's weights.

    Classes, preprocessing and every option of the recipe stand in the checkpoint itself.

    Args:
        version: of Boxwright that wrote it.
        recipe: name of the recipe.
        origin: of weights that were read from elsewhere; None for weights that were trained from random ones.
        data: the data set that it was trained on, last; None where Boxwright did not train it.
        validation: what was measured on the way; None where nothing was, and in passports of earlier versions.
        metrics: the last measurement, by name.
        parent: of the model that training began with.
        backbone: of the model whose backbone alone training began with.
    """

    version: str
    recipe: str | None = None
    origin: Origin | None = None
    data: TrainingData | None = None
    validation: TrainingData | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    parent: Passport | None = None
    backbone: Passport | None = None

    @property
    def is_from_scratch(self) -> bool:
        """True where training began with random weights in all parts."""
        return self.origin is None and self.parent is None and self.backbone is None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as checkpoints have them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Passport:
        """Read plain values; of those that a later release added, none.

        Raises:
            ValueError: they are no passport.
        """
        values = _known(cls, content)
        metrics = values.get("metrics", {})
        if not isinstance(metrics, Mapping) or not all(
            isinstance(name, str) and type(value) in (int, float) for name, value in metrics.items()
        ):
            raise ValueError("a passport whose metrics are not numbers by name")
        if not isinstance(values.get("version"), str):
            raise ValueError("a passport without the version that wrote it")
        for name, kind in (("origin", Origin), ("data", TrainingData), ("validation", TrainingData)):
            if values.get(name) is not None:
                values[name] = kind(**_known(kind, values[name]))
        for name in ("parent", "backbone"):
            if values.get(name) is not None:
                values[name] = cls.from_dict(values[name])
        return cls(**values)


def _known(kind: type[Any], content: Any) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"a passport whose {kind.__name__} is no mapping")
    types = {one.name: _PLAIN.get(str(one.type)) for one in fields(kind)}
    known = {name: value for name, value in content.items() if name in types}
    for name, value in known.items():
        allowed = types[name]
        if allowed is not None and type(value) not in allowed:
            raise ValueError(f"a passport whose {name} is of the type {type(value).__name__}")
    required = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}
    if required - known.keys():
        raise ValueError(f"a passport without the {', '.join(sorted(required - known.keys()))}")
    return known


_PLAIN: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "str | None": (str, NoneType),
    "float | None": (float, int, NoneType),
}
"""Types of values, by the annotation of a field."""
