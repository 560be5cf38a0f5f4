"""A sample's id, video and clip are those of label.csv, however a tool of the field writes them."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.data import ReadOptions, check, import_dataset, open_source
from tecafn.data.ids import LAYOUTS, RawId, lookalikes, read_ids
from tecafn.data.store import Store

Dump = Callable[..., Path]
Make = Callable[[str], Any]

# (video, clip) of label.csv, as MOSI, MOSEI and CH-SIMS have them.
MOSI = [("-3g5yACwYnA", "1"), ("-3g5yACwYnA", "12"), ("_dI--eQ6qVU", "3"), ("a_b_7", "2")]
MOSEI = [("-3g5_yACwYnA", "82_7645"), ("-3g5_yACwYnA", "4_84"), ("106077", "72_438"), ("x", "0_0")]
SIMS = [("video_0001", "0001"), ("video_0001", "0002"), ("video_0060", "0001")]


def _cut(values: Sequence[Any], **options: Any) -> list[tuple[str, str]]:
    raw = [RawId(f"file row {number}", value) for number, value in enumerate(values)]
    return [(one.video, one.clip) for one in read_ids(raw, **options).ids]


def _mult(ids: dict[str, Any]) -> dict[str, Any]:
    """MulT's dictionary with these ids."""
    numbers = np.random.default_rng(0)
    return {
        split: {
            "text": numbers.normal(size=(len(rows), 4, 6)).astype(np.float32),
            "audio": numbers.normal(size=(len(rows), 5, 5)).astype(np.float32),
            "vision": numbers.normal(size=(len(rows), 6, 20)).astype(np.float32),
            "labels": np.zeros((len(rows), 1, 1), np.float32),
            "id": rows,
        }
        for split, rows in ids.items()
    }


def _mmsa(ids: dict[str, Any]) -> dict[str, Any]:
    return {
        split: {
            "id": rows,
            "raw_text": [f"text {number}" for number in range(len(rows))],
            "regression_labels": np.zeros(len(rows), np.float32),
        }
        for split, rows in ids.items()
    }


def _mmim(ids: Sequence[Any], width: tuple[int, int] = (35, 74)) -> list[Any]:
    frames = [np.ones((2, columns), np.float32) for columns in width]
    return [
        (([], *frames, ["so", "good"], 2, 2), np.array([[0.5]], np.float32), one) for one in ids
    ]


# Each spelling


@pytest.mark.parametrize("clips", [MOSI, SIMS], ids=["mosi", "sims"])
@pytest.mark.parametrize(
    "spell",
    [
        lambda v, c: f"{v}$_${c}",
        lambda v, c: f"{v}_{c}",
        lambda v, c: f"{v}$_${c}".encode(),
        lambda v, c: np.array(f"{v}$_${c}"),
        lambda v, c: np.str_(f"{v}_{c}"),
        lambda v, c: [f"{v}_{c}"],
        lambda v, c: f" {v}_{c}\n",
        lambda v, c: repr(f"{v}_{c}".encode()),
        lambda v, c: f"{v}_{c}.mp4",
        lambda v, c: f"{v}.mp4$_${c}",
        lambda v, c: f"Raw/{v}/{c}.mp4",
        lambda v, c: "D:" + f"\\data\\Raw\\{v}\\{c}.MP4",
        lambda v, c: (f"{v}_{c}".encode(), b"0.5", b"2.5"),
        lambda v, c: np.array([f"{v}_{c}", "0.5", "2.5"]),
        lambda v, c: (f"{v}$_${c}", 0.5, 2.5),
    ],
)
def test_identity_every_spelling_of_video_and_clip_is_label_csvs(spell: Any, clips: Any) -> None:
    assert _cut([spell(video, clip) for video, clip in clips]) == clips


def test_identity_segments_count_from_0_for_mosi_and_as_they_stand_elsewhere() -> None:
    assert _cut(["a_b[0]", "a_b[9]"], first_number=1) == [("a_b", "1"), ("a_b", "10")]
    assert _cut(["a_b[0]", "a_b[9]"]) == [("a_b", "0"), ("a_b", "9")]


