"""Stores of a few samples with given labels on any scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, Sample, Store, StoreWriter

SIMS_STEPS = tuple(step / 5 for step in range(-5, 6))


def make_labelled_store(
    path: Path,
    labels: Mapping[str, Sequence[float]],
    *,
    dataset: str = "mine",
    label_range: tuple[float, float] = (-3.0, 3.0),
    clips: int = 4,
    videos: Mapping[str, str] | None = None,
    **described: Any,
) -> Store:
    """Audio and text of a few samples.

    Args:
        path: of the new store.
        labels: of each split's samples.
        dataset: of the description.
        label_range: of the description.
        clips: per video.
        videos: a split to what its videos' names begin with, else the split's own name.
        **described: further fields of the description.
    """
    random = np.random.default_rng(0)
    description = DatasetDescription(
        dataset=dataset, widths={Modality.AUDIO: 3}, label_range=label_range, **described
    )
    with StoreWriter(path, description) as writer:
        for split, values in labels.items():
            for number, label in enumerate(values):
                begins = (videos or {}).get(split, split)
                video, clip = f"{begins}{number // clips:02d}", str(number % clips + 1)
                writer.add(
                    Sample(
                        id=f"{video}_{clip}" + ("" if begins == split else f"_{split}"),
                        source_id="",
                        video=video,
                        clip=clip,
                        split=split,
                        text="it was good" if label > 0 else "it was bad",
                        label=label,
                        sequences={
                            Modality.AUDIO: random.normal(size=(3, 3)).astype(np.float32) + label
                        },
                    )
                )
    return Store.open(path)


def sims_labels(sizes: Mapping[str, int], seed: int = 0) -> dict[str, list[float]]:
    """Labels in the steps of CH-SIMS."""
    random = np.random.default_rng(seed)
    return {split: random.choice(SIMS_STEPS, size).tolist() for split, size in sizes.items()}
