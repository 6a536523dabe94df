"""A small detector of every head, and the step that one process, or several, make with it."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.structures import Batch, Targets
from boxwright.training.batches import training_batches
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank
from boxwright.training.optimizer import make_optimizer
from boxwright.training.run import Run
from boxwright.training.schedule import Schedule
from boxwright.training.step import train_step
from narrow_heads import narrow_queries, narrow_regions
from random_weights import calibrate, settle, shake

CPU = torch.device("cpu")

NARROW: dict[str, Any] = {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 32, "num_layers": 1, "dropout": 0.0}
QUERIES = narrow_queries(hidden_dim=16, num_heads=2, feedforward_dim=32)
FEW = narrow_regions(hidden_dim=16, pre_nms_top_k=60, post_nms_top_k=40, num_samples=12)
"""Samples that are a choice: there are more regions, and hundreds of anchors for each that the first stage samples."""
RESNET: dict[str, Any] = {"depth": 18, "width": 8, "norm": "batch", "frozen_stages": 0}
RESNET_VD = {key: value for key, value in RESNET.items() if key in ("depth", "width")}
FPN: dict[str, Any] = {"out_channels": 16}

FAMILIES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "rtdetr": (
        "rtdetr_tiny",
        {
            "backbone": RESNET_VD,
            "neck": {**{k: v for k, v in NARROW.items() if k not in ("num_layers", "dropout")}},
            "head": {**QUERIES, "denoising.num_queries": 12},
        },
    ),
    "rtdetr+masks": (
        "rtdetr_tiny",
        {
            "backbone": RESNET_VD,
            "neck": {**{k: v for k, v in NARROW.items() if k not in ("num_layers", "dropout")}},
            "head": {**QUERIES, "denoising.num_queries": 12, "masks": True},
        },
    ),
    "dfine": (
        "dfine_s",
        {
            "backbone": {"model": "hgnetv2_b0"},
            "neck": {**{k: v for k, v in NARROW.items() if k not in ("num_layers", "dropout")}},
            "head": {
                **QUERIES,
                "decoder.num_points": 2,
                "denoising.num_queries": 12,
                "supervision.num_groups": 2,
            },
        },
    ),
    "dfine+masks": (
        "dfine_s_seg",
        {
            "backbone": {"model": "hgnetv2_b0"},
            "neck": {**{k: v for k, v in NARROW.items() if k not in ("num_layers", "dropout")}},
            "head": {**QUERIES, "decoder.num_points": 2, "denoising.num_queries": 12, "supervision.num_groups": 2},
        },
    ),
    "dino": (
        "dino_r50",
        {
            "backbone": RESNET,
            "neck": NARROW,
            "head": {**QUERIES, "denoising.num_queries": 12, "supervision.num_groups": 3},
        },
    ),
    "lwdetr+masks": (
        "rfdetr_n",
        {
            # Without a table of positions, which timm resizes in float32, whatever its type.
            "backbone": {
                "model": "vit_tiny_patch16_dinov3_qkvb",
                "blocks": [0, 1],
                "global_blocks": [1],
                "patch_size": None,
                "table_size": None,
            },
            "neck": {"out_channels": 16, "num_blocks": 1},
            "head": {**QUERIES, "decoder.num_sampling_heads": 4, "supervision.num_groups": 3, "masks": True},
            "train": {"optimizer.lr_factors": None},
        },
    ),
    "detr": ("detr_r50", {"backbone": RESNET, "neck": NARROW, "head": QUERIES}),
    "rtdetr+auxiliary": (
        "rtdetr_tiny",
        {
            "backbone": RESNET_VD,
            "neck": {**{k: v for k, v in NARROW.items() if k not in ("num_layers", "dropout")}},
            "head": {
                **QUERIES,
                "denoising.num_queries": 12,
                "auxiliary": {
                    "faster_rcnn": {
                        "rpn.pre_nms_top_k": "60,60",
                        "rpn.post_nms_top_k": "40,40",
                        "roi.num_samples": 12,
                        "boxes.hidden_dim": 16,
                    },
                    "atss": {"num_convs": 1},
                    "fcos": {"num_convs": 1},
                },
            },
        },
    ),
    "deformable_detr": (
        "deformable_detr_r50_two_stage",
        {"backbone": RESNET, "neck": NARROW, "head": {**QUERIES, "supervision.num_groups": 2}},
    ),
    "retinanet": ("retinanet_r50_fpn", {"backbone": RESNET, "neck": FPN, "head": {"num_convs": 1}}),
    "fcos": ("fcos_r50_fpn", {"backbone": RESNET, "neck": FPN, "head": {"num_convs": 1}}),
    "atss": ("fcos_r50_fpn", {"backbone": RESNET, "neck": FPN, "head": {"name": "atss", "num_convs": 1}}),
    "efficientdet": (
        "efficientdet_d0",
        {
            "backbone": {"model": "test_efficientnet", "drop_path": 0.0},
            "neck": {"out_channels": 16, "repeats": 1},
            "head": {"num_convs": 1},
        },
    ),
    "faster_rcnn": ("faster_rcnn_r50_fpn", {"backbone": RESNET, "neck": FPN, "head": FEW}),
    "mask_rcnn": ("mask_rcnn_r50_fpn", {"backbone": RESNET, "neck": FPN, "head": {**FEW, "mask.hidden_dim": 8}}),
    "cascade_rcnn": ("cascade_rcnn_r50_fpn", {"backbone": RESNET, "neck": FPN, "head": FEW}),
    "classifier": ("resnet18_classifier", {"backbone": {"width": 8}}),
}
"""A recipe of each head, and of some with an option (``head+option``), with what makes it small, slot by slot.

