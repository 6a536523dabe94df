"""Studies: checked before anything runs, resumed run by run, and compared with their spread."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from scipy import stats

import boxwright
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.training.interrupt import Interrupted
from boxwright.workflows import study as workflow
from boxwright.workflows.study import take_share
from boxwright.workflows.study_file import list_studies, read_study, run_folder
from boxwright.workflows.study_results import paired_difference, read_record

TEXT = """# How many layers.
base: rtdetr_tiny
data: {train: 4, val: 2, image_size: 64}
overrides: {image_size: 64, train: {steps: 2, batch_size: 1, schedule: {evaluations: 2}}}
seeds: [0, 1]
variations:
  one layer: {head.decoder.num_layers: 1}
  two: {head: {decoder: {num_layers: 2}}}
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tensorboard, which takes seconds to import."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "layers.yaml"
    path.write_text(TEXT.replace("{head: {decoder: {num_layers: 2}}}", "{head.decoder.num_layers: 2}"))
    return path


class Count:
    """Counts the runs that are trained, and stops one where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> None:
        self.folders: list[str] = []
        train = workflow.train

        def counted(*arguments: Any, **options: Any) -> Any:
            self.folders.append("/".join(options["out"].parts[-2:]))
            if len(self.folders) == stop_at:
                raise Interrupted(2)
            return train(*arguments, **options)

        monkeypatch.setattr(workflow, "train", counted)


def test_a_study_is_stopped_resumed_and_compared(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed by seed; what is done is not done again; a page and a table are there all the while."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        count = Count(patch, stop_at=3)
        with pytest.raises(Interrupted):
            boxwright.study(file, out=out, latency=False)
    assert count.folders == ["one_layer/seed_0", "two/seed_0", "one_layer/seed_1"]
    assert json.loads((out / "study.json").read_text())["finished"] == 2
    count = Count(monkeypatch)
    result = boxwright.study(file, out=out, latency=False)
    assert count.folders == ["one_layer/seed_1", "two/seed_1"]
    assert (result.num_finished, result.num_runs, result.measure) == (4, 4, "AP")
    one, two = result.variations
    assert one.params < two.params
    assert one.gmac < two.gmac
    assert one.difference is None
    assert two.difference is not None
    values = [two.numbers[seed]["AP"] - one.numbers[seed]["AP"] for seed in (0, 1)]
    assert two.difference.mean == pytest.approx(statistics.mean(values))
    assert all(len(own[0]) == 2 for own in two.curves.values())
    lines = (out / "study.md").read_text().splitlines()
    assert lines[0].startswith("| variation | AP | AP - one layer | AP50 |")
    assert lines[0].endswith("| runs | parameters | GMAC | latency |")
    assert lines[3].startswith("| two | ")
    page = (out / "study.html").read_text()
    assert "<h1>How many layers.</h1>" in page
    assert "one layer" in page
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    names = {path.name for path in run_folder(out, "two", 0).iterdir()}
    assert {"best.safetensors", "study_run.json", "log.jsonl", "recipe.yaml"} <= names
    assert not names & {"last.pt", "last.previous.pt"}


def test_a_study_that_has_changed_is_refused(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    boxwright.study(file, out=out, latency=False, seeds=[0])
    with pytest.raises(ValueError, match="was trained with other options than the study has now: give another --out"):
        boxwright.study(file, out=out, latency=False, seeds=[0], overrides={"train.lr": 0.5})


def test_a_run_that_fails_does_not_end_the_others(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = workflow.train

    def fail(recipe: Any, *arguments: Any, **options: Any) -> Any:
        if recipe.head.options["decoder"].num_layers == 1:
            raise ValueError("the loss is not finite")
        return train(recipe, *arguments, **options)

    monkeypatch.setattr(workflow, "train", fail)
    with (
        pytest.raises(ValueError, match="1 of 2 runs failed: one layer, seed 0: the loss is not finite; the others"),
        pytest.warns(UserWarning, match="one layer, seed 0: the loss"),
    ):
        boxwright.study(file, out=tmp_path / "out", latency=False, seeds=[0])
    assert read_record(run_folder(tmp_path / "out", "two", 0)) is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("base: rtdetr_tiny", "base: rtdetr_tyni", "variation 'one layer': unknown recipe 'rtdetr_tyni'; did you mean"),
        ("head.decoder.num_layers: 2", "head.decoder.num_leyers: 2", "variation 'two': .*num_leyers.*did you mean"),
        ("head.decoder.num_layers: 2", "head.decoder.num_layers: two", "variation 'two': .*num_layers"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds has a number twice"),
        ("seeds: [0, 1]", "seeds: 3", r"seeds is a list of whole numbers from 0, as \[0, 1, 2\], not 3"),
        ("seeds:", "seads:", "unknown key 'seads'; did you mean 'seeds'"),
        ("image_size: 64}\nov", "image_sice: 64}\nov", "data: unknown parameter 'image_sice'; did you mean"),
        ("  two: {", "  One Layer: {", "differ in signs alone"),
        ("seeds: [0, 1]", "seeds: [0, 1]\nagainst: three", "against: unknown variation 'three'"),
    ],
)
def test_faults_are_named_before_anything_runs(file: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        boxwright.study(file, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown study 'encodders'; did you mean 'encoders'"):
        boxwright.study("encodders")
    with pytest.raises(FileNotFoundError, match="no such file"):
        boxwright.study(tmp_path / "x.yaml")


@pytest.mark.parametrize("name", list_studies())
def test_studies_that_come_with_boxwright_resolve(name: str) -> None:
    study = read_study(name)
    assert study.summary
    assert len(study.seeds) == 3
    recipes = {str(study.resolve(variation, 0).to_dict()) for variation in study.variations}
    assert len(recipes) == len(study.variations)


@pytest.fixture(scope="module")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    draw_data_set(folder, train=8, val=4, image_size=64)
    return folder


# The images are small, and anchors large beside them.
@pytest.mark.filterwarnings("ignore:an image holds")
@pytest.mark.slow
@pytest.mark.parametrize("name", list_studies())
def test_studies_that_come_with_boxwright_run(
    name: str, few_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their smallest form, each in less than three minutes of a core; what is done is not done again."""
    count = Count(monkeypatch)
    overrides = {"train.steps": 2, "train.batch_size": 2, "train.schedule.evaluations": 1}
    if name != "botnet_sizes":  # which has sizes of its own
        overrides |= {"image_size": 64}
    start = time.process_time()
    for _ in range(2):
        result = boxwright.study(
            name, data=few_images, out=tmp_path / "out", seeds=[0], latency=False, overrides=overrides
        )
        assert result.num_finished == result.num_runs == len(count.folders) == len(read_study(name).variations)
    assert time.process_time() - start < 180
    for variation in result.variations:
        assert variation.params > 0
        assert 0 <= variation.numbers[0]["AP"] <= 1


