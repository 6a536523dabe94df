"""The device and the precision that a name means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from boxwright.devices import ComputeOptions, choose_device, choose_precision, network_precision

CPU = torch.device("cpu")


def test_names() -> None:
    assert choose_device("cpu") == torch.device("cpu") == choose_device(torch.device("cpu"))
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_auto_takes_the_gpu_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", 3) == torch.device("cuda", 3)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=rf"^there is no device {name}: torch sees 0 CUDA devices; take cpu or auto$"):
        choose_device(name)


def test_what_is_no_device() -> None:
    with pytest.raises(ValueError, match=r"^device is auto, cpu or cuda, not 'gpu'$"):
        choose_device("gpu")


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
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(name, CPU) == expected


def test_what_is_no_precision() -> None:
    message = r"^precision is auto, float32 or bfloat16, not 'fp16'$"
    with pytest.raises(ValueError, match=message):
        choose_precision("fp16", CPU)
    with pytest.raises(ValueError, match=message):
        ComputeOptions(precision="fp16")  # type: ignore[arg-type]


def test_a_device_by_name_has_the_precision_that_suits_it() -> None:
    assert ComputeOptions.of("cpu") == ComputeOptions("cpu", "auto")
    options = ComputeOptions("cpu", "float32")
    assert ComputeOptions.of(options) is options


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_network_in_a_precision(name: str, dtype: torch.dtype) -> None:
    layer, x = nn.Linear(4, 4), torch.ones(1, 4)
    with network_precision(name, CPU):
        assert layer(x).dtype == dtype
    # In float32, the caller's own autocast stays what it is.
    with torch.autocast("cpu", torch.bfloat16), network_precision(name, CPU):
        assert layer(x).dtype == torch.bfloat16
