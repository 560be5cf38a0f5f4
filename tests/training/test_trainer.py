import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from training_toys import (
    ToyScheme,
    ToySource,
    TwoPhaseScheme,
    events_of,
    fit,
    parameters_of,
    toy_scheme,
    validate,
)

from tecafn.core.batch import Batch, BatchSource
from tecafn.core.errors import UserError
from tecafn.core.output import Losses, Progress
from tecafn.core.scheme import Scheme
from tecafn.training import checkpoint
from tecafn.training.config import TrainingConfig


def config(**settings: Any) -> TrainingConfig:
    return TrainingConfig(**{"max_epochs": 2, "learning_rates": {}, **settings})


def scripted(*values: float) -> Any:
    """A validation that gives these values, whatever the scheme."""
    rest = iter(values)
    return lambda scheme, source: {"mae": next(rest)}


def steps_of(run_dir: Path) -> list[dict[str, Any]]:
    return [event for event in events_of(run_dir) if event["event"] == "step"]


def test_phases_run_in_order_over_their_leading_share_of_the_same_batches(tmp_path: Path) -> None:
    scheme = TwoPhaseScheme(first_fraction=0.3)
    source = ToySource(num_samples=40)
    fit(scheme, tmp_path, config(), train=source)
    expected = []
    for epoch in range(2):
        plan = [tuple(batch.index.tolist()) for batch in source.batches(epoch)]
        expected += [("first", epoch, rows) for rows in plan[:3]]
        expected += [("second", epoch, rows) for rows in plan]
    assert scheme.calls == expected
    assert [event["phase"] for event in steps_of(tmp_path)] == [name for name, _, _ in expected]


@pytest.mark.parametrize(("fraction", "num_batches"), [(0.1, 1), (0.3, 3), (0.01, 1), (0.31, 4)])
def test_a_share_is_rounded_up_but_not_by_binary_dust(
    tmp_path: Path, fraction: float, num_batches: int
) -> None:
    scheme = TwoPhaseScheme(first_fraction=fraction)
    fit(scheme, tmp_path, config(max_epochs=1), train=ToySource(num_samples=40))
    assert [name for name, _, _ in scheme.calls].count("first") == num_batches


def test_a_phase_moves_its_own_parameters_only(tmp_path: Path) -> None:
    class Watching(TwoPhaseScheme):
        seen: list[dict[str, Tensor]]

        def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
            self.seen.append(parameters_of(self))

    scheme = Watching()
    scheme.seen = [parameters_of(scheme)]
    fit(scheme, tmp_path, config(max_epochs=1, weight_decay=0.0), train=ToySource(num_samples=12))
    for number, name in enumerate(name for name, _, _ in scheme.calls):
        before, after = scheme.seen[number], scheme.seen[number + 1]
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        part = "text_encoder" if name == "first" else "head"
        assert moved == {f"network.{part}.weight", f"network.{part}.bias"}


def test_accumulated_batches_equal_the_big_batch_in_float64(tmp_path: Path) -> None:
    weights = []
    for accumulate, batch_size in ((1, 8), (4, 2)):
        scheme = toy_scheme("plain")
        run_dir = tmp_path / str(accumulate)
        settings = config(accumulate=accumulate, precision="64-true", gradient_clip=0.5)
        fit(scheme, run_dir, settings, train=ToySource(num_samples=24, batch_size=batch_size))
        weights.append(parameters_of(scheme))
        assert len(steps_of(run_dir)) == 6
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-12)


