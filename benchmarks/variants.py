"""The paper against its authors' code, the two residuals, the memory bank: three seeds of each.

    python benchmarks/variants.py [--seeds 0,1,2] [--only NAME,NAME] [--tables-only] [--smoke]
    python benchmarks/variants.py --repeat [--tables-only]

On the synthetic corpus (test split) and on real CMU-MOSI text and audio (validation split, as test
labels are withheld). Run with ``make bench-variants``; a killed run continues, and what
``make bench-demo`` and ``make bench-mosi`` trained, or ``benchmarks/cells`` keeps, is not trained
again. Writes ``docs/results/variants.md``; ``--tables-only`` from what is finished, and then it
says what is open. ``--smoke`` trains tiny networks for an epoch and prints the page.

Resampled videos say how much a difference depends on who was tested, not on how training went. So
``--repeat`` trains the rows whose difference on the synthetic corpus was not 0 once more, with five
seeds, and asks whether the seeds agree: ``docs/results/variants-repeated.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common import (
    ROOT,
    Row,
    SeedRuns,
    difference_cell,
    difference_lines,
    is_finished,
    markdown_table,
    metric_cells,
    metric_headers,
    mosi_store,
    pair_cell,
    run_row,
    write_results,
)
from kept import keep_all, restore_all
from scipy import stats

from tecafn.core.errors import UserError
from tecafn.data.synthetic import CorpusSpec
from tecafn.experiments.demo import synthetic_corpus

METRICS = ("mae", "corr", "acc7", "acc2_pos")
PAPER = "paper"
BANK_SIZE = 256
# What changes, and by which settings; a difference of the authors' code is switched alone.
CHANGES: dict[str, tuple[str, ...]] = {
    PAPER: (),
    "pre_norm residual": ('model.residual="pre_norm"',),
    f"memory bank of {BANK_SIZE}": (f"model.bank_size={BANK_SIZE}",),
    "variant authors": ('model.variant="authors"', "max_text_tokens=50"),
    "linear output": ('model.output="linear"',),
    "mutual information": ('model.differences=["mutual_information"]',),
    "token contrast": ('model.differences=["token_contrast"]',),
    "no LSTM": ('model.differences=["no_lstm"]',),
    "early convolution": ('model.differences=["early_convolution"]',),
    "scaled inputs": ('model.differences=["scaled_inputs"]',),
    "closing norm": ('model.differences=["closing_norm"]',),
    "own among hardest": ('model.differences=["own_among_hardest"]',),
    # Without pooling it, padding of the text is seen by nothing.
    "pooled padding": ('model.differences=["pooled_padding", "padded_text"]', "max_text_tokens=50"),
    "unmasked self-attention": ('model.differences=["unmasked_self_attention"]',),
    "unmasked audio": ('model.differences=["unmasked_audio"]',),
    "misplaced masks": ('model.differences=["misplaced_masks"]',),
}
# One acoustic vector per utterance, no vision: no padding, no second contrast.
NOTHING_TO_SEE = ("token contrast", "unmasked self-attention", "unmasked audio", "misplaced masks")
SMOKE = (
    "num_trained_text_layers=0",
    "training.max_epochs=1",
    "model.dim=10",
    "model.num_layers=1",
    "model.num_unimodal_layers=1",
)


@dataclass(frozen=True, kw_only=True)
class Data:
    """One dataset and how it is trained on.

    Args:
        title: heading of its table.
        store: the samples.
        split: the one that figures are of.
        config, overrides: of every row.
        left_out: changes that cannot change anything here.
        pairs: designed or hard.
        trained: the folder and row of another benchmark whose cells are the paper's row.
    """

    title: str
    store: Path
    split: str
    config: str
    overrides: tuple[str, ...]
    left_out: tuple[str, ...]
    pairs: str
    trained: tuple[Path, str]


def synthetic(runs: Path, *, smoke: bool) -> Data:
    """The synthetic corpus, test split."""
    spec = CorpusSpec(num_train=96, num_valid=32, num_test=64) if smoke else CorpusSpec()
    folder = runs / "bench-demo"
    return Data(
        title="The synthetic corpus",
        store=synthetic_corpus(folder / "corpus", spec).path,
        split="test",
        config="synthetic/tecafn_published.toml",
        overrides=SMOKE if smoke else (),
        left_out=(),
        pairs="designed",
        trained=(folder, "TeCaFN as published"),
    )


def mosi(runs: Path, *, smoke: bool) -> Data:
    """Real MOSI text and audio, validation split."""
    folder = runs / "bench-mosi"
    return Data(
        title="CMU-MOSI, text and audio",
        store=mosi_store(folder),
        split="valid",
        config="mosi/tecafn.toml",
        overrides=("text_encoder=minilm", *(SMOKE if smoke else ())),
        left_out=NOTHING_TO_SEE,
        pairs="hard",
        trained=(folder, "text and audio"),
    )


REPEATED_SEEDS = (0, 1, 2, 3, 4)
REPEATED = (
    PAPER,
    "pre_norm residual",
    "variant authors",
    "token contrast",
    "scaled inputs",
    "unmasked audio",
    "misplaced masks",
)


def repeated(runs: Path) -> Data:
    """The synthetic corpus again, where the paper's row is trained anew, too."""
    return replace(synthetic(runs, smoke=False), trained=(runs / "bench-variants-repeated", PAPER))