@pytest.mark.parametrize(
    "spell",
    [
        lambda v, c: (v, c.replace("_", "."), "99.5"),
        lambda v, c: np.array([v, c.replace("_", "."), "99.5"]).astype("S"),
        lambda v, c: f"{v}_{c}",
        lambda v, c: f"{v}_{c.replace('_', '.')}",
        lambda v, c: f"{v}$_${c}",
    ],
)
def test_identity_moseis_clips_are_start_seconds_whatever_writes_them(spell: Any) -> None:
    assert _cut([spell(video, clip) for video, clip in MOSEI]) == MOSEI


def test_identity_bare_videos_are_never_cut_apart() -> None:
    videos = ["-3g5_yACwYnA", "0w3_dK_nBZaQk", "106077", "zk2jTlAtvSU", "a_b_1"]
    ids = [video for video in videos for _ in range(4)]
    expected = [(video, str(clip + 1)) for video in videos for clip in range(4)]
    assert _cut(ids) == expected
    order = list(range(len(ids)))
    random.Random(3).shuffle(order)
    assert sorted(_cut([ids[i] for i in order])) == sorted(expected)


def test_identity_a_layout_is_decided_over_all_ids_together(tmp_path: Path) -> None:
    """One id looks like video_clip; the others of the file say that it is a video."""
    folder = tmp_path / "MOSEI"
    folder.mkdir()
    splits = {"train": ["-3g5_yACwYnA", "ab_12"], "dev": ["zk2"], "test": ["-57"]}
    for split, videos in splits.items():
        rows = _mmim([video for video in videos for _ in range(4)])
        (folder / f"{split}.pkl").write_bytes(pickle.dumps(rows))
    store = import_dataset(folder, format=None, out=tmp_path / "store")
    train = store.split("train")
    assert sorted(set(train.videos)) == ["-3g5_yACwYnA", "ab_12"]
    assert train.ids[:2] == ["-3g5_yACwYnA_1", "-3g5_yACwYnA_2"]
    assert len(set(train.ids)) == 8
    assert any("ids are bare videos" in decision for decision in store.description.decisions)


def test_identity_mults_rows_keep_a_video_together(dump: Dump, tmp_path: Path) -> None:
    ids = {
        split: np.array(
            [[f"{split[:2]}-zjB_ukYpk{i // 4}_{i % 4 + 1}".encode(), b"%d.5" % i, b"%d" % (i + 3)]
             for i in range(8)]
        )
        for split in ("train", "valid", "test")
    }  # fmt: skip
    store = import_dataset(dump(_mult(ids), "mosi.pkl"), format=None, out=tmp_path / "store")
    train = store.split("train")
    assert train.ids[:2] == ["tr-zjB_ukYpk0_1", "tr-zjB_ukYpk0_2"]
    assert sorted(set(train.videos)) == ["tr-zjB_ukYpk0", "tr-zjB_ukYpk1"]
    assert train.column("start")[:2] == [0.5, 1.5]
    assert train.column("end")[:2] == [3.0, 4.0]
    assert [c["num_videos"] for c in store.manifest["splits"].values()] == [2, 2, 2]


def test_identity_random_names_come_back_in_every_layout() -> None:
    """Names of letters, digits, - and _, which may begin and end with any of them."""
    draw = random.Random(0)
    letters = "abcXYZ019-_"
    for _ in range(200):
        names = {"".join(draw.choices(letters, k=11)) for _ in range(6)}
        clips = [(name, str(c)) for name in sorted(names) for c in range(1, draw.randint(2, 5))]
        draw.shuffle(clips)
        assert _cut([f"{v}$_${c}" for v, c in clips]) == clips
        assert _cut([f"{v}_{c}" for v, c in clips]) == clips
        assert _cut([(f"{v}_{c}", c, "9") for v, c in clips]) == clips
        assert _cut([f"{v}[{c}]" for v, c in clips]) == clips
        several = [v for v, _ in clips if sum(v == other for other, _ in clips) > 1]
        if 2 * sum(v.rpartition("_")[2].isdigit() and "_" in v for v in several) < len(several):
            assert {v for v, _ in _cut(several)} == set(several)


# Refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["clip-a", "clip-b"], r"row 0: id must look like video\$_\$clip, .* got 'clip-a'; --ids"),
        (["a_1", "a_2", "b"], r"row 2: id must look like video_clip, as 2 of 3 do.*got 'b'; --ids"),
        (["a$_$1", "b_2"], r"row 1: id must look like video\$_\$clip, as 1 of 2.* got 'b_2'"),
        (["a[1]", "b_2"], r"row 1: id must look like video\[k\], as 1 of 2.* got 'b_2'"),
        ([3, 4], r"row 0: id must look like .* got '3', a number; --ids"),
        ([1.0, 2.0], r"row 0: id must be a string, got 1.0, a float"),
        ([None], "row 0: id must be a string, got a NoneType"),
        (["a_1", "  "], "row 1: id must not be empty"),
        (["$_$1"], "row 0: id must look like video"),
        ([("a", "b")], r"row 0: id must be one string, or a row of \(id, start, end\)"),
        ([b"\xff_1"], "row 0: id holds a string that is not valid Unicode"),
        (["v_1", "v_1", "v_2", "v_2"], r"row 0: id 'v_1' is that of 2 samples: a video \(--ids"),
        ([("a_1", "1", "2"), ("b", "3", "4")], r"row 1: id must look like video_clip, as 1 of 2"),
    ],
)
def test_identity_unknown_layouts_name_the_row_and_the_way_out(values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _cut(values)
    assert "\n" not in str(caught.value)


def test_identity_names_that_only_count_samples_are_no_video() -> None:
    """Cut at the _, all splits would be one video, or each split one of its own."""
    for name in ("clip", "{split}"):
        raw = [
            RawId("row", f"{name.format(split=split)}_{first + number}", split)
            for split, first in (("train", 0), ("test", 3))
            for number in range(3)
        ]
        with pytest.raises(UserError, match=r"read as video_clip makes 6 samples \d video"):
            read_ids(raw)
        assert len({one.video for one in read_ids(raw, layout="sample").ids}) == 6


def test_identity_the_option_names_the_layout(dump: Dump, tmp_path: Path) -> None:
    path = dump(_mmsa({"train": ["talk", "chat"], "test": ["joke"]}), "own.pkl")
    with pytest.raises(UserError, match="--ids"):
        open_source(path)
    for layout, expected in (("sample", ["talk", "chat"]), ("video", ["talk_1", "chat_1"])):
        assert main(["data", "import", str(path), "--ids", layout,
                     "--out", str(tmp_path / layout)]) == 0  # fmt: skip
        assert Store.open(tmp_path / layout).split("train").ids == expected
    with pytest.raises(UserError, match=r"unknown layout of ids.*video-clip"):
        open_source(path, options=ReadOptions(ids="clip"))
    assert set(LAYOUTS) == {"video-clip", "video-number", "video", "sample"}


def test_identity_the_option_is_refused_where_a_table_has_video_and_clip(make_source: Make) -> None:
    with pytest.raises(UserError, match="label-csv has video and clip apart"):
        open_source(make_source("label-csv").path, options=ReadOptions(ids="video"))


# Duplicates


@pytest.mark.parametrize("name", ["mmsa", "sims", "misa", "mmim", "mag", "mult", "label-csv"])
def test_identity_two_samples_with_one_id_are_refused_with_both_rows(
    make_source: Make, tmp_path: Path, name: str
) -> None:
    source = make_source(name)
    if name == "label-csv":
        path, rows = source.path, ("row 2", "row 5")
        path.write_text(path.read_text() + "a_b,1,AGAIN,1,Positive,train\n")
    else:
        path = source.path if source.path.is_file() else source.path / "train.pkl"
        loaded = pickle.loads(path.read_bytes())
        part = loaded["train"] if isinstance(loaded, dict) else loaded
        rows = ("row 0", "row 1")
        if isinstance(part, dict):
            part["id"][1] = part["id"][0]
        else:
            part[1] = (*part[1][:2], part[0][2])
        path.write_bytes(pickle.dumps(loaded))
    with pytest.raises(UserError, match="must be of one sample") as caught:
        import_dataset(source.path, format=name.replace("sims", "mmsa"), out=tmp_path / "s")
    assert all(row in str(caught.value) for row in rows)
    assert not (tmp_path / "s").exists()
    # The report on the source still lists it, and the first may be kept by name.
    assert any(row.name == "ids" for row in check(source.path, format=source.format).rows)
    options = ReadOptions(drop_duplicates=True)
    store = import_dataset(source.path, format=source.format, out=tmp_path / "t", options=options)
    assert "1 samples are left out" in store.manifest["allowed"][0]


def test_identity_ids_that_collide_once_public_are_refused(dump: Dump, tmp_path: Path) -> None:
    path = dump(_mmsa({"train": ["a$_$1_2", "a_1$_$2", "b$_$1"]}))
    with pytest.raises(UserError, match=r"row 1: id 'a_1_2' must be of one video, .*row 0"):
        import_dataset(path, format=None, out=tmp_path / "store")


def test_identity_lookalikes_and_videos_in_two_splits_are_said(dump: Dump, tmp_path: Path) -> None:
    ids = {"train": ["a$_$01", "a$_$1", "B$_$2", "b$_$2", "c$_$1"], "valid": ["c$_$2"]}
    store = import_dataset(dump(_mmsa(ids)), format=None, out=tmp_path / "store")
    said = "\n".join(store.description.warnings)
    assert "1 video is in two splits" in said
    assert "2 pairs of ids differ in case, blanks or leading zeros alone: 'a_01 and a_1'" in said
    assert lookalikes(["x_10", "x_1", "x_01"]) == [("x_1", "x_01")]


def test_identity_what_is_repaired_is_counted(dump: Dump) -> None:
    ids = {"train": [" a_1", "a_2.mp4", "b'a_3'", "a_4"], "test": ["c_1.mp4", "d_1"]}
    notes = open_source(dump(_mmsa(ids)))[0].notes
    assert "1 of 6 ids had blanks around them, which are gone" in notes
    assert "2 of 6 ids ended like a media file (.mp4); the ending is gone" in notes
    assert "1 of 6 ids were bytes written as text (b'...'), which is undone" in notes
    ids = {"train": ["a$_$1.0", "a$_$2.0"], "test": ["c$_$1.0"]}
    description, samples = open_source(dump(_mmsa(ids)))
    assert [sample.id for sample in samples] == ["a_1", "a_2", "c_1"]
    assert "3 of 3 ids had clips such as 1.0, which are read as 1" in description.notes


# What one id, one video or one tool does to all


def _splits(values: Mapping[str, Sequence[Any]], **options: Any) -> Any:
    """What is read of ids of several splits."""
    raw = [
        RawId(f"split {split!r} row {row}", value, split)
        for split, rows in values.items()
        for row, value in enumerate(rows)
    ]
    return read_ids(raw, **options)


def _named(spell: Any) -> dict[str, list[Any]]:
    """Ids of 10 videos with 4 clips each, of three splits; ``spell`` gets video and clip."""
    sizes = {"train": 24, "valid": 8, "test": 8}
    return {
        split: [spell(f"{split}vid{row // 4}", row % 4) for row in range(size)]
        for split, size in sizes.items()
    }


PAIRS = [pair for rows in _named(lambda v, c: (v, str(c + 1))).values() for pair in rows]


def test_identity_a_doubled_clip_among_mults_rows_stays_a_duplicate(
    dump: Dump, tmp_path: Path
) -> None:
    ids = _named(lambda v, c: [f"{v}_{c + 1}", f"{c * 3.5}", f"{c * 3.5 + 3}"])
    ids["train"][5][0] = ids["train"][4][0]
    path = dump(_mult({split: np.array(rows, "S") for split, rows in ids.items()}))
    with pytest.raises(UserError, match=r"row 5.*'trainvid1_1' must be of one sample"):
        import_dataset(path, format=None, out=tmp_path / "store")
    options = ReadOptions(drop_duplicates=True)
    store = import_dataset(path, format=None, out=tmp_path / "store", options=options)
    assert len(set(store.split("train").videos)) == 6
    assert "trainvid1_3" in store.split("train").ids


def test_identity_rows_of_which_many_recur_and_many_do_not_are_asked_about() -> None:
    ids = [(f"a_{number % 14}", f"{number}.5", "99") for number in range(18)]
    with pytest.raises(UserError, match=r"row 0: id 'a_0' is that of 2 rows.*--ids video-clip"):
        _cut(ids)
    assert _cut(ids, layout="video")[:2] == [("a_0", "0_5"), ("a_1", "1_5")]


@pytest.mark.parametrize("whole", [{0}, {0, 5, 9}, {0, 1, 2}])
def test_identity_a_clip_at_a_whole_second_leaves_the_others_alone(whole: set[int]) -> None:
    clips = [
        (f"a_{number // 4}", f"{3 * number}" if number in whole else f"{3 * number}_7{number}")
        for number in range(24)
    ]
    assert _cut([f"{video}_{clip}" for video, clip in clips]) == clips
    raw = [RawId("row", f"{video}_{clip}") for video, clip in clips]
    said = f"{len(whole)} of 24 ids are at a whole second (video_82)"
    assert said in read_ids(raw).notes


@pytest.mark.parametrize("folder", ["Segmented/", "data\\wav\\", "/data/{split}/"])
@pytest.mark.parametrize("ending", [".wav", ".MP4", ""])
def test_identity_a_folder_of_all_files_is_no_video(folder: str, ending: str) -> None:
    ids = _named(lambda v, c: f"{folder.format(split=v[:-4])}{v}_{c + 1}{ending}")
    found = _splits(ids)
    assert [(one.video, one.clip) for one in found.ids] == PAIRS
    assert "the folder is not the video (--ids video-clip takes it)" in found.decisions[1]
    told = _splits(ids, layout="video-clip").ids
    assert {one.clip for one in told} == {f"{video}_{clip}" for video, clip in PAIRS}
    ids["valid"][2] = f"{folder.format(split='valid')}intro{ending}"
    with pytest.raises(UserError, match=r"split 'valid' row 2: the file's name must look like"):
        _splits(ids)


def test_identity_the_last_folder_is_the_video_where_it_can_be() -> None:
    ids = _named(lambda v, c: f"Raw/{v}/{v}_{c + 1}.mp4")
    found = _splits(ids)
    assert [(one.video, one.clip) for one in found.ids] == PAIRS
    assert "40 of 40 clips began with their video, which is gone" in found.notes
    # One folder per split, as many as names that count: none of them is a video.
    ids = {split: [f"{split}/clip_{row}.mp4" for row in range(4)] for split in ("train", "test")}
    with pytest.raises(UserError, match="makes 8 samples 2 videos"):
        _splits(ids)


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (lambda v, c: f"\u200b{v}_{c}", "invisible characters"),
        (lambda v, c: f"{v[:3]}\u00ad{v[3:]}_{c}", "invisible characters"),
        (lambda v, c: f"\ufeff{v}$_${c}", "invisible characters"),
        (lambda v, c: f"{v}\u200d$_${c}", "invisible characters"),
        (lambda v, c: f"{v}_{c}\x00\x00".encode(), "invisible characters"),
        (lambda v, c: (f"{v}_{c}\x00", f"{c}.5\x00", "99"), "invisible characters"),
        (lambda v, c: f"\u00a0{v}_{c}\u3000", "blanks around them"),
        (lambda v, c: f"{v} $_$ {c}", "blanks"),
        (lambda v, c: f"{v}\u00a0_{c}", "blanks before the clip"),
        (lambda v, c: f"{v} [{c}]", "blanks before the clip"),
        (lambda v, c: f'"{v}_{c}"', "quotes around them"),
        (lambda v, c: f"'{v}'$_$'{c}'", "quotes around them"),
        (lambda v, c: f"\u201c{v}_{c}\u201d", "quotes around them"),
        (lambda v, c: f"['{v}$_${c}']", "lists of one written as text"),
        (lambda v, c: f"[{v}_{c}]", "lists of one written as text"),
        (lambda v, c: str((f"{v}_{c}",)), "lists of one written as text"),
        (lambda v, c: str([f"{v}_{c}".encode()]), "bytes written as text"),
        (lambda v, c: repr(np.str_(f"{v}[{c}]")), "lists of one written as text"),
        (lambda v, c: f"'{v}_{c}", "a spreadsheet's mark of text"),
        (lambda v, c: f'="{v}_{c}"', "a spreadsheet's mark of text"),
    ],
)
def test_identity_marks_of_tools_are_no_part_of_an_id(mark: Any, said: str) -> None:
    """Were they kept, a video of train would not be known again in test."""
    clean = [("-3g5_yA", "1"), ("-3g5_yA", "2"), ("x", "1"), ("y", "1")]
    raw = [RawId(f"row {number}", mark(*pair)) for number, pair in enumerate(clean)]
    found = read_ids(raw)
    assert [(one.video, one.clip) for one in found.ids] == clean
    assert any(note.startswith("4 of 4 ids") and said in note for note in found.notes)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("['a_1', '0.5', '2.5']", "a list written as text"),
        ("['a_1' '0.5' '2.5']", "a list written as text"),
        ("a\x00b_1", "a control character in it"),
        ("\u200b\u00a0", "must not be empty"),
        ("''", "look like video_clip"),
    ],
)
def test_identity_what_no_mark_explains_is_refused(value: str, message: str) -> None:
    with pytest.raises(UserError, match=f"row 0: id must .*{message}|row 0: id {message}"):
        _cut([value, "a_1"])


