"""RF-DETR of roboflow/rf-detr, for detection and masks: files with ``model`` and ``args``."""

from __future__ import annotations

from boxwright.detector import Detector
from boxwright.structures import Category
from boxwright.weights.projects.deformable import assume_classes
from boxwright.weights.projects.rfdetr import infer_rfdetr, read_rfdetr_parts, write_rfdetr
from boxwright.weights.projects.rfdetr_names import PROJECTOR
from boxwright.weights.source import Layout, SourceFiles, SourceModel

__all__ = ["RFDETR"]


class RFDETR:
    """Source: Robinson et al., RF-DETR, 2025; names of roboflow/rf-detr 35ac6ab."""

    title = "RF-DETR of its authors, also with masks"
    example = "rf-detr-nano.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        names = "refpoint_embed.weight", "query_feat.weight", f"{PROJECTOR}0.cv1.conv.weight"
        return files.has(*names) and files.config.get("model_type") != "rf_detr"

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        notes = list[str]()
        structure = infer_rfdetr(files.tensors, files.arguments, notes)
        categories, note = _name_classes(structure.num_classes, files.arguments.get("class_names"))
        return SourceModel(
            recipe=structure.recipe,
            overrides=structure.overrides,
            categories=categories,
            table=structure.table,
            assumptions=[*notes, *note],
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        tensors = write_rfdetr(detector, read_rfdetr_parts(detector))
        return Layout(tensors=tensors, file_name="checkpoint.pth", wrap=("model",))


def _name_classes(num_classes: int, names: object) -> tuple[list[Category], list[str]]:
    """Name the classes: the first row is of none, where there are names for the others."""
    categories, note = assume_classes(num_classes)
    if isinstance(names, list) and len(names) == num_classes - 1 and all(isinstance(name, str) for name in names):
        return [categories[0], *(Category(i + 1, name) for i, name in enumerate(names))], []
    return categories, note
