"""The tables of a comparison: Markdown, CSV, LaTeX and a page, from its saved summary alone."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tecafn.core.conventions import METRIC_INFO, Convention
from tecafn.evaluation.metrics import format_metric
from tecafn.records.comparison import (
    ComparisonRow,
    ComparisonSummary,
    OverSeeds,
    RowDifference,
    SeedMean,
    read_comparison,
    reference_of,
)
from tecafn.records.measured import allowed_errors, convention_of_data, remark_on_intervals
from tecafn.records.record import PairShare, short_commit
from tecafn.report.extras import latex_extras, markdown_extras, page_extras
from tecafn.report.html import page_environment
from tecafn.report.marks import ABSTRACT_MARK, MINUS, PLUS_MINUS, latex, markdown

PAIRS: tuple[Literal["designed_pairs"], Literal["hard_pairs"]] = ("designed_pairs", "hard_pairs")
ABSTRACT_NOTE = (
    "implemented from the abstract; the paper was not available to us: a method in its spirit, "
    "not a reproduction"
)
# More rows than these are counted in a sentence and not named.
_NAMED = 6
_BASES = {
    "code": "public code, which tests reproduce to 1e-10",
    "paper": "the paper",
}


def write_tables(folder: Path) -> list[Path]:
    """Write ``comparison.md, .csv, .tex, .html`` beside a comparison's summary.

    Returns:
        Their paths. Each file is replaced in one step.

    Raises:
        UserError: no readable summary.
    """
    paths = []
    for name, content in table_files(read_comparison(folder)).items():
        path = folder / name
        partial = folder / f".{name}.partial"
        partial.write_bytes(content)
        os.replace(partial, path)
        paths.append(path)
    return paths


def table_files(summary: ComparisonSummary) -> dict[str, bytes]:
    """What a comparison's files hold, by their names; the same summary gives the same bytes."""
    renderers: dict[str, Callable[[ComparisonSummary], str]] = {
        "md": render_markdown,
        "csv": render_csv,
        "tex": render_latex,
        "html": render_page,
    }
    return {
        f"comparison.{ending}": render(summary).encode("utf-8", errors="xmlcharrefreplace")
        for ending, render in renderers.items()
    }


# What every format shows


def convention_of_summary(summary: ComparisonSummary) -> Convention:
    """By which convention a comparison was measured.

    Summaries of version 0.1 do not name it: they have MOSI's measures for every regression.

    Raises:
        UserError: this version does not know it.
    """
    data = summary["data"]
    if data.get("convention"):
        return convention_of_data(data)
    name = "classification" if data.get("task") == "classification" else "mosi"
    return convention_of_data({"convention": name})


def shown_metrics(summary: ComparisonSummary) -> list[str]:
    """Names of the metrics that tables show; the CSV file has every metric."""
    headlines = convention_of_summary(summary).headlines
    return [name for name in headlines if name in summary["metrics"]]


def shown_pairs(
    summary: ComparisonSummary,
) -> list[Literal["designed_pairs", "hard_pairs"]]:
    """Kinds of pairs that some row was asked about."""
    return [kind for kind in PAIRS if any(row[kind] for row in summary["methods"])]


def reason_without_result(row: ComparisonRow) -> str:
    """Why a row has no result at all, in one line; empty if it has one, or is only open.

    Example:
        >>> row = {"refused": "", "seeds": [], "failures": {"0": "ended by SIGSEGV"}}
        >>> reason_without_result(row)
        'ended by SIGSEGV'
    """
    if row["refused"]:
        return str(row["refused"])
    if row["seeds"] or not row["failures"]:
        return ""
    reasons = list(dict.fromkeys(row["failures"].values()))
    return str(reasons[0]) + (f" (and {len(reasons) - 1} more)" if reasons[1:] else "")


def notes(summary: ComparisonSummary) -> list[str]:
    """Sentences on what is wrong or missing.

    That is errors in the data that were allowed, configs of another dataset, open cells and
    failed ones; and what the table's file says of it.
    """
    chosen = summary.get("configs_chosen", "")
    lines = [*allowed_errors(summary), *summary.get("notes", [])]
    lines += [f"{chosen[0].upper()}{chosen[1:]}."] if chosen else []
    still_open = [
        f"{row['name']} (seed {', '.join(map(str, row['open']))})"
        for row in summary["methods"]
        if row["open"]
    ]
    if still_open:
        lines.append(
            f"This comparison is not finished. Open: {'; '.join(still_open)}. The same command "
            "continues it."
        )
    failed = [
        f"{row['name']}, seed {seed}: {reason}"
        for row in summary["methods"]
        for seed, reason in row["failures"].items()
        if row["seeds"]
    ]
    if failed:
        lines.append(f"Failed: {'; '.join(failed)}.")
    return lines


