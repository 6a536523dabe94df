"""Sessions of OpenVINO: what fails in it is never taken for a result, and sizes that repeat are compiled once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from boxwright_runtime import Runtime, sessions
from boxwright_runtime.sessions import REPEATS_TO_FIX, _OpenVinoSession
from stand_in_export import write_stand_in


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
    session = _OpenVinoSession(Library, file, threads=1, fixed_shapes=True)
    with pytest.raises(RuntimeError, match="Kernel is larger"):
        session.run({"images": np.zeros((1, 3, 2, 2), dtype=np.float32)})


class CountingCore:
    """The core of OpenVINO, which remembers the shapes that it has compiled for."""

    def __init__(self, core: Any, fails: bool = False) -> None:
        self.core, self.fails = core, fails
        self.compiled: list[str] = []

    def read_model(self, path: str) -> Any:
        return self.core.read_model(path)

    def compile_model(self, model: Any, *options: Any) -> Any:
        self.compiled.append(str(model.inputs[0].partial_shape))
        if self.fails and "?" not in self.compiled[-1]:
            raise RuntimeError("no memory left")
        return self.core.compile_model(model, *options)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> CountingCore:
    import openvino

    counting = CountingCore(sessions.keep_core(openvino))
    monkeypatch.setattr(sessions, "keep_core", lambda _library: counting)
    return counting


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_stand_in(tmp_path / "stand_in.xml")


def draw(height: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {"images": generator.integers(0, 256, (1, height, 30, 3), dtype=np.uint8)}


ANY = "[?,?,?,3]"


def test_the_first_two_sizes_that_repeat_are_compiled_once(core: CountingCore, file: Path) -> None:
    runtime = Runtime(file)
    assert core.compiled == [ANY]
    for height in (10, 20, 10, 20, 10):
        runtime.run(draw(height))
    assert core.compiled == [ANY, "[1,10,30,3]"]
    for height in (10, 10, 10, 20, 30, 30, 30, 40, 40, 40):
        runtime.run(draw(height))
    assert core.compiled == [ANY, "[1,10,30,3]", "[1,20,30,3]"]


def test_sizes_that_come_long_after_are_counted_anew(core: CountingCore, file: Path) -> None:
    """A folder of images of all sizes keeps no list of them."""
    runtime = Runtime(file)
    for _ in range(2 * REPEATS_TO_FIX):
        for height in range(10, 30):
            runtime.run(draw(height))
    assert core.compiled == [ANY]


def test_nothing_is_compiled_that_is_not_asked_for(core: CountingCore, file: Path) -> None:
    runtime = Runtime(file, fixed_shapes=False)
    for _ in range(2 * REPEATS_TO_FIX):
        runtime.run(draw(10))
    assert core.compiled == [ANY]


def test_results_are_those_of_the_image_also_where_it_cannot_be_compiled(core: CountingCore, file: Path) -> None:
    runtime, unfixed = Runtime(file), Runtime(file, fixed_shapes=False)
    core.compiled.clear()
    for fails, height in ((False, 10), (True, 20)):
        core.fails = fails
        for seed in range(2 * REPEATS_TO_FIX):
            expected, outputs = (one.run(draw(height, seed)) for one in (unfixed, runtime))
            for name, values in expected.items():
                np.testing.assert_allclose(outputs[name], values, rtol=1e-6, err_msg=name)
    assert core.compiled == ["[1,10,30,3]", "[1,20,30,3]"], "tried once"


def test_threads_do_not_wait_while_one_compiles(
    core: CountingCore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(file)
    begun, finish = threading.Event(), threading.Event()
    compile_model = core.compile_model

    def compile_slowly(*arguments: Any) -> Any:
        begun.set()
        assert finish.wait(timeout=60)
        return compile_model(*arguments)

    monkeypatch.setattr(core, "compile_model", compile_slowly)
    expected = [runtime.run(draw(10)) for _ in range(REPEATS_TO_FIX - 1)]
    with ThreadPoolExecutor(8) as pool:
        slow = pool.submit(runtime.run, draw(10))
        assert begun.wait(timeout=60)
        others = [pool.submit(runtime.run, draw(10)) for _ in range(20)]
        results = [one.result(timeout=60) for one in others]
        assert not slow.done()
        finish.set()
        results.append(slow.result(timeout=60))
    for one in results:
        np.testing.assert_allclose(one["scores"], expected[0]["scores"], rtol=1e-6)
    assert core.compiled == [ANY, "[1,10,30,3]"]