def test_identity_videos_that_look_alike_in_two_splits_are_said(dump: Dump, tmp_path: Path) -> None:
    ids = {
        "train": ["abc$_$1", "two words$_$1", "caf\u00e9$_$1", "one$_$1"],
        "valid": ["ABC$_$2", "twowords$_$2", "One$_$1"],
        "test": ["cafe\u0301$_$2", "other$_$1"],
    }
    store = import_dataset(dump(_mmsa(ids)), format=None, out=tmp_path / "store")
    said = "\n".join(store.description.warnings)
    assert (
        "4 pairs of videos in two splits differ in case, blanks or the composition of accents "
        "alone: 'abc (train) and ABC (valid)', 'two words (train) and twowords (valid)'" in said
    )


@pytest.mark.parametrize(
    "spell",
    [
        lambda v, c: f"{v}$_${c}",
        lambda v, c: f"{v}_{c}",
        lambda v, c: f"{v}[{c}]",
        lambda v, c: (f"{v}_{c}", f"{c}.5", "99"),
        lambda v, c: f"Raw/{v}/{c}.mp4",
        lambda v, c: f"{v}$_${c:02}",
    ],
)
def test_identity_mosis_clips_that_count_from_0_are_shifted(spell: Any) -> None:
    ids = _named(spell)
    found = _splits(ids, first_number=1)
    assert [(one.video, one.clip) for one in found.ids] == PAIRS
    if "[" not in str(ids["train"][0]) or isinstance(ids["train"][0], tuple):
        assert "clips of 10 of 10 videos count from 0, label.csv's from 1" in found.decisions[1]
        # --ids keeps the numbers; other datasets' stay.
        assert not int(_splits(ids, first_number=1, layout="video-clip").ids[0].clip)
        assert not int(_splits(ids).ids[0].clip)
        # Where nothing says that it is MOSI, they stay as well.
        assert not int(_splits(ids, first_number=1, is_guess=True).ids[0].clip)


