"""Batches: every sample once, the same for any number of workers, divided over processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tecafn.core.batch import Batch
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import (
    BatchLoader,
    DatasetDescription,
    Sample,
    SplitView,
    Store,
    StoreWriter,
    loader,
    plan_batches,
)
from tecafn.data.loader import share_of

WIDTHS = {Modality.AUDIO: 2, Modality.VISION: 3}
BOTH = (Modality.AUDIO, Modality.VISION)


def _view(path: Path, samples: list[dict[str, Any]], **described: Any) -> SplitView:
    description = DatasetDescription(**{"dataset": "toy", "widths": WIDTHS, **described})
    with StoreWriter(path, description) as writer:
        for number, fields in enumerate(samples):
            plain: dict[str, Any] = {
                "id": f"v_{number}",
                "source_id": "",
                "video": "v",
                "clip": str(number),
                "split": "train",
                "text": "w " * (1 + number % 7),
                "label": number / 100,
            }
            writer.add(Sample(**(plain | fields)))
    return Store.open(path).split("train")


@pytest.fixture
def view(tmp_path: Path) -> SplitView:
    """103 samples; every 10th lacks audio."""
    random = np.random.default_rng(0)
    samples = []
    for number in range(103):
        lengths = (0 if number % 10 == 0 else random.integers(1, 9), random.integers(1, 20))
        audio = random.normal(size=(lengths[0], 2)).astype(np.float32)
        vision = random.normal(size=(lengths[1], 3)).astype(np.float32)
        samples.append({"sequences": {Modality.AUDIO: audio, Modality.VISION: vision}})
    return _view(tmp_path / "store", samples)


def _tokenize(texts: Sequence[str], contexts: Sequence[str | None]) -> list[NDArray[np.int64]]:
    assert len(texts) == len(contexts)
    return [np.arange(1, len(text.split()) + 1) for text in texts]


def _load(view: SplitView, **options: Any) -> BatchLoader:
    plain: dict[str, Any] = {
        "modalities": tuple(Modality),
        "batch_size": 8,
        "seed": 3,
        "shuffle": True,
        "text": _tokenize,
    }
    return BatchLoader(view, **(plain | options))


def _same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.index, b.index)
        and tuple(a.ids) == tuple(b.ids)
        and all(
            torch.equal(a.sequences[m].values, b.sequences[m].values)
            and torch.equal(a.sequences[m].mask, b.sequences[m].mask)
            and torch.equal(a.present[m], b.present[m])
            for m in a.sequences
        )
        and (a.labels is None) == (b.labels is None)
        and (a.labels is None or b.labels is None or torch.equal(a.labels, b.labels))
    )


# The plan


@given(
    lengths=st.lists(st.integers(0, 60), max_size=300),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 50),
    shuffle=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_every_row_is_planned_once(
    lengths: list[int], batch_size: int, seed: int, epoch: int, shuffle: bool
) -> None:
    plan = plan_batches(
        np.array(lengths, np.int64),
        batch_size=batch_size,
        seed=seed,
        epoch=epoch,
        shuffle=shuffle,
    )
    rows = [int(row) for batch in plan for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert len(plan) == -(-len(lengths) // batch_size)
    assert sum(len(batch) < batch_size for batch in plan) <= 1


def _plan(seed: int, epoch: int, shuffle: bool = True) -> list[list[int]]:
    lengths = np.random.default_rng(5).integers(1, 200, size=3000)
    plan = plan_batches(lengths, batch_size=16, seed=seed, epoch=epoch, shuffle=shuffle)
    return [batch.tolist() for batch in plan]


def test_plan_depends_on_seed_and_epoch_alone() -> None:
    assert _plan(1, 0) == _plan(1, 0)
    assert _plan(1, 0) != _plan(1, 1)
    assert _plan(1, 0) != _plan(2, 0)
    assert _plan(1, 0, shuffle=False) == _plan(2, 7, shuffle=False)


def test_batches_are_length_buckets_inside_shuffled_chunks_of_20_batches() -> None:
    lengths = np.random.default_rng(5).integers(1, 200, size=16 * 60)
    plan = plan_batches(lengths, batch_size=16, seed=1, epoch=0, shuffle=True)
    # The documented recipe, step by step.
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([1, 0])))
    order = random.permutation(len(lengths))
    expected = []
    for start in range(0, len(order), 320):
        chunk = sorted(order[start : start + 320].tolist(), key=lambda row: lengths[row])
        expected += [frozenset(chunk[at : at + 16]) for at in range(0, 320, 16)]
    assert {frozenset(batch.tolist()) for batch in plan} == set(expected)
    spread = np.mean([np.ptp(lengths[batch]) for batch in plan])
    assert spread < 30  # of 200: little padding


def test_length_does_not_tell_a_batch_from_the_next() -> None:
    lengths = np.random.default_rng(5).integers(1, 200, size=16 * 400)
    plan = plan_batches(lengths, batch_size=16, seed=1, epoch=0, shuffle=True)
    means = np.array([lengths[batch].mean() for batch in plan])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.15


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"seed": -1}, {"epoch": -1}, {"chunk_batches": 0}]
)
def test_wrong_plan_is_a_value_error(wrong: dict[str, int]) -> None:
    arguments: dict[str, Any] = {"batch_size": 2, "seed": 0, "epoch": 0, "shuffle": True}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        plan_batches(np.ones(3, np.int64), **(arguments | wrong))


# Batches


def test_batches_hold_every_sample_once_with_its_frames(view: SplitView) -> None:
    source = _load(view)
    batches = list(source.batches(0))
    assert len(batches) == source.num_batches(0) == 13
    assert source.num_samples == 103
    seen = torch.cat([batch.index for batch in batches])
    assert sorted(seen.tolist()) == list(range(103))
    for batch in batches:
        for position, row in enumerate(batch.index.tolist()):
            assert batch.ids[position] == view.ids[row]
            assert batch.labels is not None
            assert batch.labels[position] == view.labels[row]
            for modality in BOTH:
                padded = batch.sequences[modality]
                frames = padded.values[position][padded.mask[position]]
                assert np.array_equal(frames.numpy(), view.sequence(row, modality))
                assert not padded.values[position][~padded.mask[position]].any()
                present = bool(batch.present[modality][position])
                assert present == bool(len(view.sequence(row, modality)))
            tokens = batch.sequences[Modality.TEXT]
            expected = _tokenize([view.texts[row]], [None])[0]
            assert tokens.values[position][tokens.mask[position]].tolist() == expected.tolist()


def test_padding_reaches_the_longest_row_and_no_further(view: SplitView) -> None:
    for batch in _load(view).batches(1):
        for padded in batch.sequences.values():
            assert padded.values.shape[1] == max(1, int(padded.mask.sum(dim=1).max()))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_same_batches_and_leave_the_generator_alone(
    view: SplitView, num_workers: int
) -> None:
    torch.manual_seed(0)
    expected = list(_load(view).batches(2))
    state = torch.get_rng_state()
    found = list(_load(view, num_workers=num_workers).batches(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(found) == len(expected)
    assert all(_same(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_partition_every_batch_in_order(
    view: SplitView, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    whole = list(_load(view, batch_size=51).batches(0))
    assert any(batch.size < world_size for batch in whole)  # one has 1 row
    shares = []
    for number in range(world_size):
        monkeypatch.setattr(loader, "rank", lambda number=number: number)
        monkeypatch.setattr(loader, "world_size", lambda: world_size)
        source = _load(view, batch_size=51)
        shares.append(list(source.batches(0)))
        assert source.num_batches(0) == len(whole)
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([part.index for part in parts]), batch.index)
        sizes = [part.size for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_share_of_a_tiny_batch_may_be_empty_but_is_whole(view: SplitView) -> None:
    source = _load(view)
    empty = source._builder.build(np.empty(0, np.int64), np.arange(2))
    assert empty.size == 0
    assert empty.labels is not None
    assert empty.labels.shape == (0,)
    assert empty.sequences[Modality.AUDIO].values.shape == (0, 1, 2)
    assert empty.sequences[Modality.TEXT].values.shape == (0, 1)
    assert empty.present[Modality.VISION].dtype == torch.bool
    assert share_of(np.arange(1), rank=0, world_size=2).tolist() == []


def test_bad_frames_are_masked_in_place_and_all_bad_is_absent(tmp_path: Path) -> None:
    frames = np.ones((3, 2), np.float32)
    frames[1, 0] = np.nan
    bad = np.full((2, 2), -np.inf, np.float32)
    view = _view(
        tmp_path / "s",
        [{"sequences": {Modality.AUDIO: frames}}, {"sequences": {Modality.AUDIO: bad}}, {}],
    )
    (batch,) = _load(view, shuffle=False, modalities=BOTH[:1]).batches(0)
    by_row = batch.select(torch.argsort(batch.index))
    padded = by_row.sequences[Modality.AUDIO]
    assert padded.mask.tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert padded.values[0].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert not padded.values[1:].any()
    assert by_row.present[Modality.AUDIO].tolist() == [True, False, False]


def test_blank_text_is_absent(tmp_path: Path) -> None:
    view = _view(tmp_path / "s", [{"text": " \u200b"}, {"text": "a b"}])
    (batch,) = _load(view, shuffle=False, modalities=[Modality.TEXT]).batches(0)
    assert batch.ids == ("v_0", "v_1")
    assert batch.present[Modality.TEXT].tolist() == [False, True]
    assert not batch.sequences[Modality.TEXT].mask[0].any()


def test_contexts_reach_the_tokenizer(tmp_path: Path) -> None:
    view = _view(tmp_path / "s", [{"context": "before"}, {}])
    seen: list[tuple[Any, ...]] = []

    def tokenize(texts: Sequence[str], contexts: Sequence[str | None]) -> list[Any]:
        seen.extend(zip(texts, contexts, strict=True))
        return [np.array([1])] * len(texts)

    _load(view, text=tokenize)
    assert [context for _, context in seen] == ["before", None]


def test_hidden_states_are_asked_by_the_row_of_the_whole_split(tmp_path: Path) -> None:
    class Cache:
        def hidden(self, row: int) -> NDArray[np.float32]:
            return np.full((row + 1, 4), row, np.float32)

    view = _view(tmp_path / "s", [{}] * 5).subset([4, 2])
    source = _load(view, shuffle=False, modalities=[Modality.TEXT], text=Cache())
    (batch,) = source.batches(0)
    found = {
        int(row): values[mask][:, 0].tolist()
        for row, values, mask in zip(
            batch.index,
            batch.sequences[Modality.TEXT].values,
            batch.sequences[Modality.TEXT].mask,
            strict=True,
        )
    }
    assert found == {0: [4.0] * 5, 1: [2.0] * 3}


def test_stored_text_vectors_are_used_without_a_tokenizer(tmp_path: Path) -> None:
    vectors = {"sequences": {Modality.TEXT: np.ones((2, 6), np.float32)}}
    view = _view(tmp_path / "s", [vectors], widths={Modality.TEXT: 6})
    (batch,) = _load(view, modalities=[Modality.TEXT], text=None).batches(0)
    assert batch.sequences[Modality.TEXT].values.shape == (1, 2, 6)


def test_modality_that_is_not_stored_is_one_line(view: SplitView) -> None:
    with pytest.raises(UserError, match="must have text frames, it has audio, vision"):
        _load(view, text=None)


def test_only_the_modalities_in_use_are_loaded(view: SplitView) -> None:
    batch = next(iter(_load(view, modalities=[Modality.TEXT]).batches(0)))
    assert set(batch.sequences) == {Modality.TEXT}


def test_batch_with_an_unlabelled_row_has_no_labels(tmp_path: Path) -> None:
    view = _view(tmp_path / "s", [{}, {"label": None}, {}, {}])
    batches = list(_load(view, batch_size=2, shuffle=False).batches(0))
    assert [batch.labels is None for batch in batches] == [True, False]
    with pytest.raises(UserError, match=r"split 'train' must have labels, 1 of 4 samples"):
        _load(view, require_labels=True)


def test_classes_are_int64(tmp_path: Path) -> None:
    view = _view(
        tmp_path / "s", [{"label": 1.0}, {"label": 0.0}], task="classification", num_classes=2
    )
    (batch,) = _load(view, shuffle=False).batches(0)
    assert batch.labels is not None
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [1, 0]


def test_unimodal_labels_come_where_every_row_has_them(tmp_path: Path) -> None:
    one = {"unimodal_labels": {Modality.AUDIO: 0.5, Modality.TEXT: 0.25}}
    two = {"unimodal_labels": {Modality.AUDIO: -0.5}}
    (batch,) = _load(_view(tmp_path / "s", [one, two]), shuffle=False).batches(0)
    assert set(batch.unimodal_labels) == {Modality.AUDIO}
    assert batch.unimodal_labels[Modality.AUDIO].tolist() == [0.5, -0.5]