def seeds_cell(runs: SeedRuns, other: SeedRuns) -> str:
    """Difference of mean test MAE with the interval that the seeds' deviations give (Welch)."""
    ours, theirs = runs.metric("mae"), other.metric("mae")
    test = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return f"{ours.mean() - theirs.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def repeat(runs: Path, *, train: bool) -> None:
    """Train what is missing and write the page."""
    data = repeated(runs)
    folder = data.trained[0]
    restore_all([folder.name])
    rows = train_rows(data, REPEATED, out=folder, seeds=REPEATED_SEEDS, train=train)
    keep_all([folder.name])
    # Of an unfinished run the seeds that every row has.
    full = min(len(rows[name].records) if name in rows else 0 for name in REPEATED)
    if full < 2:
        raise UserError(f"{folder}: the page needs two seeds of every row, there are {full}")
    seeds, missing = REPEATED_SEEDS[:full], REPEATED_SEEDS[full:]
    rows = train_rows(data, REPEATED, out=folder, seeds=seeds, train=False)
    paper = rows[PAPER]
    lines = [
        [
            name,
            ", ".join(f"{value:.3f}" for value in found.metric("mae")),
            *metric_cells(found, ("mae",)),
            pair_cell(found.pairs(data.pairs)),
            *(
                ("-", "-")
                if name == PAPER
                else (difference_cell(found, paper), seeds_cell(found, paper))
            ),
            f"{found.minutes():.1f}",
        ]
        for name, found in rows.items()
    ]
    headers = [
        "",
        "MAE of each seed",
        "MAE",
        f"{data.pairs} pairs",
        "MAE minus paper's, over videos",
        "over seeds",
        "minutes",
    ]
    blocks = [
        "The rows of [the variants](variants.md) whose difference from the paper's on the "
        "synthetic corpus was not 0, trained anew. The interval over videos tells how much a "
        "difference depends on the test split (videos resampled, errors averaged over seeds); "
        "the one over seeds, how much on how training went (Welch's t, 95 %). A difference is one "
        "of the method where neither holds 0.",
        f"`configs/{data.config}`, {data.split} split, seeds {', '.join(map(str, seeds))}.",
        markdown_table(headers, lines),
    ]
    if missing:
        blocks.append(f"**Open**: seeds {', '.join(map(str, missing))}.")
    title = "Differences from the paper, trained once more"
    write_results("variants-repeated", title, "make bench-variants-repeated", blocks)


def train_rows(
    data: Data, names: Sequence[str], *, out: Path, seeds: Sequence[int], train: bool
) -> dict[str, SeedRuns]:
    """Every row with every seed; without ``train`` those that are finished, with their seeds."""
    rows = {}
    for name in names:
        if name in data.left_out:
            continue
        folder, title = data.trained if name == PAPER else (out, name)
        row = Row(title, data.config, (*data.overrides, *CHANGES[name]))
        there = [seed for seed in seeds if train or is_finished(row, out=folder, seed=seed)]
        if there:
            rows[name] = run_row(row, data=data.store, out=folder, seeds=there, split=data.split)
    return rows


