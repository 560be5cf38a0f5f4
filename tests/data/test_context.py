"""What was said before: of the same video and split, in order, and never pooled with the text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saved import read_rows

from tecafn.core.batch import Padded
from tecafn.core.errors import UserError
from tecafn.core.info import TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, Sample, StoreWriter
from tecafn.data.context import previous_texts
from tecafn.data.loader import BatchLoader
from tecafn.data.store import Store
from tecafn.experiments.evaluate import predict_run
from tecafn.experiments.setup import token_contexts
from tecafn.layers.text_encoder import TextEncoder, Tokenizer
from tecafn.serving.predictor import load

TrainTiny = Callable[..., dict[str, Any]]
Row = tuple[str, str, float | None, str]


def before(rows: list[Row], count: int) -> list[str | None]:
    videos, clips, starts, texts = (list(column) for column in zip(*rows, strict=True))
    return previous_texts(videos, clips, starts, texts, count=count)


def test_only_earlier_utterances_of_the_same_video_come_before() -> None:
    rows: list[Row] = [
        ("a", "3", None, "third"),
        ("b", "1", None, "other"),
        ("a", "1", None, "first"),
        ("a", "10", None, "tenth"),
        ("a", "2", None, "second"),
        ("b", "2", None, "another"),
    ]
    assert before(rows, 1) == ["second", None, None, "third", "first", "other"]
    assert before(rows, 2) == ["first second", None, None, "second third", "first", "other"]


def test_starts_order_a_video_where_all_are_known() -> None:
    rows: list[Row] = [("a", "1", 9.0, "late"), ("a", "2", 1.0, "early"), ("a", "3", 5.0, "middle")]
    assert before(rows, 5) == ["early middle", None, "early"]
    rows[0] = ("a", "1", None, "late")
    assert before(rows, 5) == [None, "late", "late early"]


def test_blank_texts_are_passed_over_and_nameless_videos_are_apart() -> None:
    rows: list[Row] = [("a", "1", None, "said"), ("a", "2", None, "  "), ("a", "3", None, "now")]
    assert before(rows, 1) == [None, "said", "said"]
    assert before([("", "1", None, "x"), ("", "2", None, "y")], 1) == [None, None]


@pytest.fixture(scope="module")
def spoken_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of three clips in each split; one sample has a context of its own."""
    path = tmp_path_factory.mktemp("spoken") / "store"
    words = ("good", "bad", "fine", "dull", "great", "awful")
    random = np.random.default_rng(0)
    with StoreWriter(path, DatasetDescription(dataset="spoken", widths={})) as writer:
        for split, size in (("train", 12), ("valid", 6), ("test", 6)):
            for number in range(size):
                video, clip = f"{split}{number // 3}", str(number % 3 + 1)
                text = f"the film was {words[int(random.integers(6))]} very {words[number % 6]}"
                writer.add(
                    Sample(
                        id=f"{video}_{clip}",
                        source_id=f"{video}_{clip}",
                        video=video,
                        clip=clip,
                        split=split,
                        text=text,
                        label=float(np.float32(random.uniform(-3, 3))),
                        context="i was awful" if (split, number) == ("train", 2) else None,
                    )
                )
    return path


def test_a_view_gives_the_previous_utterances_of_its_split(spoken_store: Path) -> None:
    plain = Store.open(spoken_store).split("train")
    view = Store.open(spoken_store, context_utterances=1).split("train")
    texts, contexts = view.texts, view.column("context")
    assert contexts[:4] == [None, texts[0], "i was awful", None]
    assert plain.column("context")[:4] == [None, None, "i was awful", None]
    # A subset, as a fold has it, keeps what was said by those that it leaves out.
    assert view.subset([4]).column("context") == [texts[3]]
    assert view.subset([4]).context_utterances == 1


def test_tokens_of_the_context_are_marked_and_the_rest_is_the_text_alone(tiny_bert: Path) -> None:
    tokenizer = Tokenizer(str(tiny_bert), max_tokens=12)
    texts = ["the film was good", "bad", "very " * 20, "fine"]
    contexts = ["i was bad", "the film " * 9, "awful dull", None]
    ids, masks = tokenizer(texts, contexts), tokenizer.context_masks(texts, contexts)
    alone = tokenizer(texts)
    for row, (pair, mask) in enumerate(zip(ids, masks, strict=True)):
        assert len(pair) == len(mask) <= 12
        assert mask.any() == bool(contexts[row])
        kept = pair[~mask].tolist()
        assert kept == (alone[row].tolist() if row != 2 else [2, *alone[2][1 : len(kept) - 1], 3])


