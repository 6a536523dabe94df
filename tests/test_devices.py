"""The device that a name means."""

from __future__ import annotations

import pytest
import torch

from boxwright.devices import choose_device


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
