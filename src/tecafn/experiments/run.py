"""One run: train on train, choose on valid, and write all of it down."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tecafn.core.parallel import rank
from tecafn.core.places import refuse_taken
from tecafn.data.integrity import refuse_errors
from tecafn.data.store import SplitView, Store
from tecafn.evaluation.evaluator import predict_source
from tecafn.experiments.config import RunConfig
from tecafn.experiments.evaluate import add_evaluation
from tecafn.experiments.fit import Fitted, fit
from tecafn.experiments.presence import absent_counts, presence_of, warn_about_absent_modalities
from tecafn.experiments.run_folder import (
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
from tecafn.experiments.starting import begin_with, start_of
from tecafn.records.begun import Begun
from tecafn.records.events import HealthReading
from tecafn.records.record import RunRecord, TrainingRecord
from tecafn.serving.predictor import EXPORT_FOLDER, ModelDefinition, Predictor
from tecafn.training.ranks import on_rank_0
from tecafn.training.trainer import AfterEpoch


def train_run(
    config: RunConfig,
    *,
    data: Path,
    out: Path,
    init_from: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    allow_data_errors: bool = False,
    after_epoch: AfterEpoch | None = None,
    report: bool = True,
) -> RunRecord:
    """Train, and evaluate the chosen checkpoint on the validation split.

    Args:
        config: everything but data and device.
        data: a store.
        out: the run's directory; new or empty unless ``resume``.
        init_from: a finished run of the same method, whose weights the network begins with; the
            record says which.
        resume: continue a killed run, bit for bit; a finished one is left as it is.
        device: auto, cpu or cuda.
        progress: show a progress bar.
        allow_data_errors: train also on data that ``data check`` calls wrong; the record says so.
        after_epoch: is told each epoch and what the validation split says of it; what it raises
            ends the training.
        report: draw ``report.html``; ``evaluate_run`` draws it as well.

    Returns:
        The run's record.

    Raises:
        UserError: whatever its user can mend: the data, the config, the directory.
    """
    refuse_taken(out, may_be="run")
    store = Store.open(
        data, max_frames=config.max_frames, context_utterances=config.context_utterances
    )
    allowed = refuse_errors(store, allowed=allow_data_errors)
    check_monitor(config, store.description)
    begun_with: Begun = {"config": config.as_dict(), "data_hash": store.content_hash}
    start = None if init_from is None else start_of(init_from)
    if start is not None:
        begun_with["init_from"] = start
    fabric = open_fabric(device, config.training.precision)
    with claim_run_folder(out, begun_with, resume=resume) as finished:
        if finished:
            return on_rank_0(lambda: finished_record(out, report=report))
        whole, valid = store.split("train"), store.split("valid")
        train = part_of(whole, config.max_train_samples)
        prepared = prepare(config, store, train, fabric)
        if init_from is not None:
            begin_with(init_from, prepared)
        lacking = {}
        for view in (train, valid):
            presence = presence_of(view, prepared.info, config.modalities)
            warn_about_absent_modalities(view, presence)
            lacking[view.name] = absent_counts(presence)
            say_what_is_cut(
                view,
                prepared.info,
                prepared.batches.tokenizer,
                max_text_tokens=config.max_text_tokens,
            )
        train_source = prepared.batches.loader(train, shuffle=True, whole=whole, labelled=True)
        valid_source = prepared.batches.loader(valid, shuffle=False, labelled=True)
        on_rank_0(lambda: write_beginning(out, config, begun_with))
        with memory_explained(train, valid):
            fitted = fit(
                prepared,
                train_source,
                valid_source,
                out,
                resume=resume,
                progress=progress,
                after_epoch=after_epoch,
            )
        predictor = _shipped(fitted, store)
        predictions = predict_source(
            predictor.network_prediction, valid_source, device=fabric.device, task=valid.task
        )

        def finish() -> RunRecord:
            predictor.save_pretrained(out / EXPORT_FOLDER)
            record = new_record(config, store, allowed=allowed, training=_training(fitted))
            if start is not None:
                record["init_from"] = start
            # Writes the record, which says that the run is finished, once and complete.
            lacks = lacking[valid.name]
            add_evaluation(out, record, store, valid, predictions, absent=lacks, allowed=allowed)
            return finished_record(out, report=report)

        return on_rank_0(finish)


def part_of(view: SplitView, num_samples: int | None) -> SplitView:
    """So many samples of a split, the same ones in every run; the whole where it has no more."""
    if num_samples is None or num_samples >= len(view):
        return view
    if rank() == 0:
        print(
            f"note: training takes {num_samples} of {len(view)} samples (max_train_samples)",
            file=sys.stderr,
        )
    return view.subset(rows_of_part(len(view), num_samples))


def rows_of_part(count: int, num_samples: int | None) -> NDArray[np.int64]:
    """Which of ``count`` rows training takes, ascending.

    Example:
        >>> rows_of_part(3, None).tolist(), len(rows_of_part(9, 4))
        ([0, 1, 2], 4)
    """
    rows: NDArray[np.int64] = np.random.default_rng(0).permutation(count)[:num_samples]
    return np.sort(rows)


def _shipped(fitted: Fitted, store: Store) -> Predictor:
    """The network alone, in single precision, with what it was built from."""
    config, info = fitted.prepared.config, fitted.prepared.info
    encoder = fitted.prepared.batches.encoder
    if encoder is not None and encoder.is_adapted:
        spec = dataclasses.replace(info.text_encoder, weights_hash=encoder.weights_hash)
        info = dataclasses.replace(info, text_encoder=spec)
    definition = ModelDefinition(
        method=config.method,
        config=config.model,
        info=info,
        max_text_tokens=config.max_text_tokens,
        dataset=store.description.dataset,
        max_frames=config.max_frames,
        context_utterances=config.context_utterances,
    )
    network = fitted.scheme.network.float()
    return Predictor(definition, network, fitted.prepared.batches.tokenizer)


def _training(fitted: Fitted) -> TrainingRecord:
    """What the record says of the training."""
    result, parameters = fitted.result, list(fitted.scheme.parameters())
    return {
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "seconds": round(result.seconds, 1),
        "threads": result.threads,
        "monitor": result.monitor,
        "monitor_value": result.monitor_value,
        "chosen_on": "valid",
        "health": cast(dict[str, HealthReading], result.health),
        "num_parameters": sum(p.numel() for p in parameters),
        "num_trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }
