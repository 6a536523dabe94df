"""From records to batches: what a sample depends on, what it leaves out, and how workers behave."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.data.images import normalize, resample
from boxwright.data.loading.loader import collate, eval_loader, train_loader
from boxwright.data.loading.sampler import BatchSampler, SampleKey
from boxwright.data.loading.samples import EvalSet, ImageCache, TrainSet
from boxwright.data.records import DetectionData, Record
from boxwright.data.transforms.augment import Augmentation
from boxwright.structures import Batch, Category, ImageSize
from boxwright_runtime.input_format import InputFormat, Window
from live_threads import list_threads

FORMAT = InputFormat(image_size=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
PLAIN = Augmentation(photometric=0.0, channel_shuffle=0.0, zoom_out=0.0, iou_crop=0.0, flip=0.0)


def record(
    path: Path,
    image_id: int,
    boxes_xywh: Sequence[Sequence[float]],
    labels: Sequence[int],
    crowd: Sequence[bool],
) -> Record:
    with Image.open(path) as image:
        width, height = image.size
    boxes = np.array(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    return Record(
        image_id=image_id,
        path=path,
        height=height,
        width=width,
        labels=np.array(labels, dtype=np.int64),
        bbox_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=np.array(crowd, dtype=bool),
        annotation_ids=tuple(range(len(boxes))),
    )


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    """Six noisy images of different sizes; the second has a crowd region, the third no object."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(6):
        path = tmp_path / f"image_{i}.png"
        Image.fromarray(rng.integers(0, 256, (60 + 10 * i, 100, 3), dtype=np.uint8)).save(path)
        boxes = [[10, 10, 30, 20], [50, 20, 40, 30]] if i != 2 else []
        crowd = [i == 1, False] if i != 2 else []
        records.append(record(path, 100 + i, boxes, [0, 1] if i != 2 else [], crowd))
    return DetectionData(tuple(records), (Category(7, "cat"), Category(9, "dog")), tmp_path / "train.json")


def sampler(**options: Any) -> BatchSampler:
    defaults = {"seed": 3, "num_samples": 6, "batch_size": 4, "num_steps": 6, "image_sizes": (32, 64)}
    return BatchSampler(**{**defaults, **options})


def train_batches(data: DetectionData, num_workers: int = 0, **options: Any) -> list[Batch]:
    loader = train_loader(
        data,
        augmentation=Augmentation(),
        input_format=FORMAT,
        sampler=sampler(**options),
        num_workers=num_workers,
        cache_bytes=30_000,
    )
    return list(loader)


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.images, b.images)
        assert (a.sizes, a.image_ids) == (b.sizes, b.image_ids)
        for x, y in zip(a.targets, b.targets, strict=True):
            assert torch.equal(x.labels, y.labels)
            assert torch.equal(x.boxes, y.boxes)
            assert x.size == y.size


def test_eval_batches_by_hand(data: DetectionData) -> None:
    batches = list(eval_loader(data, input_format=FORMAT, batch_size=4))
    assert [batch.image_ids for batch in batches] == [[100, 101, 102, 103], [104, 105]]
    first = batches[0]
    assert first.padding_mask is None
    assert first.images.shape == (4, 3, 64, 64)
    assert first.images.dtype == torch.float32
    assert first.sizes[:2] == [ImageSize(60, 100, 64, 64), ImageSize(70, 100, 64, 64)]
    assert first.targets[0].size == (64, 64)
    expected = resample(data.records[0].read(), Window.whole(60, 100), 64, 64)
    assert torch.equal(first.images[0], normalize(expected, FORMAT))
    x, y = 64 / 100, 64 / 60
    assert torch.allclose(
        first.targets[0].boxes,
        torch.tensor([[10 * x, 10 * y, 40 * x, 30 * y], [50 * x, 20 * y, 90 * x, 50 * y]]),
        atol=1e-4,
    )
    assert first.targets[0].labels.tolist() == [0, 1]


