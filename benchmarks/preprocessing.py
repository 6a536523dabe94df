"""Preprocessing inside an exported file against Pillow outside, in turn.

::

    python benchmarks/preprocessing.py
    python benchmarks/preprocessing.py --image-size 800 --resize shortest_side --rounds 50 --threads 2

Bytes of an image of 480 x 640 and of 1080 x 1920 pixels become the normalized network input: by the file's graph in
ONNX Runtime and in OpenVINO, by Pillow and NumPy as a user writes it, and by the runtime's own function. A ratio above
1 means: faster than Pillow.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import onnxruntime
import openvino
from PIL import Image

from boxwright.exporting.openvino import OPENVINO_OPTIONS, to_openvino
from boxwright.exporting.preprocessing import preprocessing_graph
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.network_input import make_network_input
from side_by_side import Row, begin, make_common_parser, make_row, print_rows, turns

CASES = ("",)
QUICK = ("--image-size 64",)
SHAPES = ((480, 640), (1080, 1920))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WARM_UP = 3

Preprocess = Callable[[np.ndarray], object]


def with_pillow(input_format: InputFormat) -> Preprocess:
    """Resize with Pillow, and normalize with NumPy as it is written everywhere."""
    mean, std = (np.array(values, dtype=np.float32) for values in (input_format.mean, input_format.std))

    def run(image: np.ndarray) -> np.ndarray:
        height, width = input_format.input_size(*image.shape[:2])
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = (np.asarray(resized, dtype=np.float32) / 255 - mean) / std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])

    return run


def in_onnxruntime(input_format: InputFormat, threads: int) -> Preprocess:
    """Run the graph in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = preprocessing_graph(input_format).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"images": image[None]})


def in_openvino(input_format: InputFormat, threads: int) -> Preprocess:
    """Run the graph in OpenVINO."""
    options = {**OPENVINO_OPTIONS, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(to_openvino(preprocessing_graph(input_format)), "CPU", options)
    return lambda image: compiled({"images": image[None]})


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=30, precisions=())
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--resize", choices=("square", "shortest_side", "letterbox"), default="square")
    parser.add_argument("--without-openvino", action="store_true")
    parser.set_defaults(threads=1)
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare each way with Pillow and NumPy, on images of both shapes."""
    begin(options)
    input_format = InputFormat(image_size=options.image_size, resize=options.resize, mean=MEAN, std=STD)
    ways: dict[str, Preprocess] = {
        "boxwright_runtime": lambda image: make_network_input(image, input_format)[None],
        "the graph in ONNX Runtime": in_onnxruntime(input_format, options.threads),
    }
    if not options.without_openvino:
        ways["the graph in OpenVINO"] = in_openvino(input_format, options.threads)
    pillow = with_pillow(input_format)
    for shape in SHAPES:
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        actions = [lambda run=run, image=image: run(image) for run in (*ways.values(), pillow)]
        *ours, theirs = zip(*turns(*actions, rounds=options.rounds, warm_up=WARM_UP), strict=True)
        for name, seconds in zip(ways, ours, strict=True):
            work = f"{shape[0]} x {shape[1]} px to {options.resize} {options.image_size}, {name}"
            yield make_row(work, "Pillow and NumPy", zip(seconds, theirs, strict=True), "float32")


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
