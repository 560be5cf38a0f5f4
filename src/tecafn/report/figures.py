"""The report's figures as SVG that follows the page: its fonts, and its light and dark colours.

Figures are drawn with placeholder colours, which are then replaced by the page's CSS variables.
Only fixed strings are drawn; whatever comes from a run stands in the HTML around the figure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

INK, MUTED, LINE, ACCENT, SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
}
# Any: the type of matplotlib's settings differs between its releases.
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.unicode_minus": True,
}
# Beyond this many points an SVG of single marks grows to megabytes; they become one image.
_MAX_MARKS = 6000


def _svg(figure: Figure, *, name: str, description: str) -> Markup:
    """The figure's bare ``<svg>``: no size, no metadata, ids that no other figure has."""
    buffer = StringIO()
    # The salt makes matplotlib's ids the same from run to run.
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # An inline <style> would reach the whole page; the page's own sheet has its two rules.
    text = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL
    )
    opening, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None, "matplotlib writes a viewBox"
    opening = f'<svg role="img" aria-label="{escape(description)}" {box.group()}'
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = rest.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    rest = rest.replace("xlink:href=", "href=")
    for placeholder, variable in _VARIABLES.items():
        rest = rest.replace(placeholder, variable)
    return Markup(f"{opening}>{rest}")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes whose margins matplotlib finds: for ticks that are names, of any length."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(length=0)
    return figure, axes


# Inches that a letter of a tick's label, the axis's own label beside it, and the edge take.
_LETTER, _LABEL, _EDGE = 0.065, 0.26, 0.09


def _plain_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes whose margins ``_fit`` sets."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.tick_params(length=0)
    return figure, axes


def _fit(figure: Figure, axes: Axes) -> None:
    """Margins for what stands at the ticks.

    Pages have dozens of figures, and matplotlib's own layout draws each three times to find the
    same margins.
    """
    width, height = figure.get_size_inches()
    ticks = axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks()))
    longest = max((len(tick.replace("$", "")) for tick in ticks), default=0)
    figure.subplots_adjust(
        left=(_LABEL + 0.06 + _LETTER * longest) / width,
        right=1 - 2 * _EDGE / width,
        bottom=(_LABEL + 0.19) / height,
        top=1 - 1.5 * _EDGE / height,
    )


def _line(values: Floats) -> str:
    """How a curve is drawn: one value alone is a point, which a line would not show."""
    return "-" if len(values) > 1 else "o"


def loss_curve(steps: Floats, values: Floats, *, unit: str, name: str) -> Markup:
    """One logged quantity, in ``unit``, over training steps, both (W,)."""
    with rc_context(_STYLE):
        figure, axes = _plain_axes(3.1, 1.9)
        axes.plot(steps, values, _line(values), color=ACCENT, linewidth=1.4, markersize=4)
        axes.set_xlabel("training step")
        axes.set_ylabel(unit)
        axes.locator_params(axis="both", nbins=5)
        axes.margins(x=0.02)
        _fit(figure, axes)
        first, last = f"{values[0]:.3g}", f"{values[-1]:.3g}"
        return _svg(
            figure,
            name=name,
            description=f"{unit.capitalize()} over steps, from {first} to {last}.",
        )


