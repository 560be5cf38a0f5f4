"""A layout is recognised by all of its keys; what is ambiguous asks; what is no pickle is named."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, ReadOptions, Sample, open_source
from tecafn.data.file_kinds import kind_of_file
from tecafn.data.unpickle import load_pickle, loads

Dump = Callable[..., Path]
Make = Callable[[str], Any]
AUDIO, VISION, TEXT = Modality.AUDIO, Modality.VISION, Modality.TEXT


def _read(
    source: Path, format: str | None = None, **options: Any
) -> tuple[DatasetDescription, list[Sample]]:
    description, samples = open_source(source, format=format, options=ReadOptions(**options))
    return description, list(samples)


def _refused(source: Path, message: str, format: str | None = None) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _read(source, format)
    assert "\n" not in str(caught.value)


# Keys


def test_layout_labels_under_another_key_are_not_taken_for_mults(
    mmsa_data: Any, dump: Dump
) -> None:
    for part in mmsa_data.values():
        part["labels"] = part.pop("regression_labels")
    path = dump(mmsa_data, "mosi.pkl")
    _refused(path, r"keys .*'audio_lengths'.*'labels'.*mmsa wants .*regression_labels; mult wants")
    description, rows = _read(path, "mmsa")
    assert [row.label for row in rows] == [1.5, -2.0, 1.5, -2.0]
    assert [len(row.sequences[AUDIO]) for row in rows] == [2, 3, 2, 3]  # no padding
    assert "labels are read from the key 'labels'" in description.decisions
    _refused(path, r"has 'audio_lengths', 'vision_lengths', which mult has not", "mult")


@pytest.mark.parametrize("key", ["label", "sentiment", "regression_label", "M", "my_labels"])
def test_layout_labels_under_an_unknown_key_are_not_passed_over(
    mmsa_data: Any, dump: Dump, key: str
) -> None:
    for part in mmsa_data.values():
        part[key] = part.pop("regression_labels")
    _refused(dump(mmsa_data), rf"has no 'regression_labels', .* but '{key}': rename")


def test_layout_without_labels_is_unlabelled_and_says_so(mmsa_data: Any, dump: Dump) -> None:
    for part in mmsa_data.values():
        del part["regression_labels"]
    description, rows = _read(dump(mmsa_data))
    assert {row.label for row in rows} == {None}
    assert "there are no regression_labels: samples are unlabelled" in description.decisions


@pytest.mark.parametrize(
    ("key", "modality"), [("video", "vision"), ("visual", "vision"), ("acoustic", "audio")]
)
def test_layout_a_modality_under_another_name_is_found_and_said(
    mmsa_data: Any, dump: Dump, key: str, modality: str
) -> None:
    expected = _read(dump(mmsa_data))[1]
    for part in mmsa_data.values():
        part[key] = part.pop(modality)
        part[f"{key}_lengths"] = part.pop(f"{modality}_lengths")
    description, rows = _read(dump(mmsa_data))
    assert f"{modality} is read from the key {key!r}" in description.decisions
    for row, same in zip(rows, expected, strict=True):
        frames = row.sequences[Modality(modality)]
        np.testing.assert_array_equal(frames, same.sequences[Modality(modality)])


def test_layout_frames_of_an_unknown_modality_and_other_keys_are_named(
    mmsa_data: Any, dump: Dump
) -> None:
    for part in mmsa_data.values():
        part["gaze"] = np.ones((2, 4, 3), np.float32)
        part["speaker"] = ["a", "b"]
    mmsa_data["config"] = {"fps": 30}
    mmsa_data["version"] = 3
    description, rows = _read(dump(mmsa_data))
    assert len(rows) == 4
    assert "left alone: 'gaze' holds frames, shape (2, 4, 3)" in description.warnings[0]
    assert "left alone, being no split: 'config', 'version'" in description.notes
    assert "left alone, being no key of mmsa: 'speaker'" in description.notes


# Splits


def test_layout_splits_are_known_by_the_names_the_field_uses(mmsa_data: Any, dump: Dump) -> None:
    for first, second in (("Train", "val"), (b"train", "DEV"), ("TRAIN", "Validation")):
        parts = {first: mmsa_data["train"], second: mmsa_data["valid"]}
        assert _read(dump(parts))[0].splits == ("train", "valid")


def test_layout_a_key_that_holds_samples_is_no_rest(mmsa_data: Any, dump: Dump) -> None:
    mmsa_data["holdout"] = mmsa_data["valid"]
    _refused(dump(mmsa_data), r"unknown split 'holdout', which holds samples")
    mmsa_data["dev"] = mmsa_data.pop("holdout")
    _refused(dump(mmsa_data), "has a split twice")


def test_layout_own_clips_all_in_one_split_are_read(mmsa_data: Any, dump: Dump) -> None:
    """The feature tool leaves np.array([]) in the other splits, and some keys at their size."""
    empty = {key: np.array([]) for key in mmsa_data["train"]}
    empty["classification_labels"] = np.zeros(1)
    shaped: dict[str, Any] = {**empty, "audio": np.empty((0, 5, 5)), "id": [], "raw_text": None}
    path = dump({"train": empty, "valid": shaped, "test": mmsa_data["train"]}, "feature.pkl")
    description, rows = _read(path)
    assert description.splits == ("test",)
    assert [row.id for row in rows] == ["vid_one_1", "vid_one_12"]
    assert "skipped, being empty: train, valid" in description.notes
    _refused(dump({"train": empty, "test": empty}), "has no sample", "mmsa")


def test_layout_a_file_of_one_split_asks_for_its_name(mmsa_data: Any, dump: Dump) -> None:
    part = mmsa_data["train"]
    _refused(dump(part, "features.pkl"), "holds one split .*--split, one of train, valid, test")
    assert {row.split for row in _read(dump(part, "dev.pkl"))[1]} == {"valid"}
    assert {row.split for row in _read(dump(part, "x.pkl"), split="train")[1]} == {"train"}


@pytest.mark.parametrize("name", ["mmsa", "mult", "mag", "mmim", "label-csv", "ur-funny"])
def test_layout_with_splits_of_its_own_takes_none_from_the_option(
    make_source: Make, name: str
) -> None:
    source = make_source(name)
    with pytest.raises(UserError, match="--split is for a file of one split"):
        _read(source.path, split="train")
    with pytest.raises(UserError, match="--split must be one of train, valid, test, got 'all'"):
        _read(source.path, split="all")


def test_layout_one_clip_of_the_feature_tool_is_one_sample(dump: Dump) -> None:
    frames = np.random.default_rng(0).normal(size=(7, 20)).astype(np.float32)
    clip = {"audio": frames[:4, :5], "vision": frames, "raw_text": "so good"}
    description, rows = _read(dump(clip, "talk_3.pkl"), ids="video-clip")
    (sample,) = rows
    assert (sample.video, sample.clip, sample.split) == ("talk_3", "1", "test")
    np.testing.assert_array_equal(sample.sequences[VISION], frames)
    assert sample.text == "so good"
    assert any("one clip" in note for note in description.notes)


# Folders


@pytest.mark.parametrize("name", ["mmim", "csd", "ur-funny", "clip-arrays"])
def test_layout_of_a_folder_reads_with_other_files_beside_it(make_source: Make, name: str) -> None:
    source = make_source(name)
    expected = _read(source.path)[1]
    (source.path / "mosi_data_noalign.pkl").write_bytes(pickle.dumps({"train": {}}))
    (source.path / "MOSI-label.csv").write_text("a,b\n")
    (source.path / "README.md").write_text("read me")
    (source.path / ".DS_Store").write_bytes(b"\0")
    (source.path / "Raw").mkdir()
    description, rows = _read(source.path)
    assert [row.id for row in rows] == [row.id for row in expected]
    assert [row.label for row in rows] == [row.label for row in expected]
    (note,) = [note for note in description.notes if note.startswith("left alone in")]
    for other in ("mosi_data_noalign.pkl", "MOSI-label.csv", "README.md", "Raw"):
        assert other in note
    assert "DS_Store" not in note


def test_layout_of_a_folder_with_two_files_for_a_split(make_source: Make) -> None:
    folder = make_source("mmim").path
    (folder / "train_old.pkl").write_bytes((folder / "train.pkl").read_bytes())
    _refused(folder, r"2 files for the split 'train': 'train.pkl', 'train_old.pkl'")
    (folder / "train_old.pkl").write_bytes(pickle.dumps({"anything": 1}))
    description, _ = _read(folder)
    assert [file.name for file in description.source_files] == ["dev.pkl", "test.pkl", "train.pkl"]
    assert any("'train_old.pkl'" in note for note in description.notes)


def test_layout_that_two_formats_know_asks_for_one(make_source: Make) -> None:
    folder = make_source("mmim").path
    (folder / "label.csv").write_text("video_id,clip_id,text,mode\nv,1,x,train\n")
    _refused(folder, "could be label-csv or mmim: name its format with --format")
    assert len(_read(folder, "mmim")[1]) == 6
    assert len(_read(folder, "label-csv")[1]) == 1


def test_layout_that_nobody_knows_says_what_it_saw(dump: Dump, tmp_path: Path) -> None:
    _refused(dump({"a": 1}), "has no layout I know: a dictionary with the keys 'a'")
    _refused(dump({}), "has no layout I know: an empty dict")
    _refused(dump({"train": {"x": [1]}}), "its splits have the keys 'x'; mmsa wants id")
    _refused(dump([1, 2]), r"has no layout I know: a list of 2, its first a int; rows \(\(")
    _refused(dump([((1, 2), 0.5, "a_1")]), "of 3 items, the first of which has 2")
    folder = tmp_path / "Processed"
    folder.mkdir()
    _refused(folder, "without a file of a layout that is read")
    (folder / "aligned_50.pkl").write_bytes(b"x")
    _refused(folder, "it holds 'aligned_50.pkl': name one")


def test_layout_of_a_pickle_is_known_without_its_suffix(mmsa_data: Any, dump: Dump) -> None:
    """A hub's cache names blobs by their hash."""
    assert len(_read(dump(mmsa_data, "9c1b"))[1]) == 4


