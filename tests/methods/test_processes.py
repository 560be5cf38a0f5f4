"""Two processes, and four, give the one-process loss and gradient, for every registered method."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from launching import forked
from narrow import NARROW

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.parallel import average_gradients
from tecafn.core.registry import METHODS
from tecafn.methods.mmim import MMIMConfig
from tecafn.methods.tecafn import TeCaFNConfig
from tecafn.testing import MethodCase, method_case

import tecafn.methods  # noqa: F401  isort: skip  registers every method

# Processes on two cores, beside whatever else runs there.
pytestmark = pytest.mark.timeout(1800)

SHARES = {"uneven": (9, 3), "empty": (12, 0), "four": (4, 5, 0, 3)}
# Two processes in the default suite; the others, started together, in the slow one.
TOGETHER = (("uneven",), ("empty", "four"))
TITLES = ["uneven", *(pytest.param(t, marks=pytest.mark.slow) for t in ("empty", "four"))]
PROGRESS = Progress(seed=5, epoch=2)
# Every method as it is, and what changes who sees whom.
CASES: dict[str, tuple[str, Any]] = {
    name: (name, METHODS[name].config(**NARROW.get(name, {}))) for name in METHODS
} | {
    "tecafn-bank": ("tecafn", TeCaFNConfig(bank_size=5, bank_frames=5, swap_probability=1.0)),
    "tecafn-some-differences": (
        "tecafn",
        TeCaFNConfig(differences=("mutual_information", "own_among_hardest", "padded_text")),
    ),
    "tecafn-revised": (
        "tecafn",
        TeCaFNConfig(variant="revised", bank_size=5, bank_frames=5, label_margin=0.5),
    ),
    "tecafn-other-parts": (
        "tecafn",
        TeCaFNConfig(
            parts=(
                "standardised_keys",
                "symmetric_contrast",
                "unexplained_contrast",
                "products",
                "unimodal_heads",
            ),
        ),
    ),
    "mmim-full-memory": ("mmim", MMIMConfig(memory_size=5)),
}


def in_double(batch: Batch) -> Batch:
    sequences = {
        m: Padded(p.values.double() if p.values.is_floating_point() else p.values, p.mask)
        for m, p in batch.sequences.items()
    }
    assert batch.labels is not None
    return dataclasses.replace(batch, sequences=sequences, labels=batch.labels.double())


def trimmed(batch: Batch) -> Batch:
    """Padded to this share's longest, as each process's loader would."""
    sequences, frame_of_token = {}, batch.frame_of_token
    for modality, padded in batch.sequences.items():
        length = max(1, int(padded.mask.any(0).nonzero().max()) + 1) if batch.size else 1
        sequences[modality] = Padded(padded.values[:, :length], padded.mask[:, :length])
        if modality == Modality.TEXT and frame_of_token is not None:
            frame_of_token = frame_of_token[:, :length]
    return dataclasses.replace(batch, sequences=sequences, frame_of_token=frame_of_token)


def step(case: MethodCase, share: slice) -> dict[str, torch.Tensor]:
    """The gradient of a third step, averaged over processes, the loss terms and the memories.

    The first two steps are taken without an optimizer, on the same rows and on others, so that
    banks, labels and copies have something to remember; between them the parameters are moved, so
    that copies differ from what they copy. Dropout is off.
    """
    scheme = case.build(dropout=False).double()
    answer: dict[str, torch.Tensor] = {}
    rows = torch.arange(12)[share]
    others, batch = (
        trimmed(in_double(case.mixed_batch(seed=seed).select(rows))) for seed in (1, 0)
    )
    for epoch, earlier in enumerate((batch, others)):
        progress = dataclasses.replace(PROGRESS, epoch=epoch)
        for phase in scheme.phases():
            scheme.after_step(earlier, phase.loss(earlier, progress), progress)
        with torch.no_grad():
            for parameter in scheme.parameters():
                if parameter.requires_grad:
                    parameter.mul_(1.01)
    answer |= {f"buffer {name}": value.clone() for name, value in scheme.named_buffers()}
    for phase in scheme.phases():
        scheme.zero_grad(set_to_none=True)
        losses = phase.loss(batch, PROGRESS)
        losses.total.backward()
        average_gradients(p for group in phase.parameters.values() for p in group)
        for name, parameter in scheme.named_parameters():
            if parameter.grad is not None:
                answer[f"{phase.name}: gradient of {name}"] = parameter.grad.clone()
        for name, term in losses.terms.items():
            total = term.detach().clone()
            if dist.is_initialized():
                dist.all_reduce(total)
                total /= dist.get_world_size()
            answer[f"{phase.name}: term {name}"] = total
    return answer


def one_of_many(rank: int, folder: str, titles: Sequence[str]) -> None:
    """What each process does, for every method and share it has a part in; rank 0 writes it down.

    Processes are started once, and meet once for each number of them: that is what takes the time.
    """
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        # Made before the processes meet: transformers saves in the first of them only.
        cases = {
            title: stack.enter_context(method_case(name, config=config))
            for title, (name, config) in CASES.items()
        }
        asked = {title: SHARES[title] for title in titles}
        for number in sorted({len(shares) for shares in asked.values()}):
            if rank >= number:
                continue
            meeting = f"file://{folder}/meeting-of-{number}"
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=number)
            for share, sizes in asked.items():
                if len(sizes) != number:
                    continue
                first = sum(sizes[:rank])
                for title, case in cases.items():
                    answer = step(case, slice(first, first + sizes[rank]))
                    if rank == 0:
                        torch.save(answer, Path(folder) / f"{title}-{share}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder with the answers of a share; processes that meet for one are started once."""

    @functools.cache
    def met(titles: tuple[str, ...]) -> Path:
        folder = tmp_path_factory.mktemp("processes")
        number = max(len(SHARES[title]) for title in titles)
        processes = [forked(one_of_many, (r, str(folder), titles)) for r in range(number)]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * number
        return folder

    return lambda title: met(next(titles for titles in TOGETHER if title in titles))


@functools.lru_cache(maxsize=1)  # a case's shares are tested one after another
def one_process(name: str) -> dict[str, torch.Tensor]:
    with method_case(CASES[name][0], config=CASES[name][1]) as case:
        return step(case, slice(None))


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("name", CASES)
def test_processes_together_give_the_one_process_gradient(
    name: str, title: str, answers: Callable[[str], Path]
) -> None:
    together = torch.load(answers(title) / f"{name}-{title}.pt", weights_only=True)
    alone = one_process(name)
    assert set(together) == set(alone)
    for what, value in alone.items():
        torch.testing.assert_close(together[what], value, rtol=1e-9, atol=1e-11, msg=what)


@pytest.mark.parametrize("title", TITLES)
def test_the_bank_has_something_to_be_compared(answers: Callable[[str], Path], title: str) -> None:
    together = torch.load(answers(title) / f"tecafn-bank-{title}.pt", weights_only=True)
    assert bool((together["buffer banks.audio.index"] >= 100).all())
