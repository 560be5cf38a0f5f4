"""Decoding: one clock, upright pictures, and a line for whatever cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import av
from clips import RATE, clicks, colours, corners, flash, make_clip, onsets

from tecafn.core.errors import UserError
from tecafn.extract import media

STEADY = [n / 25 for n in range(50)]
# A phone's frames: some late, some dropped, the longest gap 0.3 s.
UNEVEN = [0.0, 0.033, 0.066, 0.21, 0.25, 0.28, 0.58, 0.6, 0.7, 0.75, 0.8, 1.0, 1.1, 1.3, 1.5, 1.9]


def bright(path: Path) -> list[float]:
    """Times of the pictures that are white."""
    return [frame.time for frame in media.frames(path) if frame.image.mean() > 128]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_phones_video_is_upright(tmp_path: Path, rotation: int) -> None:
    stored = np.rot90(corners(), rotation // 90)  # anticlockwise: the player turns it back
    path = make_clip(
        tmp_path / "a.mp4", times=STEADY[:3], picture=lambda _: stored.copy(), rotation=rotation
    )
    found = list(media.frames(path))
    assert len(found) == 3
    assert found[0].image.shape == (96, 160, 3)
    assert colours(found[0].image) == [0, 1, 2, 3]
    assert media.probe(path).rotation == (360 - rotation) % 360


def test_a_wide_picture_is_scaled_as_it_is_shown(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", times=[0.0], rotation=90)
    (frame,) = media.frames(path, width=48)
    assert frame.image.shape == (80, 48, 3)
    (frame,) = media.frames(path, width=None)
    assert frame.image.shape == (160, 96, 3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize("times", [STEADY, UNEVEN], ids=["steady", "uneven"])
@pytest.mark.parametrize("sound_start", [0.0, 0.75])
def test_pictures_and_sound_share_one_clock(
    tmp_path: Path, suffix: str, times: list[float], sound_start: float
) -> None:
    white = [3 * len(times) // 4, len(times) - 2]
    path = make_clip(
        tmp_path / f"a.{suffix}",
        times=times,
        picture=lambda n: flash(n in white),
        sounds=[clicks([times[n] - sound_start for n in white], 2.0 - sound_start)],
        sound_start=sound_start,
        rotation=180 if suffix == "mp4" else 0,
    )
    seen = bright(path)
    audio = media.read_audio(path)
    heard = [audio.start + at for at in onsets(audio.samples, audio.rate)]
    assert np.allclose(np.diff(seen), times[white[1]] - times[white[0]], atol=0.002)
    assert len(heard) == len(seen) == 2
    assert np.abs(np.array(heard) - seen).max() < 0.015
    if suffix != "ts":
        assert np.allclose(seen, [times[n] for n in white], atol=0.04)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp3", "libmp3lame"), ("m4a", "aac"), ("flac", "flac"), ("wav", "pcm_s16le")],
)
def test_the_encoders_delay_does_not_shift_the_sound(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    path = make_clip(tmp_path / f"a.{suffix}", sounds=[clicks([0.5, 1.25], 2.0)], audio_codec=codec)
    audio = media.read_audio(path)
    heard = [audio.start + at for at in onsets(audio.samples, audio.rate)]
    assert np.allclose(heard, [0.5, 1.25], atol=0.005)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("stereo", [False, True])
def test_sound_comes_at_one_rate_without_a_shift(tmp_path: Path, rate: int, stereo: bool) -> None:
    path = make_clip(
        tmp_path / "a.wav",
        sounds=[clicks([0.5, 1.25], 2.0, rate)],
        rate=rate,
        audio_codec="pcm_s16le",
        stereo=stereo,
    )
    audio = media.read_audio(path)
    assert (audio.rate, audio.native_rate) == (RATE, rate)
    assert abs(audio.num_samples - 2 * RATE) <= 2
    assert np.allclose(onsets(audio.samples, RATE), [0.5, 1.25], atol=0.002)
    assert np.abs(audio.samples).max() == pytest.approx(0.8, abs=0.05)
    own = media.read_audio(path, rate=None)
    assert (own.rate, own.num_samples) == (rate, 2 * rate)


def test_reading_long_sound_tells_how_far_it_is(tmp_path: Path) -> None:
    path = make_clip(
        tmp_path / "a.wav", sounds=[np.zeros(150 * 8000, np.float32)], rate=8000,
        audio_codec="pcm_s16le",
    )  # fmt: skip
    told: list[float] = []
    assert media.read_audio(path, progress=told.append).duration == pytest.approx(150, abs=0.1)
    assert told == pytest.approx([60, 120], abs=1)


def test_a_gap_in_the_sound_is_silence_of_its_length(tmp_path: Path) -> None:
    samples = clicks([0.2, 1.6], 2.0)
    path = make_clip(tmp_path / "a.mkv", sounds=[samples], audio_codec="pcm_s16le", gap=(0.5, 1.2))
    audio = media.read_audio(path)
    assert np.allclose(onsets(audio.samples, RATE), [0.2, 1.6], atol=0.005)
    assert any("gap" in remark for remark in audio.remarks)


def test_of_several_tracks_the_first_is_read_and_said(tmp_path: Path) -> None:
    path = make_clip(
        tmp_path / "a.mkv",
        times=STEADY,
        sounds=[clicks([0.5], 2.0), clicks([1.0], 2.0)],
        languages=["eng", "ger"],
    )
    audio = media.read_audio(path)
    assert np.allclose(onsets(audio.samples, RATE), [0.5], atol=0.01)
    assert audio.remarks == ["2 audio tracks; track 1 (eng) is read"]
    other = media.read_audio(path, track=2)
    assert np.allclose(onsets(other.samples, RATE), [1.0], atol=0.01)
    with pytest.raises(UserError, match="no audio track 7; there is: 1, 2"):
        media.read_audio(path, track=7)


def test_a_clip_may_lack_sound_or_video(tmp_path: Path) -> None:
    silent = make_clip(tmp_path / "silent.mp4", times=STEADY)
    blind = make_clip(tmp_path / "blind.m4a", sounds=[clicks([0.5], 2.0)])
    assert (media.probe(silent).has_video, media.probe(silent).has_audio) == (True, False)
    assert (media.probe(blind).has_video, media.probe(blind).has_audio) == (False, True)
    with pytest.raises(UserError, match=r"silent\.mp4: there is no sound in it"):
        media.read_audio(silent)
    with pytest.raises(UserError, match=r"blind\.m4a: there is no video in it"):
        media.frames(blind)


def test_frames_are_counted_as_they_are_decoded(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", times=UNEVEN)
    found = media.frames(path)
    times = [frame.time for frame in found]
    assert found.num_frames == len(times) == len(UNEVEN)
    assert np.allclose(times, UNEVEN, atol=0.001)
    assert found.remarks == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_truncated_file_says_where_it_ends_or_that_it_cannot_be_read(
    tmp_path: Path, suffix: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 96, 160, 3), np.uint8)
    path = make_clip(
        tmp_path / f"a.{suffix}",
        times=[n / 10 for n in range(50)],
        picture=lambda n: noise[n],
        sounds=[clicks([0.5], 5.0)],
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if suffix == "mp4":  # its index is at the end
        with pytest.raises(UserError, match=r"a\.mp4: cannot be read as video or sound: "):
            media.frames(path)
        return
    found = media.frames(path)
    assert 10 < len(list(found)) < 40
    if suffix == "mkv":  # MPEG-TS declares no end
        assert any("truncated" in remark for remark in found.remarks)
        assert any("truncated" in remark for remark in media.read_audio(path).remarks)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"This is a text file.\n" * 50, "cannot be read as video or sound: Invalid data"),
        (bytes(4096), "cannot be read as video or sound: Invalid data"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.ts\n", "cannot be read"),
        (b"ffconcat version 1.0\nfile other.mkv\n", "cannot be read"),
    ],
)
def test_what_is_no_video_is_a_line(tmp_path: Path, content: bytes, said: str) -> None:
    other = make_clip(tmp_path / "other.mkv", times=STEADY)
    other.rename(tmp_path / "other.ts") if b"other.ts" in content else None
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    for read in (media.probe, media.frames, media.read_audio):
        with pytest.raises(UserError, match=said) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        media.probe(tmp_path / "none.mp4")
    with pytest.raises(UserError, match="is not a file"):
        media.probe(tmp_path)


def test_damaged_packets_are_left_out_and_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 96, 160, 3), np.uint8)
    path = make_clip(tmp_path / "a.mkv", times=STEADY, picture=lambda n: noise[n])
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(1)
    for at in generator.integers(2000, len(data), 200):
        data[at] ^= 255
    path.write_bytes(bytes(data))
    found = media.frames(path)
    times = [frame.time for frame in found]
    assert len(times) > 5
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("rate", [1, 100, 2_000_000_000])
def test_a_rate_that_no_recorder_has_is_a_line(tmp_path: Path, rate: int) -> None:
    path = make_clip(tmp_path / "a.wav", sounds=[clicks([0.5], 1.0)], audio_codec="pcm_s16le")
    data = bytearray(path.read_bytes())
    at = data.find(b"fmt ") + 12
    data[at : at + 4] = rate.to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"a\.wav: ") as caught:
        media.read_audio(path)
    assert "\n" not in str(caught.value)


def test_what_decodes_and_cannot_be_converted_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(tmp_path / "a.mkv", times=STEADY[:6], sounds=[clicks([0.1], 0.24)])
    upright, mono = media._upright, media._Listener._mono
    calls = {"picture": 0, "sound": 0}

    def fails(kind: str) -> bool:
        calls[kind] += 1
        return calls[kind] == 2

    def some_pictures(*arguments: Any) -> Any:
        if fails("picture"):
            raise av.error.ArgumentError(22, "Invalid argument")
        return upright(*arguments)

    def some_sounds(*arguments: Any) -> Any:
        if fails("sound"):
            raise av.error.ArgumentError(22, "Failed to configure output pad on auto_aresample_0")
        return mono(*arguments)

    monkeypatch.setattr(media, "_upright", some_pictures)
    monkeypatch.setattr(media._Listener, "_mono", some_sounds)
    found = media.frames(path)
    assert len(list(found)) == 5
    assert found.remarks == ["1 damaged pictures left out"]
    audio = media.read_audio(path)
    assert audio.remarks[0] == "1 damaged pieces of sound left out"
    assert audio.duration > 0.1


def test_a_longer_clip_than_allowed_is_refused_by_name(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", times=STEADY, sounds=[clicks([0.5], 2.0)])
    for read in (media.frames, media.read_audio):
        with pytest.raises(UserError, match=r"more than the 0\.0001 allowed; .* --max-hours"):
            read(path, max_hours=0.0001)


def test_long_sound_lies_on_disk_and_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_SECONDS_IN_MEMORY", 5.0)
    samples = clicks([0.5, 4.95, 6.5], 8.0)
    path = make_clip(tmp_path / "a.wav", sounds=[samples], audio_codec="pcm_s16le")
    audio = media.read_audio(path)
    assert audio.num_samples == len(samples)
    assert audio._file is not None
    part = samples[int(4.9 * RATE) : int(5.1 * RATE)]
    assert np.allclose(audio.read(4.9, 5.1), part, atol=1e-4)
    pieces = list(audio.pieces(3.0))
    assert [round(start) for start, _ in pieces] == [0, 3, 6]
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), audio.samples)


def test_sound_is_read_by_the_clips_clock() -> None:
    audio = media.Audio.of(np.arange(16, dtype=np.float32), rate=8, start=1.0)
    assert audio.read(1.5, 2.0).tolist() == [4, 5, 6, 7]
    assert audio.read(0.0, 1.25).tolist() == [0, 1]
    assert audio.read(9.0, 10.0).tolist() == []
