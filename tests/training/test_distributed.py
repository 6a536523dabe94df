"""Devices, precisions, and two processes that do what one does."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flat_options import train_options

from boxwright.checkpoints import read_checkpoint
from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.structures import Batch, Targets
from boxwright.training import distributed
from boxwright.training.distributed import choose_device, choose_precision, init_distributed
from boxwright.training.log import read_log
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import train_step

CPU = torch.device("cpu")
WORKER = Path(__file__).with_name("two_processes.py")

CASES = {
    "case_all_have_objects": ((), {"num_denoising": 0}, {}),
    "case_accumulated": ((), {"num_denoising": 0}, {"batches__accumulate_steps": 2}),
    "case_the_second_has_none": ((2, 3), {"num_denoising": 0}, {}),
    "case_nobody_has_any": ((0, 1, 2, 3), {"num_denoising": 0}, {}),
    "case_denoising_where_the_second_has_none": ((2, 3), {"num_denoising": 8}, {}),
}
"""Images without objects, options of the head and of training."""

LIKE_ONE = [name for name in CASES if "denoising" not in name]

Outcome = tuple[float, dict[str, torch.Tensor]]


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def prepare(
    name: str, make_detector: Callable[..., Detector], freeze: Callable[[Detector], Detector], batch: Batch
) -> tuple[Detector, Batch, TrainOptions]:
    empty, head, options = CASES[name]
    detector = freeze(make_detector(num_classes=6, **head)).double().to(memory_format=torch.channels_last)
    # Without denoising these have no gradient, and the processes none to exchange.
    detector.head.denoising_classes.requires_grad_(head["num_denoising"] > 0)
    targets = [Targets(t.labels[:0], t.boxes[:0], t.size) if i in empty else t for i, t in enumerate(batch.targets)]
    changed = batch._replace(images=batch.images.double(), targets=targets)
    return detector, changed, train_options(batch_size=4, optimizer__max_grad_norm=0.0, **options)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Outcome]]:
    """Filled by the first test that needs it: what each process ended with, by case."""
    return {}


@pytest.fixture
def both(
    outcomes: dict[str, list[Outcome]],
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    frozen_statistics: Callable[[Detector], Detector],
    batch: Batch,
) -> dict[str, list[Outcome]]:
    if not outcomes:
        for name in CASES:
            torch.save(prepare(name, make_detector, frozen_statistics, batch), tmp_path / f"{name}.pt")
        done = torchrun(str(WORKER), str(tmp_path))
        assert done.returncode == 0, done.stderr
        for name in CASES:
            outcomes[name] = [torch.load(tmp_path / f"{name}_rank_{rank}.out") for rank in range(2)]
    return outcomes


@pytest.mark.parametrize("name", LIKE_ONE)
def test_two_processes_have_the_gradient_of_one(
    both: dict[str, list[Outcome]],
    name: str,
    make_detector: Callable[..., Detector],
    frozen_statistics: Callable[[Detector], Detector],
    batch: Batch,
) -> None:
    """Also where one has no objects, or none has: losses are divided by the objects of all (TRAPS 3 and 7)."""
    detector, batch, options = prepare(name, make_detector, frozen_statistics, batch)
    whole = train_step(detector, detector, make_optimizer(detector, options), batch, options, CPU)
    expected = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for _, found in both[name]:
        assert found.keys() == expected.keys()
        for parameter, gradient in expected.items():
            assert float((found[parameter] - gradient).abs().max()) <= 1e-9 * scale, parameter
    # Each reports its own images' part, so that the mean is the whole.
    assert sum(loss for loss, _ in both[name]) / 2 == pytest.approx(whole.loss, rel=1e-6)


def test_denoising_does_not_hang_where_one_process_has_no_objects(both: dict[str, list[Outcome]]) -> None:
    (first_loss, first), (second_loss, second) = both["case_denoising_where_the_second_has_none"]
    assert math.isfinite(first_loss)
    assert math.isfinite(second_loss)
    assert first.keys() == second.keys()
    assert any(name.startswith("head.denoising_classes") for name in first)
    for name, gradient in first.items():
        assert torch.isfinite(gradient).all(), name
        assert torch.equal(gradient, second[name]), name


def test_a_whole_run_in_two_processes(tmp_path: Path, recipe_file: Path, drawn: Path) -> None:
    out = tmp_path / "run"
    train = ["-m", "boxwright", "train", str(recipe_file), "--data", str(drawn), "--out", str(out)]
    done = torchrun(*train, "--train.steps", "4")
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(out / "last.pt")["progress"]["step"] == 4
    steps = [row["step"] for row in read_log(out)]
    assert steps == sorted(steps)
    assert {1, 2, 4} <= set(steps)
    assert done.stderr.count("step 4/4  AP ") == 1


class TestDevice:
    def test_names(self) -> None:
        assert choose_device("cpu") == CPU
        assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")

    def test_auto_takes_the_gpu_of_its_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(distributed.torch.cuda, "is_available", lambda: True)
        assert choose_device("auto", 3) == torch.device("cuda", 3)

    @pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
    def test_a_gpu_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(distributed.torch.cuda, "device_count", lambda: 0)
        with pytest.raises(
            ValueError, match=rf"^there is no device {name}: torch sees 0 CUDA devices; take cpu or auto$"
        ):
            choose_device(name)

    def test_what_is_no_device(self) -> None:
        with pytest.raises(ValueError, match=r"^device is auto, cpu or cuda, not 'gpu'$"):
            choose_device("gpu")

    def test_one_process_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        rank = init_distributed("cpu")
        assert (rank.index, rank.world_size, rank.device, rank.is_first) == (0, 1, CPU, True)


@pytest.mark.parametrize(
    ("name", "capabilities", "expected"),
    [
        ("float32", {"amx_bf16": True}, "float32"),
        ("bfloat16", {}, "bfloat16"),
        ("auto", {"amx_bf16": True}, "bfloat16"),
        ("auto", {"avx512_bf16": True}, "bfloat16"),
        ("auto", {"avx512_bf16": False, "avx2": True}, "float32"),
        ("auto", {}, "float32"),
    ],
)
def test_precision_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, name: str, capabilities: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(distributed.torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(name, CPU) == expected
