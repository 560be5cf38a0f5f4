"""Which dataset a source is, and with that its scale, its clips' numbering and its known defects.

What a source holds counts before what it is called: a file keeps its columns when it is renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.info import Task
from tecafn.core.modality import Modality
from tecafn.data.defects import PUBLISHED_SIZES, PUBLISHED_SUMS
from tecafn.data.samples import SourceFile

UNNAMED: Final = "unnamed"
MOSI, MOSEI, SIMS, FUNNY = "cmu-mosi", "cmu-mosei", "ch-sims", "ur-funny"

# Audio and vision columns of the datasets' own features.
_OWN_WIDTHS: Final = {
    (5, 20): MOSI,
    (74, 47): MOSI,
    (74, 35): MOSEI,
    (81, 371): FUNNY,
    (81, 75): FUNNY,
}
# Those of MMSA's feature tool, which CH-SIMS was made with and any clips may be.
_TOOL_WIDTHS: Final = {(33, 709): SIMS, (25, 177): SIMS}
_SPOKEN: Final = {
    "mosi": MOSI,
    "cmumosi": MOSI,
    "mosei": MOSEI,
    "cmumosei": MOSEI,
    "sims": SIMS,
    "chsims": SIMS,
    "funny": FUNNY,
    "urfunny": FUNNY,
}
_IN_NAMES: Final = (
    (re.compile(r"mosei"), MOSEI),
    (re.compile(r"mosi"), MOSI),
    (re.compile(r"(?<![a-z])(ch[-_ ]?)?sims(?![a-uw-z])"), SIMS),
    (re.compile(r"ur[-_ ]?funny"), FUNNY),
)
# Folders that say what lies in them, not of which dataset.
_SAYS_NOTHING: Final = re.compile(
    r"(processed|raw|data|features?|(un)?aligned(_\d+)?|pickles?|pkl|audio|vision|text)", re.I
)
_OTHERS_TOO: Final = ", which others may have, too"
_ENOUGH_LABELS: Final = 30
_ENOUGH_FOR_A_SIGN: Final = 10


@dataclass(frozen=True)
class Scale:
    """What a dataset's labels are; the fields are those of ``DatasetDescription``."""

    task: Task = "regression"
    label_range: tuple[float, float] = (-3.0, 3.0)
    num_classes: int = 1


def scale_of(dataset: str) -> Scale:
    """CH-SIMS: -1 to 1; UR-FUNNY: two classes; any other: -3 to 3.

    Example:
        >>> scale_of("ur-funny")
        Scale(task='classification', label_range=(0.0, 1.0), num_classes=2)
    """
    if dataset.startswith(SIMS):
        return Scale(label_range=(-1.0, 1.0))
    if dataset == FUNNY:
        return Scale("classification", (0.0, 1.0), 2)
    return Scale()


def first_number(dataset: str) -> int:
    """label.csv's clip of ``video[0]``: CMU-MOSI's ids count from 0, its label.csv from 1.

    Example:
        >>> first_number("cmu-mosi"), first_number("cmu-mosei")
        (1, 0)
    """
    return 1 if dataset == MOSI else 0