def about(summary: ComparisonSummary) -> list[str]:
    """Sentences that a table cannot be read without."""
    data, split = summary["data"], summary["split"]
    rules = convention_of_summary(summary)
    seeds = ", ".join(map(str, summary["seeds"]))
    several = len(summary["seeds"]) > 1
    videos = "1 video" if summary["num_videos"] == 1 else f"{summary['num_videos']} videos"
    lines = [
        f"Dataset {data['dataset']}, {split} split: {summary['num_samples']} samples of "
        f"{videos}. Every {_row_word(summary)} is trained on the same data "
        f"with seed{'s' if several else ''} {seeds}"
        + (f"; figures are means {PLUS_MINUS} deviation over seeds" if several else "")
        + (
            ", in brackets the 95 % interval from resampling videos."
            if _has_intervals(summary)
            else "."
        )
    ]
    remark = remark_on_intervals(summary["num_videos"])
    if remark:
        lines.append(remark)
    lines.append(f"Measures follow the convention {rules.name}: {rules.about}.")
    if split == "valid":
        lines.append(
            "The validation split also chose each run's epoch: the figures are optimistic, and "
            "choose methods; the test split judges them."
        )
    if any(row["difference"] for row in summary["methods"]):
        word, reference = _row_word(summary), reference_of(summary)
        is_best = reference == summary["best"]
        which = f", the best by {rules.label_of(summary['primary'])}" if is_best else ""
        lines.append(
            f"Differences are a {word}'s minus {reference}'s{which}: each sample's error is "
            "averaged over seeds and paired; 95 % intervals resample videos, permutation tests "
            f"flip whole videos, and p is corrected for the number of {word}s (Holm). An interval "
            "that holds 0 shows no difference."
        )
    if _has_tests_over_seeds(summary):
        lines.append(
            "The interval over videos says how much a difference depends on who was tested, the "
            "one over seeds (Welch's t, 95 %; seeds are not paired) how much on how training went. "
            "A difference is one of the method only where neither holds 0."
        )
    lines += detectable_lines(summary)
    if shown_pairs(summary):
        lines.append(
            "Pairs: share of pairs ranked as their labels are, in percent, with its interval from "
            "resampling videos; half is chance."
        )
    lines.append(_about_time(summary))
    return lines


def _about_time(summary: ComparisonSummary) -> str:
    """What times and memory are of, and what ran beside: a shared CPU makes everything longer."""
    rows = [row for row in summary["methods"] if row["seconds"]]
    recorded = [row["ran"] for row in rows if "ran" in row]
    pairs = sorted({(jobs, threads) for row in recorded for jobs, threads in row})
    if not recorded:  # of an earlier version, or without a result
        pairs = [(summary["jobs"], summary["threads"])]
    several = " or ".join(
        f"{jobs} at once with {threads} thread{'' if threads == 1 else 's'} each"
        for jobs, threads in pairs
    )
    line = f"Time is of training, {several}" if pairs else "Time is of training"
    if len(pairs) > 1:
        line += "; only times under the same conditions compare"
    if not all(recorded):
        line += "; what ran beside some of the runs was not recorded"
    return f"{line}. Memory is the most that the process of a run held (its ru_maxrss), over seeds."


def _row_word(summary: ComparisonSummary) -> str:
    """What a row is: a method, unless rows have names of their own."""
    own = any(row.get("method", row["name"]) != row["name"] for row in summary["methods"])
    return "row" if own else "method"


def _has_intervals(summary: ComparisonSummary) -> bool:
    cells = (cell for row in summary["methods"] for cell in row["metrics"].values())
    return any(cell.get("interval") for cell in cells)


def _test_over_seeds(difference: RowDifference | None) -> OverSeeds | None:
    return None if difference is None else difference.get("over_seeds")


def _has_tests_over_seeds(summary: ComparisonSummary) -> bool:
    primary = summary["primary"]
    return any(_test_over_seeds(row["difference"].get(primary)) for row in summary["methods"])


def detectable_lines(summary: ComparisonSummary) -> list[str]:
    """The smallest effect that a table finds, in a sentence for each metric that is compared.

    Nothing of a summary that does not say so, and of a table with a single row.
    """
    label = convention_of_summary(summary).label_of
    has_seeds = any(len(row["seeds"]) > 1 for row in summary["methods"])
    lines = []
    for metric, effect in summary.get("detectable", {}).items():
        if effect is None:
            lines.append(
                f"The smallest detectable effect of {label(metric)} is unknown: with one "
                f"{'video' if has_seeds else 'seed per row'}, the deviation over "
                f"{'videos' if has_seeds else 'seeds'} was not measured, and no difference here "
                "is one of the method."
            )
            continue
        number = effect["num_comparisons"]
        many = (
            f", {_plain(metric, effect['corrected'])} after correction for {number} comparisons"
            if number > 1
            else ""
        )
        lines.append(
            f"**Smallest detectable effect of {label(metric)}: "
            f"{_plain(metric, effect['planned'])}** for one comparison planned in advance{many} "
            f"({100 * effect['power']:.0f} % power, two-sided {100 * effect['level']:.0f} %), from "
            f"a deviation of {_plain(metric, effect['seed_deviation'])} over seeds and a standard "
            f"error of {_plain(metric, effect['video_error'])} over videos. A smaller effect may "
            "be there and this table would not show it."
        )
    return lines


