"""A run of one's own that reads words, voice and face: how it scores and what each contributes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")

import tecafn
from tecafn.analyze.clip import timeline_of
from tecafn.analyze.html import render_page
from tecafn.analyze.scoring import SentimentModel, open_model
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, Sample, StoreWriter
from tecafn.extract.clip import ClipSettings
from tecafn.extract.clip_features import ClipFeatures, Segment
from tecafn.extract.words import Word

SETTINGS = ClipSettings(audio="measures", words="none")
CUT = dataclasses.replace(SETTINGS, words="missing", cut=True, measures=True)


def frames(rng: np.random.Generator, width: int, score: float = 0.0) -> np.ndarray:
    return (rng.normal(size=(12, width)) + score).astype(np.float32)


@pytest.fixture(scope="module")
def fused(tiny_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> SentimentModel:
    """Trained in a second on a store whose frames are described as ``extract`` describes its."""
    from tecafn.experiments.config import load_config
    from tecafn.experiments.run import train_run

    folder = tmp_path_factory.mktemp("fused")
    specs = SETTINGS.specifications()
    widths = {m: spec.width for m, spec in specs.items()}
    rng = np.random.default_rng(0)
    with StoreWriter(
        folder / "store",
        DatasetDescription(
            dataset="own-clips", widths=widths, features=specs, label_range=(-3.0, 3.0)
        ),
    ) as writer:
        for split, size in {"train": 16, "valid": 8, "test": 4}.items():
            for number in range(size):
                score = float(rng.uniform(-3, 3))
                name = f"{split}{number}"
                writer.add(
                    Sample(
                        id=name,
                        source_id=name,
                        video=name,
                        clip="1",
                        split=split,
                        text="the film was good" if score > 0 else "the film was bad",
                        label=score,
                        sequences={m: frames(rng, w, score) for m, w in widths.items()},
                    )
                )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        train_run(
            load_config(tiny_toml),
            data=folder / "store",
            out=folder / "run",
            device="cpu",
            progress=False,
        )
    return open_model(str(folder / "run"))


@pytest.fixture(scope="module")
def exported(fused: SentimentModel, tmp_path_factory: pytest.TempPathFactory) -> SentimentModel:
    """The same network as a graph."""
    out = tmp_path_factory.mktemp("exported") / "onnx"
    tecafn.export(fused.scorer.name, out=out)
    return open_model(str(out))


def cut_clip() -> ClipFeatures:
    """Two utterances; the second one without a face."""
    rng = np.random.default_rng(1)
    segments = []
    for start, text in ((0.0, "the film was good"), (5.0, "not very fine")):
        words = tuple(
            Word(word, start + 0.3 * k, start + 0.3 * k + 0.2)
            for k, word in enumerate(text.split())
        )
        sequences = {Modality.AUDIO: frames(rng, 35), Modality.VISION: frames(rng, 27)}
        if start:
            del sequences[Modality.VISION]
        end = words[-1].end
        segments.append(Segment(start=start, end=end, text=text, words=words, sequences=sequences))
    return ClipFeatures(
        duration=8.0,
        segments=tuple(segments),
        measures={Modality.AUDIO: np.tile(frames(rng, 35), (6, 1))},
    )


def test_the_clip_is_read_as_the_models_data_were(fused: SentimentModel) -> None:
    wanted = ClipSettings(face="left", max_hours=1.0)
    settings = fused.settings(wanted)
    assert settings == dataclasses.replace(CUT, face="left", max_hours=1.0)


def test_scores_are_the_models_on_each_utterances_frames(fused: SentimentModel) -> None:
    clip = cut_clip()
    one = timeline_of(clip, fused, clip="talk.mp4", made_from={})
    expected = fused.predictor.predict(
        text=[s.text for s in clip.segments],
        audio=[s.sequences[Modality.AUDIO] for s in clip.segments],
        vision=[s.sequences.get(Modality.VISION) for s in clip.segments],
    )
    assert [u.score for u in one.utterances] == pytest.approx(np.clip(expected, -3, 3), abs=1e-4)
    alone = fused.predictor.predict(text=[s.text for s in clip.segments])
    assert not np.allclose(alone, expected)
    assert [t.kind for t in one.tracks] == ["voice"] * 4  # of the whole clip


def test_contributions_add_up_to_the_score_and_stand_on_the_page(fused: SentimentModel) -> None:
    one = timeline_of(cut_clip(), fused, clip="talk.mp4", made_from={})
    for said in one.utterances:
        assert list(said.contributions) == ["text", "audio", "vision", "base"]
        assert sum(said.contributions.values()) == pytest.approx(said.score, abs=5e-4)
    assert one.utterances[1].contributions["vision"] == 0.0
    page = render_page(one, "talk.mp4")
    assert "the score comes from what the model reads: text, audio, vision" in page
    for name, value in one.utterances[0].contributions.items():
        assert f"{name} {value:+.2f}" in page


def test_an_exported_graph_gives_the_timeline_of_its_network(
    fused: SentimentModel, exported: SentimentModel
) -> None:
    assert exported.settings(ClipSettings()) == fused.settings(ClipSettings())
    segments = cut_clip().segments
    for ours, its in zip(exported.scored(segments), fused.scored(segments), strict=True):
        assert ours.score == pytest.approx(its.score, abs=1e-3)
        assert ours.contributions == pytest.approx(its.contributions, abs=1e-3)
        effects = [[word.effect for word in one.words] for one in (ours, its)]
        assert effects[0] == pytest.approx(effects[1], abs=1e-3)


def test_frames_that_are_made_otherwise_now_are_refused(fused: SentimentModel) -> None:
    specs = dict(fused.features)
    specs[Modality.AUDIO] = dataclasses.replace(specs[Modality.AUDIO], version=99)
    other = dataclasses.replace(fused, features=specs)
    with pytest.raises(UserError, match="version"):
        other.settings(ClipSettings())
