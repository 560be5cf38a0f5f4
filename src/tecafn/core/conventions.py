"""Which measures go with which dataset, and what each of them is.

A measure's name says little without its definition: ACC-5 of CMU-MOSI clips to +-2 and rounds to
five whole numbers, ACC-5 of CH-SIMS has its cuts at +-0.1 and +-0.7. So a store carries the name
of its **convention**, and whoever measures, chooses an epoch, compares or prints asks that
convention which measures there are and what they are called. Nothing has a convention by default.

``mosi``
    CMU-MOSI and CMU-MOSEI, and whatever else is labelled from -3 to 3. MMSA, MMIM and the TeCaFN
    paper agree on it.
``sims``
    CH-SIMS: everything is clipped to +-1 first; no ACC-7.
``signed-scale``
    A scale from -x to x of another dataset: MAE, correlation and the accuracy of the sign.
``scale``
    Any other scale, such as ratings from 1 to 5: MAE and correlation. What depends on a neutral
    zero or on +-3 is not defined there and is not printed.
``classification``
    Two classes: accuracy and F1.
``multiclass``
    More than two classes: accuracy, the mean of the classes' recalls and of their F1.
``mult``, ``misa``, ``mag``
    Other papers' rules for CMU-MOSI, for ``evaluation.metrics.sentiment_metrics`` alone. Columns of
    different conventions are not comparable.

``docs/metrics.md`` has every definition with its source. This module imports nothing, so that
tables can be drawn without torch; ``evaluation/metrics.py`` computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Measure:
    """One measure as one convention defines it.

    Args:
        name: its key in records, such as ``acc5``.
        label: as tables print it, with what tells it from another convention's where it differs.
        definition: in a few words, how a prediction and a label become the number.
    """

    name: str
    label: str
    definition: str

    @property
    def percent(self) -> bool:
        """Is it a share, printed in percent?"""
        return METRIC_INFO[self.name].percent

    @property
    def lower_is_better(self) -> bool:
        """Which way is better?"""
        return METRIC_INFO[self.name].lower_is_better


@dataclass(frozen=True)
class MetricInfo:
    """What is the same for a key in every convention: unit and direction."""

    percent: bool
    lower_is_better: bool = False


METRIC_INFO: Mapping[str, MetricInfo] = MappingProxyType(
    {
        "mae": MetricInfo(percent=False, lower_is_better=True),
        "corr": MetricInfo(percent=False),
        **{
            name: MetricInfo(percent=True)
            for name in (
                "acc7",
                "acc5",
                "acc3",
                "acc2_nonneg",
                "f1_nonneg",
                "acc2_pos",
                "f1_pos",
                "acc2",
                "sign_accuracy",
                "accuracy",
                "uar",
                "f1_macro",
                "f1",
            )
        },
    }
)
"""All keys, in the order that papers print them."""


@dataclass(frozen=True)
class Convention:
    """The measures of one kind of data.

    Args:
        name: as stores and records have it.
        about: which data it is for, after "for".
        measures: all of them.
        headlines: those that tables with little room show.
        paired: those that two runs are compared by sample for sample. The first is the one that
            makes a method the best.

    Example:
        >>> sims = convention_named("sims")
        >>> sims.primary, sims.label_of("acc5"), "acc7" in sims.names
        ('mae', 'ACC-5 (+-0.1, +-0.7)', False)
    """

    name: str
    about: str
    measures: tuple[Measure, ...]
    headlines: tuple[str, ...]
    paired: tuple[str, ...]

    @property
    def is_of_classes(self) -> bool:
        """Are labels classes rather than scores?"""
        return "accuracy" in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of the measures."""
        return tuple(measure.name for measure in self.measures)

    @property
    def primary(self) -> str:
        """The measure that ranks methods."""
        return self.paired[0]

    def listed(self) -> str:
        """The convention and what it measures, in a line.

        Example:
            >>> CONVENTIONS["scale"].listed()
            'scale (MAE, Corr)'
        """
        return f"{self.name} ({', '.join(measure.label for measure in self.measures)})"

    def label_of(self, name: str) -> str:
        """The printed name of a measure; the key itself where this convention has none such."""
        return next((m.label for m in self.measures if m.name == name), name)

    def definition_of(self, name: str) -> str:
        """How a measure is defined; empty where this convention has none such."""
        return next((m.definition for m in self.measures if m.name == name), "")


