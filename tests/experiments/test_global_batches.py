"""Two and four processes make one process's batches, replacements and gradients of real files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from global_batches import EPOCH, Step, one_of_many, steps_of
from launching import forked

from tecafn.core.modality import Modality
from tecafn.data.loader import plan_batches

NUM_SAMPLES = 25  # batches of 8: the last has one sample, and nothing for most processes
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


@pytest.fixture(scope="module")
def config(tiny_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole scheme: all terms, the gate, three hard negatives; no dropout of its own."""
    text = tiny_toml.read_text(encoding="utf-8")
    without = "".join(
        f"{name}_dropout = 0.0\n"
        for name in ("embedding", "attention", "relu", "residual", "head", "mapper")
    )
    path = tmp_path_factory.mktemp("exact") / "exact.toml"
    path.write_text(text.replace("[training]", f"{without}[training]"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def store(make_store: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", sizes={"train": NUM_SAMPLES})


@pytest.fixture(scope="module")
def alone(config: Path, store: Path) -> dict[torch.dtype, list[Step]]:
    return {dtype: steps_of(config, store, dtype) for dtype in TOLERANCE}


@pytest.fixture(scope="module")
def together(
    config: Path, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[int, torch.dtype], list[Step]]:
    folder = tmp_path_factory.mktemp("together")
    done = {}
    for num in (2, 4):
        processes = [forked(one_of_many, (rank, num, config, store, folder)) for rank in range(num)]
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
        for dtype in TOLERANCE:
            saved = torch.load(folder / f"{num}-{dtype}.pt".replace("torch.", ""))
            done[num, dtype] = [Step(**values) for values in saved]
    return done


def test_shares_are_uneven_some_are_empty_and_lengths_differ(
    together: dict[tuple[int, torch.dtype], list[Step]],
) -> None:
    for num in (2, 4):
        steps = together[num, torch.float64]
        assert len(steps) == 4
        assert any(min(step.rows) == 0 for step in steps)
        assert {sum(step.rows) for step in steps} == {8, 1}
        # A global batch is sorted by length before it is split, so shares are padded differently.
        assert any(len(set(step.longest)) > 1 for step in steps)


@pytest.mark.parametrize("num", [2, 4])
def test_batches_are_those_of_one_process(
    num: int,
    alone: dict[torch.dtype, list[Step]],
    together: dict[tuple[int, torch.dtype], list[Step]],
) -> None:
    ours = [step.samples for step in alone[torch.float64]]
    assert [step.samples for step in together[num, torch.float64]] == ours
    assert sorted(chain.from_iterable(ours)) == list(range(NUM_SAMPLES))


def test_batches_are_buckets_of_length(alone: dict[torch.dtype, list[Step]], store: Path) -> None:
    from tecafn.data.store import Store

    view = Store.open(store).split("train")
    frames = view.lengths(Modality.AUDIO) + view.lengths(Modality.VISION)
    words = np.array([len(text.split()) + 2 for text in view.texts])  # and [CLS] and [SEP]
    planned = plan_batches(frames + words, batch_size=8, seed=0, epoch=EPOCH, shuffle=True)
    assert [step.samples for step in alone[torch.float64]] == [rows.tolist() for rows in planned]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num", [2, 4])
def test_replacements_are_those_of_one_process(
    num: int,
    dtype: torch.dtype,
    alone: dict[torch.dtype, list[Step]],
    together: dict[tuple[int, torch.dtype], list[Step]],
) -> None:
    ours = [step.replacements for step in alone[dtype]]
    assert [step.replacements for step in together[num, dtype]] == ours
    everyone = list(chain.from_iterable(ours))
    assert len(everyone) == 2 * NUM_SAMPLES  # audio and vision
    replaced = [one for one in everyone if not one[3]]
    assert 0.5 < len(replaced) / len(everyone) < 0.9  # p = 0.7
    assert all(sample != partner for _, sample, partner, _ in replaced)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num", [2, 4])
def test_gradients_are_those_of_one_process(
    num: int,
    dtype: torch.dtype,
    alone: dict[torch.dtype, list[Step]],
    together: dict[tuple[int, torch.dtype], list[Step]],
) -> None:
    for one, many in zip(alone[dtype], together[num, dtype], strict=True):
        assert set(many.gradient) == set(one.gradient)
        largest = max(float(gradient.abs().max()) for gradient in one.gradient.values())
        assert largest > 0
        for name, gradient in one.gradient.items():
            difference = float((many.gradient[name] - gradient).abs().max())
            assert difference <= TOLERANCE[dtype] * largest, name
