"""The trend, its turning points, the summary: against loops written from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from timelines import SCORER, talk, timeline, utterance

from tecafn.analyze.trend import doubtful, gaps_between, quote, smoothed, summarised, turning_points


def test_the_trend_is_the_mean_weighted_by_seconds_and_distance() -> None:
    said = [utterance(0.0, 2.0, 1.0), utterance(3.0, 4.0, -2.0), utterance(10.0, 16.0, 2.5)]
    trend = smoothed(said, 20.0)
    for time, value in zip(trend.times, trend.values, strict=True):
        weights = [
            (one.end - one.start)
            * math.exp(-0.5 * ((time - (one.start + one.end) / 2) / trend.bandwidth) ** 2)
            for one in said
        ]
        scores = [one.score or 0.0 for one in said]
        expected = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
        if value is not None:
            assert value == pytest.approx(expected, abs=1e-3)
    assert trend.values[0] is not None
    assert trend.bandwidth == 1.5


def test_far_from_every_utterance_the_trend_says_nothing() -> None:
    trend = smoothed([utterance(0.0, 2.0, 1.0)], 30.0)
    known = [t for t, v in zip(trend.times, trend.values, strict=True) if v is not None]
    assert known[-1] == pytest.approx(2.0 + 3 * trend.bandwidth, abs=0.3)


def test_utterances_without_a_score_have_no_part_in_trend_and_summary() -> None:
    said = [utterance(0.0, 2.0, 1.0), utterance(2.0, 4.0, None, out_of_range="de")]
    assert smoothed(said, 4.0) == smoothed(said[:1], 4.0)
    told = summarised(said, SCORER)
    assert (told.num_utterances, told.num_left_out, told.mean) == (1, 1, 1.0)
    nothing = summarised(said[1:], SCORER)
    assert (nothing.num_utterances, nothing.mean, nothing.highest) == (0, None, None)


def test_a_clip_that_rises_and_falls_turns_where_it_does_and_quotes_it() -> None:
    texts = ["it began badly", "then it was wonderful", "then it was awful", "then it was fine"]
    said = [
        utterance(10.0 * k, 10.0 * k + 9.0, score, text=text)
        for k, (score, text) in enumerate(zip((-1.0, 2.0, -2.0, 1.0), texts, strict=True))
    ]
    points = turning_points(smoothed(said, 40.0), said, SCORER)
    assert [point.kind for point in points] == ["peak", "low"]
    assert 10.0 < points[0].time < 20.0 < points[1].time < 30.0
    assert "wonderful" in points[0].quote
    assert "awful" in points[1].quote
    assert points[0].change > 0.3


def test_a_wobble_is_no_turning_point() -> None:
    said = [utterance(6.0 * k, 6.0 * k + 5.0, 1.0 + 0.02 * (k % 2)) for k in range(8)]
    assert turning_points(smoothed(said, 48.0), said, SCORER) == ()


def test_a_quote_has_the_words_around_and_says_where_they_go_on() -> None:
    words = utterance(0.0, 10.0, 1.0, text=" ".join(map(str, range(30)))).words
    assert quote(words, 0.0).startswith("0 1 2")
    assert quote(words, 0.0).endswith("...")
    assert quote(words, 10.0).startswith("...")
    assert quote(words, 10.0).endswith("29")
    assert quote((), 1.0) == ""


def test_neighbours_with_one_doubt_are_one_stretch() -> None:
    said = [
        utterance(0.0, 2.0, 1.0, doubts=("a",)),
        utterance(2.5, 4.0, 1.0, doubts=("a",)),
        utterance(5.0, 6.0, 1.0, doubts=("b",)),
        utterance(9.0, 10.0, 1.0),
    ]
    assert [(s.start, s.end, s.reason) for s in doubtful(said)] == [
        (0.0, 4.0, "a"),
        (5.0, 6.0, "b"),
    ]


def test_shares_and_mean_are_weighted_by_seconds() -> None:
    said = [utterance(0.0, 6.0, 2.0), utterance(6.0, 8.0, -1.0), utterance(8.0, 10.0, 0.0)]
    told = summarised(said, SCORER)
    assert told.mean == pytest.approx(1.0)
    assert (told.positive, told.negative) == (0.6, 0.2)
    assert (told.highest, told.lowest) == (0, 1)


def test_gaps_are_what_no_span_covers() -> None:
    gaps = gaps_between([(4.0, 5.0), (1.0, 4.5)], 9.0, what="no face", least=1.0)
    assert [(gap.start, gap.end, gap.what) for gap in gaps] == [
        (0.0, 1.0, "no face"),
        (5.0, 9.0, "no face"),
    ]
    assert [(g.start, g.end) for g in gaps_between([], 2.0, what="no speech", least=1.0)] == [
        (0, 2)
    ]


def test_a_timeline_of_nothing_has_nothing() -> None:
    one = timeline([], duration=3.0)
    assert (one.trend.values, one.turning_points, one.summary.mean) == ((), (), None)


def test_an_hour_is_smoothed_in_a_bounded_number_of_points() -> None:
    assert len(talk(3600.0).trend.values) == 600
    assert np.isfinite([v for v in talk(3600.0).trend.values if v is not None]).all()