_MAE = Measure("mae", "MAE", "mean absolute error of the raw predictions")
_CORR = Measure("corr", "Corr", "Pearson's correlation of the raw predictions with the labels")
_ROUNDED = tuple(
    Measure(
        f"acc{classes}",
        f"ACC-{classes}",
        f"prediction and label clipped to +-{limit} and rounded, half to even; share equal",
    )
    for classes, limit in ((7, 3), (5, 2), (3, 1))
)
_NONNEG = ">= 0 against < 0, all samples"
_POS = "> 0 against < 0, samples labelled 0 left out"
_BY_SUPPORT = "weighted by the true classes' support"
_BY_PREDICTION = "weighted by the predicted classes' support"
_MOSI_HEADLINES = ("mae", "corr", "acc7", "acc2_nonneg", "acc2_pos", "f1_pos")


def _polar(*, nonneg: str, nonneg_label: str, f1_label: str, f1: str) -> tuple[Measure, ...]:
    """The four measures of polarity that MOSI's conventions have."""
    return (
        Measure("acc2_nonneg", f"ACC-2 {nonneg_label}", nonneg),
        Measure("f1_nonneg", f"{f1_label} {nonneg_label}", f"F1 of {nonneg}; {f1}"),
        Measure("acc2_pos", "ACC-2 P/N", _POS),
        Measure("f1_pos", f"{f1_label} P/N", f"F1 of {_POS}; {f1}"),
    )


_CONVENTIONS = (
    Convention(
        "mosi",
        "labels from -3 to 3, as CMU-MOSI and CMU-MOSEI have them",
        (
            _MAE,
            _CORR,
            *_ROUNDED,
            *_polar(nonneg=_NONNEG, nonneg_label="NN/N", f1_label="F1", f1=_BY_SUPPORT),
        ),
        _MOSI_HEADLINES,
        ("mae", "acc2_pos"),
    ),
    Convention(
        "sims",
        "labels from -1 to 1, as CH-SIMS has them",
        (
            Measure("mae", "MAE", "mean absolute error, prediction and label clipped to +-1"),
            Measure("corr", "Corr", "Pearson's correlation, prediction and label clipped to +-1"),
            Measure("acc5", "ACC-5 (+-0.1, +-0.7)", "five classes, cut at +-0.1 and +-0.7"),
            Measure("acc3", "ACC-3 (+-0.1)", "three classes, cut at +-0.1"),
            Measure("acc2", "ACC-2 (<= 0, > 0)", "[-1, 0] against (0, 1], all samples"),
            Measure(
                "f1", "F1 (<= 0, > 0)", f"F1 of [-1, 0] against (0, 1], all samples; {_BY_SUPPORT}"
            ),
        ),
        ("mae", "corr", "acc5", "acc3", "acc2", "f1"),
        ("mae", "acc2"),
    ),
    Convention(
        "signed-scale",
        "a scale from -x to x that no paper defines classes of",
        (_MAE, _CORR, Measure("sign_accuracy", "Sign accuracy (< 0, > 0)", _POS)),
        ("mae", "corr", "sign_accuracy"),
        ("mae", "sign_accuracy"),
    ),
    Convention(
        "scale",
        "a scale without a neutral zero in its middle",
        (_MAE, _CORR),
        ("mae", "corr"),
        ("mae",),
    ),
    Convention(
        "classification",
        "classes",
        (
            Measure("accuracy", "Accuracy", "share of samples whose likeliest class is theirs"),
            Measure("f1", "F1", f"F1 of the classes, {_BY_SUPPORT}"),
        ),
        ("accuracy", "f1"),
        ("accuracy",),
    ),
    Convention(
        "multiclass",
        "more than two classes",
        (
            Measure("accuracy", "Accuracy", "share of samples whose likeliest class is theirs"),
            Measure("uar", "UAR", "mean of the recalls of the classes that samples have"),
            Measure("f1_macro", "Macro-F1", "mean of the F1 of the classes that samples have"),
            Measure("f1", "F1", f"F1 of the classes, {_BY_SUPPORT}"),
        ),
        ("accuracy", "uar", "f1_macro"),
        ("accuracy",),
    ),
    Convention(
        "mult",
        "labels from -3 to 3, by the rules of MulT's code",
        (
            _MAE,
            _CORR,
            *_ROUNDED,
            *_polar(
                nonneg="> 0 against <= 0, all samples",
                nonneg_label="(<= 0, > 0)",
                f1_label="F1 by prediction",
                f1=_BY_PREDICTION,
            ),
        ),
        _MOSI_HEADLINES,
        ("mae", "acc2_pos"),
    ),
    Convention(
        "misa",
        "labels from -3 to 3, by the rules of MISA's code",
        (
            _MAE,
            _CORR,
            *_ROUNDED,
            *_polar(
                nonneg=_NONNEG, nonneg_label="NN/N", f1_label="F1 by prediction", f1=_BY_PREDICTION
            ),
        ),
        _MOSI_HEADLINES,
        ("mae", "acc2_pos"),
    ),
    Convention(
        "mag",
        "labels from -3 to 3, by the rules of MAG-BERT's code",
        tuple(
            Measure(
                m.name, f"{m.label} (without 0)", f"{m.definition}; samples labelled 0 left out"
            )
            for m in (
                _MAE,
                _CORR,
                *_ROUNDED,
                *_polar(nonneg=_NONNEG, nonneg_label="NN/N", f1_label="F1", f1=_BY_SUPPORT)[:2],
            )
        )
        + _polar(nonneg=_NONNEG, nonneg_label="NN/N", f1_label="F1", f1=_BY_SUPPORT)[2:],
        _MOSI_HEADLINES,
        ("mae", "acc2_pos"),
    ),
)

