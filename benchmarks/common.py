"""What the benchmarks share: cells that resume, several seeds as one row, Markdown tables."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tecafn.core.conventions import convention_named
from tecafn.core.errors import UserError
from tecafn.data.importing import import_dataset
from tecafn.data.readers import ReadOptions
from tecafn.data.synthetic import CorpusSpec
from tecafn.evaluation.hard_pairs import (
    PairReport,
    find_designed_pairs,
    find_hard_pairs,
    max_gap_of,
    score_pairs,
)
from tecafn.evaluation.metrics import format_metric
from tecafn.evaluation.significance import Difference, paired_difference
from tecafn.experiments.config import load_config
from tecafn.experiments.demo import synthetic_corpus
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.run import train_run
from tecafn.experiments.shipped import find_config
from tecafn.records.predictions import read_predictions
from tecafn.records.record import RunRecord, library_versions, read_record

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
ROWS = ROOT / "benchmarks" / "rows"
# The paper's that are trained on the synthetic corpus with its full budget, see paper_tables.py.
PAPER_TABLES = ("table5", "table6", "table7", "table8", "figure3", "figure4")
# Every benchmark is on CMU-MOSI, CMU-MOSEI or the synthetic corpora.
CONVENTION, LABEL_RANGE = "mosi", (-3.0, 3.0)
SHARED = "Times are of a shared machine: use them to compare, not as absolute figures."
SHOWN = ("mae", "corr", "acc7", "acc2_nonneg", "acc2_pos", "f1_pos")


def data_root() -> Path:
    """Where the real data lie: TECAFN_DATA, or ``shared/data`` beside the checkout."""
    named = os.environ.get("TECAFN_DATA")
    root = Path(named) if named else ROOT.parent / "shared" / "data"
    if not root.is_dir():
        raise UserError(f"real data not found at {root}; name their folder in TECAFN_DATA")
    return root


def table_names() -> list[str]:
    """The tables of rows in ``benchmarks/rows``, which ``comparison.py`` trains and writes."""
    return sorted(path.stem for path in ROWS.glob("*.toml"))


def dataset_of(table: str) -> str:
    """What a table of rows is measured on: ``mosi`` where its name says so, else ``synthetic``."""
    return "mosi" if "mosi" in table.split("-") else "synthetic"


def store_path(dataset: str, runs: Path) -> Path:
    """Where the benchmarks have a dataset."""
    return runs / "stores" / dataset


def make_store(dataset: str, runs: Path, *, smoke: bool = False) -> Path:
    """The synthetic corpus, or real MOSI text and audio; made if it is not there yet.

    Args:
        dataset: synthetic or mosi.
        runs: the folder below which it lies.
        smoke: a corpus of few samples.
    """
    store = store_path(dataset, runs)
    if dataset == "synthetic":
        spec = CorpusSpec(num_train=96, num_valid=32, num_test=64) if smoke else CorpusSpec()
        return synthetic_corpus(store, spec).path
    if not store.exists():
        source = data_root() / "mosi"
        import_dataset(
            source / "label.csv",
            format="label-csv",
            out=store,
            options=ReadOptions(dataset="mosi", audio=source / "audio_utterance.npz"),
        )
    return store


@dataclass(frozen=True)
class Row:
    """One row of a table: a config with overrides, run with every seed."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeedRuns:
    """The predictions of one row on one split.

    Args:
        records: one per seed.
        predictions: (S, N).
        labels: (N,).
        videos, pair_ids: N names.
    """

    records: list[RunRecord]
    predictions: np.ndarray
    labels: np.ndarray
    videos: np.ndarray
    pair_ids: list[str]
    split: str

    def metric(self, name: str) -> np.ndarray:
        """(S,) values of one metric."""
        return np.array([r["evaluations"][self.split]["metrics"][name] for r in self.records])

    def minutes(self) -> float:
        """Mean training time."""
        return float(np.mean([r["training"]["seconds"] for r in self.records])) / 60

    def errors(self, num_seeds: int | None = None) -> np.ndarray:
        """(N,) absolute error of each sample, averaged over seeds, or over the first of them."""
        errors: np.ndarray = np.abs(self.predictions[:num_seeds] - self.labels).mean(axis=0)
        return errors

    def hits(self) -> tuple[np.ndarray, np.ndarray]:
        """P/N hits averaged over seeds, and the rows that count."""
        polar = self.labels != 0
        hits = ((self.predictions > 0) == (self.labels > 0)).mean(axis=0)
        return hits[polar], polar

    def pairs(self, kind: str) -> PairReport:
        """Pairs ranked correctly, averaged over seeds; the interval resamples videos."""
        return pair_report(self.predictions, self.labels, self.videos, self.pair_ids, kind)


