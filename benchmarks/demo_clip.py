"""A clip without anybody's rights on it: a talk of half a minute, made on the spot.

    python benchmarks/demo_clip.py runs/demo-video/talk.webm

The face is the portrait of Rear Admiral Grace Hopper that Matplotlib ships (a work of the US Navy,
in the public domain), whose mouth is opened by moving pixels. The voice is no speech: it is a
source and resonances, a vowel per syllable, loud and high where the words are. The words are
written for it and lie beside it in a transcript with their times; nobody said them. For three
seconds the face goes, for three nobody speaks, so that a page shows both.
"""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from clips import RATE, make_clip  # noqa: E402
from people import scene  # noqa: E402
from sounds import through_formants, train  # noqa: E402

Floats = NDArray[np.float64]

PARAGRAPHS = (
    "I had waited a year for this film, and the first minutes were wonderful. "
    "The pictures are beautiful and the music is lovely.",
    "Then it gets slow. The story makes no sense, and the middle part is boring. "
    "I was really disappointed, it was awful to sit through.",
    "But the end is clever and warm. I laughed, I was moved, and I left happy. "
    "I would gladly see it again.",
)
FRAMES_PER_SECOND = 25
SIZE = (640, 360)
_PAUSES = {",": 0.2, ".": 0.6}
_SYLLABLE_SECONDS, _WORD_PAUSE_SECONDS, _PARAGRAPH_SECONDS = 0.17, 0.05, 3.0
# First three resonances of vowels, from the averages of men in Peterson and Barney, 1952.
_FORMANTS_HZ = {
    "a": (730.0, 1090.0, 2440.0),
    "e": (530.0, 1840.0, 2480.0),
    "i": (270.0, 2290.0, 3010.0),
    "o": (570.0, 840.0, 2410.0),
    "u": (300.0, 870.0, 2240.0),
    "y": (390.0, 1990.0, 2550.0),
}
_BANDWIDTHS_HZ = (80.0, 100.0, 150.0)
_FACELESS_SECONDS = (0.42, 3.0)  # share of the clip at which it begins; how long


@dataclass(frozen=True)
class Spoken:
    """A word, when it is said, and when each of its syllables begins."""

    text: str
    start: float
    end: float
    syllables: tuple[tuple[float, str], ...]


def spoken_words() -> list[Spoken]:
    """The words of the talk on its clock."""
    words, time = [], 1.0
    for paragraph in PARAGRAPHS:
        for text in paragraph.split():
            vowels = [group[0] for group in re.findall(r"[aeiouy]+", text.lower())] or ["e"]
            begins = [time + k * _SYLLABLE_SECONDS for k in range(len(vowels))]
            end = time + len(vowels) * _SYLLABLE_SECONDS
            words.append(Spoken(text, time, end, tuple(zip(begins, vowels, strict=True))))
            time = end + _PAUSES.get(text[-1], _WORD_PAUSE_SECONDS)
        time += _PARAGRAPH_SECONDS
    return words


def voice(words: list[Spoken], seconds: float) -> NDArray[np.float32]:
    """(N,) at 16 kHz: a vowel per syllable, whose pitch falls over a sentence and rises anew."""
    samples = np.zeros(round(seconds * RATE))
    since = 0
    for word in words:
        for time, vowel in word.syllables:
            pitch_hz = 190.0 - 3.0 * since + 8.0 * np.sin(1.7 * time)
            sound = through_formants(
                train(max(pitch_hz, 110.0), _SYLLABLE_SECONDS),
                formants_hz=_FORMANTS_HZ[vowel],
                bandwidths_hz=_BANDWIDTHS_HZ,
            )
            sound *= np.sin(np.pi * np.linspace(0.0, 1.0, len(sound))) ** 2
            at = round(time * RATE)
            samples[at : at + len(sound)] += sound[: max(len(samples) - at, 0)]
            since += 1
        since = 0 if word.text.endswith(".") else since
    return np.asarray(0.8 * samples / np.abs(samples).max(), np.float32)


def picture(words: list[Spoken], seconds: float, number: int) -> NDArray[np.uint8]:
    """(H, W, 3) of a frame: the portrait with the mouth as open as the syllable is loud."""
    time = number / FRAMES_PER_SECOND
    gone = _FACELESS_SECONDS[0] * seconds
    places = () if gone <= time < gone + _FACELESS_SECONDS[1] else (_place(time),)
    return scene(*places, size=SIZE, openings=(_opening(words, time),))


def _place(time: float) -> int:
    return round(192 + 14 * math.sin(0.5 * time))


def _opening(words: list[Spoken], time: float) -> float:
    for word in words:
        if word.start <= time < word.end:
            begin = max(begin for begin, _ in word.syllables if begin <= time)
            return float(np.sin(np.pi * (time - begin) / _SYLLABLE_SECONDS) ** 2)
    return 0.0


def make_talk(path: Path) -> Path:
    """Write the clip and, beside it, its transcript with the times of the words."""
    words = spoken_words()
    seconds = words[-1].end + 1.0
    path.parent.mkdir(parents=True, exist_ok=True)
    make_clip(
        path,
        times=[k / FRAMES_PER_SECOND for k in range(round(seconds * FRAMES_PER_SECOND))],
        picture=lambda number: picture(words, seconds, number),
        sounds=[voice(words, seconds)],
        video_codec="libvpx",
        audio_codec="libopus",
    )
    told = [{"word": word.text, "start": word.start, "end": word.end} for word in words]
    path.with_suffix(".json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(make_talk(Path(sys.argv[1])))
