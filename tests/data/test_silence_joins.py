"""A4: features meet the rows of the table by the numbering that explains most, and it is said."""

from __future__ import annotations

import json
import pickle
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import ReadOptions, Sample, import_dataset, open_source
from tecafn.data.joins import join_ids

AUDIO, VISION = Modality.AUDIO, Modality.VISION
VIDEOS, CLIPS = 12, 5
PAIRS = [(f"{'Ab'[v % 2]}zj_K{v}", str(k + 1)) for v in range(VIDEOS) for k in range(CLIPS)]


def _table(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> Path:
    splits = ["train"] * 8 + ["valid", "test"]
    lines = [
        f"{video},{clip},take {row},{row % 7 - 3},{splits[row // CLIPS % len(splits)]}"
        for row, (video, clip) in enumerate(pairs)
    ]
    path = folder / "label.csv"
    path.write_text("\n".join(["video_id,clip_id,text,label,mode", *lines]) + "\n")
    return path


def _npz(folder: Path, ids: list[str], values: list[float] | None = None) -> Path:
    """Vectors whose first number is the row of the table they belong to."""
    first = np.array(values if values is not None else np.arange(len(ids)), np.float32) + 1
    path = folder / "audio.npz"
    np.savez(path, ids=np.array(ids), audio=np.stack([first, first], axis=1))
    return path


def _read(table: Path, **options: Any) -> list[Sample]:
    return list(open_source(table, options=ReadOptions(**options))[1])


def _rows(samples: list[Sample]) -> list[int | None]:
    """Which vector each sample has."""
    return [int(s.sequences[AUDIO][0, 0]) - 1 if AUDIO in s.sequences else None for s in samples]


# Which numbering


@pytest.mark.parametrize(
    "spell",
    [
        lambda v, k: f"{v}_{k}",
        lambda v, k: f"{v}$_${k}",
        lambda v, k: f'"{v}_{k}"',
        lambda v, k: f"\u200b{v}_{k}",
        lambda v, k: f"['{v}$_${k}']",
        lambda v, k: f"{v}[{k}]",
        lambda v, k: f"{v}_{k - 1}",  # counted from 0: n - 1 of n agree on the wrong clips
        lambda v, k: f"{v}$_${k - 1}",
        lambda v, k: f"{v}[{k - 1}]",
        lambda v, k: f"{v}_{k - 1:04d}",
        lambda v, k: f"{v}_{k:04d}",
        lambda v, k: f"{v}_{k}.mp4",
        lambda v, k: f"Raw/{v}/{k}.mp4",
        lambda v, k: "C:" + f"\\data\\Raw\\{v}\\{k - 1}.wav",
        lambda v, k: f"features/{v}_{k}.npy",
        lambda v, k: f" {v}_{k}.0 ",
        lambda v, k: f"{v}_{k}".lower(),
        lambda v, k: f"{v}_{k}".upper(),
    ],
)
def test_every_row_finds_its_own_frames_however_ids_are_written(
    tmp_path: Path, spell: Callable[[str, int], str]
) -> None:
    ids = [spell(video, int(clip)) for video, clip in PAIRS]
    order = np.random.default_rng(0).permutation(len(ids)).tolist()
    path = _npz(tmp_path, [ids[row] for row in order], order)
    assert _rows(_read(_table(tmp_path), audio=path)) == list(range(len(PAIRS)))


def test_features_from_1_meet_a_table_from_0(tmp_path: Path) -> None:
    pairs = [(video, str(int(clip) - 1)) for video, clip in PAIRS]
    path = _npz(tmp_path, [f"{video}_{clip}" for video, clip in PAIRS])
    assert _rows(_read(_table(tmp_path, pairs), audio=path)) == list(range(len(PAIRS)))


def test_the_numbering_is_said_at_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _npz(tmp_path, [f"{video}_{int(clip) - 1}" for video, clip in PAIRS])
    arguments = ["data", "import", _table(tmp_path), "--audio", path, "--out", tmp_path / "store"]
    assert main([str(argument) for argument in arguments]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "audio: 60 of 60 rows of label.csv are in audio.npz; clips there count from 0, in "
        "label.csv from 1" in printed
    )


def test_a_subset_of_the_features_rows_is_taken_as_written(tmp_path: Path) -> None:
    ids = [f"{video}_{clip}" for video, clip in PAIRS]
    some = [row for row, (_, clip) in enumerate(PAIRS) if clip in ("2", "3", "4")]
    table = _table(tmp_path, [PAIRS[row] for row in some])
    assert _rows(_read(table, audio=_npz(tmp_path, ids))) == some


def test_a_tie_between_numberings_asks(tmp_path: Path) -> None:
    # Clips 0 to 5 of every video in the features, 1 to 5 in the table: both explain every row.
    ids = [f"v{v}_{k}" for v in range(10) for k in range(6)]
    pairs = [(f"v{v}", str(k)) for v in range(10) for k in range(1, 6)]
    table, path = _table(tmp_path, pairs), _npz(tmp_path, ids)
    with pytest.raises(UserError, match=r"50 of 50 rows .* in 2 numberings") as caught:
        _read(table, audio=path)
    assert "--match-ids as-written or --match-ids plus-one" in str(caught.value)
    as_written = _rows(_read(table, audio=path, match_ids="as-written"))
    plus_one = _rows(_read(table, audio=path, match_ids="plus-one"))
    assert [ids[row or 0] for row in as_written][:2] == ["v0_1", "v0_2"]
    assert [ids[row or 0] for row in plus_one][:2] == ["v0_0", "v0_1"]


def test_starts_in_seconds_are_no_numbers_of_clips(tmp_path: Path) -> None:
    pairs = [(f"v{v}", f"{k * 7}_{k}345") for v in range(5) for k in range(4)]
    ids = [f"{video}$_${clip}" for video, clip in pairs]
    assert _rows(_read(_table(tmp_path, pairs), audio=_npz(tmp_path, ids))) == list(range(20))


def test_ids_that_only_zeros_tell_apart_stay_apart(tmp_path: Path) -> None:
    pairs = [("v", "1"), ("v", "01"), ("v", "2")]
    ids = ["v_01", "v_1", "v_2"]
    assert _rows(_read(_table(tmp_path, pairs), audio=_npz(tmp_path, ids))) == [1, 0, 2]


# How many


def _partial(tmp_path: Path, num_agreeing: int) -> tuple[Path, Path]:
    ids = [
        f"{video}_{clip}" if row < num_agreeing else f"other{row}_{clip}"
        for row, (video, clip) in enumerate(PAIRS)
    ]
    return _table(tmp_path), _npz(tmp_path, ids)


def test_few_matches_are_refused_with_both_numbers_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, path = _partial(tmp_path, 2)
    arguments = ["data", "import", table, "--audio", path, "--out", tmp_path / "store"]
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "2 of 60 rows of label.csv find audio in audio.npz" in line
    assert "--min-join-share 0.03" in line
    assert not (tmp_path / "store").exists()
    assert main([str(a) for a in (*arguments, "--min-join-share", 0.03)]) == 0
    printed = capsys.readouterr().out
    assert "audio: 2 of 60 rows of label.csv are in audio.npz" in printed
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["allowed"] == ["missing-frames audio"]
    assert main(["data", "check", str(tmp_path / "store")]) == 0


def test_a_share_of_one_refuses_a_single_row_without_frames(tmp_path: Path) -> None:
    table, path = _partial(tmp_path, 59)
    assert _rows(_read(table, audio=path)).count(None) == 1
    with pytest.raises(UserError, match="59 of 60 rows"):
        _read(table, audio=path, min_join_share=1.0)


def test_ids_written_in_two_ways_are_not_taken_for_one(tmp_path: Path) -> None:
    ids = [f"{v}_{k}" if row < 2 else f"{v.swapcase()}_{k}" for row, (v, k) in enumerate(PAIRS)]
    table, path = _table(tmp_path), _npz(tmp_path, ids)
    with pytest.raises(UserError, match=r"2 of 60 rows .*ignoring case, 60 would") as caught:
        _read(table, audio=path)
    assert "--match-ids ignore-case" in str(caught.value)
    assert _rows(_read(table, audio=path, match_ids="ignore-case")) == list(range(60))


def test_a_whole_split_without_frames_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path)
    ids = [f"{v}_{k}" for v, k in PAIRS]
    kept = [row for row in range(60) if row // CLIPS != 9]  # the five of test
    path = _npz(tmp_path, [ids[row] for row in kept], [float(row) for row in kept])
    with pytest.raises(UserError, match=r"audio has no frame in 5 of 5 samples of test|55 of 60"):
        import_dataset(table, format=None, out=tmp_path / "s", options=ReadOptions(audio=path))


@pytest.mark.parametrize("rule", ["plus-two", "plus-one,minus-one"])
def test_an_unknown_rule_is_one_line(rule: str) -> None:
    with pytest.raises(UserError, match="--match-ids must be one of"):
        join_ids(["a_1"], [("a", "1")], what="x", file="f", table="t", rule=rule)


# Other joins


@pytest.mark.parametrize("first", [0, 1])
def test_clip_arrays_are_met_in_their_numbering(tmp_path: Path, first: int) -> None:
    _table(tmp_path)
    for row, (video, clip) in enumerate(PAIRS):
        folder = tmp_path / "audio" / video
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{int(clip) - 1 + first:03d}.npy", np.full((2, 3), row + 1, np.float32))
    assert _rows(_read(tmp_path)) == list(range(len(PAIRS)))


def test_few_clip_arrays_are_refused(tmp_path: Path) -> None:
    _table(tmp_path)
    for video, clip in PAIRS[:5]:
        (tmp_path / "audio" / video).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "audio" / video / f"{clip}.npy", np.ones((2, 3), np.float32))
    with pytest.raises(UserError, match=r"5 of 60 rows of label.csv find audio in audio/"):
        _read(tmp_path)
    assert _rows(_read(tmp_path, min_join_share=0.05)).count(None) == 55


