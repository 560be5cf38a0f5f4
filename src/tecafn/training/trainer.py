"""One trainer over phases: it sees a training and a validation split and no method's name."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from tecafn.core.batch import Batch, BatchSource
from tecafn.core.errors import UserError, nearest_known
from tecafn.core.health import EpochReadings, Kind, Reading, judge_influence
from tecafn.core.output import Losses, Progress
from tecafn.core.parallel import average_gradients, world_size
from tecafn.core.scheme import Phase, Scheme
from tecafn.training.checkpoint import Checkpoints
from tecafn.training.config import TrainingConfig
from tecafn.training.display import Display
from tecafn.training.events import EventLog
from tecafn.training.influence import influence
from tecafn.training.optimizers import (
    build_optimizer,
    learning_rates,
    load_optimizer_tensors,
    optimizer_tensors,
    refuse_unknown_groups,
)
from tecafn.training.randomness import generator_states, restore_generators, seed_generators
from tecafn.training.ranks import on_rank_0
from tecafn.training.schedules import Schedule
from tecafn.training.threads import num_threads_for, repeatable_arithmetic

Validate = Callable[[Scheme, BatchSource], Mapping[str, float]]
AfterEpoch = Callable[[int, float], None]


@dataclass(frozen=True)
class FitResult:
    """What came of a training run.

    Args:
        epochs: epochs done.
        best_epoch: the one whose weights the scheme now has, from 0.
        stopped: ``patience`` (no improvement for that long) or ``max_epochs``.
        monitor: the validation metric that chose.
        monitor_value: its value at the best epoch.
        seconds: wall-clock time, that of a resumed run's earlier parts included.
        threads: of this process's arithmetic while it trained.
        health: of the best epoch, as its event has it.
    """

    epochs: int
    best_epoch: int
    stopped: Literal["patience", "max_epochs"]
    monitor: str
    monitor_value: float
    seconds: float
    threads: int
    health: dict[str, dict[str, Any]]


@dataclass
class _State:
    """Where training stands; all of it goes into the checkpoint."""

    epoch: int = 0
    phase: int = 0  # in this epoch
    batch: int = 0  # done in this phase of this epoch
    step: int = 0  # optimizer steps done, over all phases and epochs
    num_batches: int = 0  # done, over all phases and epochs
    loss_sum: float = 0.0  # of this epoch's steps, for the display
    num_losses: int = 0
    best_value: float | None = None
    best_epoch: int | None = None
    best_step: int | None = None
    num_stale: int = 0
    seconds: float = 0.0
    threads: int = 0  # 0 in checkpoints of before it was written down
    readings: dict[str, list[Any]] = field(default_factory=dict)  # of this epoch's steps, summed
    best_health: dict[str, dict[str, Any]] = field(default_factory=dict)
    amiss: list[str] = field(default_factory=list)  # what the user was told


class _PreparedSource:
    """A source whose batches come on the training device and in the type of the weights.

    Fabric's own conversion of inputs is not used: for ``bf16-mixed`` it would round the labels to
    bfloat16 (2.6 to 2.59375), and with them every metric. Autocasting does what is needed.
    """

    def __init__(self, source: BatchSource, *, device: torch.device, dtype: torch.dtype) -> None:
        self._source = source
        self._device = device
        self._dtype = dtype

    @property
    def num_samples(self) -> int:
        return self._source.num_samples

    def num_batches(self, epoch: int) -> int:
        return self._source.num_batches(epoch)

    def batches(self, epoch: int) -> Iterator[Batch]:
        for batch in self._source.batches(epoch):
            yield dataclasses.replace(
                batch,
                sequences={
                    m: dataclasses.replace(padded, values=self._convert(padded.values))
                    for m, padded in batch.sequences.items()
                },
                labels=None if batch.labels is None else self._convert(batch.labels),
                unimodal_labels={
                    m: self._convert(label) for m, label in batch.unimodal_labels.items()
                },
            ).to(self._device)

    def _convert(self, values: Tensor) -> Tensor:
        """Token ids and classes stay integers."""
        return values.to(self._dtype) if values.is_floating_point() else values


class _Learner:
    """A phase with its optimizer, its schedule and its share of the batches."""

    def __init__(self, phase: Phase, *, config: TrainingConfig, train: BatchSource) -> None:
        self.phase = phase
        self.parameters = [p for group in phase.parameters.values() for p in group]
        self.optimizer = build_optimizer(phase, config)
        self._train = train
        steps = (
            math.ceil(self.num_batches(epoch) / config.accumulate)
            for epoch in range(config.max_epochs)
        )
        self.schedule = Schedule(self.optimizer, config=config, num_steps=sum(steps))

    def num_batches(self, epoch: int) -> int:
        """The leading share of the epoch, at least one batch of it."""
        # 0.1 * 30 is a little more than 3 in binary; it must not become 4.
        return math.ceil(self.phase.fraction * self._train.num_batches(epoch) - 1e-9)


class Trainer:
    """Trains any scheme by running its phases, epoch after epoch.

    Modules are not wrapped: phases with different parameters, and losses that take gradients of
    gradients, do not live in ``DistributedDataParallel``. After every backward pass the gradients
    of the phase's parameters are averaged over the processes instead. From Fabric come the
    device, the processes, autocasting, backward and the conversion of weights (``64-true``: the
    precision plugin's ``convert_module``, in place).

    Args:
        config: settings.
        fabric: launched, and made with ``config.precision``.
        run_dir: ``checkpoints/`` is written below it; the caller holds ``run_lock(run_dir)``.
        seed: seeds the generators, and reaches losses through ``Progress``.
        events: the run's log; ``fit`` writes it from its beginning.
        progress: show a progress bar if stderr is a terminal.

    Raises:
        ValueError: ``fabric`` has another precision than ``config``.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        fabric: Fabric,
        run_dir: Path,
        seed: int,
        events: EventLog,
        progress: bool,
    ) -> None:
        made_with = fabric.strategy.precision.precision
        if made_with != config.precision:
            raise ValueError(f"precision is {config.precision!r}, but Fabric has {made_with!r}")
        self._config = config
        self._fabric = fabric
        self._run_dir = run_dir
        self._seed = seed
        self._events = events
        self._progress = progress

    def fit(
        self,
        scheme: Scheme,
        train: BatchSource,
        valid: BatchSource,
        *,
        validate: Validate,
        resume: bool = False,
        after_epoch: AfterEpoch | None = None,
    ) -> FitResult:
        """Train ``scheme`` in place and leave it with the weights of the best epoch, in eval mode.

        In each epoch every phase runs over its leading share of the batches, phases in order.
        An optimizer step averages the gradients of ``accumulate`` batches, or of as many as are
        left at the end. After it ``scheme.after_step`` runs once for each of those batches, all
        with the same ``Progress``: a bank then sees every sample; what must move once per step
        can tell by ``progress.step``.

        Args:
            scheme: moved to the device and, for ``64-true``, converted. For a resume it must be
                built as at the start; its state is then replaced.
            train: this rank's share of the training batches; the same plan in every run.
            valid: the validation batches, which choose the epoch.
            validate: gives the metrics of a scheme on batches, the same on every rank. It runs
                without gradients, in eval mode and under autocasting.
            resume: continue from the newest intact checkpoint, bit for bit; start anew if the
                run was killed before its first.
            after_epoch: is told the epoch and the monitor's value when its checkpoint is written;
                what it raises ends the training.

        Raises:
            UserError: a loss or gradient is not finite, the monitor is missing or not finite, a
                checkpoint cannot be written or does not fit, the folder holds another run.
        """
        return _Fit(
            scheme=scheme,
            train=train,
            valid=valid,
            validate=validate,
            config=self._config,
            fabric=self._fabric,
            checkpoints=Checkpoints(
                self._run_dir / "checkpoints",
                keep_every_best=self._config.keep_improving_epochs,
            ),
            seed=self._seed,
            events=self._events,
            progress=self._progress,
            after_epoch=after_epoch,
        ).run(resume=resume)


