"""Labels that contradict one another: split against split, and against other columns of the source.

A label out of range is seen at once. These are not: withheld labels written as 0, a split whose
labels are on another scale, labels that were standardised, labels of other rows than theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tecafn.core.info import Task
from tecafn.core.modality import Modality
from tecafn.data.shares import more_than_a_few

# So many labels that are one and the same are no coincidence; of classes, one may be rare.
_ENOUGH_SCORES: Final = 10
_ENOUGH_CLASSES: Final = 30
# Clips of a video are alike: so many of them tell as much as independent ones.
_TELLING_CLIPS: Final = 3
_BY_CHANCE: Final = 1e-6
_NEARLY: Final = 1e-4
_POLARITY: Final = {
    "negative": -1, "neg": -1, "neutral": 0, "neu": 0, "positive": 1, "pos": 1,
    "weakly negative": -1, "weakly positive": 1, "weak negative": -1, "weak positive": 1,
}  # fmt: skip


@dataclass
class _Split:
    labels: list[float] = field(default_factory=list)
    videos: set[str] = field(default_factory=set)


class LabelSurvey:
    """Counts over the labels of all splits.

    Args:
        task: of a classification, labels are the numbers of classes.

    Example:
        >>> survey = LabelSurvey("regression")
        >>> for number in range(12):
        ...     survey.add("train", f"v{number}", number / 4 - 1.5, {})
        ...     survey.add("test", f"w{number}", 0.0, {})
        >>> survey.faults()
        ('all 12 labels of test are 0',)
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._splits: dict[str, _Split] = {}
        self._num_labelled: Counter[Modality] = Counter()  # in the modality and in all of them
        self._num_copies: Counter[Modality] = Counter()

    def add(
        self, split: str, video: str, label: float | None, unimodal: Mapping[Modality, float]
    ) -> None:
        """Count the labels of one sample; what is not finite is another's to find."""
        if label is None or not np.isfinite(label):
            return
        counted = self._splits.setdefault(split, _Split())
        counted.labels.append(float(label))
        counted.videos.add(video)
        self._num_labelled.update(unimodal.keys())
        self._num_copies.update(m for m, value in unimodal.items() if value == label)

    def faults(self) -> tuple[str, ...]:
        """What no measure can come of: a split's labels that are all one number."""
        enough = _ENOUGH_SCORES if self._task == "regression" else _ENOUGH_CLASSES
        return tuple(
            f"all {len(counted.labels)} labels of {name} are {counted.labels[0]:g}"
            for name, counted in self._splits.items()
            if len(counted.labels) >= enough and len(set(counted.labels)) == 1
        )

    def doubts(self) -> tuple[str, ...]:
        """What may be labels of another scale, or of other rows."""
        said = [
            f"the labels of {modality} equal the sample's own in all {count} samples that have "
            "both: are they copies?"
            for modality, count in self._num_labelled.items()
            if count >= _ENOUGH_SCORES and self._num_copies[modality] == count
        ]
        if self._task == "regression":
            said += self._narrow()
            said += self._standardised()
        return tuple(said)

    def _narrow(self) -> Iterable[str]:
        """Splits whose labels keep to a part of the scale, as those of the others do not."""
        varied = {n: split for n, split in self._splits.items() if len(set(split.labels)) > 1}
        for name, counted in varied.items():
            labels = np.array(counted.labels)
            others = np.array(
                [x for other, split in varied.items() if other != name for x in split.labels]
            )
            if min(len(labels), len(others)) < _ENOUGH_SCORES:
                continue
            low, high = labels.min(), labels.max()
            num_within = int(((others >= low) & (others <= high)).sum())
            telling = min(len(labels), _TELLING_CLIPS * len(counted.videos))
            if ((num_within + 1) / (len(others) + 1)) ** telling < _BY_CHANCE:
                yield (
                    f"labels of {name} reach from {low:g} to {high:g}, and only {num_within} of "
                    f"the {len(others)} of the other splits lie there: are they on one scale?"
                )

    def _standardised(self) -> Iterable[str]:
        every = [x for counted in self._splits.values() for x in counted.labels]
        train = self._splits.get("train", _Split()).labels
        for what, labels in (("of train", train), ("of all splits", every)):
            if len(labels) < _ENOUGH_CLASSES:
                continue
            deviations = (np.std(labels), np.std(labels, ddof=1))
            if abs(np.mean(labels)) < _NEARLY and min(abs(d - 1) for d in deviations) < _NEARLY:
                yield (
                    f"labels {what} have mean 0 and deviation 1: if they were standardised, they "
                    "are not on the dataset's scale, and no measure is comparable"
                )
                return


class PolarityCheck:
    """Holds labels against the words or classes that stand beside them.

    Words are Negative, Neutral, Positive, as in the column ``annotation``; classes are 0, 1 and 2,
    as MMSA's ``classification_labels`` count them.

    Example:
        >>> check = PolarityCheck("annotation")
        >>> for number in range(10):
        ...     check.add(-1.0, "Positive" if number % 2 else "Negative", where=f"row {number}")
        >>> check.warnings()[0][:61]
        'annotation and label contradict each other in 5 of 10 samples'
    """

    def __init__(self, name: str, *, label: str = "label") -> None:
        self._name, self._label = name, label
        self._num_compared = self._num_opposite = 0
        self._first = ""
        self._seen: set[int] = set()

    def add(self, label: float | None, word: object, *, where: str) -> None:
        """Compare one sample's; a word that says no polarity is passed over."""
        polarity = _polarity(word)
        if label is None or not np.isfinite(label) or polarity is None:
            return
        self._num_compared += 1
        self._seen.add(polarity)
        if polarity * label < 0:
            self._num_opposite += 1
            self._first = self._first or f"{where} has {word} and {label:g}"

    def warnings(self) -> tuple[str, ...]:
        """What is said where they contradict in more than a few; none where all words are one."""
        if len(self._seen) < 2 or not more_than_a_few(self._num_opposite, self._num_compared):
            return ()
        return (
            f"{self._name} and {self._label} contradict each other in {self._num_opposite} of "
            f"{self._num_compared} samples ({self._first}): one of the two may be of other rows",
        )


def _polarity(word: object) -> int | None:
    if isinstance(word, str):
        return _POLARITY.get(word.strip().casefold().replace("_", " "))
    if isinstance(word, (int, float)) and word in (0, 1, 2):
        return int(word) - 1
    return None