def finding(summary: ComparisonSummary) -> str:
    """Which rows differ from the reference in the primary metric, in a sentence; empty of no test.

    A row is better or worse where its difference is as large as the smallest that the table detects
    after correction, and neither the interval over videos nor the one over seeds holds 0. What only
    the intervals say is named apart.
    """
    metric, reference = summary["primary"], reference_of(summary)
    effect = summary.get("detectable", {}).get(metric)
    if effect is None or reference is None:
        return ""
    found: dict[str, list[str]] = {"worse": [], "better": [], "small": [], "": []}
    for row in summary["methods"]:
        difference = row["difference"].get(metric)
        if difference is not None:
            kind = _kind_of(metric, difference, least=effect["corrected"])
            found[kind].append(f"{row['name']} ({_signed(metric, difference['value'])})")
    word = _row_word(summary)

    def these(names: list[str]) -> str:
        return ", ".join(names) if len(names) <= _NAMED else f"{len(names)} {word}s"

    said = [
        f"{these(names)} {'is' if len(names) == 1 else 'are'} {kind} than {reference}"
        for kind in ("worse", "better")
        if (names := found[kind])
    ]
    if names := found["small"]:
        said.append(
            f"{these(names)} {'differs' if len(names) == 1 else 'differ'} by both intervals, but "
            f"by less than the table detects reliably ({_plain(metric, effect['corrected'])})"
        )
    if num_open := len(found[""]):
        rest = "the other " if said or num_open == 1 else "all "
        rows = word if num_open == 1 else f"{num_open} {word}s"
        said.append(f"for {rest}{rows}, no difference from {reference} is shown")
    where = convention_of_summary(summary).label_of(metric)
    return f"In {where}, {'; '.join(said)}." if said else ""


def _kind_of(metric: str, difference: RowDifference, *, least: float) -> str:
    """``worse``, ``better``, ``small`` if both intervals alone say so, or empty."""
    test = _test_over_seeds(difference)
    for interval in (difference["interval"], None if test is None else test["interval"]):
        if interval is None or interval[0] * interval[1] <= 0:
            return ""
    if abs(difference["value"]) < least:
        return "small"
    return "worse" if (difference["value"] > 0) == METRIC_INFO[metric].lower_is_better else "better"


def _plain(metric: str, value: float) -> str:
    """A size without a sign, in the metric's unit."""
    return f"{100 * value:.2f} points" if _percent(metric) else f"{value:.3f}"


def _percent(metric: str) -> bool:
    info = METRIC_INFO.get(metric)
    return bool(info and info.percent)


def _signed(metric: str, value: float) -> str:
    text = f"{100 * value:+.2f}" if _percent(metric) else f"{value:+.3f}"
    return text.replace("-", MINUS)


def _mean(metric: str, cell: SeedMean | None) -> str:
    return "" if cell is None else format_metric(metric, cell["mean"])


def _deviation(metric: str, cell: SeedMean | None) -> str:
    return "" if cell is None or cell["std"] is None else format_metric(metric, cell["std"])


def _ends(metric: str, cell: SeedMean | None) -> str:
    """The interval of a mean over seeds; empty where there is none."""
    interval = None if cell is None else cell.get("interval")
    return ", ".join(format_metric(metric, end) for end in interval) if interval else ""


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _share(pairs: PairShare | None) -> tuple[str, str]:
    if pairs is None or pairs["ordered"] is None:
        return "", ""
    interval = pairs["interval"]
    ends = f"{100 * interval[0]:.1f}, {100 * interval[1]:.1f}" if interval else ""
    return f"{100 * pairs['ordered']:.1f}", ends


def _minutes(row: ComparisonRow) -> str:
    seconds = row["seconds"]["mean"] if row["seconds"] else None
    return "" if seconds is None else f"{seconds / 60:.1f}"


def _millions(count: int | None) -> str:
    """Three significant digits or so.

    Example:
        >>> _millions(314159), _millions(22713216), _millions(4000)
        ('0.314', '22.7', '0.004')
    """
    if count is None:
        return ""
    millions = count / 1e6
    return f"{millions:.1f}" if millions >= 10 else f"{millions:.3f}"


def _megabytes(row: ComparisonRow) -> str:
    peak = row["peak_memory_bytes"]
    return f"{peak / 2**20:.0f}" if peak else ""


