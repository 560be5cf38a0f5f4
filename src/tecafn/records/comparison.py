"""``comparison.json``: all that the tables of a comparison are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from tecafn.core.dataset_names import with_current_name
from tecafn.core.errors import UserError
from tecafn.records.record import Ceiling, DataRecord, PairShare, write_text_atomically

COMPARISON_FILE = "comparison.json"
COMPARISON_FORMAT = 1


class SeedMean(TypedDict):
    """A number over seeds.

    Args:
        mean: None where it is undefined for one of the seeds.
        std: deviation over seeds (S - 1); None of one seed.
        values: one per seed.
        interval: 95 %, of the mean, from resampling videos; None where it would say nothing.
    """

    mean: float | None
    std: float | None
    values: list[float | None]
    interval: NotRequired[list[float] | None]


class OverSeeds(TypedDict):
    """Welch's t-test of a metric's values over seeds, which are not paired.

    Args:
        value: difference of the means.
        interval: 95 %.
        p_value: two-sided.
        p_holm: corrected for the number of rows (Holm).
    """

    value: float
    interval: list[float] | None
    p_value: float
    p_holm: NotRequired[float]


class RowDifference(TypedDict):
    """One row's errors minus another's, averaged over each one's seeds and paired by sample.

    Args:
        value: the mean.
        interval: 95 %, from resampling videos.
        p_value: of permutations that flip whole videos, two-sided.
        p_holm: corrected for the number of rows (Holm).
        num_seeds: of the row with fewer.
        over_seeds: the same question asked of the seeds; None where one of the two has one seed.
    """

    value: float
    interval: list[float] | None
    p_value: float
    p_holm: float
    num_seeds: int
    over_seeds: NotRequired[OverSeeds | None]


class Detectable(TypedDict):
    """The smallest true difference that a table finds; see ``evaluation/uncertainty.py``.

    Args:
        planned: of one comparison planned in advance.
        corrected: after correction for the number of comparisons.
        num_comparisons: how many.
        seed_deviation: of a row over its seeds, pooled over rows.
        video_error: standard error of a paired difference over videos.
        level: of the two-sided test.
        power: the share of tables that find it.
    """

    planned: float
    corrected: float
    num_comparisons: int
    seed_deviation: float
    video_error: float
    level: float
    power: float


class ComparisonRow(TypedDict):
    """One row of a comparison: a method, or a config with overrides.

    Args:
        name: as the table shows it.
        method: as registered.
        summary, paper, basis, certified: of the method's registration.
        after_abstract: the basis is an abstract alone.
        config: the file, as shown.
        overrides: what this row sets, besides what all set.
        note: what a reader of the row should know.
        x: its place on the axis of a chart.
        refused: why it cannot be trained, in one line; empty if it can.
        seeds: the finished ones.
        open: those that are still to be trained.
        failures: seed to reason.
        metrics: by name.
        difference: by metric, from the row that differences are taken from.
        hard_pairs, designed_pairs: ranked correctly, averaged over seeds.
        seconds, epochs: of training.
        num_parameters, num_trained_parameters: of the scheme.
        peak_memory_bytes: the most that the process of one of its runs held.
        ran: runs at once and threads of each, as its runs recorded them, each pair once.
    """

    name: str
    method: NotRequired[str]
    summary: str
    paper: str
    basis: NotRequired[str]
    certified: NotRequired[str]
    after_abstract: bool
    config: str
    overrides: NotRequired[list[str]]
    note: NotRequired[str]
    x: NotRequired[float | None]
    refused: str
    seeds: list[int]
    open: list[int]
    failures: dict[str, str]
    metrics: dict[str, SeedMean]
    difference: dict[str, RowDifference]
    hard_pairs: PairShare | None
    designed_pairs: PairShare | None
    seconds: SeedMean | None
    epochs: SeedMean | None
    num_parameters: int | None
    num_trained_parameters: int | None
    peak_memory_bytes: int | None
    ran: NotRequired[list[list[int]]]


class PublishedCell(TypedDict):
    """One published number.

    Args:
        printed: as printed; accuracies in percent.
        source: where it was printed.
        is_verified: somebody has compared it with the print.
    """

    printed: str
    source: str
    is_verified: bool


class Published(TypedDict):
    """What is published of a table's rows.

    Args:
        dataset: on which.
        is_comparable: dataset, split and measures are those of the publication.
        rows: row to metric to number; what is unknown is left out.
    """

    dataset: str
    is_comparable: bool
    rows: dict[str, dict[str, PublishedCell]]


class LossSeries(TypedDict):
    """One logged loss over the training of one row.

    Args:
        row: which.
        phase: of the method's training.
        name: of the term, as in the paper.
        steps: the last of each window.
        means: of each window, averaged over seeds.
        stds: deviation of the window's mean over seeds; None of one seed.
    """

    row: str
    phase: str
    name: str
    steps: list[float]
    means: list[float]
    stds: list[float] | None


class Losses(TypedDict):
    """Loss tracing.

    Args:
        window: training steps that are averaged.
        series: one per row, phase and term.
    """

    window: int
    series: list[LossSeries]


class CaseClip(TypedDict):
    """One clip of a case.

    Args:
        id: public.
        text: its transcript.
        label: of the dataset.
        predictions: of each row, averaged over seeds.
    """

    id: str
    text: str
    label: float
    predictions: dict[str, float]


class Case(TypedDict):
    """Two clips of one video that differ a little.

    Args:
        low, high: the interval of the scale that the mean of their labels lies in.
        clips: the two.
    """

    low: float
    high: float
    clips: list[CaseClip]


class Cases(TypedDict):
    """Case analysis.

    Args:
        max_gap: how far apart the labels of a pair may be, exclusive.
        num_pairs: how many such pairs there are; the table counts all of them.
        cases: one of each interval of the scale, drawn at random with seed 0.
    """

    max_gap: float
    num_pairs: int
    cases: list[Case]


class ComparisonSummary(TypedDict):
    """All that the tables of a comparison are made from.

    Args:
        comparison_format: of this file.
        tecafn_version, created, commit, versions: which program wrote it, and when.
        data: what it was trained and measured on.
        split: the one that figures are of.
        num_samples, num_videos: of that split.
        seeds: of every row.
        jobs, threads: runs at once, and threads of each, of the last call.
        overrides: what was set for every row, or for the one it names.
        configs_chosen: why these configs, where the dataset has none of its own.
        common_settings, differing_settings: of run and training; the others by setting and row.
        metrics: names, in the order papers print them.
        primary: the metric that makes a row the best.
        best: the best row; None without a result.
        against: the row that differences are taken from; None without a result.
        sort: the metric that rows are sorted by; ``rows`` keeps the order of the table's file.
        detectable: by metric, the smallest effect that this table finds; None where the deviation
            over seeds or over videos is unknown.
        title, notes: of the page.
        chart: the axis of the rows' ``x``, where the table has a chart.
        published: what is published of the rows.
        losses: loss tracing, where the table asks for it.
        cases: case analysis, where the table asks for it.
        methods: the rows, in the order they are shown.
        ceiling: what the data allow, on a generated corpus.
    """

    comparison_format: int
    tecafn_version: str
    created: str
    commit: str | None
    versions: dict[str, str]
    data: DataRecord
    split: str
    num_samples: int
    num_videos: int
    seeds: list[int]
    jobs: int
    threads: int
    overrides: list[str]
    configs_chosen: NotRequired[str]
    common_settings: dict[str, Any]
    differing_settings: dict[str, dict[str, Any]]
    metrics: list[str]
    primary: str
    best: str | None
    against: NotRequired[str | None]
    sort: NotRequired[str]
    detectable: NotRequired[dict[str, Detectable | None]]
    title: NotRequired[str]
    notes: NotRequired[list[str]]
    chart: NotRequired[str]
    published: NotRequired[Published]
    losses: NotRequired[Losses]
    cases: NotRequired[Cases]
    methods: list[ComparisonRow]
    ceiling: Ceiling | None


def write_comparison(folder: Path, summary: Mapping[str, Any] | ComparisonSummary) -> None:
    """Write ``comparison.json`` in one step.

    Raises:
        UserError: it cannot be written.
    """
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=True)
    write_text_atomically(folder / COMPARISON_FILE, text + "\n")


def read_comparison(folder: Path) -> ComparisonSummary:
    """Read ``comparison.json``.

    Raises:
        UserError: there is none, or this version does not know its format.
    """
    path = folder / COMPARISON_FILE
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: tables need a comparison's summary, none is there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON, got {error}") from None
    version = summary.get("comparison_format") if isinstance(summary, dict) else None
    if version != COMPARISON_FORMAT:
        raise UserError(f"{path}: comparison_format must be {COMPARISON_FORMAT}, got {version!r}")
    return cast(ComparisonSummary, with_current_name(summary))


def reference_of(summary: ComparisonSummary) -> str | None:
    """The row that differences are taken from: the best one, in summaries of version 0.1."""
    return summary.get("against", summary["best"])
