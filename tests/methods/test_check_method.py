"""The contract catches what it is for: a sound toy method passes, each flawed one fails by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.registry import Method
from tecafn.core.scheme import Network, Phase, Scheme, parameter_groups
from tecafn.layers.sequence import masked_mean
from tecafn.losses.task import task_loss
from tecafn.testing import METHOD_PARTS, MethodCase, check_part, method_case


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """``flaw`` names what is wrong with the toy."""

    flaw: str = ""
    toy_dropout: float = 0.3


class ToyNetwork(Network):
    """Embed or project, pool, join, predict."""

    def __init__(self, config: ToyConfig, info: DataInfo) -> None:
        super().__init__()
        self.flaw = config.flaw
        self.regression = info.task == "regression"
        self.usable = info.usable
        self.embedding = nn.Embedding(50, 8)
        self.project = nn.ModuleDict({m: nn.Linear(w, 8) for m, w in info.widths.items()})
        self.absent = nn.ParameterDict({m: torch.randn(8) for m in Modality})
        is_deaf = config.flaw == "a setting that reaches no dropout"
        self.dropout = nn.Dropout(0.3 if is_deaf else config.toy_dropout)
        if config.flaw == "a dropout that nobody uses":
            self.idle = nn.Dropout(config.toy_dropout)
        self.hidden = nn.Linear(24, 32)
        self.head = nn.Linear(32, info.output_dim)
        self.secret = 0.0
        if config.flaw == "a parameter nobody uses":
            self.extra = nn.Linear(3, 3)

    def forward(self, batch: Batch) -> Output:
        vectors = []
        for modality in Modality:
            slot = self.absent[modality].expand(batch.size, 8)
            padded = batch.sequences.get(modality) if modality in self.usable else None
            if padded is not None:
                values = padded.values
                if modality == Modality.TEXT:
                    states = self.embedding(values)
                else:
                    clean = values.masked_fill(~padded.mask.unsqueeze(-1), 0.0)
                    states = self.project[modality](clean / 5)
                mask = padded.mask
                if self.flaw == "padding is pooled":
                    mask = torch.ones_like(mask)
                pooled = masked_mean(states, mask)
                has = batch.present[modality].unsqueeze(1)
                if self.flaw == "absent audio is a zero vector" and modality == Modality.AUDIO:
                    slot = torch.zeros_like(slot)
                slot = torch.where(has, pooled, slot)
            vectors.append(slot)
        joined = torch.cat(vectors, 1)
        if self.flaw == "the batch is normalised":
            joined = joined - joined.mean(0)
        answer: Tensor = self.head(torch.tanh(self.hidden(self.dropout(joined))))
        if self.flaw == "the output is constant":
            answer = answer * 1e-6
        answer = answer + self.secret
        if self.flaw == "the score has two dimensions":
            return Output(answer)
        return Output(answer.squeeze(1) if self.regression else answer)


class ToyScheme(Scheme):
    """The task's loss, and whatever the flaw adds."""

    network: Any

    def __init__(self, config: ToyConfig, info: DataInfo) -> None:
        super().__init__()
        self.flaw = config.flaw
        self.network = ToyNetwork(config, info)
        self.steps = 0
        if config.flaw == "a head in no phase":
            self.lonely = nn.Linear(1, 1)

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        output: Output = self.network(batch)
        task = task_loss(output.prediction.reshape(batch.size, -1).squeeze(1), batch.labels)
        if self.flaw == "a gradient is not finite":
            task = task + 0 * torch.sqrt(0 * next(self.network.parameters()).sum())
        if self.flaw == "a batch of one divides by zero":
            task = task + 0 * output.prediction.sum() / (batch.size - 1)
        if self.flaw == "steps are counted outside the state":
            task = task * (1 + self.steps)
        terms, weights = {"task": task}, {"task": 1.0}
        if self.flaw == "a term that trains nothing":
            terms["alike"], weights["alike"] = output.prediction.detach().square().mean(), 0.1
        return Losses(terms, weights, output)

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        self.steps += 1
        if self.flaw == "a running value is not exported":
            self.network.secret += 0.1

    def phases(self) -> tuple[Phase, ...]:
        groups = parameter_groups(self)
        if self.flaw == "a head in no phase":
            groups = parameter_groups(self.network)
        if self.flaw == "a parameter twice in a phase":
            groups["again"] = groups["main"][:1]
        one = Phase("main", self.loss, groups)
        return (one, one) if self.flaw == "two phases of one name" else (one,)


@pytest.fixture(scope="module")
def sound() -> Iterator[MethodCase]:
    with method_case("tecafn") as case:
        yield case


def toy(sound: MethodCase, **changes: Any) -> MethodCase:
    method = Method(config=ToyConfig, build=ToyScheme, paper="none")
    return dataclasses.replace(sound, name="toy", method=method, **changes)


