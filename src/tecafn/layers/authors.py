"""What TeCaFN's public code does and its paper does not: each a small piece with a name.

Kept to explain the published numbers, not to be built upon: half of these let padding or neighbours
into a prediction. ``docs/paper-and-code.md`` says what each does; nothing here is on by default.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tecafn.core.batch import Padded
from tecafn.layers.sequence import sinusoidal_positions


def count_padding(sequence: Padded) -> Padded:
    """The same frames, each of them said to be real.

    Example:
        >>> one = Padded(torch.ones(1, 2, 3), torch.tensor([[True, False]]))
        >>> count_padding(one).mask
        tensor([[True, True]])
    """
    return Padded(sequence.values, torch.ones_like(sequence.mask))


def misplaced_masks(mask: Tensor, *, num_heads: int) -> Tensor:
    """The mask that each head of each sample is given there.

    That code flattens attention batch-major (row ``b * H + h`` is head h of sample b), then reads
    the same rows head-major when it lays the masks over them, where row r belongs to sample
    ``r mod B``. So head h of sample b is given the mask of sample ``(b * H + h) mod B``: only a
    batch of one, or of a size that divides b * H + h - b for every head, is masked rightly.

    Args:
        mask: (B, L) bool.
        num_heads: H.

    Returns:
        (B, H, L) bool.

    Example:
        >>> misplaced_masks(torch.eye(3, dtype=torch.bool), num_heads=2).int().argmax(-1)
        tensor([[0, 1],
                [2, 0],
                [1, 2]])
    """
    rows = torch.arange(len(mask), device=mask.device).unsqueeze(1) * num_heads
    rows = rows + torch.arange(num_heads, device=mask.device)
    return mask[rows % max(len(mask), 1)]  # (B, L) -> (B, H, L)


def scale_and_place(values: Tensor) -> Tensor:
    """(B, L, D) times the square root of D, plus position codes.

    Source: MulT, Tsai et al. 2019, after Vaswani et al. 2017, Sect. 3.4, who scale embeddings so.
    """
    length, dim = values.shape[1:]
    positions = sinusoidal_positions(length, dim, device=values.device).to(values.dtype)
    placed: Tensor = values * dim**0.5 + positions
    return placed


class FrozenGaussian(nn.Module):
    """q(y | x) of the Barber-Agakov bound: a mean and a log-variance for each column of y.

    There the two networks have an optimizer that never takes a step, so here they are frozen as
    they were drawn: gradients reach x and y alone.

    Args:
        dim: width of x and of y.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

        def network() -> nn.Sequential:
            return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

        self.mean = network()
        self.log_variance = network()
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) to mean and log-variance, (B, D) each."""
        return self.mean(x), self.log_variance(x)
