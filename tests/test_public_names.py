"""Names that users need not know the file of."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize("package", ["boxwright.ops", "boxwright.layers", "boxwright.losses"])
def test_folders_offer_their_public_names(package: str) -> None:
    module = import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__module__.startswith(f"{package}.")
