"""Intervals around scores: split conformal prediction, calibrated on whole videos.

Source: V. Vovk, A. Gammerman and G. Shafer, "Algorithmic learning in a random world" (2005): the
half-width is a quantile of what was missed on data that the network was not trained on. Within
bins of a condition, here the number of words: V. Vovk, "Conditional validity of inductive
conformal predictors", ACML 2012. Errors are relative to what is expected of their scores, which is
more towards the ends of the scale: J. Lei et al., "Distribution-free predictive inference for
regression", JASA 2018, Sect. 5.2. Utterances of a video are alike, which the theory does not have:
hence coverage is measured on videos that were left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tecafn.core.errors import UserError
from tecafn.serving.builtin import model_folder
from tecafn.serving.exported import MODELS

CALIBRATION_FILE = "calibration.json"
FORMAT_VERSION = 1
LEVEL = 0.9
FEWEST_UTTERANCES = 40
FEWEST_VIDEOS = 5

# A saved network's, or an exported graph's.
_WEIGHTS_FILES = ("model.safetensors", MODELS["onnx"])
_NUM_FOLDS = 20
_FEWEST_IN_BIN = 20
# Where bins end: the shortest tenth of the utterances has one of its own.
_SHARES = (0.1, 0.4, 0.7)
_SHORTEST = 0.1
_ROUNDING = 1e-9
# Scripts without spaces: each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def count_words(text: str | None) -> int:
    """How many words a text has, by its spaces; of Chinese and Japanese, characters.

    Example:
        >>> count_words("I loved it."), count_words(None)
        (3, 0)
    """
    return len(_WORD.findall(text or ""))


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Half the width of an interval by the number of words of an utterance.

    Args:
        level: the share of utterances whose label the interval shall hold.
        most_words: the most words that each bin but the last takes, rising.
        half_widths: one per bin, on the label's scale.
        label_range: no interval reaches beyond it.
        slope: by which factor more half-widths grow from the middle of the scale to its ends.

    Example:
        >>> intervals = Intervals(
        ...     level=0.9, most_words=(5,), half_widths=(1.5, 1.25), label_range=(-3.0, 3.0)
        ... )
        >>> intervals.of([0.5, 2.5], [4, 12])
        (array([-1.  ,  1.25]), array([2., 3.]))
    """

    level: float
    most_words: tuple[int, ...]
    half_widths: tuple[float, ...]
    label_range: tuple[float, float]
    slope: float = 0.0

    def of(self, scores: ArrayLike, num_words: ArrayLike) -> tuple[Floats, Floats]:
        """Lower and upper ends, (N,) each, of N scores whose texts have so many words.

        Args:
            scores: (N,) as the network predicts them.
            num_words: (N,) as ``count_words`` counts them; 0 where there is no text.

        Raises:
            ValueError: their numbers differ.
        """
        values, words = np.asarray(scores, np.float64), np.asarray(num_words)
        if values.shape != words.shape:
            raise ValueError(
                f"num_words must be one per score {values.shape}, got shape {words.shape}"
            )
        half = np.asarray(self.half_widths)[np.searchsorted(self.most_words, words, side="left")]
        half = half * (1 + self.slope * _distances(values, self.label_range))
        low, high = self.label_range
        inside = np.clip(values, low, high)
        return np.clip(inside - half, low, high), np.clip(inside + half, low, high)

    @classmethod
    def load(cls, model: str | Path) -> Intervals:
        """Of a model's name, a run's folder or an exported model.

        Raises:
            UserError: it was not calibrated, the file is damaged, or its weights have changed
                since.
        """
        return read_calibration(model).intervals


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What intervals cover of utterances of videos that they were not calibrated on.

    Args:
        num_utterances: how many.
        num_videos: of how many videos.
        covered: share whose label lies in the interval.
        num_shortest: utterances of the shortest tenth, by their words; those of the longest of
            them are all counted.
        covered_shortest: share of these.
        mean_width: from end to end, on the label's scale.
    """

    num_utterances: int
    num_videos: int
    covered: float
    num_shortest: int
    covered_shortest: float
    mean_width: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Intervals, what they cover, and what they were calibrated on.

    Args:
        intervals: of all calibrating utterances.
        measured: on videos left out in turn.
        by_dataset: the same by dataset, where there are several.
        data: name, split and hash of each dataset.
        weights_hash: SHA-256 of the file with the weights.
    """

    intervals: Intervals
    measured: Coverage
    by_dataset: Mapping[str, Coverage]
    data: Sequence[Mapping[str, str]]
    weights_hash: str


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Utterances with scores of a network that was not trained on them, and with their labels.

    Args:
        scores: (N,).
        labels: (N,).
        num_words: (N,).
        videos: N names.
        datasets: N names.
    """

    scores: Floats
    labels: Floats
    num_words: Counts
    videos: Sequence[str]
    datasets: Sequence[str]

    @property
    def errors(self) -> Floats:
        """(N,) what was missed, absolutely."""
        return np.abs(self.scores - self.labels)

    @property
    def weights(self) -> Floats:
        """(N,) so that each dataset counts alike, however many utterances it has; 1 on average."""
        names, of, counts = np.unique(self.datasets, return_inverse=True, return_counts=True)
        weights: Floats = len(of) / (len(names) * counts[of])
        return weights

    @property
    def groups(self) -> Counts:
        """(N,) the number of each utterance's video; names of two datasets are two videos."""
        names = list(zip(self.datasets, self.videos, strict=True))
        number = {name: k for k, name in enumerate(dict.fromkeys(names))}
        return np.array([number[name] for name in names], np.int64)


