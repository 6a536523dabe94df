"""The order of samples: complete, reproducible, resumable, and independent of the number of processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.data.loading.sampler import (
    AugmentationStage,
    BatchSampler,
    ImageGroups,
    SampleKey,
    aspect_ratio_groups,
    augmentation_rng,
    epoch_order,
)
from boxwright.data.records import PseudoPart

SIZES = (192, 224, 256)


def sampler(**options: Any) -> BatchSampler:
    defaults = {"seed": 0, "num_samples": 10, "batch_size": 4, "num_steps": 20, "image_sizes": SIZES}
    return BatchSampler(**{**defaults, **options})


def last_from(first: int) -> Callable[[int], AugmentationStage]:
    """Mosaics up to a step, from which on images are only flipped."""
    return lambda step: AugmentationStage.LAST if step >= first else AugmentationStage.MIXED


@given(
    seed=st.integers(0, 2**40),
    num_samples=st.integers(1, 50),
    batch_size=st.integers(1, 60),
    num_steps=st.integers(0, 12),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_resuming_gives_the_tail_of_the_uninterrupted_run(
    seed: int, num_samples: int, batch_size: int, num_steps: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, num_steps))
    no_aug = data.draw(st.none() | st.integers(0, num_steps))
    group_of = data.draw(st.none() | st.lists(st.integers(0, 2), min_size=num_samples, max_size=num_samples))
    options: dict[str, Any] = {
        "seed": seed,
        "num_samples": num_samples,
        "batch_size": batch_size,
        "num_steps": num_steps,
        "stage_of": None if no_aug is None else last_from(no_aug),
        "groups": None if group_of is None else ImageGroups(tuple(group_of), batch_size),
    }
    whole = list(sampler(**options))
    assert list(sampler(**options, start_step=start)) == whole[start:]
    assert [len(batch) for batch in whole] == [batch_size] * num_steps


@given(
    size=st.integers(1, 6),
    world_size=st.integers(1, 6),
    num_samples=st.integers(1, 40),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_processes_divide_the_same_samples(size: int, world_size: int, num_samples: int, seed: int) -> None:
    options: dict[str, Any] = {"seed": seed, "num_samples": num_samples, "batch_size": size * world_size}
    ranks = [sampler(**options, rank=rank, world_size=world_size) for rank in range(world_size)]
    for alone, together in zip(sampler(**options), zip(*ranks, strict=True), strict=True):
        assert [key for part in together for key in part] == alone
        assert {len(part) for part in together} == {size}


def test_every_epoch_has_every_image_once() -> None:
    keys = [key for batch in sampler(num_samples=7, batch_size=4, num_steps=21) for key in batch]
    assert len(keys) == 84 == 12 * 7
    for epoch in range(12):
        assert sorted(key.record for key in keys if key.epoch == epoch) == list(range(7))
    assert [key.epoch for key in keys] == sorted(key.epoch for key in keys)


@given(
    size=st.integers(1, 6),
    per_step=st.integers(1, 3),
    group_of=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    seed=st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_groups_go_through_the_network_together(size: int, per_step: int, group_of: list[int], seed: int) -> None:
    """Every image once per epoch, and at most as many mixed batches as groups, and one where epochs meet."""
    groups, count, epochs = ImageGroups(tuple(group_of), size), len(group_of), 4
    steps = -(-epochs * count // (size * per_step))
    options = {"seed": seed, "num_samples": count, "batch_size": size * per_step, "num_steps": steps}
    keys = [key for batch in sampler(**options, groups=groups) for key in batch]
    for epoch in range(epochs):
        assert sorted(key.record for key in keys if key.epoch == epoch) == list(range(count))
    batches = [keys[i : i + size] for i in range(0, len(keys), size)]
    mixed = sum(len({group_of[key.record] for key in batch}) > 1 for batch in batches)
    assert mixed <= (epochs + 1) * (len(set(group_of)) + 1)


def test_batches_of_two_groups() -> None:
    """Worked out by hand: 7 wide and 5 tall images, pairs; only the two that are left meet."""
    groups = ImageGroups((0,) * 7 + (1,) * 5, 2)
    batches = list(sampler(num_samples=12, batch_size=2, num_steps=6, groups=groups))
    kinds = [tuple(int(key.record >= 7) for key in batch) for batch in batches]
    assert sorted(kinds[:-1]) == [(0, 0)] * 3 + [(1, 1)] * 2
    assert set(kinds[-1]) == {0, 1}
    plain = [key.record for batch in sampler(num_samples=12, batch_size=2, num_steps=6) for key in batch]
    wide = [record for record in plain if record < 7]
    assert [batch[0].record for batch in batches if batch[0].record < 7][:3] == wide[0:6:2]


def test_groups_by_aspect_ratio() -> None:
    """A border belongs to the wider group, as with Python's ``bisect_right``."""
    sizes = [(100, 50), (100, 49), (100, 99), (100, 100), (100, 200), (100, 199), (90, 100)]
    assert aspect_ratio_groups(sizes, 2) == (0, 0, 0, 1, 1, 1, 1)
    assert aspect_ratio_groups(sizes, 8) == (1, 0, 3, 4, 7, 6, 4)


