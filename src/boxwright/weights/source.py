"""The contract of sources: kinds of files with other projects' models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from boxwright.detector import Detector
from boxwright.passport import Origin, Passport
from boxwright.structures import Category
from boxwright.weights.table import Table


@dataclass(frozen=True, kw_only=True)
class SourceFiles:
    """The files of a model of another project, read; nothing in them was executed.

    Args:
        origin: where they come from; ``kind`` is empty until they are recognized.
        tensors: by their name in the file, on the CPU.
        config: content of ``config.json``; empty where there is none.
        preprocessor: content of ``preprocessor_config.json``; empty where there is none.
        extra: plain values that stand beside the weights in the file, as ``args`` or ``meta`` do.
        release: name of a released model, where the user named one (``torchvision:fasterrcnn_resnet50_fpn``), or the
            file is known by its hash; None for any other file.
        notes: for people to read, one line each: what was taken off the names.
        passport: that Boxwright wrote into the file, if it wrote it in this layout.
    """

    origin: Origin
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    release: str | None = None
    notes: Sequence[str] = ()
    passport: Passport | None = None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments of the command line that trained the model, ``args`` in the file; empty where it has none."""
        arguments = self.extra.get("args")
        return arguments if isinstance(arguments, Mapping) else {}

    def has(self, *names: str) -> bool:
        """Tell whether there are tensors of all these names."""
        return all(name in self.tensors for name in names)


@dataclass(frozen=True, kw_only=True)
class SourceModel:
    """A detector of another project, in our words.

    Args:
        recipe: name of the recipe of ours that is nearest; its training options are those to go on with.
        overrides: what differs from it, by dotted key, as for ``boxwright.build``: structure and preprocessing.
        categories: label i means ``categories[i]``.
        table: names of tensors.
        assumptions: what the files do not say and was assumed, one line each, with the option that says otherwise.
    """

    recipe: str
    overrides: Mapping[str, Any]
    categories: Sequence[Category]
    table: Table
    assumptions: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class BackboneModel:
    """A backbone of another project, in our words.

    Args:
        part: name and options of the backbone part, as in a recipe.
        mean: subtracted from each channel, RGB with values in [0, 1].
        std: divisor of each channel after that.
        table: names of tensors; ours without ``backbone.`` before them.
        assumptions: as of ``SourceModel``.
    """

    part: Mapping[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    table: Table
    assumptions: Sequence[str] = ()


@runtime_checkable
class Source(Protocol):
    """A kind of files that detectors are read from. The folder ``weights/sources`` is the registry."""

    title: str
    """The kind, for people: ``RT-DETR of Hugging Face``."""

    example: str
    """A source of this kind as a user would type it, for tables and messages."""

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind, by names of tensors and configuration."""

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words.

        Raises:
            ValueError: a variant that there is no counterpart of here, in one line.
        """


@runtime_checkable
class BackboneSource(Protocol):
    """A kind of files that backbones are read from, in the same folder."""

    title: str
    example: str

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words.

        Raises:
            ValueError: a variant that there is no counterpart of here, in one line.
        """


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A model in the layout of another project.

    Args:
        tensors: by their names.
        files: content of the JSON files beside the weights, by file name.
        file_name: of the weights.
        wrap: keys around the tensors in a file of torch's own format, outermost first: ``("ema", "module")``.
    """

    tensors: Mapping[str, Tensor]
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    file_name: str = "model.safetensors"
    wrap: tuple[str, ...] = ()


@runtime_checkable
class WritableSource(Protocol):
    """A source whose layout ours can be written in."""

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout.

        Raises:
            ValueError: the detector is another kind of model, in one line.
        """
