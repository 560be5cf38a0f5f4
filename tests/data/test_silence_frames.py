"""Frames of another sample, modality or axis, and frames that say nothing, are said or refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, Sample
from tecafn.data.axes import is_transposed
from tecafn.data.importing import import_dataset
from tecafn.data.integrity import check
from tecafn.data.readers import ReadOptions
from tecafn.data.recurrence import RecurrenceSurvey

Dump = Callable[..., Path]


def _mmsa(count: int = 16) -> dict[str, Any]:
    """Two splits of an MMSA pickle, padded at the end."""
    random = np.random.default_rng(0)
    data: dict[str, Any] = {}
    for split in ("train", "test"):
        lengths = random.integers(4, 12, count)
        real = (np.arange(12) < lengths[:, None])[:, :, None]
        data[split] = {
            "id": [f"{split}{n // 4}$_${n % 4 + 1}" for n in range(count)],
            "raw_text": [f"it was fine {split} {n}" for n in range(count)],
            "regression_labels": np.round(random.uniform(-3, 3, count), 1),
            "audio": real * random.normal(size=(count, 12, 7)),
            "vision": real * random.normal(size=(count, 12, 9)),
        }
    return data


def _warnings(dump: Dump, tmp_path: Path, data: dict[str, Any]) -> list[str]:
    store = import_dataset(dump(data), format="mmsa", out=tmp_path / "store")
    said = list(store.manifest["warnings"])
    # The report looks for itself, and says it once.
    reported = [row.message for row in check(store).rows if row.level == "warning"]
    assert all(reported.count(sentence) == 1 for sentence in said)
    return said


def test_frames_of_each_sample_are_its_own(dump: Dump, tmp_path: Path) -> None:
    assert _warnings(dump, tmp_path, _mmsa()) == []


def test_frames_of_a_whole_video_are_said(dump: Dump, tmp_path: Path) -> None:
    data = _mmsa()
    for part in data.values():
        part["audio"] = part["audio"][np.arange(16) // 4 * 4]
    (said,) = _warnings(dump, tmp_path, data)
    assert said == (
        "audio: 24 of 32 samples have the very frames of a sample before them ('train0_2' and "
        "'train0_1', for two)"
    )


def test_samples_of_another_split_under_other_ids_are_said(dump: Dump, tmp_path: Path) -> None:
    data = _mmsa()
    for key in ("audio", "vision", "raw_text"):
        data["test"][key] = data["train"][key]
    said = _warnings(dump, tmp_path, data)[-1]
    assert said.startswith("16 of 16 samples of test have text and frames, or text and label, of a")
    assert "('test0_1' is 'train0_1' of train)" in said


def test_sentences_with_labels_of_another_split_are_said(write_table: Dump, tmp_path: Path) -> None:
    header = ("video_id", "clip_id", "text", "label", "mode")
    rows = [
        (f"{mode}{n // 4}", str(n % 4 + 1), f"it was fine {n}", f"{n / 3 - 2.5:.1f}", mode)
        for mode in ("train", "test")
        for n in range(16)
    ]
    store = import_dataset(write_table(header, *rows), format=None, out=tmp_path / "store")
    (said,) = store.manifest["warnings"]
    assert said.startswith("16 of 16 samples of test have text and frames, or text and label")
    # Few sentences, each spoken often: they do not tell samples apart.
    acted = [(*row[:2], "kids are talking here", *row[3:]) for row in rows]
    store = import_dataset(write_table(header, *acted), format=None, out=tmp_path / "acted")
    assert not any("samples of test" in said for said in store.manifest["warnings"])


def test_one_modality_under_two_names_is_said(dump: Dump, tmp_path: Path) -> None:
    data = _mmsa()
    for part in data.values():
        part["vision"] = part["audio"]
    assert _warnings(dump, tmp_path, data) == [
        "audio and vision are the very same frames in 32 samples"
    ]


def test_frames_that_never_vary_are_said(dump: Dump, tmp_path: Path) -> None:
    data = _mmsa()
    for part in data.values():
        part["audio"] = (part["audio"] != 0) * 0.5
    assert _warnings(dump, tmp_path, data) == [
        "audio: every frame of every sample is the same: they say nothing"
    ]


def test_many_masked_frames_are_said_at_import(dump: Dump, tmp_path: Path) -> None:
    data = _mmsa()
    for part in data.values():
        part["vision"][:, 1:3, 0] = np.nan
    (said,) = _warnings(dump, tmp_path, data)
    assert said.startswith("vision: 64 of ")
    assert "have NaN or infinity and are masked" in said


# Frames along the wrong axis


@pytest.mark.parametrize("with_lengths", [True, False])
@pytest.mark.parametrize("in_front", [True, False])
def test_frames_in_columns_are_refused(dump: Dump, with_lengths: bool, in_front: bool) -> None:
    data = _mmsa()
    for part in data.values():
        lengths = (part["audio"] != 0).any(axis=2).sum(axis=1)
        if in_front:
            part["audio"] = part["audio"][:, ::-1]
        part["audio"] = part["audio"].transpose(0, 2, 1).copy()
        if with_lengths:
            part["audio_lengths"] = lengths
    options = ReadOptions(padding={Modality.AUDIO: "none"})
    path = dump(data)
    with pytest.raises(UserError, match=r"audio must have a row for each frame, got 7 rows of 12"):
        import_dataset(path, format="mmsa", out=path.parent / "store")
    if not with_lengths:
        told = import_dataset(path, format="mmsa", out=path.parent / "told", options=options)
        assert told.split("train").sequence(0, Modality.AUDIO).shape == (7, 12)


@pytest.mark.parametrize("is_padded", [True, False])
def test_clips_of_an_extractor_that_gives_columns_first_are_refused(
    write_table: Dump, is_padded: bool
) -> None:
    random = np.random.default_rng(0)
    rows = [("v", str(n + 1), f"fine {n}", "1", "train") for n in range(12)]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *rows)
    folder = table.parent / "audio" / "v"
    folder.mkdir(parents=True)
    for n in range(12):
        frames = random.normal(size=(5, 4 + n))
        np.save(folder / f"{n + 1}.npy", np.pad(frames, ((0, 0), (0, 20 - n))) if is_padded
                else frames)  # fmt: skip
    with pytest.raises(UserError, match=r"audio must have a row for each frame.* transpose each"):
        import_dataset(table.parent, format=None, out=table.parent / "store")


def test_sparse_columns_are_not_taken_for_padding() -> None:
    random = np.random.default_rng(0)
    units = random.normal(size=(40, 30, 17)) * (random.random((40, 30, 17)) < 0.2)
    assert not is_transposed(units)
    one_hot = np.eye(50)[random.integers(0, 50, (40, 8))]
    assert not is_transposed(one_hot)
    dead = random.normal(size=(40, 30, 17))
    dead[:, :, 12:] = 0
    assert not is_transposed(dead)


@pytest.mark.parametrize("layout", ["mult", "mmim"])
def test_frames_in_columns_are_refused_in_other_layouts_too(
    dump: Dump, tmp_path: Path, layout: str
) -> None:
    data: Any = {}
    for split, part in _mmsa().items():
        audio = part["audio"].transpose(0, 2, 1).copy()
        vision = part["vision"]
        if layout == "mult":
            data[split] = {"audio": audio, "vision": vision, "labels": np.ones((16, 1, 1)),
                           "text": np.ones((16, 3, 6)), "id": np.array(part["id"])}  # fmt: skip
            continue
        lengths = (vision != 0).any(axis=2).sum(axis=1).tolist()
        data[split] = [
            (([], vision[n], audio[n], ["so", "good"], lengths[n], 7), np.array([[0.5]]), name)
            for n, name in enumerate(part["id"])
        ]
    if layout == "mult":
        path = dump(data)
    else:
        path = tmp_path / "mmim"
        path.mkdir()
        for split, rows in data.items():
            (path / f"{split}.pkl").write_bytes(pickle.dumps(rows))
    with pytest.raises(UserError, match=r"audio must have a row for each frame, got 7 rows of 12"):
        import_dataset(path, format=layout, out=tmp_path / "store")


# What may recur


def _survey(*samples: tuple[str, str | None, Any]) -> tuple[str, ...]:
    """Doubts about samples of these ids, pairs and audio frames."""
    survey = RecurrenceSurvey(DatasetDescription(dataset="x", widths={Modality.AUDIO: 4}))
    for name, pair, frames in samples:
        survey.add(
            Sample(
                id=name, source_id="", video=name[0], clip=name, split="train", text=name,
                pair_id=pair, sequences={Modality.AUDIO: frames.astype(np.float32)},
            )
        )  # fmt: skip
    return survey.doubts()


def test_designed_pairs_share_their_frames_on_purpose() -> None:
    frames = np.random.default_rng(0).normal(size=(9, 10, 4))
    twice = [(f"{n}{half}", f"pair {n}", frames[n]) for n in range(9) for half in "ab"]
    assert not _survey(*twice)
    assert "9 of 18 samples have the very" in _survey(*((a, None, f) for a, _, f in twice))[0]


def test_every_second_frame_of_a_clip_is_another_clip() -> None:
    frames = np.random.default_rng(0).normal(size=(9, 40, 4))
    thinned = [(f"{n}b", None, frames[n][::2]) for n in range(9)]
    assert not _survey(*((f"{n}a", None, frames[n]) for n in range(9)), *thinned)
