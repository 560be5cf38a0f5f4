"""What each of several processes does of one epoch through the loader: gradients and partners."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import tecafn.methods.tecafn as tecafn_file
from tecafn.core.batch import Batch, Padded
from tecafn.core.output import Progress
from tecafn.core.parallel import average_gradients, gather_rows
from tecafn.data.store import Store
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.setup import build_scheme, describe_data, prepare_batches

EPOCH = 1
# Modality, sample, partner, own.
Replacement = tuple[int, int, int, bool]


@dataclass(frozen=True)
class Step:
    """One global batch.

    Args:
        rows: how many each rank had.
        samples: all of them, by row in the split, in the order of ranks.
        longest: text tokens of the longest, by rank.
        gradient: averaged over ranks, by parameter.
        replacements: who was fused with whom, sorted.
    """

    rows: list[int]
    samples: list[int]
    longest: list[int]
    gradient: dict[str, Tensor]
    replacements: list[Replacement]


def steps_of(config_path: Path, store_path: Path, dtype: torch.dtype) -> list[Step]:
    """Every batch of the second epoch, without dropout; a collective call."""
    config = load_config(config_path)
    assert isinstance(config, RunConfig)
    store = Store.open(store_path)
    view = store.split("train")
    info = describe_data(store, view, config)
    scheme = build_scheme(config, info).to(dtype).train()
    for module in scheme.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batches = prepare_batches(config, info, scheme, store, torch.device("cpu"))
    loader = batches.loader(view, shuffle=True, labelled=True)
    (phase,) = scheme.phases()
    parameters = [p for group in phase.parameters.values() for p in group]
    steps: list[Step] = []
    with recorded_replacements() as replacements:
        for batch in loader.batches(EPOCH):
            replacements.clear()
            scheme.zero_grad(set_to_none=True)
            progress = Progress(seed=config.seed, epoch=EPOCH, step=len(steps))
            losses = phase.loss(converted(batch, dtype), progress)
            losses.total.backward()
            average_gradients(parameters)
            steps.append(
                Step(
                    rows=gathered(batch.size),
                    samples=gather_rows(batch.index).tolist(),
                    longest=gathered(int(batch.sequences["text"].mask.shape[1])),
                    gradient={
                        name: parameter.grad.clone()
                        for name, parameter in scheme.named_parameters()
                        if parameter.grad is not None
                    },
                    replacements=sorted(chain.from_iterable(gathered(list(replacements)))),
                )
            )
    return steps


def converted(batch: Batch, dtype: torch.dtype) -> Batch:
    """As the trainer converts what the loader gives."""
    assert batch.labels is not None
    sequences = {
        m: Padded(p.values.to(dtype) if p.values.is_floating_point() else p.values, p.mask)
        for m, p in batch.sequences.items()
    }
    return replace(batch, sequences=sequences, labels=batch.labels.to(dtype))


def gathered(value: Any) -> list[Any]:
    """One a rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def recorded_replacements() -> Iterator[list[Replacement]]:
    """What the gate decides, with partners by their row in the split."""
    sample = vars(tecafn_file)["sample_hard_negatives"]
    seen: list[Replacement] = []

    def recording(similarity: Tensor, index: Tensor, **options: Any) -> Any:
        pairing = sample(similarity, index, **options)
        partners = gather_rows(index)[pairing.column].tolist()
        own = pairing.matched.tolist()
        for one, partner, matched in zip(index.tolist(), partners, own, strict=True):
            seen.append((options["stream"], one, partner, matched))
        return pairing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tecafn_file, "sample_hard_negatives", recording)
        yield seen


def one_of_many(rank: int, num: int, config: Path, store: Path, folder: Path) -> None:
    """Run as one of ``num`` processes; rank 0 writes down what all did."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for dtype in (torch.float64, torch.float32):
        name = f"{num}-{dtype}".replace("torch.", "")
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting-{name}", rank=rank, world_size=num
        )
        steps = steps_of(config, store, dtype)
        if rank == 0:
            torch.save([vars(step) for step in steps], folder / f"{name}.pt")
        dist.destroy_process_group()
