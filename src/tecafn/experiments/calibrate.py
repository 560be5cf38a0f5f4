"""Intervals of a run's scores, calibrated on the validation split of one dataset or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tecafn.core.errors import UserError
from tecafn.data.integrity import refuse_errors
from tecafn.data.store import SplitView, Store
from tecafn.experiments.evaluate import check_label_range, open_run
from tecafn.experiments.setup import open_device
from tecafn.serving.builtin import is_builtin, model_folder
from tecafn.serving.intervals import (
    LEVEL,
    Calibration,
    Scored,
    calibrate,
    count_words,
    hash_of_weights,
    write_calibration,
)
from tecafn.serving.predictor import ModelDefinition, read_definition
from tecafn.training.ranks import on_rank_0

SPLIT = "valid"


@dataclass(frozen=True)
class _Part:
    """What one dataset gives."""

    scored: Scored
    data: dict[str, str]


def calibrate_run(
    run: str | Path,
    *,
    data: Sequence[Path],
    level: float = LEVEL,
    device: str = "auto",
    allow_data_errors: bool = False,
) -> Calibration:
    """Calibrate a run's intervals on validation splits and write them beside its weights.

    Args:
        run: a run's directory, or an exported model's.
        data: stores; where there are several, each counts alike, whatever its size.
        level: the share of utterances whose label an interval shall hold.
        device: auto, cpu or cuda.
        allow_data_errors: use data that ``data check`` calls wrong, too.

    Raises:
        UserError: it is a model of the package or a classification, the data do not fit it or are
            on another scale, one is given twice, or there are too few utterances or videos.
    """
    if is_builtin(run):
        raise UserError(
            f"{run} is calibrated already, and stays as it was shipped; `tecafn evaluate {run}` "
            "measures it on your data"
        )
    folder = model_folder(run)
    definition = read_definition(folder)
    if definition.info.task != "regression":
        raise UserError(f"intervals are of scores; {run} does {definition.info.task}")
    if not data:
        raise UserError("--data must name a store to calibrate on")
    hashes = [Store.open(store).content_hash for store in data]
    if len(set(hashes)) < len(hashes):
        raise UserError("one dataset was given twice")
    parts = [
        _part(Path(run), store, definition, device=device, allow_data_errors=allow_data_errors)
        for store in data
    ]
    calibration = calibrate(
        joined([part.scored for part in parts]),
        label_range=definition.info.label_range,
        data=[part.data for part in parts],
        weights_hash=hash_of_weights(folder),
        level=level,
    )
    on_rank_0(lambda: write_calibration(run, calibration))
    return calibration


def _part(
    run: Path, data: Path, definition: ModelDefinition, *, device: str, allow_data_errors: bool
) -> _Part:
    """The validation split of a store with its scores; what has no label is left out."""
    store = Store.open(data)
    refuse_errors(store, allowed=allow_data_errors)
    check_label_range(run, definition.info.label_range, store)
    opened = open_run(run, data, SPLIT, open_device(device))
    scored = scored_of(opened.view, opened.predict().predictions, store.description.dataset)
    return _Part(scored, data_of(store))


def data_of(store: Store) -> dict[str, str]:
    """What a calibration says of the data that it is made on."""
    return {"dataset": store.description.dataset, "split": SPLIT, "hash": store.content_hash}


def scored_of(view: SplitView, scores: ArrayLike, dataset: str) -> Scored:
    """A split beside the scores of its samples; what has no label is left out."""
    rows = np.flatnonzero(view.labelled).tolist()
    texts, videos = view.texts, view.videos
    return Scored(
        scores=np.asarray(scores, np.float64)[rows],
        labels=np.asarray(view.labels, np.float64)[rows],
        num_words=np.array([count_words(texts[row]) for row in rows], np.int64),
        videos=[videos[row] for row in rows],
        datasets=[dataset] * len(rows),
    )


def joined(parts: Sequence[Scored]) -> Scored:
    """All of them."""
    return Scored(
        scores=np.concatenate([part.scores for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        num_words=np.concatenate([part.num_words for part in parts]),
        videos=[video for part in parts for video in part.videos],
        datasets=[name for part in parts for name in part.datasets],
    )
