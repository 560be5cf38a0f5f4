"""Folds by video: every labelled sample is predicted by a network that never saw its video."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tecafn
from tecafn.core.batch import BatchSource
from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Scheme
from tecafn.data.store import Store
from tecafn.evaluation.evaluator import Predictions, predict_source, validation_metrics
from tecafn.experiments.config import RunConfig
from tecafn.experiments.record import (
    FORMAT_VERSION,
    library_versions,
    now,
    source_commit,
    write_predictions,
    write_record,
)
from tecafn.experiments.run import (
    FOLD_RESULT,
    assess_view,
    describe_store,
    finished_record,
    hold,
    prediction_rows,
    write_beginning,
)
from tecafn.experiments.setup import build_scheme, describe_data, open_fabric, prepare_batches
from tecafn.training.events import EventLog
from tecafn.training.together import on_rank_0
from tecafn.training.trainer import Trainer

OUT_OF_FOLD = "out-of-fold"


@dataclass(frozen=True)
class Fold:
    """Row numbers of one fold; the three are disjoint in rows and in videos."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    held_out: NDArray[np.int64]


def video_folds(videos: Sequence[str], *, num_folds: int, seed: int) -> list[Fold]:
    """Deal whole videos to folds, the longest first, each to the fold with the fewest samples.

    A fold's validation videos are taken from its training ones: those of the next fold, so that
    every video chooses checkpoints once.

    Args:
        videos: the video of each of N samples.
        num_folds: K, at least 3 and at most the number of videos.
        seed: of the order among videos with equally many samples.

    Returns:
        K folds; each sample is held out once.

    Raises:
        UserError: ``num_folds`` is out of range.

    Example:
        >>> folds = video_folds(["a", "a", "b", "c"], num_folds=3, seed=0)
        >>> sorted(np.concatenate([fold.held_out for fold in folds]).tolist())
        [0, 1, 2, 3]
    """
    names, numbers = np.unique(np.asarray(videos), return_inverse=True)
    if not 3 <= num_folds <= len(names):
        raise UserError(
            f"folds must be between 3 and the number of videos {len(names)}, got {num_folds}"
        )
    sizes = np.bincount(numbers)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of = np.empty(len(names), np.int64)
    loads = np.zeros(num_folds, np.int64)
    for video in order:
        fold_of[video] = smallest = int(loads.argmin())
        loads[smallest] += sizes[video]
    fold_of_sample = fold_of[numbers]
    folds = []
    for number in range(num_folds):
        held_out = fold_of_sample == number
        valid = fold_of_sample == (number + 1) % num_folds
        folds.append(
            Fold(*(np.flatnonzero(rows) for rows in (~held_out & ~valid, valid, held_out)))
        )
    return folds