def table(data: Data, rows: dict[str, SeedRuns]) -> str:
    """One line a change."""
    lines = [
        [
            name,
            *metric_cells(runs, METRICS),
            pair_cell(runs.pairs(data.pairs)),
            "-" if name == PAPER else difference_cell(runs, rows[PAPER]),
            f"{runs.minutes():.1f}",
        ]
        for name, runs in rows.items()
    ]
    headers = ["", *metric_headers(METRICS), f"{data.pairs} pairs", "MAE minus paper's", "minutes"]
    return markdown_table(headers, lines)


def blocks_of(data: Data, rows: dict[str, SeedRuns], seeds: Sequence[int]) -> list[str]:
    """The part of the page that is about one dataset."""
    evaluated = f"{len(rows[PAPER].labels)} samples of the {data.split} split"
    if data.split == "valid":
        evaluated += ", **which also chose the checkpoints**: the figures are optimistic"
    evaluated += f". Seeds {', '.join(map(str, seeds))}."
    blocks = [
        f"## {data.title}",
        f"`configs/{data.config}`{''.join(f', `{o}`' for o in data.overrides)}; figures are of "
        f"{evaluated}",
        table(data, rows),
    ]
    undone = [name for name in CHANGES if name not in rows and name not in data.left_out]
    partial = [
        f"{name} ({len(runs.records)} of {len(seeds)} seeds)"
        for name, runs in rows.items()
        if len(runs.records) < len(seeds)
    ]
    if undone or partial:
        blocks.append(f"**Open**: {', '.join([*partial, *undone])}.")
    if data.left_out:
        blocks.append(f"Not run, since they change nothing here: {', '.join(data.left_out)}.")
    if "pre_norm residual" in rows and len(rows["pre_norm residual"].records) == len(seeds):
        lines = difference_lines(
            rows["pre_norm residual"], rows[PAPER], ("`x + f(LN(x))`", "`f(LN(x)) + LN(x)`")
        )
        blocks.append("\n".join(["The two residuals:", "", *lines]))
    return blocks


def main() -> None:
    """Train what is open and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--only", help="comma-separated names of rows; the paper's comes with them")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, one epoch, no page")
    parser.add_argument("--repeat", action="store_true", help="five seeds of some rows, anew")
    options = parser.parse_args()
    if options.repeat:
        repeat(ROOT / "runs", train=not options.tables_only)
        return
    seeds = [int(seed) for seed in options.seeds.split(",")]
    asked = options.only.split(",") if options.only else list(CHANGES)
    unknown = sorted(set(asked) - set(CHANGES))
    if unknown:
        raise UserError(f"no row {', '.join(unknown)}; there are {', '.join(CHANGES)}")
    names = [name for name in CHANGES if name == PAPER or name in asked]
    runs = ROOT / "runs" / ("smoke-variants" if options.smoke else "")
    blocks = [
        "Each row changes one thing in the paper's variant; `variant authors` changes all that the "
        "authors' public code does otherwise. docs/paper-and-code.md says what each is. Mean ± "
        "deviation over seeds; pairs ranked correctly, in percent, and differences of MAE with a "
        "95 % interval from resampling videos. An interval that holds 0 shows no effect; one that "
        "does not may still be how training went, which [the repetition](variants-repeated.md) "
        "asks.",
    ]
    for data in (synthetic(runs, smoke=options.smoke), mosi(runs, smoke=options.smoke)):
        out = runs / "bench-variants" / data.trained[0].name
        folders = [data.trained[0].name, f"bench-variants/{out.name}"]
        if not options.smoke:
            restore_all(folders)
        rows = train_rows(data, names, out=out, seeds=seeds, train=not options.tables_only)
        if not options.smoke:
            keep_all(folders)
        if PAPER in rows:
            blocks += blocks_of(data, rows, seeds)
    if options.smoke:
        print("\n\n".join(blocks))
        return
    write_results(
        "variants", "The paper, its authors' code, and what is ours", "make bench-variants", blocks
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
