"""Configurations of mmdetection, read from the text in its files; nothing in them is executed."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from boxwright.weights.source import SourceFiles

_MAX_TEXT = 1_000_000
"""Characters of a configuration; mmdetection's have some ten thousand."""

_CHECKED: dict[str, Sequence[Any]] = {
    "backbone.type": ("ResNet", "DetectoRS_ResNet"),
    "backbone.dilations": ((1, 1, 1, 1),),
    "backbone.strides": ((1, 2, 2, 2),),
    "backbone.style": ("pytorch", "caffe"),
    "neck.type": ("FPN", "PAFPN", "NASFPN", "RFP"),
    "neck.rfp_steps": (2,),
    "neck.aspp_dilations": ((1, 3, 6, 1),),
    "rpn_head.type": ("RPNHead",),
    "rpn_head.anchor_generator.type": ("AnchorGenerator",),
    "rpn_head.anchor_generator.ratios": ((0.5, 1.0, 2.0),),
    "rpn_head.bbox_coder.type": ("DeltaXYWHBBoxCoder",),
    "rpn_head.bbox_coder.target_stds": ((1.0, 1.0, 1.0, 1.0),),
    "roi_head.type": ("StandardRoIHead", "CascadeRoIHead"),
    "roi_head.bbox_roi_extractor.type": ("SingleRoIExtractor",),
    "roi_head.bbox_roi_extractor.roi_layer.type": ("RoIAlign",),
    "roi_head.mask_roi_extractor.type": ("SingleRoIExtractor",),
    "roi_head.bbox_head.bbox_coder.type": ("DeltaXYWHBBoxCoder",),
    "roi_head.bbox_head.bbox_coder.target_stds": ((0.1, 0.1, 0.2, 0.2),),
    "bbox_head.type": ("RetinaHead", "RetinaSepBNHead"),
    "bbox_head.anchor_generator.type": ("AnchorGenerator",),
    "bbox_head.bbox_coder.type": ("DeltaXYWHBBoxCoder",),
    "bbox_head.bbox_coder.target_stds": ((1.0, 1.0, 1.0, 1.0),),
    "test_cfg.nms.type": ("nms",),
    "test_cfg.rcnn.nms.type": ("nms",),
}
"""Facts of a model that no tensor shows, with the values that there is a counterpart of here."""


class MMDetConfig:
    """The plain values of a configuration.

    Args:
        values: of its top level; empty where the file has none.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    @classmethod
    def of_files(cls, files: SourceFiles) -> MMDetConfig:
        """Read the configuration that mmengine or mmcv stores as text in ``meta``."""
        meta = files.extra.get("meta")
        texts = [meta.get(key) for key in ("cfg", "config")] if isinstance(meta, Mapping) else []
        return cls(next((read_assignments(text) for text in texts if isinstance(text, str)), {}))

    def __bool__(self) -> bool:
        return isinstance(self.values.get("model"), Mapping)

    def get(self, path: str, default: Any = None) -> Any:
        """Return the value at a dotted path, with numbers for positions in lists; ``default`` where there is none."""
        value: Any = self.values
        for key in path.split("."):
            if isinstance(value, Mapping):
                value = value.get(key)
            elif isinstance(value, tuple) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                return default
        return default if value is None else value

    def number(self, path: str, default: int | float) -> int | float:
        """Return the number at a path; ``default`` where there is none."""
        value = self.get(path)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else default

    def numbers(self, path: str, count: int) -> tuple[int | float, ...] | None:
        """Return so many numbers at a path; None where there are others, or none."""
        value = self.get(path)
        if not isinstance(value, tuple) or len(value) != count:
            return None
        return value if all(isinstance(one, int | float) for one in value) else None

    def check(self) -> None:
        """Make sure that there is a counterpart of what no tensor shows.

        Raises:
            ValueError: one of its facts has another value.
        """
        for path, accepted in _CHECKED.items():
            value = self.get(f"model.{path}")
            if value is not None and value not in accepted:
                known = " or ".join(map(str, accepted))
                raise ValueError(f"model.{path} of its configuration is {value}, and can only be {known} here")

    def find_step(self, *types: str) -> Mapping[str, Any]:
        """Find the step of the test pipeline of one of these types; empty where there is none."""
        pipelines = [self.get(path, ()) for path in ("test_pipeline", "data.test.pipeline")]
        steps = [step for pipeline in pipelines if isinstance(pipeline, tuple) for step in pipeline]
        while steps:
            step = steps.pop(0)
            if isinstance(step, Mapping):
                if step.get("type") in types:
                    return step
                nested = step.get("transforms")
                steps += nested if isinstance(nested, tuple) else ()
        return {}


def read_assignments(text: str) -> dict[str, Any]:
    """Read the assignments of plain values in the text of a configuration.

    ``dict(key=value)`` is a mapping, and lists are tuples; what is no plain value is None.
    """
    if len(text) > _MAX_TEXT:
        return {}
    try:
        body = ast.parse(text).body
        return {
            target.id: _plain(node.value)
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _plain(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return tuple(map(_plain, parts))
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {key.value: _plain(value) for key, value in pairs if isinstance(key, ast.Constant)}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {keyword.arg: _plain(keyword.value) for keyword in keywords if keyword.arg is not None}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    return None
