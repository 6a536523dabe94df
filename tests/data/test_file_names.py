"""Files of listed images are found where exactly one fits, each difference with a finding of its kind."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boxwright.data.file_names import likeliest_folder, resolve_names

NFD = unicodedata.normalize("NFD", "café.jpg")
NFC = unicodedata.normalize("NFC", "café.jpg")


def make(folder: Path, names: Iterable[str]) -> Path:
    """Make empty files with these paths."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


FOUND = {
    "exact": ("a.jpg", "a.jpg", None),
    "exact with two dots": ("a..jpg", "a..jpg", None),
    "exact percent": ("a%20b.jpg", "a%20b.jpg", None),
    "in folder": ("sub/a.jpg", "sub/a.jpg", None),
    "needless parts": (".//sub/./a.jpg", "sub/a.jpg", None),
    "backslashes": ("sub\\a.jpg", "sub/a.jpg", "file_name_backslash"),
    "a real backslash": ("sub\\a.jpg", "sub\\a.jpg", None),
    "composed": (NFC, NFD, "file_name_unicode"),
    "decomposed": (NFD, NFC, "file_name_unicode"),
    "percent in the list": ("a%20b%C3%A9.jpg", "a bé.jpg", "file_name_percent"),
    "percent in the file": ("a b.jpg", "a%20b.jpg", "file_name_percent"),
    "suffix in capitals": ("a.JPG", "a.jpg", "file_name_case"),
    "name in capitals": ("sub/img.jpg", "Sub/IMG.jpg", "file_name_case"),
    "suffix of the same kind": ("a.jpeg", "a.JPG", "file_name_suffix"),
    "no suffix": ("frame.001", "frame.001.png", "file_name_suffix"),
    "folder's name in front": ("images/a.jpg", "a.jpg", "file_name_prefix"),
    "folder's name doubled": ("images/images/a.jpg", "a.jpg", "file_name_prefix"),
    "folder's path in front": ("set/images/sub/a.jpg", "sub/a.jpg", "file_name_prefix"),
    "folder's name in another case": ("Images/a.jpg", "a.jpg", "file_name_prefix"),
    "absolute": ("/home/me/set/a.jpg", "a.jpg", "file_name_last_parts"),
    "absolute of Windows": ("C:\\Users\\me\\set\\sub\\a.jpg", "sub/a.jpg", "file_name_last_parts"),
    "upwards": ("../../label-studio/data/upload/1/a.jpg", "a.jpg", "file_name_last_parts"),
    "upwards with backslashes": ("..\\..\\media\\upload\\4\\a.jpg", "a.jpg", "file_name_last_parts"),
    "other folder": ("1/a.jpg", "a.jpg", "file_name_last_parts"),
    "no folder": ("a.jpg", "default/a.jpg", "file_name_last_parts"),
    "web address": ("https://host/set/a%20b.jpg?size=3#x", "a b.jpg", "file_name_url"),
    "address of a bucket": ("s3://bucket/sub/a.jpg", "sub/a.jpg", "file_name_url"),
    "local file of Label Studio": ("/data/local-files/?d=set%2Fsub/a.jpg", "sub/a.jpg", "file_name_url"),
}


class TestFound:
    @pytest.mark.parametrize("what", FOUND)
    def test_one_file_fits(self, tmp_path: Path, what: str) -> None:
        name, file, kind = FOUND[what]
        folder = make(tmp_path / "set/images", [file, "another.jpg", "sub/other.jpg"])
        resolved = resolve_names(folder, [name])
        assert resolved.names == (file,)
        assert resolved.missing == {}
        assert [finding.kind.name for finding in resolved.findings] == ([kind] if kind else [])
        assert all(finding.subject == name and file in finding.detail for finding in resolved.findings)

    def test_the_longest_common_end_counts(self, tmp_path: Path) -> None:
        folder = make(tmp_path, ["x/1/a.jpg", "x/2/a.jpg"])
        assert resolve_names(folder, ["/home/y/2/a.jpg"]).names == ("x/2/a.jpg",)

    def test_links_count_as_files(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "set", ["sub/b.jpg"])
        (folder / "a.jpg").symlink_to(folder / "sub/b.jpg")
        (folder / "sub/loop").symlink_to(folder)
        (folder / "itself").symlink_to(folder / "itself")
        assert resolve_names(folder, ["a.jpg", "sub/B.jpg"]).names == ("a.jpg", "sub/b.jpg")


