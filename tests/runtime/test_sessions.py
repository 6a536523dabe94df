"""Sessions of OpenVINO: what fails in it is never taken for a result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from boxwright_runtime.sessions import _OpenVinoSession


class StaleRequest:
    """A request of OpenVINO in which an operator fails at a size: ``infer`` gives the results of the run before."""

    results = (np.ones((1, 2), dtype=np.float32),)

    def infer(self, *_: Any, **__: Any) -> Any:
        return self.results

    def start_async(self, *_: Any, **__: Any) -> None:
        return None

    def wait(self) -> None:
        raise RuntimeError("Kernel is larger than the data shape")


def test_results_of_the_run_before_are_no_results() -> None:
    compiled = SimpleNamespace(
        inputs=[], outputs=[SimpleNamespace(get_any_name=lambda: "boxes")], create_infer_request=StaleRequest
    )
    core = SimpleNamespace(read_model=lambda _path: None, compile_model=lambda *_: compiled)

    class Library:
        """OpenVINO, as far as a session asks for it."""

        @staticmethod
        def Core() -> Any:  # noqa: N802
            return core

    file: Any = SimpleNamespace(metadata=SimpleNamespace(precision="fp32"), path=Path("model.xml"))
    session = _OpenVinoSession(Library, file, threads=1)
    with pytest.raises(RuntimeError, match="Kernel is larger"):
        session.run({"images": np.zeros((1, 3, 2, 2), dtype=np.float32)})
