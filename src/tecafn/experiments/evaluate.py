"""A saved network on a split: its metrics, its predictions. The only place that opens a run."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from tecafn.core.batch import BatchSource
from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec, check_features
from tecafn.core.modality import Modality
from tecafn.core.parallel import rank
from tecafn.core.places import refuse_overwriting
from tecafn.data.integrity import IntegrityRow, refuse_errors
from tecafn.data.loader import BatchLoader
from tecafn.data.store import SplitView, Store
from tecafn.data.text import FrameSource, HiddenStates
from tecafn.evaluation.assessment import assess
from tecafn.evaluation.evaluator import Predictions, predict_source
from tecafn.experiments.presence import (
    absent_counts,
    presence_of,
    refuse_empty,
    warn_about_absent_modalities,
)
from tecafn.experiments.run_folder import add_allowed, write_report
from tecafn.experiments.setup import (
    check_needs,
    memory_explained,
    open_device,
    say_what_is_cut,
    token_contexts,
    token_frames,
)
from tecafn.experiments.text_cache import cached_states
from tecafn.layers.text_encoder import TextEncoder
from tecafn.records.evaluation_log import LoggedEvaluation, log_evaluation
from tecafn.records.measured import convention_of_data, convention_of_evaluation
from tecafn.records.predictions import write_predictions
from tecafn.records.record import (
    Evaluation,
    RunRecord,
    code_hash,
    config_hash,
    file_hash,
    now,
    read_record,
    write_record,
)
from tecafn.serving.builtin import is_builtin, model_folder
from tecafn.serving.intervals import Intervals, count_words
from tecafn.serving.language import foreign, languages_of
from tecafn.serving.predictor import EXPORT_FOLDER, WEIGHTS_FILE, Predictor, load
from tecafn.training.ranks import on_rank_0
from tecafn.training.run_lock import run_lock

# Another evaluation of the same run writes for a moment only.
_PATIENCE_SECONDS = 60.0
_BATCH_SIZE = 64
_MOST_NAMED = 5


@dataclass(frozen=True)
class OpenRun:
    """A trained network beside the split that it shall predict.

    Args:
        predictor: the network, on the device it predicts on.
        store: the dataset of the split.
        view: the split.
        modalities: those of the network that the split has, which are loaded.
        source: its batches, with all that the network's method needs.
        absent: how many samples lack a modality that the network reads.
    """

    predictor: Predictor
    store: Store
    view: SplitView
    modalities: tuple[Modality, ...]
    source: BatchLoader
    absent: Mapping[str, int]

    def predict(
        self, predictor: Predictor | None = None, *, source: BatchSource | None = None
    ) -> Predictions:
        """Predict the split.

        Args:
            predictor: the same network with other weights; None = the opened one.
            source: other batches of the split; None = the opened ones.
        """
        predictor = predictor or self.predictor
        with memory_explained(self.view):
            return predict_source(
                predictor.network_prediction,
                source or self.source,
                device=predictor.device,
                task=self.view.task,
            )


def open_run(
    run: Path, data: Path, split: str, device: torch.device, *, keep_states: bool = False
) -> OpenRun:
    """Load a run's network and the batches of one split that suit it.

    Whatever predicts with a saved network goes through here, so that all of them hand it the same
    batches. A modality that the network reads may be absent, of some samples or of all: one line
    says of how many.

    Args:
        run: a run's directory, or an exported model.
        data: a store.
        split: of the store.
        device: that the network moves to; see ``open_device``.
        keep_states: take what the frozen layers of a text encoder say from beside the store, where
            training keeps it, too; batches then hold states and no token ids.

    Raises:
        UserError: one of them cannot be read, or the data do not fit the network.
    """
    predictor = load(run)
    definition = predictor.definition
    store = Store.open(
        data,
        max_frames=definition.max_frames,
        context_utterances=definition.context_utterances,
    )
    view = store.split(split)
    check_widths(predictor, store)
    info = predictor.definition.info
    presence = presence_of(view, info, info.usable)
    refuse_empty(view, presence)
    warn_about_absent_modalities(view, presence)
    present = [m for m, rows in presence.items() if rows.any()]
    encoder = info.text_encoder.source
    method = predictor.definition.method
    check_needs(method, store, view, text_encoder=encoder, modalities=present)
    predictor.to(device)
    source = source_of(
        predictor,
        view,
        present,
        frame_of_token=token_frames(store, view, present, predictor.tokenizer),
        text=_kept_states(predictor, store, view) if keep_states else None,
    )
    say_what_is_cut(
        view,
        predictor.definition.info,
        predictor.tokenizer,
        max_text_tokens=predictor.definition.max_text_tokens,
    )
    return OpenRun(predictor, store, view, tuple(present), source, absent_counts(presence))


def _kept_states(predictor: Predictor, store: Store, view: SplitView) -> HiddenStates | None:
    """The states of a split's texts that every network with this frozen encoder begins with."""
    encoders = [one for one in predictor.network.modules() if isinstance(one, TextEncoder)]
    if predictor.tokenizer is None or len(encoders) != 1 or not encoders[0].is_partly_frozen:
        return None
    return cached_states(
        encoders[0],
        predictor.tokenizer(view.texts, view.column("context")),
        cache_dir=store.path / "cache",
        device=predictor.device,
    )


