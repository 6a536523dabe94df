"""Images with labels of a detector, appended to those that somebody has labeled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.open import open_data
from boxwright.data.pseudo_labels import add_pseudo_labels
from boxwright.data.records import DetectionData, PseudoPart, file_names, image_sizes, object_columns
from boxwright.data.size_survey import thin_out


@pytest.fixture
def both(drawn: Path) -> tuple[DetectionData, DetectionData]:
    """The ten and five images of a drawn data set."""
    data = open_data(drawn, "train")
    return data, open_data(drawn, "val", categories=data.categories)


@pytest.fixture
def joined(both: tuple[DetectionData, DetectionData]) -> DetectionData:
    return add_pseudo_labels(*both, weight=0.5)


def test_they_come_last(both: tuple[DetectionData, DetectionData], joined: DetectionData) -> None:
    data, pseudo = both
    separate = (*data.records, *pseudo.records)
    assert [one.path for one in joined.records] == [one.path for one in separate]
    assert joined.records[-1].path == joined.records[len(separate) - 1].path == pseudo.records[-1].path
    with pytest.raises(IndexError):
        joined.records[len(separate)]
    assert joined.num_labeled == len(data.records)
    assert joined.epoch_images == len(data.records) + round(len(pseudo.records) / 2)
    assert (image_sizes(joined.records) == image_sizes(separate)).all()
    assert file_names(joined.records) == file_names(separate)
    for one, two in zip(object_columns(joined.records), object_columns(separate), strict=True):
        assert (one == two).all()
    digests = [facts.digest for facts in joined.facts]
    assert digests == [facts.digest for one in both for facts in one.facts]
    assert None not in digests


def test_some_of_them(both: tuple[DetectionData, DetectionData], joined: DetectionData) -> None:
    separate = [one.path for one in (*both[0].records, *both[1].records)]
    first, last = 1, len(separate) - 1
    some = joined.select(np.array([first, len(both[0].records), last]))
    assert [one.path for one in some.records] == [separate[i] for i in (first, len(both[0].records), last)]
    assert some.pseudo == PseudoPart(2, 0.5)
    assert some.epoch_images == 2
    assert [one.path for one in joined.records[::-5]] == separate[::-5]
    assert [one.path for one in joined.records.select(np.array([last, first]))] == [separate[last], separate[first]]  # type: ignore[attr-defined]
    only = joined.select(np.array([0, 2]))
    assert (only.pseudo, only.epoch_images) == (PseudoPart(0, 0.5), 2)
    assert thin_out(joined, 6).pseudo == PseudoPart(2, 0.5)


def test_images_of_mosaics_are_drawn_by_weight(both: tuple[DetectionData, DetectionData]) -> None:
    few = add_pseudo_labels(*both, weight=0.2)
    pseudo = few.pseudo
    assert pseudo is not None
    rng = np.random.default_rng(0)
    drawn = Counter(few.draw_image(rng) for _ in range(20_000))
    assert set(drawn) == set(range(len(few.records)))
    expected = np.ones(len(few.records))
    expected[few.num_labeled :] = pseudo.drawn / pseudo.count
    actual = np.array([drawn[index] for index in range(len(few.records))]) / 20_000
    assert np.abs(actual - expected / expected.sum()).max() < 0.008
    plain, other = np.random.default_rng(1), np.random.default_rng(1)
    assert [both[0].draw_image(plain) for _ in range(9)] == other.integers(len(both[0].records), size=9).tolist()


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_positive(both: tuple[DetectionData, DetectionData], weight: float) -> None:
    with pytest.raises(ValueError, match="a number above 0"):
        add_pseudo_labels(*both, weight=weight)


def test_they_are_added_once(both: tuple[DetectionData, DetectionData], joined: DetectionData) -> None:
    with pytest.raises(ValueError, match="are added once"):
        add_pseudo_labels(joined, both[1], 1.0)
