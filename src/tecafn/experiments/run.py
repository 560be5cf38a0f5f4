"""One run: train on train, choose on valid, evaluate once on test, and write all of it down."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

import tecafn
from tecafn.core.batch import BatchSource
from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Scheme
from tecafn.data.loader import BatchLoader
from tecafn.data.store import SplitView, Store
from tecafn.evaluation.assessment import assess
from tecafn.evaluation.evaluator import Predictions, predict_source, validation_metrics
from tecafn.evaluation.significance import paired_difference
from tecafn.experiments.config import RunConfig, write_config
from tecafn.experiments.record import (
    FORMAT_VERSION,
    file_hash,
    library_versions,
    now,
    read_predictions,
    read_record,
    source_commit,
    write_predictions,
    write_record,
    write_text_atomically,
)
from tecafn.experiments.setup import (
    build_scheme,
    check_needs,
    describe_data,
    open_fabric,
    prepare_batches,
    say_what_is_absent,
    token_frames,
    usable_modalities,
)
from tecafn.serving.predictor import (
    EXPORT_FOLDER,
    WEIGHTS_FILE,
    ModelDefinition,
    Predictor,
    load,
)
from tecafn.training.events import EventLog
from tecafn.training.run_lock import run_lock
from tecafn.training.together import on_rank_0
from tecafn.training.trainer import FitResult, Trainer

FOLD_RESULT = "out-of-fold.npz"
# Another evaluation of the same run writes for a moment only.
_PATIENCE_SECONDS = 60.0


def train_run(
    config: RunConfig,
    *,
    data: Path,
    out: Path,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train, and evaluate the chosen checkpoint on the validation split.

    Args:
        config: everything but data and device.
        data: a store.
        out: the run's directory; new or empty unless ``resume``.
        resume: go on with a killed run, bit for bit; a finished one is left as it is.
        device: auto, cpu or cuda.
        progress: show a progress bar.

    Returns:
        The run's record.

    Raises:
        UserError: whatever its user can mend: the data, the config, the directory.
    """
    store = Store.open(data)
    begun_with = {"config": config.as_dict(), "data_hash": store.content_hash}
    fabric = open_fabric(device, config.training.precision)
    with hold(out, begun_with, resume=resume) as finished:
        if finished:
            return on_rank_0(lambda: finished_record(out))
        train, valid = store.split("train"), store.split("valid")
        info = describe_data(store, train, config)
        say_what_is_absent(config, info)
        scheme = build_scheme(config, info)
        batches = prepare_batches(config, info, scheme, store, fabric.device)
        train_source = batches.loader(train, shuffle=True, labelled=True)
        valid_source = batches.loader(valid, shuffle=False, labelled=True)
        on_rank_0(lambda: write_beginning(out, config, begun_with))
        with EventLog(out) as events:
            trainer = Trainer(
                config.training,
                fabric=fabric,
                run_dir=out,
                seed=config.seed,
                events=events,
                progress=progress,
            )

            def validate(scheme: Scheme, source: BatchSource) -> Mapping[str, float]:
                predictions = predict_source(
                    scheme.predict, source, device=fabric.device, task=info.task
                )
                return validation_metrics(predictions, info.task)

            fitted = trainer.fit(
                scheme, train_source, valid_source, validate=validate, resume=resume
            )
        definition = ModelDefinition(
            method=config.method,
            config=config.model,
            info=info,
            max_text_tokens=config.max_text_tokens,
            dataset=store.description.dataset,
        )
        predictor = Predictor(definition, scheme.network.float(), batches.tokenizer)
        predictions = predict_source(
            predictor.network_prediction, valid_source, device=fabric.device, task=info.task
        )

        def finish() -> dict[str, Any]:
            predictor.save_pretrained(out / EXPORT_FOLDER)
            record = _new_record(config, store, scheme, fitted)
            # Writes the record, which says that the run is finished, once and complete.
            _add_evaluation(out, record, store, valid, predictions)
            return finished_record(out)

        return on_rank_0(finish)


@contextmanager
def hold(out: Path, begun_with: Mapping[str, Any], *, resume: bool) -> Iterator[bool]:
    """Let nobody else write the run's directory, and see whether this run may.

    A collective call; rank 0 looks, under the lock, because what it and others write shows.

    Yields:
        Is the run finished already?

    Raises:
        UserError: another run writes there, or has written there, or was begun otherwise.
    """
    with ExitStack() as held:

        def look() -> bool:
            held.enter_context(run_lock(out))
            used = check_out(out, resume=resume)
            if used:
                check_begun(out, begun_with)
            return used and (out / "record.json").exists()

        yield on_rank_0(look)