def source_of(
    predictor: Predictor,
    view: SplitView,
    modalities: Sequence[Modality],
    *,
    frame_of_token: Sequence[NDArray[np.int64]] | None,
    text: HiddenStates | None = None,
    alter: Callable[[Modality, FrameSource], FrameSource] | None = None,
) -> BatchLoader:
    """The batches of a split as a saved network reads them.

    Args:
        predictor: the network.
        view: the split.
        modalities: those that are loaded.
        frame_of_token: of a word-aligned split, as ``token_frames`` gives it.
        text: states in place of token ids.
        alter: as ``BatchLoader`` takes it.
    """
    return BatchLoader(
        view,
        modalities=modalities,
        batch_size=_BATCH_SIZE,
        seed=0,
        shuffle=False,
        text=predictor.tokenizer if text is None else text,
        frame_of_token=frame_of_token,
        context_of_token=token_contexts(view, modalities, predictor.tokenizer),
        alter=alter,
    )


def check_widths(predictor: Predictor, store: Store) -> None:
    """Refuse data that the network was not built for.

    Raises:
        UserError: a modality's width or specification, the task or the number of classes differs.
            A modality that the data lack is absent.
    """
    info, description = predictor.definition.info, store.description
    if info.task != description.task:
        raise UserError(f"the model does {info.task}, {store.path} is a {description.task}")
    for modality, width in info.widths.items():
        found = description.widths.get(modality)
        if found is not None and found != width:
            raise UserError(
                f"the model takes {modality} {width} wide, {store.path} has it {found} wide"
            )
    if info.num_classes != description.num_classes:
        raise UserError(
            f"the model has {info.num_classes} classes, {store.path} {description.num_classes}"
        )
    check_features(
        info.features, description.features, model_name="the model", data_name=str(store.path)
    )


def check_scale(record: RunRecord, store: Store) -> None:
    """Refuse to measure a run on labels of another scale than it was trained on.

    The scale may be the same and the convention another: the data's measures then count, and a line
    says so.

    Raises:
        UserError: the label ranges differ.
    """
    trained_on, description = record["data"], store.description
    if trained_on["task"] != "regression" or description.task != "regression":
        return  # a task that differs is refused beside the widths
    ends = tuple(float(end) for end in trained_on["label_range"])
    low, high = description.label_range
    if ends != (low, high):
        raise UserError(
            f"the run was trained on labels from {ends[0]:g} to {ends[1]:g} "
            f"({trained_on['dataset']}), {store.path} has them from {low:g} to {high:g} "
            f"({description.dataset}): predictions and labels are on two scales"
        )
    trained_by = convention_of_data(trained_on).name
    if trained_by != description.convention and rank() == 0:
        print(
            f"note: the run was trained by the measures of {trained_by!r}; {store.path} is "
            f"measured by those of {description.convention!r}",
            file=sys.stderr,
        )


def check_record_features(record: Mapping[str, Any], store: Store, *, run: Path) -> None:
    """Refuse to measure a run on features that it was not trained on.

    Raises:
        UserError: the specifications differ, or the record's is damaged.
    """
    try:
        trained_on = {
            Modality(name): FeatureSpec.from_dict(spec)
            for name, spec in record["data"].get("features", {}).items()
        }
    except ValueError as error:
        raise UserError(f"{run / 'record.json'} is damaged: {error}") from None
    check_features(
        trained_on, store.description.features, model_name=str(run), data_name=str(store.path)
    )


