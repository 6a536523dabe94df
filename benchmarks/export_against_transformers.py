"""Exported RT-DETR beside the file that transformers' model gives through torch's older exporter, in turn, as ratios.

    python benchmarks/export_against_transformers.py
    python benchmarks/export_against_transformers.py --image-size 320 --rounds 20 --threads 2

A ratio above 1 means that the file of Boxwright is faster. Both have the same weights and take the normalized network
input, batch 1, on the CPU. Times are medians over rounds in which all take turns, so that whatever else the machine
does meets all alike. The lines on bf16 and int8 compare files of Boxwright in OpenVINO with the one in float32.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from torch import Tensor, nn

import boxwright
from boxwright.exporting.export_file import build_graph, write_model
from boxwright.exporting.metadata import describe_detector
from boxwright.exporting.precision import open_converter
from boxwright_runtime import Runtime
from peers import transformers_rtdetr
from side_by_side import Row, begin, make_common_parser, make_row, print_rows, turns

CASES = ("--depth 18 --image-size 640",)
QUICK = ("--depth 18 --image-size 160",)


class LogitsAndBoxes(nn.Module):
    """Logits and boxes of a model of transformers, without its intermediate outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(pixel_values=images)
        return output.logits, output.pred_boxes


def export_of_transformers(model: nn.Module, side: int) -> bytes:
    """Export as its users do: the older exporter of torch, with a free batch."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            LogitsAndBoxes(model).eval(),
            (torch.rand(1, 3, side, side),),
            file,
            input_names=["images"],
            output_names=["logits", "boxes"],
            dynamic_axes={"images": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    return file.getvalue()


def onnx_action(file: bytes, images: np.ndarray, threads: int) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": images})


def openvino_action(file: bytes, images: np.ndarray, threads: int) -> Callable[[], Any]:
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(core.read_model(file, b""), "CPU", hints).create_infer_request()
    return lambda: request.infer({"images": images}, share_inputs=True)


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, precisions=())
    parser.add_argument("--depth", type=int, choices=(18, 50), default=18)
    parser.add_argument("--image-size", type=int, default=640)
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare files in both runtimes, and those of less precision with the one in float32."""
    begin(options)
    side, threads = options.image_size, options.threads
    detector = boxwright.build(f"rtdetr_r{options.depth}", num_classes=80, overrides={"image_size": side}).eval()
    theirs = export_of_transformers(transformers_rtdetr(options.depth, detector, num_denoising=0), side)
    images = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    arrays = {"images": images, "sizes": np.array([[side, side, side, side]], dtype=np.int64)}
    with tempfile.TemporaryDirectory() as folder:
        runtimes = [Runtime(file, threads=threads) for file in write_files(detector, arrays, Path(folder))]
        ours = [lambda runtime=runtime: runtime.run(arrays) for runtime in runtimes]
        peers = [onnx_action(theirs, images, threads), openvino_action(theirs, images, threads)]
        measured = turns(*ours, *peers, rounds=options.rounds)
    in_onnx, in_openvino, in_bf16, in_int8, their_onnx, their_openvino = zip(*measured, strict=True)
    work = f"exported RT-DETR-R{options.depth}, {side} px, batch 1, in"
    for what, peer, one, other, precision in (
        ("ONNX Runtime", "transformers, exported by torch", in_onnx, their_onnx, "float32"),
        ("OpenVINO", "transformers, exported by torch", in_openvino, their_openvino, "float32"),
        ("OpenVINO", "the same in float32", in_bf16, in_openvino, "bfloat16"),
        ("OpenVINO", "the same in float32", in_int8, in_openvino, "int8"),
    ):
        yield make_row(f"{work} {what}", peer, zip(one, other, strict=True), precision)


def write_files(detector: nn.Module, arrays: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """Export for ONNX Runtime and OpenVINO in float32, and for OpenVINO in bfloat16 and int8."""
    graph = build_graph(detector, profile="float", ops="auto")
    metadata = describe_detector(detector, profile="float", ops="auto")
    files = [folder / "fp32.onnx", folder / "fp32.xml"]
    for file in files:
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        write_model(copy, metadata, file)
    for precision in ("bf16", "int8"):
        converted = folder / f"{precision}.xml"
        open_converter(files[1], precision, [arrays]).write(converted)
        files.append(converted)
    return files


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