def _best_means(summary: ComparisonSummary) -> dict[str, float]:
    """The best mean of each metric over methods."""
    found = {}
    for metric in summary["metrics"]:
        info = METRIC_INFO.get(metric)
        cells = (row["metrics"].get(metric) for row in summary["methods"])
        means = (None if cell is None else cell["mean"] for cell in cells)
        known = [mean for mean in means if mean is not None]
        if known:
            found[metric] = min(known) if info and info.lower_is_better else max(known)
    return found


def _is_best(cell: SeedMean | None, metric: str, best: Mapping[str, float]) -> bool:
    return cell is not None and cell["mean"] is not None and cell["mean"] == best.get(metric)


def _seeds_hint(summary: ComparisonSummary, row: ComparisonRow) -> str:
    """How many seeds a row is of, where it is not all of them."""
    have, of = len(row["seeds"]), len(summary["seeds"])
    return "" if have in (0, of) else f"{have} of {of} seeds"


def _columns(summary: ComparisonSummary) -> list[str]:
    """Headers of the flat tables, the method's name first."""
    differing, label = _differing_metrics(summary), convention_of_summary(summary).label_of
    headers = [_row_word(summary), *(label(name) for name in shown_metrics(summary))]
    headers += [kind.replace("_", " ") for kind in shown_pairs(summary)]
    for name in differing:
        headers += [f"{label(name)} minus {_reference_word(summary)}'s", "p"]
        if _has_tests_over_seeds(summary):
            headers += ["over seeds", "p"]
    return [*headers, "minutes", "parameters, M (trained)", "memory, MB"]


def _reference_word(summary: ComparisonSummary) -> str:
    reference = reference_of(summary)
    return "best" if reference == summary["best"] else str(reference)


def _differing_metrics(summary: ComparisonSummary) -> list[str]:
    """Only the primary metric's: the others are in the CSV file and on the page."""
    primary = summary["primary"]
    return [primary] if any(primary in row["difference"] for row in summary["methods"]) else []


def _cells(
    summary: ComparisonSummary,
    row: ComparisonRow,
    *,
    emphasise: Callable[[str], str],
    mark: Callable[[str], str],
) -> list[str]:
    """The cells after a method's name.

    Args:
        summary: of the comparison.
        row: the method of which the cells are.
        emphasise: makes a column's best value stand out; its argument is marked up already.
        mark: makes plain text the format's.
    """
    best = _best_means(summary)
    cells = []
    for metric in shown_metrics(summary):
        cell = row["metrics"].get(metric)
        text = _mean(metric, cell)
        deviation, ends = _deviation(metric, cell), _ends(metric, cell)
        text = mark(f"{text} {PLUS_MINUS} {deviation}" if deviation else text)
        text = emphasise(text) if _is_best(cell, metric, best) else text
        cells.append(f"{text} {mark(f'[{ends}]')}" if ends else text)
    for kind in shown_pairs(summary):
        if row[kind]:
            share, ends = _share(row[kind])
            cells.append(mark(f"{share} [{ends}]" if ends else share))
        else:
            cells.append("")
    for metric in _differing_metrics(summary):
        difference = row["difference"].get(metric)
        shows_seeds = _has_tests_over_seeds(summary)
        if difference is None:
            is_reference = row["name"] == reference_of(summary)
            word = "best" if is_reference and row["name"] == summary["best"] else "-"
            cells += [mark(word) if is_reference else "", "", *(("", "") if shows_seeds else ())]
            continue
        text = _signed(metric, difference["value"])
        cells += [
            mark(" ".join([text, *_in_brackets(metric, difference["interval"])])),
            mark(_p_value(difference["p_holm"])),
        ]
        if shows_seeds:
            cells += [mark(part) for part in _over_seeds(metric, _test_over_seeds(difference))]
    parameters = ""
    if row["num_parameters"] is not None:
        parameters = _millions(row["num_parameters"])
        parameters += f" ({_millions(row['num_trained_parameters'])})"
    return [*cells, mark(_minutes(row)), mark(parameters), mark(_megabytes(row))]


def _in_brackets(metric: str, interval: Sequence[float] | None) -> list[str]:
    if not interval:
        return []
    low, high = (_signed(metric, end) for end in interval)
    return [f"[{low}, {high}]"]


def _over_seeds(metric: str, test: OverSeeds | None) -> tuple[str, str]:
    """Interval and p of the test over seeds."""
    if test is None:
        return "", ""
    return " ".join(_in_brackets(metric, test["interval"])), _p_value(
        test.get("p_holm", test["p_value"])
    )


def _ceiling_cells(summary: ComparisonSummary) -> list[str] | None:
    """What the data allow: the row below the methods, on the synthetic corpus."""
    ceiling = summary["ceiling"]
    if not ceiling:
        return None
    cells = [format_metric(name, ceiling["metrics"].get(name)) for name in shown_metrics(summary)]
    for kind in shown_pairs(summary):
        share, ends = _share(ceiling[kind])
        cells.append(f"{share} [{ends}]" if ends else share)
    return [*cells, *("" for _ in range(len(_columns(summary)) - 1 - len(cells)))]


