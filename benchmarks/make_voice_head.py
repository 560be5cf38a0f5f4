"""Make the head on voices: eight acted emotions from the states of a speech model, on RAVDESS.

    python benchmarks/make_voice_head.py

Run with ``make model-voice``; the clips' states are kept in ``runs/make-model/voice.npz``. A
logistic regression on mean and deviation over time; its strength is chosen, and its accuracy
measured, on actors left out. Writes ``src/tecafn/models/voice/``: head and card.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, data_root, markdown_table, stamp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tecafn.core.errors import UserError
from tecafn.data.readers.ravdess import EMOTIONS
from tecafn.evaluation.metrics import classification_metrics, confusion_matrix
from tecafn.extract.media import read_audio
from tecafn.extract.speech_model import find_speech_model
from tecafn.extract.voice import pooled, states_after
from tecafn.serving.builtin import CARD_FILE, VOICE
from tecafn.serving.voice import HEAD_FILE, VoiceHead

CARD = Path(__file__).resolve().parent / "models" / "voice-card.md"
OUT = ROOT / "src" / "tecafn" / "models" / VOICE
STRENGTHS = (0.003, 0.01, 0.03, 0.1)
NUM_FOLDS = 5
VALUES = "card.json"
BLOCKS = (2, 3)


def clips() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each clip with sound its vector, its emotion by number, and its actor."""
    kept = ROOT / "runs" / "make-model" / "voice.npz"
    if not kept.exists():
        folder = data_root() / "ravdess"
        vectors, emotions, actors = [], [], []
        for path in sorted((folder / "audio").iterdir()):
            numbers = path.stem.split("-")
            vectors.append(pooled(states_after(read_audio(path).samples, blocks=BLOCKS)))
            emotions.append(int(numbers[-5]) - 1)
            actors.append(int(numbers[-1]))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, vectors=np.stack(vectors), emotions=emotions, actors=actors)
    with np.load(kept) as found:
        return found["vectors"], found["emotions"], found["actors"]


def fitted(vectors: np.ndarray, emotions: np.ndarray, *, strength: float) -> VoiceHead:
    """A logistic regression on standardised columns, written as one linear map."""
    scaler = StandardScaler().fit(vectors)
    model = LogisticRegression(C=strength, max_iter=500)
    model.fit(scaler.transform(vectors), emotions)
    weight = model.coef_ / scaler.scale_
    return VoiceHead(
        emotions=EMOTIONS,
        weight=weight,
        bias=model.intercept_ - weight @ scaler.mean_,
        speech_model=find_speech_model().sha256,
        blocks=BLOCKS,
    )


def actors_apart(actors: np.ndarray) -> list[np.ndarray]:
    """Which rows each fold leaves out: of as many women (even numbers) as men."""
    order = [*np.unique(actors[actors % 2 == 1]), *np.unique(actors[actors % 2 == 0])]
    fold_of = {actor: number % NUM_FOLDS for number, actor in enumerate(order)}
    folds = np.array([fold_of[actor] for actor in actors])
    return [np.flatnonzero(folds == fold) for fold in range(NUM_FOLDS)]


def left_out(
    vectors: np.ndarray, emotions: np.ndarray, actors: np.ndarray, *, strength: float
) -> np.ndarray:
    """(N, 8) probabilities, each clip's by a head that has not heard its actor."""
    found = np.zeros((len(emotions), len(EMOTIONS)))
    for out in actors_apart(actors):
        rest = np.setdiff1d(np.arange(len(emotions)), out)
        head = fitted(vectors[rest], emotions[rest], strength=strength)
        found[out] = head.of(vectors[out])
    return found


def log_loss(probabilities: np.ndarray, emotions: np.ndarray) -> float:
    """The mean of minus the logarithm of the true emotion's probability."""
    return float(-np.log(probabilities[np.arange(len(emotions)), emotions]).mean())


def measure(vectors: np.ndarray, emotions: np.ndarray, actors: np.ndarray) -> dict[str, Any]:
    """Accuracy on actors left out of each strength, and all of the one with the least log loss."""
    found = {
        strength: left_out(vectors, emotions, actors, strength=strength) for strength in STRENGTHS
    }
    strength = min(found, key=lambda one: log_loss(found[one], emotions))
    answers = found[strength].argmax(axis=1)
    hits = answers == emotions
    random = np.random.default_rng(0)
    names = np.unique(actors)
    by_actor = np.array([hits[actors == actor].mean() for actor in names])
    resampled = by_actor[random.integers(0, len(names), (2000, len(names)))].mean(axis=1)
    return {
        "strength": strength,
        "strengths": {
            str(one): float((p.argmax(1) == emotions).mean()) for one, p in found.items()
        },
        "num_clips": len(emotions),
        "num_actors": len(names),
        "accuracy": float(hits.mean()),
        "interval": [float(end) for end in np.quantile(resampled, (0.025, 0.975))],
        "uar": classification_metrics(answers, emotions, "multiclass")["uar"],
        "log_loss": log_loss(found[strength], emotions),
        "confident": float(found[strength].max(axis=1).mean()),
        "confusion": confusion_matrix(answers, emotions, num_classes=len(EMOTIONS)).tolist(),
    }


def card(values: Mapping[str, Any]) -> str:
    """The head's card: ``models/voice-card.md`` with what was measured."""
    low, high = values["interval"]
    rows = [
        [emotion, *map(str, row), f"{100 * row[k] / max(sum(row), 1):.0f}"]
        for k, (emotion, row) in enumerate(zip(EMOTIONS, values["confusion"], strict=True))
    ]
    strengths = ", ".join(f"{100 * v:.1f} (C = {k})" for k, v in values["strengths"].items())
    return CARD.read_text(encoding="utf-8").format(
        kilobytes=f"{values['bytes'] / 1000:.0f}",
        num_clips=values["num_clips"],
        num_actors=values["num_actors"],
        accuracy=f"{100 * values['accuracy']:.1f}",
        low=f"{100 * low:.1f}",
        high=f"{100 * high:.1f}",
        uar=f"{100 * values['uar']:.1f}",
        log_loss=f"{values['log_loss']:.2f}",
        confident=f"{100 * values['confident']:.1f}",
        strength=values["strength"],
        strengths=strengths,
        confusion=markdown_table(["", *EMOTIONS, "recall, %"], rows),
        stamp=values["stamp"],
    )


def make(
    vectors: np.ndarray, emotions: np.ndarray, actors: np.ndarray, *, out: Path = OUT
) -> dict[str, Any]:
    """Measure on actors left out, fit on all, write head and card."""
    measured = measure(vectors, emotions, actors)
    size = fitted(vectors, emotions, strength=measured["strength"]).save(out)
    values = {"bytes": size, **measured, "stamp": stamp("make model-voice")}
    (out / VALUES).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (out / CARD_FILE).write_text(card(values), encoding="utf-8")
    return values


def main() -> None:
    """Make it and say how good it is."""
    values = make(*clips())
    low, high = values["interval"]
    print(
        f"{OUT.relative_to(ROOT) / HEAD_FILE}: {100 * values['accuracy']:.1f} % of "
        f"{values['num_clips']} clips of actors left out (95 %, actors resampled: {100 * low:.1f} "
        f"to {100 * high:.1f})"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
