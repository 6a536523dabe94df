"""RT-DETRv2 of its authors, lyuwenyu/RT-DETR: other names than version 1, and constants of the input size."""

from __future__ import annotations

from boxwright.detector import Detector
from boxwright.weights.projects.rtdetr import read_options
from boxwright.weights.projects.rtdetr_authors import check_writable, describe_authors, list_weights, make_constants
from boxwright.weights.projects.rtdetr_names import make_table
from boxwright.weights.source import Layout, SourceFiles, SourceModel

__all__ = ["AuthorsRTDETRv2"]


class AuthorsRTDETRv2:
    """Source: Lv et al., RT-DETRv2, 2024; names of lyuwenyu/RT-DETR 068dfde, rtdetrv2_pytorch.

    Its released R101 is the file of version 1.
    """

    title = "RT-DETRv2 of its authors"
    example = "rtdetrv2_r50vd_6x_coco_ema.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("encoder.input_proj.0.conv.weight", "decoder.dec_score_head.0.weight") and not files.has(
            "decoder.pre_bbox_head.layers.0.weight"
        )

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        return describe_authors(files, 2)

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout, with the constants of its input size."""
        options = read_options(detector, has_hgnet=True)
        check_writable(options, 2)
        converted = make_table(2).write(list_weights(detector, options))
        constants = make_constants(options, detector.input_format.image_size)
        return Layout(tensors=converted.tensors | constants, file_name="rtdetrv2.pth", wrap=("ema", "module"))
