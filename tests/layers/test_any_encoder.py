"""Encoders of every family: the model's own states, whole and in parts, with any tokenizer."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModel,
    BartConfig,
    BertTokenizerLegacy,
    ConvBertConfig,
    DebertaConfig,
    DebertaV2Config,
    ElectraConfig,
    FNetConfig,
    GPT2Config,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    RoFormerConfig,
    T5Config,
    ViTConfig,
    XLNetConfig,
)
from transformers.utils import logging

from tecafn.core.batch import Padded
from tecafn.core.errors import UserError
from tecafn.core.info import TextEncoderSpec
from tecafn.layers.text_encoder import TextEncoder, Tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}
RELATIVE: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
LIKE_V3: dict[str, Any] = {
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "position_buckets": 16,
    "share_att_key": True,
    "type_vocab_size": 0,
}
EVERY_OTHER_GLOBAL: dict[str, Any] = {"global_attn_every_n_layers": 2}
# Those whose layers can be run apart wherever one likes.
PARTED: dict[str, Callable[[], PretrainedConfig]] = {
    "mpnet": lambda: MPNetConfig(**SIZES),
    "deberta": lambda: DebertaConfig(**SIZES, **RELATIVE),
    "deberta-v3": lambda: DebertaV2Config(**SIZES, **RELATIVE, **LIKE_V3),
    "modernbert": lambda: ModernBertConfig(
        **SIZES,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
        local_attention=8,
        **EVERY_OTHER_GLOBAL,
    ),
    "small electra": lambda: ElectraConfig(embedding_size=16, **SIZES),
    "roformer": lambda: RoFormerConfig(**SIZES),
    "bart": lambda: BartConfig(
        vocab_size=50,
        d_model=32,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    ),
    "gpt2": lambda: GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=64),
}
# Those that run whole, or that see padding.
WHOLE: dict[str, Callable[[], PretrainedConfig]] = {
    "albert": lambda: AlbertConfig(embedding_size=16, **SIZES),
    "t5": lambda: T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4),
    "xlnet": lambda: XLNetConfig(vocab_size=50, d_model=32, n_layer=3, n_head=4, d_inner=64),
}
SEE_PADDING: dict[str, Callable[[], PretrainedConfig]] = {
    "convbert": lambda: ConvBertConfig(**SIZES, embedding_size=32),
    "fnet": lambda: FNetConfig(**SIZES),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``saved("mpnet")`` is the folder of a random model of that family."""
    known: dict[str, str] = {}

    def save(family: str) -> str:
        if family not in known:
            logging.set_verbosity_error()
            logging.disable_progress_bar()
            folder = str(tmp_path_factory.mktemp("encoders") / family.replace(" ", "-"))
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = AutoModel.from_config({**PARTED, **WHOLE, **SEE_PADDING}[family]())
                with torch.no_grad():
                    for parameter in model.parameters():
                        if parameter.ndim > 1:
                            parameter.normal_(std=0.2)
            model.save_pretrained(folder)
            known[family] = folder
        return known[family]

    return save


def encoder(source: str, **options: Any) -> TextEncoder:
    return TextEncoder(TextEncoderSpec(source=source, **options)).eval()