def spoken_name(name: str) -> str:
    """The name of a dataset as it is kept, for the ways in which it is written.

    Example:
        >>> spoken_name("MOSI"), spoken_name("CMU_MOSEI"), spoken_name("ch-sims"), spoken_name("v")
        ('cmu-mosi', 'cmu-mosei', 'ch-sims', 'v')
    """
    spoken = name.strip().lower()
    return _SPOKEN.get(re.sub(r"[-_ ]", "", spoken), spoken)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a source holds that tells one dataset from another.

    Args:
        widths: columns of the frames.
        labels: every label that is known; NaN counts as unknown.
        label_columns: of each label: 7 in MOSEI's tuples, sentiment and six emotions.
        unimodal: are there labels of single modalities?
        sizes: samples of each split.
        integer_ids: are all ids numbers?
        files: with their sums.
    """

    widths: Mapping[Modality, int] = field(default_factory=dict)
    labels: NDArray[Any] | None = None
    label_columns: int = 1
    unimodal: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    integer_ids: bool = False
    files: tuple[SourceFile, ...] = ()


@dataclass(frozen=True)
class Which:
    """The dataset, its scale, and what the user should hear of the decision."""

    dataset: str
    scale: Scale
    decisions: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    is_guess: bool = False  # neither content nor name nor user says it


def decide(
    evidence: Evidence,
    source: Path,
    *,
    dataset: str | None = None,
    label_range: tuple[float, float] | None = None,
    otherwise: str = UNNAMED,
) -> Which:
    """The dataset: as told, else as the content says, else as the name says, else ``otherwise``.

    Args:
        evidence: what the source holds.
        source: its path as the user wrote it; a link's own name counts, not its target's.
        dataset: its name as the user tells it; it wins.
        label_range: lowest and highest label as the user tells them; they win.
        otherwise: the name where nothing tells.

    Raises:
        UserError: the content says two datasets and the name decides for neither, audio and vision
            seem exchanged and ``dataset`` is not told, or ``label_range`` is no range or is told
            for a classification.

    Example:
        >>> widths = {Modality.AUDIO: 74, Modality.VISION: 35}
        >>> decide(Evidence(widths=widths), Path("x/9c1b")).decisions
        ('the dataset is cmu-mosei: audio has 74 columns, vision 35',)
        >>> decide(Evidence(widths=widths), Path("x/mosi.pkl")).warnings[0][:63]
        "the name 'mosi.pkl' says cmu-mosi; audio has 74 columns, vision"
    """
    strong, weak = _clues(evidence)
    exchanged = _exchanged(evidence)
    if exchanged is not None and dataset is None:
        raise UserError(f"{source}: {exchanged}; if they are not, --dataset says which data it is")
    word, named = name_in_path(source)
    warnings: list[str] = []
    if dataset is not None:
        name, grounds = spoken_name(dataset), "as told by --dataset"
        against = [why for other, why in strong if other != name and name in scale_names()]
        if against:
            warnings.append(f"read as {name}, as told by --dataset, though {against[0]}")
        if exchanged is not None:
            warnings.append(f"read as {name}, as told by --dataset, though {exchanged}")
    elif strong:
        name, grounds = _strongest(strong, named, source)
        if named is not None and named != name:
            warnings.append(
                f"the name {word!r} says {named}; {grounds}, which is {name}: read as {name}; "
                "--dataset settles it"
            )
    elif named is not None:
        agreeing = dict.fromkeys(why for other, why in weak if other == named)
        name, grounds = named, ", ".join((f"its name {word!r} says so", *agreeing))
        against = [why for other, why in weak if other != name]
        if against:
            warnings.append(f"read as {name} by the name {word!r}, though {against[0]}")
    elif len({other for other, _ in weak}) == 1:
        name, grounds = weak[0]
        grounds = f"{grounds}{_OTHERS_TOO}"
    else:
        name, grounds = otherwise, "neither its content nor its name says which"
    warnings += _exchanged_splits(evidence.sizes)
    is_guess = dataset is None and not strong and named is None and name == otherwise
    scale = scale_of(name)
    decisions = [f"the dataset is {name}: {grounds}"]
    if label_range is not None:
        scale = _told_scale(scale, label_range, name)
        low, high = scale.label_range
        decisions.append(f"labels lie in {low:g} to {high:g}, as told by --label-range")
    else:
        warnings += _doubts_of_scale(evidence, scale, name)
    return Which(name, scale, tuple(decisions), tuple(warnings), is_guess)


def is_likely_alone(decisions: Iterable[str]) -> bool:
    """Was the dataset decided by what others may have, too? Its known facts then prove nothing.

    Example:
        >>> labels = np.tile(np.arange(-5, 6) / 5, 9)
        >>> is_likely_alone(decide(Evidence(labels=labels), Path("x.pkl")).decisions)
        True
        >>> is_likely_alone(decide(Evidence(labels=labels), Path("sims.pkl")).decisions)
        False
    """
    return any(decision.endswith(_OTHERS_TOO) for decision in decisions)


def scale_names() -> tuple[str, ...]:
    """The datasets that are known by name."""
    return (MOSI, MOSEI, SIMS, FUNNY)


def _strongest(strong: list[tuple[str, str]], named: str | None, source: Path) -> tuple[str, str]:
    said = dict(reversed(strong))  # the first clue of each
    if len(said) == 1:
        (name,) = said
    elif named in said:
        name = str(named)
    else:
        clues = "; ".join(f"{why} ({name})" for name, why in said.items())
        raise UserError(f"{source} could be two datasets: {clues}; name it with --dataset")
    # Every clue that speaks for it, and the one against.
    grounds = ", ".join(dict.fromkeys(why for other, why in strong if other == name))
    return name, grounds


def _told_scale(scale: Scale, label_range: tuple[float, float], name: str) -> Scale:
    low, high = label_range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UserError(f"--label-range must be two numbers that rise, got {low:g} {high:g}")
    if scale.task != "regression":
        raise UserError(f"--label-range is for scores; {name} is a {scale.task}")
    return Scale(label_range=(float(low), float(high)))


# What the content says


def _clues(evidence: Evidence) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(dataset, why) of what only that dataset has, and of what it has, too."""
    strong, weak = [], []
    for file in evidence.files:
        if file.sha256 in PUBLISHED_SUMS:
            strong.append(
                (PUBLISHED_SUMS[file.sha256][0], f"{file.name} has its published SHA-256")
            )
    if evidence.label_columns == 7:
        strong.append((MOSEI, "labels have 7 columns, sentiment and six emotions"))
    if evidence.unimodal:
        strong.append((SIMS, "each modality has labels of its own"))
    audio, vision = (evidence.widths.get(m, 0) for m in (Modality.AUDIO, Modality.VISION))
    columns = f"audio has {audio} columns, vision {vision}"
    own = _OWN_WIDTHS.get((audio, vision))
    if own is not None:
        strong.append((own, columns))
    strong += _by_sizes(evidence.sizes)
    values = _values(evidence.labels)
    steps = _by_steps(values)
    tool = _TOOL_WIDTHS.get((audio, vision))
    if tool is not None and _share_outside(values, scale_of(tool).label_range) <= 0.1:
        weak.append((tool, f"{columns}, as MMSA's feature tool gives them for it"))
    if steps is not None:
        weak.append(steps)
    if evidence.integer_ids and values.size and np.isin(values, (0.0, 1.0)).all():
        weak.append((FUNNY, "ids are numbers and labels 0 or 1"))
    return strong, weak


