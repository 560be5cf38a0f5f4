"""The reader of RAVDESS: names say everything, actors stay together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import ReadOptions, import_dataset, open_source
from tecafn.data.readers.ravdess import EMOTIONS
from tecafn.data.samples import Sample
from tecafn.data.store import Store

Make = Callable[[str], Any]


def read(folder: Path) -> tuple[Any, dict[str, Sample]]:
    description, samples = open_source(folder, options=ReadOptions())
    return description, {sample.id: sample for sample in samples}


def test_a_name_says_actor_emotion_and_sentence(make_source: Make) -> None:
    description, samples = read(make_source("ravdess").path)
    assert description.num_classes == 8
    assert description.convention == "multiclass"
    assert description.class_names == EMOTIONS
    angry = samples["actor-12_01-05-02-01-01-12"]
    assert (angry.video, angry.split, angry.label) == ("actor-12", "train", 4.0)
    assert EMOTIONS[4] == "angry"
    assert angry.text == "Kids are talking by the door"
    neutral = samples["actor-20_01-01-01-02-01-20"]
    assert (neutral.split, neutral.label) == ("valid", 0.0)
    assert neutral.text == "Dogs are sitting by the door"


def test_a_sample_names_its_file_and_one_without_sound_has_none(make_source: Make) -> None:
    source = make_source("ravdess").path
    description, samples = read(source)
    assert samples["actor-12_01-05-02-01-01-12"].media == (
        source / "Actor_12" / "03-01-05-02-01-01-12.wav"
    )
    silent = samples["actor-24_01-08-01-01-02-24"]
    assert silent.media is None
    assert silent.split == "test"
    assert silent.sequences[Modality.VISION].shape == (1, 5)
    assert "1 clips have action units and neither sound nor video" in description.notes


def test_songs_are_left_out_and_counted(make_source: Make) -> None:
    description, samples = read(make_source("ravdess").path)
    assert len(samples) == 3
    assert "1 files of song are left out" in description.notes


def test_a_recording_as_sound_and_as_video_is_one_sample(make_source: Make) -> None:
    source = make_source("ravdess").path
    sound = source / "Actor_12" / "03-01-05-02-01-01-12.wav"
    for first in ("01", "02"):
        shutil.copy(sound, source / f"{first}-01-05-02-01-01-12.mp4")
    _, samples = read(source)
    assert len(samples) == 3
    assert samples["actor-12_01-05-02-01-01-12"].media == source / "01-01-05-02-01-01-12.mp4"


def test_the_store_keeps_the_names_of_the_classes(make_source: Make, tmp_path: Path) -> None:
    store = import_dataset(make_source("ravdess").path, format=None, out=tmp_path / "store")
    opened = Store.open(store.path)
    assert opened.description.class_names == EMOTIONS
    assert sorted(opened.split("train").labels.tolist()) == [4.0]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"vision": np.ones((2, 3))}, "must have an array 'ids'"),
        ({"ids": np.array(["a"]), "vision": np.ones((1, 3))}, "RAVDESS's names, got 'a'"),
        (
            {"ids": np.array(["01-01-05-02-01-01-12"]), "vision": np.ones((2, 3))},
            "2 rows, ids has 1",
        ),
    ],
)
def test_action_units_of_another_layout_are_one_line(
    make_source: Make, arrays: dict[str, Any], said: str
) -> None:
    source = make_source("ravdess").path
    np.savez(source / "openface_au.npz", **arrays)
    with pytest.raises(UserError, match=said):
        read(source)


def test_a_scale_is_refused(make_source: Make) -> None:
    options = ReadOptions(label_range=(-1.0, 1.0))
    with pytest.raises(UserError, match="eight emotions"):
        open_source(make_source("ravdess").path, format="ravdess", options=options)


def test_real_ravdess_has_its_actors_and_emotions(data_root: Path) -> None:
    source = data_root / "ravdess"
    if not source.is_dir():
        pytest.skip("REAL DATA NOT TESTED: no ravdess")
    description, samples = read(source)
    assert len(samples) == 1_200
    assert sum(sample.media is not None for sample in samples.values()) == 1_183
    table = (source / "labels.csv").read_text().splitlines()[1:]
    for row in table:
        clip, _, actor, _, emotion = row.split(",")[:5]
        sample = samples[f"actor-{int(actor):02d}_{clip[3:]}"]
        assert EMOTIONS[int(sample.label or 0)] == emotion
    assert description.widths == {Modality.VISION: 35}
