"""MFM (Tsai et al. 2019): codes, factors, reconstructions and the objective, in slow loops."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.losses.mmd import normal_mmd
from tecafn.methods.mfm import Generator, MFMConfig, MFMScheme, reconstruction_loss
from tecafn.testing import MethodCase, method_case

SEEDS = (0, 1, 2)
TEXT, AUDIO, VISION = Modality
START = Progress(seed=0, epoch=0)


def double(batch: Batch) -> Batch:
    assert batch.labels is not None
    sequences = {
        m: Padded(p.values.double(), p.mask) if p.values.is_floating_point() else p
        for m, p in batch.sequences.items()
    }
    return dataclasses.replace(batch, sequences=sequences, labels=batch.labels.double())


def scheme_in_double(case: MethodCase, seed: int) -> MFMScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, MFMScheme)
    return scheme


@pytest.mark.parametrize("seed", SEEDS)
def test_a_modality_is_rebuilt_from_both_factors_step_by_step(seed: int) -> None:
    torch.manual_seed(seed)
    config = MFMConfig(joint_factor_dim=3, audio_factor_dim=2, audio_factor_dropout=0.0)
    generator = Generator(4, AUDIO, config).double()
    mask = torch.tensor([[True, False, True, True], [True, True, False, False]])
    frames = Padded(torch.randn(2, 4, 4, dtype=torch.float64) * mask.unsqueeze(-1), mask)
    joint = torch.randn(2, 3, dtype=torch.float64)
    code, rebuilt = generator(frames, joint)
    cell = nn.LSTMCell(5, 5).double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).data = getattr(generator.decoder, name + "_l0").data
    for row in range(2):
        _, (last, _) = generator.encoder.lstm(frames.values[row][mask[row]].unsqueeze(0))
        torch.testing.assert_close(code[row], generator.code(last[0, 0]))
        hidden = generator.factor[0](code[row]).clamp(min=0)
        both = torch.cat([joint[row], generator.factor[3](hidden)]).unsqueeze(0)
        state = (torch.zeros(1, 5, dtype=torch.float64),) * 2
        for step in range(4):
            state = cell(both, state)
            torch.testing.assert_close(rebuilt[row, step], generator.rebuild(state[0])[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_only_real_frames_are_rebuilt_and_every_sample_counts_alike(seed: int) -> None:
    torch.manual_seed(seed)
    mask = torch.rand(5, 6) < 0.5
    mask[0] = False
    mask[1:, 0] = True
    rebuilt, values = torch.randn(2, 5, 6, 3, dtype=torch.float64)
    got = reconstruction_loss(rebuilt, Padded(values, mask))
    rows = []
    for row in range(1, 5):
        errors = [
            (rebuilt[row, step, column] - values[row, step, column]).item() ** 2
            for step in range(6)
            if mask[row, step]
            for column in range(3)
        ]
        rows.append(sum(errors) / len(errors))
    assert got.item() == pytest.approx(sum(rows) / 4, rel=1e-12)


@pytest.mark.parametrize("variance", [None, 5.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_objective_is_task_reconstructions_and_four_discrepancies(
    seed: int, variance: float | None
) -> None:
    config = MFMConfig(kernel_variance=variance)
    with method_case("mfm", config=config) as case, torch.no_grad():
        scheme, batch = scheme_in_double(case, seed), double(case.mixed_batch(seed=seed))
        losses = scheme.loss(batch, START)
        joint = scheme.network.join(batch)
        expected = {"task": (losses.output.prediction - batch.labels).abs().mean()}
        codes = [joint.code]
        for m in Modality:
            alone = [row for row in range(batch.size) if joint.frames[m].mask[row].any()]
            assert 0 < len(alone) < batch.size
            rows = torch.tensor(alone)
            code, rebuilt = scheme.generators[m](joint.frames[m].select(rows), joint.factor[rows])
            codes.append(code)
            expected[f"reconstruction_{m}"] = reconstruction_loss(
                rebuilt, joint.frames[m].select(rows)
            )
        expected["discrepancy"] = sum(
            (
                normal_mmd(
                    code,
                    present=torch.ones(len(code), dtype=torch.bool),
                    variance=variance or code.shape[1] ** 2 / 2,
                )
                for code in codes
            ),
            torch.zeros(()),
        )
    assert set(losses.terms) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses.terms[name], value, msg=name)
    assert dict(losses.weights) == {
        "task": 1.0,
        "discrepancy": 100.0,
        "reconstruction_text": 0.5,
        "reconstruction_audio": 0.01,
        "reconstruction_vision": 0.5,
    }


def test_reconstruction_does_not_pull_the_text_encoder_towards_itself() -> None:
    target = torch.ones(1, 2, 3, requires_grad=True)
    rebuilt = torch.zeros(1, 2, 3, requires_grad=True)
    loss = reconstruction_loss(rebuilt, Padded(target, torch.ones(1, 2, dtype=torch.bool)))
    torch.autograd.backward(loss)
    assert target.grad is None
    assert rebuilt.grad is not None


def test_what_rebuilds_is_not_exported() -> None:
    with method_case("mfm") as case:
        scheme = case.build()
        exported = scheme.network.state_dict()
    assert not any("generator" in name or "decoder" in name for name in exported)
    assert any("generators" in name for name in scheme.state_dict())


@pytest.mark.slow
def test_training_makes_reconstructions_better() -> None:
    with method_case("mfm") as case:
        scheme = scheme_in_double(case, 0)
        batch = double(case.batch(6, seed=1))
        optimizer = torch.optim.Adam(scheme.parameters(), lr=5e-3)
        seen = []
        for _ in range(40):
            optimizer.zero_grad()
            losses = scheme.loss(batch, START)
            torch.autograd.backward(losses.total)
            optimizer.step()
            seen.append(losses.terms["reconstruction_vision"].item())
    assert seen[-1] < 0.8 * seen[0]