# What is no pickle


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    return file.getvalue()


def _hdf5(folder: Path) -> bytes:
    with h5py.File(folder / "x.h5", "w") as file:
        file["a"] = [1, 2]
    return (folder / "x.h5").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>\n<html><head>", r"is no pickle but a web page \(HTML\)"),
        (b"\n\n  <html lang='en'>", r"a web page \(HTML\)"),
        (_zip(), r"is no pickle but a zip archive"),
        (json.dumps({"a": [1, 2]}).encode(), "is no pickle but JSON"),
        (json.dumps([{"id": n} for n in range(300)]).encode(), "is no pickle but JSON"),
        (b"video_id,clip_id,text,label,mode\na,1,x,1,train\n", r"a table of text \(CSV\)"),
        (b"\xef\xbb\xbfid;text;label\r\n1;x;2\r\n", r"a table of text \(CSV\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"outs:\n- md5: 0123\n  size: 3\n  path: mosi.pkl\n", "dvc pull"),
        (gzip.compress(b"x" * 99, mtime=0), "packed with gzip: unpack it first"),
        (b"\x93NUMPY\x01\x00v\x00", r"a NumPy array \(.npy\)"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\0" * 4096, "nothing but zero bytes"),
        (b"", "is an empty file"),
        (b"\x00\x05\x16\x07\x00\x02", "macOS"),
    ],
)
def test_layout_what_is_no_pickle_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mosi.pkl"
    path.write_bytes(content)
    _refused(path, message)
    _refused(path, message, "mmsa")
    assert main(["data", "import", str(path), "--out", str(tmp_path / "out")]) == 2


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (_zip(), "unpack a .zip"),
        (json.dumps({"a": [1, 2]}).encode(), "write its rows as a table, label.csv"),
        (b"\x93NUMPY\x01\x00v\x00", "into an .npz beside a label.csv"),
        (b"PAR1\x15\x04", "write its rows as a table, label.csv"),
    ],
)
def test_layout_of_a_file_that_no_format_is_says_what_to_do(
    tmp_path: Path, content: bytes, advice: str
) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match="has no layout I know: it is") as refused:
        _read(path)
    assert advice in str(refused.value)
    assert "name its format" not in str(refused.value)


def test_layout_an_hdf5_file_and_torch_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mosi.pkl"
    path.write_bytes(_hdf5(tmp_path))
    _refused(path, "is no pickle but an HDF5 file")
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n."
    with pytest.raises(UserError, match=r"torch tensors.*return_type='np'"):
        loads(tensor)


def test_layout_what_a_pickler_wrote_keeps_its_own_reason(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"cos\nsystem\n(S'date,1,2'\ntR.")
    with pytest.raises(UserError, match=r"it asks for os\.system"):
        load_pickle(path)
    path.write_bytes(pickle.dumps({"a": [1.5] * 50, "b": "text, more"}, protocol=0)[:-9])
    with pytest.raises(UserError, match="is refused"):
        load_pickle(path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in ({"train": 1}, ["a,b"], "x", 3.5, None, [], {}):
            assert kind_of_file(pickle.dumps(value, protocol=protocol)) in (None, "text")
