"""Preprocessing inside an exported file against Pillow outside, in turn.

::

    python benchmarks/preprocessing.py
    python benchmarks/preprocessing.py --image-size 800 --resize shortest_side --rounds 50 --threads 2

Bytes of an image of 480 x 640 and of 1080 x 1920 pixels become the normalized network input: by the file's graph in
ONNX Runtime and in OpenVINO, by Pillow and NumPy as a user writes it, and by the runtime's own function. Prints
medians, and the median of each round's ratio to Pillow; below 1 the graph is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
import openvino
from PIL import Image

from boxwright.exporting.openvino import OPENVINO_OPTIONS, to_openvino
from boxwright.exporting.preprocessing import preprocessing_graph
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.network_input import make_network_input

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


def measure(ways: dict[str, Preprocess], image: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Measure seconds of each round, by way; in each round all ways take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + WARM_UP):
        for name, preprocess in ways.items():
            start = time.perf_counter()
            preprocess(image)
            if index >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--resize", choices=("square", "shortest_side", "letterbox"), default="square")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without-openvino", action="store_true")
    options = parser.parse_args()
    input_format = InputFormat(image_size=options.image_size, resize=options.resize, mean=MEAN, std=STD)
    ways: dict[str, Preprocess] = {
        "Pillow and NumPy": with_pillow(input_format),
        "boxwright_runtime": lambda image: make_network_input(image, input_format)[None],
        "graph, onnxruntime": in_onnxruntime(input_format, options.threads),
    }
    if not options.without_openvino:
        ways["graph, openvino"] = in_openvino(input_format, options.threads)
    print(f"{options.resize} {options.image_size}, {options.threads} thread(s), {options.rounds} rounds")
    for height, width in SHAPES:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        seconds = measure(ways, image, options.rounds)
        first = next(iter(seconds.values()))
        for name, own in seconds.items():
            ratio = statistics.median(one / other for one, other in zip(own, first, strict=True))
            print(f"{height:5} x {width}  {name:20} {1e3 * statistics.median(own):8.2f} ms  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
