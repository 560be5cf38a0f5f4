"""Video and sound files made by tests, in which what is shown and heard when is known."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Picture = Callable[[int], NDArray[np.uint8]]
RATE = 16_000
# Corners of a picture as it is meant to be seen, clockwise from the top left.
CORNERS = ((200, 30, 30), (30, 200, 30), (220, 220, 220), (30, 30, 200))
_MATRICES = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}  # clockwise, as a player turns the stored picture


def corners(width: int = 160, height: int = 96) -> NDArray[np.uint8]:
    """(H, W, 3) with a colour in each corner."""
    image = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    image[:top, :left], image[:top, left:] = CORNERS[0], CORNERS[1]
    image[top:, left:], image[top:, :left] = CORNERS[2], CORNERS[3]
    return image


def colours(image: NDArray[np.uint8]) -> list[int]:
    """Which of ``CORNERS`` each corner shows, clockwise from the top left."""
    height, width = image.shape[:2]
    places = [
        (height // 4, width // 4),
        (height // 4, 3 * width // 4),
        (3 * height // 4, 3 * width // 4),
        (3 * height // 4, width // 4),
    ]
    known = np.array(CORNERS, float)
    return [int(np.abs(known - image[y, x].astype(float)).sum(axis=1).argmin()) for y, x in places]


def flash(is_bright: bool, width: int = 160, height: int = 96) -> NDArray[np.uint8]:
    """(H, W, 3), white or black."""
    return np.full((height, width, 3), 255 if is_bright else 0, np.uint8)


def clicks(times: Sequence[float], duration: float, rate: int = RATE) -> NDArray[np.float32]:
    """(N,) silence with a burst of 1 kHz, 20 ms long, at each time."""
    samples = np.zeros(round(duration * rate), np.float32)
    burst = np.sin(2 * np.pi * 1000 * np.arange(round(0.02 * rate)) / rate).astype(np.float32)
    for time in times:
        at = round(time * rate)
        part = samples[at : at + len(burst)]
        part += 0.8 * burst[: len(part)]
    return samples


def onsets(samples: NDArray[np.float32], rate: int, quiet: float = 0.1) -> list[float]:
    """Seconds at which a burst begins after at least ``quiet`` seconds of silence."""
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    if not len(loud):
        return []
    first = np.concatenate([[True], np.diff(loud) > quiet * rate])
    return [float(at) / rate for at in loud[first]]


def make_clip(
    path: Path,
    *,
    times: Sequence[float] = (),
    picture: Picture | None = None,
    sounds: Sequence[NDArray[np.float32]] = (),
    rate: int = RATE,
    sound_start: float = 0.0,
    rotation: int = 0,
    video_codec: str = "mpeg4",
    audio_codec: str = "aac",
    stereo: bool = False,
    gap: tuple[float, float] | None = None,
    languages: Sequence[str] = (),
) -> Path:
    """Write a clip.

    Args:
        path: its suffix chooses the container.
        times: seconds of each picture; empty = no video.
        picture: number of a picture to (H, W, 3); by default ``corners``.
        sounds: one array of samples per audio track.
        rate: samples per second.
        sound_start: seconds at which the sound begins.
        rotation: degrees clockwise that a player shall turn the stored pictures (mp4, mov).
        video_codec: by its name in FFmpeg.
        audio_codec: by its name in FFmpeg.
        stereo: two channels that say the same.
        gap: (from, to) seconds of sound that the file leaves out.
        languages: of the audio tracks.
    """
    picture = picture or (lambda _: corners())
    with av.open(str(path), "w") as out:
        video: Any = None
        if len(times):
            first = picture(0)
            video = out.add_stream(video_codec, rate=30)
            video.width, video.height = first.shape[1], first.shape[0]
            video.pix_fmt = "yuv420p"
            video.bit_rate = 2_000_000
            video.codec_context.time_base = Fraction(1, 3000)
        audios: list[Any] = []
        for number in range(len(sounds)):
            layout = "stereo" if stereo else "mono"
            audio = out.add_stream(audio_codec, rate=rate, layout=layout)
            if number < len(languages):
                audio.metadata["language"] = languages[number]
            audios.append(audio)
        packets: list[tuple[float, Any]] = []
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = round(time * 3000)
            frame.time_base = Fraction(1, 3000)
            packets += [(_seconds(p), p) for p in video.encode(frame)]
        if video is not None:
            packets += [(_seconds(p), p) for p in video.encode(None)]
        for audio, samples in zip(audios, sounds, strict=True):
            packets += _encoded(audio, samples, rate, sound_start, stereo=stereo, gap=gap)
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            out.mux(packet)
    if rotation:
        turn(path, rotation)
    return path


def _seconds(packet: Any) -> float:
    return float((packet.dts if packet.dts is not None else 0) * packet.time_base)


def _encoded(
    audio: Any,
    samples: NDArray[np.float32],
    rate: int,
    start: float,
    *,
    stereo: bool,
    gap: tuple[float, float] | None,
) -> list[tuple[float, Any]]:
    packets = []
    kind = audio.codec_context.format.name
    size = audio.codec_context.frame_size or 1024
    for at in range(0, len(samples), size):
        if gap and gap[0] <= at / rate < gap[1]:
            continue
        block = samples[at : at + size]
        planes = np.stack([block, block]) if stereo else block[None]
        if not kind.startswith("flt"):
            planes = (np.clip(planes, -1, 1) * 32767).astype(np.int16)
        name = ("flt" if kind.startswith("flt") else "s16") + "p"
        if not kind.endswith("p"):
            planes, name = planes.T.reshape(1, -1), name[:-1]
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(planes), format=name, layout="stereo" if stereo else "mono"
        )
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = round(start * rate) + at
        packets += [(_seconds(p), p) for p in audio.encode(frame)]
    return packets + [(_seconds(p), p) for p in audio.encode(None)]


def turn(path: Path, clockwise: int) -> None:
    """Write a display matrix into the track headers of an mp4 or mov."""
    data = bytearray(path.read_bytes())
    a, b, c, d = _MATRICES[clockwise]
    one, corner = 1 << 16, 1 << 30
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, corner)
    at = data.find(b"tkhd")
    assert at > 0
    while at > 0:
        # Version 0: flags, 5 x 32 bits, 8 reserved bytes, 4 x 16 bits, then the matrix.
        assert data[at + 4] == 0
        begin = at + 8 + 20 + 8 + 8
        if struct.unpack(">I", data[begin + 36 : begin + 40])[0]:  # a width: it is the video
            data[begin : begin + 36] = matrix
        at = data.find(b"tkhd", at + 4)
    path.write_bytes(bytes(data))
