"""RAVDESS, eight emotions of actors that were not seen: sound and action units.

Run with ``make bench-ravdess``; a killed run continues where it was. Writes
``docs/results/ravdess.md``. ``--methods concat,lmf`` and ``--seeds 0,1`` train some alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import ROOT, data_root, markdown_table, write_results
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.readers.ravdess import EMOTIONS
from tecafn.data.store import SplitView, Store
from tecafn.evaluation.metrics import classification_metrics, confusion_matrix
from tecafn.evaluation.significance import paired_difference
from tecafn.experiments.config import load_config
from tecafn.experiments.cross_validation import OUT_OF_FOLD, cross_validate_run, video_folds
from tecafn.experiments.shipped import find_config
from tecafn.extract.clip import ClipSettings
from tecafn.extract.folder import extract_folder
from tecafn.records.predictions import read_predictions
from tecafn.records.record import read_record

FOLDS = 5
FRAMES_PER_SECOND = 5
METHODS = ("tecafn", "concat", "lmf", "tfn", "misa", "bimha", "mult")
NAMES = {"tecafn": "AeCaFN (TeCaFN, core audio)"}
_REGULARISATION = 0.03


def ravdess_store(folder: Path) -> Path:
    """Whisper's states as means over .2 s, and the action units, extracted if not there yet."""
    store = folder / "store"
    if not store.exists():
        settings = ClipSettings(audio="whisper", frames_per_second=FRAMES_PER_SECOND)
        extract_folder(data_root() / "ravdess", None, out=store, settings=settings)
    return store


def train(method: str, seed: int, *, data: Path, out: Path) -> Path:
    """One method's out-of-fold predictions; what is finished is not done again."""
    run = out / method / f"seed-{seed}"
    if not (run / "record.json").exists():
        print(f"cross-validating {method}, seed {seed}", flush=True)
        cross_validate_run(
            load_config(find_config(Path(f"ravdess/{method}.toml")), [f"seed={seed}"]),
            data=data,
            out=run,
            by="video",
            num_folds=FOLDS,
            resume=True,
            device="cpu",
            progress=False,
        )
    return run


def probe(pool: SplitView, modalities: Sequence[Modality]) -> np.ndarray:
    """(N,) out-of-fold classes of a logistic regression on mean and deviation over time.

    Trained on all clips with sound of the other folds: a probe chooses no epoch, so it needs no
    validation fold.
    """
    table = np.stack([_vector(pool, row, modalities) for row in range(len(pool))])
    labels = np.asarray(pool.labels, np.int64)
    heard = pool.lengths(Modality.AUDIO) > 0
    answers = np.zeros(len(pool), np.int64)
    for fold in video_folds(pool.videos, num_folds=FOLDS, seed=0):
        rows = np.concatenate([fold.train, fold.valid])
        rows = rows[heard[rows]]
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=_REGULARISATION, max_iter=1_000)
        )
        answers[fold.held_out] = model.fit(table[rows], labels[rows]).predict(table[fold.held_out])
    return answers


def _vector(pool: SplitView, row: int, modalities: Sequence[Modality]) -> np.ndarray:
    parts = []
    for modality in modalities:
        frames = pool.sequence(row, modality)
        frames = frames if len(frames) else np.zeros((1, pool.widths[modality]), np.float32)
        parts += [frames.mean(axis=0), frames.std(axis=0)]
    return np.concatenate(parts)


def cells(answers: Sequence[np.ndarray], labels: np.ndarray) -> list[str]:
    """Accuracy, UAR and macro-F1 in percent, means over the seeds with their deviation."""
    found = [classification_metrics(one, labels, "multiclass") for one in answers]
    row = []
    for name in ("accuracy", "uar", "f1_macro"):
        values = 100 * np.array([one[name] for one in found], np.float64)
        spread = f" +- {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        row.append(f"{values.mean():.1f}{spread}")
    return row


