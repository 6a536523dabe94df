"""Exported files, run: images in, detections out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from boxwright_runtime.detections import Detections
from boxwright_runtime.exported_file import FileKind, read_exported_file
from boxwright_runtime.mask_pasting import paste_masks
from boxwright_runtime.metadata import Metadata, Profile
from boxwright_runtime.network_input import make_network_input
from boxwright_runtime.printable_names import printable
from boxwright_runtime.sessions import InputSpec, RuntimeName, open_session
from boxwright_runtime.streaming import (
    NOT_TUNED,
    ImageInput,
    OnError,
    PredictionStream,
    PreparedImage,
    Threshold,
    list_sources,
)
from boxwright_runtime.structures import ImageSize, Task

if TYPE_CHECKING:
    from jaxtyping import UInt8

FILE_INPUTS: dict[Profile, dict[str, InputSpec]] = {
    "bytes": {"images": InputSpec("uint8", 4)},
    "float": {"images": InputSpec("float32", 4), "sizes": InputSpec("int64", 2)},
}
"""Inputs of a file by its profile: RGB images (b, height, width, 3) of any size; or network inputs (b, 3, h, w), which
are normalized and not padded, and ``ImageSize`` of each image."""

FILE_OUTPUTS = ("boxes", "scores", "labels", "count")
"""Outputs that every file has: of each image the first ``count`` rows are detections, best first."""

FILE_MASK_OUTPUTS = ("masks", "mask_boxes")
"""Outputs of files with masks: probabilities of the cells of a region, and that region as a box in the image."""

_RUNTIMES: dict[FileKind, RuntimeName] = {"onnx": "onnxruntime", "openvino": "openvino"}


class _Input(NamedTuple):
    """The input of a file for one image."""

    pixels: npt.NDArray[Any]
    size: ImageSize


class Runtime:
    """An exported file, ready to predict; without torch, as precisely as the runtime computes.

    Args:
        file: of ``boxwright export``: .onnx for ONNX Runtime, .xml for OpenVINO.
        runtime: ``onnxruntime`` or ``openvino``; ``auto`` takes the one that the file is made for.
        threads: on the CPU; as many as the runtime takes by itself where None.
        fixed_shapes: of OpenVINO, which is faster where it knows the sizes: compile the model once more for each of the
            first two batches and sizes that come a third time. That takes a second or two of that run, and the memory
            of another model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no exported file, is damaged, is from a newer version or has other inputs; the runtime is not
            installed; or an argument is out of range.
    """

    def __init__(
        self,
        file: str | Path,
        *,
        runtime: Literal["auto", "onnxruntime", "openvino"] = "auto",
        threads: int | None = None,
        fixed_shapes: bool = True,
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads is at least 1, not {threads}")
        exported = read_exported_file(file)
        self.path = exported.path
        self.metadata: Metadata = exported.metadata
        self.runtime = _choose_runtime(exported.kind, runtime, self.path)
        self._session = open_session(exported, self.runtime, threads, fixed_shapes=fixed_shapes)
        self._check_interface()

    @property
    def task(self) -> Task:
        """The task of the model."""
        return self.metadata.task

    def predict(
        self, images: ImageInput | Iterable[ImageInput], *, threshold: Threshold = 0.0, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """Detect objects in images.

        Args:
            images: one image, or several. One is a path, the bytes of a file or an open one, a PIL image or an array
                (h, w, 3), RGB, of bytes or of floats in [0, 1]. Several are any iterable of these, an array of four
                dimensions, or a folder, whose images are taken in the order of their names.
            threshold: detections with a lower score are left out, in [0, 1]; ``tuned`` takes those of the classes that
                were tuned before the model was exported.
            batch_size: images that go through the model together, at most: only equal sizes do.

        Returns:
            detections in pixels of the image, in arrays; a list of them, in order, where several images came in.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: something is not an image, an argument is out of range, or a score is not a number.
        """
        sources, is_one = list_sources(images)
        detections = list(self.stream(sources, threshold=threshold, batch_size=batch_size))
        return detections[0] if is_one else detections

    def stream(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        threshold: Threshold = 0.0,
        batch_size: int = 8,
        on_error: OnError = "raise",
        keep_images: bool = False,
    ) -> PredictionStream:
        """Detect objects in any number of images, and give results while they are read.

        Results come in the order of the input. A few batches of images are in memory at a time, never all of them.

        Args:
            images: as for ``predict``.
            threshold: as for ``predict``.
            batch_size: images that go through the model together, at most; with 1, a result comes after each image.
            on_error: ``raise`` at an image that cannot be read, after the results of those before it; or ``skip`` it.
            keep_images: hand out each image beside its detections, in ``results()``.

        Returns:
            an iterator of ``Detections``. Its ``items()`` are pairs of path (or index) and detections, and its
            ``skipped`` lists index, path and reason of every image that was skipped.

        Raises:
            ValueError: an argument is out of range; more on the way, as for ``predict``.
        """
        return PredictionStream(
            list_sources(images)[0],
            self.prepare,
            self.predict_prepared,
            threshold=self.thresholds() if threshold == "tuned" else threshold,
            batch_size=batch_size,
            on_error=on_error,
            keep_images=keep_images,
        )

    def thresholds(self) -> tuple[float, ...]:
        """Return the tuned threshold of each class, by its label.

        Raises:
            ValueError: they were not tuned before the model was exported.
        """
        own = self.metadata.thresholds
        if own is None:
            raise ValueError(f"{printable(self.path)}: its thresholds {NOT_TUNED}, before the model is exported")
        return tuple(float(own[category.name]) for category in self.metadata.categories)

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the file as it is.

        Args:
            arrays: its inputs by name; see ``FILE_INPUTS``.

        Returns:
            its outputs by name; see ``FILE_OUTPUTS``.

        Raises:
            ValueError: an input is missing or has another type or number of axes, or the runtime fails.
        """
        expected = self._session.inputs
        given = {name: InputSpec(array.dtype.name, array.ndim) for name, array in arrays.items()}
        if given != expected:
            raise ValueError(f"{printable(self.path)} takes {_describe(expected)}, not {_describe(given)}")
        try:
            return self._session.run({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        except Exception as error:  # whatever the libraries raise
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{printable(self.path)} fails in {self.runtime} on {shapes}: {reason}") from error

    def prepare(self, rgb: UInt8[np.ndarray, "h w 3"]) -> PreparedImage:
        """Bring an image into the form that ``predict_prepared`` takes."""
        height, width = rgb.shape[:2]
        input_size = self.metadata.input_format.input_size(height, width)
        size = ImageSize(height, width, *input_size)
        if self.metadata.profile == "bytes":
            return PreparedImage((height, width), _Input(rgb, size))
        return PreparedImage(input_size, _Input(make_network_input(rgb, self.metadata.input_format), size))

    def predict_prepared(self, images: Sequence[_Input]) -> list[Detections]:
        """Detect objects in the contents of prepared images of equal shape; all detections, best first.

        Raises:
            ValueError: the runtime fails, or a score is not a number.
        """
        # One image is not copied: of a camera it has megabytes.
        stacked = images[0].pixels[None] if len(images) == 1 else np.stack([image.pixels for image in images])
        arrays = {"images": stacked}
        if self.metadata.profile == "float":
            arrays["sizes"] = np.array([image.size for image in images], dtype=np.int64)
        outputs = self.run(arrays)
        return [
            self._detections({name: values[i] for name, values in outputs.items()}, images[i].size)
            for i in range(len(images))
        ]

    def _check_interface(self) -> None:
        """Compare inputs and outputs with those that the metadata promise.

        Raises:
            ValueError: they are others.
        """
        expected = FILE_INPUTS[self.metadata.profile]
        if dict(self._session.inputs) != expected:
            raise ValueError(
                f"{printable(self.path)} has other inputs than its metadata say: {_describe(self._session.inputs)} in "
                f"place of {_describe(expected)}; export it again"
            )
        outputs = FILE_OUTPUTS + (FILE_MASK_OUTPUTS if self.metadata.masks else ())
        if missing := [name for name in outputs if name not in self._session.outputs]:
            raise ValueError(f"{printable(self.path)} has no output {', '.join(missing)}; export it again")

    def _detections(self, outputs: Mapping[str, npt.NDArray[Any]], size: ImageSize) -> Detections:
        count = int(outputs["count"])
        boxes, scores, labels = (outputs[name][:count].copy() for name in ("boxes", "scores", "labels"))
        if np.isnan(scores).any():
            raise ValueError(f"{printable(self.path)} predicts values that are not numbers: the model has diverged")
        masks = None
        if self.metadata.masks:
            masks = paste_masks(
                outputs["masks"][:count],
                outputs["mask_boxes"][:count],
                (size.height, size.width),
                region=self.metadata.masks,
            )
        return Detections(boxes, scores, labels, masks, self.metadata.categories)


def _choose_runtime(kind: FileKind, runtime: str, path: Path) -> RuntimeName:
    own = _RUNTIMES[kind]
    if runtime not in ("auto", *_RUNTIMES.values()):
        raise ValueError(f"runtime is auto, {' or '.join(_RUNTIMES.values())}, not {runtime!r}")
    if runtime not in ("auto", own):
        # OpenVINO reads ONNX files, but drops their antialiasing and the order of equal scores, and says nothing.
        raise ValueError(
            f"{printable(path)} is for {own}: for {runtime}, export the model again with "
            f"--to {'openvino' if runtime == 'openvino' else 'onnx'}"
        )
    return own


def _describe(inputs: Mapping[str, InputSpec]) -> str:
    texts = [f"{name} {spec.dtype} of {spec.num_axes} axes" for name, spec in inputs.items()]
    return " and ".join(texts) or "nothing"
