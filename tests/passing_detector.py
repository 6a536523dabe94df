"""A detector that hands on its images: the score of a detection is the mean of its image."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from boxwright.detector import Detector
from boxwright.structures import Category, Decoded, Features, Level, Spec
from boxwright_runtime.detections import Detections
from boxwright_runtime.input_format import InputFormat

FORMAT = InputFormat(image_size=32, resize="shortest_side", max_size=64)


class Passes(nn.Module):
    """A backbone that hands on its images, and remembers their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.out_spec: Spec = {"c0": Level(3, 1)}
        self.weight = nn.Parameter(torch.ones(()))
        self.norm = nn.BatchNorm2d(3)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Features:
        self.shapes.append(tuple(images.shape))
        return {"c0": images * self.weight}


class Mean(nn.Module):
    """A head that finds two boxes: the image with its mean as score, and a quarter of it with half the score."""

    def forward(self, features: Features, *_: object) -> Tensor:
        return features["c0"]

    def loss(self, *_: object) -> dict[str, Tensor]:
        raise NotImplementedError

    def decode(self, output: Tensor) -> Decoded:
        b, _, h, w = output.shape
        boxes = torch.tensor([[0, 0, w, h], [0, 0, w / 2, h / 2]], device=output.device).repeat(b, 1, 1)
        scores = output.mean((1, 2, 3))[:, None] * torch.tensor([1.0, 0.5])
        valid = torch.ones(b, 2, dtype=torch.bool)
        return Decoded(boxes.to(output.dtype), scores.to(output.dtype), torch.zeros(b, 2, dtype=torch.long), valid)


def make_detector() -> Detector:
    return Detector(Passes(), [], Mean(), categories=[Category(7, "thing")], input_format=FORMAT)


def gray(value: float, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), round(value * 255), dtype=np.uint8)


def scores(detections: Sequence[Detections]) -> list[float]:
    return [round(one.scores[0].item(), 2) for one in detections]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
