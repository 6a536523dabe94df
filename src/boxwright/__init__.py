"""Boxwright: object detectors built from interchangeable parts.

``boxwright.build("rtdetr_r18", num_classes=3)`` builds a detector, ``boxwright.load(path)`` loads a trained one, and
``boxwright.check``, ``train``, ``evaluate``, ``predict``, ``bench``, ``export``, ``replay``, ``convert``,
``convert_data``, ``serve`` and ``info`` do what the commands of these names do.
"""

# Nothing that Python has not imported by now: for `python -m boxwright` this file comes before `__main__.py`, when the
# current folder is still first on the import path.
from importlib import import_module

from boxwright.version import __version__

TYPE_CHECKING = False
"""True to type checkers, as ``typing.TYPE_CHECKING``."""

if TYPE_CHECKING:
    from boxwright.compose.detectors import build, save
    from boxwright.compose.recipe import Recipe
    from boxwright.data.image_dataset import ImageDataset, LabeledImage
    from boxwright.detector import Detector
    from boxwright.devices import ComputeOptions
    from boxwright.drawing.style import Drawings, DrawingStyle
    from boxwright.serving.options import ServingOptions
    from boxwright.serving.serve import serve
    from boxwright.structures import Category
    from boxwright.tracking.counting import CountLine, CountZone
    from boxwright.tracking.tracker import Tracker, TrackingOptions
    from boxwright.training.callbacks import Callback, EarlyStopping
    from boxwright.weights.model import load
    from boxwright.workflows.bench import bench
    from boxwright.workflows.check import check
    from boxwright.workflows.compare import compare
    from boxwright.workflows.convert import convert
    from boxwright.workflows.convert_data import convert_data
    from boxwright.workflows.evaluate import evaluate
    from boxwright.workflows.evaluate_results import evaluate_results
    from boxwright.workflows.explain import explain
    from boxwright.workflows.export import export
    from boxwright.workflows.info import info
    from boxwright.workflows.next_images import next_images
    from boxwright.workflows.predict import predict
    from boxwright.workflows.predict_shards import predict_shards
    from boxwright.workflows.predict_video import VideoFiles, predict_video
    from boxwright.workflows.predicted_results import CocoFile
    from boxwright.workflows.prelabel import prelabel
    from boxwright.workflows.reading import DataFiles
    from boxwright.workflows.replay import replay
    from boxwright.workflows.report import report
    from boxwright.workflows.shard_folder import ShardedResults
    from boxwright.workflows.study import study
    from boxwright.workflows.tile import tile
    from boxwright.workflows.train import train
    from boxwright.workflows.tune_thresholds import tune_thresholds
    from boxwright.workflows.video_frames import TrackOptions, stream_video
    from boxwright_runtime.detections import Detections
    from boxwright_runtime.tiles import TileOptions

__all__ = [
    "Callback",
    "Category",
    "CocoFile",
    "ComputeOptions",
    "CountLine",
    "CountZone",
    "DataFiles",
    "Detections",
    "Detector",
    "DrawingStyle",
    "Drawings",
    "EarlyStopping",
    "ImageDataset",
    "LabeledImage",
    "Recipe",
    "ServingOptions",
    "ShardedResults",
    "TileOptions",
    "TrackOptions",
    "Tracker",
    "TrackingOptions",
    "VideoFiles",
    "__version__",
    "bench",
    "build",
    "check",
    "compare",
    "convert",
    "convert_data",
    "evaluate",
    "evaluate_results",
    "explain",
    "export",
    "info",
    "load",
    "next_images",
    "predict",
    "predict_shards",
    "predict_video",
    "prelabel",
    "replay",
    "report",
    "save",
    "serve",
    "stream_video",
    "study",
    "tile",
    "train",
    "tune_thresholds",
]

_HOMES = {
    "Callback": "boxwright.training.callbacks",
    "Category": "boxwright.structures",
    "CocoFile": "boxwright.workflows.predicted_results",
    "ComputeOptions": "boxwright.devices",
    "CountLine": "boxwright.tracking.counting",
    "CountZone": "boxwright.tracking.counting",
    "DataFiles": "boxwright.workflows.reading",
    "Detections": "boxwright_runtime.detections",
    "Detector": "boxwright.detector",
    "DrawingStyle": "boxwright.drawing.style",
    "Drawings": "boxwright.drawing.style",
    "EarlyStopping": "boxwright.training.callbacks",
    "ImageDataset": "boxwright.data.image_dataset",
    "LabeledImage": "boxwright.data.image_dataset",
    "Recipe": "boxwright.compose.recipe",
    "ShardedResults": "boxwright.workflows.shard_folder",
    "ServingOptions": "boxwright.serving.options",
    "TileOptions": "boxwright_runtime.tiles",
    "TrackOptions": "boxwright.workflows.video_frames",
    "Tracker": "boxwright.tracking.tracker",
    "TrackingOptions": "boxwright.tracking.tracker",
    "VideoFiles": "boxwright.workflows.predict_video",
    "bench": "boxwright.workflows.bench",
    "build": "boxwright.compose.detectors",
    "check": "boxwright.workflows.check",
    "compare": "boxwright.workflows.compare",
    "convert": "boxwright.workflows.convert",
    "convert_data": "boxwright.workflows.convert_data",
    "evaluate": "boxwright.workflows.evaluate",
    "evaluate_results": "boxwright.workflows.evaluate_results",
    "explain": "boxwright.workflows.explain",
    "export": "boxwright.workflows.export",
    "info": "boxwright.workflows.info",
    "load": "boxwright.weights.model",
    "next_images": "boxwright.workflows.next_images",
    "predict": "boxwright.workflows.predict",
    "prelabel": "boxwright.workflows.prelabel",
    "predict_shards": "boxwright.workflows.predict_shards",
    "predict_video": "boxwright.workflows.predict_video",
    "replay": "boxwright.workflows.replay",
    "report": "boxwright.workflows.report",
    "save": "boxwright.compose.detectors",
    "stream_video": "boxwright.workflows.video_frames",
    "serve": "boxwright.serving.serve",
    "study": "boxwright.workflows.study",
    "tile": "boxwright.workflows.tile",
    "train": "boxwright.workflows.train",
    "tune_thresholds": "boxwright.workflows.tune_thresholds",
}
"""The module of each public name, imported on demand (PEP 562): `boxwright --help` must not wait for torch."""


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