def test_a_last_incomplete_group_steps_with_the_mean_of_what_is_left(tmp_path: Path) -> None:
    big, small = toy_scheme("plain"), toy_scheme("plain")
    # Batches of 4, 4 | 4 against 8 | 4.
    settings = config(max_epochs=1, precision="64-true")
    fit(big, tmp_path / "a", settings, train=ToySource(num_samples=12, batch_size=8))
    settings = config(max_epochs=1, precision="64-true", accumulate=2)
    fit(small, tmp_path / "b", settings, train=ToySource(num_samples=12, batch_size=4))
    for name, tensor in parameters_of(big).items():
        torch.testing.assert_close(parameters_of(small)[name], tensor, rtol=0, atol=1e-12)
    one, other = steps_of(tmp_path / "a"), steps_of(tmp_path / "b")
    assert len(one) == len(other) == 2
    for step, reference in zip(other, one, strict=True):
        assert step["total"] == pytest.approx(reference["total"], abs=1e-12)
        assert step["losses"] == pytest.approx(reference["losses"], abs=1e-12)


def test_after_step_sees_every_batch_of_an_accumulated_step_after_the_update(
    tmp_path: Path,
) -> None:
    class Watching(ToyScheme):
        seen: list[tuple[int, tuple[int, ...]]]
        weights: list[Tensor]

        def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
            assert not torch.is_grad_enabled()
            self.seen.append((progress.step, tuple(batch.index.tolist())))
            self.weights.append(self.network.head.weight.detach().clone())

    scheme = Watching()
    scheme.seen, scheme.weights = [], []
    start = scheme.network.head.weight.detach().clone()
    source = ToySource(num_samples=12)
    fit(scheme, tmp_path, config(max_epochs=1, accumulate=2), train=source)
    rows = [tuple(batch.index.tolist()) for batch in source.batches(0)]
    assert scheme.seen == [(0, rows[0]), (0, rows[1]), (1, rows[2])]
    assert not torch.equal(scheme.weights[0], start)
    assert torch.equal(scheme.weights[0], scheme.weights[1])


class Gradients(ToyScheme):
    """Notes the gradient norm that the optimizer got."""

    norms: list[float]

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        squares = [p.grad.square().sum() for p in self.parameters() if p.grad is not None]
        self.norms.append(math.sqrt(float(sum(squares))))


def test_clipping_bounds_the_global_norm_and_logs_the_norm_before(tmp_path: Path) -> None:
    norms = {}
    for clip in (0.0, 0.25):
        torch.manual_seed(0)
        scheme = Gradients()
        scheme.norms = []
        run_dir = tmp_path / str(clip)
        fit(scheme, run_dir, config(max_epochs=1, gradient_clip=clip))
        norms[clip] = scheme.norms
        logged = [event["gradient_norm"] for event in steps_of(run_dir)]
        expected = [min(norm, clip) if clip else norm for norm in logged]
        assert scheme.norms == pytest.approx(expected, rel=1e-4)
    assert max(norms[0.25]) <= 0.25 < max(norms[0.0])


def test_rates_in_the_log_follow_group_and_schedule(tmp_path: Path) -> None:
    settings = TrainingConfig(max_epochs=1, schedule="linear", learning_rates={"text_encoder": 0.1})
    fit(toy_scheme(), tmp_path, settings, train=ToySource(num_samples=16))
    rates = [event["learning_rates"] for event in steps_of(tmp_path)]
    expected = [{"main": 1e-3 * share, "text_encoder": 0.1 * share} for share in (1, 0.75, 0.5)]
    assert rates[:3] == [pytest.approx(entry) for entry in expected]


def test_training_stops_when_validation_is_stale_and_restores_the_best(tmp_path: Path) -> None:
    scheme = toy_scheme()
    seen: list[dict[str, torch.Tensor]] = []
    values = iter([0.9, 0.5, 0.6, 0.5, 0.7, 0.1])

    def watching(scheme: Scheme, source: BatchSource) -> dict[str, float]:
        assert not scheme.training
        assert not torch.is_grad_enabled()
        seen.append(parameters_of(scheme))
        return {"mae": next(values), "corr": float("nan")}

    result = fit(scheme, tmp_path, config(max_epochs=9, patience=3), validate_with=watching)
    assert (result.epochs, result.best_epoch, result.stopped) == (5, 1, "patience")
    assert (result.monitor, result.monitor_value) == ("mae", 0.5)
    for name, tensor in parameters_of(scheme).items():
        assert torch.equal(tensor, seen[1][name]), name
    assert not scheme.training
    epochs = [event for event in events_of(tmp_path) if event["event"] == "epoch"]
    assert [event["best"] for event in epochs] == [True, True, False, False, False]
    assert [event["step"] for event in epochs] == [6, 12, 18, 24, 30]
    assert epochs[0]["valid"] == {"mae": 0.9, "corr": None}


