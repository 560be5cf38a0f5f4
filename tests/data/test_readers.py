"""Readers of label.csv with npz files, MMSA's and MISA's pickles."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import READERS, ReadOptions, Sample, import_dataset, open_source
from tecafn.data.samples import split_joined_id
from tecafn.testing import check_reader

Write = Callable[..., Path]
HEADER = ("video_id", "clip_id", "text", "label", "mode")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _read(source: Path, format: str | None = None, **options: Any) -> list[Sample]:
    return list(open_source(source, format=format, options=ReadOptions(**options))[1])


def test_the_three_formats_are_registered() -> None:
    assert set(READERS) >= {"label-csv", "mmsa", "misa"}
    with pytest.raises(UserError, match="did you mean 'mmsa'"):
        _ = READERS["msa"]


# ids


def test_videos_with_underscores_split_at_the_last_one() -> None:
    assert split_joined_id("a_b_c_12") == ("a_b_c", "12")
    with pytest.raises(ValueError, match=r"got 'abc'"):
        split_joined_id("abc")


def test_mosei_clips_with_underscores_keep_their_video(write_table: Write) -> None:
    (sample,) = _read(write_table(HEADER, ("-3g5yA", "82_7645", "fine", "1.0", "train")))
    assert (sample.id, sample.video, sample.clip) == ("-3g5yA_82_7645", "-3g5yA", "82_7645")


def test_two_videos_that_would_share_an_id_are_refused(write_table: Write, tmp_path: Path) -> None:
    table = write_table(HEADER, ("a", "1_2", "x", "1", "train"), ("a_1", "2", "y", "1", "train"))
    with pytest.raises(UserError, match=r"'a_1_2'.*must be of one video"):
        import_dataset(table, format="label-csv", out=tmp_path / "store")


# label.csv


def test_label_csv_keeps_text_labels_and_splits(write_table: Write) -> None:
    header = ("video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "mode")
    rows = _read(
        write_table(
            header,
            ("a_b", "1", 'one, "two"\nthree', "0.5", "0.1", "", "-0.4", "train"),
            ("c", "2", "", "", "", "", "", "test"),
        )
    )
    assert rows[0].text == 'one, "two"\nthree'
    assert rows[0].label == 0.5
    assert rows[0].unimodal_labels == {Modality.TEXT: 0.1, Modality.VISION: -0.4}
    assert rows[1].label is None
    assert [row.split for row in rows] == ["train", "test"]


def test_absent_label_column_means_unlabelled(write_table: Write) -> None:
    header = ("video_id", "clip_id", "text", "mode")
    assert _read(write_table(header, ("a", "1", "x", "test")))[0].label is None


@pytest.mark.parametrize("empty", ["", " ", "null", "None"])
def test_empty_or_null_label_means_unlabelled(write_table: Write, empty: str) -> None:
    assert _read(write_table(HEADER, ("a", "1", "x", empty, "dev")))[0].label is None


@pytest.mark.parametrize("bad", ["nan", "NaN", "inf"])
def test_literal_nan_label_is_one_line_that_names_the_row(
    write_table: Write, tmp_path: Path, bad: str
) -> None:
    table = write_table(HEADER, ("a", "1", "x", "1", "train"), ("b", "2", "y", bad, "train"))
    with pytest.raises(UserError, match=r"sample 2, 'b_2' \(train\): label is (nan|inf)"):
        import_dataset(table, format="label-csv", out=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "1", "x", "good", "train"), r"row 2: label must be a number or empty, got 'good'"),
        (("a", "1", "x", "1", "holdout"), r"row 2: mode must be train, valid or test"),
        (("", "1", "x", "1", "train"), r"row 2: video_id and clip_id must not be empty"),
        (("a", "1", "x"), r"row 2 must have 5 fields"),
        (("a", "1", "x", "1", "train", "more"), r"row 2 must have 5 fields"),
    ],
)
def test_wrong_row_is_one_line(write_table: Write, row: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _read(write_table(HEADER, row), "label-csv")
    assert "\n" not in str(caught.value)


def test_missing_column_names_the_nearest(write_table: Write) -> None:
    with pytest.raises(UserError, match="no column 'video_id': did you mean 'video'"):
        _read(write_table(("video", "clip_id", "text", "mode"), ("a", "1", "x", "test")))


def test_missing_file_and_unknown_layout_are_one_line(tmp_path: Path, dump: Write) -> None:
    with pytest.raises(UserError, match="no such file or directory"):
        _read(tmp_path / "none")
    with pytest.raises(UserError, match="has no layout I know"):
        _read(dump({"a": 1}))


def test_text_of_no_known_encoding_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "label.csv"
    path.write_bytes(b"video_id,clip_id,text,label,mode\na,1,caf\x81 x,1,train\n")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        _read(path)


ROWS = (("a_b", "1", "x", "1", "train"), ("c", "2", "y", "2", "valid"))
A, B = "a_b_1", "c_2"


def test_npz_of_single_vectors_gives_sequences_of_length_1(
    write_table: Write, tmp_path: Path
) -> None:
    vectors = np.array([[1, 2], [3, 4]], np.float32)
    np.savez(tmp_path / "a.npz", ids=np.array([B, A]), audio=vectors)
    rows = _read(write_table(HEADER, *ROWS), audio=tmp_path / "a.npz")
    assert rows[0].sequences[Modality.AUDIO].tolist() == [[3, 4]]
    assert rows[1].sequences[Modality.AUDIO].tolist() == [[1, 2]]


def test_npz_of_padded_sequences_respects_lengths(write_table: Write, tmp_path: Path) -> None:
    frames = np.arange(1, 13, dtype=np.float64).reshape(2, 3, 2)
    np.savez(tmp_path / "v.npz", ids=[A, B], vision=frames, lengths=[1, 0], columns=["p", "q"])
    rows = _read(write_table(HEADER, *ROWS), vision=tmp_path / "v.npz")
    assert rows[0].sequences[Modality.VISION].tolist() == [[1, 2]]
    assert len(rows[1].sequences[Modality.VISION]) == 0


def test_npz_without_lengths_drops_trailing_zero_frames(write_table: Write, tmp_path: Path) -> None:
    frames = np.zeros((2, 4, 2), np.float32)
    frames[0, 2], frames[1, 0] = 1, 1
    np.savez(tmp_path / "v.npz", ids=[A, B], features=frames)
    rows = _read(write_table(HEADER, *ROWS), vision=tmp_path / "v.npz")
    assert [len(row.sequences[Modality.VISION]) for row in rows] == [3, 1]


def test_npz_of_ragged_frames_is_cut_by_offsets(write_table: Write, tmp_path: Path) -> None:
    frames = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.savez_compressed(tmp_path / "v.npz", ids=[A, B], frames=frames, offsets=[0, 2, 5])
    rows = _read(write_table(HEADER, *ROWS), vision=tmp_path / "v.npz")
    assert rows[0].sequences[Modality.VISION].tolist() == [[0, 1], [2, 3]]
    assert len(rows[1].sequences[Modality.VISION]) == 3


def test_sample_without_an_npz_row_lacks_the_modality(write_table: Write, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=[A, "other_1"], audio=np.ones((2, 3)))
    description, samples = open_source(
        write_table(HEADER, *ROWS), options=ReadOptions(audio=tmp_path / "a.npz")
    )
    assert [set(sample.sequences) for sample in samples] == [{Modality.AUDIO}, set()]
    assert description.notes == ("audio has 2 ids, 1 of them among the 2 of label.csv",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"audio": np.ones((2, 3))}, "must have an array 'ids'"),
        ({"ids": ["x_1", "y_2"], "audio": np.ones((2, 3))}, "share no id"),
        ({"ids": [A, A], "audio": np.ones((2, 3))}, "1 of 2 recur"),
        ({"ids": [A, B], "audio": np.ones((3, 3))}, "has 3 rows, ids has 2"),
        ({"ids": [A, B], "p": np.ones((2, 3)), "q": np.ones(2)}, "one array beside 'ids'"),
        ({"ids": [A, B], "audio": np.array(["p", "q"])}, "array of numbers"),
        ({"ids": [A, B], "audio": np.ones((2, 3, 4)), "lengths": [1, 9]}, "in 0 to 3, got 1 to 9"),
        ({"ids": [A, B], "audio": np.ones((5, 3)), "offsets": [0, 3, 4]}, "rise from 0 to the 5"),
        ({"ids": [A, B], "audio": np.ones((2, 0))}, "without columns"),
    ],
)
def test_wrong_npz_is_one_line(
    write_table: Write, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message) as caught:
        _read(write_table(HEADER, *ROWS), audio=tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


# MMSA


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mmsa_respects_lengths_and_ids(mmsa_data: Any, dump: Write, protocol: int) -> None:
    description, stream = open_source(dump(mmsa_data, protocol=protocol))
    rows = list(stream)
    assert description.dataset == "cmu-mosi"  # by its widths 5 and 20
    assert not description.aligned
    assert description.splits == ("train", "valid")
    assert [row.id for row in rows] == ["vid_one_1", "vid_one_12", "-two_3", "-two_4"]
    assert rows[1].video == "vid_one"
    assert rows[1].source_id == "vid_one$_$12"
    assert rows[0].text == "text of vid_one$_$1"
    assert [row.label for row in rows] == [1.5, -2.0, 1.5, -2.0]
    assert [len(row.sequences[Modality.AUDIO]) for row in rows] == [2, 3, 2, 3]
    assert [len(row.sequences[Modality.VISION]) for row in rows] == [1, 4, 1, 4]
    assert np.array_equal(rows[1].sequences[Modality.AUDIO], mmsa_data["train"]["audio"][1, :3])
    assert Modality.TEXT not in description.widths


def test_aligned_mmsa_takes_lengths_from_the_text_mask_and_drops_zeros(
    mmsa_data: Any, dump: Write
) -> None:
    for part in mmsa_data.values():
        del part["audio_lengths"], part["vision_lengths"]
        part["audio"] = np.ones((2, 4, 5), np.float32)
        part["audio"][1, 2:] = 0
        part["vision"] = np.ones((2, 4, 20), np.float32)
    description, stream = open_source(dump(mmsa_data))
    rows = list(stream)
    assert description.aligned
    assert [len(row.sequences[Modality.AUDIO]) for row in rows][:2] == [3, 2]
    assert [len(row.sequences[Modality.VISION]) for row in rows][:2] == [3, 3]


def test_mmsa_frames_of_zeros_alone_are_absent(mmsa_data: Any, dump: Write) -> None:
    mmsa_data["train"]["vision"][0] = 0
    assert Modality.VISION not in _read(dump(mmsa_data))[0].sequences


def test_mmsa_keeps_bad_frames_in_place(mmsa_data: Any, dump: Write) -> None:
    mmsa_data["train"]["audio"][0, 1, 2] = -np.inf
    frames = _read(dump(mmsa_data))[0].sequences[Modality.AUDIO]
    assert frames[1, 2] == -np.inf
    assert len(frames) == 2


def test_mmsa_without_raw_text_stores_text_vectors(mmsa_data: Any, dump: Write) -> None:
    for part in mmsa_data.values():
        del part["raw_text"]
    description, samples = open_source(dump(mmsa_data))
    assert description.widths[Modality.TEXT] == 8
    assert next(samples).sequences[Modality.TEXT].shape == (3, 8)


def test_ch_sims_has_unimodal_labels_and_its_own_range(mmsa_data: Any, dump: Write) -> None:
    for part in mmsa_data.values():
        part["audio"], part["vision"] = np.ones((2, 5, 33)), np.ones((2, 6, 709))
        part["regression_labels"] = np.array([0.4, -1.0])
        for letter in "TAV":
            part[f"regression_labels_{letter}"] = np.array([0.2, -0.6])
    description, samples = open_source(dump(mmsa_data))
    assert description.dataset == "ch-sims"
    assert description.label_range == (-1.0, 1.0)
    assert set(next(samples).unimodal_labels) == set(Modality)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("regression_labels", np.ones(3), "regression_labels has 3 rows, id has 2"),
        ("raw_text", ["a"], "raw_text has 1 rows, id has 2"),
        ("raw_text", [1, 2], "raw_text must hold strings"),
        ("raw_text", ["\ud800", "a"], "not valid Unicode"),
        ("audio", np.ones((2, 5)), "audio must have 3 dimensions"),
        ("audio", np.ones((2, 5, 6)), "audio must have one width, got 6 and 5"),
        ("audio_lengths", [2, 9], "audio_lengths must lie in 0 to 5, got 2"),
        ("id", ["no separator", "b$_$1"], "id must look like"),
        ("id", None, "id must be a list of strings"),
    ],
)
def test_wrong_mmsa_column_is_one_line(
    mmsa_data: Any, dump: Write, key: str, value: Any, message: str
) -> None:
    mmsa_data["train"][key] = value
    with pytest.raises(UserError, match=message) as caught:
        _read(dump(mmsa_data), "mmsa")
    assert "\n" not in str(caught.value)


# MISA


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_misa_list_takes_its_split_from_the_name(
    misa_rows: Any, dump: Write, protocol: int
) -> None:
    path = dump(misa_rows, "dev_word_aligned.pkl", protocol=protocol)
    description, stream = open_source(path)
    rows = list(stream)
    assert description.splits == ("valid",)
    assert description.aligned
    assert [row.split for row in rows] == ["valid", "valid"]
    assert [row.label for row in rows] == [1.5, 0.5]
    assert np.array_equal(rows[0].sequences[Modality.VISION], misa_rows[0][0][1])
    assert np.array_equal(rows[0].sequences[Modality.AUDIO], misa_rows[0][0][2])


def test_mosi_clips_of_misa_count_from_1(misa_rows: Any, dump: Write) -> None:
    rows = _read(dump(misa_rows, "train.pkl"))
    assert [(row.id, row.video, row.clip) for row in rows] == [
        ("vid_[0]_1", "vid_[0]", "1"),
        ("vid_[0]_8", "vid_[0]", "8"),
    ]
    assert rows[1].source_id == "vid_[0][7]"


def test_pauses_stay_in_the_words_but_not_in_the_text(misa_rows: Any, dump: Write) -> None:
    sample = _read(dump(misa_rows, "train.pkl"))[1]
    assert sample.text == "not bad"
    assert sample.words == ("not", "sp", "bad")
    assert len(sample.sequences[Modality.AUDIO]) == 3


def test_mosei_labels_of_misa_take_column_0(misa_rows: Any, dump: Write) -> None:
    labels = np.array([[0.5, 1, 2, 3, 4, 5, 6]], np.float32)
    rows = [(inner, labels, segment) for inner, _, segment in misa_rows]
    description, samples = open_source(dump(rows, "train.pkl"))
    assert description.dataset == "cmu-mosei"
    assert [sample.label for sample in samples] == [0.5, 0.5]
    assert "numbering from 0" in description.notes[0]


def test_misa_folder_and_dictionary_give_the_same(
    misa_rows: Any, dump: Write, tmp_path: Path
) -> None:
    folder = tmp_path / "MOSI"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(misa_rows[:1]))
    whole = dump(dict.fromkeys(("train", "dev", "test"), misa_rows[:1]), "mosi.pkl")
    ids = [(sample.id, sample.split) for sample in _read(folder)]
    assert ids == [(sample.id, sample.split) for sample in _read(whole)]
    assert [split for _, split in ids] == ["train", "valid", "test"]


def test_misa_list_of_an_unknown_split_asks_for_it(misa_rows: Any, dump: Write) -> None:
    path = dump(misa_rows, "mosi.pkl")
    with pytest.raises(UserError, match="its name does not say which"):
        _read(path)
    assert {sample.split for sample in _read(path, split="test")} == {"test"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row[:2], r"row 0 must be .* got a tuple of 2"),
        (lambda row: ((*row[0], 1, 2), *row[1:]), r"got a tuple of 3, its first of 6"),
        (lambda row: (row[0], np.ones((1, 3)), row[2]), r"label must have shape"),
        (lambda row: (row[0], row[1], "plain_3"), r"id must look like video\[k\]"),
        (lambda row: ((*row[0][:3], [1, 2]), *row[1:]), r"words must hold strings"),
        (lambda row: ((row[0][0], np.ones(3), *row[0][2:]), *row[1:]), r"must have 2 dimensions"),
    ],
)
def test_wrong_misa_row_is_one_line(misa_rows: Any, dump: Write, change: Any, message: str) -> None:
    path = dump([change(misa_rows[0]), misa_rows[1]], "train.pkl")
    with pytest.raises(UserError, match=message) as caught:
        _read(path, "misa")
    assert "\n" not in str(caught.value)


# The contract


def test_every_format_has_a_small_source(make_source: Callable[[str], Any]) -> None:
    assert {make_source(name).format for name in READERS} == set(READERS)


def test_every_reader_keeps_the_contract(field_source: Any) -> None:
    check_reader(field_source.format, field_source.path, **field_source.options)