def test_identity_mosis_clips_that_count_from_1_stay_and_a_mixture_is_asked_about() -> None:
    ids = _named(lambda v, c: f"{v}$_${c + 1}")
    assert [(one.video, one.clip) for one in _splits(ids, first_number=1).ids] == PAIRS
    ids["test"][:4] = [f"testvid0_{c}".replace("_", "$_$") for c in range(4)]
    with pytest.raises(UserError, match=r"split 'test' row 0: .*1 of 10 videos.*--ids video-clip"):
        _splits(ids, first_number=1)
    # One of ten has lost its first clip.
    ids = _named(lambda v, c: f"{v}$_${c}")
    del ids["train"][0]
    found = _splits(ids, first_number=1)
    assert [(one.video, one.clip) for one in found.ids] == PAIRS[1:]
    # Seconds are no count.
    seconds = [(f"vid{row}", "0", "9") for row in range(4)]
    assert [one.clip for one in _splits({"train": seconds}, first_number=1).ids] == ["0"] * 4


@pytest.mark.parametrize(
    "spell",
    [
        lambda s, k: (f"{s}_{k:05d}", f"{k}.5", "99"),
        lambda s, k: f"{s}$_${k}",
        lambda s, k: f"{s}[{k}]",
        lambda s, k: f"mosi_{s}_{k:05d}",
        lambda s, k: f"{s}/{k:05d}.wav",
        lambda s, k: f"clip$_${s}{k}",
        lambda s, k: (f"clip_{k + 10 * len(s)}", f"{k}.5", "99"),
    ],
)
def test_identity_names_that_count_are_no_video_in_any_layout(spell: Any) -> None:
    ids = {split: [spell(split, row) for row in range(6)] for split in ("train", "dev", "test")}
    with pytest.raises(UserError, match=r"makes 18 samples [13] videos?; --ids"):
        _splits(ids)
    assert len({one.video for one in _splits(ids, layout="sample").ids}) == 18
    told = (
        "video-number" if isinstance(ids["dev"][0], str) and "[" in ids["dev"][0] else "video-clip"
    )
    assert len(_splits(ids, layout=told).ids) == 18