def cross_validate_run(
    config: RunConfig,
    *,
    data: Path,
    out: Path,
    by: str,
    num_folds: int,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train a network a fold and assess the out-of-fold predictions together.

    Takes the labelled samples of every split but test. Standardisation is of each fold's own
    training rows.

    Args:
        config: as for a single run.
        data: a store.
        out: the run's directory; a finished fold is not trained again with ``resume``.
        by: ``video``.
        num_folds: K.
        resume: go on with a killed run.
        device, progress: as for a single run.

    Returns:
        The run's record, with the evaluation ``out-of-fold``.

    Raises:
        UserError: as for a single run.
    """
    if by != "video":
        raise UserError(f"cross-validation is by 'video', got {by!r}")
    store = Store.open(data)
    begun_with = {
        "config": config.as_dict(),
        "data_hash": store.content_hash,
        "num_folds": num_folds,
    }
    fabric = open_fabric(device, config.training.precision)
    with hold(out, begun_with, resume=resume) as finished:
        if finished:
            return on_rank_0(lambda: finished_record(out))
        pool = store.labelled_pool()
        folds = video_folds(pool.videos, num_folds=num_folds, seed=config.seed)
        on_rank_0(lambda: write_beginning(out, config, begun_with))
        scores = np.full(len(pool), np.nan)
        classes = np.zeros(len(pool), np.int64)
        results = []
        for number, fold in enumerate(folds):
            folder = out / f"fold-{number:02d}"
            done = folder / FOLD_RESULT
            if not on_rank_0(done.exists):
                train, valid, held_out = (
                    pool.subset(rows) for rows in (fold.train, fold.valid, fold.held_out)
                )
                info = describe_data(store, train, config)
                scheme = build_scheme(config, info)
                batches = prepare_batches(config, info, scheme, store, fabric.device)

                def validate(
                    scheme: Scheme, source: BatchSource, task: Any = info.task
                ) -> dict[str, float]:
                    predictions = predict_source(
                        scheme.predict, source, device=fabric.device, task=task
                    )
                    return validation_metrics(predictions, task)

                with EventLog(folder, tensorboard=False) as events:
                    fitted = Trainer(
                        config.training,
                        fabric=fabric,
                        run_dir=folder,
                        seed=config.seed,
                        events=events,
                        progress=progress,
                    ).fit(
                        scheme,
                        batches.loader(train, whole=pool, shuffle=True, labelled=True),
                        batches.loader(valid, whole=pool, shuffle=False, labelled=True),
                        validate=validate,
                        resume=resume,
                    )
                answers = predict_source(
                    scheme.predict,
                    batches.loader(held_out, whole=pool, shuffle=False, labelled=True),
                    device=fabric.device,
                    task=info.task,
                )
                chosen = answers.predictions if answers.classes is None else answers.classes
                result = {
                    "predictions": answers.predictions,
                    "classes": chosen.astype(np.int64),
                    "best_epoch": fitted.best_epoch,
                    "epochs": fitted.epochs,
                    "seconds": fitted.seconds,
                    "monitor_value": fitted.monitor_value,
                }
                on_rank_0(partial(_save_atomically, done, **result))
            saved = on_rank_0(partial(_close_fold, done))
            scores[fold.held_out] = saved["predictions"]
            classes[fold.held_out] = saved["classes"]
            results.append(
                {
                    "fold": number,
                    "num_train": len(fold.train),
                    "num_valid": len(fold.valid),
                    "num_held_out": len(fold.held_out),
                    "epochs": int(saved["epochs"]),
                    "best_epoch": int(saved["best_epoch"]),
                    "monitor_value": float(saved["monitor_value"]),
                    "seconds": round(float(saved["seconds"]), 1),
                }
            )
        predictions = Predictions(
            ids=tuple(pool.ids),
            index=np.arange(len(pool)),
            predictions=scores,
            labels=np.asarray(pool.labels, np.float64),
            classes=classes if pool.task == "classification" else None,
        )

        def finish() -> dict[str, Any]:
            record = {
                "format_version": FORMAT_VERSION,
                "tecafn_version": tecafn.__version__,
                "created": now(),
                "method": config.method,
                "paper": METHODS[config.method].paper,
                "config": config.as_dict(),
                "seed": config.seed,
                "commit": source_commit(),
                "versions": library_versions(),
                "data": describe_store(store),
                "folds": results,
                "evaluations": {
                    OUT_OF_FOLD: {
                        "split": OUT_OF_FOLD,
                        "chosen_on": "validation videos of each fold",
                        "data_hash": store.content_hash,
                        "weights_hash": None,
                        "created": now(),
                        **assess_view(pool, predictions),
                    }
                },
                "comparisons": [],
            }
            write_predictions(
                out / "predictions" / f"{OUT_OF_FOLD}.csv", prediction_rows(pool, predictions)
            )
            write_record(out, record)
            return finished_record(out)

        return on_rank_0(finish)


def _close_fold(done: Path) -> dict[str, Any]:
    """A fold's result; its weights are not what a cross-validation is for."""
    shutil.rmtree(done.parent / "checkpoints", ignore_errors=True)
    with np.load(done) as saved:
        return dict(saved)


def _save_atomically(path: Path, **arrays: Any) -> None:
    """A killed run leaves a whole file or none."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
