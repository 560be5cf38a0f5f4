"""The readers of tuples, MulT, .csd, UR-FUNNY, CH-SIMS and folders of arrays, value by value."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, ReadOptions, Sample, import_dataset, open_source
from tecafn.data.readers.csd import mean_of_words

Write = Callable[..., Path]
Make = Callable[[str], Any]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
AUDIO, VISION, TEXT = Modality.AUDIO, Modality.VISION, Modality.TEXT


def _read(
    source: Path, format: str | None = None, **options: Any
) -> tuple[DatasetDescription, list[Sample]]:
    description, samples = open_source(source, format=format, options=ReadOptions(**options))
    return description, list(samples)


def _refused(source: Path, format: str, message: str, **options: Any) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _read(source, format, **options)
    assert "\n" not in str(caught.value)


def _change(path: Path, change: Callable[[Any], Any]) -> Path:
    """Rewrite a pickle with ``change`` done to what it holds."""
    value = pickle.loads(path.read_bytes())
    changed = change(value)
    path.write_bytes(pickle.dumps(value if changed is None else changed))
    return path


def test_every_source_is_recognised_without_its_format(field_source: Any) -> None:
    # A folder with timed words is read word by word unless told otherwise.
    expected = field_source.format.replace("csd-frames", "csd")
    assert _read(field_source.path)[0].source_format == expected


# Tuples


def test_mmim_cuts_padding_and_drops_pauses_from_the_text(make_source: Make) -> None:
    description, rows = _read(make_source("mmim").path)
    assert description.splits == ("train", "valid", "test")
    assert description.widths == {AUDIO: 3, VISION: 4}
    assert not description.aligned
    assert [(row.id, row.split) for row in rows[:3]] == [
        ("v_0_1", "train"),  # video[0] counts from 0
        ("v_0_3", "train"),  # video$_$3 does not
        ("v_1_1", "valid"),
    ]
    assert [row.label for row in rows[:2]] == [1.5, -0.5]
    assert rows[0].text == "so good"
    assert rows[0].words == ("so", "sp", "good")
    assert {m: len(frames) for m, frames in rows[0].sequences.items()} == {AUDIO: 2, VISION: 4}
    assert {m: len(frames) for m, frames in rows[1].sequences.items()} == {AUDIO: 5}


@pytest.mark.parametrize(
    ("item", "value", "message"),
    [
        (4, 7, r"row 0: visual length must be an integer in 0 to 6, got 7"),
        (4, -1, r"integer in 0 to 6, got -1"),
        (5, 2.5, r"acoustic length must be an integer in 0 to 5, got a float"),
        (3, 5, r"actual_words must be a list of strings, got a int"),
        (1, np.ones((2, 9)), r"row 1: visual must have 9 columns, got 4"),
    ],
)
def test_wrong_mmim_item_is_one_line(
    make_source: Make, item: int, value: Any, message: str
) -> None:
    def change(rows: list[Any]) -> None:
        inner = list(rows[0][0])
        inner[item] = value
        if item == 1:
            inner[4] = 2
        rows[0] = (tuple(inner), *rows[0][1:])

    source = make_source("mmim")
    _change(source.path / "train.pkl", change)
    _refused(source.path, "mmim", message)


def test_lengths_of_mmim_may_be_numpy_scalars_or_arrays_of_one(make_source: Make) -> None:
    def change(rows: list[Any]) -> None:
        rows[0] = ((*rows[0][0][:4], np.int64(3), np.array([1])), *rows[0][1:])

    source = make_source("mmim")
    _change(source.path / "train.pkl", change)
    sequences = _read(source.path)[1][0].sequences
    assert (len(sequences[VISION]), len(sequences[AUDIO])) == (3, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mag_is_word_aligned_in_every_protocol(make_source: Make, protocol: int) -> None:
    path = make_source("mag").path
    data = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    description, rows = _read(path)
    assert description.aligned
    assert [row.split for row in rows] == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    assert [row.id for row in rows[:2]] == ["v_0_1", "v_0_5"]
    assert rows[0].text == "so good"
    assert np.array_equal(rows[0].sequences[VISION], data["train"][0][0][1])
    assert np.array_equal(rows[0].sequences[AUDIO], data["train"][0][0][2])


def test_tuples_of_one_format_are_refused_by_another(make_source: Make) -> None:
    _refused(make_source("misa").path, "mag", r"must be \(\(words, visual, acoustic\), label, id\)")
    _refused(make_source("mag").path, "misa", r"got a tuple of 3, its first of 3")


def test_tuples_of_ur_funny_are_a_classification(make_source: Make) -> None:
    def change(data: dict[str, Any]) -> Any:
        return {
            split: [
                (inner, np.array([[number % 2]]), 100 * place + number)
                for number, (inner, _, _) in enumerate(rows)
            ]
            for place, (split, rows) in enumerate(data.items())
        }

    path = _change(make_source("mag").path, change)
    description, rows = _read(path, dataset="funny")
    assert (description.task, description.num_classes) == ("classification", 2)
    assert description.label_range == (0, 1)
    assert [(row.id, row.video, row.label) for row in rows[:2]] == [("0", "0", 0), ("1", "1", 1)]


# MulT


def test_mult_strips_zero_rows_in_front_and_keeps_those_within(make_source: Make) -> None:
    path = make_source("mult").path

    def change(data: Any) -> None:
        data["train"]["audio"][0, -1] = 0
        data["train"]["vision"][0] = 0
        data["train"]["vision"][1, -2] = -np.inf

    whole = pickle.loads(_change(path, change).read_bytes())
    description, rows = _read(path)
    assert not description.aligned
    assert description.dataset == "cmu-mosi"
    assert description.widths == {TEXT: 6, AUDIO: 5, VISION: 20}
    assert {m: len(frames) for m, frames in rows[0].sequences.items()} == {TEXT: 3, AUDIO: 2}
    assert not rows[0].sequences[AUDIO][-1].any()
    assert np.array_equal(rows[1].sequences[AUDIO], whole["train"]["audio"][1, 2:])
    assert np.isneginf(rows[1].sequences[VISION][-2]).all()
    assert rows[0].text == ""
    assert "text vectors are stored in its place" in description.notes[0]


def test_mult_ids_are_videos_with_times(make_source: Make) -> None:
    row = _read(make_source("mult").path)[1][0]
    assert (row.id, row.video, row.clip) == ("v_1_82_7645", "v_1", "82_7645")
    assert (row.start, row.end) == (82.7645, 90.5)
    assert row.label == 1.5


def test_aligned_mult_keeps_frames_of_one_word_together(make_source: Make) -> None:
    path = make_source("mult").path

    def change(data: Any) -> None:
        for part in data.values():
            part["text"] = np.zeros((2, 5, 6), np.float32)
            part["audio"] = np.zeros((2, 5, 5), np.float32)
            part["vision"] = np.zeros((2, 5, 20), np.float32)
            part["text"][:, 3:] = 1  # two words, the first without a sound
            part["audio"][:, 4:] = 2

    description, rows = _read(_change(path, change))
    assert description.aligned
    assert rows[0].sequences[AUDIO].tolist() == [[0] * 5, [2] * 5]
    assert set(rows[0].sequences) == {TEXT, AUDIO}


def test_mult_takes_other_ids_and_none(make_source: Make) -> None:
    path = make_source("mult").path

    def name(data: Any, first: Any, second: Any) -> None:
        for number, part in enumerate(data.values()):
            part["id"] = [first.format(number), second.format(number)]

    _change(path, lambda data: name(data, "a_b{}[3]", "a_b{}$_$4"))
    assert [row.id for row in _read(path)[1][:2]] == ["a_b0_3", "a_b0_4"]

    _change(path, lambda data: [part.pop("id") for part in data.values()] and None)
    description, rows = _read(path)
    assert [row.id for row in rows[:3]] == ["train-0", "train-1", "valid-0"]
    assert "every sample is its own video" in description.notes[1]


def test_mult_reads_raw_text_where_a_file_has_it(make_source: Make) -> None:
    path = make_source("mult").path

    def change(data: Any) -> None:
        for part in data.values():
            part["raw_text"] = ["one", "two"]

    description, rows = _read(_change(path, change))
    assert [row.text for row in rows[:2]] == ["one", "two"]
    assert description.notes == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("labels", np.ones((2, 4, 2)), r"labels must have 1 dimensions, got shape \(2, 4, 2\)"),
        ("audio", np.ones((3, 7, 5)), r"audio has 3 rows, labels has 2"),
        ("audio", np.ones((2, 7, 6)), r"audio must have one width, got 6 and 5"),
        ("id", ["a_1"], r"id must be 2 strings or \(video, start, end\), got 1"),
        ("id", ["a", "b_1"], r"row 0: id: id must look like video_clip"),
        ("id", [("v", "", "1"), ("v", "2", "3")], r"must be video, start, end"),
        ("raw_text", ["a"], r"raw_text has 1 rows, labels has 2"),
    ],
)
def test_wrong_mult_column_is_one_line(
    make_source: Make, key: str, value: Any, message: str
) -> None:
    path = make_source("mult").path
    _change(path, lambda data: data["train"].__setitem__(key, value))
    _refused(path, "mult", message)


# CH-SIMS


def test_sims_has_labels_of_each_modality_in_the_store(make_source: Make, tmp_path: Path) -> None:
    store = import_dataset(make_source("sims").path, format=None, out=tmp_path / "store")
    assert store.description.dataset == "ch-sims"
    assert store.description.label_range == (-1.0, 1.0)
    view = store.split("train")
    assert view.ids == ["video_0000_0001", "video_0000_0002"]
    assert view.texts == ["\u6211\u4e0d\u60f3", "\u597d"]
    for modality in Modality:
        np.testing.assert_allclose(view.unimodal_labels(modality), [0.2, -0.6], rtol=1e-6)
    assert view.widths == {AUDIO: 33, VISION: 709}


# .csd


def test_mean_of_words_takes_all_overlapping_finite_frames() -> None:
    random = np.random.default_rng(3)
    starts = np.sort(random.uniform(0, 20, 60))
    intervals = np.stack([starts, starts + random.uniform(0, 1, 60)], axis=1)
    frames = random.normal(size=(60, 4)).astype(np.float32)
    frames[[7, 30], [1, 2]] = np.nan, -np.inf
    words = np.sort(random.uniform(-2, 24, (25, 2)), axis=1)
    got = mean_of_words(frames, intervals, words)
    for (start, end), mean in zip(words, got, strict=True):
        chosen = [
            frame.astype(float)
            for frame, (first, last) in zip(frames, intervals, strict=True)
            if min(last, end) - max(first, start) > 0 and np.isfinite(frame).all()
        ]
        expected = np.mean(chosen, axis=0) if chosen else np.full(4, np.nan)
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
    assert np.isnan(got).any()
    assert np.isfinite(got).any()


@pytest.mark.parametrize("name", ["csd", "csd packed"])
def test_csd_gives_a_frame_a_word(make_source: Make, name: str) -> None:
    source = make_source(name)
    description, rows = _read(source.path)
    assert description.source_format == "csd"
    assert description.dataset == "cmu-mosi"
    assert description.aligned
    assert description.widths == {AUDIO: 3, VISION: 2}
    assert [row.id for row in rows] == ["v_1_1", "v_1_2", "w_1", "w_2"]
    first, second, third, fourth = rows
    assert first.text == "IT IS"
    assert first.words == ("it", "sp", "is")
    assert (second.start, second.end) == (3, 6)
    assert second.word_intervals is not None
    assert second.word_intervals.tolist() == [[3, 4], [4, 5], [5, 6]]
    with h5py.File(source.path / "CMU_MOSI_COVAREP.csd") as file:
        audio = file["CMU_MOSI_COVAREP/data/v_1/features"][:]
    expected = [audio[0:2].mean(axis=0), audio[2:4].mean(axis=0), audio[4]]  # frame 5 is -inf
    np.testing.assert_allclose(first.sequences[AUDIO], expected, rtol=1e-6)
    assert len(first.sequences[VISION]) == 3
    # The video w has sound for two of its four words, and no vision at all.
    assert np.isnan(third.sequences[AUDIO]).all(axis=1).tolist() == [False, False, True, True]
    assert set(third.sequences) == {AUDIO}
    # A segment without length has neither words nor frames.
    assert fourth.words == ()
    assert fourth.sequences == {}


def test_csd_frames_are_those_of_the_segment(make_source: Make) -> None:
    source = make_source("csd-frames")
    description, rows = _read(source.path, "csd-frames")
    assert not description.aligned
    assert {m: len(frames) for m, frames in rows[0].sequences.items()} == {AUDIO: 6, VISION: 3}
    assert np.isneginf(rows[0].sequences[AUDIO][5, 1])
    assert rows[0].words == ("it", "sp", "is")
    assert {m: len(frames) for m, frames in rows[2].sequences.items()} == {AUDIO: 4}


def test_csd_reads_entries_that_are_cut_by_segment(make_source: Make) -> None:
    source = make_source("csd")
    whole = _read(source.path)[1]
    with h5py.File(source.path / "CMU_MOSI_COVAREP.csd", "r+") as file:
        data = file["CMU_MOSI_COVAREP/data"]
        features, intervals = data["v_1/features"][:], data["v_1/intervals"][:]
        del data["v_1"]
        for number, rows in ((0, slice(0, 5)), (1, slice(5, 12))):
            data.create_dataset(f"v_1[{number}]/features", data=features[rows])
            data.create_dataset(f"v_1[{number}]/intervals", data=intervals[rows])
    for before, after in zip(whole, _read(source.path)[1], strict=True):
        assert before.sequences.keys() == after.sequences.keys()
        for modality, frames in before.sequences.items():
            np.testing.assert_array_equal(frames, after.sequences[modality])


def test_csd_without_words_needs_the_format_that_needs_none(make_source: Make) -> None:
    source = make_source("csd")
    (source.path / "CMU_MOSI_ModifiedTimestampedWords.csd").unlink()
    assert _read(source.path)[0].source_format == "csd-frames"
    assert _read(source.path)[1][0].words is None
    _refused(source.path, "csd", "has no .csd of words; the format csd-frames needs none")


def test_text_of_csd_is_the_words_where_label_csv_has_none(make_source: Make) -> None:
    source = make_source("csd")
    table = source.path / "label.csv"
    table.write_text(table.read_text().replace("GOOD BAD", ""))
    assert _read(source.path)[1][1].text == "good bad"


def test_two_files_of_one_modality_must_be_chosen_from(make_source: Make) -> None:
    source = make_source("csd")
    first = source.path / "CMU_MOSI_Visual_FACET_42.csd"
    second = source.path / "CMU_MOSI_openface.csd"
    second.write_bytes(first.read_bytes())
    _refused(source.path, "csd", r"has 2 files of vision, name one of them with vision")
    description, _ = _read(source.path, "csd", vision=second)
    assert description.notes == ("not read: 'CMU_MOSI_Visual_FACET_42.csd'",)


def test_missing_h5py_names_the_extra(make_source: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_source("csd").path
    monkeypatch.setitem(sys.modules, "h5py", None)
    _refused(folder, "csd", r"install h5py, or tecafn with the extra \[csd\]")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("segment_times.csv", "video_id,segment,start\n", "no column 'end'"),
        ("segment_times.csv", "video_id,segment,start,end\nv_1,1,x,2\n", "start must be a number"),
        ("segment_times.csv", "video_id,segment,start,end\nv_1,1,nan,2\n", "must be seconds"),
        ("segment_times.csv", "video_id,segment,start,end\nz,1,1,2\n", "a segment of no row of"),
        ("CMU_MOSI_COVAREP.csd", "nonsense", "is damaged or no .csd file"),
    ],
)
def test_wrong_csd_folder_is_one_line(
    make_source: Make, name: str, text: str, message: str
) -> None:
    source = make_source("csd")
    (source.path / name).write_text(text)
    _refused(source.path, "csd", message)


# UR-FUNNY


def test_ur_funny_pickles_give_punchlines_with_context(make_source: Make) -> None:
    description, rows = _read(make_source("ur-funny").path)
    assert (description.task, description.num_classes) == ("classification", 2)
    assert description.label_range == (0, 1)
    assert description.widths == {AUDIO: 81, VISION: 3}
    assert description.aligned
    assert description.splits == ("train", "valid", "test")
    assert [(row.id, row.video, row.split, row.label) for row in rows] == [
        ("1", "1", "train", 1),
        ("3", "3", "train", 0),
        ("4", "4", "valid", 1),
        ("5", "5", "test", None),
    ]
    assert rows[1].text == "ha ha ha"
    assert rows[1].context == "once upon a time"
    assert (rows[1].start, rows[1].end) == (0, 2.5)
    assert rows[1].word_intervals is not None
    assert rows[1].word_intervals.tolist() == [[0, 0.5], [1, 1.5], [2, 2.5]]
    random = np.random.default_rng(3).normal(size=(3, 81)).astype(np.float32)
    assert np.array_equal(rows[1].sequences[AUDIO], random)


def test_ur_funny_without_sentences_stores_word_vectors(make_source: Make) -> None:
    folder = make_source("ur-funny").path

    def change(language: Any) -> None:
        for entry in language.values():
            del entry["punchline_sentence"]

    _change(folder / "language_sdk.pkl", change)
    (folder / "language_sdk.pkl").rename(folder / "word_embedding_indexes_sdk.pkl")
    description, rows = _read(folder)
    assert description.widths[TEXT] == 6
    vector = np.random.default_rng(9).normal(size=(1, 6)).astype(np.float32)
    assert np.array_equal(rows[1].sequences[TEXT], np.repeat(vector, 3, axis=0))
    assert rows[1].text == ""


def test_ur_funny_ids_that_no_file_has_are_counted(make_source: Make) -> None:
    folder = make_source("ur-funny").path
    _change(folder / "data_folds.pkl", lambda folds: folds["test"].extend([7, 8]))
    description, rows = _read(folder)
    assert len(rows) == 4
    assert "2 ids of data_folds.pkl are not in the language file" in description.notes


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("humor_label_sdk", lambda d: d.update({1: 2}), "id 1: label must be 0 or 1, got 2"),
        ("humor_label_sdk", lambda d: [1], "must be a dictionary by id, got a list"),
        ("data_folds", lambda d: d.update(extra=[1]), "must map train, dev, test to ids"),
        ("data_folds", lambda d: d.update(test=[1.5]), "an id must be a number or a string"),
        ("language_sdk", lambda d: d.update({1: 3}), "id 1 must be a dictionary, got a int"),
        ("language_sdk", lambda d: d[1].update(punchline_sentence=3), "must hold strings"),
        ("language_sdk", lambda d: d[1].update(punchline_intervals=[[1, 2, 3]]), "2 columns"),
        ("openface_features_sdk", lambda d: d.update({1: {}}), "must have 'punchline_features'"),
        (
            "openface_features_sdk",
            lambda d: d[3].update(punchline_features=[[1.0, 2.0], [1.0]]),
            "rows of different widths",
        ),
        (
            "openface_features_sdk",
            lambda d: d[3].update(punchline_features=[[1.0, 2.0]]),
            "vision must have 3 columns, got 2",
        ),
    ],
)
def test_wrong_ur_funny_pickle_is_one_line(
    make_source: Make, file: str, change: Any, message: str
) -> None:
    folder = make_source("ur-funny").path
    path = folder / f"{file}.pkl"
    value = pickle.loads(path.read_bytes())
    changed = change(value)
    path.write_bytes(pickle.dumps(value if changed is None else changed))
    _refused(folder, "ur-funny", message)


def test_ur_funny_text_reads_line_by_line(make_source: Make) -> None:
    source = make_source("ur-funny text")
    for path in (source.path, source.path.parent):
        description, rows = _read(path)
        assert (description.task, description.num_classes) == ("classification", 2)
        assert [(row.id, row.split, row.label) for row in rows] == [
            ("1", "train", 1),
            ("3", "valid", 0),
            ("4", "test", None),
        ]
        assert rows[0].context == "once upon a"
        assert rows[1].context is None
        assert rows[1].text == "caf\u00e9"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 1 is not JSON"),
        ("[" * 100_000, r"line 1 is not JSON"),
        ("[]", r"line 1 must be an object, got a list"),
        ('{"id": 1, "split": "train"}', r"line 1 has no 'punchline'"),
        ('{"id": 1, "split": "all", "punchline": "x"}', r"split be train, valid or test"),
        ('{"id": 1, "split": "train", "punchline": "x", "label": 3}', r"label must be 0 or 1"),
        ('{"id": 1, "split": "train", "punchline": "x", "label": NaN}', r"NaN is no JSON"),
        ('{"id": 1, "split": "train", "punchline": "\\ud800"}', r"not valid Unicode"),
        ('{"id": 1, "split": "train", "punchline": 5}', r"punchline must hold strings"),
        ('{"id": ' + "9" * 5000 + "}", r"line 1 is not JSON"),
        ('{"id": 1, "punchline": "' + "x" * 2**20 + '"}', r"more than 1048576 bytes"),
        ("\udcff", r"line 1 is not JSON in UTF-8"),
    ],
)
def test_wrong_ur_funny_line_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "text.jsonl"
    path.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n")
    _refused(path, "ur-funny", message)


# Folders of arrays


def test_clip_arrays_are_found_by_video_and_clip(make_source: Make) -> None:
    source = make_source("clip-arrays")
    description, rows = _read(source.path)
    assert description.widths == {AUDIO: 4, VISION: 2}
    assert description.notes == (
        "audio: 2 of 3 rows have a file",
        "vision: 1 of 3 rows have a file",
    )
    assert [set(row.sequences) for row in rows] == [{AUDIO, VISION}, {AUDIO}, set()]
    expected = np.load(source.path / "audio" / "a_b" / "1.npy")
    assert np.array_equal(rows[0].sequences[AUDIO], expected)
    assert [file.name for file in description.source_files] == ["label.csv", "audio/", "vision/"]


def test_clip_arrays_hash_follows_a_files_content(make_source: Make) -> None:
    source = make_source("clip-arrays")
    before = _read(source.path)[0].source_files
    np.save(source.path / "vision" / "a_b" / "1.npy", np.ones((3, 2), np.float32))
    after = _read(source.path)[0].source_files
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]


def test_single_vectors_of_clips_are_one_frame(make_source: Make) -> None:
    source = make_source("clip-arrays")
    np.save(source.path / "vision" / "a_b" / "1.npy", np.ones(2))
    assert _read(source.path)[1][0].sequences[VISION].tolist() == [[1, 1]]


def test_table_cannot_lead_out_of_the_folder(make_source: Make, tmp_path: Path) -> None:
    source = make_source("clip-arrays")
    np.save(tmp_path / "outside.npy", np.ones((1, 4)))
    for video, clip in (("..", "x"), ("a_b", "../../../outside"), ("a_b", "x\0y"), ("a/b", "1")):
        (source.path / "label.csv").write_text(
            f"video_id,clip_id,text,label,mode\n{video},{clip},x,1,train\n"
        )
        _refused(source.path, "clip-arrays", "must be file names")
    (source.path / "label.csv").write_text(
        f"video_id,clip_id,text,label,mode\n{'x' * 300},1,x,1,train\n"
    )
    _refused(source.path, "clip-arrays", "cannot read File name too long")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 9)), "must have 9 columns, got 4"),
        (np.ones((3, 2, 4)), "must have 2 dimensions"),
        (np.ones((3, 0)), "frames without columns"),
        (np.array(["a", "b"]), "array of numbers"),
        (np.array([None]), "holds object; numbers and strings are read"),
    ],
)
def test_wrong_clip_array_is_one_line(make_source: Make, array: Any, message: str) -> None:
    source = make_source("clip-arrays")
    np.save(source.path / "audio" / "a_b" / "1.npy", array)
    _refused(source.path, "clip-arrays", message)


# Scale


def test_float_lists_of_a_pickle_lie_in_the_file(dump: Write) -> None:
    from tecafn.data.unpickle import load_pickle

    rows = [[float(n + 40 * row) for n in range(40)] for row in range(300)]
    for protocol in PROTOCOLS:
        loaded: Any = load_pickle(dump([rows, rows], protocol=protocol))
        assert np.array([np.asarray(row) for row in loaded[0]]).tolist() == rows
        assert loaded[0] is loaded[1]
        if protocol:
            arrays = [row for row in loaded[0] if isinstance(row, np.ndarray)]
            assert len(arrays) > 290  # a frame of the file may begin within a list
            assert not any(array.flags.owndata or array.flags.writeable for array in arrays)
