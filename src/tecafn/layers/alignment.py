"""Words and frames of a word-aligned dataset: from the one's positions to the other's.

A tokenizer cuts words into pieces and adds [CLS] and [SEP]; audio and vision have one frame per
word, pauses included. ``Batch.frame_of_token`` says which frame each token was spoken in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tecafn.core.batch import Padded


def frames_of_tokens(frames: Padded, frame_of_token: Tensor) -> Padded:
    """Each token's own frame: the pieces of a word share the word's.

    Args:
        frames: (B, Lf, D) audio or vision.
        frame_of_token: (B, Lt) int64, -1 where a token has no frame.

    Returns:
        (B, Lt, D); masked, and zero, where the token has no frame or its frame is masked.

    Example:
        >>> frames = Padded(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[True, False]]))
        >>> spoken = frames_of_tokens(frames, torch.tensor([[-1, 0, 0, 1]]))
        >>> spoken.values.squeeze(-1), spoken.mask
        (tensor([[0., 1., 1., 0.]]), tensor([[False,  True,  True, False]]))
    """
    num_frames = frames.mask.shape[1]
    # A frame behind the last stored one is padding that was cut off.
    known = (frame_of_token >= 0) & (frame_of_token < num_frames)
    place = frame_of_token.clamp(0, num_frames - 1)
    mask = known & frames.mask.gather(1, place)
    values = frames.values.gather(1, place.unsqueeze(-1).expand(-1, -1, frames.values.shape[2]))
    return Padded(values.masked_fill(~mask.unsqueeze(-1), 0.0), mask)


def tokens_to_frames(tokens: Padded, frame_of_token: Tensor, num_frames: int) -> Padded:
    """The mean of the tokens that were spoken in each frame.

    Args:
        tokens: (B, Lt, D) text states.
        frame_of_token: (B, Lt) int64, -1 where a token has no frame.
        num_frames: Lf, at least 1; tokens of later frames are left out.

    Returns:
        (B, Lf, D); masked, and zero, where nothing was said (a pause).

    Example:
        >>> tokens = Padded(torch.tensor([[[9.0], [1.0], [3.0]]]), torch.ones(1, 3).bool())
        >>> heard = tokens_to_frames(tokens, torch.tensor([[-1, 1, 1]]), 2)
        >>> heard.values.squeeze(-1), heard.mask
        (tensor([[0., 2.]]), tensor([[False,  True]]))
    """
    known = tokens.mask & (frame_of_token >= 0) & (frame_of_token < num_frames)
    # (B, Lf, Lt): weights, so that sums are matrix products and the same in any order of rows.
    columns = torch.arange(num_frames, device=frame_of_token.device)
    said = known.unsqueeze(1) & (frame_of_token.unsqueeze(1) == columns.unsqueeze(-1))
    weights = said.to(tokens.values.dtype)
    count = weights.sum(-1, keepdim=True)
    values = tokens.values.masked_fill(~known.unsqueeze(-1), 0.0)
    return Padded(weights @ values / count.clamp(min=1), said.any(-1))
