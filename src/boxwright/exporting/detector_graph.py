"""A whole detector as operations on tensors: network input to boxes in pixels of the original images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from boxwright.contracts import SizedOutput
from boxwright.data.images import normalize
from boxwright.detector import Detector
from boxwright.ops.boxes import at_least_float32, clip_to_sizes
from boxwright.ops.ranking import rank
from boxwright_runtime.input_format import InputFormat

GRAPH_OUTPUTS = ("boxes", "scores", "labels", "count")
MASK_OUTPUTS = ("masks", "mask_boxes")


class DetectorGraph(nn.Module):
    """A detector, with padding before it and the way back to the original images after it.

    Nothing is asked of an image but its size, so that every operation can be traced with free sizes.

    Args:
        detector: folded, in evaluation.
    """

    fill: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector, self.input_format = detector, detector.input_format
        color = torch.tensor(self.input_format.fill, dtype=torch.uint8)[:, None, None]
        self.register_buffer("fill", normalize(color, self.input_format))

    def forward(self, images: Float[Tensor, "b 3 h w"], sizes: Int[Tensor, "b 4"]) -> dict[str, Tensor]:
        """Detect objects.

        The first ``count`` rows of an image are valid, best first, and the rest is 0.

        Args:
            images: normalized, all of one input size, and not padded.
            sizes: height, width, input height and input width of each image, in pixels.

        Returns:
            ``boxes`` (b, n, 4), corners in pixels of the original image, cut to it; ``scores`` (b, n), ``labels``
            (b, n), ``count`` (b). With masks also ``masks`` (b, n, s, t), probabilities of cells over ``mask_boxes``
            (b, n, 4), which are not cut: the boxes themselves, or the whole network input; see ``MaskRegion``.
        """
        size = sizes.to(torch.float32)
        output = self.detector(*self.pad(images))
        if self.input_format.resize == "letterbox" and isinstance(output, SizedOutput):
            output = output._replace(valid_sizes=size[:, :2] * letterbox_scales(size, self.input_format))
        decoded = self.detector.decode(output)
        order, valid = put_valid_first(decoded.valid)
        boxes = take(at_least_float32(decoded.boxes), order) * scales(size, self.input_format)[:, None]
        scores = take(at_least_float32(decoded.scores), order)
        # Scores that are not numbers have to be seen, valid or not.
        scores = torch.where(valid | scores.isnan(), scores, 0.0)
        boxes = torch.where(valid[..., None], boxes, 0.0)
        labels = take(decoded.labels, order) * valid
        columns = clip_to_sizes(boxes, size[:, :2]), scores, labels, valid.sum(1)
        outputs = dict(zip(GRAPH_OUTPUTS, columns, strict=True))
        if decoded.masks is not None and decoded.mask_boxes is not None:
            masks = take(at_least_float32(decoded.masks), order) * valid[..., None, None]
            regions = take(at_least_float32(decoded.mask_boxes), order) * scales(size, self.input_format)[:, None]
            outputs |= zip(MASK_OUTPUTS, (masks, torch.where(valid[..., None], regions, 0.0)), strict=True)
        return outputs

    def pad(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 3 h_padded w_padded"], Bool[Tensor, "b h_padded w_padded"] | None]:
        """Pad as ``boxwright.data.images.pad_inputs``; there is no mask where no input of the format is padded."""
        is_letterbox = self.input_format.resize == "letterbox"
        height, width = images.shape[-2:]
        if not (is_letterbox or self._multiple_of(height) is not height or self._multiple_of(width) is not width):
            return images, None
        side = self.input_format.image_size
        padded = (side, side) if is_letterbox else (height, width)
        padded_height, padded_width = self._multiple_of(padded[0]), self._multiple_of(padded[1])
        below = torch.arange(padded_height, device=images.device) >= height
        right = torch.arange(padded_width, device=images.device) >= width
        mask = below[:, None] | right
        out = F.pad(images, (0, padded_width - width, 0, padded_height - height))
        if is_letterbox:
            out = torch.where(mask, self.fill, out)
        return out, mask.expand(images.shape[0], -1, -1)

    def _multiple_of(self, side: int) -> int:
        """Round a side up as ``InputFormat.padded_size``, without fixing it in the graph."""
        multiple = self.input_format.pad_multiple
        if multiple == 1 or (isinstance(side, int) and side % multiple == 0):
            return side
        return (side + multiple - 1) // multiple * multiple


def scales(sizes: Float[Tensor, "b 4"], input_format: InputFormat) -> Float[Tensor, "b 4"]:
    """Compute factors (x, y, x, y) from pixels of the network input to those of each original image.

    Args:
        sizes: height, width, input height and input width of each image, in pixels.
        input_format: how images came to their input size.
    """
    if input_format.resize == "letterbox":
        return (1 / letterbox_scales(sizes, input_format)).expand(-1, 4)
    return (sizes[:, :2] / sizes[:, 2:]).flip(-1).repeat(1, 2)


def letterbox_scales(sizes: Float[Tensor, "b 4"], input_format: InputFormat) -> Float[Tensor, "b 1"]:
    """Compute the factor from pixels of each image to those of the square that it just fits into, before rounding."""
    return (input_format.image_size / sizes[:, :2]).amin(1, keepdim=True)


def put_valid_first(valid: Bool[Tensor, "b n"]) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """Order rows so that the valid ones come first, else as they are; return the order, and the mask in that order."""
    values, order = rank(valid.to(torch.float32), valid.shape[1])
    return order, values > 0.5


def take(x: Shaped[Tensor, "b n *rest"], order: Int[Tensor, "b m"]) -> Shaped[Tensor, "b m *rest"]:
    """Select rows of each image."""
    return x.gather(1, order.view(*order.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))