def test_plateau_halves_the_rate_of_the_epoch_after_the_stale_ones(tmp_path: Path) -> None:
    settings = config(max_epochs=5, plateau_patience=2)
    values = scripted(0.5, 0.6, 0.6, 0.4, 0.6)
    fit(toy_scheme(), tmp_path, settings, validate_with=values, train=ToySource(num_samples=4))
    rates = [event["learning_rates"]["main"] for event in steps_of(tmp_path)]
    assert rates == [1e-3, 1e-3, 1e-3, 5e-4, 5e-4]


def test_every_named_term_and_logged_scalar_is_in_the_events(tmp_path: Path) -> None:
    class Logging(ToyScheme):
        def loss(self, batch: Batch, progress: Progress) -> Losses:
            losses = super().loss(batch, progress)
            zero_weight = {**losses.weights, "unused": 0.0}
            terms = {**losses.terms, "unused": torch.tensor(float("nan"))}
            return Losses(terms, zero_weight, losses.output, {"share": torch.tensor(0.5)})

    fit(Logging(), tmp_path, config(max_epochs=1))
    start, *_, end = events_of(tmp_path)
    assert start["event"] == "start"
    assert start["num_trained_parameters"] == 57
    assert end["event"] == "end"
    for number, event in enumerate(steps_of(tmp_path), start=1):
        assert event["step"] == number
        losses = event["losses"]
        assert set(losses) == {"task", "size", "unused", "share"}
        assert losses["unused"] is None
        assert event["total"] == pytest.approx(losses["task"] + 0.1 * losses["size"], rel=1e-5)


def test_a_loss_that_is_not_a_number_is_one_line_and_no_weight_moves(tmp_path: Path) -> None:
    class Broken(ToyScheme):
        def loss(self, batch: Batch, progress: Progress) -> Losses:
            losses = super().loss(batch, progress)
            if progress.step == 8:
                self.before = parameters_of(self)
                terms = {**losses.terms, "size": losses.terms["size"] * float("nan")}
                losses = Losses(terms, losses.weights, losses.output)
            return losses

    scheme = Broken()
    with pytest.raises(UserError) as caught:
        fit(scheme, tmp_path, config())
    message = str(caught.value)
    assert message.startswith("loss term 'size' is nan in epoch 2, step 9, phase main")
    assert "\n" not in message
    for name, tensor in scheme.before.items():
        assert torch.equal(parameters_of(scheme)[name], tensor), name
    assert len(steps_of(tmp_path)) == 8


def test_an_infinite_gradient_of_a_finite_loss_is_one_line(tmp_path: Path) -> None:
    class Steep(ToyScheme):
        def loss(self, batch: Batch, progress: Progress) -> Losses:
            losses = super().loss(batch, progress)
            root = (self.network.head.weight.sum() * 0).sqrt()
            return Losses({**losses.terms, "root": root}, {**losses.weights, "root": 1.0},
                          losses.output)  # fmt: skip

    with pytest.raises(UserError, match="gradient norm is nan in epoch 1,") as caught:
        fit(Steep(), tmp_path, config())
    assert "\n" not in str(caught.value)


def test_a_metric_to_monitor_that_validation_lacks_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'acc2_pos' to monitor: did you mean 'acc2_neg'"):
        fit(
            toy_scheme(),
            tmp_path,
            config(monitor="acc2_pos"),
            validate_with=lambda scheme, source: {"acc2_neg": 0.5, "mae": 1.0},
        )


