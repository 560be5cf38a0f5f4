"""Measures of the voice and of the face, chosen and named for a reader's eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tecafn.analyze.timeline import Track
from tecafn.extract.face import COLUMNS as FACE_COLUMNS
from tecafn.extract.voice import COLUMNS as VOICE_COLUMNS

Frames = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """How a track is made: a mean of columns, where another column says that there is one."""

    name: str
    label: str
    unit: str
    meaning: str
    columns: tuple[str, ...]
    digits: int
    only_where: str = ""


_VOICE: Final = (
    _Shown(
        name="f0_hz",
        label="Pitch (F0)",
        unit="Hz",
        meaning="fundamental frequency, where the voice is voiced",
        columns=("f0_hz",),
        digits=1,
        only_where="voiced",
    ),
    _Shown(
        name="energy_db",
        label="Loudness",
        unit="dB",
        meaning="mean square of the sound relative to full scale",
        columns=("energy_db",),
        digits=1,
    ),
    _Shown(
        name="syllables_per_second",
        label="Speech rate",
        unit="syllables/s",
        meaning="voiced peaks of energy in the two seconds around",
        columns=("syllables_per_second",),
        digits=2,
    ),
    _Shown(
        name="hnr_db",
        label="Clearness (HNR)",
        unit="dB",
        meaning="harmonics to noise, where the voice is voiced: low is hoarse or breathy",
        columns=("hnr_db",),
        digits=1,
        only_where="voiced",
    ),
)
_FACE: Final = (
    _Shown(
        name="lip_corners",
        label="Lip corners",
        unit="",
        meaning="height above the lips' middle, in distances between the eyes: higher in a smile",
        columns=("lip_corner_right", "lip_corner_left"),
        digits=4,
    ),
    _Shown(
        name="mouth_opening",
        label="Mouth opening",
        unit="",
        meaning="between the lips, in distances between the eyes",
        columns=("mouth_opening",),
        digits=4,
    ),
    _Shown(
        name="brows",
        label="Brows",
        unit="",
        meaning="height above the corners of the eyes, in distances between the eyes",
        columns=("brow_inner_right", "brow_inner_left", "brow_outer_right", "brow_outer_left"),
        digits=4,
    ),
    _Shown(
        name="blink",
        label="Blinks",
        unit="",
        meaning="share of the moment in which both eyes are closed",
        columns=("blink",),
        digits=2,
    ),
    _Shown(
        name="gaze_x",
        label="Gaze sideways",
        unit="",
        meaning="irises against the corners of the eyes, in eye widths: to the picture's right",
        columns=("gaze_right_x", "gaze_left_x"),
        digits=3,
    ),
    _Shown(
        name="head_yaw_deg",
        label="Head turned",
        unit="degrees",
        meaning="to the picture's right",
        columns=("head_yaw_deg",),
        digits=1,
    ),
    _Shown(
        name="head_pitch_deg",
        label="Head raised",
        unit="degrees",
        meaning="looking up",
        columns=("head_pitch_deg",),
        digits=1,
    ),
)


def voice_tracks(frames: Frames | None, *, frames_per_second: float) -> tuple[Track, ...]:
    """Tracks of the voice.

    Args:
        frames: (L, 35) with the columns of ``extract.voice.COLUMNS``, NaN where nothing is heard;
            None = there is no sound.
        frames_per_second: of them.
    """
    return _tracks(frames, VOICE_COLUMNS, _VOICE, "voice", frames_per_second)


def face_tracks(frames: Frames | None, *, frames_per_second: float) -> tuple[Track, ...]:
    """Tracks of the face.

    Args:
        frames: (L, 27) with the columns of ``extract.face.COLUMNS``, NaN where none is seen; None
            = there is no face, or whose it is is unknown.
        frames_per_second: of them.
    """
    return _tracks(frames, FACE_COLUMNS, _FACE, "face", frames_per_second)


def spans_of(frames: Frames | None, *, frames_per_second: float) -> list[tuple[float, float]]:
    """Seconds in which frames are there.

    Example:
        >>> spans_of(np.array([[1.0], [np.nan], [2.0], [3.0]]), frames_per_second=10.0)
        [(0.0, 0.1), (0.2, 0.4)]
    """
    if frames is None or not len(frames):
        return []
    seen = np.isfinite(frames).all(axis=1).astype(np.int8)
    edges = np.flatnonzero(np.diff(seen, prepend=0, append=0))
    return [
        (float(first) / frames_per_second, float(last) / frames_per_second)
        for first, last in zip(edges[::2], edges[1::2], strict=True)
    ]


def _tracks(
    frames: Frames | None,
    columns: Sequence[str],
    shown: Sequence[_Shown],
    kind: Literal["voice", "face"],
    rate: float,
) -> tuple[Track, ...]:
    if frames is None:
        return ()
    places = {name: number for number, name in enumerate(columns)}
    tracks = []
    for one in shown:
        values = frames[:, [places[name] for name in one.columns]].astype(np.float64).mean(axis=1)
        if one.only_where:
            # A frame is a mean of shorter ones: what is not voiced counts as 0 in it.
            share = frames[:, places[one.only_where]].astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(share >= 0.5, values / share, np.nan)
        tracks.append(
            Track(
                name=one.name,
                label=one.label,
                kind=kind,
                unit=one.unit,
                meaning=one.meaning,
                frames_per_second=rate,
                values=tuple(
                    round(float(v), one.digits) if np.isfinite(v) else None for v in values
                ),
            )
        )
    return tuple(tracks)