def evaluate_run(
    run: Path,
    *,
    data: Path,
    split: str = "test",
    device: str = "auto",
    allow_data_errors: bool = False,
) -> Evaluation:
    """Metrics of a run's chosen checkpoint on a labelled split.

    The first evaluation on test is written into the record; a later call with the same weights
    and data returns it. An evaluation on another dataset's split of that name is written beside
    it, as ``<split>@<start of the data's hash>``. Measures are those of the data's convention; an
    evaluation that an earlier version measured by another one is measured anew.

    Args:
        run: a run's directory.
        data: a store.
        split: train, valid or test.
        device: auto, cpu or cuda.
        allow_data_errors: measure also on data that ``data check`` calls wrong; the record says so.

    Raises:
        UserError: the split is empty or unlabelled, the data do not fit the network, are on another
            scale, or have errors that are not allowed.
    """
    if is_builtin(run):
        return _evaluate_builtin(
            run, data=data, split=split, device=device, allow_data_errors=allow_data_errors
        )
    store = Store.open(data)
    view = store.split(split)
    allowed = check_measurable(run, store, view, allow_data_errors=allow_data_errors)
    here = open_device(device)
    known = on_rank_0(lambda: known_evaluation(run, store, split))
    if known:
        return known
    opened = open_run(run, data, split, here, keep_states=True)
    predictions = opened.predict()

    def add() -> Evaluation:
        with run_lock(run, wait_seconds=_PATIENCE_SECONDS):
            # Another process may have been first while this one predicted.
            known = known_evaluation(run, store, split)
            if known:
                return known
            evaluation = add_evaluation(
                run,
                read_record(run),
                store,
                view,
                predictions,
                absent=opened.absent,
                allowed=allowed,
            )
            write_report(run)
            return evaluation

    return on_rank_0(add)


def check_measurable(
    run: Path, store: Store, view: SplitView, *, allow_data_errors: bool
) -> tuple[IntegrityRow, ...]:
    """Refuse a run without a network, and a split on which its figures would say nothing.

    Returns:
        The errors in the data that were allowed.

    Raises:
        UserError: as ``evaluate_run``.
    """
    record = read_record(run)
    if not (run / EXPORT_FOLDER).is_dir():
        what = "a cross-validation keeps none" if "folds" in record else "it was removed"
        raise UserError(f"{run} has no network in {EXPORT_FOLDER}/ to evaluate: {what}")
    allowed = _check_labelled(run, store, view, allow_data_errors=allow_data_errors)
    check_scale(record, store)
    check_record_features(record, store, run=run)
    return allowed


def _check_labelled(
    run: Path, store: Store, view: SplitView, *, allow_data_errors: bool
) -> tuple[IntegrityRow, ...]:
    """Refuse a split that cannot be measured on; the errors in its store that are allowed."""
    unlabelled = int((~view.labelled).sum())
    if unlabelled:
        raise UserError(
            f"split {view.name!r} of {store.path} has {unlabelled} of {len(view)} samples without "
            f"a label; use `tecafn predict {run} --data {store.path} --split {view.name} "
            "--out predictions.csv`"
        )
    return refuse_errors(store, allowed=allow_data_errors)


def _evaluate_builtin(
    name: Path, *, data: Path, split: str, device: str, allow_data_errors: bool
) -> Evaluation:
    """A model of the package on a labelled split. It has no record: nothing is kept."""
    store = Store.open(data)
    view = store.split(split)
    allowed = _check_labelled(name, store, view, allow_data_errors=allow_data_errors)
    opened = open_run(name, data, split, open_device(device))
    check_label_range(name, opened.predictor.definition.info.label_range, store)
    return new_evaluation(
        store,
        opened.view,
        opened.predict(),
        chosen_on=f"valid of {opened.predictor.definition.dataset}",
        weights_hash=file_hash(model_folder(name) / WEIGHTS_FILE),
        absent=opened.absent,
        allowed=allowed,
    )


