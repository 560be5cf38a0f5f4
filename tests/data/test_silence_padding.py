"""A2: where padding is, is found; lengths that contradict the frames, and lost frames, are said."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import ReadOptions, Sample, Store, check, import_dataset, open_source
from tecafn.data.padding import Padded, extent_of, find_frames

AUDIO, VISION, TEXT = Modality.AUDIO, Modality.VISION, Modality.TEXT
SIZES = {"train": 24, "valid": 8, "test": 8}
ROWS = {AUDIO: 40, VISION: 30}
WIDTHS = {AUDIO: 5, VISION: 20}
Parts = dict[str, dict[str, Any]]


def _padded(lengths: Any, rows: int, width: int, random: Any, *, front: bool) -> Any:
    """(N, rows, width) of frames that are nowhere zero, the first ones of a sample its own."""
    result = np.zeros((len(lengths), rows, width), np.float32)
    for row, length in enumerate(lengths):
        place = slice(rows - length, rows) if front else slice(0, length)
        result[row, place] = random.normal(size=(length, width)) + 5
    return result


def _mmsa(*, front: bool = False, lengths: bool = True) -> Parts:
    random = np.random.default_rng(0)
    data: Parts = {}
    for split, count in SIZES.items():
        part: dict[str, Any] = {
            "id": [f"{split}v{n // 4}$_${n % 4 + 1}" for n in range(count)],
            "raw_text": [f"take {n}" for n in range(count)],
            "regression_labels": np.linspace(-2, 2, count),
        }
        for modality, rows in ROWS.items():
            real = random.integers(3, rows // 2, count)
            part[modality.value] = _padded(real, rows, WIDTHS[modality], random, front=front)
            if lengths:
                part[f"{modality}_lengths"] = real.tolist()
        data[split] = part
    return data


def _mult(*, front: bool = True, rows: dict[Modality, int] | None = None) -> Parts:
    random = np.random.default_rng(1)
    sizes = rows or {TEXT: 20, **ROWS}
    data: Parts = {}
    for split, count in SIZES.items():
        real = {m: random.integers(3, size // 2, count) for m, size in sizes.items()}
        if rows:
            real = dict.fromkeys(sizes, real[AUDIO])
        data[split] = {
            modality.value: _padded(real[modality], size, {TEXT: 6, **WIDTHS}[modality], random,
                                    front=front)
            for modality, size in sizes.items()
        }  # fmt: skip
        data[split]["labels"] = np.linspace(-2, 2, count).reshape(-1, 1, 1)
    return data


def _num_frames(data: Parts, modality: Modality) -> int:
    return sum(int((part[modality.value] != 0).any(axis=2).sum()) for part in data.values())


def _read(path: Path, format: str | None = None, **options: Any) -> list[Sample]:
    return list(open_source(path, format=format, options=ReadOptions(**options))[1])


def _counted(samples: list[Sample], modality: Modality) -> int:
    return sum(len(sample.sequences.get(modality, ())) for sample in samples)


def _assert_same_frames(samples: list[Sample], expected: list[Sample]) -> None:
    for one, other in zip(samples, expected, strict=True):
        assert one.sequences.keys() == other.sequences.keys()
        for modality, frames in other.sequences.items():
            assert np.array_equal(one.sequences[modality], frames)


# Found, not assumed


@pytest.mark.parametrize("lengths", [True, False])
def test_front_and_end_padding_of_mmsa_give_the_same_frames(
    dump: Callable[..., Path], lengths: bool
) -> None:
    end, front = _mmsa(lengths=lengths), _mmsa(front=True, lengths=lengths)
    samples = _read(dump(front, "mosi_front.pkl"))
    for modality in ROWS:
        assert _counted(samples, modality) == _num_frames(front, modality)
    _assert_same_frames(samples, _read(dump(end, "mosi_end.pkl")))


def test_front_and_end_padding_of_mult_give_the_same_frames(dump: Callable[..., Path]) -> None:
    front = _read(dump(_mult(), "mosi_front.pkl"))
    assert _counted(front, TEXT) == _num_frames(_mult(), TEXT)
    _assert_same_frames(_read(dump(_mult(front=False), "mosi_end.pkl")), front)


@pytest.mark.parametrize("front", [True, False])
def test_rows_of_an_aligned_mult_file_go_on_corresponding(
    dump: Callable[..., Path], front: bool
) -> None:
    data = _mult(front=front, rows={TEXT: 20, AUDIO: 20, VISION: 20})
    for part in data.values():
        part["audio"][:, 17 if front else 0] = 0  # a word without a sound, at an edge for some
        for row in range(len(part["labels"])):
            words = np.flatnonzero(part["text"][row].any(axis=1))
            part["text"][row, words, 0] = np.arange(len(words)) + 1
            part["vision"][row, words, 0] = np.arange(len(words)) + 1
    description, samples = open_source(dump(data, "mosi.pkl"))
    assert description.aligned
    for sample in samples:
        text, vision = sample.sequences[TEXT][:, 0], sample.sequences[VISION][:, 0]
        assert text.tolist() == vision.tolist() == list(range(1, len(text) + 1))
        sound = np.any(sample.sequences[AUDIO], axis=1)
        assert len(sound) == len(text)


def test_rows_of_an_aligned_mmsa_file_padded_in_front_go_on_corresponding(
    dump: Callable[..., Path],
) -> None:
    data = _mmsa(lengths=False)
    random = np.random.default_rng(3)
    for part in data.values():
        count = len(part["id"])
        real = random.integers(4, 9, count)
        for modality in ROWS:
            part[modality.value] = _padded(real, 12, WIDTHS[modality], random, front=True)
        for row in range(count):
            part["audio"][row, 12 - real[row]] = 0  # the first word has no sound
        part["text"] = np.ones((count, 12, 8), np.float32)
        part["text_bert"] = np.ones((count, 3, 12))
        part["text_bert"][:, 1, 9:] = 0  # tokens are padded at the end all the same
    description, stream = open_source(dump(data, "mosi.pkl"))
    samples = list(stream)
    assert description.aligned
    for sample in samples:
        assert len(sample.sequences[AUDIO]) == len(sample.sequences[VISION])
        assert not sample.sequences[AUDIO][0].any()
        assert sample.sequences[AUDIO][1:].all()
    assert _counted(samples, VISION) == _num_frames(data, VISION)


def test_text_vectors_padded_on_the_other_side_than_frames_are_not_called_aligned(
    dump: Callable[..., Path],
) -> None:
    data = _mmsa(lengths=False)
    random = np.random.default_rng(3)
    for part in data.values():
        count = len(part["id"])
        real = random.integers(4, 9, count)
        del part["raw_text"]
        for modality in ROWS:
            part[modality.value] = _padded(real, 12, WIDTHS[modality], random, front=True)
        part["text"] = _padded(real, 12, 6, random, front=False)
    description, samples = open_source(dump(data, "mosi.pkl"))
    assert not description.aligned
    assert any("do not correspond" in warning for warning in description.warnings)
    for sample in samples:
        assert len(sample.sequences[TEXT]) == len(sample.sequences[AUDIO])


def test_zero_frames_at_an_edge_do_not_make_it_padding(dump: Callable[..., Path]) -> None:
    data = _mmsa(lengths=False)
    for part in data.values():
        part["audio"][::3, :2] = 0  # silence at the start of every third sample
    samples = _read(dump(data, "mosi.pkl"))
    silent = samples[0].sequences[AUDIO]
    assert not silent[:2].any()
    assert silent[2:].all()
    assert len(silent) == int(np.flatnonzero(data["train"]["audio"][0].any(axis=1))[-1]) + 1


def test_padding_differs_by_modality_and_split_and_is_said(dump: Callable[..., Path]) -> None:
    data, front = _mmsa(), _mmsa(front=True)
    for part, other in zip(data.values(), front.values(), strict=True):
        part["audio"], part["audio_lengths"] = other["audio"], other["audio_lengths"]
    data["test"]["vision"] = front["test"]["vision"]
    data["test"]["vision_lengths"] = front["test"]["vision_lengths"]
    description, samples = open_source(dump(data, "mosi.pkl"))
    found = list(samples)
    num_rows = sum(SIZES.values()) * ROWS[AUDIO]
    num_audio = _num_frames(data, AUDIO)
    assert (
        f"audio: padded in front, cut by audio_lengths; {num_audio} of {num_rows} rows are frames"
        in description.decisions
    )
    assert any(
        "vision: padded at the end in train and valid, in front in test" in sentence
        for sentence in description.decisions
    )
    _assert_same_frames(found, _read(dump(_mmsa(), "mosi_end.pkl")))


def test_arrays_without_padding_are_whole(dump: Callable[..., Path]) -> None:
    data = _mmsa(lengths=False)
    for part in data.values():
        part["audio"] = np.ones((len(part["id"]), 7, 5), np.float32)
    description, samples = open_source(dump(data, "mosi.pkl"))
    assert {len(sample.sequences[AUDIO]) for sample in samples} == {7}
    assert "audio: padded nowhere; 280 of 280 rows are frames" in description.decisions
    assert not description.aligned  # no lengths, yet audio has 7 rows and vision 30


def test_padding_on_both_sides_asks_for_the_side(dump: Callable[..., Path]) -> None:
    data = _mmsa(lengths=False)
    for part in data.values():
        part["audio"][:] = 0
        part["audio"][:, 10:30] = 1
    path = dump(data, "mosi.pkl")
    with pytest.raises(UserError, match=r"'train': audio has zero rows on both sides in 24 of 24"):
        _read(path)
    assert {len(s.sequences[AUDIO]) for s in _read(path, padding={AUDIO: "front"})} == {30}
    assert {len(s.sequences[AUDIO]) for s in _read(path, padding={AUDIO: "none"})} == {40}


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int8])
def test_padding_is_found_whatever_the_numbers_type(dump: Callable[..., Path], dtype: Any) -> None:
    data = _mmsa(front=True, lengths=False)
    for part in data.values():
        part["audio"] = np.ceil(part["audio"] / 9).astype(dtype)
    assert _counted(_read(dump(data, "mosi.pkl")), AUDIO) == _num_frames(data, AUDIO)


def test_nan_frames_are_frames_when_padding_is_searched() -> None:
    frames = np.zeros((4, 5, 2))
    frames[:, 2:] = 1
    frames[:, 2, 1] = np.nan
    found = find_frames([Padded("train", AUDIO, "x", extent_of(frames))], convention="end")
    assert found.slice("train", AUDIO, 3) == slice(2, 5)


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize("lengths", [True, False])
def test_npz_padded_on_either_side(
    tmp_path: Path, write_table: Callable[..., Path], front: bool, lengths: bool
) -> None:
    random = np.random.default_rng(5)
    real = random.integers(2, 9, 12)
    frames = _padded(real, 10, 3, random, front=front)
    more: dict[str, Any] = {"lengths": real.astype(float)} if lengths else {}
    np.savez(
        tmp_path / "a.npz", ids=[f"v{n // 4}_{n % 4}" for n in range(12)], audio=frames, **more
    )
    rows = [(f"v{n // 4}", str(n % 4), "x", "1", "train") for n in range(12)]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *rows)
    samples = _read(table, audio=tmp_path / "a.npz")
    assert [len(sample.sequences[AUDIO]) for sample in samples] == real.tolist()
    assert all(sample.sequences[AUDIO].all() for sample in samples)


def _tuples(*, front: bool, counts: Callable[[int], Any]) -> list[Any]:
    random = np.random.default_rng(6)
    rows = []
    for number, length in enumerate(random.integers(2, 9, 12).tolist()):
        visual = _padded([length], 10, 4, random, front=front)[0]
        acoustic = _padded([length + 1], 12, 3, random, front=front)[0]
        inner: tuple[Any, ...] = (
            [],
            visual,
            acoustic,
            ["so"] * length,
            counts(length),
            counts(length + 1),
        )
        rows.append((inner, np.array([[1.0]]), f"v{number // 4}_{number % 4}"))
    return rows


@pytest.mark.parametrize("counts", [int, np.int64, lambda n: np.array([n])])
def test_tuples_padded_in_front_keep_their_frames(
    dump: Callable[..., Path], counts: Callable[[int], Any]
) -> None:
    path = dump(_tuples(front=True, counts=counts), "train.pkl")
    samples = _read(path, "mmim", dataset="mosi")
    lengths = [len(row[0][3]) for row in pickle.loads(path.read_bytes())]
    assert [len(sample.sequences[VISION]) for sample in samples] == lengths
    assert all(sample.sequences[AUDIO].all() for sample in samples)


def test_tuples_without_padding_are_said_to_have_none(dump: Callable[..., Path]) -> None:
    rows = [
        ((inner[0], inner[1][: inner[4]], inner[2][: inner[5]], *inner[3:]), *rest)
        for inner, *rest in _tuples(front=False, counts=int)
    ]
    description, _ = open_source(dump(rows, "train.pkl"), format="mmim")
    assert any(text.startswith("audio: padded nowhere; ") for text in description.decisions)


def test_tuples_with_lengths_of_zero_for_frames_that_are_there_are_refused(
    dump: Callable[..., Path],
) -> None:
    path = dump(_tuples(front=False, counts=lambda length: 0), "train.pkl")
    with pytest.raises(
        UserError, match=r"\(train\): alen contradicts the audio frames of 12 of 12"
    ):
        _read(path, "mmim", dataset="mosi")


# Lengths


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n * np.nan, r"audio_lengths must be numbers of frames, 24 of 24 are NaN"),
        (lambda n: np.where(np.arange(24) == 5, np.nan, n), r"1 of 24 are NaN"),
        (lambda n: n * np.inf, r"24 of 24 are NaN or infinite"),
        (lambda n: n + 0.5, r"24 of 24 are no whole numbers"),
        (lambda n: -n, r"24 of 24 are negative"),
        (lambda n: n + 40, r"audio_lengths must lie in 0 to 40, .*24 of 24 samples lie beyond"),
        (lambda n: n // 2, r"contradicts the audio frames of 24 of 24 samples"),
        (lambda n: n * 0, r"contradicts the audio frames of 24 of 24 samples"),
        (lambda n: n * 0 + 1, r"contradicts the audio frames of 24 of 24 samples"),
        (lambda n: np.roll(n, 1), r"contradicts the audio frames of \d+ of 24 samples"),
    ],
)
@pytest.mark.parametrize("front", [True, False])
def test_lengths_that_contradict_the_frames_are_one_line(
    dump: Callable[..., Path], front: bool, change: Callable[[Any], Any], message: str
) -> None:
    data = _mmsa(front=front)
    data["train"]["audio_lengths"] = change(np.array(data["train"]["audio_lengths"], float))
    path = dump(data, "mosi.pkl")
    with pytest.raises(UserError, match=rf"split 'train': .*{message}") as caught:
        _read(path)
    assert "\n" not in str(caught.value)
    assert "--ignore-lengths" in str(caught.value)
    assert _counted(_read(path, ignore_lengths=True), AUDIO) == _num_frames(data, AUDIO)


@pytest.mark.parametrize(
    "convert",
    [
        lambda n: np.array(n, float),
        lambda n: [np.int64(k) for k in n],
        lambda n: np.array(n).reshape(-1, 1),
    ],
)
def test_lengths_may_be_floats_numpy_numbers_or_a_column(
    dump: Callable[..., Path], convert: Callable[[Any], Any]
) -> None:
    data = _mmsa()
    for part in data.values():
        part["audio_lengths"] = convert(part["audio_lengths"])
    assert _counted(_read(dump(data, "mosi.pkl")), AUDIO) == _num_frames(data, AUDIO)


def test_lengths_that_count_the_padding_are_not_followed(dump: Callable[..., Path]) -> None:
    data = _mmsa(front=True)
    for part in data.values():
        part["audio_lengths"] = [ROWS[AUDIO]] * len(part["id"])
    description, samples = open_source(dump(data, "mosi.pkl"))
    assert _counted(list(samples), AUDIO) == _num_frames(data, AUDIO)
    assert any("audio_lengths counts every row" in text for text in description.warnings)


def test_zero_rows_within_the_lengths_are_kept(dump: Callable[..., Path]) -> None:
    data = _mmsa(front=True)
    data["train"]["audio"][0, -2:] = 0  # silence at the end of a sample padded in front
    length = data["train"]["audio_lengths"][0]
    assert len(_read(dump(data, "mosi.pkl"))[0].sequences[AUDIO]) == length


def test_samples_cut_before_they_came_keep_all_their_rows(dump: Callable[..., Path]) -> None:
    data = _mmsa()
    data["train"]["audio"][3] = 1
    data["train"]["audio_lengths"][3] = 999
    description, samples = open_source(dump(data, "mosi.pkl"))
    assert len(list(samples)[3].sequences[AUDIO]) == ROWS[AUDIO]
    assert any("1 of 24 samples of train were cut" in note for note in description.notes)


# Frames that are lost


def _run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_modality_that_more_than_a_few_samples_lack_is_refused_unless_allowed(
    dump: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _mmsa()
    data["train"]["vision"][:4] = 0
    data["test"]["audio"][:] = 0
    path, out = dump(data, "mosi.pkl"), tmp_path / "store"
    assert _run("data", "import", path, "--out", out) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "audio has no frame in 8 of 8 samples of test" in line
    assert "vision has no frame in 4 of 24 samples of train" in line
    assert "--allow-missing-frames audio,vision" in line
    assert not out.exists()
    assert _run("data", "import", path, "--out", out, "--allow-missing-frames", "audio") == 2
    assert "audio has" not in capsys.readouterr().err
    assert _run("data", "check", path) == 1
    assert "error    frames: vision has no frame in 4 of 24" in capsys.readouterr().out
    assert _run("data", "import", path, "--out", out, "--allow-missing-frames", "all") == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().splitlines()[-2:] == [
        "- audio has no frame in 8 of 8 samples of test, as was allowed",
        "- vision has no frame in 4 of 24 samples of train, as was allowed",
    ]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["allowed"] == ["missing-frames audio", "missing-frames vision"]
    assert Store.open(out).description.allowed == tuple(manifest["allowed"])
    assert _run("data", "check", out) == 0
    assert "warning  frames: audio has no frame in 8 of 8" in capsys.readouterr().out


def test_a_few_samples_without_frames_are_a_warning(
    dump: Callable[..., Path], tmp_path: Path
) -> None:
    data = _mmsa()
    data["train"]["vision"][:3] = 0
    store = import_dataset(dump(data, "mosi.pkl"), format=None, out=tmp_path / "store")
    assert store.description.warnings == ("vision has no frame in 3 of 24 samples of train",)
    assert store.description.allowed == ()
    assert check(store).exit_code == 0


def test_an_unknown_modality_or_side_is_one_line(
    dump: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dump(_mmsa(), "mosi.pkl")
    for option, value in (("--allow-missing-frames", "sound"), ("--padding", "left")):
        assert _run("data", "import", path, "--out", tmp_path / "s", option, value) == 2
        assert value in capsys.readouterr().err


@pytest.mark.parametrize("front", [True, False])
def test_arrays_of_clips_that_are_padded_to_one_length_are_cut(
    tmp_path: Path, write_table: Callable[..., Path], front: bool
) -> None:
    random = np.random.default_rng(8)
    real = random.integers(2, 9, 12)
    for number, frames in enumerate(_padded(real, 10, 3, random, front=front)):
        folder = tmp_path / "audio" / f"v{number // 4}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number % 4}.npy", frames)
    rows = [(f"v{n // 4}", str(n % 4), "x", "1", "train") for n in reversed(range(12))]
    write_table(("video_id", "clip_id", "text", "label", "mode"), *rows)
    description, stream = open_source(tmp_path)
    samples = list(stream)
    assert [len(sample.sequences[AUDIO]) for sample in samples] == real.tolist()[::-1]
    assert all(sample.sequences[AUDIO].all() for sample in samples)
    side = "in front" if front else "at the end"
    assert any(f"audio: padded {side}" in sentence for sentence in description.decisions)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_whose_every_frame_is_masked_have_no_frame(
    dump: Callable[..., Path], tmp_path: Path, value: float
) -> None:
    data = _mmsa(lengths=False)
    for row in range(6):  # one broken column masks every frame
        used = data["train"]["audio"][row].any(axis=1)
        data["train"]["audio"][row, used, 2] = value
    with pytest.raises(UserError, match="audio has no frame in 6 of 24 samples of train"):
        import_dataset(dump(data, "mosi.pkl"), format=None, out=tmp_path / "s")


def test_a_source_without_samples_is_refused(write_table: Callable[..., Path]) -> None:
    table = write_table(("video_id", "clip_id", "text", "label", "mode"))
    with pytest.raises(UserError, match="has no sample"):
        import_dataset(table, format=None, out=table.parent / "s")


# Padding that is not zero, or on the other side of some samples

Fill = Callable[[Any, int], None]


def _filled(fill: Fill, *, lengths: bool = False, every: int = 1) -> Parts:
    """MMSA's layout with the padding of every so many samples changed by ``fill``."""
    data = _mmsa()
    for part in data.values():
        for modality in ROWS:
            for row, length in enumerate(part[f"{modality}_lengths"]):
                if row % every == 0:
                    fill(part[modality.value][row], length)
            if not lengths:
                del part[f"{modality}_lengths"]
    return data


