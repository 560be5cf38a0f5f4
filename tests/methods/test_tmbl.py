"""TMBL: who is bound with whom, who reads what, and what a sample lacks.

Its arithmetic is held against its public code in ``tests/equivalence/test_tmbl.py``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.losses.discrepancy import cosine_distance, difference, softmax_divergence
from tecafn.methods.tmbl import TMBL, BoundAttention, Fusion, TMBLConfig, TMBLScheme
from tecafn.testing import MethodCase, _double, method_case

TEXT, AUDIO, VISION = Modality
CONFIG = TMBLConfig(dim=8, num_heads=2, key_dim=4, value_dim=6, communicator_dim=5)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("tmbl", config=CONFIG) as made:
        yield made


def scheme_of(case: MethodCase, seed: int = 0) -> TMBLScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert isinstance(scheme, TMBLScheme)
    return scheme


def batch_of(case: MethodCase, seed: int = 0) -> Batch:
    return _double(case.mixed_batch(seed=seed))


class Heard(nn.Module):
    """Keeps what a module is given and passes it on."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.given: list[tuple[Any, ...]] = []

    def forward(self, *given: Any) -> Any:
        self.given.append(given)
        return self.module(*given)


def vectors_of(network: TMBL, batch: Batch) -> dict[Modality, Tensor]:
    filled: dict[Modality, Tensor] = network.slots(network.encoders(network.frames(batch)), batch)
    return filled


def test_modalities_are_bound_with_each_other_and_never_samples(case: MethodCase) -> None:
    network, batch = scheme_of(case).network, batch_of(case)
    heard = Heard(network.shared)
    network.shared = heard  # type: ignore[assignment]
    network(batch)
    vectors = vectors_of(network, batch)
    ((sets, visible),) = heard.given
    # Query T + V, key V + A, value A + T.
    for got, (own, bound) in zip(
        sets, ((TEXT, VISION), (VISION, AUDIO), (AUDIO, TEXT)), strict=True
    ):
        assert torch.equal(got, torch.stack([vectors[own], vectors[bound]], dim=1))
    assert torch.equal(visible, torch.stack([batch.present[AUDIO], batch.present[TEXT]], dim=1))


def test_private_transformers_get_the_pairs(case: MethodCase) -> None:
    network, batch = scheme_of(case).network, batch_of(case)
    heard = {}
    for name, module in list(network.private.items()):
        heard[name] = network.private[name] = Heard(module)
    network(batch)
    vectors = vectors_of(network, batch)
    assert set(heard) == {"audio_vision", "vision_text", "text_audio"}
    for name, module in heard.items():
        one, other = (Modality(m) for m in name.split("_"))
        ((pair, visible),) = module.given
        assert torch.equal(pair, torch.stack([vectors[one], vectors[other]], dim=1))
        there = torch.stack([batch.present[one], batch.present[other]], dim=1)
        assert torch.equal(visible, there)


def test_nothing_attends_to_a_place_that_is_not_there_unless_there_is_no_other() -> None:
    torch.manual_seed(0)
    attention = BoundAttention(6, num_heads=2, key_dim=4, value_dim=4, dropout=0.0).double()
    query, key, value = torch.randn(3, 3, 2, 6, dtype=torch.float64)
    visible = torch.tensor([[True, True], [True, False], [False, False]])
    before = attention(query, key, value, visible)
    key[:, 1] += 1.0
    value[:, 1] += 1.0
    after = attention(query, key, value, visible)
    changed = (before != after).flatten(1).any(1).tolist()
    assert changed == [True, False, True]