def check_label_range(model: str | Path, label_range: Sequence[float], store: Store) -> None:
    """Refuse labels of another scale than the model's scores.

    Raises:
        UserError: the label ranges differ.
    """
    low, high = map(float, label_range)
    ends = store.description.label_range
    if (low, high) != tuple(map(float, ends)):
        raise UserError(
            f"{model} gives scores from {low:g} to {high:g}, {store.path} has labels from "
            f"{ends[0]:g} to {ends[1]:g} ({store.description.dataset}): predictions and labels are "
            "on two scales"
        )


def known_evaluation(run: Path, store: Store, split: str) -> Evaluation | None:
    """What was found when the same weights were evaluated on the same data by the same measures."""
    record = read_record(run)
    known = record["evaluations"].get(_evaluation_name(record, store, split))
    hashes = (weights_hash(run), store.content_hash)
    if not known or (known["weights_hash"], known["data_hash"]) != hashes:
        return None
    measured_by = convention_of_evaluation(known)
    is_same = measured_by is not None and measured_by.name == store.description.convention
    return known if is_same else None


def look_again(run: Path, store: Store, split: str, *, what: str) -> None:
    """Let a split be measured for another purpose than to evaluate it, and log that it was.

    The test split may be looked at again when it has been evaluated: what is found then can no
    longer change which run is reported.

    Args:
        run: its directory.
        store: the data.
        split: of the store.
        what: the purpose, such as ``robustness``.

    Raises:
        UserError: it is the test split, and has not been evaluated with these weights.
    """
    if split != "test":
        return
    known = known_evaluation(run, store, split)
    if known is None:
        raise UserError(
            f"{run} has not been evaluated on the test split, which is looked at once, when a run "
            f"is final: `tecafn evaluate {run} --data {store.path}` comes first; until then use "
            "--split valid (the default)"
        )
    with run_lock(run, wait_seconds=_PATIENCE_SECONDS):
        record = read_record(run)
        name = f"{what}:{_evaluation_name(record, store, split)}"
        log_look(run, record, name, cast(Evaluation, {**known, "created": now()}))


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


def _evaluation_name(record: RunRecord, store: Store, split: str) -> str:
    """``test`` for the test split that belongs to the training data, or if that has none."""
    trained_on = record["data"]
    is_foreign = store.content_hash != trained_on["hash"] and trained_on["splits"].get(split)
    return f"{split}@{store.content_hash[:8]}" if is_foreign else split


def add_evaluation(
    run: Path,
    record: RunRecord,
    store: Store,
    view: SplitView,
    predictions: Predictions,
    *,
    absent: Mapping[str, int],
    allowed: Iterable[IntegrityRow],
) -> Evaluation:
    """Assess predictions, write them and the record.

    The record also has how many samples lacked a modality, and the errors in the data that the user
    ``allowed``.
    """
    name = _evaluation_name(record, store, view.name)
    evaluation = new_evaluation(
        store,
        view,
        predictions,
        chosen_on=record["training"]["chosen_on"],
        weights_hash=weights_hash(run),
        absent=absent,
        allowed=allowed,
    )
    record["evaluations"][name] = evaluation
    keep_evaluation(run, record, name, prediction_rows(view, predictions))
    return evaluation


