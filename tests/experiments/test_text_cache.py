"""States of frozen layers are computed once, and only where nothing that matters has changed."""

from __future__ import annotations

import atexit
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saved import read_rows

import tecafn.experiments.text_cache as text_cache
from tecafn.core.batch import pad_rows
from tecafn.core.errors import UserError
from tecafn.core.info import TextEncoderSpec
from tecafn.experiments.evaluate import evaluate_run, open_run
from tecafn.experiments.setup import open_device
from tecafn.experiments.text_cache import HiddenStates, cached_states
from tecafn.layers.text_encoder import TextEncoder, Tokenizer

CPU = torch.device("cpu")
TEXTS = ["the film was good", "bad", "", "i liked it not very " * 5, "good " * 30, "awful film"]


def encoder_of(source: Path, trained: int = 1) -> TextEncoder:
    return TextEncoder(TextEncoderSpec(source=str(source), num_trained_layers=trained))


@pytest.fixture
def tokens(tiny_bert: Path) -> list[Any]:
    return Tokenizer(str(tiny_bert), max_tokens=20)(TEXTS)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of texts, one for each time that states were computed."""
    calls: list[int] = []
    compute = text_cache._compute

    def counting(encoder: Any, tokens: Any, folder: Path, device: Any) -> None:
        calls.append(len(tokens))
        compute(encoder, tokens, folder, device)

    monkeypatch.setattr(text_cache, "_compute", counting)
    return calls


def entries(cache: Path) -> list[Path]:
    """What is kept; locks are hidden files."""
    return [path for path in cache.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_states_are_those_of_each_text_alone(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path, trained: int
) -> None:
    encoder = encoder_of(tiny_bert, trained)
    states = cached_states(encoder, tokens, cache_dir=tmp_path, device=CPU)
    assert len(states) == len(TEXTS)
    assert states.lengths().tolist() == [len(ids) for ids in tokens]
    for row, ids in enumerate(tokens):
        with torch.inference_mode():
            alone = encoder.eval().run_frozen(pad_rows([torch.from_numpy(ids)])).values[0]
        assert states.hidden(row).shape == (len(ids), 32)
        np.testing.assert_allclose(states.hidden(row), alone.numpy(), atol=1e-5)


def test_second_process_reads_what_the_first_computed(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path, computed: list[int]
) -> None:
    first = cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    again = cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert computed == [len(TEXTS)]
    assert len(entries(tmp_path)) == 1
    for row in range(len(TEXTS)):
        assert np.array_equal(first.hidden(row), again.hidden(row))


def test_of_several_at_once_one_computes_and_the_others_wait(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path, computed: list[int]
) -> None:
    def compute(number: int) -> Any:
        states = cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
        return states.hidden(number).copy()

    # Each opens the lock for itself, which is all that makes processes differ from threads here.
    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(compute, [0] * 4))
    assert computed == [len(TEXTS)]
    assert all(np.array_equal(one, states[0]) for one in states)


def test_what_a_kill_left_half_built_is_cleared_away(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert list(tmp_path.glob(".building-*"))
    cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert not list(tmp_path.glob(".building-*"))


def test_other_weights_layers_or_tokens_are_another_entry(
    tiny_bert: Path,
    make_bert: Callable[..., Path],
    tokens: list[Any],
    tmp_path: Path,
    computed: list[int],
) -> None:
    other = make_bert(tmp_path / "other-bert", seed=1)
    changed = [*tokens[:-1], tokens[-1][::-1].copy()]
    # As many ids in all, but cut elsewhere.
    moved = [np.concatenate([tokens[0], tokens[1][:1]]), tokens[1][1:], *tokens[2:]]
    cases: list[tuple[TextEncoder, Any]] = [
        (encoder_of(tiny_bert), tokens),
        (encoder_of(other), tokens),
        (encoder_of(tiny_bert, 0), tokens),
        (encoder_of(tiny_bert), changed),
        (encoder_of(tiny_bert), moved),
        (encoder_of(tiny_bert), tokens[:-1]),
    ]
    cache = tmp_path / "cache"
    for encoder, ids in cases:
        cached_states(encoder, ids, cache_dir=cache, device=CPU)
    assert len(computed) == len(entries(cache)) == len(cases)


def test_weights_of_the_trained_layers_are_no_part_of_the_key(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path, computed: list[int]
) -> None:
    encoder = encoder_of(tiny_bert)
    cached_states(encoder, tokens, cache_dir=tmp_path, device=CPU)
    with torch.no_grad():
        for parameter in encoder.layers[-1].parameters():
            parameter.add_(1.0)
    cached_states(encoder, tokens, cache_dir=tmp_path, device=CPU)
    assert len(computed) == 1


def test_unwritable_folder_falls_back_for_this_run_and_says_so(
    tiny_bert: Path,
    tokens: list[Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda *call, **options: at_exit.append(call))
    (tmp_path / "file").touch()  # a folder below a file cannot be made, not even by root
    states = cached_states(
        encoder_of(tiny_bert), tokens, cache_dir=tmp_path / "file" / "cache", device=CPU
    )
    assert len(states) == len(TEXTS)
    told = capsys.readouterr().err.strip()
    assert "cannot be written (Not a directory); text states are computed for this run" in told
    assert "\n" not in told
    # What it used instead goes away with the process.
    ((remove, folder),) = at_exit
    assert remove is shutil.rmtree
    assert (folder / "states.npy").is_file()
    shutil.rmtree(folder)


def test_full_disk_is_one_line_and_leaves_nothing(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"cannot write text states to .*: No space left"):
        cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert entries(tmp_path) == []
    assert not list(tmp_path.rglob("*.npy"))


def test_damaged_entry_is_computed_anew_and_that_is_said(
    tiny_bert: Path,
    tokens: list[Any],
    tmp_path: Path,
    computed: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    expected = first.hidden(0).copy()
    (folder,) = entries(tmp_path)
    states = folder / "states.npy"
    states.write_bytes(states.read_bytes()[:-100])
    again = cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert np.array_equal(again.hidden(0), expected)
    assert len(computed) == 2
    assert f"{folder} is damaged; text states are computed anew" in capsys.readouterr().err


def test_half_written_entry_is_not_taken_for_a_whole_one(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", killed)  # when the states are written, the rest is not
        with pytest.raises(KeyboardInterrupt):
            cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert list(tmp_path.rglob("states.npy"))
    states = cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert np.isfinite(states.hidden(0)).all()


def test_entry_can_be_read_by_whoever_can_read_the_store(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path
) -> None:
    cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    (folder,) = entries(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("trained", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_cached_and_uncached_training_give_the_same_predictions(
    make_store: Callable[..., Path],
    train_tiny: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    computed: list[int],
    trained: int,
) -> None:
    import tecafn.experiments.setup as setup

    monkeypatch.setattr("tecafn.report.html.write_report", lambda run: run / "report.html")
    data = make_store(tmp_path / "store")
    overrides = (f"num_trained_text_layers={trained}", "training.learning_rate=0.01")
    train_tiny("cached", *overrides, data=data)
    assert computed == [20, 8]
    train_tiny("cached-again", *overrides, data=data)
    assert computed == [20, 8]
    # The tokenizer in place of the states: the frozen layers run in every step.
    monkeypatch.setattr(setup.Batches, "_text", lambda self, view: self.tokenizer)
    train_tiny("uncached", *overrides, data=data)
    predictions = {
        name: [
            float(row["prediction"])
            for row in read_rows(tmp_path / name / "predictions" / "valid.csv")
        ]
        for name in ("cached", "cached-again", "uncached")
    }
    assert predictions["cached"] == predictions["cached-again"]
    assert predictions["cached"] == pytest.approx(predictions["uncached"], abs=1e-4)
    assert len(set(predictions["cached"])) > 1


@pytest.mark.usefixtures("no_fsync")
def test_evaluating_reads_what_is_kept_and_finds_what_the_sentences_give(
    make_store: Callable[..., Path],
    train_tiny: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    computed: list[int],
) -> None:
    monkeypatch.setattr("tecafn.report.html.write_report", lambda run: run / "report.html")
    data = make_store(tmp_path / "store")
    for name in ("one", "other"):  # two networks, one frozen encoder
        train_tiny(name, "num_trained_text_layers=0", f"seed={len(name)}", data=data)
    assert computed == [20, 8]
    for name in ("one", "other"):
        evaluate_run(tmp_path / name, data=data, split="test", device="cpu")
        assert computed == [20, 8, 12]  # the test split's, once
    plain = open_run(tmp_path / "other", data, "test", open_device("cpu"))
    rows = read_rows(tmp_path / "other" / "predictions" / "test.csv")
    kept = [float(row["prediction"]) for row in rows]
    assert kept == pytest.approx(plain.predict().predictions.tolist(), abs=1e-5)


def test_states_are_mapped_not_loaded(tiny_bert: Path, tokens: list[Any], tmp_path: Path) -> None:
    states = cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert isinstance(states, HiddenStates)
    assert isinstance(states.hidden(0), np.memmap)


def test_weights_move_to_the_device_outside_inference_mode(
    tiny_bert: Path, tokens: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a GPU moving makes new tensors; made in inference mode, layers that are trained after the
    # cache was filled would fail in their first step.
    modes: list[bool] = []
    move = TextEncoder.to

    def moving(self: TextEncoder, *args: Any, **kwargs: Any) -> Any:
        modes.append(torch.is_inference_mode_enabled())
        return move(self, *args, **kwargs)

    monkeypatch.setattr(TextEncoder, "to", moving)
    cached_states(encoder_of(tiny_bert), tokens, cache_dir=tmp_path, device=CPU)
    assert modes == [False]
