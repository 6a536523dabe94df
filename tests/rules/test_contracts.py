"""Parts are asked by contract: attributes are looked up by their names in foreign objects alone."""

from __future__ import annotations

import ast

from source_files import PACKAGE, parse, python_files

FOREIGN = {
    "backbones/timm.py": "models of timm",
    "data/image_check.py": "functions of some operating systems",
    "data/transforms/adapters.py": "transforms of albumentations",
    "layers/timm_maps.py": "models of timm",
    "devices.py": "functions of some versions of torch",
    "weights/sources/torchvision_rcnn.py": "the heads of one class with and without masks",
}
"""Files that ask by name, and whom."""


def test_no_part_is_asked_by_name() -> None:
    asking = set()
    for path in python_files("src"):
        calls = (node.func for node in ast.walk(parse(path)) if isinstance(node, ast.Call))
        if any(isinstance(called, ast.Name) and called.id == "hasattr" for called in calls):
            asking.add(path.relative_to(PACKAGE).as_posix())
    assert asking == FOREIGN.keys()