def keep_evaluation(
    run: Path, record: RunRecord, name: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write predictions, a line of the log of evaluations, and the record that has the evaluation.

    Args:
        run: the run's directory.
        record: with the evaluation ``name``.
        name: of the evaluation.
        rows: of ``predictions/<name>.csv``.
    """
    path = run / "predictions" / f"{name}.csv"
    write_predictions(path, rows)
    log_look(run, record, name, record["evaluations"][name], predictions_hash=file_hash(path))
    write_record(run, record)


def log_look(
    run: Path,
    record: RunRecord,
    name: str,
    evaluation: Evaluation,
    *,
    predictions_hash: str | None = None,
) -> None:
    """Append to the log that somebody looked at a split; ``tecafn audit`` counts the looks."""
    entry: LoggedEvaluation = {
        "created": evaluation["created"],
        "name": name,
        "weights_hash": evaluation.get("weights_hash"),
        "data_hash": evaluation["data_hash"],
        "config_hash": config_hash(record["config"]),
        "code_hash": code_hash(),
        "predictions_hash": predictions_hash,
        "previous": "",
    }
    log_evaluation(run, entry)


def new_evaluation(
    store: Store,
    view: SplitView,
    predictions: Predictions,
    *,
    chosen_on: str,
    weights_hash: str | None,
    absent: Mapping[str, int] | None = None,
    allowed: Iterable[IntegrityRow] = (),
) -> Evaluation:
    """An entry of a record: predictions assessed, and where they come from.

    Args:
        store: the data.
        view: what of them was predicted.
        predictions: of every sample of ``view``.
        chosen_on: what chose the checkpoint.
        weights_hash: of the network; None where there are several.
        absent: how many samples lacked a modality.
        allowed: errors in the data that the user has allowed.
    """
    head = {
        "split": view.name,
        "chosen_on": chosen_on,
        "weights_hash": weights_hash,
        "data_hash": store.content_hash,
        "created": now(),
        **({"absent": dict(absent)} if absent else {}),
    }
    evaluation = cast(Evaluation, head | assess_view(view, predictions))
    add_allowed(evaluation, allowed)
    return evaluation


def assess_view(view: SplitView, predictions: Predictions) -> dict[str, Any]:
    """Metrics, intervals, pairs, and for a generated corpus its ceiling."""
    labels = np.asarray(view.labels, np.float64)
    pair_ids = view.column("pair_id")
    has_pairs = any(pair_ids)
    answers = predictions.predictions if predictions.classes is None else predictions.classes
    assessed = partial(
        assess,
        convention=view.convention,
        label_range=view.label_range,
        pair_ids=pair_ids if has_pairs else None,
    )
    result = assessed(answers, labels, view.videos)
    oracle = view.column("oracle")
    if all(value is not None for value in oracle) and view.task == "regression":
        ceiling = assessed(np.asarray(oracle, np.float64), labels, view.videos)
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


def _say_other_scale(opened: OpenRun) -> None:
    """Predictions are on the scale of training, whatever the data's labels are."""
    info = opened.predictor.definition.info
    ends, theirs = info.label_range, opened.store.description.label_range
    if info.task == "regression" and ends != theirs and rank() == 0:
        print(
            f"note: predictions are on the model's scale, {ends[0]:g} to {ends[1]:g}; the data's "
            f"labels are from {theirs[0]:g} to {theirs[1]:g}",
            file=sys.stderr,
        )


def _say_foreign(opened: OpenRun) -> None:
    """Scores of texts in a language that the network was not trained on mean nothing."""
    definition = opened.predictor.definition
    known = languages_of(definition.dataset)
    if not definition.info.reads_sentences or not known or rank() != 0:
        return
    try:
        found = foreign(opened.view.texts, known)
    except UserError as error:
        print(f"note: {error}", file=sys.stderr)
        return
    named = [f"{name} ({code})" for name, code in zip(opened.view.ids, found, strict=True) if code]
    if named:
        print(
            f"note: {len(named)} of {len(found)} texts are in a language that the model was not "
            f"trained on ({', '.join(known)}), and their predictions mean nothing: "
            f"{', '.join(named[:_MOST_NAMED])}{' ...' if len(named) > _MOST_NAMED else ''}",
            file=sys.stderr,
        )


def predict_run(
    run: Path,
    *,
    data: Path,
    split: str,
    out: Path,
    device: str = "auto",
    intervals: bool = False,
) -> int:
    """Write ``id,prediction`` for every sample of a split, labelled or not.

    Args:
        run: ``builtin``, ``builtin-base``, a run's directory, or an exported model.
        data: a store.
        split: of the store.
        out: the file.
        device: auto, cpu or cuda.
        intervals: add the columns ``low,high``; see ``serving.intervals``.

    Returns:
        How many.

    Raises:
        UserError: something cannot be read, or does not fit; or intervals are asked for of a run
            that was not calibrated.
    """
    refuse_overwriting(out)
    calibrated = Intervals.load(run) if intervals else None
    here = open_device(device)
    opened = open_run(run, data, split, here)
    _say_other_scale(opened)
    _say_foreign(opened)
    view, scores = opened.view, opened.predict().predictions
    columns = {"id": list(view.ids), "prediction": scores.tolist()}
    if calibrated is not None:
        low, high = calibrated.of(scores, [count_words(text) for text in view.texts])
        columns |= {"low": low.tolist(), "high": high.tolist()}

    def write() -> int:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}") from None
        return len(view)

    return on_rank_0(write)
