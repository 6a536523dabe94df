"""Running a detector over batches: modes, precision, devices, progress."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxwright.data.records import DetectionData, Record
from boxwright.evaluation.coco_metrics import NUMBERS
from boxwright.evaluation.evaluate import detect, evaluate_detector
from boxwright.ops.masks import encode_mask
from boxwright.structures import Batch, Category, ImageSize, Targets
from boxwright_runtime.detections import Detections

CPU = torch.device("cpu")


class Fake(nn.Module):
    """Finds one box per image, whose left edge is the image's mean, and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1, bias=False)
        self.frozen = nn.BatchNorm2d(3)
        nn.init.constant_(self.net.weight, 1.0)
        self.calls: list[dict[str, object]] = []

    def forward(self, images: Tensor, padding_mask: Tensor | None) -> Tensor:
        output: Tensor = self.net(images.mean((1, 2, 3))[:, None])
        self.calls.append(
            {
                "modes": [module.training for module in self.modules()],
                "inference": torch.is_inference_mode_enabled(),
                "dtype": output.dtype,
                "mask": padding_mask,
            }
        )
        return output

    def postprocess(self, output: Tensor, image_sizes: list[ImageSize]) -> list[Detections]:
        assert not torch.is_autocast_enabled("cpu")
        return [
            Detections(torch.tensor([[float(x), 0.0, s.width, s.height]]), torch.ones(1), torch.zeros(1).long())
            for x, s in zip(output, image_sizes, strict=True)
        ]


def batches(mask: Tensor | None = None) -> Iterator[Batch]:
    """Images 10 to 14, of which the value is 0 to 4, in batches of two."""
    for start in (0, 2, 4):
        values = range(start, min(start + 2, 5))
        images = torch.tensor([float(v) for v in values])[:, None, None, None].expand(-1, 3, 4, 6)
        targets = [Targets(torch.zeros(0).long(), torch.zeros(0, 4), (4, 6)) for _ in values]
        sizes = [ImageSize(40, 50, 4, 6) for _ in values]
        own_mask = None if mask is None else mask.expand(len(values), 4, 6)
        yield Batch(images, own_mask, targets, sizes, [10 + v for v in values])


def data() -> DetectionData:
    """In each image one object, where Fake sees it in image 10."""
    records = tuple(
        Record(
            image_id=image_id,
            path=Path("x.png"),
            height=40,
            width=50,
            labels=np.array([0]),
            bbox_xywh=np.array([[0.0, 0.0, 50.0, 40.0]]),
            area=np.array([2000.0]),
            crowd=np.array([False]),
            annotation_ids=(image_id,),
        )
        for image_id in range(10, 15)
    )
    return DetectionData(records, (Category(1, "cell"),), Path("val.json"))


def test_detections_and_metrics() -> None:
    done: list[tuple[int, int]] = []
    evaluation = evaluate_detector(
        Fake(), batches(), data(), device=CPU, progress=lambda count, total: done.append((count, total))
    )
    assert evaluation.masks is None
    lefts = {image_id: float(one.boxes[0, 0]) for image_id, one in evaluation.detections.items()}
    assert lefts == {10 + v: v for v in range(5)}
    assert done == [(2, 5), (4, 5), (5, 5)]
    metrics = evaluation.boxes
    # Overlaps 1, 0.98, 0.96, 0.94, 0.92: all reach the thresholds up to 0.9, three reach 0.95.
    numbers = metrics.numbers()
    assert numbers["AP50"] == pytest.approx(1.0)
    assert numbers["AR100"] == pytest.approx((9 * 5 + 3) / 50)
    assert metrics.notes == ()


class Masked(Fake):
    """Also says which pixels: all of the box but its last column."""

    def postprocess(self, output: Tensor, image_sizes: list[ImageSize]) -> list[Detections]:
        detections = super().postprocess(output, image_sizes)
        mask = torch.zeros(40, 50, dtype=torch.bool)
        mask[:, :-1] = True
        return [replace(one, masks=(encode_mask(mask),)) for one in detections]


def test_masks_are_measured_where_they_are_predicted() -> None:
    whole = [[0.0, 0, 50, 0, 50, 40, 0, 40]]
    with_masks = replace(data(), records=tuple(replace(r, segmentations=(whole,)) for r in data().records))
    evaluation = evaluate_detector(Masked(), batches(), with_masks, device=CPU)
    assert all(one.masks is not None for one in evaluation.detections.values())
    assert evaluation.masks is not None
    # Every mask overlaps by 49 / 50, more than each threshold asks for.
    assert evaluation.masks.numbers()["AP"] == pytest.approx(1.0)
    read = json.loads(json.dumps(evaluation.to_json()))
    assert {name: read[name] for name in NUMBERS} == pytest.approx(evaluation.boxes.numbers())
    assert list(read) == [*NUMBERS, "per_class", "segm"]
    assert read["segm"]["AP"] == pytest.approx(1.0)
    assert list(read["segm"]) == [*NUMBERS, "per_class"]


def test_masks_need_masks_to_compare_with() -> None:
    with pytest.raises(ValueError, match=r"annotation 10 of image 10 has no segmentation; masks cannot be evaluated"):
        evaluate_detector(Masked(), batches(), data(), device=CPU)


def test_results_can_be_changed_in_place() -> None:
    for one in detect(Fake(), batches(), device=CPU).values():
        assert not any(tensor.is_inference() for tensor in (one.boxes, one.scores, one.labels))
        one.boxes += 1


def test_runs_in_evaluation_mode_and_restores_every_module() -> None:
    detector = Fake().train()
    detector.frozen.eval()
    before = [module.training for module in detector.modules()]
    detect(detector, batches(), device=CPU)
    assert all(call["modes"] == [False, False, False] and call["inference"] for call in detector.calls)
    assert [module.training for module in detector.modules()] == before == [True, True, False]


def test_restores_the_mode_after_an_error() -> None:
    detector = Fake().train()

    def broken() -> Iterator[Batch]:
        yield from batches()
        raise OSError("image 7 is gone")

    with pytest.raises(OSError, match="image 7"):
        detect(detector, broken(), device=CPU)
    assert detector.training
    assert detector.frozen.training


@pytest.mark.parametrize(("amp", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_amp_covers_the_network_only(amp: bool, dtype: torch.dtype) -> None:
    detector = Fake()
    detect(detector, batches(), device=CPU, amp=amp)
    assert [call["dtype"] for call in detector.calls] == [dtype] * 3


def test_the_padding_mask_reaches_the_detector() -> None:
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[3] = True
    detector = Fake()
    detect(detector, batches(mask), device=CPU)
    assert all(torch.equal(cast(Tensor, call["mask"])[0], mask) for call in detector.calls)


def test_images_of_other_data_are_an_error() -> None:
    other = data()
    other = DetectionData(other.records[:2], other.categories, other.source)
    with pytest.raises(ValueError, match=r"val\.json: there is no image 12"):
        evaluate_detector(Fake(), batches(), other, device=CPU)