def main() -> None:
    """Train what is asked for and write the page of everything that is finished."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0")
    arguments = parser.parse_args()
    out = ROOT / "runs" / "bench-ravdess"
    store = Store.open(ravdess_store(out))
    for seed in map(int, arguments.seeds.split(",")):
        for method in arguments.methods.split(","):
            train(method, seed, data=store.path, out=out)
    write_page(out, store)


def write_page(out: Path, store: Store) -> None:
    """The table of everything that is finished."""
    pool = store.labelled_pool()
    labels = np.asarray(pool.labels, np.int64)
    heard = pool.lengths(Modality.AUDIO) > 0
    videos = np.array(pool.videos)
    answers: dict[str, list[np.ndarray]] = {
        "linear probe, sound": [probe(pool, [Modality.AUDIO])],
        "linear probe, action units": [probe(pool, [Modality.VISION])],
        "linear probe, both": [probe(pool, [Modality.AUDIO, Modality.VISION])],
    }
    minutes: dict[str, str] = {}
    for method in METHODS:
        runs = sorted(
            run for run in (out / method).glob("seed-*") if (run / "record.json").exists()
        )
        if not runs:
            continue
        name = NAMES.get(method, method)
        read = [read_predictions(run / "predictions" / f"{OUT_OF_FOLD}.csv") for run in runs]
        assert all(list(one.ids) == list(pool.ids) for one in read), "rows of another store"
        answers[name] = [one.predictions.astype(np.int64) for one in read]
        seconds = [sum(f["seconds"] for f in read_record(run)["folds"]) for run in runs]
        minutes[name] = f"{len(runs)} x {np.mean(seconds) / 60:.0f}"
    best_probe = answers["linear probe, both"][0]
    rows = [
        [
            name,
            *cells([one[heard] for one in found], labels[heard]),
            "" if "probe" in name else _difference(found, best_probe, labels, videos, heard),
            minutes.get(name, "-"),
        ]
        for name, found in answers.items()
    ]
    core = NAMES["tecafn"]
    parts = [
        f"RAVDESS speech, actors 1-20, the {int(heard.sum())} clips with sound: eight emotions "
        "(chance 12.5 %), five folds with actors apart, out-of-fold predictions. Audio: the states "
        "of Whisper tiny.en after block 3 of 4, means over "
        f"{1 / FRAMES_PER_SECOND:g} s; vision: 35 OpenFace action units, one vector per clip. "
        "Networks: `configs/ravdess/`, epochs chosen on the next fold's actors, which the probes "
        "train on. The probe is a logistic regression on mean and deviation over time "
        f"(C = {_REGULARISATION}). Percent; +- is the deviation over seeds.",
        markdown_table(
            [
                "",
                "accuracy",
                "UAR",
                "macro-F1",
                "accuracy minus probe of both [95 %, actors resampled]",
                "seeds x minutes",
            ],
            rows,
        ),
    ]
    for name in (core, "linear probe, both"):
        if name in answers:
            parts += _confusion(name, answers[name][0][heard], labels[heard])
    write_results(
        "ravdess", "RAVDESS: eight emotions from sound and face", "make bench-ravdess", parts
    )


def _difference(
    found: Sequence[np.ndarray],
    reference: np.ndarray,
    labels: np.ndarray,
    videos: np.ndarray,
    heard: np.ndarray,
) -> str:
    hits = np.mean([one == labels for one in found], axis=0)[heard]
    difference = paired_difference(
        hits, (reference == labels).astype(float)[heard], clusters=videos[heard]
    )
    assert difference.interval is not None
    low, high = difference.interval
    return f"{100 * difference.value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _confusion(name: str, predicted: np.ndarray, labels: np.ndarray) -> list[str]:
    counts = confusion_matrix(predicted, labels, num_classes=len(EMOTIONS))
    rows = [
        [emotion, *map(str, row), f"{100 * row[k] / max(row.sum(), 1):.1f}"]
        for k, (emotion, row) in enumerate(zip(EMOTIONS, counts.tolist(), strict=True))
        for row in [np.array(row)]
    ]
    return [
        f"## Confusion: {name}",
        "Rows: true emotion; columns: predicted; counts of the first seed.",
        markdown_table(["", *EMOTIONS, "recall, %"], rows),
    ]


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