def basis_lines(summary: ComparisonSummary) -> list[str]:
    """What each method rests on, in two sentences; none of a comparison that does not say so.

    Example:
        >>> rows = [{"name": "tfn", "basis": "code", "certified": "MMSA's code"},
        ...         {"name": "tecafn", "basis": "paper", "certified": ""}]
        >>> basis_lines({"methods": rows})  # doctest: +NORMALIZE_WHITESPACE
        ["Rests on public code, which tests reproduce to 1e-10: tfn (MMSA's code).",
        'Rests on the paper: tecafn.']
    """
    lines = []
    for basis, words in _BASES.items():
        # A method once, however many rows it has.
        names = dict.fromkeys(
            (row.get("method") or row["name"])
            + (f" ({row['certified']})" if row["certified"] else "")
            for row in summary["methods"]
            if row.get("basis") == basis
        )
        if names:
            lines.append(f"Rests on {words}: {'; '.join(names)}.")
    return lines


def _settings_line(summary: ComparisonSummary) -> str:
    """The settings that all methods share, in one line."""
    shared = summary["common_settings"]
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in shared.items())


def plain_table(summary: ComparisonSummary) -> tuple[list[str], list[list[str]]]:
    """A narrow table for a terminal, the best method first: columns, and a line per method."""
    metrics = shown_metrics(summary)
    rows = []
    for row in summary["methods"]:
        name = row["name"] + (f" {ABSTRACT_MARK}" if row["after_abstract"] else "")
        cells = []
        for metric in metrics:
            cell = row["metrics"].get(metric)
            deviation = _deviation(metric, cell) if metric == summary["primary"] else ""
            cells.append(_mean(metric, cell) + (f" {PLUS_MINUS} {deviation}" if deviation else ""))
        state = _seeds_hint(summary, row)
        if not row["seeds"]:
            state = "not trained" if reason_without_result(row) else "open"
        rows.append([name, *cells, _minutes(row), state])
    label = convention_of_summary(summary).label_of
    return [_row_word(summary), *(label(name) for name in metrics), "min", "note"], rows


# Markdown


def _labels(summary: ComparisonSummary) -> dict[str, str]:
    """The printed name of each metric."""
    return {m.name: m.label for m in convention_of_summary(summary).measures}


def render_markdown(summary: ComparisonSummary) -> str:
    """The comparison as a Markdown page."""
    return "\n\n".join([f"# {title_of(summary)}", *markdown_blocks(summary)]) + "\n"


def title_of(summary: ComparisonSummary) -> str:
    """The title that was asked for, or the usual one."""
    word = f"{_row_word(summary).capitalize()}s"
    usual = f"{word} on {summary['data']['dataset']}, {summary['split']} split"
    return summary.get("title") or usual


def markdown_blocks(summary: ComparisonSummary) -> list[str]:
    """The page's paragraphs and tables, without a title."""
    columns = _columns(summary)
    lines = [columns, ["---"] * len(columns)]
    for row in summary["methods"]:
        name = row["name"] + (f" {ABSTRACT_MARK}" if row["after_abstract"] else "")
        hint = _seeds_hint(summary, row)
        name = markdown(f"{name} ({hint})" if hint else name)
        reason = reason_without_result(row)
        if row["seeds"]:
            cells = _cells(summary, row, emphasise=lambda text: f"**{text}**", mark=markdown)
        else:
            cells = [markdown(f"not trained: {reason}" if reason else "open")]
            cells += [""] * (len(columns) - 2)
        lines.append([name, *cells])
    ceiling = _ceiling_cells(summary)
    if ceiling:
        lines.append(["ceiling", *map(markdown, ceiling)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    found = detectable_lines(summary)
    read_first = [line for line in about(summary) if line not in found]
    shown = finding(summary)
    blocks = [f"**{markdown(shown)}**"] if shown else []
    blocks += [*read_first, table, *found, *(markdown(note) for note in notes(summary))]
    blocks += markdown_extras(summary, _labels(summary))
    if any(row["after_abstract"] for row in summary["methods"]):
        blocks.append(f"{ABSTRACT_MARK} {ABSTRACT_NOTE}.")
    blocks += [markdown(line) for line in basis_lines(summary)]
    configs = dict.fromkeys(row["config"] for row in summary["methods"] if not row["refused"])
    blocks.append(
        f"The best of each column is bold. Config{'s' if len(configs) > 1 else ''}: "
        + ", ".join(f"`{config}`" for config in configs)
        + (f"; set: `{'`, `'.join(summary['overrides'])}`" if summary["overrides"] else "")
        + "."
    )
    own = [
        f"- {markdown(row['name'])}: {'. '.join(said)}"
        for row in summary["methods"]
        if (said := _what_it_sets(row))
    ]
    if own:
        blocks += ["What each row sets:", "\n".join(own)]
    if summary["common_settings"]:
        blocks.append(f"Common to all: {markdown(_settings_line(summary))}.")
    differing = summary["differing_settings"]
    if differing:
        blocks.append(f"Each {_row_word(summary)}'s own:")
        names = [row["name"] for row in summary["methods"] if not row["refused"]]
        table_lines = [[_row_word(summary), *differing], ["---"] * (1 + len(differing))]
        table_lines += [
            [name, *(markdown(_setting(values.get(name))) for values in differing.values())]
            for name in names
        ]
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in table_lines))
    return blocks


