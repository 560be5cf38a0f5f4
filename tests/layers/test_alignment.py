"""From tokens to frames and back, against slow loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tecafn.core.batch import Padded
from tecafn.layers.alignment import frames_of_tokens, tokens_to_frames

SEEDS = (0, 1, 2)


def drawn(seed: int) -> tuple[Padded, Padded, Tensor]:
    """Frames with holes, tokens with padding, and which token is of which frame, or of none."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    tokens = torch.randn(3, 8, 4, generator=generator, dtype=torch.float64)
    heard = torch.rand(3, 5, generator=generator) < 0.7
    read = torch.rand(3, 8, generator=generator) < 0.8
    # 5 and 6 name frames that are not stored: padding that was cut off.
    frame_of_token = torch.randint(-1, 7, (3, 8), generator=generator)
    return Padded(frames, heard), Padded(tokens, read), frame_of_token


@pytest.mark.parametrize("seed", SEEDS)
def test_each_token_gets_its_own_frame_or_none(seed: int) -> None:
    frames, _, frame_of_token = drawn(seed)
    got = frames_of_tokens(frames, frame_of_token)
    assert got.values.shape == (3, 8, 2)
    seen = set()
    for row in range(3):
        for token in range(8):
            frame = int(frame_of_token[row, token])
            known = 0 <= frame < 5 and bool(frames.mask[row, frame])
            expected = frames.values[row, frame] if known else torch.zeros(2, dtype=torch.float64)
            assert bool(got.mask[row, token]) is known
            assert torch.equal(got.values[row, token], expected)
            seen.add(known)
    assert seen == {True, False}


@pytest.mark.parametrize("seed", SEEDS)
def test_each_frame_gets_the_mean_of_its_tokens(seed: int) -> None:
    _, tokens, frame_of_token = drawn(seed)
    got = tokens_to_frames(tokens, frame_of_token, 5)
    counts = set()
    for row in range(3):
        for frame in range(5):
            own = [
                tokens.values[row, token]
                for token in range(8)
                if tokens.mask[row, token] and frame_of_token[row, token] == frame
            ]
            counts.add(len(own))
            assert bool(got.mask[row, frame]) is bool(own)
            expected = sum(own, torch.zeros(4, dtype=torch.float64)) / max(len(own), 1)
            torch.testing.assert_close(got.values[row, frame], expected)
    assert 0 in counts
    assert max(counts) >= 2


def test_what_is_masked_may_hold_anything() -> None:
    frames, tokens, frame_of_token = drawn(0)
    garbage = Padded(
        frames.values.masked_fill(~frames.mask.unsqueeze(-1), float("nan")), frames.mask
    )
    assert bool(frames_of_tokens(garbage, frame_of_token).values.isfinite().all())
    garbage = Padded(
        tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), float("nan")), tokens.mask
    )
    assert bool(tokens_to_frames(garbage, frame_of_token, 5).values.isfinite().all())


def test_gradients_reach_the_tokens_of_known_frames_alone() -> None:
    _, tokens, frame_of_token = drawn(1)
    values = tokens.values.clone().requires_grad_()
    tokens_to_frames(Padded(values, tokens.mask), frame_of_token, 5).values.sum().backward()
    known = tokens.mask & (frame_of_token >= 0) & (frame_of_token < 5)
    assert values.grad is not None
    assert torch.equal((values.grad != 0).all(-1), known)


def test_a_batch_without_rows_is_legal() -> None:
    none = torch.zeros(0, 4, dtype=torch.int64)
    empty = Padded(torch.zeros(0, 3, 2), torch.zeros(0, 3, dtype=torch.bool))
    assert frames_of_tokens(empty, none).values.shape == (0, 4, 2)
    text = Padded(torch.zeros(0, 4, 2), torch.zeros(0, 4, dtype=torch.bool))
    assert tokens_to_frames(text, none, 3).values.shape == (0, 3, 2)