def fit_intervals(
    scored: Scored, *, label_range: tuple[float, float], level: float = LEVEL
) -> Intervals:
    """Intervals whose half-widths are the conformal quantiles of the errors in each bin.

    Of n errors, each divided by what errors of its score are expected to be, the one of rank
    ceil((n + 1) level) is taken. Bins end where the shortest 10, 40 and 70 % of the utterances do;
    one with fewer than 20 utterances, or fewer than the rank asks for, is joined with the next.
    Where there are several datasets each has the same weight, so that a small one is covered, too;
    the utterance to come has the mean weight, and counts are of utterances of the greatest one.

    Source of the weights: R. Tibshirani et al., "Conformal prediction under covariate shift",
    NeurIPS 2019, Sect. 2.

    Raises:
        ValueError: ``level`` is not between 0 and 1.
        UserError: there are fewer errors than the level asks for.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    fewest = max(_FEWEST_IN_BIN, math.ceil(level / (1 - level)))
    weights = scored.weights
    if _count(weights) < fewest:
        raise UserError(
            f"intervals of {100 * level:g} % need {fewest} labelled utterances to calibrate on, "
            f"got {_count(weights):.0f}"
        )
    most_words = _bins(scored.num_words, weights, fewest=fewest)
    bin_of = np.searchsorted(most_words, scored.num_words, side="left")
    distances = _distances(scored.scores, label_range)
    slope = _slope(scored.errors, distances, weights)
    ratios = scored.errors / (1 + slope * distances)
    half_widths = [
        _conformal_quantile(ratios[bin_of == k], weights[bin_of == k], level)
        for k in range(len(most_words) + 1)
    ]
    return Intervals(
        level=level,
        most_words=tuple(most_words),
        half_widths=tuple(half_widths),
        label_range=label_range,
        slope=slope,
    )


def _distances(scores: Floats, label_range: tuple[float, float]) -> Floats:
    """How far scores are from the middle of the scale: 0 there, 1 at its ends and beyond."""
    low, high = label_range
    distances: Floats = np.abs(np.clip(scores, low, high) - (low + high) / 2) / ((high - low) / 2)
    return distances


def _slope(errors: Floats, distances: Floats, weights: Floats) -> float:
    """How much larger errors are expected at the ends than in the middle, as a share; >= 0.

    The least squares line, whose value in the middle is at least a quarter of the mean error.
    """
    mean_error = float(np.average(errors, weights=weights))
    mean_distance = float(np.average(distances, weights=weights))
    spread = distances - mean_distance
    if not spread.any():
        return 0.0
    rise = float((weights * spread * errors).sum() / (weights * spread**2).sum())
    middle = max(mean_error - rise * mean_distance, mean_error / 4)
    return max(rise / middle, 0.0) if middle > 0 else 0.0


def _count(weights: Floats) -> float:
    """How many utterances of the greatest weight count as much as all of these."""
    return float(weights.sum() / weights.max()) if len(weights) else 0.0


def _bins(num_words: Counts, weights: Floats, *, fewest: int) -> list[int]:
    """The most words of each bin but the last, so that every bin has enough utterances."""
    order = np.argsort(num_words, kind="stable")
    shares = np.cumsum(weights[order]) / weights.sum()
    ends: list[int] = []
    below = np.zeros(len(num_words), np.bool_)
    for share in _SHARES:
        end = int(num_words[order][np.searchsorted(shares, share - _ROUNDING)])
        inside = num_words <= end
        if min(_count(weights[inside & ~below]), _count(weights[~inside])) >= fewest:
            ends.append(end)
            below = inside
    return ends


def _conformal_quantile(ratios: Floats, weights: Floats, level: float) -> float:
    """The least ratio that so much of the weight, that of the one to come included, is up to."""
    order = np.argsort(ratios)
    reached = np.cumsum(weights[order])
    wanted = level * (reached[-1] + weights.mean())
    return float(ratios[order][np.searchsorted(reached, wanted - _ROUNDING * wanted)])


def calibrate(
    scored: Scored,
    *,
    label_range: tuple[float, float],
    data: Sequence[Mapping[str, str]],
    weights_hash: str,
    level: float = LEVEL,
) -> Calibration:
    """Fit intervals, and measure them on videos left out in turn (in 20 folds of many).

    Args:
        scored: of a split that the network was not trained on.
        label_range: of the labels.
        data: name, split and hash of each dataset.
        weights_hash: SHA-256 of the network's weights.
        level: the share to cover.

    Raises:
        UserError: there are too few utterances or videos to say what intervals cover.
    """
    groups = scored.groups
    num_videos = len(np.unique(groups))
    if len(groups) < FEWEST_UTTERANCES or num_videos < FEWEST_VIDEOS:
        raise UserError(
            f"intervals need {FEWEST_UTTERANCES} labelled utterances of {FEWEST_VIDEOS} videos to "
            f"be calibrated and measured, got {len(groups)} of {num_videos}"
        )
    low, high = _left_out(scored, groups, label_range=label_range, level=level)
    names = list(dict.fromkeys(scored.datasets))
    of = np.array(scored.datasets)
    return Calibration(
        intervals=fit_intervals(scored, label_range=label_range, level=level),
        measured=_coverage(scored, groups, low, high, np.ones(len(groups), np.bool_)),
        by_dataset={
            name: _coverage(scored, groups, low, high, of == name) for name in names if names[1:]
        },
        data=data,
        weights_hash=weights_hash,
    )


def _left_out(
    scored: Scored, groups: Counts, *, label_range: tuple[float, float], level: float
) -> tuple[Floats, Floats]:
    """The ends of each utterance's interval, fitted without its video."""
    order = np.random.default_rng(0).permutation(int(groups.max()) + 1)
    folds = order[groups] % _NUM_FOLDS
    low, high = np.empty(len(groups)), np.empty(len(groups))
    for fold in np.unique(folds):
        rest, out = folds != fold, folds == fold
        fitted = fit_intervals(_rows(scored, rest), label_range=label_range, level=level)
        low[out], high[out] = fitted.of(scored.scores[out], scored.num_words[out])
    return low, high