def test_segment_times_counted_from_0_cut_the_right_segments(
    make_source: Callable[[str], Any],
) -> None:
    source = make_source("csd-frames")
    before = _read(source.path)
    times = source.path / "segment_times.csv"
    lines = [line.split(",") for line in times.read_text().splitlines()]
    times.write_text(
        "\n".join(",".join([v, s if s == "segment" else str(int(s) - 1), *rest])
                  for v, s, *rest in lines) + "\n"
    )  # fmt: skip
    description, stream = open_source(source.path)
    after = list(stream)
    assert [(s.id, s.start, s.end) for s in after] == [(s.id, s.start, s.end) for s in before]
    assert any("count from 0" in decision for decision in description.decisions)


def _ur_funny(folder: Path, change: Callable[[str, Any], Any]) -> Path:
    names = list(range(1, 41))
    files: dict[str, Any] = {
        "data_folds": {"train": names[:20], "dev": names[20:30], "test": names[30:]},
        "humor_label_sdk": {name: name % 2 for name in names},
        "language_sdk": {name: {"punchline_sentence": f"ha {name}"} for name in names},
        "covarep_features_sdk": {
            name: {"punchline_features": np.full((2, 3), name, np.float32)} for name in names
        },
    }
    for name, value in files.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(change(name, value), protocol=4))
    return folder