``name`` is another part in that slot.
"""

TRAINING: dict[str, Any] = {
    "steps": 3,
    "epochs": 1,
    "batch_size": 4,
    "optimizer.max_grad_norm": 0.0,
    "schedule.milestones": None,
    "schedule.no_aug_epochs": None,
    "batches.multi_scale": 0.0,
    "runtime.device": "cpu",
    "runtime.precision": "float32",
}


def family_run(head: str, data: DetectionData, folder: Path, **options: Any) -> Run:
    """A run of a head's family: images keep their shape, so that no batch is square and every one has padding."""
    recipe, slots = FAMILIES[head]
    named = {slot: chosen["name"] for slot, chosen in slots.items() if "name" in chosen}
    options_of_slots = [(f"{slot}.{k}", v) for slot, chosen in slots.items() for k, v in chosen.items() if k != "name"]
    overrides = {**named, **dict(options_of_slots)}
    overrides |= {f"train.{name.replace('__', '.')}": value for name, value in {**TRAINING, **options}.items()}
    if head != "classifier":  # which sees a square of every image
        overrides |= {"input.image_size": 53, "input.resize": "shortest_side", "input.max_size": 90}
    if head == "efficientdet":
        overrides["augment.scale_jitter"] = [1.0, 1.0]
    chosen = resolve(recipe, overrides).recipe
    torch.manual_seed(0)
    detector = build_resolved(chosen, categories=data.categories)
    shake(detector)
    images = torch.rand(4, 3, 16, 16).repeat_interleave(4, 2).repeat_interleave(4, 3)
    calibrate(detector, images)
    settle(detector, images)
    detector.double().to(memory_format=torch.channels_last)
    return Run(detector=detector, recipe=chosen, data=data, augmentation=chosen.augment, folder=folder)


def first_batch(run: Run, rank: Rank, empty: tuple[int, ...] = ()) -> Batch:
    """A process's part of the run's first step, from the real loader; the images ``empty`` of the step lose objects."""
    schedule = Schedule(run.options.steps or 1, run.options, len(run.data.records))
    batch = next(training_batches(run, rank, schedule, Progress(step=0, steps=schedule.steps, evaluations=1)))
    first = rank.index * len(batch.targets)
    targets = [without_objects(t) if first + i in empty else t for i, t in enumerate(batch.targets)]
    return batch._replace(images=batch.images.double(), targets=targets)