def pair_report(
    predictions: np.ndarray,
    labels: np.ndarray,
    videos: np.ndarray,
    pair_ids: Sequence[str],
    kind: str,
) -> PairReport:
    """Share of pairs ranked correctly, a pair's score averaged over S rows of ``predictions``."""
    pairs = (
        find_designed_pairs(labels, pair_ids)
        if kind == "designed"
        else find_hard_pairs(labels, list(videos), max_gap=max_gap_of(LABEL_RANGE))
    )
    return score_pairs(pairs, predictions, labels, list(videos))


def run_of(row: Row, *, out: Path, seed: int) -> Path:
    """The directory of one cell."""
    return out / row.name.replace(" ", "-") / f"seed-{seed}"


def is_finished(row: Row, *, out: Path, seed: int) -> bool:
    """Is the cell trained?"""
    return (run_of(row, out=out, seed=seed) / "record.json").exists()


def run_row(row: Row, *, data: Path, out: Path, seeds: Sequence[int], split: str) -> SeedRuns:
    """Train and evaluate a row's cells; what is finished is not done again."""
    records, predictions = [], []
    assert seeds
    for seed in seeds:
        run = run_of(row, out=out, seed=seed)
        if not is_finished(row, out=out, seed=seed):
            print(f"training {row.name}, seed {seed}", flush=True)
            config = load_config(find_config(Path(row.config)), [f"seed={seed}", *row.overrides])
            train_run(config, data=data, out=run, resume=True, device="cpu", progress=False)
        if split not in read_record(run)["evaluations"]:
            evaluate_run(run, data=data, split=split, device="cpu")
        records.append(read_record(run))
        rows = read_predictions(run / "predictions" / f"{split}.csv")
        predictions.append(rows.predictions)
    return SeedRuns(
        records=records,
        predictions=np.array(predictions),
        labels=rows.labels,
        videos=np.array(rows.videos),
        pair_ids=list(rows.pair_ids),
        split=split,
    )


def metric_cells(runs: SeedRuns, names: Sequence[str] = SHOWN) -> list[str]:
    """``mean +- deviation`` over seeds (deviation with S - 1)."""
    cells = []
    for name in names:
        values = runs.metric(name)
        cell = format_metric(name, float(values.mean()))
        if len(values) > 1:
            cell += f" ± {format_metric(name, float(values.std(ddof=1)))}"
        cells.append(cell)
    return cells


def pair_cell(report: PairReport) -> str:
    """``68.1 [65.0, 71.2]`` in percent."""
    assert report.ordered is not None
    assert report.interval is not None
    low, high = report.interval
    return f"{100 * report.ordered:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def difference_cell(row: SeedRuns, base: SeedRuns) -> str:
    """MAE minus another row's with its 95 % interval; videos resampled together."""
    seeds = min(len(row.records), len(base.records))  # of both the first ones
    difference = paired_difference(row.errors(seeds), base.errors(seeds), clusters=row.videos)
    assert difference.interval is not None
    low, high = difference.interval
    return f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def difference_lines(first: SeedRuns, second: SeedRuns, names: tuple[str, str]) -> list[str]:
    """Paired differences of errors averaged over seeds, videos resampled together."""
    mae = paired_difference(first.errors(), second.errors(), clusters=first.videos)
    hits, polar = first.hits()
    accuracy = paired_difference(hits, second.hits()[0], clusters=first.videos[polar])
    return [
        f"- MAE, {names[0]} minus {names[1]}: {_difference(mae, 1)}",
        f"- ACC-2 P/N in points, {names[0]} minus {names[1]}: {_difference(accuracy, 100)}",
    ]


def _difference(value: Difference, scale: float) -> str:
    assert value.interval is not None
    low, high = (scale * bound for bound in value.interval)
    digits = 2 if scale == 100 else 3
    p_value = "< 0.001" if value.p_value < 0.001 else f"= {value.p_value:.3f}"
    return (
        f"{scale * value.value:+.{digits}f}, 95 % interval {low:+.{digits}f} to "
        f"{high:+.{digits}f}, p {p_value} (videos permuted together)"
    )


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def metric_headers(names: Sequence[str] = SHOWN) -> list[str]:
    """Column titles."""
    return [convention_named(CONVENTION).label_of(name) for name in names]


def stamp(command: str) -> str:
    """When, with which command and on what something was measured."""
    versions: Mapping[str, str] = library_versions()
    return (
        f"Measured {datetime.date.today().isoformat()} with `{command}` on {os.cpu_count()} cores "
        f"({platform.machine()}), Python {versions['python']}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}."
    )


def write_results(name: str, title: str, command: str, blocks: Sequence[str]) -> Path:
    """Write ``docs/results/<name>.md``: what was measured, with which command, when, on what."""
    path = RESULTS / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whatever names a file here names it from the repository's root.
    text = "\n\n".join([f"# {title}", f"{stamp(command)} {SHARED}", *blocks]).replace(
        f"{ROOT}/", ""
    )
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)} written")
    return path