def _rows(scored: Scored, rows: NDArray[np.bool_]) -> Scored:
    kept = np.flatnonzero(rows).tolist()
    return Scored(
        scores=scored.scores[rows],
        labels=scored.labels[rows],
        num_words=scored.num_words[rows],
        videos=[scored.videos[row] for row in kept],
        datasets=[scored.datasets[row] for row in kept],
    )


def _coverage(
    scored: Scored, groups: Counts, low: Floats, high: Floats, rows: NDArray[np.bool_]
) -> Coverage:
    covered = ((low <= scored.labels) & (scored.labels <= high))[rows]
    words = scored.num_words[rows]
    shortest = words <= np.quantile(words, _SHORTEST, method="higher")
    return Coverage(
        num_utterances=int(rows.sum()),
        num_videos=len(np.unique(groups[rows])),
        covered=float(covered.mean()),
        num_shortest=int(shortest.sum()),
        covered_shortest=float(covered[shortest].mean()),
        mean_width=float((high - low)[rows].mean()),
    )


def write_calibration(model: str | Path, calibration: Calibration) -> Path:
    """Write the file beside the network's weights.

    Raises:
        UserError: it cannot be written.
    """
    path = model_folder(model) / CALIBRATION_FILE
    text = json.dumps({"format_version": FORMAT_VERSION, **asdict(calibration)}, indent=2)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def read_calibration(model: str | Path) -> Calibration:
    """What ``write_calibration`` wrote.

    Args:
        model: its name, a run's folder or an exported model's.

    Raises:
        UserError: it was not calibrated, the file is damaged, or its weights have changed since.
    """
    folder = model_folder(model)
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        raise UserError(
            f"{model} has no intervals: calibrate it with `tecafn calibrate {model} --data DIR`"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        calibration = _parsed(values)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    found = hash_of_weights(folder)
    if calibration.weights_hash != found:
        file = _weights_file(folder)
        remedy = "export" if file.name == MODELS["onnx"] else "calibrate"
        raise UserError(
            f"{path} was made for weights with the SHA-256 {calibration.weights_hash[:12]}..., "
            f"{file} has {found[:12]}...: {remedy} it anew"
        )
    return calibration


def carry_calibration(model: str | Path, exported: Path) -> Path | None:
    """Write the intervals of a network beside the graph that was made of it, if it has any.

    Args:
        model: the network's name or folder.
        exported: the folder of the graph, which was held against the network.

    Raises:
        UserError: the calibration is damaged or of other weights, or cannot be written.
    """
    if not (model_folder(model) / CALIBRATION_FILE).is_file():
        return None
    calibration = read_calibration(model)
    return write_calibration(
        exported, dataclasses.replace(calibration, weights_hash=hash_of_weights(exported))
    )


def _parsed(values: Any) -> Calibration:
    if values["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"format_version must be {FORMAT_VERSION}, got {values['format_version']!r}"
        )
    intervals = values["intervals"]
    low, high = map(float, intervals["label_range"])
    parsed = Intervals(
        level=float(intervals["level"]),
        most_words=tuple(map(int, intervals["most_words"])),
        half_widths=tuple(map(float, intervals["half_widths"])),
        label_range=(low, high),
        slope=float(intervals["slope"]),
    )
    if len(parsed.half_widths) != len(parsed.most_words) + 1:
        raise ValueError(
            f"half_widths must be one more than most_words, got {len(parsed.half_widths)} and "
            f"{len(parsed.most_words)}"
        )
    numbers = (*parsed.half_widths, parsed.slope)
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError(f"half_widths and slope must be finite and >= 0, got {numbers}")
    return Calibration(
        intervals=parsed,
        measured=Coverage(**values["measured"]),
        by_dataset={name: Coverage(**row) for name, row in values["by_dataset"].items()},
        data=values["data"],
        weights_hash=str(values["weights_hash"]),
    )


def hash_of_weights(folder: Path) -> str:
    """SHA-256 of the weights' file.

    Raises:
        UserError: there is none.
    """
    path = _weights_file(folder)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read weights {path}: {error.strerror or error}") from None


def _weights_file(folder: Path) -> Path:
    found = [folder / name for name in _WEIGHTS_FILES if (folder / name).is_file()]
    return found[0] if found else folder / _WEIGHTS_FILES[0]
