"""Saliency of a detection: which pixels its score depends on, by masks or by gradients, and how well that holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from boxwright.data.image_check import ProgressCallback
from boxwright.data.images import normalize, pad_inputs, resample
from boxwright.detector import Detector
from boxwright.ops.boxes import iou
from boxwright.prediction import evaluation_mode
from boxwright.structures import ImageSize
from boxwright_runtime.detections import Detections


class ExplainedObject(NamedTuple):
    """The detection that is explained.

    Args:
        box: corners in pixels of the original image.
        label: its class.
        score: in [0, 1].
    """

    box: tuple[float, float, float, float]
    label: int
    score: float


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """The score of a detection as the pixels that are said to matter come and go.

    Args:
        fractions: of the pixels, from 0 to 1.
        insertion: score when so many of the most salient pixels are put into an image without contrast.
        deletion: score when so many of them are taken away.
    """

    fractions: tuple[float, ...]
    insertion: tuple[float, ...]
    deletion: tuple[float, ...]

    @property
    def insertion_score(self) -> float:
        """Area below the curve of insertion, in [0, 1]; the more, the better."""
        return float(np.trapezoid(self.insertion, self.fractions))

    @property
    def deletion_score(self) -> float:
        """Area below the curve of deletion, in [0, 1]; the less, the better."""
        return float(np.trapezoid(self.deletion, self.fractions))


class ExplainedImage:
    """An image on its way into a detector, of which parts are hidden.

    Args:
        detector: whose detections are explained.
        image: RGB.
    """

    def __init__(self, detector: Detector, image: UInt8[np.ndarray, "h w 3"]) -> None:
        height, width = image.shape[:2]
        own = detector.input_format
        shape = own.input_size(height, width)
        self.detector = detector
        self.pixels = resample(image, own.window(height, width), *shape, resampling=own.resampling).float()
        self.size = ImageSize(height, width, *shape)
        # The image's own mean color, in which there is nothing to see.
        self.hidden = self.pixels.mean((1, 2), keepdim=True)

    def make_input(self) -> tuple[Float[Tensor, "1 3 h w"], Bool[Tensor, "1 h w"] | None]:
        """Make the network input of the whole image and its padding mask, where the detector is."""
        like, own, size = next(self.detector.parameters()), self.detector.input_format, self.pixels.shape[-2:]
        inputs = normalize(self.pixels[None], own).to(like.device, like.dtype)
        if (padded_size := own.padded_size(*size)) == tuple(size):
            return inputs, None
        return pad_inputs(list(inputs), *padded_size, own)

    def box_in_input(self, target: ExplainedObject) -> Float[Tensor, "1 4"]:
        """Return the box of an object in pixels of the network input."""
        window = self.detector.input_format.window(self.size.height, self.size.width)
        height, width = self.pixels.shape[-2:]
        scale = torch.tensor([width / (window.x2 - window.x1), height / (window.y2 - window.y1)]).repeat(2)
        corner = torch.tensor([window.x1, window.y1]).repeat(2)
        return ((torch.tensor(target.box) - corner) * scale)[None]

    def scores(self, masks: Float[Tensor, "n h w"], target: ExplainedObject) -> Float[Tensor, " n"]:
        """Return how well the object is still detected where masks hide a part of the image.

        Args:
            masks: in [0, 1] at the size of the network input; 0 hides a pixel.
            target: the object.

        Returns:
            of each mask, the largest product of score and IoU with the object's box, of detections of its class.
        """
        inputs = self.pixels * masks[:, None] + self.hidden * (1 - masks[:, None])
        detections = self.detector.predict_batch(inputs, [self.size] * len(masks))
        return torch.tensor([_similarity(one, target) for one in detections])


def _similarity(detections: Detections, target: ExplainedObject) -> float:
    own = detections[detections.labels == target.label]
    if not len(own):
        return 0.0
    overlaps = iou(torch.tensor([target.box]), own.boxes.float())
    return float((overlaps * own.scores).max())


def rise_saliency(
    detector: Detector,
    image: UInt8[np.ndarray, "h w 3"],
    target: ExplainedObject,
    *,
    num_masks: int = 500,
    cells: int = 12,
    visible: float = 0.5,
    seed: int = 0,
    batch_size: int = 16,
    progress: ProgressCallback | None = None,
) -> Float32[np.ndarray, "h w"]:
    """Find the pixels that a detection depends on, by hiding random parts of the image many times.

    Args:
        detector: any; it is asked for detections alone.
        image: RGB.
        target: the detection.
        num_masks: random masks; the more, the less noise.
        cells: of the coarse grid that a mask is drawn on, along the longer side.
        visible: probability that a cell is visible.
        seed: of the masks.
        batch_size: masks that go through the network together.
        progress: called as ``progress(done, total)``, in masks.

    Returns:
        of each pixel of the image, by how much the object is detected better where the pixel is visible: in [-1, 1],
        around 0 where it does not matter.

    Raises:
        ValueError: a number is out of range.

    **Source**: Petsiuk et al., Black-box Explanation of Object Detectors via Saliency Maps (D-RISE), CVPR 2021,
    section 3. Differs in what is compared: IoU times score among detections of the object's class, as detections of
    some heads have no scores of other classes; and in the mean being taken away, so that 0 means no effect.
    """
    if num_masks < 2 or cells < 2 or batch_size < 1 or not 0 < visible < 1:
        raise ValueError(
            f"num_masks and cells are at least 2, batch_size at least 1, visible between 0 and 1, not {num_masks}, "
            f"{cells}, {batch_size}, {visible}"
        )
    # Folded, as hundreds of passes are worth a copy.
    prepared = ExplainedImage(detector.fold(), image)
    generator = torch.Generator().manual_seed(seed)
    height, width = prepared.pixels.shape[-2:]
    with_score, total, scores = torch.zeros(height, width), torch.zeros(height, width), 0.0
    done = 0
    for masks in _draw_masks(num_masks, (height, width), cells, visible, generator, batch_size):
        similarity = prepared.scores(masks, target)
        with_score += (similarity[:, None, None] * masks).sum(0)
        total += masks.sum(0)
        scores += float(similarity.sum())
        done += len(masks)
        if progress is not None:
            progress(done, num_masks)
    saliency = with_score / total.clamp(min=1e-6) - scores / num_masks
    return _to_image(saliency, image.shape[:2])


def _draw_masks(
    count: int, size: tuple[int, int], cells: int, visible: float, generator: torch.Generator, batch_size: int
) -> Iterator[Float[Tensor, "n h w"]]:
    """Draw masks batch by batch: coarse grids of zeros and ones, upsampled smoothly and shifted by parts of a cell."""
    side = max(size) / cells
    rows, columns = (max(1, round(length / side)) for length in size)
    cell_height, cell_width = (-(-length // number) for length, number in zip(size, (rows, columns), strict=True))
    for start in range(0, count, batch_size):
        number = min(batch_size, count - start)
        grid = (torch.rand(number, 1, rows + 1, columns + 1, generator=generator) < visible).float()
        whole = F.interpolate(
            grid, size=((rows + 1) * cell_height, (columns + 1) * cell_width), mode="bilinear", align_corners=False
        )
        masks = torch.empty(number, *size)
        for index in range(number):
            top = int(torch.randint(cell_height, (), generator=generator))
            left = int(torch.randint(cell_width, (), generator=generator))
            masks[index] = whole[index, 0, top : top + size[0], left : left + size[1]]
        yield masks


def gradient_saliency(
    detector: Detector, image: UInt8[np.ndarray, "h w 3"], target: ExplainedObject
) -> Float32[np.ndarray, "h w"]:
    """Find the pixels whose change would change a detection's score most: gradient times input.

    Args:
        detector: any.
        image: RGB.
        target: the detection.

    Returns:
        of each pixel of the image, the sum over its colors of the absolute gradient of the score times the normalized
        value.

    Raises:
        ValueError: the detector does not detect the object in this image.

    **Source**: Shrikumar et al., Not Just a Black Box, 2016. The score is that of the detection of the object's class
    whose box fits best.
    """
    prepared = ExplainedImage(detector, image)
    inputs, mask = prepared.make_input()
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad(), evaluation_mode(detector):
        decoded = detector.decode(detector(inputs, mask))
        is_own = (decoded.labels[0] == target.label) & decoded.valid[0]
        boxes = decoded.boxes[0].detach().float().cpu()
        overlaps = iou(prepared.box_in_input(target), boxes) * is_own.cpu()
        if not float(overlaps.max()) > 0:
            raise ValueError("the detector does not detect this object")
        (gradient,) = torch.autograd.grad(decoded.scores[0, int(overlaps.argmax())], inputs)
    height, width = prepared.pixels.shape[-2:]
    saliency = (gradient * inputs.detach())[0].abs().sum(0)[:height, :width]
    return _to_image(saliency.cpu(), image.shape[:2])


def measure_faithfulness(
    detector: Detector,
    image: UInt8[np.ndarray, "h w 3"],
    target: ExplainedObject,
    saliency: Float32[np.ndarray, "h w"],
    *,
    steps: int = 16,
) -> Faithfulness:
    """Measure how the score of a detection follows its saliency.

    Args:
        detector: any.
        image: RGB.
        target: the detection.
        saliency: of each pixel of the image.
        steps: in which pixels are inserted and deleted, the most salient first.

    **Source**: Petsiuk et al., RISE, BMVC 2018, section 4 (insertion and deletion).
    """
    prepared = ExplainedImage(detector, image)
    size = prepared.pixels.shape[-2:]
    small = F.interpolate(torch.from_numpy(saliency)[None, None], size=size, mode="bilinear", align_corners=False)
    # Equal values are ranked by their place, so that each step has its number of pixels.
    ranks = torch.empty(small.numel())
    ranks[small.flatten().argsort(descending=True, stable=True)] = torch.arange(small.numel(), dtype=torch.float32)
    ranks = ranks.view(size) / small.numel()
    fractions = torch.linspace(0, 1, steps + 1)
    inserted = (ranks < fractions[:, None, None]).float()
    insertion, deletion = prepared.scores(inserted, target), prepared.scores(1 - inserted, target)
    return Faithfulness(tuple(fractions.tolist()), tuple(insertion.tolist()), tuple(deletion.tolist()))


def _to_image(saliency: Float[Tensor, "h w"], size: tuple[int, int]) -> Float32[np.ndarray, "height width"]:
    """Upsample a map from the network input to the image, smoothly."""
    large = F.interpolate(saliency[None, None].float(), size=size, mode="bilinear", align_corners=False)
    return large[0, 0].numpy()