def test_the_interval_is_students() -> None:
    """By hand: differences .1, .2 and .3 have the mean .2 and the standard deviation .1."""
    difference = paired_difference({0: 0.3, 1: 0.5, 2: 0.4, 3: 0.9}, {0: 0.2, 1: 0.3, 2: 0.1})
    assert difference is not None
    assert difference.mean == pytest.approx(0.2)
    half = 4.302652729911275 * 0.1 / 3**0.5
    assert (difference.low, difference.high) == pytest.approx((0.2 - half, 0.2 + half))
    assert stats.ttest_1samp([0.1, 0.2, 0.3], 0).confidence_interval() == pytest.approx(
        (difference.low, difference.high)
    )
    assert paired_difference({0: 0.3}, {0: 0.2}) == (pytest.approx(0.1), None, None)
    assert paired_difference({0: 0.3}, {1: 0.2}) is None


def test_processes_of_torchrun_share_the_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trains its own by itself, and not together with the others."""
    environment = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "x", "OTHER": "kept"}
    assert take_share(environment) == (1, 3)
    assert environment == {"OTHER": "kept"}
    assert take_share({}) == (0, 1)
    count = Count(monkeypatch)
    for rank in (0, 1):
        for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
            monkeypatch.setenv(name, str(value))
        boxwright.study(file, out=tmp_path / "out", latency=False, seeds=[0])
        assert "RANK" not in os.environ
    assert count.folders == ["one_layer/seed_0", "two/seed_0"]


class InProcessRay:
    """Does the jobs of Ray in this process, the last first, in another working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def init(self, **_options: object) -> None:
        """Start nothing."""

    def remote(self, **_options: object) -> Any:
        """Return a decorator, after which ``remote`` gives a job."""
        return lambda function: SimpleNamespace(remote=lambda *arguments: partial(function, *arguments))

    def wait(self, jobs: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        """Have the last job ended."""
        assert num_returns == 1
        return jobs[-1:], jobs[:-1]

    def get(self, job: Any) -> Any:
        """Do a job."""
        with contextlib.chdir(self.folder):
            return job()


def test_jobs_of_ray_write_where_the_study_is(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths mean the folder that the study was started in."""
    (other := tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", cast(ModuleType, InProcessRay(other)))
    result = boxwright.study(file, out="out", seeds=[0], latency=False, engine="ray")
    assert result.num_finished == 2
    assert (tmp_path / "out" / "runs" / "two" / "seed_0" / "study_run.json").is_file()
    assert not list(other.iterdir())


def test_without_ray(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="Ray is not installed, which --engine ray needs: pip install ray"):
        boxwright.study(file, out=tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()
