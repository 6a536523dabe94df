"""Models of transformers as references: weights that tell images apart, and their decoded detections."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from boxwright.detector import Detector
from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, convert_files
from boxwright.weights.source import Layout
from boxwright_runtime.detections import Detections
from weights.source_checks import SHAPES, Differences, Expected, assert_same_detections, draw_images

LAST_NORMS = re.compile(r"\.(bn3|layer\.2\.normalization)\.?$")
"""The last norms of the blocks of ResNets of 50 layers and more, by timm's and by transformers' names."""


@torch.no_grad()
def calibrate(model: nn.Module, *, residual_gain: float = 1.0, class_gain: float = 8.0) -> None:
    """Draw weights that tell images and queries apart, and give the frozen norms the statistics of an image.

    Args:
        model: changed in place.
        residual_gain: factor of the last norms of residual blocks; with 1, rounding grows threefold in each stage of a
            ResNet-50.
        class_gain: variance of the logits of classes.
    """
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "query_position" in name or "_embeddings" in name:
            parameter.normal_(0, 2, generator=generator)
        elif parameter.ndim > 1:
            gain = 2.0 if parameter.ndim == 4 else class_gain if "class_labels" in name else 1.5
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            parameter.uniform_(0.5, 1.0, generator=generator)
        else:
            parameter.normal_(0, 0.1, generator=generator)
    norms = {name: module for name, module in model.named_modules() if hasattr(module, "running_var")}
    for name, norm in norms.items():
        norm.weight.uniform_(0.3, 0.8, generator=generator)
        norm.weight.mul_(residual_gain if LAST_NORMS.search(name) else 1.0)
        norm.bias.normal_(0, 0.1, generator=generator)
        norm.register_forward_pre_hook(take_statistics)
    pixels = torch.from_numpy(draw_images()[0]).permute(2, 0, 1)[None].float() / 127 - 1
    model.eval()(pixel_values=pixels)
    for norm in norms.values():
        norm._forward_pre_hooks.clear()


def take_statistics(norm: Any, inputs: tuple[Tensor, ...]) -> None:
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3)))


@torch.no_grad()
def expect(model: Any, processor: Any, image: NDArray[np.uint8]) -> Expected:
    """Detections of transformers, cut to the image."""
    height, width = image.shape[:2]
    output = model(**processor(images=image, return_tensors="pt"))
    (result,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(height, width)])
    limit = torch.tensor([width, height, width, height])
    return Expected(result["scores"], result["labels"], result["boxes"].clamp(min=0).minimum(limit))


def assert_equal_detections(
    ours: Detector, model: Any, processor: Any, shapes: Sequence[tuple[int, int]] = SHAPES, *, spread: float = 0.02
) -> Differences:
    """Make sure that both detect the same in images of these shapes; return the largest differences.

    Scores have at least ``spread`` as their standard deviation: from those that are alike nothing is seen.
    """
    largest, scores = Differences(0.0, 0.0), []
    for image in draw_images(tuple(shapes)):
        expected, actual = expect(model, processor, image), ours.predict(image)
        assert isinstance(actual, Detections)
        largest = largest.join(assert_same_detections(actual, expected))
        scores.append(expected.scores)
    assert torch.cat(scores).std() > spread, "scores that are all alike compare nothing"
    return largest


def compare_outputs(ours: Any, theirs: Any) -> dict[str, float]:
    """Make sure that the last layer's logits and boxes agree to 1e-5; return the largest differences."""
    pairs = {
        "logits": (ours.logits[-1], theirs.logits),
        "normalized boxes": (ours.boxes_cxcywh_norm[-1], theirs.pred_boxes),
    }
    for actual, expected in pairs.values():
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    return {name: float((actual - expected).abs().max()) for name, (actual, expected) in pairs.items()}


def compare_written(layout: Layout, ours: Detector, kind: Any, processor: Any, folder: Path) -> dict[str, float]:
    """Write a layout, let transformers read it, and compare the outputs in double precision: with random weights
    float32's rounding alone reaches the tolerance. Every tensor has to have its place there.

    Args:
        layout: of our detector.
        ours: the detector, which becomes one of double precision.
        kind: class of the model in transformers.
        processor: class of its image processor.
        folder: to write into.
    """
    write_folder(folder, layout.tensors, layout.files["config.json"], layout.files["preprocessor_config.json"])
    theirs, loading = kind.from_pretrained(folder, output_loading_info=True)
    assert not loading["unexpected_keys"]
    assert not loading["missing_keys"]
    pixels = processor.from_pretrained(folder)(images=draw_images()[0], return_tensors="pt")["pixel_values"].double()
    with torch.no_grad():
        return compare_outputs(ours.double()(pixels), theirs.eval().double()(pixel_values=pixels))


def read(folder: Path, **overrides: Any) -> ModelWeights:
    return convert_files(read_source_files(folder), overrides)


def write_folder(folder: Path, tensors: Mapping[str, Tensor], config: Any, processor: Any) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    for name, content in (("config.json", config), ("preprocessor_config.json", processor)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
