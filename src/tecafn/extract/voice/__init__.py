"""What a voice does besides saying words: named measures, and a speech model's states."""

from tecafn.extract.voice.measuring import COLUMNS, FRAMES_PER_SECOND, Measures, measures
from tecafn.extract.voice.track import AUDIO_KINDS, AudioTrack, audio_track
from tecafn.extract.voice.whisper import (
    FEWEST_STATES,
    STATES_PER_SECOND,
    pooled,
    states_after,
    whisper_states,
)

__all__ = [
    "AUDIO_KINDS",
    "COLUMNS",
    "FEWEST_STATES",
    "FRAMES_PER_SECOND",
    "STATES_PER_SECOND",
    "AudioTrack",
    "Measures",
    "audio_track",
    "measures",
    "pooled",
    "states_after",
    "whisper_states",
]
