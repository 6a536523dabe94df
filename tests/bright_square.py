"""A detector of one bright square."""

from __future__ import annotations

import torch
from torch import Tensor

from boxwright.detector import Detector
from boxwright.structures import Category, Decoded, Features
from boxwright_runtime.input_format import InputFormat
from passing_detector import Passes


class BrightHead(torch.nn.Module):
    """A head whose one box holds all bright pixels of its image."""

    def forward(self, features: Features, *_: object) -> Tensor:
        return features["c0"]

    def loss(self, *_: object) -> dict[str, Tensor]:
        raise NotImplementedError

    def decode(self, output: Tensor) -> Decoded:
        bright = output.mean(1) > 0.5
        boxes, valid = torch.zeros(len(output), 1, 4), bright.flatten(1).any(1, keepdim=True)
        for image, mask in zip(boxes, bright, strict=True):
            y, x = mask.nonzero(as_tuple=True)
            if len(x):
                image[0] = torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1)).float()
        return Decoded(boxes, torch.full((len(output), 1), 0.9), torch.zeros(len(output), 1, dtype=torch.long), valid)


def make_bright_detector(side: int) -> Detector:
    """Make the detector, with an input of this side."""
    input_format = InputFormat(image_size=side, resize="square", mean=(0, 0, 0), std=(1, 1, 1))
    return Detector(Passes(), [], BrightHead(), categories=[Category(7, "square")], input_format=input_format)