def test_an_undefined_monitor_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'mae' is nan on the validation split in epoch 1"):
        fit(toy_scheme(), tmp_path, config(), validate_with=scripted(float("nan")))


def test_no_training_batch_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no batch"):
        fit(toy_scheme(), tmp_path, config(), train=ToySource(num_samples=0))


def test_a_source_that_ends_early_is_found_out(tmp_path: Path) -> None:
    class Short(ToySource):
        def num_batches(self, epoch: int) -> int:
            return super().num_batches(epoch) + 1

    with pytest.raises(RuntimeError, match="ended 1 batches before"):
        fit(toy_scheme(), tmp_path, config(), train=Short())


def test_a_new_run_does_not_overwrite_an_earlier_one(tmp_path: Path) -> None:
    fit(toy_scheme(), tmp_path, config())
    before = events_of(tmp_path)
    with pytest.raises(UserError, match="earlier run's checkpoints"):
        fit(toy_scheme(), tmp_path, config())
    assert events_of(tmp_path) == before


def test_a_fabric_of_another_precision_is_refused(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    with pytest.raises(ValueError, match="precision is '64-true', but Fabric has '32-true'"):
        fit(toy_scheme(), tmp_path, config(precision="64-true"), fabric=fabric)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_precision_reaches_weights_batches_and_operations(tmp_path: Path, precision: str) -> None:
    class Watching(ToyScheme):
        def loss(self, batch: Batch, progress: Progress) -> Losses:
            losses = super().loss(batch, progress)
            frames = next(iter(batch.sequences.values())).values
            assert batch.labels is not None
            made = torch.zeros(1).dtype
            seen = {frames.dtype, batch.labels.dtype, self.network.head.weight.dtype, made}
            self.dtypes = (seen, losses.output.prediction.dtype)
            return losses

    scheme = Watching()
    fit(scheme, tmp_path, config(precision=precision, max_epochs=1))
    weights = torch.float64 if precision == "64-true" else torch.float32
    operations = torch.bfloat16 if precision == "bf16-mixed" else weights
    assert scheme.dtypes == ({weights}, operations)


def test_the_same_seed_trains_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    weights = []
    for number, seed in enumerate((3, 3, 4)):
        scheme = toy_scheme("dropout")
        fit(scheme, tmp_path / str(number), config(), seed=seed)
        weights.append(parameters_of(scheme)["network.head.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_full_disk_ends_the_run_in_one_line_with_the_last_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = vars(checkpoint)["save_file"]
    written = []

    def full_after_two(tensors: Any, path: Path, *args: Any, **options: Any) -> None:
        if path.name == "optimizers.safetensors":
            written.append(path)
            if len(written) > 2:
                raise OSError(28, "No space left on device")
        saved(tensors, path, *args, **options)

    monkeypatch.setattr(checkpoint, "save_file", full_after_two)
    with pytest.raises(UserError, match="No space left on device") as caught:
        fit(toy_scheme(), tmp_path, config(max_epochs=4))
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    scheme, undisturbed = toy_scheme(), toy_scheme()
    fit(scheme, tmp_path, config(max_epochs=4), resume=True)
    fit(undisturbed, tmp_path / "other", config(max_epochs=4))
    assert torch.equal(scheme.network.head.weight, undisturbed.network.head.weight)


def test_without_a_terminal_there_is_one_line_an_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(toy_scheme(), tmp_path, config(), validate_with=scripted(0.5, 0.75))
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert captured.out == ""
    assert first.startswith("epoch 1/2: loss ")
    assert "valid mae 0.5000, best so far" in first
    assert "best so far" not in second


def test_the_scheme_learns(tmp_path: Path) -> None:
    scheme = toy_scheme("plain")
    source = ToySource(num_samples=48, seed=2)
    before = validate(scheme, source)["mae"]
    result = fit(
        scheme, tmp_path, config(max_epochs=25, learning_rate=0.02), train=source, valid=source
    )
    assert result.monitor_value < 0.3 * before
