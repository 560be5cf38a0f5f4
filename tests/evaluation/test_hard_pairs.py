"""Pairs against a slow double loop, and on the real labels of MOSI."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from tecafn.evaluation.hard_pairs import (
    designed_pairs,
    find_designed_pairs,
    find_hard_pairs,
    hard_pairs,
    score_pairs,
)
from tecafn.evaluation.significance import Resampling


def slow_pairs(labels: np.ndarray, videos: list[str], max_gap: float) -> list[list[int]]:
    found = []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            gap = round(abs(float(labels[i]) - float(labels[j])), 4)
            if videos[i] == videos[j] and 0 < gap < max_gap:
                found.append([i, j])
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_hard_pairs_equal_a_slow_double_loop(seed: int, dtype: type[np.floating]) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.integers(-15, 16, 60) / 5).astype(dtype)
    videos = [f"v{k}" for k in generator.integers(5, size=60)]
    assert find_hard_pairs(labels, videos, max_gap=0.4).tolist() == slow_pairs(labels, videos, 0.4)
    assert find_hard_pairs(labels, videos, max_gap=1.2).tolist() == slow_pairs(labels, videos, 1.2)


def test_gap_of_exactly_the_bound_is_no_pair_in_spite_of_binary_fractions() -> None:
    assert 2.4 - 2.0 < 0.4
    assert find_hard_pairs([2.4, 2.0], ["v", "v"], max_gap=0.4).tolist() == []
    single = np.array([2.4, 2.0], dtype=np.float32)
    assert find_hard_pairs(single, ["v", "v"], max_gap=0.4).tolist() == []


def test_equal_labels_and_different_videos_are_no_pairs() -> None:
    assert find_hard_pairs([1.0, 1.0, 1.2], ["a", "a", "b"], max_gap=0.4).tolist() == []


def test_share_ordered_counts_a_tie_as_one_half() -> None:
    report = hard_pairs([0.1, 0.3, 0.3, 0.0], [1.0, 1.2, 1.4, 1.3], ["v"] * 4, max_gap=0.4)
    # (0,1) right, (0,3) wrong, (1,2) tied, (1,3) wrong, (2,3) right
    assert report.num_pairs == 5
    assert report.ordered == pytest.approx(2.5 / 5)
    assert report.num_videos == 1
    assert report.interval is None


def test_mae_counts_each_pair_once_with_the_mean_of_its_two_errors() -> None:
    report = hard_pairs([1.5, 1.2, 1.3], [1.0, 1.2, 1.4], ["v"] * 3, max_gap=0.4)
    # pairs (0,1): (0.5 + 0) / 2, (1,2): (0 + 0.1) / 2
    assert report.num_pairs == 2
    assert report.mae == pytest.approx((0.25 + 0.05) / 2)


def test_samples_outside_any_pair_change_nothing() -> None:
    labels, videos = [1.0, 1.2, -3.0], ["v", "v", "v"]
    assert hard_pairs([0.0, 0.5, 9.0], labels, videos, max_gap=0.4) == hard_pairs(
        [0.0, 0.5, 0.0], labels, videos, max_gap=0.4
    )


def test_interval_resamples_videos() -> None:
    generator = np.random.default_rng(0)
    labels = np.tile([0.0, 0.2], 100)
    videos = [f"v{k // 20}" for k in range(200)]
    right = np.repeat(generator.random(10) < 0.6, 20)
    predictions = np.where(right, labels, -labels)
    report = hard_pairs(predictions, labels, videos, max_gap=0.4)
    assert report.num_videos == 10
    assert report.num_pairs == 1000
    assert report.ordered == pytest.approx(right.mean())
    assert report.interval is not None
    # Each video is all right or all wrong: the interval is that of 10 coins, not of 1000.
    assert report.interval[1] - report.interval[0] > 0.4


def test_interval_is_the_one_of_a_slow_loop_over_videos() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(-15, 16, 80) / 5
    predictions = labels + generator.normal(size=80)
    videos = np.array([f"v{k % 6}" for k in range(80)])
    resampling = Resampling(num_resamples=200)
    report = hard_pairs(predictions, labels, videos.tolist(), resampling=resampling, max_gap=0.4)
    shares = {}
    for video in np.unique(videos):
        rows = np.flatnonzero(videos == video)
        part = hard_pairs(predictions[rows], labels[rows], videos[rows].tolist(), max_gap=0.4)
        shares[video] = (part.num_pairs, part.num_pairs * (part.ordered or 0.0))
    counts = np.array(list(shares.values()))
    drawn = np.random.default_rng(0).integers(6, size=(200, 6))
    totals = counts[drawn].sum(axis=1)
    expected = np.quantile(totals[:, 1] / totals[:, 0], [0.025, 0.975])
    assert report.interval == pytest.approx(tuple(expected))


def test_no_pairs_leave_every_number_undefined_not_zero() -> None:
    report = hard_pairs([0.0, 1.0], [0.0, 3.0], ["v", "v"], max_gap=0.4)
    assert report.as_dict() == {
        "num_pairs": 0,
        "num_videos": 0,
        "ordered": None,
        "interval": None,
        "mae": None,
        "max_gap": 0.4,
    }


def test_designed_pairs_share_a_name_and_leave_lonely_partners_out() -> None:
    names = ["p", None, "q", "p", "", "q", "lonely"]
    labels = [1.0, 0.0, 0.5, 1.2, 0.0, 0.1, 2.0]
    assert find_designed_pairs(labels, names).tolist() == [[0, 3], [2, 5]]
    report = designed_pairs([0.0, 0, 1, 1, 0, 0, 0], labels, names, ["v"] * 7)
    assert report.ordered == 1.0
    assert report.num_pairs == 2


def test_designed_pair_of_equal_labels_has_no_order() -> None:
    assert find_designed_pairs([1.0, 1.0], ["p", "p"]).tolist() == []


def test_three_samples_of_one_pair_id_are_an_error() -> None:
    with pytest.raises(ValueError, match="pair_id 'p' must name two samples, got 3"):
        find_designed_pairs([1.0, 1.1, 1.2], ["p"] * 3)


def test_input_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="labels must be finite"):
        hard_pairs([0.0, 0.0], [np.nan, 1.0], ["v", "v"], max_gap=0.4)
    with pytest.raises(ValueError, match="predictions must be finite"):
        hard_pairs([np.nan, 0.0], [1.2, 1.0], ["v", "v"], max_gap=0.4)
    with pytest.raises(ValueError, match="clusters must have shape"):
        hard_pairs([0.0, 0.0], [1.2, 1.0], ["v"], max_gap=0.4)
    with pytest.raises(ValueError, match="pair_ids must have length 2, got 1"):
        find_designed_pairs([1.2, 1.0], ["p"])


def test_pairs_can_be_given() -> None:
    report = score_pairs(
        np.array([[0, 1], [2, 3]]), [0, 1, 0, 1.0], [0, 2, 2, 0.0], ["a", "a", "b", "b"]
    )
    assert report.ordered == 0.5
    assert report.interval == (0.0, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_several_seeds_count_with_their_mean(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, runs = random.normal(size=12), random.normal(size=(3, 12))
    videos = ["abc"[k % 3] for k in range(12)]
    pairs = np.array([[0, 3], [1, 4], [2, 5], [6, 9]])
    report = score_pairs(pairs, runs, labels, videos)
    each = [score_pairs(pairs, run, labels, videos) for run in runs]
    assert report.ordered == pytest.approx(np.mean([one.ordered for one in each]))
    assert report.mae == pytest.approx(np.mean([one.mae for one in each]))
    assert score_pairs(pairs, runs[:1], labels, videos) == each[0]
    broken = runs.copy()
    broken[2, 5] = np.nan
    with pytest.raises(ValueError, match="finite"):
        score_pairs(pairs, broken, labels, videos)


def mosi_labels() -> Path:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("TECAFN_DATA", default)) / "mosi" / "label.csv"
    if not path.is_file():
        pytest.skip("REAL DATA ABSENT: set TECAFN_DATA to the folder that holds mosi/label.csv")
    return path


@pytest.mark.real_data
def test_mosi_valid_has_274_hard_pairs_in_10_videos() -> None:
    with mosi_labels().open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["mode"] == "valid"]
    labels = np.array([float(row["label"]) for row in rows])
    videos = [row["video_id"] for row in rows]
    report = hard_pairs(np.zeros(len(rows)), labels, videos, max_gap=0.4)
    assert (report.num_pairs, report.num_videos) == (274, 10)
    assert report.ordered == 0.5
    in_float32 = hard_pairs(np.zeros(len(rows)), labels.astype(np.float32), videos, max_gap=0.4)
    assert in_float32.num_pairs == 274
