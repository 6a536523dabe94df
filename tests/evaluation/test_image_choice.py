"""Images worth labeling first: doubts with numbers, and choices among a few."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from boxwright.data.image_inspection import difference_hash
from boxwright.evaluation.image_choice import choose_uncertain, measure_uncertainty
from boxwright_runtime.detections import Detections

WIDTH = 100


def detect(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Make detections of rows (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


class TestUncertainty:
    def test_scores_of_a_half_are_the_most_uncertain(self) -> None:
        sure = detect((0, 0, 10, 10, 0.999, 0))
        unsure = detect(*[(10 * i, 0, 10 * i + 8, 10, 0.5, 0) for i in range(7)])
        assert measure_uncertainty(unsure, unsure, WIDTH).classes == pytest.approx(1.0)  # five of seven
        assert measure_uncertainty(sure, sure, WIDTH).classes == pytest.approx(0.0114 / 5, abs=1e-4)
        two = unsure[:2]
        assert measure_uncertainty(two, two, WIDTH).classes == pytest.approx(2 / 5)

    def test_boxes_that_stay_are_certain(self) -> None:
        own, mirrored = detect((10, 0, 30, 10, 0.9, 0)), detect((70, 0, 90, 10, 0.8, 0))
        assert measure_uncertainty(own, mirrored, WIDTH).boxes == pytest.approx(0.0, abs=1e-6)

    def test_boxes_that_move_count_by_their_scores(self) -> None:
        own = detect((10, 0, 30, 10, 0.9, 0), (50, 0, 70, 10, 0.3, 0))
        # The first is half as wide in the mirror image, the second is not there.
        mirrored = detect((70, 0, 80, 10, 0.9, 0))
        assert measure_uncertainty(own, mirrored, WIDTH).boxes == pytest.approx((0.9 * 0.5 + 0.3 * 1) / 1.2)

    def test_another_class_is_no_match(self) -> None:
        own, mirrored = detect((10, 0, 30, 10, 0.9, 0)), detect((70, 0, 90, 10, 0.8, 1))
        assert measure_uncertainty(own, mirrored, WIDTH).boxes == pytest.approx(1.0)

    def test_without_detections_there_are_no_doubts(self) -> None:
        assert measure_uncertainty(detect(), detect(), WIDTH) == (0.0, 0.0)
        assert measure_uncertainty(detect((0, 0, 9, 9, 0.01, 0)), detect(), WIDTH) == (0.0, 0.0)
        assert measure_uncertainty(detect((0, 0, 9, 9, 0.5, 0)), detect(), WIDTH).boxes == 1.0


class TestChoice:
    FEATURES = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [0.0, -0.1]])

    def choose(self, uncertainty: list[float], count: int, **options: object) -> list[int]:
        hashes = [None] * len(uncertainty)
        chosen, _ = choose_uncertain(np.array(uncertainty), self.FEATURES, hashes, count, **options)  # type: ignore[arg-type]
        return [one.position for one in chosen]

    def test_the_most_uncertain_comes_first_and_then_what_is_unlike_it(self) -> None:
        assert self.choose([0.9, 0.8, 0.5, 0.1], 2) == [0, 2]
        assert self.choose([0.9, 0.8, 0.01, 0.01], 4)[0] == 0
        assert sorted(self.choose([0.9, 0.8, 0.5, 0.1], 9)) == [0, 1, 2, 3]

    def test_known_images_push_away(self) -> None:
        known = np.array([[1.0, 0.05]])
        assert self.choose([0.9, 0.8, 0.5, 0.1], 1, known_features=known) == [2]

    def test_without_doubts_the_most_novel_come(self) -> None:
        first = self.choose([0.0, 0.0, 0.0, 0.0], 1)[0]
        second = self.choose([0.0, 0.0, 0.0, 0.0], 2)[1]
        assert (first < 2) != (second < 2) or {first, second} == {2, 3}

    def test_of_nearly_the_same_one_is_chosen(self) -> None:
        rng = np.random.default_rng(0)
        patterns = [Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)) for _ in range(2)]
        hashes = [difference_hash(pattern) for pattern in (patterns[0], patterns[0], patterns[1], patterns[1])]
        doubts = np.array([0.9, 0.8, 0.7, 0.6])
        chosen, repeated = choose_uncertain(doubts, self.FEATURES, hashes, 4)
        assert ([one.position for one in chosen], repeated) == ([0, 2], 2)
        chosen, repeated = choose_uncertain(doubts, self.FEATURES, hashes, 4, known_hashes=[hashes[0]])
        assert ([one.position for one in chosen], repeated) == ([2], 3)