def _nan(frames: Any, length: int) -> None:
    frames[length:] = np.nan


def _constant(frames: Any, length: int) -> None:
    frames[length:] = np.arange(1, frames.shape[1] + 1) / 7


def _last(frames: Any, length: int) -> None:
    frames[length:] = frames[length - 1]


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (_nan, " with rows of NaN"),
        (_constant, " with one row, the same in nearly all samples"),
        (_last, " by repeating the {} frame"),
    ],
)
def test_padding_that_is_not_zero_is_found_and_said(
    dump: Callable[..., Path], fill: Fill, said: str, front: bool, lengths: bool
) -> None:
    data = _filled(fill, lengths=lengths)
    if front:
        for part in data.values():
            for modality in ROWS:
                part[modality.value] = part[modality.value][:, ::-1].copy()
    description, samples = open_source(dump(data, "mosi.pkl"))
    found = list(samples)
    expected = _read(dump(_mmsa(), "mosi_zero.pkl"))
    if front:
        for sample in expected:
            for modality in ROWS:
                sample.sequences[modality] = sample.sequences[modality][::-1]
    _assert_same_frames(found, expected)
    side = "in front" if front else "at the end"
    start = f"audio: padded {side}{said.format('first' if front else 'last')} (--padding audio=none"
    assert any(sentence.startswith(start) for sentence in description.decisions)
    if not lengths:
        whole = _read(dump(data, "mosi.pkl"), padding={AUDIO: "none", VISION: "none"})
        assert {len(sample.sequences[AUDIO]) for sample in whole} == {ROWS[AUDIO]}


