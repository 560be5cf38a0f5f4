"""How much of a prediction comes from each modality: exact Shapley values over their subsets.

With three modalities there are eight subsets, so nothing is sampled: the network predicts each of
them, with the other modalities absent as they are absent where a dataset lacks them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tecafn.core.modality import Modality
from tecafn.serving.inputs import refuse_not_finite

if TYPE_CHECKING:
    from tecafn.serving.opening import AnyPredictor

Floats = NDArray[np.float64]
Samples = TypeVar("Samples")


@dataclass(frozen=True)
class Contributions:
    """What each modality adds to the predictions of N samples.

    Args:
        full: (N,) what is predicted with all modalities; (N, C) probabilities of more than two
            classes, as are all the other arrays then.
        base: (N,) what is predicted where every modality is absent.
        values: (N,) by modality. They add up to ``full - base``; 0 where a sample lacks it.
        interactions: (N,) by pair, in the order of the modalities. Positive where two say more
            together than each adds alone; 0 where they do not act on one another.
        of_subset: (N,) predictions by the modalities that were kept.
    """

    full: Floats
    base: Floats
    values: Mapping[Modality, Floats]
    interactions: Mapping[tuple[Modality, Modality], Floats]
    of_subset: Mapping[tuple[Modality, ...], Floats]


def shapley_values(
    predict: Callable[[Samples, tuple[Modality, ...]], NDArray[Any]],
    samples: Samples,
    modalities: Sequence[Modality],
) -> Contributions:
    """Exact Shapley values and pairwise Shapley interaction indices of the modalities.

    Args:
        predict: gives (N,) predictions, or (N, C), of the samples with these modalities alone; it
            is called once per subset, the empty one included.
        samples: handed to ``predict`` as it is.
        modalities: M different ones; 2 ** M subsets are predicted.

    Raises:
        ValueError: a modality is named twice, or none is.

    Example:
        >>> def product(samples, kept):
        ...     return samples.prod(axis=0) if len(kept) == 2 else np.zeros(1)
        >>> samples = np.array([[2.0], [3.0]])
        >>> found = shapley_values(product, samples, [Modality.TEXT, Modality.AUDIO])
        >>> {str(m): v.tolist() for m, v in found.values.items()}
        {'text': [3.0], 'audio': [3.0]}
        >>> found.interactions[Modality.TEXT, Modality.AUDIO].tolist()
        [6.0]

    Source: Shapley, A value for n-person games, 1953; interactions: Grabisch and Roubens, An
    axiomatic approach to the concept of interaction among players in cooperative games, 1999.
    """
    if not modalities or len(set(modalities)) != len(modalities):
        raise ValueError(f"modalities must be different ones, got {[*map(str, modalities)]}")
    of_subset = {
        kept: np.asarray(predict(samples, kept), np.float64) for kept in _subsets(modalities)
    }

    def worth(*kept: Modality) -> Floats:
        return of_subset[tuple(m for m in modalities if m in kept)]

    values, count = {}, len(modalities)
    for modality in modalities:
        value = np.zeros_like(worth())
        for kept in _subsets([m for m in modalities if m != modality]):
            weight = 1.0 / (count * math.comb(count - 1, len(kept)))
            value += weight * (worth(*kept, modality) - worth(*kept))
        values[modality] = value
    interactions = {}
    for a, b in itertools.combinations(modalities, 2):
        together = np.zeros_like(worth())
        for kept in _subsets([m for m in modalities if m not in (a, b)]):
            weight = 1.0 / ((count - 1) * math.comb(count - 2, len(kept)))
            together += weight * (
                worth(*kept, a, b) - worth(*kept, a) - worth(*kept, b) + worth(*kept)
            )
        interactions[a, b] = together
    return Contributions(
        full=worth(*modalities),
        base=worth(),
        values=values,
        interactions=interactions,
        of_subset=of_subset,
    )


def contributions(predictor: AnyPredictor, **samples: Any) -> Contributions:
    """What each modality adds to ``predictor.predict(**samples)``.

    Args:
        predictor: any method's.
        samples: as ``Predictor.predict`` takes them.

    Returns:
        Arrays of N samples; ``values`` has every modality of ``predictor.takes``. Of a model of two
        classes they explain the probability of class 1, of more that of each class.

    Raises:
        UserError: as ``Predictor.predict``.

    Example:
        >>> found = contributions(predictor, text=["Fine."], audio=[frames])   # doctest: +SKIP
        >>> found.values[Modality.TEXT] + found.values[Modality.AUDIO]         # doctest: +SKIP
        array([1.2])
    """
    found = contributions_of_batches(predictor, list(predictor.batches(**samples)))
    for predictions in found.of_subset.values():
        refuse_not_finite(predictions)
    return found


def contributions_of_batches(predictor: AnyPredictor, batches: Sequence[Any]) -> Contributions:
    """``contributions`` of samples that are in batches already, such as those of a store's split.

    Args:
        predictor: any method's.
        batches: of samples, as the predictor takes them.

    Example:
        >>> opened = open_run(run, data, "valid", device)                       # doctest: +SKIP
        >>> batches = list(opened.source.batches(0))                            # doctest: +SKIP
        >>> contributions_of_batches(opened.predictor, batches).base            # doctest: +SKIP
        array([0.2, 0.2])
    """
    parts = [
        shapley_values(
            lambda of, kept: predictor.score_batch(of.keeping(kept)), batch, predictor.takes
        )
        for batch in batches
    ]
    if not parts:
        return shapley_values(lambda none, _: none, np.empty(0), predictor.takes)

    def joined(arrays: Callable[[Contributions], Mapping[Any, Floats]]) -> dict[Any, Floats]:
        return {key: np.concatenate([arrays(p)[key] for p in parts]) for key in arrays(parts[0])}

    return Contributions(
        full=np.concatenate([p.full for p in parts]),
        base=np.concatenate([p.base for p in parts]),
        values=joined(lambda part: part.values),
        interactions=joined(lambda part: part.interactions),
        of_subset=joined(lambda part: part.of_subset),
    )


def _subsets(modalities: Sequence[Modality]) -> list[tuple[Modality, ...]]:
    """All of them, from none to all, each in the order that was given."""
    sizes = range(len(modalities) + 1)
    return [kept for size in sizes for kept in itertools.combinations(modalities, size)]
