"""The recorder of comparisons with other projects."""

from __future__ import annotations

import pytest

from weights.compared import Recorder


@pytest.fixture
def record_comparison(request: pytest.FixtureRequest) -> Recorder:
    """Record what this test compared, where ``BOXWRIGHT_RECORD`` names a file for it."""
    return Recorder(request.node.nodeid)
