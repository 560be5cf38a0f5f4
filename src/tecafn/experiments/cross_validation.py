"""Folds by video: every labelled sample is predicted by a network that never saw its video."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.places import refuse_taken
from tecafn.data.integrity import refuse_errors
from tecafn.data.store import SplitView, Store
from tecafn.evaluation.evaluator import Predictions
from tecafn.experiments.config import RunConfig
from tecafn.experiments.evaluate import keep_evaluation, new_evaluation, prediction_rows
from tecafn.experiments.fit import fit
from tecafn.experiments.presence import presence_of, warn_about_absent_modalities
from tecafn.experiments.run_folder import (
    FOLD_RESULT,
    claim_run_folder,
    finished_record,
    new_record,
    write_beginning,
)
from tecafn.experiments.setup import (
    check_monitor,
    memory_explained,
    open_fabric,
    prepare,
    say_what_is_cut,
)
from tecafn.records.begun import Begun
from tecafn.records.record import FoldRecord, RunRecord
from tecafn.training.ranks import on_rank_0

OUT_OF_FOLD = "out-of-fold"

DEFAULT_FOLDS = 10


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


def number_of_folds(folds: int | None, *, cross_validate: str | None) -> int:
    """How many were asked for, or 10.

    Raises:
        UserError: they were asked for without a cross-validation, which alone has any.
    """
    if folds is not None and cross_validate is None:
        raise UserError(f"folds ({folds}) go with a cross-validation: --cross-validate video")
    return DEFAULT_FOLDS if folds is None else folds


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
    allow_data_errors: bool = False,
    report: bool = True,
) -> RunRecord:
    """Train a network per fold and assess the out-of-fold predictions together.

    Takes the labelled samples of every split but test. Standardisation is of each fold's own
    training rows.

    Args:
        config: as for a single run.
        data: a store.
        out: the run's directory; a finished fold is not trained again with ``resume``.
        by: ``video``.
        num_folds: K.
        resume: continue a killed run.
        device: as for a single run.
        progress: show progress bars.
        allow_data_errors: as for a single run; a video in two splits is no error here, as its
            clips are in one fold.
        report: draw ``report.html``.

    Returns:
        The run's record, with the evaluation ``out-of-fold``.

    Raises:
        UserError: as for a single run.
    """
    if by != "video":
        raise UserError(f"cross-validation is by 'video', got {by!r}")
    refuse_taken(out, may_be="run")
    store = Store.open(
        data, max_frames=config.max_frames, context_utterances=config.context_utterances
    )
    allowed = refuse_errors(store, allowed=allow_data_errors, harmless=("videos",))
    check_monitor(config, store.description)
    begun_with: Begun = {
        "config": config.as_dict(),
        "data_hash": store.content_hash,
        "num_folds": num_folds,
    }
    fabric = open_fabric(device, config.training.precision)
    with claim_run_folder(out, begun_with, resume=resume) as finished:
        if finished:
            return on_rank_0(lambda: finished_record(out, report=report))
        pool = store.labelled_pool()
        folds = video_folds(pool.videos, num_folds=num_folds, seed=config.seed)
        on_rank_0(lambda: write_beginning(out, config, begun_with))
        results = []
        for number, fold in enumerate(folds):
            folder = out / f"fold-{number:02d}"
            if not on_rank_0((folder / FOLD_RESULT).exists):
                with memory_explained(pool):
                    _run_fold(config, store, pool, fold, folder, fabric, resume, progress)
            results.append(on_rank_0(partial(_close_fold, folder)))
        predictions = _together(pool, folds, results)

        def finish() -> RunRecord:
            folded = _describe_folds(folds, results)
            record = new_record(config, store, allowed=allowed, folds=folded)
            evaluation = new_evaluation(
                store,
                pool,
                predictions,
                chosen_on="validation videos of each fold",
                weights_hash=None,
                allowed=allowed,
            )
            record["evaluations"][OUT_OF_FOLD] = {**evaluation, "split": OUT_OF_FOLD}
            keep_evaluation(out, record, OUT_OF_FOLD, prediction_rows(pool, predictions))
            return finished_record(out, report=report)

        return on_rank_0(finish)


def _run_fold(
    config: RunConfig,
    store: Store,
    pool: SplitView,
    fold: Fold,
    folder: Path,
    fabric: Fabric,
    resume: bool,
    progress: bool,
) -> None:
    """Train one fold's network and write what it says of the videos that it did not see."""
    train, valid, held_out = (pool.subset(rows) for rows in (fold.train, fold.valid, fold.held_out))
    prepared = prepare(config, store, train, fabric)
    if folder.name == "fold-00":
        warn_about_absent_modalities(pool, presence_of(pool, prepared.info, config.modalities))
        say_what_is_cut(
            pool,
            prepared.info,
            prepared.batches.tokenizer,
            max_text_tokens=config.max_text_tokens,
        )
    loader = partial(prepared.batches.loader, whole=pool, labelled=True)
    fitted = fit(
        prepared,
        loader(train, shuffle=True),
        loader(valid, shuffle=False),
        folder,
        resume=resume,
        progress=progress,
        tensorboard=False,
    )
    answers = fitted.predict(loader(held_out, shuffle=False))
    chosen = answers.predictions if answers.classes is None else answers.classes
    result = {
        "predictions": answers.predictions,
        "classes": chosen.astype(np.int64),
        "best_epoch": fitted.result.best_epoch,
        "epochs": fitted.result.epochs,
        "seconds": fitted.result.seconds,
        "monitor_value": fitted.result.monitor_value,
    }
    on_rank_0(partial(_save_atomically, folder / FOLD_RESULT, **result))


def _together(
    pool: SplitView, folds: Sequence[Fold], results: Sequence[Mapping[str, Any]]
) -> Predictions:
    """The folds' predictions in the order of ``pool``."""
    scores = np.full(len(pool), np.nan)
    classes = np.zeros(len(pool), np.int64)
    for fold, result in zip(folds, results, strict=True):
        scores[fold.held_out] = result["predictions"]
        classes[fold.held_out] = result["classes"]
    return Predictions(
        ids=tuple(pool.ids),
        index=np.arange(len(pool)),
        predictions=scores,
        labels=np.asarray(pool.labels, np.float64),
        classes=classes if pool.task == "classification" else None,
    )


def _describe_folds(
    folds: Sequence[Fold], results: Sequence[Mapping[str, Any]]
) -> list[FoldRecord]:
    """What the record says of each fold."""
    return [
        {
            "fold": number,
            "num_train": len(fold.train),
            "num_valid": len(fold.valid),
            "num_held_out": len(fold.held_out),
            "epochs": int(result["epochs"]),
            "best_epoch": int(result["best_epoch"]),
            "monitor_value": float(result["monitor_value"]),
            "seconds": round(float(result["seconds"]), 1),
        }
        for number, (fold, result) in enumerate(zip(folds, results, strict=True))
    ]


def _close_fold(folder: Path) -> dict[str, Any]:
    """A fold's result; its weights are not what a cross-validation is for."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    with np.load(folder / FOLD_RESULT) as saved:
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