def test_the_shared_row_is_padding_on_the_other_side_too(dump: Callable[..., Path]) -> None:
    data = _filled(_constant)
    for part in data.values():
        for row in range(0, len(part["id"]), 4):
            part["audio"][row] = part["audio"][row, ::-1]
    description, samples = open_source(dump(data, "mosi.pkl"))
    assert _counted(list(samples), AUDIO) == _num_frames(_mmsa(), AUDIO)
    assert any("at the end, on the other side in 10 of 40" in s for s in description.decisions)


@pytest.mark.parametrize(
    ("change", "every"),
    [
        (_constant, 4),  # a frozen picture at the end of some clips
        (lambda x, n: np.copyto(x, np.repeat(x[:n], 8, axis=0)[: len(x)]), 1),  # frames held
        (lambda x, n: x.__setitem__(slice(None), x[0]), 1),  # one vector per clip
        (lambda x, n: x.__setitem__(-1, x[-2]), 1),  # a couple of rows
        (lambda x, n: x.__setitem__((0, 2), np.nan), 1),  # a column that failed
    ],
)
def test_rows_that_real_frames_repeat_are_frames(
    dump: Callable[..., Path], change: Fill, every: int
) -> None:
    data = _mmsa(lengths=False)
    random = np.random.default_rng(4)
    for part in data.values():
        part["audio"] = random.normal(size=part["audio"].shape).astype(np.float32)
        for row in range(0, len(part["id"]), every):
            change(part["audio"][row], 20)
    samples = _read(dump(data, "mosi.pkl"))
    assert {len(sample.sequences[AUDIO]) for sample in samples} == {ROWS[AUDIO]}