def validation_curve(
    epochs: Floats, values: Floats, *, chosen: int | None, percent: bool, name: str
) -> Markup:
    """The monitored metric over epochs, the chosen epoch marked.

    Args:
        epochs: (E,) epoch numbers, as they are shown: from 1.
        values: (E,) the metric.
        chosen: the epoch whose weights were kept.
        percent: values are fractions to be shown in percent.
        name: unique among the page's figures.
    """
    with rc_context(_STYLE):
        figure, axes = _plain_axes(4.0, 2.3)
        shown = values * 100 if percent else values
        axes.plot(epochs, shown, color=ACCENT, linewidth=1.6, marker="o", markersize=3)
        here = np.flatnonzero(epochs == chosen) if chosen is not None else np.empty(0, np.int64)
        description = f"Validation metric over {len(epochs)} epochs."
        if len(here):
            row = int(here[0])
            axes.axvline(epochs[row], color=SECOND, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(epochs[row], shown[row], "o", color=SECOND, markersize=7)
            right_half = epochs[row] > (epochs[0] + epochs[-1]) / 2
            axes.annotate(
                f"chosen: epoch {chosen}",
                (epochs[row], 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-6 if right_half else 6, -4),
                textcoords="offset points",
                ha="right" if right_half else "left",
                va="top",
                color=SECOND,
            )
            description += f" Epoch {chosen} was chosen, at {shown[row]:.4g}."
        axes.set_xlabel("epoch")
        axes.set_ylabel("on validation, in percent" if percent else "on validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(x=0.03, y=0.12)
        _fit(figure, axes)
        return _svg(figure, name=name, description=description)


def predicted_against_true(
    predictions: Floats, labels: Floats, *, label_range: tuple[float, float], name: str
) -> Markup:
    """Scatter of (N,) predictions over labels, with the line of perfect answers."""
    with rc_context(_STYLE):
        figure, axes = _plain_axes(4.0, 3.7)
        low = min(label_range[0], float(predictions.min()), float(labels.min()))
        high = max(label_range[1], float(predictions.max()), float(labels.max()))
        pad = 0.04 * (high - low)
        axes.plot([low, high], [low, high], color=SECOND, linewidth=1, linestyle=(0, (4, 3)))
        crowded = len(labels) > 600
        axes.plot(
            labels,
            predictions,
            "o",
            color=ACCENT if len(labels) <= _MAX_MARKS else "#5b7fc7",
            markersize=2.2 if crowded else 3.2,
            markeredgewidth=0,
            alpha=0.35 if crowded else 0.5,
            rasterized=len(labels) > _MAX_MARKS,
        )
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(low - pad, high + pad)
        axes.set_aspect("equal")
        axes.set_xlabel("label")
        axes.set_ylabel("prediction")
        _fit(figure, axes)
        return _svg(
            figure,
            name=name,
            description=f"{len(labels)} predictions over their labels; the dashed line is y = x.",
        )


def error_histogram(errors: Floats, *, name: str) -> Markup:
    """Histogram of (N,) prediction minus label, with zero and the median marked."""
    with rc_context(_STYLE):
        figure, axes = _plain_axes(4.0, 2.2)
        limit = max(float(np.abs(errors).max()), 1e-9)
        axes.hist(errors, bins=np.linspace(-limit, limit, 42).tolist(), color=ACCENT, alpha=0.75)
        median = float(np.median(errors))
        axes.axvline(0, color=INK, linewidth=1)
        axes.axvline(median, color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            f"median {median:+.2f}".replace("-", "\N{MINUS SIGN}"),
            (median, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(6 if median >= 0 else -6, -4),
            textcoords="offset points",
            ha="left" if median >= 0 else "right",
            va="top",
            color=SECOND,
        )
        axes.set_xlabel("prediction \N{MINUS SIGN} label")
        axes.set_ylabel("samples")
        axes.grid(axis="x", visible=False)
        _fit(figure, axes)
        return _svg(
            figure,
            name=name,
            description=f"Histogram of {len(errors)} errors, median {median:.3f}.",
        )


def value_histogram(
    groups: Mapping[str, Floats], *, value_range: tuple[float, float], axis: str, name: str
) -> Markup:
    """Histogram of predictions, one outline a group (at most two).

    Args:
        groups: fixed names to values.
        value_range: of the axis; values beyond widen it.
        axis: what the values are.
        name: unique among the page's figures.
    """
    all_values = np.concatenate(list(groups.values()))
    low = min(value_range[0], float(all_values.min()))
    high = max(value_range[1], float(all_values.max()))
    with rc_context(_STYLE):
        figure, axes = _plain_axes(4.0, 2.3)
        for (label, values), color in zip(groups.items(), (ACCENT, SECOND), strict=False):
            axes.hist(
                values,
                bins=np.linspace(low, high, 31).tolist(),
                color=color,
                alpha=0.55,
                label=label,
            )
        if len(groups) > 1:
            axes.legend(frameon=False)
        axes.set_xlabel(axis)
        axes.set_ylabel("samples")
        axes.grid(axis="x", visible=False)
        _fit(figure, axes)
        return _svg(figure, name=name, description=f"Histogram of {len(all_values)} predictions.")


def windowed_means(
    steps: Sequence[int], values: Sequence[float], *, window: int
) -> tuple[Floats, Floats]:
    """Means over windows of steps, as in the paper's Figure 4; the last window may be short.

    Args:
        steps: N step numbers, ascending.
        values: N values.
        window: values a window, at least 1.

    Returns:
        (W,) mean step and (W,) mean value of each window.

    Example:
        >>> windowed_means([0, 1, 2], [1.0, 3.0, 5.0], window=2)
        (array([0.5, 2. ]), array([2., 5.]))
    """
    starts = np.arange(0, len(values), window)
    counts = np.diff(np.append(starts, len(values)))
    sums = [
        np.add.reduceat(np.asarray(column, dtype=np.float64), starts) for column in (steps, values)
    ]
    return sums[0] / counts, sums[1] / counts


def row_chart(
    *,
    names: Sequence[str],
    places: Sequence[float | None],
    means: Floats,
    intervals: Sequence[tuple[float, ...] | None],
    seeds: Sequence[Sequence[float]],
    published: Sequence[float | None],
    published_of: str,
    axis: str,
    unit: str,
    name: str,
) -> Markup:
    """A metric of the rows of a table: means with intervals, each seed, and published numbers.

    Args:
        names: of R rows, each under its place.
        places: on the axis; where one is None all rows are evenly spaced.
        means: (R,) over seeds.
        intervals: (low, high) of each mean.
        seeds: each row's values.
        published: each row's published number.
        published_of: their dataset where it is another; else empty.
        axis: what the places are.
        unit: of the metric.
        name: unique among the page's figures.
    """
    at = [float(place) for place in places if place is not None]
    is_spaced = len(at) < len(names)
    where = np.arange(len(names), dtype=np.float64) if is_spaced else np.array(at)
    with rc_context(_STYLE):
        figure, axes = _axes(6.2, 2.9)
        for place, values in zip(where, seeds, strict=True):
            axes.plot([place] * len(values), values, "o", color=MUTED, markersize=2.6, alpha=0.6)
        errors = np.array(
            [
                (0.0, 0.0) if ends is None else (max(mean - ends[0], 0), max(ends[1] - mean, 0))
                for mean, ends in zip(means, intervals, strict=True)
            ]
        ).T
        axes.errorbar(
            where, means, yerr=errors, fmt="o" if is_spaced else "o-", color=ACCENT,
            markersize=5, linewidth=1.4, elinewidth=1.2, capsize=3, label="measured",
        )  # fmt: skip
        known = [k for k, value in enumerate(published) if value is not None]
        if known:
            values = [float(published[k] or 0.0) for k in known]
            axes.plot(
                where[known], values, "s" if is_spaced else "s--", color=SECOND, markersize=4,
                linewidth=1.1,
                label=f"published, {published_of}" if published_of else "published",
            )  # fmt: skip
            axes.legend(frameon=False)
        # A dollar sign would begin a formula.
        shown = [text.replace("$", r"\$") for text in names]
        axes.set_xticks(where, shown if is_spaced else [f"{place:g}" for place in where])
        axes.set_xlabel(axis.replace("$", r"\$"))
        axes.set_ylabel(unit)
        axes.margins(x=0.05)
        low, high = int(np.argmin(means)), int(np.argmax(means))
        return _svg(
            figure,
            name=name,
            description=f"{unit} of {len(names)} rows, from {means[low]:.4g} ({names[low]}) to "
            f"{means[high]:.4g} ({names[high]}).",
        )


@dataclass(frozen=True)
class Line:
    """One of several curves in a figure.

    Args:
        label: in the legend.
        values: (W,), NaN where there is none.
        low, high: (W,) ends of an interval, NaN where there is none.
    """

    label: str
    values: Floats
    low: Floats
    high: Floats


_LINES = ((ACCENT, "-", "o"), (SECOND, "--", "s"), (INK, ":", "^"), (MUTED, "-.", "D"))


def line_chart(places: Floats, lines: Sequence[Line], *, axis: str, unit: str, name: str) -> Markup:
    """Several curves over the same (W,) places, each with its interval as a band.

    Args:
        places: on the axis.
        lines: at most as many as can be told apart are drawn differently.
        axis: what the places are.
        unit: of the values.
        name: unique among the page's figures.
    """
    with rc_context(_STYLE):
        figure, axes = _plain_axes(3.4, 2.3)
        for number, line in enumerate(lines):
            color, dashes, marker = _LINES[number % len(_LINES)]
            axes.plot(
                places, line.values, dashes, color=color, marker=marker, markersize=3,
                linewidth=1.4, label=line.label.replace("$", r"\$"),
            )  # fmt: skip
            axes.fill_between(places, line.low, line.high, color=color, alpha=0.12, linewidth=0)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=7.5)
        axes.set_xlabel(axis)
        axes.set_ylabel(unit)
        axes.locator_params(axis="both", nbins=6)
        axes.margins(x=0.03)
        _fit(figure, axes)
        said = "; ".join(
            f"{line.label} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines
        )
        return _svg(figure, name=name, description=f"{unit} over the {axis}: {said}.")


def band_curve(
    steps: Floats, means: Floats, stds: Floats | None, *, unit: str, name: str
) -> Markup:
    """A quantity over training steps, (W,) each; with deviations, a band of one to each side."""
    with rc_context(_STYLE):
        figure, axes = _plain_axes(3.1, 1.9)
        axes.plot(steps, means, _line(means), color=ACCENT, linewidth=1.4, markersize=4)
        if stds is not None:
            axes.fill_between(steps, means - stds, means + stds, color=ACCENT, alpha=0.18)
        axes.set_xlabel("training step")
        axes.set_ylabel(unit)
        axes.locator_params(axis="both", nbins=5)
        axes.margins(x=0.02)
        _fit(figure, axes)
        return _svg(
            figure,
            name=name,
            description=f"{unit.capitalize()} over steps, from {means[0]:.3g} to {means[-1]:.3g}.",
        )
