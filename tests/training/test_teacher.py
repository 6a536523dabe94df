"""Distillation in training: the teacher's maps, its weights, and runs that steer the weight of its loss."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from boxwright.checkpoints import LAST, read_checkpoint
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.ops.finite import NotFiniteError
from boxwright.structures import Batch, TeacherMaps
from boxwright.training import loop
from boxwright.training.distillation import Teacher, steer_distillation
from boxwright.training.interrupt import Interrupted
from boxwright.training.loop import run_training
from boxwright.training.optimizer import make_optimizer
from boxwright.training.run import Run
from boxwright.training.step import StepResult, train_step
from boxwright.workflows.replay import replay
from boxwright_runtime.input_format import InputFormat
from equality import assert_equal
from tiny_recipe import TINY_RECIPE

MakeRun = Callable[..., Run]

CPU = torch.device("cpu")

STEERED: dict[str, Any] = {"gradient_fraction": 0.9, "tolerance": 0.02, "late_weight": 3.0, "weight": 1.0}


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer of 306,240 parameters, with random weights."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("teacher") / "test_vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    return path


def distilling(file: Path | None, **options: Any) -> dict[str, Any]:
    """Overrides of the tiny recipe with a teacher."""
    taught = {"teacher": "test_vit", "weights": None if file is None else str(file), "channels": 64, **options}
    overrides = {f"head.supervision.distillation.{name}": value for name, value in taught.items()}
    return {**overrides, "neck.offer_attended": True}


def make_detector(data: DetectionData, overrides: dict[str, Any]) -> Detector:
    torch.manual_seed(0)
    return build_resolved(resolve(TINY_RECIPE, overrides).recipe, categories=data.categories)


def teach(batch: Batch, images: Tensor, teacher: Teacher) -> Tensor:
    taught = teacher.teach(batch._replace(images=images, targets=batch.targets[: len(images)]))
    return torch.stack([target.teacher for target in taught.targets if target.teacher is not None])


class Means(nn.Module):
    """A convolutional model of timm's kind, whose features are the means of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features, self.feature_info = 3, [{"reduction": 8}]
        self.pretrained_cfg = {"mean": (0.5, 0.25, 0.0), "std": (0.5, 1.0, 2.0)}

    def forward_features(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 8)


class TestTeacher:
    @pytest.mark.parametrize("order", ["rgb", "bgr"])
    def test_cells_are_those_of_the_student_in_the_teachers_colors(self, order: Any, batch: Batch) -> None:
        input_format = InputFormat(image_size=64, mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2), channel_order=order)
        teacher = Teacher(Means(), TeacherMaps("means", None, 3, 32), input_format, CPU)
        pixels = torch.rand(2, 3, 64, 96)
        inputs = (pixels - torch.tensor(input_format.mean)[:, None, None]) / torch.tensor(input_format.std)[
            :, None, None
        ]
        maps = teach(batch, inputs.flip(1) if order == "bgr" else inputs, teacher)
        cells = nn.functional.avg_pool2d(pixels, 32)
        mean, std = (torch.tensor(Means().pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
        assert torch.allclose(maps, (cells - mean) / std, atol=1e-5)

    def test_sizes_that_are_no_multiple_have_a_cell_for_what_is_left(self, batch: Batch) -> None:
        teacher = Teacher(Means(), TeacherMaps("means", None, 3, 32), InputFormat(image_size=64), CPU)
        assert teach(batch, torch.rand(2, 3, 33, 70), teacher).shape == (2, 3, 2, 3)

    @pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
    def test_models_of_other_kinds(self, name: str, batch: Batch) -> None:
        model = timm.create_model(name, num_classes=0, **({"dynamic_img_size": True} if "vit" in name else {}))
        maps = TeacherMaps(name, None, model.num_features, 32)
        teacher = Teacher(model, maps, InputFormat(image_size=64), CPU)
        assert teach(batch, torch.rand(2, 3, 64, 96), teacher).shape == (2, model.num_features, 2, 3)
        assert not any(parameter.requires_grad for parameter in model.parameters())

    def test_tokens_stand_where_their_patches_are(self, teacher_file: Path, data: DetectionData, batch: Batch) -> None:
        detector = make_detector(data, distilling(teacher_file))
        teacher = Teacher.of(detector, CPU, "float32")
        assert teacher is not None
        images = torch.rand(1, 3, 64, 96)
        expected = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
        expected.load_state_dict(teacher.model.state_dict())
        seen = nn.functional.avg_pool2d((images - 0.5) / 0.5, 2)  # its own colors
        with torch.no_grad():
            tokens = expected.forward_features(seen)[:, expected.num_prefix_tokens :]
        maps = teach(batch, images, teacher)
        assert torch.allclose(maps[0, :, 1, 2], tokens[0, 1 * 3 + 2], atol=1e-5)


class TestReading:
    def test_no_teacher_is_asked_for(self, data: DetectionData) -> None:
        assert Teacher.of(make_detector(data, {}), CPU, "float32") is None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weights": None}, "a teacher has weights: give --head.supervision.distillation.weights FILE"),
            ({"teacher": "test_vit2"}, "has not the weights of test_vit2"),
            ({"teacher": "vit_of_none"}, "unknown timm model 'vit_of_none'"),
            ({"weights": "nowhere.safetensors"}, "nowhere.safetensors"),
        ],
    )
    def test_errors_are_one_line(
        self, options: dict[str, Any], message: str, teacher_file: Path, data: DetectionData
    ) -> None:
        detector = make_detector(data, distilling(teacher_file, **options))
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            Teacher.of(detector, CPU, "float32")
        assert "\n" not in str(error.value)

    def test_other_channels(self, teacher_file: Path, data: DetectionData, batch: Batch) -> None:
        teacher = Teacher.of(make_detector(data, distilling(teacher_file, channels=96)), CPU, "float32")
        assert teacher is not None
        with pytest.raises(ValueError, match=r"64 channels, not 96; give --.*channels 64"):
            teacher.teach(batch)

    def test_nothing_to_steer_by(self, teacher_file: Path, data: DetectionData) -> None:
        overrides = {"neck": {"name": "identity"}, **distilling(teacher_file, gradient_fraction=0.1)}
        del overrides["neck.offer_attended"]
        with pytest.raises(
            ValueError, match="gradient_fraction is that of a neck's attention layers, and no neck here"
        ):
            Teacher.of(make_detector(data, overrides), CPU, "float32")