@pytest.mark.parametrize("lengths", [True, False])
def test_a_row_repeated_in_most_samples_alone_is_asked_about(
    dump: Callable[..., Path], lengths: bool
) -> None:
    data = _filled(_constant)
    if lengths:  # that count every row tell nothing
        for part in data.values():
            part["audio_lengths"] = [ROWS[AUDIO]] * len(part["id"])
    for part in data.values():
        part["audio"][::4] = np.random.default_rng(2).normal(size=part["audio"][::4].shape)
    path = dump(data, "mosi.pkl")
    description, samples = open_source(path)
    assert len(list(samples)[1].sequences[AUDIO]) == ROWS[AUDIO]
    assert (
        "audio: one row is repeated at the end and read as frames (--padding audio=end cuts it "
        "off) in 18 of 24 samples of train, 6 of 8 samples of valid, 6 of 8 samples of test"
    ) in description.warnings
    told = _read(path, padding={AUDIO: "end"}, ignore_lengths=True)
    assert len(told[1].sequences[AUDIO]) == _mmsa()["train"]["audio_lengths"][1]


@pytest.mark.parametrize("front", [True, False])
def test_samples_padded_on_the_other_side_are_cut_there(
    dump: Callable[..., Path], front: bool
) -> None:
    data, other = _mmsa(front=front, lengths=False), _mmsa(front=not front, lengths=False)
    for part, more in zip(data.values(), other.values(), strict=True):
        for modality in ROWS:
            part[modality.value][::4] = more[modality.value][::4]
    description, samples = open_source(dump(data, "mosi.pkl"))
    _assert_same_frames(list(samples), _read(dump(_mmsa(), "mosi_end.pkl")))
    side = "in front" if front else "at the end"
    assert any(
        sentence.startswith(f"audio: padded {side}, on the other side in 10 of 40 samples; ")
        for sentence in description.decisions
    )


