"""A candidate of a benchmark in a process of its own, so that its memory and its threads are its own.

``python -m boxwright.workflows.bench_process`` reads a ``Candidate`` as a line of JSON, says that it is ready, and then
runs as often as each further line says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, cast

import numpy as np

from boxwright.cpu_quota import THREADS, set_threading
from boxwright.workflows.bench_candidates import Candidate
from boxwright.workflows.memory_limits import KILLED, peak_memory
from boxwright_runtime.exported_file import is_exported_name
from boxwright_runtime.sessions import REPEATS_TO_FIX

WARM_UPS = REPEATS_TO_FIX
"""Runs before the first that counts: the first one plans and allocates, and one compiles for these sizes."""


class Prepared(NamedTuple):
    """A candidate ready to run.

    Args:
        run: one batch, to its end.
        precision: that it computes in.
        input: what comes in, in words.
    """

    run: Callable[[], Any]
    precision: str
    input: str


@dataclass(frozen=True)
class Readiness:
    """First answer of a process, before its candidate is timed.

    Args:
        seconds: of one run.
        peak: bytes that the process, or of a GPU its pool, had at most; None where the system does not say.
        precision: that it computes in.
        input: what comes in, in words.
    """

    seconds: float
    peak: int | None
    precision: str
    input: str


@contextmanager
def start_process(candidate: Candidate) -> Iterator[BenchProcess]:
    """Start the process of a candidate, and end it at the end of the context."""
    path = os.pathsep.join(path for path in sys.path if path)
    # The last keeps the current folder, where anything may be, off its import path.
    environment = {**os.environ, THREADS: str(candidate.threads), "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        )
        try:
            yield BenchProcess(candidate, process, errors)
        finally:
            process.kill()
            process.communicate()


class BenchProcess:
    """A running process with one candidate; see ``start_process``.

    Args:
        candidate: that it runs.
        process: with pipes to and from it.
        errors: file that its standard error goes to.
    """

    def __init__(self, candidate: Candidate, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.candidate, self._process, self._errors = candidate, process, errors

    def prepare(self) -> Readiness:
        """Load the candidate and run it a few times.

        Raises:
            ValueError: it cannot be loaded or run.
        """
        return Readiness(**self._ask(self.candidate.write()))

    def run_round(self, repeats: int) -> list[float]:
        """Run so often, and return the seconds of each run.

        Raises:
            ValueError: it failed.
        """
        return [float(one) for one in self._ask(json.dumps(repeats))["seconds"]]

    def _ask(self, line: str) -> dict[str, Any]:
        stdin, stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        with suppress(BrokenPipeError):  # It has ended, and is asked why below.
            stdin.write(line + "\n")
            stdin.flush()
        for text in stdout:
            answer: dict[str, Any] = json.loads(text)
            if "error" in answer:
                raise ValueError(f"{self.candidate.describe()}: {answer['error']}")
            return answer
        raise ValueError(f"{self.candidate.describe()}: {self._describe_end()}")

    def _describe_end(self) -> str:
        code = self._process.wait()
        if code in KILLED:
            return "the system ended its process: memory ran out; take a smaller batch, or fewer candidates at a time"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"its process ended with code {code}"


def run_candidate(requests: Iterable[str], answer: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests until there are no more: first for the candidate, then for rounds.

    Args:
        requests: lines of JSON.
        answer: takes each answer.
    """
    lines = iter(requests)
    try:
        candidate = Candidate.parse(next(lines))
        prepared = _prepare(candidate)
        seconds = [_time(prepared.run) for _ in range(WARM_UPS + 1)][-1]
        peak = _peak_on_gpu() if candidate.device.startswith("cuda") else peak_memory()
        answer({"seconds": seconds, "peak": peak, "precision": prepared.precision, "input": prepared.input})
        for line in lines:
            # Other candidates have run in between: caches are theirs.
            prepared.run()
            answer({"seconds": [_time(prepared.run) for _ in range(json.loads(line))]})
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        answer({"error": " ".join(str(error).split()) or type(error).__name__})


def _time(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _peak_on_gpu() -> int:
    import torch

    return torch.cuda.max_memory_reserved()


def _prepare(candidate: Candidate) -> Prepared:
    return _prepare_file(candidate) if is_exported_name(candidate.source) else _prepare_model(candidate)


def _make_images(candidate: Candidate) -> list[np.ndarray]:
    """Make images of noise, which take as long as photographs."""
    generator = np.random.default_rng(0)
    shape = (*candidate.image_shape, 3)
    return [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(candidate.batch_size)]


def _prepare_model(candidate: Candidate) -> Prepared:
    import torch

    from boxwright.compose.parts import import_outside
    from boxwright.data.images import normalize, pad_inputs
    from boxwright.devices import choose_device
    from boxwright.structures import ImageSize
    from boxwright.workflows.models import load_detector
    from boxwright.workflows.observer import Observer

    torch.set_num_threads(candidate.threads)
    for module in candidate.trusted:
        import_outside(module)
    overrides = {} if candidate.image_size is None else {"input.image_size": candidate.image_size}
    detector = load_detector(
        candidate.source, trusted=candidate.trusted, observer=Observer(), overrides=overrides
    ).eval()
    detector.requires_grad_(False)
    if candidate.runtime == "folded":
        detector = detector.fold()
    device = choose_device(candidate.device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[candidate.precision or "fp32"]
    detector.to(device, dtype)
    if device.type == "cpu":
        detector.to(memory_format=torch.channels_last)
    images, input_format = _make_images(candidate), detector.input_format
    height, width = input_format.input_size(*candidate.image_shape)

    def run_bytes() -> None:
        detector.predict(images, batch_size=len(images))

    pixels = torch.randint(0, 256, (len(images), 3, height, width), dtype=torch.uint8)
    inputs, mask = normalize(pixels.to(device), input_format).to(dtype), None
    if (padded := input_format.padded_size(height, width)) != (height, width):
        inputs, mask = pad_inputs(list(inputs), *padded, input_format)
    sizes = [ImageSize(*candidate.image_shape, height, width)] * len(images)

    def run_floats() -> None:
        with torch.inference_mode():
            for one in detector.postprocess(detector(inputs, mask), sizes):
                one.cpu()

    is_float = candidate.input == "float"
    described = (
        f"network input {height} x {width}" if is_float else f"bytes {images[0].shape[0]} x {images[0].shape[1]}"
    )
    return Prepared(run_floats if is_float else run_bytes, candidate.precision or "fp32", described)


def _prepare_file(candidate: Candidate) -> Prepared:
    """Run the file as it is: what the runtime does outside of it, as pasting masks, is not among it."""
    from boxwright_runtime import Runtime

    runtime = Runtime(candidate.source, threads=candidate.threads)
    metadata, count = runtime.metadata, candidate.batch_size
    height, width = candidate.image_shape
    if metadata.profile == "bytes":
        arrays = {"images": np.stack(_make_images(candidate))}
        described = f"bytes {height} x {width}"
    else:
        input_height, input_width = metadata.input_format.input_size(height, width)
        generator = np.random.default_rng(0)
        sizes = np.array([[height, width, input_height, input_width]] * count)
        images = generator.random((count, 3, input_height, input_width), dtype=np.float32)
        arrays = {"images": images, "sizes": sizes}
        described = f"network input {input_height} x {input_width}"
    return Prepared(lambda: runtime.run(arrays), metadata.precision, described)


def _main() -> None:
    """Answer on what is standard output now; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    set_threading(os.environ)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    run_candidate(sys.stdin, answer)


if __name__ == "__main__":
    _main()
