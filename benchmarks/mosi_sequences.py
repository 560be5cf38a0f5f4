"""229 real word-aligned CMU-MOSI sequences, all three modalities, ten folds by video.

Run with ``make bench-mosi-sequences``; a killed run continues where it was. Writes
``docs/results/mosi-sequences.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import (
    ROOT,
    Row,
    SeedRuns,
    data_root,
    difference_lines,
    markdown_table,
    metric_cells,
    metric_headers,
    pair_cell,
    write_results,
)

from tecafn.core.errors import UserError
from tecafn.data.importing import import_dataset
from tecafn.data.readers import ReadOptions
from tecafn.experiments.config import load_config
from tecafn.experiments.cross_validation import OUT_OF_FOLD, cross_validate_run
from tecafn.experiments.shipped import find_config
from tecafn.records.predictions import read_predictions
from tecafn.records.record import read_record

SEEDS = (0,)
FOLDS = 10
CONFIG = "mosi/tecafn_sequences.toml"
ROWS = (
    Row("three modalities", CONFIG),
    Row("text alone", CONFIG, ('modalities=["text"]',)),
)


def cross_validated(row: Row, *, data: Path, out: Path) -> SeedRuns:
    """A row's out-of-fold predictions."""
    records, predictions = [], []

    for seed in SEEDS:
        run = out / row.name.replace(" ", "-") / f"seed-{seed}"
        if not (run / "record.json").exists():
            print(f"cross-validating {row.name}, seed {seed}", flush=True)
            config = load_config(find_config(Path(row.config)), [f"seed={seed}", *row.overrides])
            cross_validate_run(
                config,
                data=data,
                out=run,
                by="video",
                num_folds=FOLDS,
                resume=True,
                device="cpu",
                progress=False,
            )
        record = read_record(run)
        seconds = sum(fold["seconds"] for fold in record["folds"])
        record["training"] = {"seconds": seconds}  # type: ignore[typeddict-item]
        records.append(record)
        rows = read_predictions(run / "predictions" / f"{OUT_OF_FOLD}.csv")
        predictions.append(rows.predictions)
    return SeedRuns(
        records=records,
        predictions=np.array(predictions),
        labels=rows.labels,
        videos=np.array(rows.videos),
        pair_ids=list(rows.pair_ids),
        split=OUT_OF_FOLD,
    )


def median_predictor(runs: SeedRuns) -> float:
    """MAE of predicting each video's utterances with the median label of the other videos."""
    errors = np.empty(len(runs.labels))
    for video in np.unique(runs.videos):
        own = runs.videos == video
        errors[own] = np.abs(runs.labels[own] - np.median(runs.labels[~own]))
    return float(errors.mean())


def main() -> None:
    """Train the folds that are open and write the page."""
    out = ROOT / "runs" / "bench-mosi-sequences"
    store = out / "store"
    if not store.exists():
        import_dataset(
            data_root() / "mosi" / "valid_word_aligned_misa.pkl",
            format="misa",
            out=store,
            options=ReadOptions(dataset="mosi", split="valid"),
        )
    rows = {row.name: cross_validated(row, data=store, out=out) for row in ROWS}
    both, text = rows["three modalities"], rows["text alone"]
    cells = [
        [name, *metric_cells(runs), pair_cell(runs.pairs("hard")), f"{runs.minutes():.1f}"]
        for name, runs in rows.items()
    ]
    median = [f"{median_predictor(both):.3f}", *["-"] * 7]
    write_results(
        "mosi-sequences",
        "CMU-MOSI, 229 word-aligned sequences of three modalities",
        "make bench-mosi-sequences",
        [
            f"TeCaFN with `configs/{CONFIG}` and MiniLM; the 229 utterances (10 videos) whose "
            "FACET and COVAREP sequences are public, "
            f"`tecafn train --cross-validate video --folds {FOLDS}`: out-of-fold predictions, "
            f"checkpoints chosen on the next fold's video. Seeds {', '.join(map(str, SEEDS))}.",
            markdown_table(
                ["", *metric_headers(), "hard pairs", "minutes, all folds"],
                [*cells, ["median of the other videos", *median]],
            ),
            "\n".join(difference_lines(both, text, ("three modalities", "text alone"))),
        ],
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
