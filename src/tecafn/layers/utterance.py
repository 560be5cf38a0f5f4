"""Audio, vision and text to one vector each, for the methods that fuse utterances, not frames."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tecafn.core.batch import Modality, Padded
from tecafn.layers.unimodal import SequenceLSTM, pool


class LastState(nn.Module):
    """Audio or vision to one vector: a one-layer LSTM's last state, then a linear layer.

    Args:
        width: of a frame.
        hidden_dim: of the LSTM.
        out_dim: of the vector.
    """

    def __init__(self, width: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.recurrent = SequenceLSTM(width, hidden_dim)
        self.project = nn.Linear(hidden_dim, out_dim)

    def forward(self, frames: Padded) -> Tensor:
        """(B, L, width) to (B, out_dim)."""
        _, last = self.recurrent(frames)
        vector: Tensor = self.project(last)
        return vector


class FirstState(nn.Module):
    """Text to one vector: its [CLS], and a linear layer where another width is asked for.

    Args:
        width: of a token's state.
        out_dim: of the vector; None = the state itself.
    """

    def __init__(self, width: int, out_dim: int | None) -> None:
        super().__init__()
        self.project = nn.Identity() if out_dim is None else nn.Linear(width, out_dim)

    def forward(self, frames: Padded) -> Tensor:
        """(B, L, width) to (B, out_dim)."""
        vector: Tensor = self.project(pool(frames, "first"))
        return vector


class UtteranceEncoders(nn.Module):
    """One vector of each modality; ``dims`` has their widths.

    Args:
        widths: of a frame of each modality in use (``ModalityFrames.dims``).
        lstm_dims: width of the LSTM of audio and of vision.
        dims: width of each vector; a text that is left out keeps the encoder's.

    Source: Self-MM, Yu et al. 2021, its unimodal encoders.
    """

    def __init__(
        self,
        widths: Mapping[Modality, int],
        *,
        lstm_dims: Mapping[Modality, int],
        dims: Mapping[Modality, int],
    ) -> None:
        super().__init__()
        self.dims = {m: dims.get(m, width) for m, width in widths.items()}
        self.encoders = nn.ModuleDict(
            {
                m: FirstState(width, dims.get(m))
                if m == Modality.TEXT
                else LastState(width, lstm_dims[m], dims[m])
                for m, width in widths.items()
            }
        )

    def forward(self, frames: Mapping[Modality, Padded]) -> dict[Modality, Tensor]:
        """(B, L, width) to (B, D) of the modalities that are there."""
        return {m: self.encoders[m](sequence) for m, sequence in frames.items()}
