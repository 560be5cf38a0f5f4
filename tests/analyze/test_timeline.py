"""Timelines: what is written is read again, and the schema describes it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from timelines import talk, timeline, utterance

from tecafn.analyze.timeline import Timeline, schema
from tecafn.core.errors import UserError

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "timeline.schema.json"


def test_a_saved_timeline_is_read_again_as_it_was(tmp_path: Path) -> None:
    one = talk(40.0)
    one.save(tmp_path / "timeline.json")
    assert Timeline.load(tmp_path / "timeline.json") == one


def test_the_schema_in_the_docs_is_the_codes_and_a_timeline_obeys_it(tmp_path: Path) -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema(), "run `make docs`"
    checker = jsonschema.Draft202012Validator(schema())
    checker.check_schema(schema())
    foreign = utterance(0.0, 2.0, None, out_of_range="de")
    for one in (talk(30.0), timeline([], duration=3.0), timeline([foreign], duration=3.0)):
        one.save(tmp_path / "timeline.json")
        checker.validate(json.loads((tmp_path / "timeline.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("key", "value"),
    [("duration", "long"), ("utterances", [{"start": 0}]), ("surprise", 1), ("scorer", None)],
)
def test_the_schema_and_the_reader_refuse_the_same(key: str, value: object) -> None:
    values = talk(20.0).as_dict() | {key: value}
    assert not jsonschema.Draft202012Validator(schema()).is_valid(values)
    with pytest.raises(UserError, match="this is no timeline"):
        Timeline.from_dict(values)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format_version": 2}'])
def test_a_file_that_is_no_timeline_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "timeline.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"timeline\.json"):
        Timeline.load(path)


def test_another_format_is_refused() -> None:
    with pytest.raises(UserError, match="format_version must be 1, got 2"):
        Timeline.from_dict(talk(20.0).as_dict() | {"format_version": 2})


def test_a_terminal_is_told_of_one_utterance_as_of_one() -> None:
    said = " ".join(timeline([utterance(0.0, 2.0, 1.0)], duration=3.0).in_words())
    assert ": 1 utterance, 100 % of the scored seconds positive" in said
    foreign = utterance(2.0, 4.0, None, out_of_range="de")
    both = [utterance(0.0, 1.0, 1.0), utterance(1.0, 2.0, -1.0), foreign]
    said = " ".join(timeline(both, duration=5.0).in_words())
    assert ": 2 utterances, 50 % of the scored seconds positive" in said
    assert "1 utterance without a score: the language (de) is out of the range of" in said
