"""What the columns of a modality's frames are, so that a model is never given others in silence.

An extractor says what it makes; the store keeps it, a model that is trained on the store keeps it
too, and whoever brings the two together compares them. Data without a specification, such as
everybody's pickles, have nothing to compare and are used as they always were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """How one modality's frames were made.

    Args:
        extractor: what made them, such as ``voice-measures``.
        version: of the extractor's definitions; another one gives other numbers.
        columns: D names; empty where columns have none, such as a network's states.
        width: D.
        frames_per_second: the clock; 0 = one frame per utterance, or per word where ``settings``
            say so.
        models: SHA-256 of each model's file by the model's name.
        settings: whatever else decides the numbers.
        normalisation: what was done to the columns; "none" leaves that to the training split's
            statistics.

    Example:
        >>> spec = FeatureSpec(extractor="voice-measures", version=1, columns=("f0_hz",), width=1,
        ...                    frames_per_second=100.0)
        >>> FeatureSpec.from_dict(spec.as_dict()) == spec
        True
    """

    extractor: str
    version: int
    width: int
    frames_per_second: float
    columns: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    normalisation: str = "none"

    def __post_init__(self) -> None:
        if self.columns and len(self.columns) != self.width:
            raise ValueError(f"columns must be {self.width} names, got {len(self.columns)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"columns": list(self.columns)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """What ``as_dict`` gave.

        Raises:
            ValueError: a key is missing or unknown.
        """
        known = {one.name for one in fields(cls)}
        if not isinstance(values, Mapping) or set(values) - known:
            raise ValueError("a feature specification has other keys than known")
        try:
            return cls(**{**values, "columns": tuple(values.get("columns", ()))})
        except TypeError as error:
            raise ValueError(f"a feature specification is incomplete: {error}") from None

    @property
    def name(self) -> str:
        """A few words that name it.

        Example:
            >>> FeatureSpec(extractor="voice-measures", version=1, width=35,
            ...             frames_per_second=100.0).name
            'voice-measures version 1 (35 columns, 100 per second)'
        """
        rate = f"one per {self.settings.get('frame', 'utterance')}"
        if self.frames_per_second:
            rate = f"{self.frames_per_second:g} per second"
        return f"{self.extractor} version {self.version} ({self.width} columns, {rate})"

    def difference(self, other: FeatureSpec) -> str:
        """The first thing in which two differ, both values named; empty where nothing does.

        Example:
            >>> one = FeatureSpec(extractor="a", version=1, width=2, frames_per_second=50.0)
            >>> two = FeatureSpec(extractor="a", version=2, width=2, frames_per_second=50.0)
            >>> one.difference(two)
            'version 1 against 2'
        """
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if mine == theirs:
                continue
            what = one.name.replace("_", " ")
            if isinstance(mine, Mapping):
                name = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))[0]
                return f"{what} {name} {_short(mine.get(name))} against {_short(theirs.get(name))}"
            if isinstance(mine, tuple):
                pairs = zip(mine, theirs, strict=False)
                place = next((k for k, (a, b) in enumerate(pairs) if a != b), None)
                if place is None:
                    return f"{len(mine)} {what} against {len(theirs)}"
                return f"column {place + 1} {mine[place]} against {theirs[place]}"
            return f"{what} {mine} against {theirs}"
        return ""


def _short(value: object) -> str:
    """A hash by its beginning."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}..." if len(text) > 20 else text


def check_features(
    model: Mapping[Modality, FeatureSpec],
    data: Mapping[Modality, FeatureSpec],
    *,
    model_name: str,
    data_name: str,
) -> None:
    """Refuse data whose columns are not those that a model was trained on.

    Only a modality that both have a specification of is compared.

    Args:
        model: what the model was trained on.
        data: what the data have.
        model_name: how messages call the model.
        data_name: how messages call the data.

    Raises:
        UserError: a modality's specifications differ; both are named.

    Example:
        >>> spec = FeatureSpec(extractor="a", version=1, width=2, frames_per_second=50.0)
        >>> check_features({Modality.AUDIO: spec}, {}, model_name="runs/x", data_name="store")
    """
    for modality in Modality:
        if modality not in model or modality not in data:
            continue
        trained, given = model[modality], data[modality]
        difference = trained.difference(given)
        if difference:
            raise UserError(
                f"{model_name} was trained on {modality} features of {trained.name}, "
                f"{data_name} has {given.name}: {difference}; "
                "extract the clips anew with the model's settings, or train on these features"
            )
