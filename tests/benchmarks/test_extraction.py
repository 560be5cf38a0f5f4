"""The benchmarks of reading video: long clips, times by part, damaged copies, two faces."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")

from clips import clicks, flash, make_clip

from tecafn.extract import media
from tecafn.extract.face import COLUMNS, FaceTrack

Load = Callable[[str], ModuleType]


def test_a_repeated_clip_goes_on_without_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_benchmark: Load
) -> None:
    extract = load_benchmark("extract")
    monkeypatch.setattr(extract, "MINUTE", 1)
    one = make_clip(
        tmp_path / "one.mp4",
        times=[n / 10 for n in range(10)],
        picture=lambda n: flash(n == 5),
        sounds=[clicks([0.5], 1.0)],
    )
    three = extract.repeat_clip(one, tmp_path / "three.mp4", 3)
    white = [frame.time for frame in media.frames(three) if frame.image.mean() > 128]
    assert np.allclose(white, [0.5, 1.5, 2.5], atol=0.02)
    assert media.read_audio(three).duration == pytest.approx(3.0, abs=0.1)


def test_an_inner_part_s_time_is_not_the_outer_one_s(load_benchmark: Load) -> None:
    watch = load_benchmark("extract").Stopwatch()

    def work(seconds: float) -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    inner = watch.wrap(work, "inner")

    def both() -> None:
        work(0.05)
        inner(0.15)

    watch.wrap(both, "outer")()
    assert watch.seconds["inner"] == pytest.approx(0.15, abs=0.05)
    assert watch.seconds["outer"] == pytest.approx(0.05, abs=0.05)


def test_damaged_copies_are_the_same_for_a_seed_and_differ_from_the_clip(
    load_benchmark: Load,
) -> None:
    mutations = load_benchmark("mutated_clips").MUTATIONS
    data = bytes(range(256)) * 100
    for kind, mutate in mutations.items():
        changed = [mutate(data, np.random.default_rng((0, 3))) for _ in range(2)]
        assert changed[0] == changed[1], kind
        assert changed[0] != (data, ""), kind


def test_what_is_said_of_a_damaged_clip_is_judged(load_benchmark: Load) -> None:
    judge = load_benchmark("mutated_clips")._judged
    assert judge(None, "there is no sound", 0) == "read"
    assert judge("it is empty", "it is empty", 0) == "refused"
    assert judge("x", "ValueError: oops", 0) == "not one plain line"
    assert judge("x", "no progress in 120 s; it was given up", 0) == "a hang"
    assert judge(None, "", 3_000_000_000) == "too much memory"


def test_a_stretch_of_a_face_keeps_time_and_is_moved_round(load_benchmark: Load) -> None:
    stretch = load_benchmark("two_faces").stretch
    times = np.arange(100) / 25
    values = np.zeros((100, len(COLUMNS)), np.float32)
    values[:, 0] = np.arange(100)
    seen = np.ones(100, bool)
    boxes = np.zeros((100, 4), np.float32)
    track = FaceTrack(7, times, values, seen.astype(np.float32), seen, boxes)
    part = stretch(track, 2, 1.0, 2.0, 0.0)
    assert (part.id, len(part.times), part.times[0]) == (2, 50, 0.0)
    assert part.values[0, 0] == 25
    moved = stretch(track, 2, 1.0, 2.0, 0.4)
    assert moved.values[0, 0] == 15
