"""RT-DETR of its authors, lyuwenyu/RT-DETR: files that hold ``{"ema": {"module": ...}}`` or ``{"model": ...}``."""

from __future__ import annotations

from boxwright.detector import Detector
from boxwright.weights.projects.rtdetr import read_options
from boxwright.weights.projects.rtdetr_authors import check_writable, describe_authors, list_weights
from boxwright.weights.projects.rtdetr_names import make_table
from boxwright.weights.source import Layout, SourceFiles, SourceModel

__all__ = ["AuthorsRTDETR"]


class AuthorsRTDETR:
    """Source: Zhao et al., RT-DETR, CVPR 2024; names of lyuwenyu/RT-DETR 068dfde, rtdetr_pytorch."""

    title = "RT-DETR of its authors"
    example = "rtdetr_r50vd_6x_coco_from_paddle.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("encoder.input_proj.0.0.weight", "decoder.dec_score_head.0.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        return describe_authors(files, 1)

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        options = read_options(detector, has_hgnet=True)
        check_writable(options, 1)
        converted = make_table(1).write(list_weights(detector, options))
        return Layout(tensors=converted.tensors, file_name="rtdetr.pth", wrap=("ema", "module"))
