"""ICCN's outer products and correlation, each written out from the paper once more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tecafn.core.batch import Batch
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.iccn import ICCNConfig, ICCNScheme, PairCNN
from tecafn.testing import MethodCase, _double, method_case

TEXT, AUDIO, VISION = Modality
SEEDS = (0, 1, 2)
PROGRESS = Progress(seed=0, epoch=0)
CONFIG = ICCNConfig(frame_dim=6, num_channels=2, pair_dim=3)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("iccn", config=CONFIG) as made:
        yield made


def scheme_of(case: MethodCase, seed: int) -> ICCNScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, ICCNScheme)
    return scheme


def batch_of(case: MethodCase, seed: int) -> Batch:
    return _double(case.mixed_batch(seed=seed))


def convolved(image: Any, weight: Any, bias: Any) -> Any:
    """(C, H, W) through 3 x 3 filters, ReLU, and the maximum of each 2 x 2."""
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2, width + 2))
    padded[:, 1:-1, 1:-1] = image
    answer = np.zeros((len(weight), (height + 1) // 2, (width + 1) // 2))
    for out in range(len(weight)):
        for row in range(height):
            for column in range(width):
                patch = padded[:, row : row + 3, column : column + 3]
                value = max(0.0, float((patch * weight[out]).sum() + bias[out]))
                place = (out, row // 2, column // 2)
                answer[place] = max(answer[place], value)
    return answer


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sizes", [(8, 6), (5, 7)])
def test_a_pair_is_the_outer_product_read_as_an_image(seed: int, sizes: tuple[int, int]) -> None:
    torch.manual_seed(seed)
    module = PairCNN(*sizes, num_channels=2, out_dim=3).double()
    first, second = (torch.randn(2, size, dtype=torch.float64) for size in sizes)
    got = module(first, second)
    for row in range(2):
        image = np.array([[[x * y for y in second[row].tolist()] for x in first[row].tolist()]])
        for layer in (module.first, module.second):
            assert layer.bias is not None
            image = convolved(image, layer.weight.detach().numpy(), layer.bias.detach().numpy())
        expected = module.project(torch.from_numpy(image.ravel()))
        torch.testing.assert_close(got[row], expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_answer_is_regressed_on_both_pairs_and_the_text(case: MethodCase, seed: int) -> None:
    network, batch = scheme_of(case, seed).network, batch_of(case, seed)
    output = network(batch)
    features = output.features
    joined = torch.cat([features["text_audio"], features["text"], features["text_vision"]], 1)
    expected = joined @ network.answer.linear.weight[0] + network.answer.linear.bias
    torch.testing.assert_close(output.prediction, expected)
    states = network.frames.text_encoder(batch.sequences[TEXT])
    there = batch.present[TEXT]
    torch.testing.assert_close(features["text"][there], states.values[there, 0])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_correlation_is_of_the_rows_that_have_everything(case: MethodCase, seed: int) -> None:
    scheme, batch = scheme_of(case, seed), batch_of(case, seed)
    losses = scheme.loss(batch, PROGRESS)
    complete = batch.present[TEXT] & batch.present[AUDIO] & batch.present[VISION]
    assert 2 < int(complete.sum()) < batch.size
    sides = []
    for name in ("text_audio", "text_vision"):
        rows = losses.output.features[name][complete].detach().numpy()
        sides.append(rows - rows.mean(0))
    n = len(sides[0]) - 1
    roots = []
    for side in sides:
        values, vectors = np.linalg.eigh(side.T @ side / n + 1e-4 * np.eye(3))
        roots.append(vectors @ np.diag(values**-0.5) @ vectors.T)
    whitened = roots[0] @ (sides[0].T @ sides[1] / n) @ roots[1]
    expected = -np.linalg.svd(whitened, compute_uv=False).sum()
    assert losses.terms["correlation"].item() == pytest.approx(expected, abs=1e-9)
    assert batch.labels is not None
    error = (losses.output.prediction - batch.labels).abs().mean().item()
    assert losses.total.item() == pytest.approx(error + 0.05 * expected, abs=1e-9)


def test_fewer_than_two_complete_rows_have_no_correlation(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 0), batch_of(case, 0)
    lacking = batch.select(torch.arange(7))  # one of them is complete
    losses = scheme.loss(lacking, PROGRESS)
    assert losses.terms["correlation"].item() == 0.0
    losses.total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in scheme.parameters() if p.grad is not None)


def test_training_raises_the_correlation(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 0), _double(case.batch(12, seed=4))
    optimizer = torch.optim.Adam(scheme.parameters(), lr=1e-3)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        term = scheme.loss(batch, PROGRESS).terms["correlation"]
        term.backward()
        optimizer.step()
        values.append(-term.item())
    assert values[-1] > values[0] + 0.1
