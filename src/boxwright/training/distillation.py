"""Distillation in training: the maps of a frozen model of timm, and the gradients that steer the weight of its loss."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.contracts import DistillingHead, SteeringNeck
from boxwright.detector import Detector
from boxwright.layers.timm_maps import last_map, pixels_per_cell, pretrained_colors
from boxwright.layers.timm_models import create_timm_model
from boxwright.ops.boxes import at_least_float32
from boxwright.structures import Batch, TeacherMaps
from boxwright.training.sharding import whole_tensor
from boxwright.weights.location import OwnCheckpoint, open_source
from boxwright_runtime.input_format import InputFormat

_OPTIONS = "head.supervision.distillation"


class Teacher:
    """A frozen model of timm, whose maps of network inputs have a cell for each of a student's.

    It sees the network inputs in its own colors, and averaged to as many pixels as give these cells: half as many on
    each side for a stride of 32 and patches of 16 pixels.

    Args:
        model: of timm, with its weights.
        maps: what a head learns from.
        input_format: of the network inputs.
        device: where it computes.
        precision: ``bfloat16`` computes under autocast.

    Source: Liao et al., RT-DETRv4, 2025. Checked against ``DINOv3TeacherModel`` of RT-DETRs/RT-DETRv4 df44122. Differs
    in images that are not square, in averaging where the sizes are no multiple of each other, as for patches of 14
    pixels, which theirs resizes by cubic interpolation, and in computing in the precision of the training.
    """

    def __init__(
        self,
        model: nn.Module,
        maps: TeacherMaps,
        input_format: InputFormat,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.maps, self.device, self.precision = maps, device, precision
        self.colors, self.cell = _Colors(input_format, pretrained_colors(model)), pixels_per_cell(model)

    @classmethod
    def of(cls, detector: Detector, device: torch.device, precision: str) -> Teacher | None:
        """Read the teacher that the head of a detector asks for; None where it asks for none.

        Raises:
            FileNotFoundError: there are no such weights.
            ValueError: no model has this name, weights are not named or not its own, or its maps have other channels
                than the head expects; or nothing steers the weight of its loss.
        """
        head = detector.head
        maps = head.teacher_maps() if isinstance(head, DistillingHead) else None
        if not isinstance(head, DistillingHead) or maps is None:
            return None
        if head.steers_distillation and not any(isinstance(neck, SteeringNeck) for neck in detector.necks):
            raise ValueError(
                f"{_OPTIONS}.gradient_fraction is that of a neck's attention layers, and no neck here tells its own; "
                "give null, or the neck hybrid_encoder"
            )
        return cls(_read_model(maps), maps, detector.input_format, device, precision)

    @torch.no_grad()
    def teach(self, batch: Batch) -> Batch:
        """Put the map of each image into its targets."""
        images = self.colors(batch.images.to(self.device))
        rows, columns = (-(-side // self.maps.stride) for side in images.shape[-2:])
        images = F.adaptive_avg_pool2d(images, (rows * self.cell, columns * self.cell))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            maps = last_map(self.model, images, (rows, columns))
        if maps.shape[1] != self.maps.channels:
            raise ValueError(
                f"the maps of {self.maps.model} have {maps.shape[1]} channels, not {self.maps.channels}; "
                f"give --{_OPTIONS}.channels {maps.shape[1]}"
            )
        targets = [
            target._replace(teacher=at_least_float32(one)) for target, one in zip(batch.targets, maps, strict=True)
        ]
        return batch._replace(targets=targets)


class _Colors:
    """Network inputs in one format of colors to those of a teacher."""

    def __init__(self, input_format: InputFormat, colors: tuple[Sequence[float], Sequence[float]]) -> None:
        self.flip = input_format.channel_order == "bgr"
        own, theirs = (input_format.mean, input_format.std), colors
        self.scale = [a / b for a, b in zip(own[1], theirs[1], strict=True)]
        self.shift = [(a - b) / c for a, b, c in zip(own[0], *theirs, strict=True)]

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        rgb = images.flip(1) if self.flip else images
        scale, shift = (rgb.new_tensor(one)[:, None, None] for one in (self.scale, self.shift))
        return rgb * scale + shift


def _read_model(maps: TeacherMaps) -> nn.Module:
    """Create a model of timm, and load its weights: in timm's own names, or in those that timm knows to translate."""
    if maps.weights is None:
        raise ValueError(
            f"a teacher has weights: give --{_OPTIONS}.weights FILE, or timm:{maps.model}, which is downloaded"
        )
    model: nn.Module = create_timm_model(maps.model, {"num_classes": 0})
    files = open_source(maps.weights)
    if isinstance(files, OwnCheckpoint):
        raise ValueError(f"{maps.weights} is a checkpoint of Boxwright, whose weights are not those of {maps.model}")
    tensors = dict(files.tensors)
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    expected = model.state_dict()
    if translate is not None and not expected.keys() <= tensors.keys():
        tensors = translate(tensors, model)
    wrong = [name for name, own in expected.items() if name not in tensors or tensors[name].shape != own.shape]
    if wrong:
        raise ValueError(
            f"{maps.weights} has not the weights of {maps.model}: {len(wrong)} of {len(expected)} tensors are missing "
            f"or have another shape, {wrong[0]} first"
        )
    model.load_state_dict({name: tensors[name] for name in expected})
    return model


def steer_distillation(detector: Detector, *, ends_epoch: bool, is_late: bool) -> None:
    """Let the head take note of the gradient of a step, where the weight of distillation depends on it.

    Args:
        detector: with the gradients of the step, the same in all processes.
        ends_epoch: the step was the last of a pass over the data.
        is_late: strong augmentation had ended before this pass.
    """
    head = detector.head
    if isinstance(head, DistillingHead) and head.steers_distillation:
        head.steer_distillation(_gradient_fraction(detector), ends_epoch=ends_epoch, is_late=is_late)


def _gradient_fraction(detector: Detector) -> float:
    """Sum of the absolute gradients of the necks' steering parameters, as a fraction of that of all; 0 of nothing."""
    own = {
        id(parameter)
        for neck in detector.necks
        if isinstance(neck, SteeringNeck)
        for parameter in neck.steering_parameters()
    }
    parameters = [parameter for parameter in detector.parameters() if parameter.grad is not None]
    if not parameters:
        return 0.0
    sums = torch.stack([whole_tensor(p.grad.abs().sum()) for p in parameters if p.grad is not None]).double()
    steers = torch.tensor([id(parameter) in own for parameter in parameters], device=sums.device)
    total = float(sums.sum())
    return float(sums[steers].sum()) / total if total > 0 else 0.0
