"""What guarded processes do with a clip; imports nothing that they need not wait for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tecafn.extract import media
from tecafn.extract.clip import ClipSettings, extract_clip, words_of_clip
from tecafn.extract.clip_features import ClipFeatures
from tecafn.extract.words import Transcript

Tell = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A clip to be read.

    Args:
        path: of the clip.
        settings: as the model wants it to be read.
        transcript: what somebody wrote down; None = it is heard.
        said: the words, where they are known already.
    """

    path: Path
    settings: ClipSettings
    transcript: Path | None = None
    said: Transcript | None = None


def probe(path: Path, _: Tell) -> media.Media:
    """What a clip holds.

    Raises:
        UserError: it is none.
    """
    return media.probe(path)


def words_of(reading: Reading, tell: Tell) -> Transcript:
    """What is said in a clip.

    Raises:
        UserError: see ``words_of_clip``.
    """
    return words_of_clip(reading.path, reading.settings, transcript=reading.transcript, tell=tell)


def features_of(reading: Reading, tell: Tell) -> ClipFeatures:
    """What is seen and heard in a clip.

    Raises:
        UserError: see ``extract_clip``.
    """
    return extract_clip(reading.path, reading.settings, said=reading.said, tell=tell)
