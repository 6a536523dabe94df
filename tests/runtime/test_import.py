"""The runtime where there is no torch."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

import boxwright_runtime
from stand_in_export import write_stand_in
from without_torch import BLOCKED, PREDICT, PREDICTED, run_without_torch


def test_every_module_is_imported_without_torch() -> None:
    assert all(find_spec(name) is not None for name in BLOCKED)
    folder = Path(boxwright_runtime.__file__).parent
    names = sorted(f"boxwright_runtime.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__")
    code = f"""
        from importlib import import_module
        for name in {names}:
            import_module(name)
        import boxwright_runtime
        for name in boxwright_runtime.__all__:
            getattr(boxwright_runtime, name)
        print(sorted(set(BLOCKED) & set(sys.modules)))
        """
    assert run_without_torch(code) == "[]\n"


def test_the_time_of_an_import_is_printed() -> None:
    """The time is no condition: a busy machine takes longer. ``benchmarks/runtime_import.py`` measures it."""
    code = """
        import time
        start = time.perf_counter()
        from boxwright_runtime import Runtime
        print(time.perf_counter() - start, "torch" in sys.modules, "onnxruntime" in sys.modules)
        """
    seconds, *loaded = run_without_torch(code).split()
    print(f"boxwright_runtime is imported in {float(seconds):.2f} s")
    assert loaded == ["False", "False"]


def test_detections_are_used_without_torch() -> None:
    code = """
        import numpy as np
        from boxwright_runtime import Category, Detections
        from boxwright_runtime.mask_pasting import paste_masks
        boxes = np.array([[1, 2, 30, 40], [5, 5, 9, 9]], np.float32)
        masks = paste_masks(np.ones((2, 28, 28), np.float32), boxes, (50, 60))
        some = Detections(boxes, np.array([0.9, 0.1]), np.array([0, 1]), masks, (Category(3, "a"), Category(4, "b")))
        print(some[some.scores > 0.5].to_coco(7)[0]["category_id"], some.cpu().names)
        """
    assert run_without_torch(code) == "3 ['a', 'b']\n"


def test_files_are_run_without_torch(tmp_path: Path) -> None:
    files = [write_stand_in(tmp_path / name, masks="box") for name in ("a.onnx", "a.xml")]
    assert run_without_torch(PREDICT, *files) == f"{PREDICTED * 2}[]\n"


def test_the_ten_lines_of_the_docs_need_nothing_of_boxwright(tmp_path: Path) -> None:
    """As they stand on the page, where not even the runtime can be imported."""
    page = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text()
    (lines,) = re.findall(r"```python\n# ten_lines\.py\n(.*?)```", page, re.DOTALL)
    write_stand_in(tmp_path / "model.onnx")
    Image.new("RGB", (40, 30), (153, 153, 153)).save(tmp_path / "photo.jpg", quality=100)
    code = f"import os; os.chdir(sys.argv[1]); sys.modules['boxwright_runtime'] = None\n{lines}"
    assert run_without_torch(code, tmp_path) == "thing 0.6 [0.0, 0.0, 40.0, 30.0]\n"
