"""Sequences for the samples of a reader that knows which file each of them is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.extract.media import read_audio
from tecafn.extract.voice import AudioTrack


def with_sound(
    description: DatasetDescription,
    samples: Iterator[Sample],
    track: AudioTrack,
    *,
    note: Callable[[str], None] = print,
) -> tuple[DatasetDescription, Iterator[Sample]]:
    """The same samples with the audio sequence of each one's file; one at a time.

    A sample without a file, or whose file has no sound or cannot be read, lacks audio; why a file
    has none is said.

    Args:
        description: of the dataset; what the sequences are is added.
        samples: with their ``media``.
        track: what makes a sequence.
        note: takes a sentence per file that has no sequence.
    """
    described = replace(
        description,
        widths={**description.widths, Modality.AUDIO: track.width},
        features={**description.features, Modality.AUDIO: track.spec},
        allowed=(*description.allowed, missing_frames_of(Modality.AUDIO)),
    )
    return described, _with_sound(samples, track, note)


def _with_sound(
    samples: Iterator[Sample], track: AudioTrack, note: Callable[[str], None]
) -> Iterator[Sample]:
    for sample in samples:
        if sample.media is None:
            yield sample
            continue
        try:
            audio = read_audio(sample.media)
        except UserError as error:
            note(f"{sample.id} has no audio: {error}")
            yield sample
            continue
        if not audio.num_samples:
            note(f"{sample.id} has no audio: {sample.media.name} has no sound")
            yield sample
            continue
        _, frames = track(audio.samples, native_rate_hz=audio.native_rate)
        yield replace(sample, sequences={**sample.sequences, Modality.AUDIO: frames})