def without_objects(target: Targets) -> Targets:
    return target._replace(
        labels=target.labels[:0], boxes=target.boxes[:0], masks=None if target.masks is None else target.masks[:0]
    )


class Step(NamedTuple):
    """The outcome of a step in one process."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]


def make_step(
    run: Run, batch: Batch, *, accumulate: int = 1, wrap: Callable[[Detector], nn.Module] | None = None
) -> Step:
    """Do a step with a copy of the detector, whose norms keep their statistics: a batch has those of its split."""
    detector = keep_statistics(deepcopy(run.detector))
    model = detector if wrap is None else wrap(detector)
    options = replace(run.options, batches=replace(run.options.batches, accumulate_steps=accumulate))
    result = train_step(detector, model, make_optimizer(detector, options), batch, options, CPU)
    return Step(result.losses, {name: p.grad for name, p in detector.named_parameters() if p.grad is not None})


def keep_statistics(detector: Detector) -> Detector:
    detector.train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return detector


class ThreadGroup:
    """Processes of ``torch.distributed`` as threads of this one: stands in for the module where it is used."""

    class ReduceOp:
        SUM, MAX = "sum", "max"

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.barrier = threading.Barrier(world_size, timeout=120)
        self.slots: list[Any] = [None] * world_size
        self.local = threading.local()

    def run(self, function: Callable[[Rank], Any]) -> list[Any]:
        """Call a function as each of the processes; raise what the first of them raises."""
        results: list[Any] = [None] * self.world_size
        errors: list[BaseException] = []

        def work(index: int) -> None:
            self.local.index = index
            try:
                results[index] = function(Rank(index, self.world_size, CPU))
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=work, args=(index,)) for index in range(self.world_size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
        return results

    def exchange(self, value: Any) -> list[Any]:
        self.slots[self.local.index] = value
        self.barrier.wait()
        values = list(self.slots)
        self.barrier.wait()
        return values

    def is_initialized(self) -> bool:
        return True

    def get_rank(self) -> int:
        return int(self.local.index)

    def get_world_size(self) -> int:
        return self.world_size

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> None:
        values = torch.stack(self.exchange(tensor.clone()))
        tensor.copy_(values.sum(0) if op == "sum" else values.amax(0))

    def gather_object(self, value: Any, values: list[Any] | None = None) -> None:
        everyone = self.exchange(pickle.loads(pickle.dumps(value)))
        assert (values is not None) == (self.get_rank() == 0)
        if values is not None:
            values[:] = everyone

    def broadcast(self, tensor: Tensor, source: int) -> None:
        tensor.copy_(self.exchange(tensor.clone())[source])

    def broadcast_object_list(self, values: list[Any], source: int) -> None:
        values[:] = self.exchange(list(values))[source]


def step_of_processes(run: Run, group: ThreadGroup, *, accumulate: int = 1, empty: tuple[int, ...] = ()) -> Step:
    """The mean of all processes' losses and gradients, as ``DistributedDataParallel`` takes it of gradients."""

    def one(rank: Rank) -> Step:
        return make_step(run, first_batch(run, rank, empty), accumulate=accumulate)

    steps = group.run(one)
    assert all(step.gradients.keys() == steps[0].gradients.keys() for step in steps)
    return Step(
        {name: sum(step.losses[name] for step in steps) / len(steps) for name in steps[0].losses},
        {name: sum(step.gradients[name] for step in steps) / len(steps) for name in steps[0].gradients},
    )


def assert_same_step(actual: Step, expected: Step, tolerance: float = 1e-9) -> None:
    """``tolerance`` is a fraction: of the loss, and of the largest gradient there is."""
    assert actual.losses.keys() == expected.losses.keys()
    for name, value in expected.losses.items():
        assert abs(actual.losses[name] - value) <= 1e-6 * max(1.0, abs(value)), (name, actual.losses[name], value)
    assert actual.gradients.keys() == expected.gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.gradients.values())
    for name, gradient in expected.gradients.items():
        assert float((actual.gradients[name] - gradient).abs().max()) <= tolerance * scale, name