def test_identity_one_sample_of_each_split_is_no_count() -> None:
    ids = {split: [f"{split}$_$1"] for split in ("train", "dev", "test")}
    assert [one.id for one in _splits(ids).ids] == ["train_1", "dev_1", "test_1"]


@pytest.mark.parametrize("layout", [None, "video-clip"])
@pytest.mark.parametrize("separator", ["_", "$_$"])
def test_identity_a_start_with_a_point_is_written_one_way(
    separator: str, layout: str | None
) -> None:
    clips = [("a_b", "82.7645"), ("a_b", "3.5"), ("c", "0.0"), ("d", "10.25")]
    expected = [("a_b", "82_7645"), ("a_b", "3_5"), ("c", "0_0"), ("d", "10_25")]
    ids = [f"{video}{separator}{clip}" for video, clip in clips]
    assert _cut(ids, layout=layout) == expected


@pytest.mark.parametrize(
    "spell",
    [
        lambda v, x: (v, x, x),
        lambda v, x: (v, np.float64(x), np.float64(x)),
        lambda v, x: (v, np.float32(x), np.float32(x)),
        lambda v, x: np.array([v, str(x), str(x)], dtype="S"),
        lambda v, x: f"{v}_{x}",
        lambda v, x: f"{v}$_${x:.12f}" if x % 1 else f"{v}$_${x}",
        lambda v, x: f"{v}_{x}".replace(".", "_"),
    ],
)
def test_identity_seconds_of_float32_are_as_short_as_they_were(spell: Any) -> None:
    starts = [1.1, 82.7645, 2.0, 1234.567]
    ids = [spell(video, float(np.float32(start))) for video in ("a", "b_c") for start in starts]
    clips = [(v, str(start).replace(".", "_")) for v in ("a", "b_c") for start in starts]
    assert _cut(ids) == clips


def test_identity_seconds_finer_than_float32_stay() -> None:
    starts = ["82.7645", "1.100000023841858", "12.345678901234"]
    assert _cut([("a", start, "99") for start in starts]) == [
        ("a", start.replace(".", "_")) for start in starts
    ]
