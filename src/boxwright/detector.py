"""The wiring of the three slots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from boxwright.data.images import ImageLike, normalize
from boxwright.data.input_format import InputFormat
from boxwright.data.loading.equal_sizes import PreparedImage, prepare_equal_sizes
from boxwright.layers.rep_vgg import fuse_for_inference
from boxwright.ops.finite import check_finite
from boxwright.queries.selection import SelectionQuality
from boxwright.structures import Category, Detections, Features, ImageSize, LossTotals, Spec, Targets, Task, main_levels


class Backbone(Protocol):
    """Images to levels."""

    out_spec: Spec

    def __call__(self, images: Tensor) -> Features: ...


class Neck(Protocol):
    """Levels to levels."""

    out_spec: Spec

    def __call__(self, features: Features, padding_mask: Tensor | None = None) -> Features: ...


class Head(Protocol):
    """Levels to detections. ``Any`` is the head's own output type, which only the head looks into."""

    def __call__(
        self, features: Features, padding_mask: Tensor | None = None, targets: Sequence[Targets] | None = None
    ) -> Any: ...

    def loss(self, output: Any, targets: Sequence[Targets], totals: LossTotals | None = None) -> dict[str, Tensor]: ...

    def postprocess(self, output: Any, image_sizes: Sequence[ImageSize]) -> list[Detections]: ...


@runtime_checkable
class SelectingHead(Protocol):
    """A head whose queries are selected, and can be judged before any decoder."""

    def selection_quality(self, output: Any, targets: Sequence[Targets]) -> SelectionQuality | None:
        """Counts over the selected queries; None where this head's options select none."""


@runtime_checkable
class MatchCountingHead(Protocol):
    """A head whose losses are divided by the number of places that it gives to objects."""

    def count_matches(self, targets: Sequence[Targets], canvas: tuple[int, int]) -> int:
        """How many places, for images on a canvas of this (height, width) in pixels of the network's input."""


@runtime_checkable
class WorstCaseHead(Protocol):
    """A head whose training steps take longer once it has learned to find objects."""

    def worst_case_targets(self, targets: Sequence[Targets]) -> list[Targets]:
        """Targets that give it as much to do now, for measuring how long a step will take."""


@runtime_checkable
class MaskHead(Protocol):
    """A head that may be trained on masks, and then finds them; its options decide."""

    needs_masks: bool


@runtime_checkable
class TaskHead(Protocol):
    """A head that is for another task than detection, and says for which."""

    task: Task


class Detector(nn.Module):
    """Backbone, necks and head in a row, with what is needed to use them on images.

    Args:
        backbone: images to levels.
        necks: levels to levels, in order; may be empty.
        head: levels to detections.
        categories: label i means ``categories[i]``.
        input_format: what the network wants its images to look like.
    """

    def __init__(
        self,
        backbone: nn.Module,
        necks: Sequence[nn.Module],
        head: nn.Module,
        *,
        categories: Sequence[Category],
        input_format: InputFormat,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.necks = nn.ModuleList(necks)
        self.head = head
        self.categories = tuple(categories)
        self.input_format = input_format

    @property
    def task(self) -> Task:
        """What it is trained for."""
        return self.head.task if isinstance(self.head, TaskHead) else "detection"

    @property
    def needs_masks(self) -> bool:
        """Whether it is trained on masks and finds them."""
        return isinstance(self.head, MaskHead) and self.head.needs_masks

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> Any:
        """The head's output for normalized images; with ``targets``, one that ``loss`` takes."""
        spec: Spec = self.backbone.out_spec  # type: ignore[assignment]
        features: Features = self.backbone(images)
        auxiliary: Features = {}
        for neck in self.necks:
            auxiliary |= {name: features[name] for name, level in spec.items() if level.auxiliary}
            features = neck({name: features[name] for name in main_levels(spec)}, padding_mask)
            spec = neck.out_spec  # type: ignore[assignment]
        return self.head({**auxiliary, **features}, padding_mask, targets)

    def loss(
        self, output: Any, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted, named terms, whose sum is trained on.

        Args:
            output: of ``forward`` with the same targets.
            targets: one per image.
            totals: of the whole optimizer step, over processes and accumulated batches; of ``targets`` where None.
        """
        return self.head.loss(output, targets, totals)  # type: ignore[operator, no-any-return]

    def totals(self, targets: Sequence[Targets], canvas: tuple[int, int]) -> LossTotals:
        """What ``loss`` divides by, of these images alone; those of a step's parts add up.

        Args:
            targets: one per image.
            canvas: (height, width) of the network's input.
        """
        totals = LossTotals.of(targets)
        if isinstance(self.head, MatchCountingHead):
            totals = totals._replace(matches=self.head.count_matches(targets, canvas))
        return totals

    def postprocess(self, output: Any, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """Detections of each image, best first, in pixels of the original image."""
        return self.head.postprocess(output, image_sizes)  # type: ignore[operator, no-any-return]

    @torch.inference_mode()
    def predict(
        self, images: ImageLike | Iterable[ImageLike], *, threshold: float = 0.0, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """Detect objects in images, always in evaluation mode.

        Args:
            images: one image, or several: a path, a PIL image, an array (h, w, 3) or a tensor (3, h, w), RGB, of
                bytes or of floats in [0, 1]. A tensor of four dimensions is several.
            threshold: detections with a lower score are left out, in [0, 1].
            batch_size: images that go through the network together, at most: only equal canvases do.

        Returns:
            detections in pixels of the original image; a list of them, in order, where several images came in.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: something is not an image, an argument is out of range, or what the model says is not a number.
        """
        if not 0 <= threshold <= 1 or batch_size < 1:
            raise ValueError(f"threshold is in [0, 1] and batch_size at least 1, not {threshold} and {batch_size}")
        single = isinstance(images, str | Path | Image.Image | np.ndarray) or (
            isinstance(images, Tensor) and images.ndim < 4
        )
        several: list[ImageLike] = [images] if single else list(images)  # type: ignore[list-item, arg-type]
        was_training = self.training
        self.eval()
        found: dict[int, Detections] = {}
        try:
            for batch in prepare_equal_sizes(several, self.input_format, batch_size):
                found |= self._predict_batch(batch)
        finally:
            self.train(was_training)
        in_order = [found[place] for place in range(len(several))]
        kept = [one.select(one.scores >= threshold) for one in in_order]
        return kept[0] if single else kept

    def _predict_batch(self, batch: Sequence[PreparedImage]) -> dict[int, Detections]:
        like = next(self.parameters())
        images = normalize(torch.stack([one.canvas for one in batch]).to(like.device), self.input_format)
        found = self.postprocess(self(images.to(like.dtype)), [one.size for one in batch])
        check_finite(one.scores for one in found)
        return {one.place: d.cpu() for one, d in zip(batch, found, strict=True)}

    def fused(self) -> Detector:
        """A copy for inference: RepVGG branches in one convolution, norms folded into the convolutions before them."""
        copy = deepcopy(self).eval().requires_grad_(False)
        fuse_for_inference(copy)
        return copy

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters by what optimizers tell apart: ``{backbone, other}`` x ``{decay, no_decay}``.

        Norms and biases, which have one dimension, do not decay.
        """
        groups: dict[str, list[tuple[str, nn.Parameter]]] = defaultdict(list)
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                slot = "backbone" if name.startswith("backbone.") else "other"
                decay = "no_decay" if parameter.ndim <= 1 else "decay"
                groups[f"{slot}/{decay}"].append((name, parameter))
        return dict(groups)
