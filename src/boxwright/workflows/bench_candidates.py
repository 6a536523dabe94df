"""Candidates of a benchmark: models and exported files, in every way that they are to be run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from boxwright_runtime.exported_file import is_exported_name, read_exported_file

ModelRuntime = Literal["eager", "folded"]
"""A model as it was trained, or with its norms and branches folded into convolutions, as it predicts."""

FileRuntime = Literal["onnxruntime", "openvino"]

BenchInput = Literal["bytes", "float"]
"""Images as they come from a camera, or normalized network inputs."""

ModelPrecision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One model or file, and the way that it is run.

    Args:
        source: of the model, or path of the file.
        runtime: ``eager`` or ``folded`` of a model, ``onnxruntime`` or ``openvino`` of a file.
        precision: of a model's network; None for a file, which has its own.
        threads: that compute.
        batch_size: images at a time.
        image_size: of a model's network input, in place of its own; None for its own, and for a file.
        image_shape: (height, width) of the images that come in.
        input: what comes in, for a model; a file takes what it was exported for.
        device: of a model.
        trusted: modules that may be imported for parts outside Boxwright.
        name: of the source in tables; the source itself where None.
    """

    source: str
    runtime: str
    precision: str | None = None
    threads: int = 1
    batch_size: int = 1
    image_size: int | None = None
    image_shape: tuple[int, int] = (480, 640)
    input: BenchInput = "bytes"
    device: str = "cpu"
    trusted: tuple[str, ...] = ()
    name: str | None = None

    @property
    def title(self) -> str:
        """The name in tables and messages."""
        return self.name or self.source

    def describe(self) -> str:
        """Describe it in a few words, for messages."""
        words = [self.title, self.runtime, self.precision or "", f"batch of {self.batch_size}"]
        words += [f"{self.threads} threads" if self.threads > 1 else "1 thread"]
        words += [f"{self.image_shape[0]} x {self.image_shape[1]}"]
        return ", ".join(word for word in words if word)

    def write(self) -> str:
        """Write it as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Candidate:
        """Read what ``write`` wrote."""
        content: dict[str, Any] = json.loads(text)
        height, width = content["image_shape"]
        return cls(**{**content, "image_shape": (height, width), "trusted": tuple(content["trusted"])})


@dataclass(frozen=True, kw_only=True)
class BenchGrid:
    """Settings of which every combination is measured.

    Args:
        batch_sizes: images at a time.
        image_sizes: of the network inputs of models; a model's own where empty. Files have their own.
        image_shapes: (height, width) of the images that come in.
        threads: that compute.
        precisions: of models: fp32, bf16, fp16. Files have their own.
        runtimes: of models eager and folded, of files onnxruntime and openvino, by what each was made for; all where
            empty.
        input: what comes into a model: ``bytes`` of images, or ``float`` network inputs. Files have their own.
    """

    batch_sizes: Sequence[int] = (1,)
    image_sizes: Sequence[int] = ()
    image_shapes: Sequence[tuple[int, int]] = ((480, 640),)
    threads: Sequence[int] = (1,)
    precisions: Sequence[str] = ("fp32",)
    runtimes: Sequence[str] = ()
    input: BenchInput = "bytes"

    def __post_init__(self) -> None:
        for name in ("batch_sizes", "image_sizes", "threads"):
            if any(number < 1 for number in getattr(self, name)):
                raise ValueError(f"{name} are at least 1, not {', '.join(map(str, getattr(self, name)))}")
        for name in ("batch_sizes", "image_shapes", "threads", "precisions"):
            if not getattr(self, name):
                raise ValueError(f"{name} needs at least one value")
        if any(min(shape) < 1 for shape in self.image_shapes):
            raise ValueError("image_shapes are (height, width) in pixels, at least 1 x 1")
        _check_choices("precisions", self.precisions, get_args(ModelPrecision))
        _check_choices("runtimes", self.runtimes, (*get_args(ModelRuntime), *get_args(FileRuntime)))
        _check_choices("input", [self.input], get_args(BenchInput))


def list_candidates(
    sources: Sequence[tuple[str, str | None]], grid: BenchGrid, *, device: str = "cpu", trusted: Sequence[str] = ()
) -> list[Candidate]:
    """List all combinations, source by source.

    Args:
        sources: of models, or paths of exported files, each with a name for tables or None.
        grid: the settings.
        device: of models.
        trusted: modules that may be imported for parts outside Boxwright.

    Raises:
        ValueError: no runtime of the grid runs one of them.
    """
    return [one for source, name in sources for one in _combine(source, name, grid, device, tuple(trusted))]


def _combine(
    source: str, name: str | None, grid: BenchGrid, device: str, trusted: tuple[str, ...]
) -> Iterator[Candidate]:
    is_file = is_exported_name(source)
    known: tuple[str, ...] = get_args(ModelRuntime)
    if is_file:
        known = ("openvino",) if read_exported_file(source).kind == "openvino" else ("onnxruntime",)
    runtimes = [one for one in known if not grid.runtimes or one in grid.runtimes]
    if not runtimes:
        kind = "an exported file for" if is_file else "a model, which is"
        raise ValueError(f"{source} is {kind} {' or '.join(known)}, not {' or '.join(grid.runtimes)}")
    precisions: Sequence[str | None] = [None] if is_file else grid.precisions
    sizes: Sequence[int | None] = [None] if is_file or not grid.image_sizes else grid.image_sizes
    combined = itertools.product(runtimes, precisions, grid.threads, sizes, grid.image_shapes, grid.batch_sizes)
    for runtime, precision, threads, image_size, image_shape, batch_size in combined:
        yield Candidate(
            source=source,
            runtime=runtime,
            precision=precision,
            threads=threads,
            batch_size=batch_size,
            image_size=image_size,
            image_shape=image_shape,
            input=grid.input,
            device=device,
            trusted=trusted,
            name=name,
        )


def _check_choices(name: str, values: Sequence[str], choices: Sequence[str]) -> None:
    for value in values:
        if value not in choices:
            raise ValueError(f"{name} are of {', '.join(choices)}, not {value}")