def _exchanged(evidence: Evidence) -> str | None:
    """What shows that audio stands where vision should: a known dataset's columns the other way."""
    audio, vision = (evidence.widths.get(m, 0) for m in (Modality.AUDIO, Modality.VISION))
    known = {**_OWN_WIDTHS, **_TOOL_WIDTHS}
    name = known.get((vision, audio))
    if name is None or (audio, vision) in known:
        return None
    return (
        f"audio has {audio} columns and vision {vision}, the other way round than {name}: they "
        "seem to be exchanged"
    )


def _by_sizes(sizes: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    """Split sizes as published, where every split that is there has its own."""
    counted = {split: size for split, size in sizes.items() if size}
    for name, (_, published) in PUBLISHED_SIZES.items():
        if counted and all(published.get(split) == size for split, size in counted.items()):
            shown = ", ".join(f"{split} {size}" for split, size in counted.items())
            yield name, f"its splits have the published sizes ({shown})"


def _exchanged_splits(sizes: Mapping[str, int]) -> Iterable[str]:
    """Split sizes as published, but of other splits: the names, or the files, were exchanged."""
    for name, (_, published) in PUBLISHED_SIZES.items():
        exchanged = {
            split: other
            for split, size in sizes.items()
            for other, of_other in published.items()
            if size == of_other and split != other
        }
        if len(exchanged) > 1:
            found = ", ".join(
                f"{split} has the {sizes[split]} samples of {other}"
                for split, other in exchanged.items()
            )
            yield f"{found} as {name} was published: were splits exchanged?"


def _values(labels: NDArray[Any] | None) -> NDArray[np.float64]:
    if labels is None:
        return np.empty(0)
    values = np.asarray(labels, np.float64).reshape(-1)
    return values[np.isfinite(values)]


def _share_outside(values: NDArray[np.float64], label_range: tuple[float, float]) -> float:
    low, high = label_range
    if not values.size:
        return 0.0
    return float(((values < low - 1e-6) | (values > high + 1e-6)).mean())


def _by_steps(values: NDArray[np.float64]) -> tuple[str, str] | None:
    """MOSEI's labels are means of three annotators, MOSI's and CH-SIMS's of five."""
    if values.size < _ENOUGH_LABELS or len(np.unique(values)) < 5:
        return None

    def share(step: float) -> float:
        steps = values / step
        return float((np.abs(steps - np.round(steps)) < 0.02).mean())

    fifths, thirds = share(1 / 5), share(1 / 3)
    if thirds > 0.95 and fifths < 0.7 and _share_outside(values, (-3.0, 3.0)) <= 0.02:
        return MOSEI, "labels rise in steps of a third"
    if fifths > 0.9 and thirds < 0.6:
        beyond = _share_outside(values, (-1.0, 1.0))
        if beyond <= 0.02 and values.min() < 0 < values.max():
            return SIMS, "labels rise in steps of 0.2 within -1 to 1"
        if beyond > 0.2 and _share_outside(values, (-3.0, 3.0)) <= 0.02:
            return MOSI, "labels rise in steps of 0.2 within -3 to 3"
    return None


def _doubts_of_scale(evidence: Evidence, scale: Scale, name: str) -> Iterable[str]:
    """Labels that do not look like the scale they are read on."""
    values = _values(evidence.labels)
    low, high = scale.label_range
    outside = _share_outside(values, scale.label_range)
    if outside > 0.1:
        yield (
            f"{outside:.0%} of the labels lie outside {low:g} to {high:g}, the scale of {name}: "
            f"they reach from {values.min():g} to {values.max():g}; --label-range names another"
        )
    elif (
        scale.task == "regression"
        and high > 1
        and values.size >= _ENOUGH_LABELS
        and np.abs(values).max() <= high / 2.5
    ):
        yield (
            f"labels reach from {values.min():g} to {values.max():g} alone and are read on the "
            f"scale {low:g} to {high:g}; --label-range names another"
        )
    elif (
        scale.task == "regression"
        and low < 0
        and values.size >= _ENOUGH_FOR_A_SIGN
        and values.min() >= 0
    ):
        yield (
            f"none of the {values.size} labels is below 0: they reach from {values.min():g} to "
            f"{values.max():g} and are read on the scale {low:g} to {high:g}, where 0 is neutral; "
            "--label-range names another"
        )


# What the name says


def name_in_path(source: Path) -> tuple[str, str | None]:
    """The word of a path that names a dataset, and the dataset; None where no word does.

    The file's name counts before its folder's; a folder called ``Processed`` or the like says
    nothing, and the one above it counts. A word that names two says nothing either.

    Example:
        >>> name_in_path(Path("data/MOSEI/aligned_50.pkl"))
        ('MOSEI', 'cmu-mosei')
        >>> name_in_path(Path("SIMS/Processed/feature.pkl"))
        ('SIMS', 'ch-sims')
        >>> name_in_path(Path("mosi_and_mosei/train.pkl"))[1] is None
        True
    """
    parts = list(reversed(source.absolute().parts))
    looked = parts[:2]
    for upper in parts[2:4]:
        if not _SAYS_NOTHING.fullmatch(looked[-1]):
            break
        looked.append(upper)
    for part in looked:
        found = {name for pattern, name in _IN_NAMES if pattern.search(part.lower())}
        if len(found) == 1:
            return part, found.pop()
    return "", None
