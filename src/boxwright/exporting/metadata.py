"""Metadata of exported files, as the runtime reads them: taken from a detector, and written into models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from boxwright.detector import Detector
from boxwright.exporting.merging import list_inner_graphs
from boxwright.ops.onnx_operators import Operators
from boxwright.version import __version__
from boxwright_runtime.metadata import METADATA_KEY, Metadata, Profile

if TYPE_CHECKING:
    import onnx
    import openvino


def describe_detector(
    detector: Detector, *, profile: Profile, ops: Operators, thresholds: Mapping[str, float] | None = None
) -> Metadata:
    """Collect the metadata of a detector's file in float32.

    Args:
        detector: the detector.
        profile: ``bytes`` or ``float``.
        ops: of the graph.
        thresholds: tuned least score of each class by its name; the detector's own where None, if they were tuned.

    Raises:
        ValueError: thresholds are not those of its classes.
    """
    names = [category.name for category in detector.categories]
    tuning: Mapping[str, Mapping[str, float]] | None = None if thresholds is None else {"thresholds": thresholds}
    if tuning is None and detector.tuning is not None:
        tuning = detector.tuning.by_name(detector.categories)
    if thresholds is not None and sorted(thresholds) != sorted(names):
        other = sorted(set(thresholds) ^ set(names))
        raise ValueError(f"thresholds are of every class by its name; {', '.join(other)} is in one of both alone")
    return Metadata(
        version=__version__,
        task=detector.task,
        categories=detector.categories,
        input_format=detector.input_format,
        profile=profile,
        ops=ops,
        masks=detector.mask_region,
        tuning=tuning,
        passport=None if detector.passport is None else detector.passport.to_dict(),
        recipe=None if detector.recipe is None else detector.recipe.to_dict(),
    )


def remove_traces(model: onnx.ModelProto) -> None:
    """Remove what torch notes of every node, which is half of a small file, paths of this machine among it."""
    model.doc_string, model.producer_name, model.producer_version = "", "boxwright", __version__
    _remove_traces_of_graph(model.graph)


def _remove_traces_of_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in list_inner_graphs(attribute):
                _remove_traces_of_graph(inner)


def write_onnx_metadata(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Write metadata into a model, in place of those that it has."""
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=METADATA_KEY, value=metadata.to_json())


def write_openvino_metadata(model: openvino.Model, metadata: Metadata) -> None:
    """Write metadata into a model, in place of those that it has."""
    model.set_rt_info(metadata.to_json(), METADATA_KEY)