CONVENTIONS: Mapping[str, Convention] = MappingProxyType({c.name: c for c in _CONVENTIONS})
# What records and stores of version 0.1 call them.
_OLDER_NAMES: Mapping[str, str] = MappingProxyType({"mmsa": "mosi"})
_MOSI_RANGE, _SIMS_RANGE = (-3.0, 3.0), (-1.0, 1.0)


def convention_named(name: str) -> Convention:
    """The convention of that name.

    Raises:
        ValueError: there is none; the known ones are named.

    Example:
        >>> convention_named("mmsa").name
        'mosi'
        >>> convention_named("moosi")
        Traceback (most recent call last):
        ...
        ValueError: unknown convention 'moosi'; known: mosi, sims, signed-scale, scale, \
classification, multiclass, mult, misa, mag
    """
    found = CONVENTIONS.get(_OLDER_NAMES.get(name, name))
    if found is None:
        raise ValueError(f"unknown convention {name!r}; known: {', '.join(CONVENTIONS)}")
    return found


def convention_of(dataset: str, *, task: str, label_range: tuple[float, float]) -> str:
    """The name of the convention that goes with a dataset.

    What the labels are decides, and the dataset's name only where it tells two definitions for
    the same labels apart: -1 to 1 is CH-SIMS's scale, and the measures of CH-SIMS are its own.

    Args:
        dataset: its name.
        task: ``regression`` or ``classification``.
        label_range: lowest and highest label.

    Example:
        >>> convention_of("cmu-mosi", task="regression", label_range=(-3.0, 3.0))
        'mosi'
        >>> convention_of("ch-sims", task="regression", label_range=(-1.0, 1.0))
        'sims'
        >>> convention_of("ratings", task="regression", label_range=(1.0, 5.0))
        'scale'
        >>> convention_of("ravdess", task="classification", label_range=(0.0, 7.0))
        'multiclass'
    """
    if task == "classification":
        return "classification" if label_range[1] <= 1 else "multiclass"
    if label_range == _MOSI_RANGE:
        return "mosi"
    if label_range == _SIMS_RANGE and dataset.startswith("ch-sims"):
        return "sims"
    low, high = label_range
    return "signed-scale" if low == -high else "scale"
