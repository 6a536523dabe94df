"""The wiring of the three slots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.checkpoints import pack_checkpoint, write_checkpoint
from boxwright.contracts import (
    Backbone,
    DetectorRecipe,
    Head,
    MaskHead,
    Neck,
    TaskHead,
    UncertainHead,
    count_totals,
)
from boxwright.data.images import normalize, pad_inputs
from boxwright.devices import ComputePrecision, network_precision, require_precision
from boxwright.drawing import save_drawings
from boxwright.files import check_target
from boxwright.hub_upload import upload_folder
from boxwright.layers.folding import fold_norms
from boxwright.layers.freezing import frozen_norms
from boxwright.model_card import CARD, CARD_THRESHOLD, write_card_text
from boxwright.ops.cpu_bfloat16 import cpu_operations
from boxwright.original_pixels import restore_images, undo_rounding
from boxwright.passport import Passport
from boxwright.prediction import InputPixels, evaluation_mode, require_sides_std, stream_predictions
from boxwright.score_tuning import ScoreTuning
from boxwright.structures import (
    Category,
    Decoded,
    Features,
    ImageSize,
    LossTotals,
    MaskRegion,
    Targets,
    Task,
    main_levels,
)
from boxwright.version import __version__
from boxwright_runtime.detections import Detections
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.streaming import NOT_TUNED, ImageInput, OnError, PredictionStream, Threshold, list_sources


class Detector(nn.Module):
    """Backbone, necks and head in a row, with what is needed to use them on images.

    Args:
        backbone: images to levels.
        necks: levels to levels, in order; may be empty.
        head: levels to detections.
        categories: label i means ``categories[i]``.
        input_format: size and normalization of the network input.
        recipe: the resolved recipe that it was built from; None for one that was put together by hand.
        passport: origin and history of the weights; None where they are not known.

    ``tuning`` has the tuned thresholds of the classes; None where they were not tuned.
    """

    tuning: ScoreTuning | None = None

    def __init__(
        self,
        backbone: nn.Module,
        necks: Sequence[nn.Module],
        head: nn.Module,
        *,
        categories: Sequence[Category],
        input_format: InputFormat,
        recipe: DetectorRecipe | None = None,
        passport: Passport | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.necks = nn.ModuleList(necks)
        self.head = head
        self.categories, self._tells_sides_std = tuple(categories), False
        self.input_format = input_format
        self.recipe = recipe
        self.passport = passport

    @property
    def task(self) -> Task:
        """The task that it is trained for."""
        return self.head.task if isinstance(self.head, TaskHead) else "detection"

    @property
    def needs_masks(self) -> bool:
        """True where it is trained on masks and predicts them."""
        return self.mask_region is not None

    @property
    def mask_region(self) -> MaskRegion | None:
        """The region that the cells of its masks consist of; None where it predicts none."""
        return self.head.mask_region if isinstance(self.head, MaskHead) else None

    def train(self, mode: bool = True) -> Detector:
        """Set the mode as ``nn.Module`` does, but for the norms of frozen parts: their statistics are frozen too."""
        super().train(mode)
        for norm in frozen_norms(self):
            norm.eval()
        return self

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> Any:
        """Run the parts on normalized images; with ``targets``, to an output that ``loss`` takes."""
        spec, sizes = cast(Backbone, self.backbone).out_spec, valid_sizes(images, padding_mask)
        is_half = images.dtype == torch.bfloat16 or torch.is_autocast_enabled(images.device.type)
        with cpu_operations(images) if is_half else nullcontext():
            features: Features = self.backbone(images)
            auxiliary: Features = {}
            for neck in self.necks:
                auxiliary |= {name: features[name] for name, level in spec.items() if level.auxiliary}
                features = neck({name: features[name] for name in main_levels(spec)}, padding_mask)
                spec = cast(Neck, neck).out_spec
            return self.head({**auxiliary, **features}, padding_mask, targets, sizes)

    def loss(
        self, output: Any, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute weighted, named terms, whose sum is trained on.

        Args:
            output: of ``forward`` with the same targets.
            targets: one per image.
            totals: of the whole optimizer step, over processes and accumulated batches; of ``targets`` where None.
        """
        return cast(Head, self.head).loss(output, targets, totals)

    def totals(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> LossTotals:
        """Count what ``loss`` divides by, of these images alone; counts of a step's parts add up.

        Args:
            targets: one per image.
            input_size: (height, width) of the network input.
        """
        return count_totals(self.head, targets, input_size)

    def decode(self, output: Any) -> Decoded:
        """Decode an output with or without targets: detections of fixed shape in pixels of the network input."""
        return cast(Head, self.head).decode(output)

    def postprocess(self, output: Any, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """Make the detections of each image, best first, in pixels of the original image and cut to it.

        Args:
            output: of ``forward``.
            image_sizes: one per image.

        Raises:
            ValueError: a score is not a number: the model has diverged.
        """
        output = undo_rounding(output, image_sizes, self.input_format)
        decoded = self.decode(output)
        if self._tells_sides_std:
            decoded = decoded._replace(sides_std=cast(UncertainHead, self.head).measure_sides_std(output))
        return restore_images(decoded, image_sizes, self.input_format, self.categories, mask_region=self.mask_region)

    def tell_sides_std(self, tell: bool = True) -> None:
        """Let detections have ``sides_std``, how far each side may be off, from now on, or no more.

        Raises:
            ValueError: the head predicts no distributions of sides.
        """
        if tell:
            require_sides_std(self.head)
        self._tells_sides_std = tell

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        threshold: Threshold = 0.0,
        batch_size: int = 8,
        precision: ComputePrecision = "float32",
    ) -> Detections | list[Detections]:
        """Detect objects in images, always in evaluation mode.

        Args:
            images: one image, or several. One is a path, the bytes of a file or an open one, a PIL image, an array
                (h, w, 3) or a tensor (3, h, w), RGB, of bytes or of floats in [0, 1]. Several are any iterable of
                these, an array or tensor of four dimensions, or a folder, whose images are taken in the order of
                their names.
            threshold: detections with a lower score are left out, in [0, 1]; ``tuned`` takes those of ``tuning``.
            batch_size: images that go through the network together, at most: only equal input sizes do.
            precision: of the network: ``float32`` takes its weights as they are, ``bfloat16`` runs it under autocast,
                ``auto`` takes the faster one of its device, as ``boxwright.predict`` does.

        Returns:
            detections in pixels of the original image; a list of them, in order, where several images came in.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: something is not an image, an argument is out of range, or a score is not a number.
        """
        sources, is_one = list_sources(images)
        detections = list(self.stream(sources, threshold=threshold, batch_size=batch_size, precision=precision))
        return detections[0] if is_one else detections

    def stream(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        threshold: Threshold = 0.0,
        batch_size: int = 8,
        on_error: OnError = "raise",
        precision: ComputePrecision = "float32",
    ) -> PredictionStream:
        """Detect objects in any number of images, and give results while they are read.

        Results come in the order of the input. A few batches of images are in memory at a time, never all of them.

        Args:
            images: as for ``predict``.
            threshold: as for ``predict``.
            batch_size: images that go through the network together, at most; with 1, a result comes after each image.
            on_error: ``raise`` at an image that cannot be read, after the results of those before it; or ``skip`` it.
            precision: as for ``predict``.

        Returns:
            an iterator of ``Detections``. Its ``items()`` are pairs of path (or index) and detections, and its
            ``skipped`` lists index, path and reason of every image that was skipped.

        Raises:
            ValueError: an argument is out of range; more on the way, as for ``predict``.
        """
        require_precision(precision)
        return stream_predictions(
            list_sources(images)[0],
            partial(self.predict_batch, precision=precision),
            self.input_format,
            threshold=self.thresholds() if threshold == "tuned" else threshold,
            batch_size=batch_size,
            on_error=on_error,
        )

    def thresholds(self) -> tuple[float, ...]:
        """Return the tuned threshold of each class, by its label.

        Raises:
            ValueError: they were not tuned.
        """
        if self.tuning is None:
            raise ValueError(f"the thresholds of this model {NOT_TUNED}")
        return self.tuning.thresholds

    def predict_batch(
        self, pixels: InputPixels, sizes: Sequence[ImageSize], precision: str = "float32"
    ) -> list[Detections]:
        """Detect objects in images that were read and resized; detections are on the CPU.

        Args:
            pixels: images of equal input size, not normalized yet and without padding.
            sizes: one per image.
            precision: as for ``predict``; what follows the network is computed in float32 in any case.
        """
        like = next(self.parameters())
        images, padding_mask = normalize(pixels.to(like.device), self.input_format).to(like.dtype), None
        input_size = tuple(images.shape[-2:])
        padded_size = self.input_format.padded_size(*input_size)
        if padded_size != input_size:
            images, padding_mask = pad_inputs(list(images), *padded_size, self.input_format)
        # Batch by batch: whoever takes results from a stream may train between them.
        with torch.no_grad(), evaluation_mode(self):
            with network_precision(precision, like.device):
                output = self(images, padding_mask)
            return [one.cpu() for one in self.postprocess(output, sizes)]

    def save(self, path: str | Path) -> None:
        """Write weights, recipe, categories, passport and tuning into a file that ``boxwright.load`` reads.

        What stood there stays whole until the new file is complete; links and devices stay what they are.

        Args:
            path: of the file, as ``model.safetensors``; in torch's own format where it ends in .pt or .pth. Its folder
                is made where there is none.

        Raises:
            ValueError: it was put together by hand, so that it has no recipe; or nothing can be written there.
        """
        check_target(Path(path))
        if self.recipe is None:
            raise ValueError("this detector has no recipe, without which it cannot be loaded; build it from one")
        self.passport = replace(self.passport or Passport(version=__version__), version=__version__)
        write_checkpoint(
            Path(path),
            pack_checkpoint(self.recipe.to_dict(), self.categories, self.state_dict(), self.passport, self.tuning),
        )

    def push_to_hub(
        self,
        repository: str,
        *,
        images: ImageInput | Iterable[ImageInput] = (),
        private: bool = False,
        token: str | None = None,
        folder: str | Path | None = None,
    ) -> str:
        """Upload weights and a model card to the Hugging Face hub, and return their address.

        ``boxwright.load("hf:OWNER/NAME")`` loads them.

        Args:
            repository: ``OWNER/NAME``; it is made where there is none.
            images: for the card, as for ``predict``; drawn with what is found in them.
            private: make a private one.
            token: for the upload; that of ``hf auth login`` where None.
            folder: to upload instead, as ``boxwright convert --to hf --card`` writes.

        Raises:
            FileNotFoundError: there is no such folder or image.
            ValueError: it was put together by hand, so that it has no recipe; something is not an image; or the upload
                failed.
        """
        if folder is not None:
            if images != ():
                raise ValueError("images are for a new card, and a folder has its own: give one of both")
            return upload_folder(Path(folder), repository, private=private, token=token)
        with TemporaryDirectory() as temporary:
            self.save(Path(temporary, "model.safetensors"))
            assert self.recipe is not None
            assert self.passport is not None
            text = write_card_text(
                self.passport,
                self.categories,
                self.recipe.to_dict(),
                title=repository.rpartition("/")[2],
                usage=f'import boxwright\n\ndetector = boxwright.load("hf:{repository}")',
                images=[f"images/{name}" for name in self._draw(images, Path(temporary, "images"))],
            )
            Path(temporary, CARD).write_text(text, encoding="utf-8")
            return upload_folder(Path(temporary), repository, private=private, token=token)

    def _draw(self, images: ImageInput | Iterable[ImageInput], folder: Path) -> list[str]:
        """Draw what is found in images into a folder; return the names of the files."""
        is_detector = self.task == "detection"
        stream = stream_predictions(
            list_sources(images)[0],
            self.predict_batch,
            self.input_format,
            threshold=CARD_THRESHOLD if is_detector else 0.0,
            batch_size=8,
            on_error="raise",
            keep_images=True,
        )
        # The boxes of an image's classes are all the same: one of them is drawn.
        results = ((one.image, one.detections[: None if is_detector else 1]) for one in stream.results())
        return save_drawings(((image, drawn) for image, drawn in results if image is not None), folder)

    def fold(self) -> Detector:
        """Copy for inference, not compiled: RepVGG branches in one convolution, norms folded into those before them."""
        copy = deepcopy(self).eval().requires_grad_(False)
        fold_norms(copy)
        return copy

    def freeze(self, slots: Iterable[str]) -> None:
        """Keep the parts of these slots (``backbone``, ``neck``, ``head``) as they are, their norms' statistics too.

        Raises:
            ValueError: there is no such slot.
        """
        parts = {"backbone": self.backbone, "neck": self.necks, "head": self.head}
        names = [slots] if isinstance(slots, str) else list(slots)
        if unknown := [name for name in names if name not in parts]:
            raise ValueError(f"there is no slot {unknown[0]!r} to freeze: the slots are {', '.join(parts)}")
        for name in names:
            parts[name].requires_grad_(False)
        self.train(self.training)


def valid_sizes(images: Float[Tensor, "b 3 h w"], padding_mask: Bool[Tensor, "b h w"] | None) -> Float[Tensor, "#b 2"]:
    """Read (height, width) of each image inside its padding, or of all, in pixels of the network input."""
    if padding_mask is None:
        return torch.tensor([images.shape[-2:]], device=images.device, dtype=torch.float32)
    valid = ~padding_mask
    return torch.stack((valid[:, :, 0].sum(1), valid[:, 0].sum(1)), -1).float()
