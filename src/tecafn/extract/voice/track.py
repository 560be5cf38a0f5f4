"""The audio sequence of an utterance: measures, a speech model's states, or both on one clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError, nearest_known
from tecafn.core.feature_spec import FeatureSpec
from tecafn.extract.speech_model import SpeechModel, find_speech_model
from tecafn.extract.voice import measuring, whisper
from tecafn.extract.voice.signal import RATE_HZ, Samples

AudioKind = Literal["measures", "whisper", "both"]
AUDIO_KINDS: tuple[AudioKind, ...] = get_args(AudioKind)

VERSION = 1
"""Of the definitions of measures and states; raised whenever a change moves a number."""

_NATIVE_RATE: Mapping[str, int] = {
    "measures": measuring.FRAMES_PER_SECOND,
    "whisper": whisper.STATES_PER_SECOND,
    "both": whisper.STATES_PER_SECOND,
}


@dataclass(frozen=True)
class AudioTrack:
    """Makes the audio sequence of utterances.

    Args:
        kind: ``measures`` (35 columns, 100 per second), ``whisper`` (384, 50 per second) or
            ``both`` (measures averaged to 50 per second, then states).
        frames_per_second: fewer than that are means over neighbouring frames; it must divide the
            kind's own rate. None = that rate.
        block: of the encoder, after which states are taken.
        model: whose states; None for measures.

    Example:
        >>> track = audio_track("measures", frames_per_second=10)
        >>> times, values = track(np.zeros(16_000, np.float32))
        >>> values.shape, track.spec.frames_per_second
        ((10, 35), 10.0)
    """

    kind: AudioKind
    frames_per_second: int
    block: int
    model: SpeechModel | None

    def __call__(
        self, samples: Samples, *, start: float = 0.0, native_rate_hz: int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Times (n,) in seconds and frames (n, D) of one utterance.

        Args:
            samples: (N,) float32 at 16 kHz.
            start: seconds of the first sample.
            native_rate_hz: what the sound was recorded at.

        Raises:
            UserError: the model's file is damaged, or a sample is no finite number.
        """
        parts = []
        if self.kind != "whisper":
            found = measuring.measures(samples, RATE_HZ, native_rate_hz=native_rate_hz)
            rate = measuring.FRAMES_PER_SECOND
            parts.append(_averaged(found.values, rate // self.frames_per_second))
        if self.kind != "measures":
            assert self.model is not None, "states come from a model"
            _, states = whisper.whisper_states(samples, model=self.model, block=self.block)
            parts.append(_averaged(states, whisper.STATES_PER_SECOND // self.frames_per_second))
        length = min(len(part) for part in parts)
        values = np.concatenate([part[:length] for part in parts], axis=1)
        return start + (np.arange(length) + 0.5) / self.frames_per_second, values

    @property
    def width(self) -> int:
        """D."""
        measured = 0 if self.kind == "whisper" else len(measuring.COLUMNS)
        if self.model is None:
            return measured
        return measured + whisper.load_encoder(self.model, block=self.block).width

    @property
    def spec(self) -> FeatureSpec:
        """What the columns are, for the store and the models that are trained on it."""
        settings: dict[str, str | int | float | bool] = {}
        if self.kind != "measures":
            settings["block"] = self.block
        columns: tuple[str, ...] = () if self.kind == "whisper" else measuring.COLUMNS
        if self.kind == "both":
            columns += tuple(f"whisper_{k}" for k in range(self.width - len(columns)))
        return FeatureSpec(
            extractor={
                "measures": "voice-measures",
                "whisper": "whisper-states",
                "both": "voice-measures-and-whisper-states",
            }[self.kind],
            version=VERSION,
            width=self.width,
            frames_per_second=float(self.frames_per_second),
            columns=columns,
            models={} if self.model is None else {"speech": self.model.sha256},
            settings=settings,
        )


def audio_track(
    kind: str = "whisper",
    *,
    frames_per_second: int | None = None,
    block: int = whisper.DEFAULT_BLOCK,
    speech_model: str | None = None,
) -> AudioTrack:
    """What makes the audio sequences of a dataset.

    Args:
        kind: one of ``AUDIO_KINDS``.
        frames_per_second: see ``AudioTrack``.
        block: see ``AudioTrack``.
        speech_model: see ``find_speech_model``.

    Raises:
        UserError: an unknown kind, a rate that does not divide the kind's own, no such model.
    """
    if kind not in AUDIO_KINDS:
        raise UserError(
            f"audio must be measures, whisper or both: {nearest_known(kind, AUDIO_KINDS)}"
        )
    native = _NATIVE_RATE[kind]
    rate = frames_per_second or native
    if not 1 <= rate <= native or native % rate:
        raise UserError(f"audio frames per second must divide {native} for {kind}, got {rate}")
    model = None if kind == "measures" else find_speech_model(speech_model)
    return AudioTrack(kind, rate, block, model)


def _averaged(values: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """Means of each ``number`` frames in a row; the last of what is left."""
    if number == 1 or not len(values):
        return values
    starts = np.arange(0, len(values), number)
    sums = np.add.reduceat(values.astype(np.float64), starts, axis=0)
    counts = np.diff(np.append(starts, len(values)))
    return np.asarray(sums / counts[:, None], np.float32)
