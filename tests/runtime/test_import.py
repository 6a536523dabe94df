"""The runtime where there is no torch."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import boxwright_runtime
from stand_in_export import write_stand_in

BLOCKED = ("torch", "torchvision", "jaxtyping", "hotcoco", "boxwright")
"""Packages that the runtime must do without, all of which are installed here."""


def run_without_torch(code: str, *arguments: str) -> str:
    """Run code in a process in which none of ``BLOCKED`` can be imported, and return what it prints."""
    block = f"""
        import sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {BLOCKED}:
                    raise ImportError(f"{{name}} is blocked")
        sys.meta_path.insert(0, Block())
        """
    script = textwrap.dedent(block) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
        print(sorted(set({BLOCKED}) & set(sys.modules)))
        """
    assert run_without_torch(code) == "[]\n"


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
    code = """
        import numpy as np
        from boxwright_runtime import Runtime
        for path in sys.argv[1:]:
            detected = Runtime(path, threads=1).predict([np.full((30, 40, 3), 153, np.uint8)])[0]
            print(detected.boxes.tolist(), detected.names, detected.masks[0]["size"])
        print(sorted(set(BLOCKED) & set(sys.modules)))
        """.replace("BLOCKED", repr(BLOCKED))
    files = [str(write_stand_in(tmp_path / name, masks=True)) for name in ("a.onnx", "a.xml")]
    detected = "[[0.0, 0.0, 40.0, 30.0], [0.0, 0.0, 20.0, 15.0]] ['thing', 'quarter'] [30, 40]\n"
    assert run_without_torch(code, *files) == f"{detected}{detected}[]\n"
