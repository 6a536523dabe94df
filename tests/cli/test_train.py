"""``boxwright train``: a run folder, lines on the way, Ctrl-C and going on."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from boxwright.checkpoints import read_checkpoint
from boxwright.cli.main import main
from boxwright.cli.train import run
from boxwright.training.log import read_log
from boxwright.weights.model import load
from equality import assert_equal, timeless
from sparse_ids import NAMES

Capture = pytest.CaptureFixture[str]


def train(recipe: Path, data: Path, out: Path, *more: str) -> int:
    return main(["train", str(recipe), "--data", str(data), "--out", str(out), *more])


def test_a_run_folder_has_recipe_log_and_checkpoints(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} >= {"recipe.yaml", "log.jsonl", "last.pt", "best.safetensors"}
    assert not list(trained.glob("*.unfinished"))
    last = read_checkpoint(trained / "last.pt")
    assert yaml.safe_load((trained / "recipe.yaml").read_text()) == last["recipe"]
    assert last["recipe"]["head"]["decoder"]["num_points"] == 4
    assert last["categories"] == list(NAMES.items())
    rows = read_log(trained)
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [3, 6]
    assert max(row["AP"] for row in rows if row["kind"] == "eval") == last["progress"]["best"]


def test_lines_on_the_way(recipe_file: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "run"
    assert train(recipe_file, drawn, out, "--train.steps", "2", "--train.schedule.evaluations", "1") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    printed = captured.err.splitlines()
    assert re.fullmatch(rf"training on 10 images of 6 classes \(at most \d objects in one\), into {out}", printed[0])
    assert re.fullmatch(r"step 2/2  AP \d\.\d{3}  AP50 \d\.\d{3}  best so far", printed[1])
    assert re.fullmatch(r"done: 2 steps in \d+ s, best AP \d\.\d{3}", printed[2])
    assert printed[3:] == [
        f"now:  boxwright eval {out / 'best.safetensors'} --data {drawn} --split val",
        f"      boxwright predict {out / 'best.safetensors'} IMAGE...",
    ]


def test_the_folder_is_named_after_recipe_and_data(
    recipe_file: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(recipe_file), "--data", str(drawn), "--train.steps", "1"]) == 0
    assert (tmp_path / "runs" / "tiny-set" / "last.pt").is_file()


def test_explicit_files_and_no_validation(recipe_file: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    files = ["--train-annotations", str(drawn / "annotations" / "val.json"), "--train-images", str(drawn / "images")]
    out = tmp_path / "run"
    assert main(["train", str(recipe_file), *files, "--out", str(out), "--train.steps", "2"]) == 0
    printed = capsys.readouterr().err
    assert "note: there is no split val, so that nothing is measured during training\n" in printed
    assert "training on 6 images" in printed
    assert "best AP" not in printed
    assert "boxwright eval" not in printed
    assert f"now:  boxwright predict {out / 'best.safetensors'} IMAGE...\n" in printed
    assert not [row for row in read_log(out) if row["kind"] == "eval"]
    assert len(load(out).categories) == 6


def test_a_validation_without_objects_still_leaves_a_best(recipe_file: Path, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "set")
    file = tmp_path / "set" / "annotations" / "val.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    assert train(recipe_file, tmp_path / "set", tmp_path / "run", "--train.steps", "2") == 0
    assert {row["AP"] for row in read_log(tmp_path / "run") if row["kind"] == "eval"} == {-1.0}
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_notes_on_the_data_and_on_the_recipe(recipe_file: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(drawn, tmp_path / "set")
    file = tmp_path / "set" / "annotations" / "train.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["bbox"] = [-50, -50, 10, 10]
    file.write_text(json.dumps(document))
    out = tmp_path / "run"
    swap = ["--neck", "fpn", "--neck.out_channels", "16", "--train.steps", "1"]
    assert train(recipe_file, tmp_path / "set", out, *swap) == 0
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith(
        "note: neck: hybrid_encoder was replaced by fpn; its options are dropped: expansion=0.5,"
    )
    dropped = r"note: .*train\.json: 1 annotations without area inside their image dropped: .*\(annotation 1 \(.*"
    assert any(re.fullmatch(dropped, line) for line in printed)
    (neck,) = read_checkpoint(out / "last.pt")["recipe"]["neck"]
    assert neck == {
        "name": "fpn",
        "out_channels": 16,
        "norm": "none",
        "extra_levels": 0,
        "extra": "max_pool",
        "extra_relu": True,
    }


class TestInterrupted:
    def test_ctrl_c_and_the_command_that_it_prints(self, recipe_file: Path, drawn: Path, tmp_path: Path) -> None:
        """Another process is stopped at a step that nobody chose; going on here ends as the unbroken run does."""
        more = ["--train.steps", "30", "--train.schedule.no_aug_fraction", "0.3", "--train.runtime.seed", "3"]
        # With a space in it, since the command is printed to be pasted.
        broken, unbroken = tmp_path / "my run", tmp_path / "unbroken"
        command = [sys.executable, "-m", "boxwright", "train", str(recipe_file), "--data", str(drawn)]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        process = subprocess.Popen(
            [*command, "--out", str(broken), *more], stderr=subprocess.PIPE, text=True, env={**os.environ, **threads}
        )
        wait_for(lambda: read_log(broken), process)
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=60)

        assert process.returncode == 130, printed
        assert "Traceback" not in printed
        last = printed.splitlines()[-1]
        assert last.startswith(f"stopped and saved in {broken}; to go on:  boxwright train {recipe_file} ")
        assert last.endswith(" --resume")
        assert 0 < read_checkpoint(broken / "last.pt")["progress"]["step"] < 30
        assert len(load(broken).categories) == 6

        assert main(shlex.split(last.partition("boxwright ")[2])) == 0
        assert train(recipe_file, drawn, unbroken, *more) == 0
        for name in ("last.pt", "best.safetensors"):
            first, second = (torch.load(folder / name, weights_only=True) for folder in (broken, unbroken))
            assert_equal(first, second)
        evaluated = [[row for row in timeless(read_log(f)) if row["kind"] == "eval"] for f in (broken, unbroken)]
        assert evaluated[0] == evaluated[1]
        assert [row["step"] for row in evaluated[0]] == [15, 30]

    def test_a_run_goes_on_as_it_began(self, trained: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
        """The recipe is that of the run, whatever is typed; notes say what differs."""
        shutil.copytree(trained, tmp_path / "run")
        recipe = tmp_path / "run" / "recipe.yaml"
        assert (
            train(recipe, drawn, tmp_path / "run", "--resume", "--train.steps", "9", "--head.decoder.num_layers", "1")
            == 0
        )
        printed = capsys.readouterr().err
        assert "note: the run goes on as it began, with head.decoder.num_layers 2, not 1\n" in printed
        assert "note: the run goes on with train.steps 9, not 6\n" in printed
        assert printed.count("note: the run goes on") == 2
        assert read_checkpoint(tmp_path / "run" / "last.pt")["progress"]["steps"] == 9

    @pytest.mark.parametrize("typed", [["--resume", "auto"], ["--resume=auto"]])
    def test_auto_begins_and_goes_on(
        self, recipe_file: Path, drawn: Path, tmp_path: Path, capsys: Capture, typed: list[str]
    ) -> None:
        """As of a job that is queued again, with the same command."""
        for _ in range(2):
            assert (
                main(
                    [
                        "train",
                        *typed,
                        str(recipe_file),
                        "--data",
                        str(drawn),
                        "--out",
                        str(tmp_path / "run"),
                        "--train.steps",
                        "1",
                    ]
                )
                == 0
            )
        assert "note: the run is finished, all of its 1 steps are done" in capsys.readouterr().err

    def test_resume_takes_no_other_argument_for_its_value(self, recipe_file: Path, drawn: Path, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no run to resume here"):
            run(["--resume", str(recipe_file), "--data", str(drawn), "--out", str(tmp_path / "run")])

    def test_a_run_that_ended_before_its_first_checkpoint_may_begin_again(
        self, recipe_file: Path, drawn: Path, tmp_path: Path
    ) -> None:
        """As after a crash in the first minutes: there is nothing to go on from, and nothing to lose."""
        run = tmp_path / "run"
        run.mkdir()
        (run / "recipe.yaml").write_text("train: {}\n")
        (run / "log.jsonl").write_text('{"kind": "train", "step": 1}\n{"kind": "tr')
        (run / "last.pt.unfinished").write_bytes(b"half of a checkpoint")
        assert train(recipe_file, drawn, run, "--train.steps", "1") == 0
        assert read_checkpoint(run / "last.pt")["progress"]["step"] == 1
        assert not (run / "last.pt.unfinished").exists()
        assert read_log(run)[0]["loss"] > 0


def wait_for(done: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.01)
