"""Sources are checked by their names, before anything is imported that needs torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxwright.weights import source_names
from boxwright.weights.source_names import OPENERS, require_source
from boxwright_runtime.exported_file import SUFFIXES_OF_KINDS


@pytest.mark.parametrize("name", ["none", "none.pt", "other:name", "hf"])
def test_what_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^{name}: no such file or folder; a model is the folder of a run"):
        require_source(name)


def test_what_looks_like_a_name_of_the_hub_is_told() -> None:
    with pytest.raises(FileNotFoundError, match=r"folder \(the model of the hub is hf:owner/name\); a model is"):
        require_source("owner/name")


def test_what_is_there_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.pt").touch()
    for source in (None, tmp_path, str(tmp_path / "model.pt"), "~/model.pt"):
        require_source(source)


def test_others_tell_what_is_missing_of_downloads_and_exported_files() -> None:
    for name in (*(f"{opener}:none" for opener in OPENERS), "none.onnx", "none.XML"):
        require_source(name)
    # The list that needs no PIL is that of the reader.
    assert set(source_names._EXPORTED) == set(SUFFIXES_OF_KINDS)