@pytest.mark.parametrize("part", METHOD_PARTS)
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_sound_method_passes(sound: MethodCase, part: str, task: Any) -> None:
    classes = 2 if task == "classification" else 1
    info = dataclasses.replace(sound.info, task=task, num_classes=classes)
    METHOD_PARTS[part](toy(sound, config=ToyConfig(), info=info))


@pytest.mark.parametrize(
    ("flaw", "part", "message"),
    [
        ("padding is pooled", "padding invisible", "toy: padding must be invisible"),
        ("the batch is normalised", "neighbours invisible", "toy: neighbours in the batch must be"),
        ("the batch is normalised", "batch of one", "toy: a batch of one must predict as"),
        (
            "a batch of one divides by zero",
            "trains on a batch of one",
            "toy: term 'task' is nan",
        ),
        (
            "absent audio is a zero vector",
            "absent modalities",
            r"toy: an absent modality \(a\) must be as one that does not exist: predictions differ",
        ),
        (
            "a parameter nobody uses",
            "every parameter trained",
            "toy: parameters without a gradient: network.extra.weight, network.extra.bias",
        ),
        (
            "a head in no phase",
            "every parameter trained",
            "toy: parameters in no phase: lonely.bias, lonely.weight",
        ),
        (
            "a parameter twice in a phase",
            "every parameter trained",
            "toy: phase 'main' lists a parameter twice",
        ),
        ("a gradient is not finite", "every parameter trained", "toy: gradient of .* not finite"),
        ("the output is constant", "one batch overfits", "toy: one batch must overfit: its error"),
        (
            "steps are counted outside the state",
            "resume bitwise",
            "toy: resume must be bitwise equal, network.* differs after resuming",
        ),
        (
            "a setting that reaches no dropout",
            "dropouts act",
            "toy: the setting toy_dropout reaches no dropout",
        ),
        (
            "a dropout that nobody uses",
            "dropouts act",
            "toy: the dropout network.idle changes nothing in training",
        ),
        (
            "a term that trains nothing",
            "every term trains",
            "toy: terms that give no parameter a gradient: main: alike",
        ),
        ("two phases of one name", "phases", r"toy: phases share a name: \['main', 'main'\]"),
        ("the score has two dimensions", "phases", r"must give \(12,\), got \(12, 1\)"),
        (
            "a running value is not exported",
            "exports",
            "toy: an exported network must predict what its scheme predicts",
        ),
    ],
)
def test_a_flaw_is_named(sound: MethodCase, flaw: str, part: str, message: str) -> None:
    case = toy(sound, config=ToyConfig(flaw=flaw))
    with pytest.raises(AssertionError, match=message):
        METHOD_PARTS[part](case)


def declared(sound: MethodCase, flaw: str, *parts: str) -> MethodCase:
    """The toy with a flaw, and what its settings say they break."""
    case = toy(sound, config=ToyConfig(flaw=flaw))
    declared = dict.fromkeys(parts, "copied on purpose")
    return dataclasses.replace(
        case, method=dataclasses.replace(case.method, known_violations=lambda config: declared)
    )


def test_a_declared_flaw_is_let_through_and_only_there(sound: MethodCase) -> None:
    check_part(declared(sound, "padding is pooled", "padding invisible"), "padding invisible")
    other = declared(sound, "padding is pooled", "neighbours invisible")
    with pytest.raises(AssertionError, match="toy: padding must be invisible"):
        check_part(other, "padding invisible")


def test_a_declaration_that_is_not_true_is_found(sound: MethodCase) -> None:
    with pytest.raises(
        AssertionError,
        match=r"toy: declares 'padding invisible' broken \(copied on purpose\), but these settings",
    ):
        check_part(declared(sound, "", "padding invisible"), "padding invisible")


def test_a_declared_part_must_exist(sound: MethodCase) -> None:
    with pytest.raises(AssertionError, match="toy: declares parts that do not exist: padding"):
        check_part(declared(sound, "", "padding"), "phases")


def test_the_batch_really_has_what_the_contract_speaks_of(sound: MethodCase) -> None:
    batch = sound.mixed_batch()
    assert batch.size == 12
    lacking = [
        "".join(m[0] for m in Modality if not batch.present[m][row]) for row in range(batch.size)
    ]
    assert lacking == ["t", "a", "v", "ta", "tv", "av"] + [""] * 6
    audio = batch.sequences[Modality.AUDIO]
    holes = [row for row in range(12) if _has_hole(audio.mask[row])]
    assert holes
    assert audio.values[~audio.mask].abs().mean() > 100
    lengths = batch.sequences[Modality.TEXT].mask.sum(1)
    assert len(set(lengths.tolist())) > 2


def _has_hole(mask: Tensor) -> bool:
    real = mask.nonzero().flatten()
    return len(real) > 1 and bool((real.diff() > 1).any())
