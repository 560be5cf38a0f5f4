"""C: what a predictor is given is read, or refused by its sample, modality and shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tecafn
from tecafn.core.errors import UserError
from tecafn.serving.predictor import Predictor, load

RANDOM = np.random.default_rng(0)
AUDIO = RANDOM.normal(size=(4, 5))
VISION = RANDOM.normal(size=(3, 20))


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> Predictor:
    return load(tiny_run)


def test_its_repr_says_what_it_is_and_what_it_takes(predictor: Predictor) -> None:
    assert repr(predictor).startswith("Predictor(tecafn, scores from -3 to 3, takes text (")
    assert "), audio (5 wide), vision (20 wide), trained on " in repr(predictor)
    assert "\n" not in repr(predictor)


def test_dir_lists_the_public_names_before_anything_is_imported() -> None:
    names = dir(tecafn)
    assert set(tecafn.__all__) <= set(names)
    code = (
        "import sys, tecafn; names = dir(tecafn); assert 'load' in names and 'Predictor' in names; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int32", "int8", "bool"])
def test_any_real_type_is_read_as_numpy_and_as_torch(predictor: Predictor, kind: str) -> None:
    audio = np.rint(AUDIO).astype(kind)
    expected = predictor.predict("good", audio=audio.astype(np.float64))
    for given in (audio, torch.from_numpy(audio), [audio], audio[None], audio.tolist()):
        assert predictor.predict("good", audio=given) == pytest.approx(expected, abs=1e-6)


def test_shape_and_memory_do_not_matter(predictor: Predictor) -> None:
    expected = predictor.predict("good", audio=AUDIO)
    turned = np.asfortranarray(AUDIO)
    every_second = np.repeat(AUDIO, 2, axis=0)[::2]
    backwards = AUDIO[::-1].copy()[::-1]
    tensor = torch.from_numpy(AUDIO.T.copy()).T  # not contiguous
    for given in (
        turned,
        every_second,
        backwards,
        tensor,
        tensor.clone().requires_grad_(),
        AUDIO.tolist(),
        tuple(map(tuple, AUDIO.tolist())),
        AUDIO.astype(object),
        np.array([AUDIO, None], dtype=object)[:1],
    ):
        if isinstance(given, np.ndarray) and given.dtype == object and given.ndim == 2:
            given = [given]
        assert predictor.predict("good", audio=given) == pytest.approx(expected, abs=1e-6)
    rough = predictor.predict("good", audio=torch.from_numpy(AUDIO).bfloat16())
    assert rough == pytest.approx(expected, abs=0.1)


def test_empty_and_blank_texts_are_absent(predictor: Predictor) -> None:
    absent = predictor.predict(audio=AUDIO)
    unseen = ("\u200b", "\ufeff", "\x00", "\xad", " \u200d\u2060\x7f")
    for text in ("", "  ", "\n\t", *unseen, [""], [None], None):
        assert predictor.predict(text, audio=AUDIO) == pytest.approx(absent, abs=1e-6)


def test_masked_frames_are_masked(predictor: Predictor) -> None:
    rows = np.zeros(AUDIO.shape, bool)
    rows[2:] = True
    masked = np.ma.masked_array(AUDIO, mask=rows)
    expected = predictor.predict("good", audio=AUDIO[:2])
    for given in (masked, [masked], masked[None]):
        assert predictor.predict("good", audio=given) == pytest.approx(expected, abs=1e-6)
    one = np.ma.masked_array(AUDIO, mask=np.zeros(AUDIO.shape, bool))
    one[1, 3] = np.ma.masked
    with_nan = np.where(np.ma.getmaskarray(one), np.nan, AUDIO)
    expected = predictor.predict("good", audio=with_nan)
    assert predictor.predict("good", audio=one) == pytest.approx(expected, abs=1e-6)


def test_a_text_that_is_cut_is_said_with_counts(predictor: Predictor) -> None:
    limit = predictor.definition.max_text_tokens
    long = " ".join(["good"] * (limit + 5))
    told = rf"text of 1 of 2 samples is cut at max_text_tokens {limit}, .* has {limit + 7} tokens"
    with pytest.warns(UserWarning, match=told):
        predictor.predict(["good", long])
    predictor.predict(" ".join(["good"] * (limit - 2)))  # with [CLS] and [SEP] as many as it may


@pytest.mark.parametrize(
    "empty", [np.empty((0, 5)), torch.empty(0, 5), [], np.full((2, 5), np.nan), None]
)
def test_sequences_without_a_frame_are_absent(predictor: Predictor, empty: Any) -> None:
    given = empty if empty is None or getattr(empty, "ndim", 0) == 2 else [empty]
    expected = predictor.predict("good", vision=VISION)
    answer = predictor.predict("good", audio=given, vision=VISION)
    assert answer == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"text": ""}, "sample 0 has nothing to predict from: no text"),
        ({"text": ["good", "  "]}, "sample 1 has nothing to predict from: no text"),
        ({"text": ["good", None], "audio": [AUDIO, AUDIO[:0]]}, "sample 1 has nothing .* no audio"),
        ({"audio": np.full((3, 5), np.nan)}, "sample 0 has nothing to predict from: no audio"),
        ({"text": "good", "audio": AUDIO.T}, r"got shape \(5, 4\), which is turned round"),
        ({"text": "good", "audio": AUDIO[0]}, r"audio of sample 0 must be \(L, 5\).*shape \(5,\)"),
        ({"text": "good", "audio": AUDIO[0].tolist()}, r"sample 0 must be .*shape \(5,\)"),
        ({"text": ["a", "b"], "audio": [AUDIO, VISION]}, r"audio of sample 1 .*shape \(3, 20\)"),
        ({"text": "a", "vision": np.ones((1, 2, 3, 20))}, r"vision of sample 0 .*\(2, 3, 20\)"),
        ({"text": "a", "audio": AUDIO + 1j}, "audio of sample 0 must be .* numbers"),
        ({"text": "a", "audio": torch.ones(2, 5, dtype=torch.complex64)}, "got complex ones"),
        ({"text": "a", "audio": "sound.wav"}, r"audio must be \(L, 5\) numbers.* got a str"),
        ({"text": "a", "audio": {"frames": AUDIO}}, "audio must be one sample or a list.* a dict"),
        ({"text": "a", "audio": np.full((2, 5), 1e300)}, "beyond what single precision holds"),
        ({"text": "a", "audio": np.float64(3)}, "audio of sample 0 must be"),
        ({"text": ["a", float("nan")]}, "text of sample 1 must be a string, .* got a float"),
        ({"text": AUDIO}, "text of sample 0 must be a string"),
        ({"text": {"a": 1}}, "text must be one sample or a list of them, got a dict"),
        ({"audio": AUDIO, "context": "before"}, "context goes with a text, got none"),
        ({"text": "a", "context": 5}, "context must be one text or a list of them, got an int"),
        ({"text": ["a"], "context": [3]}, "context of sample 0 must be a string, .* got an int"),
        ({"text": ["a"], "context": [b"a"]}, "context of sample 0 must be .* got a bytes"),
        ({"text": "a", "context": b"a"}, "context must be one text .* got a bytes"),
        ({"audio": torch.ones(2, 5).to_sparse()}, "audio of sample 0 .* a tensor of torch.sparse"),
        ({"audio": torch.ones(1, 2, 5).to_sparse()}, "audio must be one .* torch.sparse_coo on"),
        ({"audio": torch.ones(2, 5, device="meta")}, "audio of sample 0 .* on meta"),
        ({"audio": [torch.ones(2, 5, device="meta")]}, "audio of sample 0 .* on meta"),
    ],
)
def test_what_is_refused_is_refused_in_one_line_that_names_it(
    predictor: Predictor, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        predictor.predict(**given)
    assert "\n" not in str(caught.value)
