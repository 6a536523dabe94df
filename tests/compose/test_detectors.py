"""Recipe to detector, detector to checkpoint and back."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import boxwright
from boxwright.compose.detectors import build, build_resolved
from boxwright.compose.recipes import resolve
from boxwright.structures import Category, Level
from boxwright.weights.model import load

CATEGORIES = [Category(7, "seven"), Category(3, "three")]


def save(path: Path, small: dict[str, Any], **changes: Any) -> Path:
    torch.manual_seed(0)
    build_resolved(resolve(small).recipe, categories=CATEGORIES).save(path.with_name("plain.pt"))
    content = {**torch.load(path.with_name("plain.pt"), weights_only=True), "step": 12, **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


class TestBuild:
    def test_each_part_is_given_what_stands_before_it(self, small: dict[str, Any]) -> None:
        detector = build(small, num_classes=3, overrides={"neck": ["fpn", "hybrid_encoder"], "neck.0.out_channels": 24})
        assert detector.backbone.out_spec == {"c3": Level(16, 8), "c4": Level(32, 16), "c5": Level(64, 32)}
        fpn, encoder = detector.necks
        assert fpn.out_spec["c3"] == Level(24, 8)
        assert encoder.projections["c5"].conv.in_channels == 24
        assert encoder.out_spec["c5"] == Level(16, 32)
        assert detector.head.projections["c3"].conv.in_channels == 16
        assert detector.head.encoder_classes.out_features == 3
        assert detector.input_format.image_size == 64

    def test_classes_by_number_or_by_name(self, small: dict[str, Any]) -> None:
        assert build(small, num_classes=2).categories == (Category(0, "class_0"), Category(1, "class_1"))
        assert build(small, categories=CATEGORIES).categories == tuple(CATEGORIES)

    def test_overrides_as_arguments(self, small: dict[str, Any]) -> None:
        with pytest.warns(UserWarning, match="hybrid_encoder was replaced by fpn; its options are dropped"):
            detector = boxwright.build(
                small, num_classes=1, overrides={"neck": {"name": "fpn", "out_channels": 8}, "image_size": 96}
            )
        assert detector.necks[0].out_spec["c4"] == Level(8, 16)
        assert detector.input_format.image_size == 96

    def test_a_part_outside(self, small: dict[str, Any], outside: str) -> None:
        small["neck"] = {"name": f"{outside}:Scaler", "factor": 3}
        assert build(small, num_classes=1).necks[0].factor == 3.0

    def test_a_parts_own_error_names_the_part(self, small: dict[str, Any], outside: str) -> None:
        small["neck"] = ["fpn", {"name": f"{outside}:Scaler", "factor": 0}]
        with pytest.raises(ValueError, match=rf"^neck.1 \({outside}:Scaler\): factor is not 0$"):
            build(small, num_classes=1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "how many classes"),
            ({"num_classes": 0}, "at least 1"),
            ({"categories": []}, "categories are empty"),
            ({"num_classes": 3, "categories": CATEGORIES}, "num_classes is 3, but there are 2 categories"),
        ],
    )
    def test_class_counts_that_make_no_sense(
        self, small: dict[str, Any], arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            build(small, **arguments)

    def test_options_that_there_are_not(self, small: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"^unknown section 'neckk'; did you mean 'neck'\? sections: .*$"):
            build(small, num_classes=1, overrides={"neckk": "fpn"})
        with pytest.raises(ValueError, match=r"^neck\.hiden_dim: unknown neck .*; did you mean 'neck\.hidden_dim'\?"):
            build(small, num_classes=1, overrides={"neck.hiden_dim": 64})


class TestSave:
    def test_a_round_trip(self, small: dict[str, Any], tmp_path: Path) -> None:
        detector = build(small, categories=CATEGORIES).eval()
        boxwright.save(detector, tmp_path / "mine.pt")
        loaded = boxwright.load(tmp_path / "mine.pt")
        assert (loaded.recipe, loaded.categories) == (detector.recipe, detector.categories)
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(loaded.predict(image).boxes, detector.predict(image).boxes)

    def test_a_detector_without_a_recipe(self, small: dict[str, Any], tmp_path: Path) -> None:
        detector = build(small, num_classes=1)
        detector.recipe = None
        with pytest.raises(ValueError, match="this detector has no recipe"):
            detector.save(tmp_path / "mine.pt")

    def test_an_earlier_file_stays_whole_where_writing_fails(
        self, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        detector = build(small, num_classes=1)
        detector.save(tmp_path / "mine.pt")
        before = (tmp_path / "mine.pt").read_bytes()

        def fail(_content: object, file: Any) -> None:
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            detector.save(tmp_path / "mine.pt")
        assert (tmp_path / "mine.pt").read_bytes() == before


class TestLoad:
    @pytest.mark.parametrize("precision", ["float16", "bfloat16", "float64"])
    def test_precision(self, small: dict[str, Any], tmp_path: Path, precision: Any) -> None:
        detector = load(save(tmp_path / "last.pt", small), precision=precision, device="auto")
        assert {x.dtype for x in detector.parameters()} == {getattr(torch, precision)}
        assert {x.device.type for x in detector.parameters()} == {"cuda" if torch.cuda.is_available() else "cpu"}

    def test_image_size(self, small: dict[str, Any], tmp_path: Path) -> None:
        detector = load(save(tmp_path / "last.pt", small), image_size=96)
        assert detector.input_format.image_size == 96
        detector.save(tmp_path / "again.pt")
        assert load(tmp_path / "again.pt").input_format.image_size == 96
        small["input"] = {"image_size": 60, "resize": "shortest_side", "max_size": 100}
        assert load(save(tmp_path / "last.pt", small), image_size=30).input_format.max_size == 50

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"image_size": 100}, "image_size must be a positive multiple of 32, not 100; nearest is 96"),
            ({"precision": "int8"}, "precision is one of float32, float16, bfloat16, float64, not int8"),
            ({"device": "gpu"}, "^device is auto, cpu or cuda, not 'gpu'$"),
            ({"device": "cuda:99"}, "^there is no device cuda:99: torch sees"),
        ],
    )
    def test_options_that_there_are_not(
        self, small: dict[str, Any], tmp_path: Path, options: dict[str, Any], message: str
    ) -> None:
        path = save(tmp_path / "last.pt", small)
        with pytest.raises(ValueError, match=message):
            load(path, **options)

    def test_a_round_trip(self, small: dict[str, Any], tmp_path: Path) -> None:
        path = save(tmp_path / "last.pt", small)
        detector = boxwright.load(path)
        assert not detector.training
        assert detector.categories == tuple(CATEGORIES)
        saved = torch.load(path, weights_only=True)
        for name, tensor in detector.state_dict().items():
            assert torch.equal(tensor, saved["model"][name]), name
        assert saved["recipe"] == resolve(small).recipe.to_dict()
        assert detector.recipe == resolve(small).recipe

    def test_the_moving_average_is_preferred(self, small: dict[str, Any], tmp_path: Path) -> None:
        path = save(tmp_path / "last.pt", small)
        saved = torch.load(path, weights_only=True)
        average = {name: x + 1 if x.is_floating_point() else x for name, x in saved["model"].items()}
        torch.save({**saved, "ema": average}, path)
        weight = load(path).head.encoder_classes.weight
        assert torch.equal(weight, saved["model"]["head.encoder_classes.weight"] + 1)

    def test_the_folder_of_a_run_means_its_best(self, small: dict[str, Any], tmp_path: Path) -> None:
        save(tmp_path / "last.pt", small)
        assert len(load(tmp_path).categories) == 2
        save(tmp_path / "best.pt", small, categories=None)  # as earlier releases call it
        with pytest.raises(ValueError, match=r"best\.pt: a damaged checkpoint, without categories"):
            load(tmp_path)
        build(small, num_classes=5).save(tmp_path / "best.safetensors")
        assert len(load(tmp_path).categories) == 5

    def test_a_part_outside_is_imported_only_where_trusted(
        self, small: dict[str, Any], outside: str, tmp_path: Path
    ) -> None:
        small["neck"] = f"{outside}:Scaler"
        path = save(tmp_path / "last.pt", small)
        del sys.modules[outside]
        with pytest.raises(ValueError, match=f"import {outside} first"):
            load(path)
        assert outside not in sys.modules
        assert load(path, trusted=[outside]).necks[0].factor == 1.0

    def test_no_code_is_run(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "exploded",)

        torch.save({"format": "boxwright", "model": Bomb()}, tmp_path / "bomb.pt")
        with pytest.raises(ValueError, match="damaged, or not weights alone"):
            load(tmp_path / "bomb.pt")
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"hello",
            b"\x80\x04garbage",
            b"PK\x03\x04truncated",
            bytes(range(256)) * 9,
            pickle.dumps({"a": 1}),
        ],
    )
    def test_bytes_that_are_no_checkpoint(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.pt: ") as caught:
            load(tmp_path / "x.pt")
        assert "\n" not in str(caught.value)

    def test_a_truncated_checkpoint(self, small: dict[str, Any], tmp_path: Path) -> None:
        path = save(tmp_path / "last.pt", small)
        path.write_bytes(path.read_bytes()[:-5000])
        with pytest.raises(ValueError, match=r"last\.pt: damaged, or not weights alone"):
            load(path)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": "other"}, "weights of no known kind"),
            ({"version": 99}, "has checkpoint format 99, this release reads 1 to 5"),
            ({"model": None}, "a damaged checkpoint, without model"),
            (
                {"categories": [(1, "one")]},
                r"weights do not fit .* its 1 classes: head.* is \[2, 16\] and should be \[1, 16\] \(and",
            ),
            ({"model": {}}, "a damaged checkpoint: it has no weights"),
        ],
    )
    def test_checkpoints_that_do_not_fit(
        self, small: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        path = save(tmp_path / "last.pt", small, **changes)
        with pytest.raises(ValueError, match=message):
            load(path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no weights in this folder"):
            load(tmp_path)
        with pytest.raises(FileNotFoundError, match="no such file"):
            load(tmp_path / "no.pt")


def test_importing_boxwright_does_not_import_torch() -> None:
    code = "import sys, boxwright; print('torch' in sys.modules, set(boxwright.__all__) == set(dir(boxwright)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_every_public_name_is_there() -> None:
    assert all(getattr(boxwright, name) is not None for name in boxwright.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        boxwright.nothing  # noqa: B018
