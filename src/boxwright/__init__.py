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
    from boxwright.workflows.predict import predict
    from boxwright.workflows.predicted_results import CocoFile
    from boxwright.workflows.reading import DataFiles
    from boxwright.workflows.replay import replay
    from boxwright.workflows.report import report
    from boxwright.workflows.study import study
    from boxwright.workflows.tile import tile
    from boxwright.workflows.train import train
    from boxwright.workflows.tune_thresholds import tune_thresholds
    from boxwright_runtime.detections import Detections
    from boxwright_runtime.tiles import TileOptions

__all__ = [
    "Callback",
    "Category",
    "CocoFile",
    "ComputeOptions",
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
    "TileOptions",
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
    "predict",
    "replay",
    "report",
    "save",
    "serve",
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
    "DataFiles": "boxwright.workflows.reading",
    "Detections": "boxwright_runtime.detections",
    "Detector": "boxwright.detector",
    "DrawingStyle": "boxwright.drawing.style",
    "Drawings": "boxwright.drawing.style",
    "EarlyStopping": "boxwright.training.callbacks",
    "ImageDataset": "boxwright.data.image_dataset",
    "LabeledImage": "boxwright.data.image_dataset",
    "Recipe": "boxwright.compose.recipe",
    "ServingOptions": "boxwright.serving.options",
    "TileOptions": "boxwright_runtime.tiles",
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
    "predict": "boxwright.workflows.predict",
    "replay": "boxwright.workflows.replay",
    "report": "boxwright.workflows.report",
    "save": "boxwright.compose.detectors",
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
