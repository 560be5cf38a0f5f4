"""The names of the three modalities. Imports nothing, so that data is read without torch."""

from __future__ import annotations

from enum import StrEnum


class Modality(StrEnum):
    """The three channels of a speaker; papers also write language, acoustic, visual."""

    TEXT = "text"
    AUDIO = "audio"
    VISION = "vision"