def test_epochs_and_seeds_have_different_orders_that_nobody_can_change() -> None:
    orders = [epoch_order(seed, epoch, 100) for seed in range(3) for epoch in range(3)]
    for i, first in enumerate(orders):
        assert sorted(first % 100) == list(range(100))
        assert set(first // 100) == {i % 3}
        assert all((first % 100 == second % 100).mean() < 0.1 for second in orders[:i])
    with pytest.raises(ValueError, match="read-only"):
        orders[0][0] = 1


@given(
    labeled=st.integers(0, 12),
    count=st.integers(1, 12),
    weight=st.floats(0.05, 3),
    batch_size=st.integers(1, 9),
    group_of=st.none() | st.lists(st.integers(0, 1), min_size=24, max_size=24),
)
@settings(max_examples=80, deadline=None)
def test_pseudo_labels_are_seen_in_turn(
    labeled: int, count: int, weight: float, batch_size: int, group_of: list[int] | None
) -> None:
    """Every labeled image once per epoch, every other one equally often over epochs, no sample twice."""
    pseudo, epochs, total = PseudoPart(count, weight), 5, labeled + count
    assert 1 <= pseudo.drawn == max(1, round(weight * count))
    options: dict[str, Any] = {"num_samples": total, "batch_size": batch_size, "pseudo": pseudo}
    if group_of is not None:
        options["groups"] = ImageGroups(tuple(group_of[:total]), batch_size)
    per_epoch = labeled + pseudo.drawn
    steps = -(-epochs * per_epoch // batch_size)
    keys = [key for batch in sampler(**options, num_steps=steps) for key in batch][: epochs * per_epoch]
    assert len(set(keys)) == len(keys)
    for epoch in range(epochs):
        shown = [key.record for key in keys[epoch * per_epoch : (epoch + 1) * per_epoch]]
        assert sorted(record for record in shown if record < labeled) == list(range(labeled))
    times = Counter(key.record for key in keys if key.record >= labeled)
    each = epochs * pseudo.drawn / count
    assert {times[labeled + index] for index in range(count)} <= {int(each), -int(-each // 1)}


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 1.5, 2.0])
def test_weighted_losses_are_those_of_lee(weight: float) -> None:
    """The mean of labeled images plus a coefficient times that of the others, over whole passes."""
    labeled, count, epochs = 5, 8, 4
    losses = np.random.default_rng(3).normal(size=labeled + count)
    pseudo = PseudoPart(count, weight)
    steps = epochs * (labeled + pseudo.drawn)
    order = sampler(num_samples=labeled + count, batch_size=1, num_steps=steps, pseudo=pseudo)
    summed = sum(losses[key.record] for batch in order for key in batch)
    coefficient = weight * count / labeled
    expected = losses[:labeled].mean() + coefficient * losses[labeled:].mean()
    assert summed / (epochs * labeled) == pytest.approx(expected, rel=1e-12)


def test_image_sizes_are_one_per_step_and_evenly_drawn() -> None:
    sizes = Counter()
    for batch in sampler(num_steps=900, image_sizes=(192, 256, 256)):
        assert len({key.image_size for key in batch}) == 1
        sizes[batch[0].image_size] += 1
    assert set(sizes) == {192, 256}
    assert sizes[192] / 900 == pytest.approx(1 / 3, abs=0.06)


def test_the_last_part_is_without_strong_augmentation() -> None:
    batches = list(sampler(stage_of=last_from(15)))
    assert [batch[0].is_strong for batch in batches] == [True] * 15 + [False] * 5
    assert all(key.is_strong for batch in sampler() for key in batch)


def test_stages_of_augmentation() -> None:
    """The first and the last have no strong augmentation, and the last alone has one size."""
    stages = list(AugmentationStage)
    batches = list(sampler(stage_of=lambda step: stages[step // 5], no_aug_size=100))
    assert [batch[0].is_strong for batch in batches] == [False] * 5 + [True] * 10 + [False] * 5
    assert [batch[0].is_mixed for batch in batches] == [False] * 5 + [True] * 5 + [False] * 10
    assert [batch[0].image_size == 100 for batch in batches] == [False] * 15 + [True] * 5
    assert not any(key.is_mixed for batch in sampler() for key in batch)


def test_augmentation_depends_on_seed_epoch_and_image_only() -> None:
    def draw(seed: int, key: SampleKey) -> float:
        return augmentation_rng(seed, key).random()

    first = draw(1, SampleKey(5, 2, 256))
    assert first == draw(1, SampleKey(5, 2, 192, is_strong=False))
    others = [draw(2, SampleKey(5, 2, 256)), draw(1, SampleKey(5, 3, 256)), draw(1, SampleKey(2, 5, 256))]
    assert len({first, *others}) == 4
    order_stream = np.random.default_rng([1, 0, 2]).random()
    assert first != order_stream


def test_length() -> None:
    assert len(sampler(num_steps=20, start_step=5)) == 15 == len(list(sampler(num_steps=20, start_step=5)))
    assert len(sampler(num_steps=20, start_step=25)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "the data set is empty"),
        ({"batch_size": 6, "world_size": 4}, "give a positive multiple of 4 as train.batch_size"),
        ({"batch_size": 0}, "batch of 0"),
        ({"image_sizes": ()}, "at least one positive size"),
        ({"image_sizes": (0, 32)}, "at least one positive size"),
        ({"seed": -1}, "must not be negative, got -1 and 0"),
        ({"start_step": -2}, "must not be negative, got 0 and -2"),
        ({"groups": ImageGroups((0, 1), 4)}, "groups are given for 2 images, and there are 10"),
        ({"rank": 1}, "rank must be from 0 to world_size - 1 = 0, got 1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(**options)