MISSING = {
    "nothing fits": (["b.jpg"], ["a.jpg"], "not in the folder"),
    "a folder": (["sub"], ["sub/a.jpg"], "not in the folder"),
    "two of another case": (["A.jpg"], ["a.jpg", "a.JPG"], "may be a.JPG or a.jpg"),
    "two of the same kind": (["a.jpe"], ["a.jpg", "a.jpeg"], "may be a.jpeg or a.jpg"),
    "two folders": (["/x/a.jpg"], ["s/a.jpg", "t/a.jpg"], "may be s/a.jpg or t/a.jpg"),
    "outside": (["../b.jpg"], ["a.jpg"], "leaves the folder, no file has its name"),
    "a suffix of another kind": (["a.png"], ["a.jpg"], "not in the folder"),
    "empty": ([""], ["a.jpg"], "not in the folder"),
    "only upwards": (["../.."], ["a.jpg"], "leaves the folder"),
    "5,000 letters": (["x" * 5000], ["a.jpg"], "not in the folder"),
    "half a letter": (["\ud800.jpg"], ["a.jpg"], "not in the folder"),
    "zero byte": (["a\0.jpg"], ["a.jpg"], "not in the folder"),
    "zero byte in the folder": (["a\0/a.jpg", "a.jpg"], ["a.jpg"], "its file a.jpg is that of a.jpg"),
    "others of its folder are there": (["a.jpg", "b.jpg"], ["a.jpg", "val/b.jpg"], "val/b.jpg has the same name"),
    "one file for two": (["/x/1/a.jpg", "/x/2/a.jpg"], ["a.jpg"], "its file a.jpg is that of /x/1/a.jpg"),
    "one file for two cases": (["a.jpg", "A.jpg"], ["a.jpg"], "its file a.jpg is that of a.jpg"),
}


class TestMissing:
    @pytest.mark.parametrize("what", MISSING)
    def test_what_is_not_clear_is_missing_and_said(self, tmp_path: Path, what: str) -> None:
        names, files, reason = MISSING[what]
        resolved = resolve_names(make(tmp_path / "set", files), names)
        assert resolved.names == tuple(names)
        assert resolved.missing
        assert reason in list(resolved.missing.values())[-1]
        assert resolved.findings == ()

    def test_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        assert list(resolve_names(tmp_path / "none", ["a.jpg", "b/a.jpg"]).missing) == [0, 1]


class TestTwice:
    def test_the_same_file_listed_twice_is_a_finding(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "images", ["a.jpg", "b.jpg"])
        resolved = resolve_names(folder, ["a.jpg", "b.jpg", "images/a.jpg", "a.jpg"])
        assert resolved.names == ("a.jpg", "b.jpg", "a.jpg", "a.jpg")
        prefix, twice = resolved.findings
        assert prefix.kind.name == "file_name_prefix"
        assert (twice.kind.name, twice.subject, twice.detail) == ("file_listed_twice", "a.jpg", "3 times")


class TestLikeliestFolder:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["a.jpg", "b.jpg"], "set/images/train"),
            (["train/a.jpg", "train/b.jpg"], "set/images"),
            (["images/images/train/a.jpg"], "set/images/train"),
            (["../x/c.jpg"], "set"),
            (["none.jpg"], "set/images/train"),
        ],
    )
    def test_most_images(self, tmp_path: Path, names: list[str], expected: str) -> None:
        make(tmp_path, ["set/images/train/a.jpg", "set/images/train/b.jpg", "set/other/c.jpg"])
        folders = [tmp_path / "set/none", *(tmp_path / one for one in ("set/images/train", "set/images", "set"))]
        assert likeliest_folder(folders, names) == tmp_path / expected

    def test_none_exists(self, tmp_path: Path) -> None:
        assert likeliest_folder([tmp_path / "a", tmp_path / "b"], ["x"]) == tmp_path / "a"


class TestCost:
    def test_each_folder_is_listed_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [f"{i % 3}/{i}.jpg" for i in range(300)]
        folder = make(tmp_path / "set", names)
        calls: list[str] = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: calls.append(str(path)) or scandir(path))
        assert resolve_names(folder, names).missing == {}
        assert len(calls) == 3
        calls.clear()
        assert resolve_names(folder, [name.upper() for name in names]).missing == {}
        assert len(calls) == 7  # once for the exact names, and once for all files

    @settings(max_examples=100, deadline=None)
    @given(names=st.lists(st.text(max_size=12), max_size=8))
    @example(names=["/dev/stdout", "/dev/null"])
    def test_any_text_is_resolved_or_missing(self, tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
        folder = make(tmp_path_factory.getbasetemp() / "any", ["a.jpg", "B/a.JPG", "0", NFD])
        resolved = resolve_names(folder, names)
        assert len(resolved.names) == len(names)
        for index, name in enumerate(resolved.names):
            path = folder / name  # a whole path, as of a device, may be a file elsewhere
            inside = path.is_file() and path.resolve().is_relative_to(folder.resolve())
            assert (index in resolved.missing) != inside
