"""Files that are no exported files, are damaged, or are from elsewhere: one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from boxwright_runtime import Runtime
from boxwright_runtime.exported_file import is_exported_name, read_exported_file
from boxwright_runtime.metadata import METADATA_KEY, Metadata
from stand_in_export import make_metadata, make_model, write_stand_in

KINDS = ("onnx", "xml")


def fails(path: Path | str, error: type[Exception] = ValueError, **options: Any) -> str:
    """The one line of the error of opening a file."""
    with pytest.raises(error) as caught:
        Runtime(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_are_read_without_a_runtime(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_stand_in(tmp_path / f"a.{kind.upper() if kind == 'onnx' else kind}", masks="box")
    for name in ("onnxruntime", "openvino", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    assert read_exported_file(path).metadata == make_metadata(masks="box")
    assert read_exported_file(str(path)).path == path


def test_names() -> None:
    assert is_exported_name("a/b.onnx")
    assert is_exported_name(Path("a.XML"))
    assert not is_exported_name("onnx")
    assert not is_exported_name("a.onnx.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_there(tmp_path: Path, kind: str) -> None:
    assert fails(tmp_path / f"a.{kind}", FileNotFoundError) == f"there is no file {tmp_path}/a.{kind}"
    (tmp_path / f"b.{kind}").mkdir()
    assert fails(tmp_path / f"b.{kind}").endswith(f"b.{kind} is a folder, not an exported file")
    os.mkfifo(tmp_path / f"c.{kind}")
    assert fails(tmp_path / f"c.{kind}").endswith(f"c.{kind} cannot be read: it is a pipe, not a file")


@pytest.mark.parametrize("name", ["a.pt", "a", "a.bin", "model.safetensors"])
def test_other_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert fails(tmp_path / name).endswith(f"{name}: the name of an exported file ends in .onnx or .xml")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["", "any text", "image", "<html><body/></html>", "\x00" * 100, "{}"])
def test_no_exported_file(tmp_path: Path, kind: str, content: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_text(content)
    if content == "image":
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path, "PNG")
    assert re.search(rf"a\.{kind} cannot be read: .*; export it again$", fails(path))


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_others(tmp_path: Path, kind: str) -> None:
    """Whole files that Boxwright has not exported."""
    path = write_stand_in(tmp_path / f"a.{kind}")
    if kind == "onnx":
        model = onnx.load(path)
        helper.set_model_props(model, {"made by": "others"})
        onnx.save(model, path)
    else:
        path.write_text(
            path.read_text().replace(f"<{METADATA_KEY} ", "<others ").replace(f"</{METADATA_KEY}>", "</others>")
        )
    assert "a." + kind + " was not exported by Boxwright: it has no metadata" in fails(path)


def with_metadata(path: Path, text: str) -> Path:
    """Write a stand-in with another text for its metadata."""
    model = make_model(make_metadata())
    helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, path)
    return path


def test_a_newer_version(tmp_path: Path) -> None:
    content = json.loads(make_metadata().to_json()) | {"format": 2, "version": "7.1.0", "task": "dreaming"}
    message = fails(with_metadata(tmp_path / "a.onnx", json.dumps(content)))
    assert (
        "a.onnx: it was written by a newer version, Boxwright 7.1.0, in format 2; this one reads 1: update" in message
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"format": "one"}',
        '{"format": 1}',
        json.dumps(json.loads(make_metadata().to_json()) | {"categories": [{"id": 1}]}),
        json.dumps(json.loads(make_metadata().to_json()) | {"input_format": {"image_size": -3}}),
        json.dumps(json.loads(make_metadata().to_json()) | {"input_format": {"of_later": 3}}),
        json.dumps(json.loads(make_metadata().to_json()) | {"profile": "words"}),
        json.dumps(json.loads(make_metadata().to_json()) | {"masks": "faces"}),
    ],
)
def test_damaged_metadata(tmp_path: Path, text: str) -> None:
    assert "a.onnx: its metadata are damaged (" in fails(with_metadata(tmp_path / "a.onnx", text))


@pytest.mark.parametrize(("written", "read"), [(True, "box"), (False, None), (None, None), ("image", "image")])
def test_masks_of_older_files_are_of_boxes(written: object, read: str | None) -> None:
    content = json.loads(make_metadata().to_json())
    assert Metadata.from_json(json.dumps(content | {"masks": written})).masks == read
    del content["masks"]
    assert Metadata.from_json(json.dumps(content)).masks is None


def test_metadata_survive_their_text() -> None:
    metadata = make_metadata(
        tuning={"thresholds": {"thing": 0.25}},
        masks="image",
        profile="float",
        precision="int8",
        passport={"origin": None},
        recipe={"head": {"name": "detr"}},
        float32_nodes=("a", "b/c"),
    )
    assert Metadata.from_json(metadata.to_json()) == metadata
    assert json.loads(metadata.to_json())["format"] == 1


def test_a_profile_that_is_not_the_files(tmp_path: Path) -> None:
    model = make_model(make_metadata(profile="float"))
    helper.set_model_props(model, {METADATA_KEY: make_metadata().to_json()})
    onnx.save(model, tmp_path / "a.onnx")
    assert fails(tmp_path / "a.onnx").endswith(
        "a.onnx has other inputs than its metadata say: images float32 of 4 axes and sizes int64 of 2 axes in place of "
        "images uint8 of 4 axes; export it again"
    )


def test_masks_that_are_not_in_the_file(tmp_path: Path) -> None:
    model = make_model(make_metadata())
    helper.set_model_props(model, {METADATA_KEY: make_metadata(masks="box").to_json()})
    onnx.save(model, tmp_path / "a.onnx")
    assert fails(tmp_path / "a.onnx").endswith("a.onnx has no output masks, mask_boxes; export it again")


@pytest.mark.parametrize(
    ("kind", "own", "other"), [("onnx", "onnxruntime", "openvino"), ("xml", "openvino", "onnxruntime")]
)
def test_the_other_runtime_and_none(
    tmp_path: Path, kind: str, own: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_stand_in(tmp_path / f"a.{kind}")
    assert Runtime(path, runtime=own).runtime == own  # type: ignore[arg-type]
    target = "openvino" if other == "openvino" else "onnx"
    assert fails(path, runtime=other).endswith(f"is for {own}: for {other}, export the model again with --to {target}")
    assert fails(path, runtime="tensorrt") == "runtime is auto, onnxruntime or openvino, not 'tensorrt'"
    assert fails(path, threads=0) == "threads is at least 1, not 0"
    monkeypatch.setitem(sys.modules, own, None)
    assert fails(path) == f"{own} is not installed: pip install {own}"


def test_weights_of_openvino_that_are_gone(tmp_path: Path) -> None:
    path = write_stand_in(tmp_path / "a.xml")
    (tmp_path / "a.bin").unlink()
    assert "a.xml cannot be read: its weights, a.bin, are not beside it" in fails(path)


@pytest.mark.parametrize("change", [-4, 4])
def test_weights_of_another_file_of_openvino(tmp_path: Path, change: int) -> None:
    path = write_stand_in(tmp_path / "a.xml")
    weights = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes((weights + bytes(4))[: len(weights) + change])
    size = len(weights)
    assert f"its weights, a.bin, have {size + change:,} bytes and not {size:,}" in fails(path)


def test_scores_that_are_not_numbers(tmp_path: Path) -> None:
    runtime = Runtime(write_stand_in(tmp_path / "a.onnx", profile="float", input_format=make_metadata().input_format))
    outputs = runtime.run({"images": np.full((1, 3, 4, 4), np.nan, np.float32), "sizes": np.full((1, 4), 4)})
    runtime.run = lambda _: outputs  # type: ignore[method-assign]
    outputs["count"][:] = 2
    with pytest.raises(ValueError, match="predicts values that are not numbers: the model has diverged"):
        runtime.predict(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_one_line(tmp_path: Path, kind: str) -> None:
    """Cut anywhere, no file is run; with bytes changed, it is refused or has the form of an exported file."""
    path = write_stand_in(tmp_path / f"a.{kind}")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for length in [*range(8), *rng.integers(8, len(content) - 1, 40)]:
        path.write_bytes(content[:length])
        fails(path)
    opened, messages = 0, []
    for _ in range(80):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            Runtime(path)
            opened += 1
        except ValueError as error:
            messages.append(str(error))
    assert opened < 60
    assert not any("\n" in message for message in messages)