class TestSteps:
    def test_parts_of_a_step_add_up(self, teacher_file: Path, data: DetectionData, batch: Batch) -> None:
        terms = []
        for accumulate in (1, 2):
            detector = make_detector(data, distilling(teacher_file)).train()
            for module in detector.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            overrides = {"train.batches.accumulate_steps": accumulate}
            options = resolve(TINY_RECIPE, overrides).recipe.train
            teacher = Teacher.of(detector, CPU, "float32")
            optimizer = make_optimizer(detector, options)
            terms.append(train_step(detector, detector, optimizer, batch, options, CPU, teacher).losses["distillation"])
        assert terms[0] == pytest.approx(terms[1], rel=1e-5)
        assert terms[0] > 0.1

    def test_absolute_gradients_count(self, teacher_file: Path, data: DetectionData) -> None:
        detector = make_detector(data, distilling(teacher_file, gradient_fraction=0.5))
        for parameter in detector.parameters():
            parameter.grad = torch.full_like(parameter, -2.0)
        steering = sum(parameter.numel() for parameter in detector.necks[0].layers.parameters())  # type: ignore[union-attr]
        steer_distillation(detector, ends_epoch=False, is_late=False)
        every = sum(parameter.numel() for parameter in detector.parameters())
        assert detector.head.distillation.fraction_sum.item() == pytest.approx(steering / every)  # type: ignore[union-attr]


class TestRuns:
    def make(self, make_run: MakeRun, file: Path, name: str) -> Run:
        run = make_run(name, steps=12, schedule__evaluations=0, schedule__no_aug_fraction=0.5)
        recipe = resolve(run.recipe.to_dict(), distilling(file, **STEERED)).recipe
        torch.manual_seed(0)
        return replace(run, recipe=recipe, detector=build_resolved(recipe, categories=run.data.categories))

    def test_a_broken_run_goes_on_as_an_unbroken_one(
        self, make_run: MakeRun, teacher_file: Path, interrupt_at: Callable[[int], None]
    ) -> None:
        unbroken, broken = (self.make(make_run, teacher_file, name) for name in ("unbroken", "broken"))
        run_training(unbroken)
        interrupt_at(5)
        with pytest.raises(Interrupted):
            run_training(broken)
        stopped = read_checkpoint(broken.folder / LAST)["model"]
        weight = stopped["head.distillation.weight"].item()
        assert weight != 1.0  # a pass of so few images has ended, and asks for more
        run_training(self.make(make_run, teacher_file, "broken"), resume=True)
        states = [read_checkpoint(run.folder / LAST)["model"] for run in (unbroken, broken)]
        assert_equal(*states)
        assert states[0]["head.distillation.weight"].item() == 3.0  # strong augmentation has ended

    @pytest.mark.filterwarnings("ignore:step .* is left out")
    def test_a_step_that_failed_is_repeated_with_the_teacher(
        self, make_run: MakeRun, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, done, expected = self.make(make_run, teacher_file, "failed"), list[int](), list[dict[str, float]]()

        def fail_in_the_third(*arguments: Any) -> StepResult:
            done.append(1)
            if len(done) == 3:
                detector, _, _, batch, options, *rest = arguments
                copy = deepcopy(detector)
                expected.append(train_step(copy, copy, make_optimizer(copy, options), batch, options, *rest).losses)
                raise NotFiniteError
            return train_step(*arguments)

        monkeypatch.setattr(loop, "train_step", fail_in_the_third)
        run_training(run)
        repeated = replay(run.folder).repeats[0].losses
        assert repeated["distillation"] > 0
        assert repeated == pytest.approx(expected[0], rel=1e-5)