def test_scores_are_divided_by_the_square_root_of_all_heads_keys() -> None:
    torch.manual_seed(0)
    attention = BoundAttention(6, num_heads=2, key_dim=4, value_dim=4, dropout=0.0).double()
    query, key, value = torch.randn(3, 1, 2, 6, dtype=torch.float64)
    everyone = torch.ones(1, 2, dtype=torch.bool)
    q, k, v = attention.query(query)[0], attention.key(key)[0], attention.value(value)[0]
    rows = []
    for i in range(2):
        heads = []
        for head in (slice(0, 2), slice(2, 4)):
            scores = torch.stack([q[i, head] @ k[j, head] / 2.0 for j in range(2)]).exp()
            heads.append((scores / scores.sum()) @ v[:, head])
        rows.append(attention.norm(query[0, i] + attention.output(torch.cat(heads))))
    expected = torch.stack(rows)
    torch.testing.assert_close(attention(query, key, value, everyone)[0], expected)


@pytest.mark.parametrize("similarity", ["cosine", "kl"])
@pytest.mark.parametrize("seed", [0, 1])
def test_terms_are_over_rows_that_have_what_is_compared(
    case: MethodCase, seed: int, similarity: Any
) -> None:
    settings = dataclasses.replace(case.config, similarity=similarity)
    scheme = scheme_of(dataclasses.replace(case, config=settings), seed)
    batch = batch_of(case, seed)
    losses, has = scheme.loss(batch, Progress(seed=4, epoch=seed)), batch.present
    features: Any = losses.output.features
    apart = {"cosine": cosine_distance, "kl": softmax_divergence}[similarity]
    unlike, alike = 0.0, 0.0
    for m in Modality:
        private, shared = (
            features[f"{kind}_{m}"].flatten(1)[has[m]] for kind in ("private", "shared")
        )
        everyone = torch.ones(len(private), dtype=torch.bool)
        unlike += difference(private, shared, present=everyone).item()
    for one, other in itertools.combinations(Modality, 2):
        both = has[one] & has[other]
        everyone = torch.ones(int(both.sum()), dtype=torch.bool)
        sides = [features[f"private_{m}"][both].flatten(1) for m in (one, other)]
        unlike += difference(*sides, present=everyone).item()
        for place in range(2):
            sides = [features[f"shared_{m}"][both, place] for m in (one, other)]
            alike += apart(*sides, present=everyone).item() / 6
    assert batch.labels is not None
    task = (losses.output.prediction - batch.labels).square().mean().item()
    expected = {"task": task, "difference": unlike, "similarity": alike}
    got = {name: term.item() for name, term in losses.terms.items()}
    assert got == pytest.approx(expected, abs=1e-10)
    assert losses.total.item() == pytest.approx(task + unlike / 2 + alike / 2, abs=1e-10)


def test_training_and_inference_bind_alike(case: MethodCase) -> None:
    scheme, batch = scheme_of(case), batch_of(case)
    trained = scheme.loss(batch, Progress(seed=0, epoch=0)).output.prediction
    assert torch.equal(scheme.predict(batch), trained)


def test_scores_start_in_the_middle_of_the_label_range(case: MethodCase) -> None:
    info = dataclasses.replace(case.info, label_range=(1.0, 5.0))
    with torch.no_grad():
        around_zero = scheme_of(case).predict(batch_of(case))
        around_three = scheme_of(dataclasses.replace(case, info=info)).predict(batch_of(case))
    torch.testing.assert_close(around_three, around_zero + 3.0)


def test_the_fusions_convolutions_halve_the_width_once(case: MethodCase) -> None:
    fusion = Fusion(12, case.info, dropout=0.0)
    widths = [(c.in_channels, c.out_channels) for c in (fusion.first, fusion.second, fusion.last)]
    assert widths == [(12, 6), (6, 6), (6, case.info.output_dim)]


@pytest.mark.parametrize("name", ["key_dim", "value_dim"])
def test_heads_that_do_not_divide_a_width_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"num_heads must divide {name} 9, got 8"):
        TMBLConfig(**{name: 9})  # type: ignore[arg-type]


def test_attention_has_no_biases_but_that_of_its_norm() -> None:
    attention = BoundAttention(8, num_heads=2, key_dim=4, value_dim=6, dropout=0.0)
    names = {name for name, _ in attention.named_parameters()}
    linear = {f"{name}.weight" for name in ("query", "key", "value", "output")}
    assert names == linear | {"norm.weight", "norm.bias"}
