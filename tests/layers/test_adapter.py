"""Low-rank adapters: they begin as nothing, are all that is trained, and all that is stored."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, DebertaV2Config, MPNetConfig
from transformers.utils import logging

from tecafn.core.batch import Padded
from tecafn.core.errors import UserError
from tecafn.core.info import TextEncoderSpec
from tecafn.core.scheme import parameter_groups
from tecafn.core.weights import load_module, save_module
from tecafn.layers.adapter import AdaptedLinear, adapters_from, merge
from tecafn.layers.text_encoder import TextEncoder

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def sources(
    make_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Folders of random models: one whose layers are run by hand, two that run by themselves."""
    folder = tmp_path_factory.mktemp("sources")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    configs = {
        "mpnet": MPNetConfig(**SIZES),
        "deberta": DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    }
    for name, config in configs.items():
        AutoModel.from_config(config).save_pretrained(str(folder / name))
    return {"bert": str(make_bert(folder / "bert", num_layers=3))} | {
        name: str(folder / name) for name in configs
    }


def encoder(source: str, **options: Any) -> TextEncoder:
    return TextEncoder(TextEncoderSpec(source=source, **options)).eval()


def tokens() -> Padded:
    values = torch.randint(5, 16, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    return Padded(values, mask)


def stirred(module: nn.Module, seed: int = 0) -> None:
    """Adapters as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith((".up", ".down")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def test_an_adapted_layer_is_the_layer_with_a_low_rank_change() -> None:
    linear = nn.Linear(6, 4)
    adapted = AdaptedLinear(linear, rank=2)
    rows = torch.randn(3, 5, 6)
    assert torch.equal(adapted(rows), linear(rows))
    stirred(nn.ModuleDict({"a": adapted}))
    whole = linear.weight + 2 * adapted.up @ adapted.down
    expected = rows @ whole.T + linear.bias
    torch.testing.assert_close(adapted(rows), expected)
    torch.testing.assert_close(adapted.merged()(rows), expected)
    assert torch.linalg.matrix_rank(whole - linear.weight) == 2
    with pytest.raises(ValueError, match="rank must be >= 1, got 0"):
        AdaptedLinear(linear, rank=0)


@pytest.mark.parametrize("name", ["bert", "mpnet", "deberta"])
def test_it_begins_as_the_frozen_encoder_and_trains_nothing_else(
    name: str, sources: dict[str, str]
) -> None:
    plain, module = encoder(sources[name]), encoder(sources[name], adapter_rank=2)
    with torch.no_grad():
        assert torch.equal(module(tokens()).values, plain(tokens()).values)
    trained = {n for n, p in module.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in module.named_parameters() if n.endswith((".up", ".down"))}
    num_linears = sum(
        type(part) is nn.Linear for layer in plain.body.layers for part in layer.modules()
    )
    assert len(trained) == 2 * num_linears > 0
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    network = nn.ModuleDict({"text_encoder": module}).train()
    optimizer = torch.optim.Adam(parameter_groups(network)["text_encoder"], lr=0.1)
    for _ in range(2):  # the first step moves ``up`` alone
        optimizer.zero_grad()
        module(tokens()).values.square().sum().backward()
        optimizer.step()
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == trained


def test_in_training_the_adapted_layers_drop_out_and_the_embeddings_do_not(
    sources: dict[str, str],
) -> None:
    for name in ("bert", "mpnet"):
        module = encoder(sources[name], adapter_rank=2).train()
        assert all(layer.training for layer in module.body.layers)
        dropouts = {n: m.training for n, m in module.named_modules() if isinstance(m, nn.Dropout)}
        assert {n for n, on in dropouts.items() if not on} == {
            n for n in dropouts if "embeddings" in n
        }
        assert not any(part.training for part in module.eval().modules())


def test_frozen_layers_have_no_adapters_and_may_be_cached(sources: dict[str, str]) -> None:
    module = encoder(sources["mpnet"], adapter_rank=2, num_trained_layers=1)
    stirred(module)
    assert {n.split(".")[3] for n, p in module.named_parameters() if p.requires_grad} == {"2"}
    plain = encoder(sources["mpnet"], num_trained_layers=1)
    with torch.no_grad():
        cached = module.run_frozen(tokens())
        assert torch.equal(cached.values, plain.run_frozen(tokens()).values)
        whole = module(tokens()).values
        torch.testing.assert_close(module(cached).values, whole)
    assert module.frozen_fingerprint() == plain.frozen_fingerprint()


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_a_checkpoint_holds_the_adapters_alone_and_restores_them(
    name: str, sources: dict[str, str], tmp_path: Path
) -> None:
    network = nn.ModuleDict({"text_encoder": encoder(sources[name], adapter_rank=2)})
    stirred(network)
    save_module(network, tmp_path / "adapters.safetensors")
    stored = load_file(tmp_path / "adapters.safetensors")
    assert stored
    assert all(key.endswith((".up", ".down")) for key in stored)
    for load in (
        lambda other: load_module(other, tmp_path / "adapters.safetensors"),
        lambda other: other.load_state_dict(network.state_dict(), strict=True),
    ):
        other = nn.ModuleDict({"text_encoder": encoder(sources[name], adapter_rank=2)})
        load(other)
        with torch.no_grad():
            expected = network["text_encoder"](tokens()).values
            assert torch.equal(other["text_encoder"](tokens()).values, expected)
    lacking = dict(network.state_dict())
    gone = lacking.pop(next(iter(lacking)))
    assert isinstance(gone, Tensor)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(lacking, strict=True)


def test_adapters_refuse_weights_that_they_were_not_trained_beside(
    sources: dict[str, str], make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    known = encoder(sources["bert"], adapter_rank=2).weights_hash
    encoder(sources["bert"], adapter_rank=2, weights_hash=known)
    other = make_bert(tmp_path / "other", seed=1, num_layers=3)
    with pytest.raises(UserError, match="must have the weights that the adapters were trained"):
        encoder(str(other), adapter_rank=2, weights_hash=known)


def test_adapters_bring_the_encoders_weights_even_where_the_architecture_was_asked_for(
    sources: dict[str, str],
) -> None:
    module = encoder(sources["bert"], adapter_rank=2, load_weights=False)
    with torch.no_grad():
        assert torch.equal(module(tokens()).values, encoder(sources["bert"])(tokens()).values)


@pytest.mark.parametrize("name", ["bert", "mpnet", "deberta"])
def test_merged_adapters_compute_the_same_with_plain_layers(
    name: str, sources: dict[str, str]
) -> None:
    module = encoder(sources[name], adapter_rank=2)
    stirred(module)
    merged = copy.deepcopy(module)
    merge(merged)
    assert not any(isinstance(part, AdaptedLinear) for part in merged.modules())
    with torch.no_grad():
        torch.testing.assert_close(
            merged(tokens()).values, module(tokens()).values, rtol=1e-4, atol=1e-5
        )
    plain = encoder(sources[name])
    with torch.no_grad():
        change = (merged(tokens()).values - plain(tokens()).values).abs().max()
    assert float(change) > 1e-2


def test_a_wholly_frozen_encoder_has_nothing_to_adapt(sources: dict[str, str]) -> None:
    with pytest.raises(UserError, match="text_adapter_rank needs layers to adapt"):
        encoder(sources["bert"], adapter_rank=2, num_trained_layers=0)
    with pytest.raises(ValueError, match="adapter_rank must be >= 1 or None, got 0"):
        TextEncoderSpec(adapter_rank=0)


def matrices(*, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"wide": (6, 20), "tall": (20, 6), "square": (9, 9)}
    full = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    base = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    return full, base


@pytest.mark.parametrize("seed", range(3))
def test_adapters_of_the_full_rank_bring_the_weights_back(seed: int) -> None:
    full, base = matrices(seed=seed)
    for name, (up, down) in adapters_from(full, base, rank=9).items():
        linear = nn.Linear(base[name].shape[1], base[name].shape[0])
        linear.weight = nn.Parameter(base[name])
        adapted = AdaptedLinear(linear, rank=9)
        with torch.no_grad():
            adapted.up.copy_(up)
            adapted.down.copy_(down)
        torch.testing.assert_close(adapted.whole_weight(), full[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_adapters_of_a_lower_rank_miss_what_eckart_and_young_say(rank: int) -> None:
    full, base = matrices(seed=7)
    for name, (up, down) in adapters_from(full, base, rank=rank).items():
        change = full[name] - base[name]
        missed = torch.linalg.norm(change - 2 * up @ down)
        rest = torch.linalg.svdvals(change)[rank:].square().sum().sqrt()
        torch.testing.assert_close(missed, rest, atol=1e-4, rtol=1e-5)
        # No step away from it is nearer.
        for number in range(20):
            generator = torch.Generator().manual_seed(number)
            step = 0.05 * torch.randn(up.shape, generator=generator)
            assert torch.linalg.norm(change - 2 * (up + step) @ down) >= missed - 1e-5


def test_weights_that_do_not_belong_together_have_no_adapters() -> None:
    full, base = matrices(seed=0)
    with pytest.raises(ValueError, match="rank must be >= 1, got 0"):
        adapters_from(full, base, rank=0)
    with pytest.raises(ValueError, match="'tall' is in one alone"):
        adapters_from(full, {n: w for n, w in base.items() if n != "tall"}, rank=1)
    with pytest.raises(ValueError, match=r"'wide' must be \(out, in\) in full and base"):
        adapters_from(full, {**base, "wide": base["wide"].T}, rank=1)
