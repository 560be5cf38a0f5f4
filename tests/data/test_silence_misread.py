"""What looks like something else than it is: read rightly, refused, or said aloud."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, ReadOptions, Sample, import_dataset, open_source
from tecafn.data.integrity import check, refuse_errors
from tecafn.data.store import Store
from tecafn.data.unpickle import load_pickle, loads
from tecafn.data.which import Evidence, decide
from tecafn.experiments.presence import check_text

Dump = Callable[..., Path]
AUDIO, VISION, TEXT = Modality.AUDIO, Modality.VISION, Modality.TEXT
SAYS_NOTHING = Path("/disk7/x/train.pkl")


def _read(
    source: Path, format: str | None = None, **options: Any
) -> tuple[DatasetDescription, list[Sample]]:
    description, samples = open_source(source, format=format, options=ReadOptions(**options))
    return description, list(samples)


def _refused(source: Path, message: str, **options: Any) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _read(source, **options)
    assert "\n" not in str(caught.value)


def _padded(
    lengths: Sequence[int], size: int, width: int, *, in_front: bool = False, seed: int = 0
) -> Any:
    """(N, size, width) with the given numbers of frames and zeros on one side."""
    random = np.random.default_rng(seed)
    padded = np.zeros((len(lengths), size, width), np.float32)
    for row, length in enumerate(lengths):
        place = slice(size - length, size) if in_front else slice(length)
        padded[row, place] = random.normal(size=(length, width)) + 3
    return padded


def _mmsa(count: int = 20, *, audio: int = 7, vision: int = 9, seed: int = 0) -> dict[str, Any]:
    """Train and test of an unaligned MMSA pickle, ``count`` samples each."""
    random = np.random.default_rng(seed)
    data = {}
    for split in ("train", "test"):
        lengths = {m: random.integers(3, 9, count).tolist() for m in ("audio", "vision")}
        data[split] = {
            "id": [f"{split}{row // 4}$_${row % 4 + 1}" for row in range(count)],
            "raw_text": [f"it was fine {row}" for row in range(count)],
            "audio": _padded(lengths["audio"], 12, audio, seed=1),
            "vision": _padded(lengths["vision"], 15, vision, seed=2),
            "audio_lengths": lengths["audio"],
            "vision_lengths": lengths["vision"],
            "regression_labels": np.round(random.uniform(-3, 3, count), 1),
        }
    return data


# Several pickles in one file


def test_misread_pickles_one_after_another_are_not_the_first_alone(
    misa_rows: list[Any], tmp_path: Path
) -> None:
    one = pickle.dumps(misa_rows, protocol=4)
    path = tmp_path / "mosi_train.pkl"
    path.write_bytes(one * 3)
    _refused(path, rf"{2 * len(one)} bytes follow the first object, .* one dictionary of splits")
    with pytest.raises(UserError, match=r"3 bytes follow the first object"):
        loads(pickle.dumps({"train": 1}) + b"\0X\n")


@pytest.mark.parametrize("padding", [b"\n", b"\0" * 4096, b" \r\n"])
def test_misread_padding_after_a_pickle_is_nothing(tmp_path: Path, padding: bytes) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([1, 2]) + padding)
    assert load_pickle(path) == [1, 2]


# Words in one string


@pytest.mark.parametrize("kind", [list, " ".join, np.array], ids=["list", "string", "array"])
def test_misread_words_of_any_kind_are_counted_for_alignment(dump: Dump, kind: Any) -> None:
    def rows(num_more: int) -> list[Any]:
        spoken = (["so", "good"], ["not", "that", "bad"])
        return [
            (
                (
                    np.arange(len(words)),
                    np.ones((len(words), 4), np.float32),
                    np.ones((len(words) + num_more, 3), np.float32),
                    kind(words),
                ),
                np.array([[1.5]], np.float32),
                f"v[{number}]",
            )
            for number, words in enumerate(spoken)
        ]

    assert not _read(dump(rows(2), "mosi_train.pkl"))[0].aligned
    description, samples = _read(dump(rows(0), "mosi_train.pkl"))
    assert description.aligned
    assert [sample.words for sample in samples] == [("so", "good"), ("not", "that", "bad")]


# Labels that are never negative


@pytest.mark.parametrize("labels", [[0, 1, 2] * 4, [0.4, 1.8, 2.6, 0] * 4])
def test_misread_labels_never_below_zero_are_said_aloud(labels: list[float]) -> None:
    which = decide(Evidence(labels=np.array(labels)), SAYS_NOTHING)
    (warning,) = which.warnings
    assert f"none of the {len(labels)} labels is below 0" in warning
    assert "--label-range names another" in warning
    told = decide(Evidence(labels=np.array(labels)), SAYS_NOTHING, label_range=(0, 3))
    assert told.warnings == ()
    for sound in ([-1, *labels], labels[:9]):
        assert decide(Evidence(labels=np.array(sound)), SAYS_NOTHING).warnings == ()


def test_misread_labels_never_below_zero_are_said_by_the_report(dump: Dump) -> None:
    data = _mmsa()
    for part in data.values():
        part["regression_labels"] = np.arange(20) % 3.0
    rows = check(dump(data, "mosi.pkl")).rows
    assert any(row.level == "warning" and "is below 0" in row.message for row in rows)


# Texts that are no sentences


def _import(source: Path, **options: Any) -> Store:
    out = source.with_name(f"store{len(list(source.parent.iterdir()))}")
    return import_dataset(source, format=None, out=out, options=ReadOptions(**options))


@pytest.mark.parametrize("placeholder", ["nan", "None", "NULL", "<unk>", ".", "...", "b'nan'"])
def test_misread_placeholders_are_no_sentences(dump: Dump, placeholder: str) -> None:
    data = _mmsa()
    for part in data.values():
        part["raw_text"] = [placeholder] * 20
        part["text"] = _padded([3] * 20, 4, 6)
    data["test"]["raw_text"][7] = "it was fine"
    store = _import(dump(data, "mosi.pkl"))
    assert sorted(set(store.split("train").texts)) == [""]
    assert [t for t in store.split("test").texts if t] == ["it was fine"]
    assert store.description.widths[TEXT] == 6  # the vectors are not passed over
    (warning,) = store.manifest["warnings"]
    assert "in 39 of 40 samples that have any, which is read as no sentence" in warning


def test_misread_a_few_placeholders_are_answers(dump: Dump) -> None:
    data = _mmsa()
    data["train"]["raw_text"][:12] = ["None."] + ["none"] * 11
    assert list(_import(dump(data)).split("train").texts)[:2] == ["None.", "none"]


def test_misread_placeholders_of_every_layout_are_no_sentences(
    tmp_path: Path, write_table: Callable[..., Path], make_source: Any
) -> None:
    lines = [(f"v{n}", "1", "nan", f"{n % 3 - 1}", "train") for n in range(12)]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *lines)
    described, samples = _read(table)
    assert {sample.text for sample in samples} == {""}
    assert any("text is 'nan' in 1" in text for text in described.warnings)
    path = tmp_path / "text.jsonl"
    rows = ({"id": n, "split": "train", "punchline": "null", "label": 1} for n in range(12))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    described, samples = _read(path)
    assert {sample.text for sample in samples} == {""}
    assert any("text is 'null' in 1" in text for text in described.warnings)
    source = make_source("mult")
    data = pickle.loads(source.path.read_bytes())
    for part in data.values():
        for key, value in part.items():
            part[key] = np.concatenate([value] * 5)
        part["raw_text"] = ["None"] * 10
        part["id"] = [f"{part['id'][0][0].decode()}_{n}" for n in range(10)]
    source.path.write_bytes(pickle.dumps(data))
    described, samples = _read(source.path)
    assert {sample.text for sample in samples} == {""}
    assert any("text is 'none' in 30 of 30" in text for text in described.warnings)


def test_misread_words_that_are_placeholders_are_refused(dump: Dump, misa_rows: list[Any]) -> None:
    (inner, label, _), frames = misa_rows[0], np.ones((1, 4), np.float32)
    rows = [((inner[0][:1], frames, frames[:, :3], ["<unk>"]), label, f"v[{n}]") for n in range(12)]
    with pytest.raises(UserError, match=r"text is '<unk>' in 12 of 12 samples, .* empty it"):
        _import(dump(rows, "mosi_train.pkl"))
    rows_of_report = check(dump(rows, "mosi_train.pkl")).rows
    assert any(row.level == "error" and "'<unk>' in 12" in row.message for row in rows_of_report)


@pytest.mark.parametrize("text", ["?????????", "??? ??, ??!", "???12", "\ufffd\ufffd", "\ufffd"])
def test_misread_destroyed_text_is_refused_with_its_row(
    write_table: Callable[..., Path], text: str
) -> None:
    lines = [(f"v{n}", "1", text if n else "OK", f"{n % 3 - 1}", "train") for n in range(12)]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *lines)
    with pytest.raises(UserError, match=r"destroyed in 11 of 12 samples: .*row 3 has .*as UTF-8"):
        _import(table)
    assert check(table).exit_code == 1


def test_misread_questions_are_no_destroyed_text(write_table: Callable[..., Path]) -> None:
    lines = [(f"v{n}", "1", "Why??" if n % 3 else "??", "-1", "train") for n in range(12)]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *lines)
    assert list(_import(table).split("train").texts)[:2] == ["??", "Why??"]


@pytest.mark.parametrize("nothing", ["", " ", "\u200b", "\ufeff"])
def test_misread_a_few_sentences_do_not_discard_the_vectors(dump: Dump, nothing: str) -> None:
    data = _mmsa()
    for part in data.values():
        part["raw_text"][2:] = [nothing] * 18
        part["text"] = _padded([3] * 20, 4, 6)
    store = _import(dump(data, "mosi.pkl"))
    assert store.description.widths[TEXT] == 6
    assert "4 of 40 samples have a sentence, so the text vectors" in " ".join(
        store.description.decisions
    )
    for part in data.values():
        part["raw_text"] = [""] * 5 + ["fine"] * 15
    path = dump(data, "mosi.pkl")
    with pytest.raises(UserError, match=r"text has no sentence in 5 of 20 samples of train"):
        _import(path)
    store = _import(path, allow_missing_frames=frozenset((TEXT,)))
    assert TEXT not in store.description.widths
    assert any("text has no sentence in 5 of 20" in text for text in store.manifest["warnings"])
    # The report of the store knows that it was allowed.
    assert check(store).exit_code == 0


def test_misread_bytes_written_as_text_are_undone_in_sentences(dump: Dump) -> None:
    data = _mmsa()
    for part in data.values():
        part["raw_text"] = [str(f"it's caf\u00e9 \\n {n}".encode()) for n in range(20)]
    description, samples = _read(dump(data))
    assert samples[3].text == "it's caf\u00e9 \\n 3"
    assert any("40 of 40 texts were bytes written as text" in note for note in description.notes)


# A dataset known by a likely clue alone


def test_misread_own_labels_in_steps_do_not_excuse_a_video_in_two_splits(dump: Dump) -> None:
    data = _mmsa(40)
    for number, part in enumerate(data.values()):
        part["regression_labels"] = (np.arange(40) % 11 - 5) / 5
        part["id"] = [f"v{row // 4}$_${row % 4 + 40 * number}" for row in range(40)]
    own = dump(data, "own.pkl")
    assert _read(own)[0].dataset == "ch-sims"  # by its labels, which others have, too
    (row,) = (row for row in check(own).rows if row.name == "videos" and row.level == "error")
    assert "10 in two splits" in row.message
    assert "--dataset ch-sims at the import settles" in row.message
    with pytest.raises(UserError, match=r"--dataset ch-sims"):
        refuse_errors(_import(own), allowed=False)
    told = check(own, options=ReadOptions(dataset="sims"))
    assert told.exit_code == 0
    named = check(dump(data, "sims.pkl"))
    assert named.exit_code == 0
    for part in data.values():
        part["regression_labels_T"] = part["regression_labels"]
    assert check(dump(data, "own.pkl")).exit_code == 0  # what only CH-SIMS has


# Word alignment


def _mult(*, aligned: bool, count: int = 20, size: int = 30) -> dict[str, Any]:
    random = np.random.default_rng(3)
    data = {}
    for split in ("train", "test"):
        lengths = [random.integers(3, size - 2, count).tolist() for _ in range(3)]
        if aligned:
            lengths = [lengths[0]] * 3
        data[split] = {
            "text": _padded(lengths[0], size, 8, in_front=True, seed=1),
            "audio": _padded(lengths[1], size, 5, in_front=True, seed=2),
            "vision": _padded(lengths[2], size, 20, in_front=True, seed=3),
            "labels": np.round(random.uniform(-3, 3, (count, 1, 1)), 1),
            "id": [f"{split}{row // 4}_{row % 4 + 1}" for row in range(count)],
        }
    return data


def test_misread_one_size_of_padded_arrays_is_no_word_alignment(dump: Dump) -> None:
    data = _mult(aligned=False)
    description, samples = _read(dump(data, "mosi_data_noalign.pkl"))
    assert not description.aligned
    assert any(d.startswith("not word-aligned, though") for d in description.decisions)
    expected = [int(row.any(axis=1).sum()) for part in data.values() for row in part["audio"]]
    assert [len(sample.sequences[AUDIO]) for sample in samples] == expected


def test_misread_word_alignment_outlives_zero_rows_and_absent_modalities(dump: Dump) -> None:
    data = _mult(aligned=True)
    for part in data.values():
        part["vision"][:5, -1] = 0  # the last word has no face
        part["audio"][5] = 0
    description, samples = _read(dump(data, "mosi_data.pkl"))
    assert description.aligned
    assert "word-aligned: audio and vision are equally long in 28 of 38 samples" in (
        description.decisions
    )
    assert len(samples[0].sequences[VISION]) == len(samples[0].sequences[TEXT])


@pytest.mark.parametrize("aligned", [True, False])
def test_misread_one_size_without_lengths_is_no_word_alignment(dump: Dump, aligned: bool) -> None:
    data = _mmsa()
    random = np.random.default_rng(4)
    for part in data.values():
        lengths = [random.integers(3, 20, 20).tolist() for _ in range(2)]
        part["audio"] = _padded(lengths[0], 20, 7)
        part["vision"] = _padded(lengths[0 if aligned else 1], 20, 9)
        del part["audio_lengths"], part["vision_lengths"]
    assert _read(dump(data))[0].aligned == aligned


def test_misread_arrays_of_one_length_throughout_are_no_word_alignment(dump: Dump) -> None:
    data = _mmsa()
    for part in data.values():
        part["audio"], part["vision"] = np.ones((20, 50, 7)), np.ones((20, 50, 9))
        del part["audio_lengths"], part["vision_lengths"]
    description, _ = _read(dump(data))
    assert not description.aligned
    assert any("fill all of them in all 40 samples" in text for text in description.decisions)


# Audio and vision exchanged


@pytest.mark.parametrize("columns", [(20, 5), (47, 74), (35, 74), (709, 33)])
def test_misread_columns_the_other_way_round_are_refused(
    dump: Dump, columns: tuple[int, int]
) -> None:
    audio, vision = columns
    path = dump(_mmsa(audio=audio, vision=vision), "own.pkl")
    _refused(path, rf"audio has {audio} columns and vision {vision}, .*exchanged; .*--dataset")
    description, _ = _read(path, dataset="mine")
    assert any("seem to be exchanged" in warning for warning in description.warnings)


def test_misread_an_array_called_after_another_modality_is_refused(
    write_table: Callable[..., Path], tmp_path: Path
) -> None:
    lines = [(f"v{n}", "1", "fine", "1", "train") for n in range(4)]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *lines)
    frames, ids = np.ones((4, 7)), [f"v{n}_1" for n in range(4)]
    for name in ("vision", "visual", "text"):
        arrays: dict[str, Any] = {"ids": ids, name: frames}
        np.savez(tmp_path / "a.npz", **arrays)
        _refused(
            table, rf"read as audio, but its array is called '{name}'", audio=tmp_path / "a.npz"
        )
    for name in ("audio", "acoustic", "x"):
        arrays = {"ids": ids, name: frames}
        np.savez(tmp_path / "a.npz", **arrays)
        assert _read(table, audio=tmp_path / "a.npz")[0].widths == {AUDIO: 7}
    (tmp_path / "own" / "audio" / "v0").mkdir(parents=True)
    table.rename(tmp_path / "own" / "label.csv")
    np.savez(tmp_path / "own" / "audio" / "v0" / "1.npz", vision=frames)
    _refused(tmp_path / "own", r"read as audio, but its array is called 'vision'",
             min_join_share=0.0)  # fmt: skip


def test_misread_a_csd_file_of_the_other_modality_is_refused(make_source: Any) -> None:
    folder = make_source("csd").path
    facet, covarep = (folder / f"CMU_MOSI_{n}.csd" for n in ("Visual_FACET_42", "COVAREP"))
    _refused(folder, r"FACET_42.csd is read as audio, but its name says vision", audio=facet)
    _refused(folder, r"COVAREP.csd is read as vision, but its name says audio", vision=covarep)
    assert len(_read(folder, audio=covarep, vision=facet)[1]) == 4


# What is not read and looks like what is missing


def test_misread_frames_and_sentences_under_other_keys_are_a_warning(dump: Dump) -> None:
    data = _mmsa()
    for part in data.values():
        part["visual"] = part.pop("vision").mean(axis=1)
        part["transcript"] = part.pop("raw_text")
        part["speaker"] = ["a", "b"] * 10
    description, _ = _read(dump(data))
    said = description.warnings
    assert (
        len([text for text in said if "left alone: 'visual' holds an array of shape" in text]) == 1
    )
    assert any("there is no vision: where it is vision, it must be an array" in t for t in said)
    assert any("'transcript' holds text, and there is no raw_text" in text for text in said)
    assert "left alone, being no key of mmsa: 'speaker'" in description.notes
    for part in data.values():
        part["video"] = part.pop("visual").tolist()
        part["said"] = part.pop("transcript")
    said = _read(dump(data))[0].warnings
    assert any("'video' holds a list, and there is no vision" in text for text in said)
    assert any("'said' holds text, and there is no raw_text" in text for text in said)


def test_misread_keys_beside_what_is_read_are_no_warning(dump: Dump) -> None:
    data = _mmsa()
    for part in data.values():
        part["visual"] = part["vision"].mean(axis=1)
        part["transcript"] = part["raw_text"]
    description, _ = _read(dump(data, "mosi.pkl"))
    assert description.warnings == ()
    assert "left alone, being no key of mmsa: 'visual', 'transcript'" in description.notes


@pytest.mark.parametrize(
    ("header", "wanted", "column"),
    [
        ("video_id,clip_id,text,Sentiment,mode", "label", "sentiment"),
        ("video_id,clip_id,text,my label,mode", "label", "my_label"),
        ("video_id,clip_id,transcript,label,mode,text", "text", "transcript"),
    ],
)
def test_misread_columns_that_look_like_the_missing_one_are_named(
    write_table: Callable[..., Path], header: str, wanted: str, column: str
) -> None:
    names = header.split(",")
    lines = [(f"v{n}", "1", "so fine", f"{n % 3 - 1}", "train", "")[: len(names)] for n in range(6)]
    said = _read(write_table(tuple(names), *lines))[0].warnings
    assert any(f"no row has a {wanted}, and the column {column!r} is not read" in t for t in said)
    sound = ("video_id", "clip_id", "text", "label", "mode", "score")
    lines = [(f"v{n}", "1", "so fine", f"{n % 3 - 1}", "train", "2") for n in range(6)]
    assert _read(write_table(sound, *lines))[0].warnings == ()


def test_misread_keys_of_json_lines_that_look_like_the_missing_one_are_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "text.jsonl"
    rows = [
        {"id": n, "split": "train", "punchline": "", "text": "ha", "sarcasm": 1} for n in (1, 2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = _read(path)[0].warnings
    assert any("no line has a punchline, and the key 'text' is not read" in text for text in said)
    assert any("no line has a label, and the key 'sarcasm' is not read" in text for text in said)


# Two files of one clip, other scripts, other names of splits


def test_misread_two_different_files_of_one_clip_are_refused(make_source: Any) -> None:
    folder = make_source("clip-arrays").path
    first = folder / "audio" / "a_b" / "1.npy"
    np.savez(first.with_suffix(".npz"), frames=np.load(first))
    assert len(_read(folder)[1]) == 3
    np.savez(first.with_suffix(".npz"), frames=np.load(first) + 1)
    _refused(folder, r"1\.npy and 1\.npz are of one clip and differ: leave one")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "\u043e\u0447\u0435\u043d\u044c \u0445\u043e\u0440\u043e\u0448\u043e \u0451"),
        ("koi8-r", "\u043e\u0447\u0435\u043d\u044c \u0445\u043e\u0440\u043e\u0448\u043e"),
        ("cp1253", "\u03c0\u03bf\u03bb\u03c5 \u03ba\u03b1\u03bb\u03bf"),
    ],
)
def test_misread_tables_of_other_scripts_are_refused_as_what_they_are(
    tmp_path: Path, encoding: str, text: str
) -> None:
    lines = [f"v{n},1,{text} {n},{n % 3 - 1},train" for n in range(6)]
    path = tmp_path / "label.csv"
    path.write_bytes("\n".join(["video_id,clip_id,text,label,mode", *lines]).encode(encoding))
    _refused(path, r"letters of another script .*Cyrillic.* save the table as UTF-8")
    chinese = "\n".join(
        ["video_id,clip_id,text,label,mode"]
        + [f"v{n},1,\u6211\u89c9\u5f97\u8fd9\u4e2a\u7535\u5f71,{n % 3 - 1},train" for n in range(6)]
    )
    path.write_bytes(chinese.encode("gb18030"))
    assert _read(path)[1][0].text == "\u6211\u89c9\u5f97\u8fd9\u4e2a\u7535\u5f71"


@pytest.mark.parametrize("name", ["validate", "validation", "dev", "val", "Development"])
def test_misread_no_name_of_the_valid_split_is_lost(
    dump: Dump, misa_rows: list[Any], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "mosi"
    folder.mkdir()
    for split in ("train", name, "test"):
        rows = [(inner, label, f"{split}x[{n}]") for n, (inner, label, _) in enumerate(misa_rows)]
        dump(rows, f"mosi/{split}.pkl")
    description, samples = _read(folder)
    assert description.splits == ("train", "valid", "test")
    assert [sample.split for sample in samples] == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    assert description.warnings == ()
    (folder / "test.pkl").rename(folder / "heldout.pkl")
    (warning,) = _read(folder)[0].warnings
    assert "left alone: 'heldout.pkl' holds samples, and no split in its name" in warning


# The same kinds elsewhere


def test_misread_text_that_is_none_in_part_is_a_warning(
    write_table: Callable[..., Path],
) -> None:
    texts = ["nan"] * 8 + ["????"] * 8 + ["so fine"] * 8
    lines = [(f"v{n}", "1", text, f"{n % 3 - 1}", "train") for n, text in enumerate(texts)]
    path = write_table(("video_id", "clip_id", "text", "label", "mode"), *lines)
    store = _import(path)
    assert store.manifest["warnings"][:1] == [
        "text is 'nan' in 8 of 24 samples, and is kept as a sentence"
    ]
    assert "text is destroyed in 8 of 24 samples: " in store.manifest["warnings"][1]
    said = [row.message for row in check(store).rows if "in 8 of 24" in row.message]
    assert len(said) == 2


@pytest.mark.parametrize(("length", "aligned"), [(None, True), (50, False)])
def test_misread_files_of_one_length_are_no_word_alignment(
    write_table: Callable[..., Path], tmp_path: Path, length: int | None, aligned: bool
) -> None:
    lengths = [length or 2 + n for n in range(6)]
    ids = [f"v{n}_1" for n in range(6)]
    lines = [(f"v{n}", "1", "so fine", f"{n % 3 - 1}", "train") for n in range(6)]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *lines)
    offsets = np.cumsum([0, *lengths])
    for name, width in (("audio", 3), ("vision", 4)):
        frames = np.ones((int(offsets[-1]), width))
        arrays: dict[str, Any] = {"ids": ids, "offsets": offsets, name: frames}
        np.savez(tmp_path / f"{name}.npz", **arrays)
        for n, count in enumerate(lengths):
            folder = tmp_path / "own" / name / f"v{n}"
            folder.mkdir(parents=True)
            np.save(folder / "1.npy", np.ones((count, width)))
    audio, vision = tmp_path / "audio.npz", tmp_path / "vision.npz"
    assert _read(table, audio=audio, vision=vision)[0].aligned == aligned
    table.rename(tmp_path / "own" / "label.csv")
    assert _read(tmp_path / "own")[0].aligned == aligned


def test_misread_a_few_sentences_are_not_trained_on_where_vectors_are(dump: Dump) -> None:
    data = _mmsa()
    for part in data.values():
        part["raw_text"][2:] = [""] * 18
        part["text"] = _padded([3] * 20, 4, 6)
    store = _import(dump(data, "mosi.pkl"))
    view = store.split("train")
    with pytest.raises(UserError, match=r"has 2 for 20 samples; .*text_encoder=features"):
        check_text(store, view, list(Modality), "minilm")
    check_text(store, view, list(Modality), "features")
