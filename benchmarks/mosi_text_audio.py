"""Real CMU-MOSI text and audio, three seeds, on the validation split (test labels are withheld).

Run with ``make bench-mosi``; a killed run continues where it was. Writes
``docs/results/mosi-text-audio.md``.
"""

from __future__ import annotations

import sys

from common import (
    ROOT,
    Row,
    difference_lines,
    markdown_table,
    metric_cells,
    metric_headers,
    mosi_store,
    pair_cell,
    run_row,
    write_results,
)

from tecafn.core.errors import UserError
from tecafn.experiments.evaluate import predict_run

SEEDS = (0, 1, 2)
ROWS = (
    Row("text and audio", "mosi/tecafn.toml", ("text_encoder=minilm",)),
    Row("text alone", "mosi/tecafn.toml", ("text_encoder=minilm", 'modalities=["text"]')),
)


def main() -> None:
    """Train what is open and write the page."""
    out = ROOT / "runs" / "bench-mosi"
    store = mosi_store(out)
    rows = {row.name: run_row(row, data=store, out=out, seeds=SEEDS, split="valid") for row in ROWS}
    cells = [
        [name, *metric_cells(runs), pair_cell(runs.pairs("hard")), f"{runs.minutes():.1f}"]
        for name, runs in rows.items()
    ]
    both, text = rows["text and audio"], rows["text alone"]
    predicted = predict_run(
        out / "text-and-audio" / "seed-0",
        data=store,
        split="test",
        out=out / "test-predictions.csv",
        device="cpu",
    )
    write_results(
        "mosi-text-audio",
        "CMU-MOSI, text and audio",
        "make bench-mosi",
        [
            "TeCaFN with `configs/mosi/tecafn.toml`, `text_encoder=minilm`, one 73-wide acoustic "
            "vector per utterance. Trained on the 1284 training utterances; the checkpoint is "
            "chosen on, **and the figures are of, the 229 validation utterances**, since the test "
            f"labels are withheld here: they are optimistic. Seeds {', '.join(map(str, SEEDS))}, "
            "mean ± deviation. Hard pairs: share ranked correctly of "
            f"{both.pairs('hard').num_pairs}, in percent, with a 95 % interval.",
            markdown_table(["", *metric_headers(), "hard pairs", "minutes"], cells),
            "\n".join(difference_lines(both, text, ("text and audio", "text alone"))),
            f"`tecafn predict --split test` wrote {predicted} rows.",
        ],
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
