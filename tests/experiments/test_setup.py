"""From a config and a store to a network: what does not go together is refused before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS, Method
from tecafn.data.store import Store
from tecafn.experiments.config import load_config
from tecafn.experiments.setup import (
    build_scheme,
    check_monitor,
    describe_data,
    open_fabric,
)


def test_only_modalities_in_use_have_widths_and_statistics(
    tiny_store: Path, tiny_toml: Path
) -> None:
    store = Store.open(tiny_store)
    info = describe_data(
        store, store.split("train"), load_config(tiny_toml, ['modalities=["text","vision"]'])
    )
    assert info.widths == {Modality.VISION: 20}
    assert set(info.statistics) == {Modality.VISION}
    assert info.usable == (Modality.TEXT, Modality.VISION)
    assert (info.num_train, info.label_range) == (20, (-3.0, 3.0))


def test_data_set_without_any_modality_in_use_is_one_line(
    make_store: Callable[..., Path], tiny_toml: Path, tmp_path: Path
) -> None:
    store = Store.open(make_store(tmp_path / "store", vision=None))
    config = load_config(tiny_toml, ['modalities=["vision"]'])
    with pytest.raises(UserError, match=r"the dataset has audio; modalities in use are"):
        describe_data(store, store.split("train"), config)


def test_method_that_cannot_do_the_task_is_one_line(
    make_store: Callable[..., Path],
    tiny_toml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store.open(make_store(tmp_path / "store", task="classification"))
    config = load_config(tiny_toml)
    method = METHODS["tecafn"]
    only = Method(config=method.config, build=method.build, paper="", tasks=("regression",))
    monkeypatch.setitem(METHODS._items, "tecafn", only)
    with pytest.raises(UserError, match="does regression, the dataset is a classification"):
        build_scheme(config, describe_data(store, store.split("train"), config))


@pytest.mark.parametrize(
    ("task", "monitor"),
    [("classification", "mae"), ("regression", "accuracy"), ("regression", "loss")],
)
def test_monitor_that_the_task_does_not_have_is_refused_before_training(
    make_store: Callable[..., Path], tiny_toml: Path, tmp_path: Path, task: str, monitor: str
) -> None:
    store = Store.open(make_store(tmp_path / "store", task=task))
    config = load_config(tiny_toml, [f"training.monitor={monitor}"])
    with pytest.raises(UserError, match=f"monitor '{monitor}' is not measured on tiny, a {task} "):
        check_monitor(config, store.description)


NEEDS = (
    r"^method 'tecafn' needs word-aligned frames \(needs: aligned\); \S+store {lacks}: "
    r"import an aligned source \(csd with words, misa, mag; mmsa aligned_50 with "
    r"text_encoder=features\)$"
)


def needy(monkeypatch: pytest.MonkeyPatch) -> None:
    """TeCaFN as if it needed word-aligned frames."""
    method = dataclasses.replace(METHODS["tecafn"], needs=("aligned",))
    monkeypatch.setitem(METHODS._items, "tecafn", method)


def test_method_that_needs_alignment_refuses_a_data_set_without(
    make_store: Callable[..., Path],
    tiny_toml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store.open(make_store(tmp_path / "store"))
    train, config = store.split("train"), load_config(tiny_toml)
    describe_data(store, train, config)
    needy(monkeypatch)
    with pytest.raises(UserError, match=NEEDS.format(lacks="is not aligned")):
        describe_data(store, train, config)
    aligned = dataclasses.replace(store.description, aligned=True)
    monkeypatch.setattr(store, "description", aligned)
    with pytest.raises(UserError, match=NEEDS.format(lacks="does not say which words .* are")):
        describe_data(store, train, config)
    frames_alone = dataclasses.replace(config, modalities=(Modality.AUDIO, Modality.VISION))
    describe_data(store, train, frames_alone)


@pytest.mark.usefixtures("no_fsync")
def test_same_seed_builds_the_same_network_whatever_was_drawn_before(
    tiny_store: Path, tiny_toml: Path
) -> None:
    store = Store.open(tiny_store)

    def weights(*overrides: str) -> dict[str, Any]:
        config = load_config(tiny_toml, overrides)
        return build_scheme(config, describe_data(store, store.split("train"), config)).state_dict()

    one = weights()
    torch.rand(7)
    again, other = weights(), weights("seed=1")
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_unknown_device_is_one_line() -> None:
    with pytest.raises(UserError, match="device must be one of auto, cpu, cuda, got 'gpu'"):
        open_fabric("gpu", "32-true")