def test_zero_rows_on_the_other_side_that_are_kept_are_counted(dump: Callable[..., Path]) -> None:
    data = _mmsa(lengths=False)
    for part in data.values():
        for row in range(0, len(part["id"]), 4):  # clips without padding that begin in silence
            part["audio"][row] = 1
            part["audio"][row, :2] = 0
    path = dump(data, "mosi.pkl")
    description, samples = open_source(path)
    assert len(next(iter(samples)).sequences[AUDIO]) == ROWS[AUDIO]
    assert (
        "audio: zero rows in front are kept as frames, as padding is at the end, in "
        "6 of 24 samples of train, 2 of 8 samples of valid, 2 of 8 samples of test"
    ) in description.warnings
    told, _ = open_source(path, options=ReadOptions(padding={AUDIO: "end"}))
    assert any("zero rows in front are kept" in sentence for sentence in told.warnings)


def test_a_hint_names_no_option_that_makes_every_row_a_frame(dump: Callable[..., Path]) -> None:
    data = _mmsa()
    random = np.random.default_rng(4)
    for part in data.values():
        part["audio"] = random.normal(size=part["audio"].shape)
    with pytest.raises(UserError, match="contradicts the audio frames of 24 of 24") as caught:
        _read(dump(data, "mosi.pkl"))
    assert "--ignore-lengths" not in str(caught.value)
    assert "--padding audio=end" in str(caught.value)
    data["train"]["audio_lengths"] = [np.nan] * 24
    with pytest.raises(UserError, match="--ignore-lengths keeps every row"):
        _read(dump(data, "mosi.pkl"))


