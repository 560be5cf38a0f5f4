"""Runs into the registry of results: their predictions, and what they were trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from tecafn.core.errors import UserError
from tecafn.core.places import refuse_overwriting
from tecafn.data.store import Store
from tecafn.experiments.audit.rederived import check_predictions
from tecafn.records.measured import evaluation_on
from tecafn.records.predictions import SplitPredictions, read_predictions, write_predictions
from tecafn.records.record import (
    RunRecord,
    config_hash,
    file_hash,
    read_record,
    write_text_atomically,
)
from tecafn.records.results import (
    FORMAT_VERSION,
    Result,
    read_result,
    video_key,
)


def submit(
    runs: Sequence[Path],
    *,
    data: Path,
    trained_on: Path | None = None,
    split: str = "test",
    out: Path,
    name: str | None = None,
    with_labels: bool = True,
) -> Result:
    """Write ``OUT.toml`` and, in a folder beside it, the predictions of each run.

    Args:
        runs: of one method and one dataset, with different seeds, evaluated on the split.
        data: the store they were evaluated on.
        trained_on: the store they were trained on, where that is another one.
        split: which.
        out: the file to write; ``.toml`` is added where it is left out.
        name: of the row; None = the method's.
        with_labels: False leaves labels out, for data whose terms forbid handing them on.

    Raises:
        UserError: a run is not evaluated on the split of these data, its predictions were changed
            since, runs do not go together, or ``out`` is somebody else's. Nothing is written then.
    """
    # A name may have dots that begin no ending: results/v2.1.
    folder = out.with_suffix("") if out.suffix == ".toml" else out
    out = folder.with_name(f"{folder.name}.toml")
    refuse_overwriting(out)
    refuse_overwriting(folder / "videos.txt")
    records = [read_record(run) for run in runs]
    store = Store.open(data)
    source = store if trained_on is None else Store.open(trained_on)
    _check(runs, records, source)
    found = [
        _predictions_of(run, record, store, split)
        for run, record in zip(runs, records, strict=True)
    ]
    # All is read and checked by now: an earlier result of this name stays whole until then.
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [
        _seed(run, record, predictions, folder, with_labels=with_labels)
        for run, record, predictions in zip(runs, records, found, strict=True)
    ]
    used = {"train", *(record["training"]["chosen_on"] for record in records)}
    seen = sorted(
        {
            video_key(video)
            for part in used & set(source.split_names)
            for video in source.split(part).column("video")
        }
    )
    videos = folder / "videos.txt"
    write_text_atomically(videos, "\n".join(seen) + "\n")
    first = records[0]
    values: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": name or first["method"],
        "method": first["method"],
        "dataset": store.description.dataset,
        "split": split,
        "data_hash": store.content_hash,
        "convention": store.description.convention,
        "task": store.description.task,
        "label_range": list(map(float, store.description.label_range)),
        "trained_on": {
            "dataset": source.description.dataset,
            "hash": source.content_hash,
            "videos": f"{folder.name}/{videos.name}",
            "videos_hash": file_hash(videos),
            "began_with": sorted({name for record in records for name in _began_with(record)}),
        },
        "seeds": seeds,
    }
    write_text_atomically(out, tomli_w.dumps(values))
    return read_result(out)


def labels_of(data: Sequence[Path]) -> dict[str, dict[str, float]]:
    """By the hash of a store's content, its labels by id."""
    found: dict[str, dict[str, float]] = {}
    for path in data:
        store = Store.open(path)
        labels = found.setdefault(store.content_hash, {})
        for part in store.split_names:
            view = store.split(part)
            labels |= {
                identity: float(label)
                for identity, label, known in zip(view.ids, view.labels, view.labelled, strict=True)
                if known
            }
    return found


def _check(runs: Sequence[Path], records: Sequence[RunRecord], source: Store) -> None:
    for run, record in zip(runs, records, strict=True):
        if "training" not in record:
            raise UserError(f"{run} is a cross-validation, whose networks see every video")
        if record["data"]["hash"] != source.content_hash:
            raise UserError(
                f"{run} was trained on {record['data']['dataset']} "
                f"({record['data']['hash'][:10]}), not on {source.path}: name it with --trained-on"
            )
        if record["method"] != records[0]["method"]:
            raise UserError(
                f"runs of one result have one method, got {records[0]['method']} and "
                f"{record['method']}"
            )
        other = {**record["config"], "seed": None} != {**records[0]["config"], "seed": None}
        if other:
            raise UserError(f"{run} has another config than {runs[0]}, beyond the seed")
    seeds = [record["seed"] for record in records]
    if len(set(seeds)) != len(seeds):
        raise UserError(f"runs of one result have different seeds, got {seeds}")


def _predictions_of(run: Path, record: RunRecord, store: Store, split: str) -> SplitPredictions:
    """What a run predicted of the split.

    Raises:
        UserError: it is not evaluated on it; the line names the command that does.
    """
    key = evaluation_on(record, split=split, data_hash=store.content_hash)
    if key is None:
        raise UserError(
            f"{run} is not evaluated on {split} of {store.path}: "
            f"`tecafn evaluate {run} --data {store.path} --split {split}`"
        )
    found = read_predictions(run / "predictions" / f"{key}.csv")
    check_predictions(run, record, key)
    return found


def _seed(
    run: Path, record: RunRecord, found: SplitPredictions, folder: Path, *, with_labels: bool
) -> dict[str, Any]:
    """Write one run's predictions; its entry."""
    file = folder / f"seed-{record['seed']}.csv"
    rows = zip(
        found.ids, found.videos, found.labels.tolist(), found.predictions.tolist(), strict=True
    )
    write_predictions(
        file,
        [  # no texts: whose they are is another question
            {
                "id": identity,
                "video": video,
                "label": label if with_labels and not math.isnan(label) else None,
                "prediction": prediction,
            }
            for identity, video, label, prediction in rows
        ],
    )
    training = record["training"]
    return {
        "seed": record["seed"],
        "predictions": f"{folder.name}/{file.name}",
        "predictions_hash": file_hash(file),
        "chosen_on": f"{training['chosen_on']}@{record['data']['hash']}",
        "record_hash": file_hash(run / "record.json"),
        "config_hash": config_hash(record["config"]),
        "code_hash": record.get("code_hash", ""),
        "commit": record["commit"] or "",
        "version": record["tecafn_version"],
    }


def _began_with(record: RunRecord) -> list[str]:
    """Datasets of the runs before."""
    names = []
    start = record.get("init_from")
    while start is not None:
        names.append(start["data"].get("dataset", start["run"]))
        start = start.get("init_from")
    return names
