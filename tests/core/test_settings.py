"""Settings of a part of a method, and of each modality."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tecafn.core.modality import Modality
from tecafn.core.settings import per_modality, select


@dataclass(frozen=True)
class Part:
    dim: int
    dropout: float = 0.5


@dataclass(frozen=True)
class Config:
    dim: int = 30
    audio_dim: int = 16
    vision_dim: int = 0


def test_fields_of_the_same_name_are_taken_and_those_given_come_first() -> None:
    assert select(Config(), Part, dropout=0.1) == Part(30, 0.1)
    assert select(Config(), Part, dim=4, dropout=0.1) == Part(4, 0.1)


def test_a_field_the_config_lacks_is_asked_for_even_where_it_has_a_default() -> None:
    with pytest.raises(TypeError, match="Config has no dropout, which Part needs"):
        select(Config(), Part)


def test_a_field_that_the_part_lacks_is_refused() -> None:
    with pytest.raises(TypeError, match="width"):
        select(Config(), Part, dropout=0.1, width=3)


def test_a_setting_of_some_modalities_leaves_the_others_out() -> None:
    assert per_modality(Config(), "dim") == {Modality.AUDIO: 16, Modality.VISION: 0}
    with pytest.raises(TypeError, match="Config has none of text_width, audio_width, vision_width"):
        per_modality(Config(), "width")