class _Fit:
    """One call of ``Trainer.fit``."""

    def __init__(
        self,
        *,
        scheme: Scheme,
        train: BatchSource,
        valid: BatchSource,
        validate: Validate,
        config: TrainingConfig,
        fabric: Fabric,
        checkpoints: Checkpoints,
        seed: int,
        events: EventLog,
        progress: bool,
        after_epoch: AfterEpoch | None,
    ) -> None:
        if train.num_batches(0) < 1:
            raise UserError("the training split gives no batch")
        self._config = config
        self._fabric = fabric
        self._checkpoints = checkpoints
        self._seed = seed
        self._events = events
        self._scheme = scheme
        dtype = torch.float64 if config.precision == "64-true" else torch.float32
        self._train = _PreparedSource(train, device=fabric.device, dtype=dtype)
        self._valid = _PreparedSource(valid, device=fabric.device, dtype=dtype)
        self._validate_with = validate
        self._after_epoch = after_epoch
        # Conversion and move come first: optimizers are made for the parameters as they then are.
        fabric.strategy.precision.convert_module(scheme)
        scheme.to(fabric.device)
        _share_initial_state(scheme)
        phases = tuple(scheme.phases())
        names = [phase.name for phase in phases]
        assert phases, "a scheme has at least one phase"
        assert len(set(names)) == len(names), f"two phases have one name: {names}"
        refuse_unknown_groups(phases, config)
        self._learners = [_Learner(phase, config=config, train=train) for phase in phases]
        self._state = _State()
        # Generator states to restore once the batches before the checkpoint are skipped.
        self._pending_generators: list[str] | None = None
        self._earlier_seconds = 0.0
        self._started = time.perf_counter()
        self._display = Display(
            num_batches=sum(
                learner.num_batches(epoch)
                for learner in self._learners
                for epoch in range(config.max_epochs)
            ),
            max_epochs=config.max_epochs,
            monitor=config.monitor,
            progress=progress,
        )

    def run(self, *, resume: bool) -> FitResult:
        state, config = self._state, self._config
        with self._display, repeatable_arithmetic(self._fabric.device):
            self._begin(resume=resume)
            while state.epoch < config.max_epochs and state.num_stale < config.patience:
                self._run_epoch()
        assert state.best_step is not None
        assert state.best_epoch is not None
        assert state.best_value is not None
        self._checkpoints.read_best(state.best_step, self._scheme)
        self._scheme.eval()
        result = FitResult(
            epochs=state.epoch,
            best_epoch=state.best_epoch,
            stopped="patience" if state.num_stale >= config.patience else "max_epochs",
            monitor=config.monitor,
            monitor_value=state.best_value,
            seconds=state.seconds,
            threads=state.threads,
            health=state.best_health,
        )
        self._events.write({"event": "end", **asdict(result)})
        return result

    # Start and resume

    def _begin(self, *, resume: bool) -> None:
        def choose() -> tuple[int | None, list[str]]:
            if self._checkpoints and not resume:
                raise UserError(
                    f"{self._checkpoints.path(0).parent} holds an earlier run's checkpoints; "
                    "resume that run or choose another folder"
                )
            return self._checkpoints.newest()

        step, skipped = on_rank_0(choose)
        begun_before = bool(on_rank_0(self._events.position))
        if step is None:
            if resume and begun_before:
                self._display.message(
                    f"warning: nothing to resume: no checkpoint is left in "
                    f"{self._checkpoints.path(0).parent}; training begins anew"
                )
            self._use_threads(self._config.num_threads or self._suitable_threads())
            seed_generators(self._seed)
            self._events.rewind(0, step=0)
            parameters = list(self._scheme.parameters())
            trained = {id(p): p for learner in self._learners for p in learner.parameters}
            self._events.write(
                {
                    "event": "start",
                    "seed": self._seed,
                    "processes": world_size(),
                    "threads": self._state.threads,
                    "phases": [learner.phase.name for learner in self._learners],
                    "num_parameters": sum(p.numel() for p in parameters),
                    "num_trained_parameters": sum(p.numel() for p in trained.values()),
                }
            )
        else:
            self._load(step)
            for message in skipped:
                self._display.message(f"warning: {message}")
                self._events.write({"event": "warning", "message": message})
            self._events.write({"event": "resume", "step": step, "epoch": self._state.epoch})
            self._display.message(
                f"resuming after step {step}, in epoch {self._state.epoch + 1} of "
                f"{self._config.max_epochs}"
            )

    def _load(self, step: int) -> None:
        optimizers, saved = self._checkpoints.read(step, scheme=self._scheme)
        generators: list[str] = saved.pop("generators")
        if len(generators) != world_size():
            raise UserError(
                f"checkpoint {self._checkpoints.path(step)} was written by {len(generators)} "
                f"process(es), this run has {world_size()}; resume with as many"
            )
        schedules: dict[str, dict[str, int]] = saved.pop("schedules")
        names = [learner.phase.name for learner in self._learners]
        if sorted(schedules) != sorted(names):
            raise UserError(
                f"checkpoint {self._checkpoints.path(step)} has the phases {sorted(schedules)}, "
                f"this scheme {sorted(names)}"
            )
        for learner in self._learners:
            prefix = f"{learner.phase.name}/"
            own = {
                name.removeprefix(prefix): tensor
                for name, tensor in optimizers.items()
                if name.startswith(prefix)
            }
            load_optimizer_tensors(learner.optimizer, own)
            learner.schedule.load_state(schedules[learner.phase.name])
        self._events.rewind(saved.pop("events_position"), step=step)
        for name, value in saved.items():
            setattr(self._state, name, value)
        # As many threads as before, whatever the machine has now: they decide the last digits.
        self._use_threads(self._state.threads or torch.get_num_threads())
        self._earlier_seconds = self._state.seconds
        restore_generators(generators, self._fabric.device)
        self._pending_generators = generators

    def _suitable_threads(self) -> int:
        if self._fabric.device.type != "cpu" or world_size() > 1:
            return torch.get_num_threads()
        with self._fabric.autocast():
            return num_threads_for(self._scheme, next(iter(self._train.batches(0))))

    def _use_threads(self, number: int) -> None:
        self._state.threads = number
        if self._fabric.device.type == "cpu" and number != torch.get_num_threads():
            torch.set_num_threads(number)

    # An epoch

    def _run_epoch(self) -> None:
        state = self._state
        started = time.perf_counter()
        self._scheme.train()
        while state.phase < len(self._learners):
            self._run_phase(self._learners[state.phase])
            state.phase += 1
            state.batch = 0
        valid = self._validate()
        value = valid[self._config.monitor]
        improved = self._config.improves(value, state.best_value)
        state.num_stale = 0 if improved else state.num_stale + 1
        health = self._health()
        if improved:
            state.best_value, state.best_epoch, state.best_step = value, state.epoch, state.step
            state.best_health = health
        for learner in self._learners:
            learner.schedule.after_epoch(improved=improved)
        seconds = time.perf_counter() - started
        self._events.write(
            {
                "event": "epoch",
                "epoch": state.epoch,
                "step": state.step,
                "valid": valid,
                "seconds": seconds,
                "best": improved,
                "health": health,
            }
        )
        self._display.epoch(
            epoch=state.epoch,
            loss=state.loss_sum / max(1, state.num_losses),
            valid=valid,
            best=improved,
            seconds=seconds,
        )
        self._say_health(health)
        state.epoch += 1
        state.phase = 0
        state.loss_sum, state.num_losses, state.readings = 0.0, 0, {}
        self._write_checkpoint(best=improved)
        if self._after_epoch is not None:
            self._after_epoch(state.epoch - 1, value)

    def _run_phase(self, learner: _Learner) -> None:
        state, config = self._state, self._config
        total = learner.num_batches(state.epoch)
        batches = iter(self._train.batches(state.epoch))
        for _ in _take(batches, state.batch):
            pass  # done before the run was killed
        if self._pending_generators is not None:
            # Making and skipping batches may have drawn numbers that were drawn already.
            if state.batch:
                restore_generators(self._pending_generators, self._fabric.device)
            self._pending_generators = None
        while state.batch < total:
            group = min(config.accumulate, total - state.batch)
            loss = self._run_step(learner, _take(batches, group), num_batches=group)
            state.batch += group
            state.num_batches += group
            state.loss_sum += loss
            state.num_losses += 1
            self._display.step(
                epoch=state.epoch,
                phase=learner.phase.name,
                batch=state.batch,
                num_batches=total,
                done=state.num_batches,
                total=loss,
            )
            if config.checkpoint_every_steps and state.step % config.checkpoint_every_steps == 0:
                self._write_checkpoint(best=False)

    def _run_step(self, learner: _Learner, batches: Iterable[Batch], *, num_batches: int) -> float:
        """One optimizer step; gives its total loss."""
        state, fabric = self._state, self._fabric
        # The whole scheme: a loss leaves gradients in other phases' parameters too, to be freed.
        self._scheme.zero_grad(set_to_none=True)
        progress = Progress(seed=self._seed, epoch=state.epoch, step=state.step)
        done: list[tuple[Batch, Losses]] = []
        totals: list[Tensor] = []
        for batch in batches:
            with fabric.autocast():
                losses = learner.phase.loss(batch, progress)
                total = losses.total
            # A rank whose share of an uneven batch is empty may have nothing to differentiate.
            if total.requires_grad or batch.size:
                fabric.backward(total / num_batches)
            done.append((batch, losses))
            totals.append(total.detach())
        average_gradients(learner.parameters)
        norm = nn.utils.clip_grad_norm_(
            learner.parameters, self._config.gradient_clip or float("inf")
        )
        # Looked at before the step, so that no weight is touched by a NaN.
        values = _mean_over_batches_and_ranks([losses for _, losses in done], totals, norm)
        weights = done[0][1].weights
        self._refuse_non_finite(values, weights, learner.phase.name)
        rates = learning_rates(learner.optimizer)
        learner.optimizer.step()
        learner.schedule.after_step()
        with torch.no_grad(), fabric.autocast():
            for batch, losses in done:
                self._scheme.after_step(batch, losses, progress)
        state.step += 1
        readings = EpochReadings(state.readings)
        for name, (kind, value, chance) in values.readings.items():
            readings.add(name, kind, value, chance)
        state.readings = readings.state()
        self._events.write(
            {
                "event": "step",
                "step": state.step,
                "epoch": state.epoch,
                "phase": learner.phase.name,
                "total": values.total,
                "losses": values.terms,
                "learning_rates": rates,
                "gradient_norm": values.gradient_norm,
            }
        )
        return values.total

    def _refuse_non_finite(
        self, values: _StepValues, weights: Mapping[str, float], phase: str
    ) -> None:
        where = (
            f"in epoch {self._state.epoch + 1}, step {self._state.step + 1}, phase {phase}; "
            "lower the learning rate or look for extreme values in the data"
        )
        # A term of weight zero is only written down, and so may be undefined.
        for name, value in values.terms.items():
            if weights.get(name) and not math.isfinite(value):
                raise UserError(f"loss term {name!r} is {value} {where}")
        if not math.isfinite(values.total):
            raise UserError(f"the total loss is {values.total} {where}")
        if not math.isfinite(values.gradient_norm):
            raise UserError(f"the gradient norm is {values.gradient_norm} {where}")

    def _validate(self) -> dict[str, float]:
        self._scheme.eval()
        with torch.no_grad(), self._fabric.autocast():
            own = dict(self._validate_with(self._scheme, self._valid))
        # One rank's numbers decide, so that rounding never lets ranks stop at different epochs.
        valid: dict[str, float] = self._fabric.broadcast(own)
        monitor = self._config.monitor
        if monitor not in valid:
            raise UserError(
                f"validation gives no metric {monitor!r} to monitor: "
                f"{nearest_known(monitor, list(valid))}"
            )
        if not math.isfinite(valid[monitor]):
            raise UserError(
                f"the monitored metric {monitor!r} is {valid[monitor]} on the validation split in "
                f"epoch {self._state.epoch + 1}"
            )
        return valid

    # Health

    def _health(self) -> dict[str, dict[str, Any]]:
        """The epoch's readings, and how far each modality moves what is fused."""
        table = EpochReadings(self._state.readings).table()
        self._scheme.eval()
        with torch.no_grad(), self._fabric.autocast():
            what, shares = influence(self._scheme.network, self._valid)
        # One rank's numbers are written down.
        what, shares = self._fabric.broadcast((what, shares))
        if shares:
            table[what] = {
                "kind": "influence",
                "value": None,
                "chance": None,
                "shares": shares,
                "amiss": judge_influence(what, shares),
            }
        return table

    def _say_health(self, health: Mapping[str, Mapping[str, Any]]) -> None:
        """From the second epoch on, what is amiss and was not said yet, and what has healed."""
        state = self._state
        if state.epoch < 1:
            return
        amiss = [name for name, row in health.items() if row["amiss"]]
        for name in amiss:
            if name not in state.amiss:
                self._display.message(f"health: {health[name]['amiss']}")
        for name in state.amiss:
            if name not in amiss:
                self._display.message(f"health: {name} is no longer amiss")
        state.amiss = amiss

    # Checkpoints

    def _write_checkpoint(self, *, best: bool) -> None:
        """Rank 0 writes what all ranks need; a failure ends every rank."""
        state = self._state
        state.seconds = self._earlier_seconds + time.perf_counter() - self._started
        generators = generator_states(self._fabric.device)

        def write() -> None:
            if best:
                self._checkpoints.write_best(state.step, self._scheme)
            self._checkpoints.write(
                state.step,
                scheme=self._scheme,
                optimizers={
                    f"{learner.phase.name}/{name}": tensor
                    for learner in self._learners
                    for name, tensor in optimizer_tensors(learner.optimizer).items()
                },
                state={
                    **asdict(state),
                    "generators": generators,
                    "schedules": {
                        learner.phase.name: learner.schedule.state() for learner in self._learners
                    },
                    "events_position": self._events.position(),
                },
            )

        on_rank_0(write)


