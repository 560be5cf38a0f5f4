"""Real CMU-MOSEI and UR-FUNNY, text alone, on the validation splits (test labels are withheld).

    python benchmarks/real_text.py [--seeds 0] [--only mosei,ur-funny]

Run with ``make bench-text``; a killed run continues where it was. Writes
``docs/results/mosei-ur-funny-text.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import (
    ROOT,
    Row,
    SeedRuns,
    data_root,
    markdown_table,
    metric_cells,
    metric_headers,
    pair_cell,
    run_row,
    write_results,
)

from tecafn.core.errors import UserError
from tecafn.data.importing import import_dataset
from tecafn.data.readers import ReadOptions
from tecafn.data.store import Store
from tecafn.experiments.evaluate import predict_run

# Half the time of float32 on a CPU that multiplies bfloat16; scores stay in float32.
SHARED = ("text_encoder=minilm", "training.precision=bf16-mixed", 'modalities=["text"]')
MOSEI = Row("MOSEI", "mosei/tecafn.toml", SHARED)
UR_FUNNY = Row("UR-FUNNY", "ur_funny/tecafn.toml", SHARED)
NAMES = ("mosei", "ur-funny")


def mosei_block(out: Path, seeds: Sequence[int]) -> str:
    """The page's part on MOSEI's text."""
    store = out / "mosei-store"
    if not store.exists():
        options = ReadOptions(dataset="mosei")
        import_dataset(
            data_root() / "mosei" / "label.csv", format="label-csv", out=store, options=options
        )
    runs = run_row(MOSEI, data=store, out=out, seeds=seeds, split="valid")
    view = Store.open(store)
    median = float(np.median(view.split("train").labels))
    error = float(np.abs(view.split("valid").labels - median).mean())
    cells = [*metric_cells(runs), pair_cell(runs.pairs("hard")), f"{runs.minutes():.1f}"]
    table = markdown_table(
        ["", *metric_headers(), "hard pairs", "minutes"],
        [["text alone", *cells], ["median of train", f"{error:.3f}", *["-"] * (len(cells) - 1)]],
    )
    return _block("CMU-MOSEI", MOSEI, runs, table, store, out, seeds)


def ur_funny_block(out: Path, seeds: Sequence[int]) -> str:
    """The page's part on UR-FUNNY's text."""
    store = out / "ur-funny-store"
    if not store.exists():
        options = ReadOptions(dataset="ur-funny")
        source = data_root() / "ur_funny" / "text.jsonl"
        import_dataset(source, format="ur-funny", out=store, options=options)
    runs = run_row(UR_FUNNY, data=store, out=out, seeds=seeds, split="valid")
    labels = runs.labels
    majority = 100 * max(float((labels == c).mean()) for c in np.unique(labels))
    cells = [*metric_cells(runs, ("accuracy", "f1")), f"{runs.minutes():.1f}"]
    table = markdown_table(
        ["", *metric_headers(("accuracy", "f1")), "minutes"],
        [["context and punchline", *cells], ["the larger class", f"{majority:.2f}", "-", "-"]],
    )
    return _block("UR-FUNNY", UR_FUNNY, runs, table, store, out, seeds)


def _block(
    title: str,
    row: Row,
    runs: SeedRuns,
    table: str,
    store: Path,
    out: Path,
    seeds: Sequence[int],
) -> str:
    run = out / row.name / f"seed-{seeds[0]}"
    file = out / f"{row.name}-test-predictions.csv"
    count = predict_run(run, data=store, split="test", out=file, device="cpu")
    overrides = ", ".join(f"`{o}`" for o in row.overrides)
    return "\n\n".join(
        [
            f"## {title}",
            f"`configs/{row.config}`, {overrides}; figures are of the {len(runs.labels)} "
            "validation samples, **which also chose the checkpoints**. Seeds "
            f"{', '.join(map(str, seeds))}.",
            table,
            f"`tecafn predict --split test` wrote {count} rows.",
        ]
    )


def main() -> None:
    """Train what is open and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--only", default=",".join(NAMES), help="mosei, ur-funny")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    asked = options.only.split(",")
    unknown = sorted(set(asked) - set(NAMES))
    if unknown:
        raise UserError(f"no dataset {', '.join(unknown)}; there are {', '.join(NAMES)}")
    out = ROOT / "runs" / "bench-text"
    makers = {"mosei": mosei_block, "ur-funny": ur_funny_block}
    blocks = [makers[name](out, seeds) for name in asked]
    if set(asked) != set(NAMES):
        print("\n\n".join(blocks))
        return
    write_results(
        "mosei-ur-funny-text",
        "CMU-MOSEI and UR-FUNNY, text alone",
        f"make bench-text SEEDS={options.seeds}",
        [
            "TeCaFN's network with text alone (audio and vision absent), all of MiniLM trained, at "
            "most 4 epochs. UR-FUNNY is a classification; context and punchline are a pair of BERT "
            "segments, of which the context is cut first.",
            *blocks,
        ],
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