def finished_record(out: Path) -> dict[str, Any]:
    """The record of a run, once what a kill may have left to do is done."""
    if not (out / "report.html").exists():
        write_report(out)
    _drop_what_only_a_resume_needs(out)
    return read_record(out)


def _drop_what_only_a_resume_needs(out: Path) -> None:
    """A finished run keeps the scheme of its best epoch; optimizer states are twice its size."""
    checkpoints, best = out / "checkpoints", out / "checkpoints" / "best"
    kept = sorted(f for f in best.glob("*") if f.name.isdigit())
    if not read_record(out)["config"]["training"].get("keep_improving_epochs"):
        kept = kept[-1:]
    for folder in [*checkpoints.glob("*"), *best.glob("*")]:
        if folder not in (best, *kept):
            shutil.rmtree(folder, ignore_errors=True)


def check_out(out: Path, *, resume: bool) -> bool:
    """Refuse to mix two runs in one directory.

    Returns:
        Is there a run to go on with?

    Raises:
        UserError: there is one but it shall not be resumed, or ``out`` cannot be written.
    """
    traces = ("record.json", "checkpoints", "fold-*/checkpoints", f"fold-*/{FOLD_RESULT}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        used = any(path for trace in traces for path in out.glob(trace))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    if used and not resume:
        raise UserError(f"{out} holds a run already; name another directory, or --resume to go on")
    if not os.access(out, os.W_OK):
        raise UserError(f"cannot write {out}: permission denied")
    return used


def write_beginning(out: Path, config: RunConfig, begun_with: Mapping[str, Any]) -> None:
    """Write the config, and ``RUN/begun.json``: what a resume must find unchanged."""
    write_config(config, out / "config.toml")
    write_text_atomically(out / "begun.json", json.dumps(begun_with, indent=2) + "\n")


def check_begun(out: Path, now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings or on other data than it was begun with.

    Raises:
        UserError: they differ; the line names the first difference.
    """
    path = out / "begun.json"
    if not path.exists():  # a run of the first version, which did not write it
        return
    try:
        then = _flat(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    # Through JSON, as the file went: what was a tuple there is a list.
    given = _flat(json.loads(json.dumps(now)))
    for name in sorted(then.keys() | given.keys()):
        if then.get(name) != given.get(name):
            raise UserError(
                f"{out} was begun with {name} {then.get(name)!r}, got {given.get(name)!r}: resume "
                "it as it was begun, or name another directory"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _new_record(
    config: RunConfig, store: Store, scheme: Scheme, fitted: FitResult
) -> dict[str, Any]:
    return {
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
        "training": {
            "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch,
            "stopped": fitted.stopped,
            "seconds": round(fitted.seconds, 1),
            "monitor": fitted.monitor,
            "monitor_value": fitted.monitor_value,
            "chosen_on": "valid",
            "num_parameters": sum(p.numel() for p in scheme.parameters()),
            "num_trained_parameters": sum(
                p.numel() for p in scheme.parameters() if p.requires_grad
            ),
        },
        "evaluations": {},
        "comparisons": [],
    }


def describe_store(store: Store) -> dict[str, Any]:
    """What a record says of its data."""
    description = store.description
    return {
        "dataset": description.dataset,
        "hash": store.content_hash,
        "splits": {
            name: counts["num_samples"] for name, counts in store.manifest["splits"].items()
        },
        "label_range": list(description.label_range),
        "task": description.task,
    }


def _open_for(
    run: Path, data: Path, split: str, fabric: Fabric
) -> tuple[Predictor, Store, SplitView, BatchLoader]:
    """A trained network and the batches of one split that suit it."""
    predictor, store = load(run), Store.open(data)
    view = store.split(split)
    check_widths(predictor, store)
    definition = predictor.definition
    encoder = definition.info.text_encoder.source
    check_needs(definition.method, store, view, text_encoder=encoder)
    predictor.to(fabric.device)
    source = BatchLoader(
        view,
        modalities=usable_modalities(definition.info),
        batch_size=64,
        seed=0,
        shuffle=False,
        text=predictor.tokenizer,
        frame_of_token=token_frames(store, view, definition.info, predictor.tokenizer),
    )
    return predictor, store, view, source


def check_widths(predictor: Predictor, store: Store) -> None:
    """Refuse data that the network was not built for.

    Raises:
        UserError: a modality's width or the task differs, or a modality is missing altogether.
    """
    info, description = predictor.definition.info, store.description
    if info.task != description.task:
        raise UserError(f"the model does {info.task}, {store.path} is a {description.task}")
    for modality, width in info.widths.items():
        found = description.widths.get(modality)
        if found is None:
            raise UserError(
                f"the model takes {modality} {width} wide, {store.path} has no {modality}"
            )
        if found != width:
            raise UserError(
                f"the model takes {modality} {width} wide, {store.path} has it {found} wide"
            )


def evaluate_run(
    run: Path, *, data: Path, split: str = "test", device: str = "auto"
) -> dict[str, Any]:
    """Metrics of a run's chosen checkpoint on a labelled split.

    The first evaluation on test is written into the record; a later call with the same weights
    and data returns it. An evaluation on another data set's split of that name is written beside
    it, as ``<split>@<start of the data's hash>``.

    Raises:
        UserError: the split is empty or unlabelled, or the data do not fit the network.
    """
    record = read_record(run)
    if not (run / EXPORT_FOLDER).is_dir():
        what = "a cross-validation keeps none" if "folds" in record else "it was removed"
        raise UserError(f"{run} has no network in {EXPORT_FOLDER}/ to evaluate: {what}")
    store = Store.open(data)
    view = store.split(split)
    unlabelled = int((~view.labelled).sum())
    if unlabelled:
        raise UserError(
            f"split {split!r} of {data} has {unlabelled} of {len(view)} samples without a label; "
            f"use `tecafn predict {run} --data {data} --split {split} --out predictions.csv`"
        )
    fabric = open_fabric(device, "32-true")
    known = on_rank_0(lambda: _known_evaluation(run, store, split))
    if known:
        return known
    predictor, store, view, source = _open_for(run, data, split, fabric)
    predictions = predict_source(
        predictor.network_prediction, source, device=predictor.device, task=view.task
    )

    def add() -> dict[str, Any]:
        with run_lock(run, wait_seconds=_PATIENCE_SECONDS):
            # Another process may have been first while this one predicted.
            known = _known_evaluation(run, store, split)
            if known:
                return known
            evaluation = _add_evaluation(run, read_record(run), store, view, predictions)
            write_report(run)
            return evaluation

    return on_rank_0(add)


def _known_evaluation(run: Path, store: Store, split: str) -> dict[str, Any] | None:
    """What was found when the same weights were evaluated on the same data."""
    record = read_record(run)
    known: dict[str, Any] | None = record["evaluations"].get(_evaluation_name(record, store, split))
    hashes = (weights_hash(run), store.content_hash)
    return known if known and (known["weights_hash"], known["data_hash"]) == hashes else None


def weights_hash(run: Path) -> str:
    """SHA-256 of the exported weights.

    Raises:
        UserError: there are none.
    """
    path = run / EXPORT_FOLDER / WEIGHTS_FILE
    try:
        return file_hash(path)
    except OSError as error:
        raise UserError(f"cannot read weights {path}: {error.strerror or error}") from None


def _evaluation_name(record: Mapping[str, Any], store: Store, split: str) -> str:
    """``test`` for the test split that belongs to the training data, or if that has none."""
    trained_on = record["data"]
    is_foreign = store.content_hash != trained_on["hash"] and trained_on["splits"].get(split)
    return f"{split}@{store.content_hash[:8]}" if is_foreign else split


def _add_evaluation(
    run: Path, record: dict[str, Any], store: Store, view: SplitView, predictions: Predictions
) -> dict[str, Any]:
    """Assess predictions, write them and the record."""
    name = _evaluation_name(record, store, view.name)
    evaluation = {
        "split": view.name,
        "chosen_on": record["training"]["chosen_on"],
        "weights_hash": weights_hash(run),
        "data_hash": store.content_hash,
        "created": now(),
        **assess_view(view, predictions),
    }
    record["evaluations"][name] = evaluation
    write_predictions(run / "predictions" / f"{name}.csv", prediction_rows(view, predictions))
    write_record(run, record)
    return evaluation


def assess_view(view: SplitView, predictions: Predictions) -> dict[str, Any]:
    """Metrics, intervals, pairs, and for a generated corpus its ceiling."""
    labels = np.asarray(view.labels, np.float64)
    pair_ids = view.column("pair_id")
    has_pairs = any(pair_ids)
    answers = predictions.predictions if predictions.classes is None else predictions.classes
    result = assess(
        answers, labels, view.videos, task=view.task, pair_ids=pair_ids if has_pairs else None
    )
    oracle = view.column("oracle")
    if all(value is not None for value in oracle) and view.task == "regression":
        ceiling = assess(
            np.asarray(oracle, np.float64),
            labels,
            view.videos,
            pair_ids=pair_ids if has_pairs else None,
        )
        result["ceiling"] = {k: ceiling[k] for k in ("metrics", "hard_pairs", "designed_pairs")}
    return result


def prediction_rows(view: SplitView, predictions: Predictions) -> list[dict[str, Any]]:
    """Rows of ``predictions/<split>.csv``."""
    columns = zip(
        view.ids,
        view.videos,
        view.column("clip"),
        view.labels.tolist(),
        view.labelled.tolist(),
        predictions.predictions.tolist(),
        view.column("pair_id"),
        view.texts,
        strict=True,
    )
    return [
        {
            "id": name,
            "video": video,
            "clip": clip,
            "label": round(label, 6) if is_labelled else None,
            "prediction": prediction,
            "pair_id": pair,
            "text": text,
        }
        for name, video, clip, label, is_labelled, prediction, pair, text in columns
    ]


def predict_run(run: Path, *, data: Path, split: str, out: Path, device: str = "auto") -> int:
    """Write ``id,prediction`` for every sample of a split, labelled or not.

    Returns:
        How many.
    """
    fabric = open_fabric(device, "32-true")
    predictor, _, view, source = _open_for(run, data, split, fabric)
    predictions = predict_source(
        predictor.network_prediction, source, device=predictor.device, task=view.task
    )

    def write() -> int:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["id", "prediction"])
                writer.writerows(zip(view.ids, predictions.predictions.tolist(), strict=True))
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}") from None
        return len(view)

    return on_rank_0(write)


def compare_runs(run: Path, other: Path, *, split: str, name: str | None = None) -> dict[str, Any]:
    """Paired differences of two runs' errors on the same samples; added to ``run``'s record.

    A collective call where several processes have met.

    Args:
        run: the run the record of which is added to.
        other: the one it is compared with, evaluated on the same split.
        split: which.
        name: what to call the other one.

    Raises:
        UserError: a run has no predictions on the split, or they are of different samples.
    """

    def compare() -> dict[str, Any]:
        with run_lock(run, wait_seconds=_PATIENCE_SECONDS):
            return _compare(run, other, split, name)

    read_record(run)  # before a lock makes a folder of it
    return on_rank_0(compare)


def _compare(run: Path, other: Path, split: str, name: str | None) -> dict[str, Any]:
    record, theirs = read_record(run), read_record(other)
    evaluation = theirs["evaluations"].get(split)
    if evaluation is None:
        raise UserError(f"{other} has not been evaluated on {split!r}")
    mine = read_predictions(run / "predictions" / f"{split}.csv")
    yours = read_predictions(other / "predictions" / f"{split}.csv")
    if [(r["id"], r["label"]) for r in mine] != [(r["id"], r["label"]) for r in yours]:
        raise UserError(f"{run} and {other} were evaluated on different samples of {split!r}")
    comparison = {
        "name": name or str(theirs["method"]),
        "split": split,
        "metrics": evaluation["metrics"],
        "hard_pairs": evaluation["hard_pairs"],
        "designed_pairs": evaluation["designed_pairs"],
        "difference": paired_differences(mine, yours, task=record["data"]["task"]),
    }
    kept = [
        c for c in record["comparisons"] if (c["name"], c["split"]) != (comparison["name"], split)
    ]
    record["comparisons"] = [*kept, comparison]
    write_record(run, record)
    write_report(run)
    return comparison


def paired_differences(
    mine: list[dict[str, str]], yours: list[dict[str, str]], *, task: str
) -> dict[str, Any]:
    """First minus second: MAE and binary accuracy of a score, accuracy of classes.

    Intervals resample videos and permutations flip whole videos: clips of one video are alike.
    """

    def column(rows: list[dict[str, str]], name: str) -> NDArray[np.float64]:
        return np.array([float(row[name]) for row in rows])

    labels = column(mine, "label")
    videos = np.array([row["video"] for row in mine])
    first, second = column(mine, "prediction"), column(yours, "prediction")
    if task == "classification":
        errors = [((p > 0.5) == (labels > 0.5)).astype(np.float64) for p in (first, second)]
        return {"accuracy": paired_difference(*errors, clusters=videos).as_dict()}
    polar = labels != 0
    hits = [((p > 0) == (labels > 0))[polar].astype(np.float64) for p in (first, second)]
    return {
        "mae": paired_difference(
            np.abs(first - labels), np.abs(second - labels), clusters=videos
        ).as_dict(),
        "acc2_pos": paired_difference(*hits, clusters=videos[polar]).as_dict(),
    }


def write_report(run: Path) -> Path:
    """Draw ``RUN/report.html`` from what the run wrote."""
    from tecafn.report.html import write_report as draw

    return draw(run)