# Padded to a least length, longer ones kept


@pytest.mark.parametrize("fill", [None, _nan, _constant])
@pytest.mark.parametrize("front", [True, False])
def test_arrays_of_clips_padded_to_a_least_length_are_cut(
    tmp_path: Path, write_table: Callable[..., Path], front: bool, fill: Fill | None
) -> None:
    random = np.random.default_rng(8)
    real = [*random.integers(2, 9, 20).tolist(), 12, 13, 15, 11]
    for number, length in enumerate(real):
        frames = _padded([length], max(10, length), 3, random, front=False)[0]
        if fill is not None:
            fill(frames, length)
        folder = tmp_path / "audio" / f"v{number // 4}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number % 4}.npy", frames[::-1] if front else frames)
    rows = [(f"v{n // 4}", str(n % 4), "x", "1", "train") for n in range(24)]
    write_table(("video_id", "clip_id", "text", "label", "mode"), *rows)
    description, stream = open_source(tmp_path)
    assert [len(sample.sequences[AUDIO]) for sample in stream] == real
    side = "in front" if front else "at the end"
    assert any(f"audio: padded {side}" in sentence for sentence in description.decisions)


def test_arrays_of_clips_that_differ_in_length_keep_their_silence(
    tmp_path: Path, write_table: Callable[..., Path]
) -> None:
    lengths = [7] * 10 + list(range(8, 22))  # ten clips of one length are no padding
    for number, length in enumerate(lengths):
        frames = np.random.default_rng(number).normal(size=(length, 3))
        frames[-1] = number % 4  # silence at the end of every fourth
        folder = tmp_path / "audio" / f"v{number // 4}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number % 4}.npy", frames)
    rows = [(f"v{n // 4}", str(n % 4), "x", "1", "train") for n in range(24)]
    write_table(("video_id", "clip_id", "text", "label", "mode"), *rows)
    assert [len(sample.sequences[AUDIO]) for sample in _read(tmp_path)] == lengths


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize("format", ["misa", "mag"])
def test_tuples_padded_to_a_least_length_have_a_frame_per_word(
    dump: Callable[..., Path], front: bool, format: str
) -> None:
    random = np.random.default_rng(9)
    data: dict[str, list[Any]] = {}
    for split, count in (("train", 24), ("dev", 8), ("test", 8)):
        data[split] = []
        for number, length in enumerate(random.integers(3, 12, count).tolist()):
            visual = _padded([length], max(9, length), 4, random, front=front)[0]
            acoustic = _padded([length], max(9, length), 3, random, front=front)[0]
            words = ["so"] * length
            inner = (words, visual, acoustic) if format == "mag" else ([], visual, acoustic, words)
            data[split].append((inner, np.array([[1.0]]), f"{split}v{number // 4}[{number % 4}]"))
    description, stream = open_source(dump(data, "mosi.pkl"), format=format)
    samples = list(stream)
    assert description.aligned
    for sample in samples:
        assert (
            len(sample.sequences[AUDIO]) == len(sample.sequences[VISION]) == len(sample.words or ())
        )
        assert sample.sequences[AUDIO].all()
    side = "in front" if front else "at the end"
    assert any(f"vision: padded {side}" in sentence for sentence in description.decisions)


# Lengths beside arrays that say themselves how many frames there are


@pytest.mark.parametrize("offsets", [True, False])
def test_lengths_that_no_array_of_an_npz_agrees_with_are_refused(
    tmp_path: Path, write_table: Callable[..., Path], offsets: bool
) -> None:
    rows = [(f"v{n // 4}", str(n % 4), "x", "1", "train") for n in range(12)]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *rows)
    path, size = tmp_path / "a.npz", 2 if offsets else 1
    arrays: dict[str, Any] = {
        "ids": [f"{video}_{clip}" for video, clip, *_ in rows],
        "audio": np.random.default_rng(0).normal(size=(12 * size, 7)),
    }
    if offsets:
        arrays["offsets"] = np.arange(0, 25, 2)
    np.savez(path, lengths=np.full(12, 5), **arrays)
    with pytest.raises(UserError, match=r"a\.npz: .* contradicts lengths; --ignore-lengths"):
        _read(table, audio=path)
    options = ReadOptions(audio=path, ignore_lengths=True)
    description, samples = open_source(table, options=options)
    assert {len(sample.sequences[AUDIO]) for sample in samples} == {size}
    assert any("contradicts lengths, which are ignored" in note for note in description.notes)
    np.savez(path, lengths=np.full(12, size), **arrays)
    assert {len(sample.sequences[AUDIO]) for sample in _read(table, audio=path)} == {size}