@pytest.mark.parametrize("trained", [None, 0, 1])
def test_the_encoder_reads_the_context_and_gives_no_state_for_it(
    tiny_bert: Path, trained: int | None
) -> None:
    spec = TextEncoderSpec(source=str(tiny_bert), num_trained_layers=trained)
    module, tokenizer = TextEncoder(spec).eval(), Tokenizer(str(tiny_bert))
    text, said = ["the film was good"], ["i was awful"]
    [ids], [mask] = tokenizer(text, said), tokenizer.context_masks(text, said)
    values, context = torch.from_numpy(ids)[None], torch.from_numpy(mask)[None]
    real = torch.ones_like(context)
    with torch.no_grad():
        whole = module(Padded(values, real))
        marked = module(Padded(values, real, context))
        hidden = module.run_frozen(Padded(values, real, context))
        again = module.run_trained(hidden)
        [other] = tokenizer(text, ["i was great"])
        changed = module(Padded(torch.from_numpy(other)[None], real, context))
    assert torch.equal(marked.mask, ~context)
    assert torch.equal(marked.values[~context], whole.values[~context])
    assert not marked.values[context].any()
    assert hidden.context is not None
    assert torch.equal(hidden.context, context)
    torch.testing.assert_close(again.values, marked.values)
    assert float((changed.values - marked.values).abs().max()) > 1e-4


def test_batches_carry_the_mark_in_step_with_the_tokens(
    spoken_store: Path, tiny_bert: Path
) -> None:
    view = Store.open(spoken_store, context_utterances=2).split("train")
    tokenizer = Tokenizer(str(tiny_bert))
    marks = token_contexts(view, [Modality.TEXT], tokenizer)
    assert marks is not None
    loader = BatchLoader(
        view, modalities=[Modality.TEXT], batch_size=5, seed=0, shuffle=True, text=tokenizer,
        context_of_token=marks,
    )  # fmt: skip
    for batch in loader.batches(0):
        text = batch.sequences[Modality.TEXT]
        assert text.context is not None
        for place, row in enumerate(batch.index.tolist()):
            length = len(marks[row])
            assert torch.equal(text.context[place, :length], torch.from_numpy(marks[row]))
            assert not text.context[place, length:].any()
        moved = batch.to("cpu").select(torch.tensor([0])).sequences[Modality.TEXT]
        assert moved.context is not None
        assert torch.equal(moved.context, text.context[:1])
    assert (
        token_contexts(Store.open(spoken_store).split("train"), [Modality.TEXT], tokenizer) is None
    )


@pytest.mark.parametrize(
    ("layers", "method"),
    [
        ("'all'", "tecafn"),
        ("0", "tecafn"),
        ("0", "mag_bert"),
        *(
            pytest.param(layers, method, marks=pytest.mark.slow)
            for method in ("concat", "misa", "tetfn")
            for layers in ("'all'", "0")
        ),
        pytest.param("'all'", "mag_bert", marks=pytest.mark.slow),
    ],
)
def test_every_method_trains_and_predicts_with_context(
    method: str, layers: str, train_tiny: TrainTiny, spoken_store: Path, tmp_path: Path
) -> None:
    table = [] if method == "tecafn" else [f"method={method}", "model={}"]
    train_tiny(
        "r", *table, "context_utterances=1", 'modalities=["text"]', "training.max_epochs=1",
        f"num_trained_text_layers={layers.strip(chr(39))}", data=spoken_store,
    )  # fmt: skip
    run = tmp_path / "r"
    predict_run(run, data=spoken_store, split="valid", out=tmp_path / "p.csv", device="cpu")
    written = [float(row["prediction"]) for row in read_rows(tmp_path / "p.csv")]
    kept = [float(row["prediction"]) for row in read_rows(run / "predictions" / "valid.csv")]
    assert written == pytest.approx(kept, abs=1e-4)
    view = Store.open(spoken_store, context_utterances=1).split("valid")
    predictor = load(run)
    assert predictor.definition.context_utterances == 1
    by_hand = predictor.predict(text=view.texts, context=view.column("context"))
    assert by_hand.tolist() == pytest.approx(written, abs=1e-4)
    without = predictor.predict(text=view.texts)
    assert np.abs(without - by_hand)[1:3].max() > 1e-6
    assert without[0] == pytest.approx(by_hand[0], abs=1e-4)  # nothing comes before the first


def test_stored_vectors_have_no_context(train_tiny: TrainTiny) -> None:
    with pytest.raises(UserError, match="context_utterances needs a text encoder"):
        train_tiny("f", "context_utterances=1", "text_encoder=features")
    with pytest.raises(UserError, match="context_utterances must be >= 0, got -1"):
        train_tiny("g", "context_utterances=-1")