def _what_it_sets(row: ComparisonRow) -> list[str]:
    """A row's own overrides and its note, as Markdown; what it does not have is left out."""
    overrides = ", ".join(f"`{override}`" for override in row.get("overrides", []))
    return [part for part in (overrides, markdown(row.get("note") or "")) if part]


def _setting(value: object) -> str:
    return "" if value is None else json.dumps(value)


# LaTeX


def render_latex(summary: ComparisonSummary) -> str:
    """The main table as a LaTeX ``tabular``; needs the package booktabs."""
    columns = _columns(summary)
    lines = [
        f"% {title_of(summary)}; seeds {', '.join(map(str, summary['seeds']))}; "
        f"written {summary['created']}.",
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        "\\toprule",
        f"{' & '.join(latex(name) for name in columns)} \\\\",
        "\\midrule",
    ]
    for row in summary["methods"]:
        name = row["name"] + (ABSTRACT_MARK if row["after_abstract"] else "")
        hint = _seeds_hint(summary, row)
        name = latex(f"{name} ({hint})" if hint else name)
        if row["seeds"]:
            cells = _cells(summary, row, emphasise=lambda text: f"\\textbf{{{text}}}", mark=latex)
        else:
            reason = reason_without_result(row)
            text = latex(f"not trained: {reason}" if reason else "open")
            cells = [f"\\multicolumn{{{len(columns) - 1}}}{{l}}{{{text}}}"]
        lines.append(f"{' & '.join([name, *cells])} \\\\")
    ceiling = _ceiling_cells(summary)
    if ceiling:
        lines += ["\\midrule", f"{' & '.join(['ceiling', *map(latex, ceiling)])} \\\\"]
    lines += ["\\bottomrule", "\\end{tabular}"]
    if any(row["after_abstract"] for row in summary["methods"]):
        lines.append(f"\n{latex(ABSTRACT_MARK)} {latex(ABSTRACT_NOTE)}.")
    found = [line.replace("**", "") for line in detectable_lines(summary)]
    found[:0] = [line for line in (finding(summary),) if line]
    lines += [f"\n{latex(line)}" for line in found]
    lines += latex_extras(summary, _labels(summary))
    remarks = [*basis_lines(summary), *notes(summary)]
    return "\n".join([*lines, *(f"% {remark}" for remark in remarks)]) + "\n"


# CSV


