"""Small schemes and sources to train in tests; run as a program it trains one, to be killed."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tecafn.core.batch import Batch, BatchSource, Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import gather_rows, mean_over_rows, rank, world_size
from tecafn.core.scheme import Network, Phase, Scheme
from tecafn.training.config import TrainingConfig
from tecafn.training.events import EventLog
from tecafn.training.ranks import remember_peers
from tecafn.training.trainer import FitResult, Trainer

WIDTH = 5


class ToySource:
    """Random frames whose mean gives the label; every rank takes its stripe of each batch."""

    def __init__(self, *, num_samples: int = 24, batch_size: int = 4, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.frames = torch.randn(num_samples, 3, WIDTH, generator=generator)
        self.labels = self.frames.mean(dim=1) @ torch.linspace(-1, 1, WIDTH)
        self.batch_size = batch_size
        self.num_samples = num_samples

    def num_batches(self, epoch: int) -> int:
        return -(-self.num_samples // self.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        # A loader draws from torch's global generator when it starts; so does this one.
        torch.empty(()).random_()
        order = torch.randperm(self.num_samples, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(self.batch_size):
            yield self.select(rows[rank() :: world_size()])

    def select(self, rows: Tensor) -> Batch:
        frames = self.frames[rows]
        mask = torch.ones(frames.shape[:2], dtype=torch.bool)
        return Batch(
            sequences={Modality.AUDIO: Padded(frames, mask)},
            present={Modality.AUDIO: torch.ones(len(rows), dtype=torch.bool)},
            labels=self.labels[rows],
            index=rows,
            ids=tuple(f"video_{int(row)}" for row in rows),
        )


class ToyNetwork(Network):
    def __init__(self, *, width: int = WIDTH, dropout: float = 0.0) -> None:
        super().__init__()
        self.text_encoder = nn.Linear(width, 8)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 1)

    def forward(self, batch: Batch) -> Output:
        pooled = batch.sequences[Modality.AUDIO].values.mean(dim=1)
        hidden = self.dropout(torch.tanh(self.text_encoder(pooled)))
        return Output(self.head(hidden).squeeze(-1), {"hidden": hidden})


class ToyScheme(Scheme):
    """One phase, dropout, and a bank of the last prediction of every sample."""

    network: Any
    bank: Tensor

    def __init__(
        self,
        *,
        width: int = WIDTH,
        dropout: float = 0.0,
        before_loss: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__()
        self.network = ToyNetwork(width=width, dropout=dropout)
        self.register_buffer("bank", torch.zeros(64))
        self.before_loss = before_loss

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        if self.before_loss is not None:
            self.before_loss(progress)
        output = self.network(batch)
        assert batch.labels is not None
        defined = torch.ones_like(batch.labels, dtype=torch.bool)
        error = mean_over_rows((output.prediction - batch.labels) ** 2, defined)
        size = mean_over_rows(output.prediction**2, defined)
        return Losses({"task": error, "size": size}, {"task": 1.0, "size": 0.1}, output)

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        index = gather_rows(batch.index)
        self.bank[index] = gather_rows(losses.output.prediction.detach()).to(self.bank.dtype)


class TwoPhaseScheme(ToyScheme):
    """The encoder is trained over the leading third of the epoch, then the head over all."""

    def __init__(self, *, dropout: float = 0.0, first_fraction: float = 0.3) -> None:
        super().__init__(dropout=dropout)
        self.first_fraction = first_fraction
        self.calls: list[tuple[str, int, tuple[int, ...]]] = []

    def phases(self) -> Sequence[Phase]:
        encoder = list(self.network.text_encoder.parameters())
        head = list(self.network.head.parameters())
        return (
            Phase("first", self._called("first"), {"text_encoder": encoder}, self.first_fraction),
            Phase("second", self._called("second"), {"main": head}),
        )

    def _called(self, name: str) -> Callable[[Batch, Progress], Losses]:
        def loss(batch: Batch, progress: Progress) -> Losses:
            self.calls.append((name, progress.epoch, tuple(batch.index.tolist())))
            return self.loss(batch, progress)

        return loss


def validate(scheme: Scheme, source: BatchSource) -> Mapping[str, float]:
    """Mean absolute error."""
    errors = [
        gather_rows((scheme.predict(batch) - batch.labels).detach().abs())
        for batch in source.batches(0)
    ]
    return {"mae": float(torch.cat(errors).double().mean())}


def toy_scheme(kind: str = "dropout", **options: Any) -> ToyScheme:
    """A scheme whose first weights are always the same."""
    torch.manual_seed(7)
    if kind == "phases":
        return TwoPhaseScheme(dropout=0.5)
    return ToyScheme(dropout=0.5 if kind == "dropout" else 0.0, **options)


def fit(
    scheme: Scheme,
    run_dir: Path,
    config: TrainingConfig,
    *,
    train: BatchSource | None = None,
    valid: BatchSource | None = None,
    validate_with: Callable[[Scheme, BatchSource], Mapping[str, float]] = validate,
    resume: bool = False,
    seed: int = 3,
    fabric: Fabric | None = None,
    tensorboard: bool = False,
) -> FitResult:
    """Train on the CPU."""
    if fabric is None:
        fabric = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    with EventLog(run_dir, tensorboard=tensorboard) as events:
        trainer = Trainer(
            config, fabric=fabric, run_dir=run_dir, seed=seed, events=events, progress=False
        )
        return trainer.fit(
            scheme,
            train or ToySource(),
            valid or ToySource(num_samples=9, seed=1),
            validate=validate_with,
            resume=resume,
        )


def parameters_of(scheme: Scheme) -> dict[str, Tensor]:
    """A copy of the scheme's state."""
    return {name: tensor.clone() for name, tensor in scheme.state_dict().items()}


def events_of(run_dir: Path) -> list[dict[str, object]]:
    """The events without what a resume may change: its own line, and times."""
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [
        {key: value for key, value in event.items() if key != "seconds"}
        for event in events
        if event["event"] not in ("resume", "warning")
    ]


class Killed(BaseException):
    """Ends a run as abruptly as a process can do to itself."""


def killer(step: int) -> Callable[[Progress], None]:
    """Dies in the loss of this step (steps count from 0)."""

    def kill(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return kill


SLOW = TrainingConfig(max_epochs=8, checkpoint_every_steps=4)


def train_slowly(run_dir: Path) -> None:
    """So that a signal finds it training."""
    fit(toy_scheme(before_loss=lambda progress: time.sleep(0.03)), run_dir, SLOW)


def train_on_two_processes(run_dir: Path, settings: dict[str, Any]) -> None:
    """Run as one of two processes: without dropout, then with, whole and killed."""
    config = TrainingConfig(**settings)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision=config.precision)
    fabric.launch()
    remember_peers()
    source = ToySource(num_samples=21)  # its last batch has one row: none for rank 1
    for kind in ("plain", "dropout"):
        for step in (None, 5):
            folder = run_dir / (kind if step is None else f"{kind}-killed")
            scheme = toy_scheme(kind)
            with torch.no_grad():  # only rank 0's first weights may count
                scheme.network.head.weight += rank()
            if step is not None:
                scheme.before_loss = killer(step)
                with contextlib.suppress(Killed):
                    fit(scheme, folder, config, train=source, fabric=fabric)
                scheme = toy_scheme(kind)
            fit(scheme, folder, config, train=source, fabric=fabric, resume=step is not None)
            if rank() == 0:
                torch.save(parameters_of(scheme), folder / "final.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 2:
        train_slowly(Path(sys.argv[1]))
    else:
        train_on_two_processes(Path(sys.argv[1]), json.loads(sys.argv[2]))