def test_ur_funny_ids_may_be_text_in_one_file_and_numbers_in_another(tmp_path: Path) -> None:
    def change(file: str, value: Any) -> Any:
        is_text = file in ("humor_label_sdk", "covarep_features_sdk")
        return {str(name): entry for name, entry in value.items()} if is_text else value

    samples = _read(_ur_funny(tmp_path, change))
    assert [sample.label for sample in samples] == [n % 2 for n in range(1, 41)]
    assert [int(sample.sequences[AUDIO][0, 0]) for sample in samples] == list(range(1, 41))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("language_sdk", r"has 2 of the 40 ids of data_folds.pkl"),
        ("humor_label_sdk", r"has 2 of the 20 ids of split 'train'"),
    ],
)
def test_ur_funny_files_that_know_few_ids_are_refused(
    tmp_path: Path, file: str, message: str
) -> None:
    def change(name: str, value: Any) -> Any:
        return value if name != file else {key: value[key] for key in (1, 2)}

    with pytest.raises(UserError, match=message):
        _read(_ur_funny(tmp_path, change))


def test_ur_funny_frames_that_know_few_ids_are_refused_at_import(tmp_path: Path) -> None:
    def change(name: str, value: Any) -> Any:
        return {k: value[k] for k in (1, 2)} if name.startswith("covarep") else value

    folder = tmp_path / "ur"
    folder.mkdir()
    _ur_funny(folder, change)
    with pytest.raises(UserError, match=r"audio has no frame in 18 of 20 samples of train"):
        import_dataset(folder, format=None, out=tmp_path / "s")


def test_clips_that_a_spreadsheet_made_numbers_of_meet_their_frames(tmp_path: Path) -> None:
    ids = [f"{video}_{clip}" for video, clip in PAIRS]
    table = _table(tmp_path, [(video, f"{clip}.0") for video, clip in PAIRS])
    samples = _read(table, audio=_npz(tmp_path, ids))
    assert [sample.id for sample in samples] == ids
    assert _rows(samples) == list(range(len(PAIRS)))


def test_segments_that_a_spreadsheet_made_numbers_of_meet_their_rows(
    make_source: Callable[[str], Any],
) -> None:
    source = make_source("csd-frames")
    before = _read(source.path)
    times = source.path / "segment_times.csv"
    lines = [line.replace(",", ".0;", 2).replace(".0;", ";", 1) for line in
             times.read_text().splitlines()]  # fmt: skip
    head, *rest = [line.replace(".0;start", ";start").replace(",", ";") for line in lines]
    times.write_text("\n".join([head, *rest]) + "\n")
    assert "v_1;1.0;0.0;3.0" in times.read_text()
    assert [(s.id, s.start, s.end) for s in _read(source.path)] == [
        (s.id, s.start, s.end) for s in before
    ]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_composed_in_one_and_apart_in_the_other(
    forms: tuple[Literal["NFC", "NFD"], Literal["NFC", "NFD"]],
) -> None:
    rows = [("entrevue_\u00e9t\u00e9", str(clip)) for clip in (1, 2, 3)]
    table, features = (
        [(unicodedata.normalize(form, video), clip) for video, clip in rows] for form in forms
    )
    join = join_ids(
        [f"{video}_{clip}" for video, clip in reversed(features)],
        table,
        what="audio",
        file="audio.npz",
        table="label.csv",
    )
    assert [join.positions[pair] for pair in table] == [2, 1, 0]
    assert join.decision == "audio: 3 of 3 rows of label.csv are in audio.npz; written otherwise"
