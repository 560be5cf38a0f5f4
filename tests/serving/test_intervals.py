"""Intervals cover what they say, of videos left out of calibration, and are refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.serving.intervals import (
    CALIBRATION_FILE,
    Intervals,
    Scored,
    calibrate,
    count_words,
    fit_intervals,
    hash_of_weights,
    read_calibration,
    write_calibration,
)

RANGE = (-3.0, 3.0)


def made(num_videos: int, *, seed: int, short_is_worse: float = 1.0) -> Scored:
    """Utterances whose errors depend on the video, and those of short ones on a factor."""
    random = np.random.default_rng(seed)
    videos = np.repeat(np.arange(num_videos), random.integers(2, 12, num_videos))
    words = random.integers(2, 40, len(videos))
    labels = random.uniform(-3, 3, len(videos))
    spread = random.uniform(0.2, 0.6, num_videos)[videos] * np.where(words < 6, short_is_worse, 1)
    return Scored(
        scores=np.clip(labels + random.normal(size=len(videos)) * spread, -3, 3),
        labels=labels,
        num_words=words,
        videos=[f"v{video}" for video in videos],
        datasets=["made"] * len(videos),
    )


def covered(intervals: Intervals, scored: Scored) -> np.ndarray:
    low, high = intervals.of(scored.scores, scored.num_words)
    return (low <= scored.labels) & (scored.labels <= high)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_new_videos_are_covered_as_often_as_was_said(level: float) -> None:
    shares = [
        covered(
            fit_intervals(made(60, seed=seed), label_range=RANGE, level=level),
            made(60, seed=1000 + seed),
        ).mean()
        for seed in range(40)
    ]
    assert level - 0.015 < np.mean(shares) < level + 0.03


def test_short_utterances_that_are_missed_more_have_wider_intervals() -> None:
    known, new = made(300, seed=0, short_is_worse=2.5), made(600, seed=1, short_is_worse=2.5)
    intervals = fit_intervals(known, label_range=RANGE)
    assert intervals.half_widths[0] > 1.5 * intervals.half_widths[-1]
    short = new.num_words <= intervals.most_words[0]
    assert 0.86 < covered(intervals, new)[short].mean() < 0.94
    # One width for all would not have covered them.
    one = np.quantile(known.errors, 0.9)
    assert (new.errors <= one)[short].mean() < 0.8


def test_half_the_width_is_the_conformal_quantile_of_the_errors() -> None:
    errors = np.random.default_rng(3).permutation(np.arange(1, 40) / 20)
    scored = Scored(
        scores=np.full(39, 9.0), labels=9.0 - errors, num_words=np.full(39, 5), videos=["v"] * 39,
        datasets=["d"] * 39,
    )  # fmt: skip
    intervals = fit_intervals(scored, label_range=RANGE, level=0.9)
    assert intervals.most_words == ()
    assert intervals.half_widths[0] == pytest.approx(36 / 20)  # the 36th of 39: (39 + 1) * 0.9


def test_what_is_measured_are_videos_that_were_left_out() -> None:
    """One video is missed far more than the others: fitted with it, it would be covered."""
    scored = made(12, seed=5)
    odd = np.array([video == "v3" for video in scored.videos])
    scores = np.where(odd, scored.labels + 2.9, scored.scores)
    shifted = Scored(
        scores=scores, labels=scored.labels, num_words=np.full(len(odd), 9),
        videos=scored.videos, datasets=scored.datasets,
    )  # fmt: skip
    share = odd.mean()
    assert 0.1 < share < 0.2
    found = calibrate(shifted, label_range=(-9.0, 9.0), data=[], weights_hash="")
    assert covered(found.intervals, shifted)[odd].mean() > 0.5
    assert found.measured.covered < 1 - share + 1e-9
    assert found.measured.num_videos == 12


def test_videos_of_two_datasets_with_one_name_are_two_and_each_dataset_is_measured() -> None:
    parts = [made(20, seed=0), made(30, seed=1)]
    joined = Scored(
        scores=np.concatenate([p.scores for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
        num_words=np.concatenate([p.num_words for p in parts]),
        videos=[video for p in parts for video in p.videos],
        datasets=[name for p, n in zip(parts, "ab", strict=True) for name in n * len(p.labels)],
    )
    found = calibrate(joined, label_range=RANGE, data=[], weights_hash="")
    assert found.measured.num_videos == 50
    assert {name: c.num_videos for name, c in found.by_dataset.items()} == {"a": 20, "b": 30}
    assert sum(c.num_utterances for c in found.by_dataset.values()) == len(joined.labels)


def test_errors_that_grow_towards_the_ends_have_intervals_that_do() -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(-3, 3, 4000)
    noise = random.normal(size=4000) * (0.2 + 0.3 * np.abs(labels))
    scored = Scored(
        scores=labels + noise, labels=labels, num_words=np.full(4000, 9),
        videos=[f"v{k // 5}" for k in range(4000)], datasets=["d"] * 4000,
    )  # fmt: skip
    intervals = fit_intervals(scored, label_range=(-9.0, 9.0))
    assert intervals.slope > 2
    inside = np.abs(labels) < 1
    # One width for all would cover nearly all of the middle, and too few at the ends.
    one = np.quantile(scored.errors, 0.9)
    assert (scored.errors <= one)[inside].mean() > 0.97
    assert (scored.errors <= one)[~inside].mean() < 0.88
    for part in (inside, ~inside):
        assert 0.86 < covered(intervals, scored)[part].mean() < 0.97
    even = fit_intervals(made(300, seed=0), label_range=RANGE)
    assert even.slope < 0.3


def test_a_small_dataset_counts_as_much_as_a_large_one() -> None:
    """Pooled as they are, its utterances would be missed far too often."""
    parts = [(made(20, seed=0), 1.8, "small"), (made(300, seed=1), 1.0, "large")]
    joined = Scored(
        scores=np.concatenate([p.labels + k * (p.scores - p.labels) for p, k, _ in parts]),
        labels=np.concatenate([p.labels for p, _, _ in parts]),
        num_words=np.concatenate([p.num_words for p, _, _ in parts]),
        videos=[video for p, _, _ in parts for video in p.videos],
        datasets=[name for p, _, name in parts for _ in p.labels],
    )
    small = np.array(joined.datasets) == "small"
    assert joined.weights.mean() == pytest.approx(1.0)
    assert joined.weights[small].sum() == pytest.approx(joined.weights[~small].sum())
    found = calibrate(joined, label_range=(-9.0, 9.0), data=[], weights_hash="")
    assert (joined.errors <= np.quantile(joined.errors, 0.9))[small].mean() < 0.75
    shares = [found.by_dataset[name].covered for name in ("small", "large")]
    assert 0.8 < shares[0] < shares[1] < 0.99
    assert np.mean(shares) == pytest.approx(0.9, abs=0.03)


def test_intervals_stay_on_the_labels_scale_and_hold_the_score() -> None:
    intervals = Intervals(level=0.9, most_words=(5,), half_widths=(2.0, 1.0), label_range=RANGE)
    low, high = intervals.of([2.5, 2.5, -3.2, 0.0], [5, 6, 50, 0])
    assert low.tolist() == [0.5, 1.5, -3.0, -2.0]
    assert high.tolist() == [3.0, 3.0, -2.0, 2.0]
    assert [len(ends) for ends in intervals.of([], [])] == [0, 0]
    with pytest.raises(ValueError, match="num_words must be one per score"):
        intervals.of([0.0, 1.0], [3])


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), (None, 0), ("  ", 0), ("it's  fine\n", 2), ("\u6211\u5f88\u9ad8\u5174", 4)],
)
def test_words_are_counted_by_spaces_or_where_there_are_none_by_characters(
    text: str | None, count: int
) -> None:
    assert count_words(text) == count


@pytest.mark.parametrize(("num_videos", "kept"), [(3, None), (100, 30)])
def test_too_little_to_calibrate_on_is_refused(num_videos: int, kept: int | None) -> None:
    scored = made(num_videos, seed=0)
    some = Scored(
        scores=scored.scores[:kept], labels=scored.labels[:kept], num_words=scored.num_words[:kept],
        videos=scored.videos[:kept], datasets=scored.datasets[:kept],
    )  # fmt: skip
    with pytest.raises(UserError, match="intervals need 40 labelled utterances of 5 videos"):
        calibrate(some, label_range=RANGE, data=[], weights_hash="")


def test_a_level_that_needs_more_utterances_is_refused() -> None:
    scored = made(10, seed=0)
    with pytest.raises(UserError, match=r"99\.5 % need 199 labelled utterances"):
        fit_intervals(scored, label_range=RANGE, level=0.995)
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 1"):
        fit_intervals(scored, label_range=RANGE, level=1.0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with weights and a calibration."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    found = calibrate(
        made(30, seed=0), label_range=RANGE, weights_hash=hash_of_weights(tmp_path),
        data=[{"dataset": "made", "split": "valid", "hash": "0"}],
    )  # fmt: skip
    write_calibration(tmp_path, found)
    assert read_calibration(tmp_path) == found
    return tmp_path


def test_a_calibration_is_not_used_with_other_weights(model: Path) -> None:
    assert Intervals.load(model).level == 0.9
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match="was made for weights with the SHA-256") as error:
        Intervals.load(model)
    assert "calibrate it anew" in str(error.value)


def test_a_model_that_was_not_calibrated_says_how(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no intervals: calibrate it with `tecafn calibrate"):
        Intervals.load(tmp_path)


def damaged(values: dict[str, Any], what: str) -> str:
    if what == "no JSON":
        return "{"
    if what == "version":
        values["format_version"] = 9
    if what == "widths":
        values["intervals"]["half_widths"].append(1.0)
    if what == "NaN":
        values["intervals"]["half_widths"][0] = float("nan")
    if what == "key":
        del values["intervals"]["level"]
    return json.dumps(values)


@pytest.mark.parametrize("what", ["no JSON", "version", "widths", "NaN", "key"])
def test_a_damaged_calibration_is_refused_in_one_line(what: str, model: Path) -> None:
    path = model / CALIBRATION_FILE
    path.write_text(damaged(json.loads(path.read_text()), what))
    with pytest.raises(UserError, match=r"calibration\.json is damaged: .") as error:
        Intervals.load(model)
    assert "\n" not in str(error.value)