def _take(batches: Iterator[Batch], number: int) -> Iterator[Batch]:
    """The next ``number`` batches; a source that ends early has broken its promise."""
    for taken in range(number):
        try:
            yield next(batches)
        except StopIteration:
            raise RuntimeError(
                f"the training source ended {number - taken} batches before its num_batches"
            ) from None


def _share_initial_state(scheme: Scheme) -> None:
    """Every rank starts from rank 0's parameters and buffers."""
    if world_size() == 1:
        return
    for tensor in chain(scheme.parameters(), scheme.buffers()):
        dist.broadcast(tensor.detach(), src=0)


@dataclass(frozen=True)
class _StepValues:
    """One step's numbers, for the log."""

    total: float
    gradient_norm: float
    terms: dict[str, float]
    readings: dict[str, tuple[Kind, float, float]]


def _mean_over_batches_and_ranks(
    steps: Sequence[Losses], totals: Sequence[Tensor], gradient_norm: Tensor
) -> _StepValues:
    """Means over a step's batches and over ranks, fetched from the device at once.

    Gradient norms are equal on all ranks already, so their mean changes nothing.
    """
    dtype = torch.promote_types(totals[0].dtype, torch.float32)
    device = totals[0].device

    def row(*scalars: Tensor) -> Tensor:
        return torch.stack([s.detach().to(device=device, dtype=dtype) for s in scalars])

    def logged(losses: Losses) -> dict[str, Tensor]:
        return {**losses.terms, **losses.log}

    names, health = list(logged(steps[0])), steps[0].health

    def read(losses: Losses) -> list[Tensor]:
        return [x for name in health for x in _scalars(losses.health[name])]

    rows = [
        row(total, gradient_norm, *(logged(losses)[name] for name in names), *read(losses))
        for losses, total in zip(steps, totals, strict=True)
    ]
    mean = torch.stack(rows).mean(dim=0)
    if world_size() > 1:
        dist.all_reduce(mean)
        mean /= world_size()
    total, norm, *terms = mean.tolist()
    values: dict[str, Any] = dict(zip(names, terms, strict=False))
    first = len(names)
    pairs = zip(terms[first::2], terms[first + 1 :: 2], strict=True)
    readings = {
        name: (reading.kind, value, chance)
        for (name, reading), (value, chance) in zip(health.items(), pairs, strict=True)
    }
    return _StepValues(total=total, gradient_norm=norm, terms=values, readings=readings)


def _scalars(reading: Reading) -> tuple[Tensor, Tensor]:
    return reading.value, reading.chance