def tokens() -> Padded:
    """A full row, one that is padded, one without a token."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(5, 50, (3, 8), generator=generator)
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[1, 5:] = False
    mask[2] = False
    return Padded(torch.where(mask, values, 1), mask)


@torch.no_grad()
def reference(source: str, text: Padded) -> Tensor:
    """The states of each row by itself, without padding."""
    model = AutoModel.from_pretrained(source).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    states = torch.zeros(*text.mask.shape, 32)
    for row, length in enumerate(text.mask.sum(1).tolist()):
        if length:
            ids = text.values[row : row + 1, :length]
            found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
            states[row, :length] = found.last_hidden_state
    return states


@pytest.mark.parametrize("family", [*PARTED, *WHOLE, *SEE_PADDING])
def test_states_are_the_models_own_whatever_padding_there_is(
    family: str, saved: Callable[[str], str]
) -> None:
    source, text = saved(family), tokens()
    with torch.no_grad():
        got = encoder(source)(text)
    torch.testing.assert_close(got.values, reference(source, text), rtol=1e-4, atol=1e-5)
    assert bool((got.values[~text.mask] == 0).all())


@pytest.mark.parametrize("family", [*PARTED, *SEE_PADDING])
@pytest.mark.parametrize("trained", [0, 1, 3])
def test_cached_states_of_a_partly_frozen_encoder_give_what_the_ids_give(
    family: str, trained: int, saved: Callable[[str], str]
) -> None:
    module, text = encoder(saved(family), num_trained_layers=trained), tokens()
    with torch.no_grad():
        whole = module(text)
        cached = module.run_frozen(text)
        again = module(Padded(cached.values.clone(), text.mask))
    torch.testing.assert_close(again.values, whole.values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.values, reference(saved(family), text), rtol=1e-4, atol=1e-5)
    flags = {name: p.requires_grad for name, p in module.named_parameters()}
    layers = {id(p) for layer in [*module.body.layers][3 - trained :] for p in layer.parameters()}
    assert flags == {name: id(p) in layers for name, p in module.named_parameters()}
    assert len(layers) > 0 or trained == 0


@pytest.mark.parametrize("family", PARTED)
def test_a_method_may_change_the_states_after_the_embeddings(
    family: str, saved: Callable[[str], str]
) -> None:
    module, text = encoder(saved(family)), tokens()
    with torch.no_grad():
        first = module.run_frozen(text)
        same = module.run_trained(first)
        changed = first.values * torch.linspace(-1.0, 1.0, first.values.shape[2])
        other = module.run_trained(Padded(changed, text.mask))
        torch.testing.assert_close(same.values, module(text).values, rtol=1e-4, atol=1e-5)
    assert float((other.values - same.values)[text.mask].abs().max()) > 1e-3


@pytest.mark.parametrize("family", [*PARTED, "albert", "t5"])
def test_every_weight_is_trained_and_survives_as_architecture_and_weights(
    family: str, saved: Callable[[str], str], tmp_path: Path
) -> None:
    module, text = encoder(saved(family)).train(), tokens()
    module(text).values.square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []
    module.save_architecture(tmp_path)
    empty = encoder(str(tmp_path), load_weights=False)
    empty.load_state_dict(module.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(empty(text).values, module.eval()(text).values)


@pytest.mark.parametrize("family", ["mpnet", "modernbert"])
def test_a_frozen_part_stays_in_evaluation_mode(family: str, saved: Callable[[str], str]) -> None:
    module, text = encoder(saved(family), num_trained_layers=1).train(), tokens()
    assert [layer.training for layer in module.body.layers] == [False, False, True]
    with torch.no_grad():
        assert torch.equal(module.run_frozen(text).values, module.run_frozen(text).values)
    cached = module.run_frozen(text)
    module(cached).values.square().sum().backward()
    got = {name for name, p in module.named_parameters() if p.grad is not None}
    assert got == {name for name, p in module.named_parameters() if p.requires_grad}


def test_the_fingerprint_tells_frozen_weights_and_settings(saved: Callable[[str], str]) -> None:
    module = encoder(saved("mpnet"), num_trained_layers=1)
    before = module.frozen_fingerprint()
    assert encoder(saved("mpnet"), num_trained_layers=1).frozen_fingerprint() == before
    with torch.no_grad():
        next(module.body.layers[2].parameters()).add_(1.0)
    assert module.frozen_fingerprint() == before
    with torch.no_grad():
        next(module.body.layers[1].parameters()).add_(1.0)
    assert module.frozen_fingerprint() != before
    other = encoder(saved("mpnet"), num_trained_layers=1)
    other.config.hidden_act = "relu"
    assert other.frozen_fingerprint() != before


def test_a_copy_is_on_its_own(saved: Callable[[str], str]) -> None:
    module, text = encoder(saved("mpnet"), num_trained_layers=1), tokens()
    with torch.no_grad():
        before = module(text).values.clone()
        other = copy.deepcopy(module)
        for parameter in other.parameters():
            parameter.add_(0.5)
        cached = module.run_frozen(text)
        assert torch.equal(module(text).values, before)
        torch.testing.assert_close(module(cached).values, before, rtol=1e-4, atol=1e-5)
        assert float((other(text).values - before)[text.mask].abs().max()) > 1e-3


def test_threads_do_not_disturb_one_another(saved: Callable[[str], str]) -> None:
    module, text = encoder(saved("mpnet"), num_trained_layers=1), tokens()
    with torch.no_grad():
        cached, whole = module.run_frozen(text), module(text).values
    wrong: list[float] = []

    def run(given: Padded) -> None:
        with torch.no_grad():
            for _ in range(20):
                wrong.append(float((module(given).values - whole).abs().max()))

    threads = [threading.Thread(target=run, args=(given,)) for given in (text, cached)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 40
    assert max(wrong) < 1e-4


@pytest.mark.parametrize(
    ("family", "longest"),
    [("mpnet", 62), ("deberta-v3", 64), ("modernbert", 64), ("bart", 64), ("t5", None)],
)
def test_the_longest_text_is_what_the_positions_allow(
    family: str, longest: int | None, saved: Callable[[str], str]
) -> None:
    module = encoder(saved(family))
    assert module.num_positions == longest
    if family == "mpnet":
        ids = torch.full((1, 63), 5)
        module(Padded(ids[:, :62], torch.ones(1, 62, dtype=torch.bool)))
        with pytest.raises((IndexError, RuntimeError)):
            module(Padded(ids, torch.ones(1, 63, dtype=torch.bool)))


def test_an_empty_share_of_a_batch_is_legal(saved: Callable[[str], str]) -> None:
    module = encoder(saved("mpnet"))
    states = module(tokens().select(torch.zeros(0, dtype=torch.int64)))
    assert states.values.shape == (0, 8, 32)
    states.values.sum().backward()


# What it refuses, in one line


@pytest.mark.parametrize("family", WHOLE)
def test_layers_that_cannot_be_run_apart_are_not_trained_apart(
    family: str, saved: Callable[[str], str]
) -> None:
    assert encoder(saved(family), num_trained_layers=0).num_trained_layers <= 3
    with pytest.raises(UserError, match=r'num_trained_text_layers must be 0 or "all" for') as error:
        encoder(saved(family), num_trained_layers=1)
    assert "\n" not in str(error.value)


def test_what_reads_no_text_is_refused(tmp_path: Path) -> None:
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
    )
    AutoModel.from_config(config).save_pretrained(str(tmp_path))
    with pytest.raises(UserError, match=r"must be an encoder of text .* got vit: ViT") as error:
        encoder(str(tmp_path))
    assert "\n" not in str(error.value)


# A tokenizer that knows no characters


def test_a_slow_tokenizer_reads_texts_and_pairs(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "the", "##ly"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    slow = BertTokenizerLegacy(str(tmp_path / "vocab.txt"))
    assert not slow.is_fast
    tokenizer = Tokenizer.__new__(Tokenizer)
    tokenizer._tokenizer, tokenizer._max_tokens = slow, 10
    [alone, pair] = tokenizer(["good film", "bad film"], [None, "the film"])
    assert alone.tolist() == [2, 5, 7, 3]
    assert pair.tolist() == [2, 8, 7, 3, 6, 7, 3]
    [long] = tokenizer(["badly " * 9], ["the good film"])
    assert long.tolist() == [2, 7, 3, 6, 9, 6, 9, 6, 9, 3]
    assert tokenizer.uncut_lengths(["good"] * 2, [None, "bad " * 20]).tolist() == [0, 24]
    with pytest.raises(UserError, match="word-aligned text needs a fast tokenizer"):
        tokenizer.spans(["good"])