def render_csv(summary: ComparisonSummary) -> str:
    """One line per row, every metric, plain numbers: fractions, seconds, bytes."""
    metrics = summary["metrics"]
    differing = list(
        dict.fromkeys(name for row in summary["methods"] for name in row["difference"])
    )
    header = ["name", "method", "basis", "certified", "after_abstract", "config", "set", "note"]
    header += ["num_seeds", "num_open", "reason"]
    parts = ("mean", "std", "low", "high")
    header += [f"{name}_{part}" for name in metrics for part in parts]
    header += [
        f"{kind}_{part}" for kind in shown_pairs(summary) for part in ("ordered", "low", "high")
    ]
    header += ["against"]
    tests = ("", "_low", "_high", "_p", "_p_holm")
    header += [
        f"{name}_difference{kind}{part}"
        for name in differing
        for kind, kinds in (("", tests), ("_over_seeds", tests[1:]))
        for part in kinds
    ]
    header += [f"{name}_detectable{part}" for name in differing for part in ("", "_corrected")]
    published = summary.get("published")
    printed = list(
        dict.fromkeys(
            name for row in (published["rows"] if published else {}).values() for name in row
        )
    )
    header += [f"published_{name}{part}" for name in printed for part in ("", "_source")]
    header += ["seconds_mean", "epochs_mean", "parameters", "trained_parameters", "peak_bytes"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in summary["methods"]:
        reason = row["refused"] or "; ".join(
            f"seed {seed}: {text}" for seed, text in row["failures"].items()
        )
        line: list[Any] = [row["name"], row.get("method", row["name"])]
        line += [row.get("basis", ""), row.get("certified", "")]
        line += [int(row["after_abstract"]), row["config"]]
        line += ["; ".join(row.get("overrides", [])), row.get("note", "")]
        line += [len(row["seeds"]), len(row["open"]), reason]
        for name in metrics:
            cell = row["metrics"].get(name)
            line += (
                [None] * 4
                if cell is None
                else [cell["mean"], cell["std"], *_two(cell.get("interval"))]
            )
        for kind in shown_pairs(summary):
            pairs = row[kind]
            line += [None] * 3 if pairs is None else [pairs["ordered"], *_two(pairs["interval"])]
        line.append(reference_of(summary))
        for name in differing:
            line += _difference_fields(row["difference"].get(name))
        for name in differing:
            effect = summary.get("detectable", {}).get(name)
            line += [None, None] if effect is None else [effect["planned"], effect["corrected"]]
        for name in printed:
            one = published["rows"].get(row["name"], {}).get(name) if published else None
            line += [None, None] if one is None else [one["printed"], one["source"]]
        line += [None if mean is None else mean["mean"] for mean in (row["seconds"], row["epochs"])]
        line += [row["num_parameters"], row["num_trained_parameters"], row["peak_memory_bytes"]]
        writer.writerow(line)
    return file.getvalue()


def _two(interval: Sequence[float] | None) -> Sequence[float | None]:
    return interval or (None, None)


def _difference_fields(difference: RowDifference | None) -> list[Any]:
    """Of both tests: value, interval, p and corrected p; the value once."""
    if difference is None:
        return [None] * 9
    test = difference.get("over_seeds")
    fields: list[Any] = [difference["value"], *_two(difference["interval"])]
    fields += [difference["p_value"], difference["p_holm"]]
    if test is None:
        return [*fields, None, None, None, None]
    return [*fields, *_two(test["interval"]), test["p_value"], test.get("p_holm")]


# The page


def render_page(summary: ComparisonSummary) -> str:
    """The comparison as one self-contained page; it loads nothing and runs no script."""
    return page_environment().get_template("comparison.html.j2").render(**_page(summary))


def _page(summary: ComparisonSummary) -> dict[str, Any]:
    primary, label = summary["primary"], convention_of_summary(summary).label_of
    metrics, pairs = shown_metrics(summary), shown_pairs(summary)
    differing = list(
        dict.fromkeys(name for row in summary["methods"] for name in row["difference"])
    )
    scale = _seed_scale(summary, primary)
    rows = []
    best = _best_means(summary)
    for row in summary["methods"]:
        rows.append(
            {
                "name": row["name"],
                "kind": "best" if row["name"] == summary["best"] else "",
                "is_reference": row["name"] == reference_of(summary),
                "note": row.get("note", ""),
                "overrides": row.get("overrides", []),
                "summary": row["summary"],
                "after_abstract": row["after_abstract"],
                "hint": _seeds_hint(summary, row),
                "has_result": bool(row["seeds"]),
                "reason": reason_without_result(row),
                "seeds": _seeds_chart(row, primary, scale),
                "metrics": [
                    {
                        "value": _mean(name, row["metrics"].get(name)),
                        "deviation": _deviation(name, row["metrics"].get(name)),
                        "interval": _ends(name, row["metrics"].get(name)).replace(", ", " to "),
                        "best": _is_best(row["metrics"].get(name), name, best),
                    }
                    for name in metrics
                ],
                "pairs": [_page_share(row[kind]) for kind in pairs],
                "differences": [
                    _page_difference(summary, name, row["difference"].get(name))
                    for name in differing
                ],
                "minutes": _minutes(row),
                "epochs": "" if row["epochs"] is None else f"{row['epochs']['mean']:.1f}",
                "trained": "" if row["num_trained_parameters"] is None
                else _millions(row["num_trained_parameters"]),
                "parameters": "" if row["num_parameters"] is None
                else _millions(row["num_parameters"]),
                "memory": _megabytes(row),
            }
        )  # fmt: skip
    ceiling = summary["ceiling"]
    finished = sum(len(row["seeds"]) for row in summary["methods"])
    num_runs = sum(len(summary["seeds"]) for row in summary["methods"] if not row["refused"])
    facts = [
        ("Dataset", summary["data"]["dataset"]),
        ("Split", f"{summary['split']}, {summary['num_samples']} samples"),
        ("Task", summary["data"]["task"]),
        ("Measures", convention_of_summary(summary).name),
        ("Seeds", ", ".join(map(str, summary["seeds"]))),
        ("Finished runs", f"{finished} of {num_runs}"),
        ("tecafn", f"{summary['tecafn_version']} {short_commit(summary['commit'])}".strip()),
        ("Written, UTC", str(summary["created"])[:16].replace("T", " ")),
    ]
    found = detectable_lines(summary)
    return page_extras(summary, _labels(summary)) | {
        "title": summary.get("title")
        or f"{len(rows)} {_row_word(summary)}{'' if len(rows) == 1 else 's'} on "
        f"{summary['data']['dataset']}",
        "word": _row_word(summary),
        "reference": reference_of(summary),
        "finding": finding(summary),
        "detectable": [line.replace("**", "") for line in found],
        "dataset": summary["data"]["dataset"],
        "split": summary["split"],
        "num_methods": len(rows),
        "facts_shown": [(name, str(value)) for name, value in facts if value],
        "about": [line for line in about(summary) if line not in found],
        "notes": notes(summary),
        "primary": label(primary),
        "scale": [format_metric(primary, end) for end in scale] if scale else [],
        "metrics": [label(name) + (", %" if _percent(name) else "") for name in metrics],
        "directions": [
            "lower is better" if METRIC_INFO[name].lower_is_better else "" for name in metrics
        ],
        "pairs": [kind.replace("_", " ").capitalize() for kind in pairs],
        "differences": [
            label(name) + (", points" if _percent(name) else "") for name in differing
        ],
        "rows": rows,
        "ceiling": {
            "metrics": [format_metric(name, ceiling["metrics"].get(name)) for name in metrics],
            "pairs": [_page_share(ceiling.get(kind)) for kind in pairs],
        }
        if ceiling
        else None,
        "num_columns": len(metrics) + len(pairs) + len(differing) + bool(scale),
        "abstract_mark": ABSTRACT_MARK,
        "abstract_note": ABSTRACT_NOTE
        if any(row["after_abstract"] for row in summary["methods"])
        else "",
        "basis_lines": basis_lines(summary),
        "common": [(name, json.dumps(v)) for name, v in summary["common_settings"].items()],
        "differing": list(summary["differing_settings"]),
        "configured": [
            {
                "name": row["name"],
                "config": row["config"],
                "settings": [
                    _setting(values.get(row["name"]))
                    for values in summary["differing_settings"].values()
                ],
            }
            for row in summary["methods"]
            if not row["refused"]
        ],
        "overrides": summary["overrides"],
        "papers": list(
            dict.fromkeys(
                (row.get("method", row["name"]), row["paper"]) for row in summary["methods"]
            )
        ),
        "data": [("Content hash", str(summary["data"]["hash"]))]
        + [(f"{split} samples", str(size)) for split, size in summary["data"]["splits"].items()],
        "versions": sorted((str(k), str(v)) for k, v in summary["versions"].items()),
    }  # fmt: skip


def _seed_scale(summary: ComparisonSummary, metric: str) -> tuple[float, float] | None:
    """The axis of the seeds' charts: every seed of every method lies on it."""
    values = [
        value
        for row in summary["methods"]
        if metric in row["metrics"]
        for value in row["metrics"][metric]["values"]
        if value is not None
    ]
    if not values:
        return None
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _seeds_chart(
    row: ComparisonRow, metric: str, scale: tuple[float, float] | None
) -> dict[str, Any] | None:
    cell = row["metrics"].get(metric)
    if scale is None or cell is None or cell["mean"] is None:
        return None
    low, high = scale

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    places = [place(value) for value in cell["values"] if value is not None]
    return {"mean": place(cell["mean"]), "places": places}


def _page_share(pairs: PairShare | None) -> dict[str, Any] | None:
    if not pairs or pairs["ordered"] is None:
        return None
    at = 100 * pairs["ordered"]
    low, high = (100 * end for end in pairs["interval"]) if pairs["interval"] else (at, at)
    value, ends = _share(pairs)
    return {
        "value": value,
        "interval": ends.replace(", ", " to "),
        "at": round(at, 2),
        "low": round(low, 2),
        "width": round(high - low, 2),
    }


def _p_in_words(text: str) -> str:
    """``p = 0.012``; nothing of nothing."""
    if not text:
        return ""
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _page_difference(
    summary: ComparisonSummary, metric: str, difference: RowDifference | None
) -> dict[str, Any] | None:
    if difference is None:
        return None
    bounds = [
        bound
        for row in summary["methods"]
        for one in [row["difference"].get(metric)]
        if one
        for bound in (one["value"], *(one["interval"] or ()))
    ]
    low, high = min(0.0, *bounds), max(0.0, *bounds)
    spread = 1.1 * (high - low) or 1.0
    middle = (low + high) / 2

    def place(value: float) -> float:
        return float(round(50 + 100 * (value - middle) / spread, 2))

    value, interval = difference["value"], difference["interval"] or [difference["value"]] * 2
    seeds_interval, seeds_p = _over_seeds(metric, difference.get("over_seeds"))
    return {
        "seeds": seeds_interval.strip("[]").replace(", ", " to "),
        "seeds_p": _p_in_words(seeds_p),
        "value": _signed(metric, value),
        "interval": " to ".join(_signed(metric, end) for end in interval),
        "p": _p_in_words(_p_value(difference["p_holm"])),
        "at": place(value),
        "low": place(interval[0]),
        "width": round(place(interval[1]) - place(interval[0]), 2),
        "zero": place(0.0),
    }
