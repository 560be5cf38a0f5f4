"""The store: what is written comes back; what is broken says so."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, Sample, Store, StoreWriter, column_statistics
from tecafn.data import store as store_module

TOY = DatasetDescription(dataset="toy", widths={Modality.AUDIO: 2, Modality.VISION: 3})


def _sample(number: int, split: str = "train", **fields: Any) -> Sample:
    random = np.random.default_rng(number)
    base = Sample(
        id=f"v{number % 3}_{number}",
        source_id=f"source {number}",
        video=f"v{number % 3}",
        clip=str(number),
        split=split,
        text=f"text {number}",
        label=number / 4,
        sequences={
            Modality.AUDIO: random.normal(size=(number % 4, 2)).astype(np.float32),
            Modality.VISION: random.normal(size=(1 + number % 5, 3)).astype(np.float32),
        },
    )
    return replace(base, **fields)


def _write(path: Path, samples: list[Sample], description: DatasetDescription = TOY) -> Store:
    with StoreWriter(path, description) as writer:
        for sample in samples:
            writer.add(sample)
    return Store.open(path)


def test_every_field_of_a_sample_comes_back(tmp_path: Path) -> None:
    full = _sample(
        7,
        label=None,
        unimodal_labels={Modality.TEXT: 0.5},
        pair_id="pair 1",
        oracle=0.25,
        context="before",
        start=1.5,
        end=2.75,
        words=("a", "sp"),
        word_intervals=np.array([[0, 0.5], [0.5, 1]], np.float32),
    )
    back = next(_write(tmp_path / "s", [full]).samples())
    for name in ("id", "source_id", "video", "clip", "split", "text", "label", "unimodal_labels"):
        assert getattr(back, name) == getattr(full, name)
    for name in ("pair_id", "oracle", "context", "start", "end", "words"):
        assert getattr(back, name) == getattr(full, name)
    assert back.word_intervals is not None
    assert np.array_equal(back.word_intervals, full.word_intervals)  # type: ignore[arg-type]
    for modality, frames in full.sequences.items():
        assert np.array_equal(back.sequences[modality], frames)


def test_frames_come_back_over_many_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 100)
    monkeypatch.setattr(store_module, "_ROWS_A_GROUP", 7)
    samples = [_sample(number, ("train", "test")[number % 2]) for number in range(50)]
    store = _write(tmp_path / "s", samples)
    assert len(list((tmp_path / "s" / "vision").glob("*.npy"))) > 5
    for split in ("train", "test"):
        view = store.split(split)
        expected = [sample for sample in samples if sample.split == split]
        assert view.ids == [sample.id for sample in expected]
        assert view.labels.tolist() == [sample.label for sample in expected]
        for modality in (Modality.AUDIO, Modality.VISION):
            for row, sample in enumerate(expected):
                frames = view.sequence(row, modality)
                assert np.array_equal(frames, sample.sequences[modality])
                assert view.lengths(modality)[row] == len(frames)
    assert Store.open(tmp_path / "s").content_hash == store.content_hash
    store.verify()


def test_shards_are_plain_npy_files(tmp_path: Path) -> None:
    _write(tmp_path / "s", [_sample(3), _sample(4)])
    loaded = np.load(tmp_path / "s" / "audio" / "00000.npy", allow_pickle=False)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, _sample(3).sequences[Modality.AUDIO])


def test_manifest_counts_what_was_written(tmp_path: Path) -> None:
    bad = _sample(3)
    bad.sequences[Modality.AUDIO][0, 0] = np.nan
    bad.sequences[Modality.AUDIO][2, 1] = -np.inf
    store = _write(tmp_path / "s", [bad, _sample(4, label=None), _sample(5, "valid")])
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    train = {"num_samples": 2, "num_labelled": 1, "num_videos": 2}
    assert manifest["splits"]["train"] == train
    assert manifest["splits"]["test"]["num_samples"] == 0
    assert manifest["repairs"]["audio"] == {"nan_frames": 1, "inf_frames": 1, "empty_sequences": 1}
    assert manifest["widths"] == {"audio": 2, "vision": 3}
    assert set(manifest["files"]) == {"samples.parquet", "audio/00000.npy", "vision/00000.npy"}
    assert np.isnan(store.split("train").sequence(0, Modality.AUDIO)[0, 0])


def test_content_hash_follows_the_content(tmp_path: Path) -> None:
    one = _write(tmp_path / "a", [_sample(1)]).content_hash
    assert one == _write(tmp_path / "b", [_sample(1)]).content_hash
    assert one != _write(tmp_path / "c", [_sample(1, label=0.3)]).content_hash


def test_subset_counts_its_own_rows(tmp_path: Path) -> None:
    view = _write(tmp_path / "s", [_sample(number) for number in range(6)]).split("train")
    subset = view.subset([4, 1]).subset([1, 0])
    assert subset.ids == [view.ids[1], view.ids[4]]
    assert subset.split_rows.tolist() == [1, 4]
    assert np.array_equal(subset.sequence(1, Modality.VISION), view.sequence(4, Modality.VISION))


def test_view_can_be_sent_to_another_process_without_its_frames(tmp_path: Path) -> None:
    long = _sample(1, sequences={Modality.AUDIO: np.ones((100_000, 2), np.float32)})
    view = _write(tmp_path / "s", [long]).split("train")
    view.sequence(0, Modality.AUDIO)
    sent = pickle.dumps(view)
    assert len(sent) < 20_000
    assert pickle.loads(sent).sequence(0, Modality.AUDIO).sum() == 200_000


def test_interrupted_import_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with StoreWriter(tmp_path / "s", TOY) as writer:
            writer.add(_sample(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_taken_folder_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    _write(tmp_path / "s", [_sample(1)])
    with pytest.raises(UserError, match="exists already"):
        StoreWriter(tmp_path / "s", TOY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": float("nan")}, r"sample 1, 'v1_1' \(train\): label is nan"),
        ({"unimodal_labels": {Modality.TEXT: float("inf")}}, "label_text is inf"),
        ({"split": "holdout"}, "split must be one of train, valid, test"),
        ({"sequences": {Modality.AUDIO: np.ones((1, 9), np.float32)}}, r"audio must be \(L, 2\)"),
        ({"sequences": {Modality.TEXT: np.ones((1, 9), np.float32)}}, "has no text"),
    ],
)
def test_wrong_sample_is_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _write(tmp_path / "s", [_sample(1, **fields)])


def test_missing_and_empty_splits_are_one_line(tmp_path: Path) -> None:
    store = _write(tmp_path / "s", [_sample(1)])
    with pytest.raises(UserError, match=r"split 'valid' of .* is empty"):
        store.split("valid")
    with pytest.raises(UserError, match=r"no split 'dev', it has train \(1\)"):
        store.split("dev")


def _spoil(path: Path, key: str, value: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest[key] = value
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_store_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(UserError, match="no such store"):
        Store.open(path)
    (tmp_path / "plain").mkdir()
    with pytest.raises(UserError, match=r"is no store: it has no manifest\.json"):
        Store.open(tmp_path / "plain")
    _write(path, [_sample(1)])
    _spoil(path, "widths", {"smell": 3})
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        Store.open(path)
    _spoil(path, "format_version", 2)
    with pytest.raises(UserError, match="has format version 2, expected 1: import it again"):
        Store.open(path)
    (path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Store.open(path)


def test_changed_or_missing_files_are_found(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = _write(path, [_sample(1), _sample(2)])
    shard = path / "vision" / "00000.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(UserError, match="hash differs"):
        store.verify()
    shard.write_bytes(whole[:140])
    with pytest.raises(UserError, match="damaged"):
        Store.open(path).split("train").sequence(1, Modality.VISION)
    shard.unlink()
    with pytest.raises(UserError, match=r"vision/00000\.npy is missing"):
        Store.open(path)


# Statistics


def test_statistics_are_those_of_the_real_finite_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tecafn.data import statistics

    monkeypatch.setattr(statistics, "_FRAMES_A_CHUNK", 5)
    random = np.random.default_rng(0)
    # A mean far from zero: the naive sum of squares would lose the deviation in float32.
    frames = [random.normal([1e4, 0], size=(n, 2)).astype(np.float32) for n in (3, 0, 8, 1, 6)]
    frames[2][4, 1] = np.inf
    frames[4][0, 0] = np.nan
    samples = [_sample(n, sequences={Modality.AUDIO: f}) for n, f in enumerate(frames)]
    view = _write(tmp_path / "s", samples).split("train")
    for rows in (None, [0, 2], [3, 4]):
        chosen = np.concatenate([frames[row] for row in (rows or range(5))]).astype(np.float64)
        chosen = chosen[np.isfinite(chosen).all(axis=1)]
        found = column_statistics(view, Modality.AUDIO, rows=rows)
        np.testing.assert_allclose(found.mean, chosen.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.std, chosen.std(axis=0), rtol=1e-9)


def test_statistics_without_a_frame_are_one_line(tmp_path: Path) -> None:
    view = _write(tmp_path / "s", [_sample(4)]).split("train")
    with pytest.raises(UserError, match="none of 1 rows has one"):
        column_statistics(view, Modality.AUDIO)
    with pytest.raises(UserError, match="it holds audio, vision"):
        column_statistics(view, Modality.TEXT)


def test_warnings_come_back_and_a_store_without_them_loads(tmp_path: Path) -> None:
    described = replace(TOY, warnings=("audio has gone",))
    store = _write(tmp_path / "s", [_sample(1)], described)
    assert store.description.warnings == ("audio has gone",)
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["warnings"]
    path.write_text(json.dumps(manifest))
    assert Store.open(tmp_path / "s").description.warnings == ()