KEPT = InputFormat(image_size=64, resize="shortest_side", max_size=96, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
# Images of 60, 70, ... 110 x 100 pixels.
INPUT_SIZES = [(58, 96), (64, 91), (64, 80), (64, 71), (64, 64), (70, 64)]


def test_eval_batches_have_equal_input_sizes(data: DetectionData) -> None:
    """TRAPS 22: no prediction may depend on padding."""
    twice = DetectionData(data.records * 2, data.categories, data.source)
    batches = list(eval_loader(twice, input_format=KEPT, batch_size=4))
    assert [batch.image_ids for batch in batches] == [[100 + i] * 2 for i in range(6)]
    for batch, size, one in zip(batches, INPUT_SIZES, data.records, strict=True):
        assert batch.padding_mask is None
        expected = resample(one.read(), Window.whole(one.height, one.width), *size)
        assert torch.equal(batch.images, normalize(expected, KEPT).expand(2, -1, -1, -1))
        assert batch.sizes == [ImageSize(one.height, one.width, *size)] * 2
        assert {targets.size for targets in batch.targets} == {size}
    in_singles = eval_loader(data, input_format=KEPT, batch_size=1)
    assert [batch.image_ids for batch in in_singles] == [[100 + i] for i in range(6)]


def test_training_batches_are_padded_after_normalizing(data: DetectionData) -> None:
    (batch,) = train_loader(
        data,
        augmentation=PLAIN,
        input_format=KEPT,
        sampler=sampler(batch_size=6, num_steps=1, image_sizes=(64,)),
    )
    assert batch.images.shape == (6, 3, 70, 96)
    assert batch.padding_mask is not None
    for i, image_id in enumerate(batch.image_ids):
        one, (height, width) = data.records[image_id - 100], INPUT_SIZES[image_id - 100]
        pixels = resample(one.read(), Window.whole(one.height, one.width), height, width)
        assert torch.equal(batch.images[i, :, :height, :width], normalize(pixels, KEPT))
        expected = torch.ones(70, 96, dtype=torch.bool)
        expected[:height, :width] = False
        assert torch.equal(batch.padding_mask[i], expected)
        assert (batch.images[i, :, expected] == 0).all()
        assert batch.targets[i].size == (height, width)
        assert batch.sizes[i] == ImageSize(one.height, one.width, height, width)
        boxes = torch.from_numpy(one.boxes()[~one.crowd])
        scale = torch.tensor([width / one.width, height / one.height] * 2)
        torch.testing.assert_close(batch.targets[i].boxes, boxes * scale)


def test_training_batches_of_one_input_size_have_no_mask(data: DetectionData) -> None:
    square = DetectionData((data.records[4],) * 6, data.categories, data.source)
    loader = train_loader(
        square, augmentation=PLAIN, input_format=KEPT, sampler=sampler(num_steps=2, image_sizes=(64,))
    )
    for batch in loader:
        assert batch.padding_mask is None
        assert batch.images.shape == (4, 3, 64, 64)


def test_training_at_several_sizes_keeps_the_aspect_ratio(data: DetectionData) -> None:
    train = TrainSet(data, augmentation=PLAIN, input_format=KEPT, seed=0)
    shapes = {size: [tuple(train[SampleKey(i, 0, size)].image.shape[1:]) for i in (0, 4, 5)] for size in (32, 64)}
    assert shapes == {32: [(29, 48), (32, 32), (35, 32)], 64: [(58, 96), (64, 64), (70, 64)]}


def test_crowd_regions_are_not_trained_as_objects(data: DetectionData) -> None:
    """TRAPS 17."""
    train = TrainSet(data, augmentation=PLAIN, input_format=FORMAT, seed=0)
    for sample in (train[SampleKey(1, 0, 64)], EvalSet(data, input_format=FORMAT)[1]):
        assert sample.labels.tolist() == [1]
        assert sample.boxes.shape == (1, 4)
        assert sample.boxes[0, 0] == pytest.approx(50 * 0.64)


def test_images_without_objects_are_samples(data: DetectionData) -> None:
    """TRAPS 12: they come as often as all others, and are augmented."""
    batches = train_batches(data, num_steps=9)
    ids = [image_id for batch in batches for image_id in batch.image_ids]
    assert ids.count(102) == 6
    train = TrainSet(data, augmentation=Augmentation(), input_format=FORMAT, seed=0)
    samples = [train[SampleKey(2, epoch, 32)] for epoch in range(20)]
    assert all(sample.boxes.shape == (0, 4) and sample.labels.shape == (0,) for sample in samples)
    assert len({sample.image.numpy().tobytes() for sample in samples}) == 20


def test_a_sample_depends_on_seed_epoch_and_image_only(data: DetectionData) -> None:
    def draw(seed: int, key: SampleKey, cache_bytes: int = 0) -> bytes:
        samples = TrainSet(data, augmentation=Augmentation(), input_format=FORMAT, seed=seed, cache_bytes=cache_bytes)
        samples[SampleKey(0, 5, 32)]  # what was drawn before does not matter
        return samples[key].image.numpy().tobytes()

    key = SampleKey(4, 1, 64)
    assert draw(3, key) == draw(3, key) == draw(3, key, cache_bytes=10**6)
    assert len({draw(3, key), draw(4, key), draw(3, key._replace(epoch=2))}) == 3
    weak = TrainSet(data, augmentation=Augmentation(flip=0.0), input_format=FORMAT, seed=3)[
        key._replace(is_strong=False)
    ]
    plain = resample(data.records[4].read(), Window.whole(100, 100), 64, 64)
    assert torch.equal(weak.image, plain)


def test_workers_and_resuming_change_nothing(data: DetectionData) -> None:
    alone = train_batches(data)
    assert_equal(train_batches(data, num_workers=2), alone)
    assert_equal(train_batches(data, start_step=4), alone[4:])
    assert {batch.images.shape[-1] for batch in alone} == {32, 64}


def test_the_global_random_state_is_left_alone(data: DetectionData) -> None:
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002
    torch_state, numpy_state = torch.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    for num_workers in (0, 1):
        train_batches(data, num_workers=num_workers)
        list(eval_loader(data, input_format=FORMAT, batch_size=2, num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert pickle.dumps(np.random.get_state()) == numpy_state  # noqa: NPY002


def test_a_loader_can_be_left_early_and_used_again(data: DetectionData) -> None:
    loader = eval_loader(data, input_format=FORMAT, batch_size=2, num_workers=1)
    first = next(iter(loader))
    assert [batch.image_ids for batch in loader] == [[100, 101], [102, 103], [104, 105]]
    assert first.image_ids == [100, 101]


def test_files_are_decoded_in_threads_and_own_samples_are_not(
    data: DetectionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, str] = {}
    read = Record.read

    def observed(record: Record) -> np.ndarray:
        seen[record.image_id] = threading.current_thread().name
        return read(record)

    monkeypatch.setattr(Record, "read", observed)
    own = replace(
        data.records[2], source=lambda: np.zeros((data.records[2].height, data.records[2].width, 3), np.uint8)
    )
    mixed = replace(data, records=[*data.records[:2], own, *data.records[3:]])
    batches = list(eval_loader(mixed, input_format=FORMAT, batch_size=4))
    assert [batch.image_ids for batch in batches] == [[100, 101, 102, 103], [104, 105]]
    assert {number: name.startswith("read-ahead") for number, name in seen.items()} == {
        100: True, 101: True, 102: False, 103: True, 104: True, 105: True
    }  # fmt: skip
    left = iter(eval_loader(mixed, input_format=FORMAT, batch_size=2))
    next(left)
    del left
    assert not list_threads("read-ahead")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_image_is_one_line_that_names_it(data: DetectionData, num_workers: int) -> None:
    data.records[3].path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"image_3\.png") as caught:
        list(eval_loader(data, input_format=FORMAT, batch_size=2, num_workers=num_workers))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)

    data.records[3].path.unlink()
    with pytest.raises(ValueError, match=r"image_3\.png"):
        train_batches(data, num_workers=num_workers)


def test_an_image_of_another_size_than_its_annotations(data: DetectionData) -> None:
    Image.new("RGB", (50, 40)).save(data.records[0].path)
    with pytest.raises(ValueError, match=r"image_0.png has 50 x 40 pixels, .* are for 100 x 60: restore"):
        next(iter(eval_loader(data, input_format=FORMAT, batch_size=1)))


def test_cache_keeps_its_budget_and_travels_empty(data: DetectionData) -> None:
    cache = ImageCache(60 * 100 * 3 + 70 * 100 * 3)
    images = [cache.read(i, r) for i, r in enumerate(data.records)]
    assert cache.used_bytes == 60 * 100 * 3 + 70 * 100 * 3
    assert cache.read(1, data.records[1]) is images[1]
    assert cache.read(2, data.records[2]) is not images[2]
    sent = pickle.loads(pickle.dumps(cache))
    assert (sent.used_bytes, sent.limit_bytes) == (0, cache.limit_bytes)
    assert len(pickle.dumps(cache)) < 1000


def test_collate_counts_boxes_per_image(data: DetectionData) -> None:
    samples = EvalSet(data, input_format=FORMAT)
    batch = collate([samples[i] for i in (2, 0, 1)], FORMAT)
    assert [len(targets.labels) for targets in batch.targets] == [0, 2, 1]
    assert batch.image_ids == [102, 100, 101]


def test_bad_options(data: DetectionData) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        eval_loader(data, input_format=FORMAT, batch_size=0)
    with pytest.raises(ValueError, match="num_workers must not be negative, got -1"):
        eval_loader(data, input_format=FORMAT, batch_size=1, num_workers=-1)
    with pytest.raises(ValueError, match="cache_bytes must not be negative, got -5"):
        TrainSet(data, augmentation=PLAIN, input_format=FORMAT, seed=0, cache_bytes=-5)
    with pytest.raises(ValueError, match="the sampler counts 5 images, the data set 6"):
        train_loader(data, augmentation=PLAIN, input_format=FORMAT, sampler=sampler(num_samples=5))


ENDLESS = """
import sys, torch
from pathlib import Path
import numpy as np
from boxwright.data.transforms.augment import Augmentation
from boxwright_runtime.input_format import InputFormat
from boxwright.data.loading.loader import train_loader
from boxwright.data.records import DetectionData, Record
from boxwright.data.loading.sampler import BatchSampler
from boxwright.training.interrupt import stop_on_interrupt

none = np.zeros(0, dtype=np.int64)
image = Record(1, Path(sys.argv[1]), 60, 100, none, np.zeros((0, 4)), np.zeros(0), none.astype(bool), ())
sampler = BatchSampler(seed=0, num_samples=1, batch_size=2, num_steps=10**9, image_sizes=[32])
loader = train_loader(
    DetectionData((image,), (), Path("x")),
    augmentation=Augmentation(),
    input_format=InputFormat(image_size=32),
    sampler=sampler,
    num_workers=2,
)
# As training does it: a KeyboardInterrupt is lost where it comes in a finalizer.
with stop_on_interrupt() as stop:
    for step, _ in enumerate(loader):
        if step == 3:
            print("running", flush=True)
        if stop.asked:
            break
print("saved", flush=True)
"""


def test_ctrl_c_reaches_the_main_process_only(data: DetectionData) -> None:
    """As a terminal sends it: to the whole process group."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(data.records[0].path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        # Else it would go on for ever, beside all tests that follow.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert out == "saved\n"
    assert err == ""
    assert process.returncode == 0
