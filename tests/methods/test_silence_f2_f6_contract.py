"""What the contract promises: usable modalities are one rule, dropout off is all of it off."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tecafn.methods  # noqa: F401 - registers them
from tecafn.core.batch import Batch
from tecafn.core.info import STORED_FEATURES, DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Output, Progress
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network
from tecafn.layers.dropout import Dropout
from tecafn.layers.text_encoder import build_text_encoder
from tecafn.losses.task import TaskScheme
from tecafn.testing import METHOD_PARTS, MethodCase, check_usable_modalities, method_case

SOURCES = Path(__file__).resolve().parents[2] / "src" / "tecafn"


# F2: one rule for which modalities are usable


@pytest.mark.parametrize(
    ("widths", "modalities", "source", "usable"),
    [
        ("av", "tav", "minilm", "tav"),
        ("tav", "tav", STORED_FEATURES, "tav"),
        ("av", "tav", STORED_FEATURES, "av"),
        ("v", "tav", "minilm", "tv"),
        ("tav", "va", "minilm", "av"),
        ("", "tav", "minilm", "t"),
        ("av", "vat", "minilm", "tav"),
    ],
)
def test_f2_usable_is_what_is_in_use_and_there(
    widths: str, modalities: str, source: str, usable: str
) -> None:
    by_letter = {m[0]: m for m in Modality}
    info = DataInfo(
        widths={by_letter[letter]: 3 for letter in widths},
        modalities=tuple(by_letter[letter] for letter in modalities),
        text_encoder=TextEncoderSpec(source=source),
    )
    assert info.usable == tuple(by_letter[letter] for letter in usable)


def test_f2_nobody_asks_for_stored_features_but_who_must() -> None:
    asking = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if "STORED_FEATURES" in path.read_text(encoding="utf-8")
    }
    # The rule, the encoder it chooses and where that comes from, the widths that are taken over and
    # what is said of absent text, what has no context, and this part's own cases.
    assert asking == {
        "core/info.py",
        "layers/text_encoder.py",
        "layers/encoder_source.py",
        "experiments/config.py",
        "experiments/setup.py",
        "experiments/presence.py",
        "testing.py",
    }


class Deaf(Network):
    """Reads vision, and audio although it may be out of use."""

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(info) if Modality.TEXT in info.usable else None
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Output:
        """The sums of frames."""
        total = torch.zeros(batch.size, dtype=self.weight.dtype)
        for modality in (Modality.AUDIO, Modality.VISION):
            if modality in batch.sequences:
                frames = batch.sequences[modality]
                total = total + (frames.values * frames.mask.unsqueeze(-1)).sum((1, 2))
        return Output(self.weight * total)


def test_f2_method_that_disagrees_fails_the_contract() -> None:
    assert METHOD_PARTS["usable modalities"] is check_usable_modalities
    with method_case("tfn") as case:
        other = Method(
            config=case.method.config,
            build=lambda config, info: TaskScheme(Deaf(info)),
            paper="none",
            summary="none",
        )
        with pytest.raises(AssertionError, match=r"others must be unread|is not read"):
            check_usable_modalities(dataclasses.replace(case, name="deaf", method=other))


# F6: dropout=False


def losses_of(case: MethodCase, *, dropout: bool) -> set[float]:
    """The training losses of one batch under three states of torch's generator."""
    found = set()
    for seed in range(3):
        scheme = case.build(dropout=dropout)
        torch.manual_seed(100 + seed)
        phases = scheme.phases()
        batch = case.batch(4)
        found.add(
            sum(
                phase.loss(batch, Progress(seed=0, epoch=0, step=0)).total.item()
                for phase in phases
            )
        )
    return found


@pytest.mark.parametrize("name", sorted(METHODS))
def test_f6_without_dropout_a_training_loss_does_not_depend_on_the_generator(name: str) -> None:
    with method_case(name) as case:
        assert len(losses_of(case, dropout=False)) == 1
        assert len(losses_of(case, dropout=True)) == 3


class Dropping(Network):
    """Drops in every way there is."""

    def __init__(self) -> None:
        super().__init__()
        self.ours = Dropout(0.5)
        self.torchs = nn.Sequential(nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.Dropout1d(0.5))
        self.lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.5)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.5)

    def forward(self, batch: Batch) -> Output:
        """Of ones alone."""
        values: Tensor = self.torchs(self.ours(torch.ones(batch.size, 4, 4)))
        values = self.lstm(values)[0]
        values = self.attention(values, values, values)[0]
        return Output(values.sum((1, 2)))


def test_f6_dropouts_that_no_setting_names_are_off_too() -> None:
    with method_case("tfn") as case:
        other = Method(
            config=case.method.config,
            build=lambda config, info: TaskScheme(Dropping()),
            paper="none",
            summary="none",
        )
        case = dataclasses.replace(case, name="dropping", method=other)
        assert len(losses_of(case, dropout=True)) == 3
        assert len(losses_of(case, dropout=False)) == 1
