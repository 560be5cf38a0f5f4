"""What TFN and LMF put before their fusion: a sub-network per modality, sequence in, vector out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.settings import per_modality
from tecafn.layers.dropout import Dropout
from tecafn.layers.sequence import SequenceLSTM, masked_mean
from tecafn.layers.unimodal import AbsentVectors, GlobalBatchNorm, ModalityFrames


class TextSubnetwork(nn.Module):
    """Token vectors to one vector: an LSTM's last hidden state, dropout, a linear layer.

    Args:
        in_dim: width of a token vector.
        hidden_dim: width of the LSTM.
        out_dim: width of the vector.
        dropout: of the last hidden state.

    Source: TFN, Zadeh et al. 2017, its modality embedding subnetworks, in the form that LMF's
    public code (Liu et al. 2018) has, with one linear layer after the LSTM.
    """

    def __init__(self, in_dim: int, *, hidden_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.lstm = SequenceLSTM(in_dim, hidden_dim)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(hidden_dim, out_dim)

    def forward(self, tokens: Padded, present: Tensor) -> Tensor:
        """(B, L, in_dim) to (B, out_dim); ``present`` is not needed here."""
        del present
        _, last = self.lstm(tokens)
        vector: Tensor = self.linear(self.dropout(last))
        return vector


class FrameSubnetwork(nn.Module):
    """Audio or vision frames to one vector: mean over time, batch norm, dropout, three ReLU layers.

    Args:
        in_dim: width of a frame.
        hidden_dim: width of the layers and of the vector.
        dropout: of the normalised mean.

    Source: TFN, Zadeh et al. 2017, its modality embedding subnetworks; LMF, Liu et al. 2018, takes
    them over. The normalisation is over the rows of the global batch that have the modality.
    """

    def __init__(self, in_dim: int, *, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = GlobalBatchNorm(in_dim)
        self.layers = nn.Sequential(
            Dropout(dropout),
            nn.Linear(in_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
        )

    def forward(self, frames: Padded, present: Tensor) -> Tensor:
        """(B, L, in_dim) to (B, hidden_dim); ``present`` (B,) bool says which rows count."""
        vector: Tensor = self.layers(self.norm(masked_mean(frames.values, frames.mask), present))
        return vector


@dataclass(frozen=True, kw_only=True)
class SubnetworkWidths:
    """Widths and dropouts of the three sub-networks.

    Args:
        text_hidden_dim: of the text's LSTM.
        text_dim, audio_dim, vision_dim: of each modality's vector.
        text_dropout, audio_dropout, vision_dropout: probabilities.
    """

    text_hidden_dim: int
    text_dim: int
    audio_dim: int
    vision_dim: int
    text_dropout: float
    audio_dropout: float
    vision_dropout: float


class Subnetworks(nn.Module):
    """A batch to one vector per modality; a learned one where a sample lacks the modality.

    Args:
        info: which modalities there are.
        widths: of the sub-networks.

    ``dims`` has the width of each modality's vector.
    """

    def __init__(self, info: DataInfo, widths: SubnetworkWidths) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        dims, dropouts = per_modality(widths, "dim"), per_modality(widths, "dropout")
        self.dims: dict[Modality, int] = {m: dims[m] for m in self.frames.dims}
        self.subnetworks = nn.ModuleDict()
        for modality, in_dim in self.frames.dims.items():
            if modality == Modality.TEXT:
                self.subnetworks[modality] = TextSubnetwork(
                    in_dim,
                    hidden_dim=widths.text_hidden_dim,
                    out_dim=dims[modality],
                    dropout=dropouts[modality],
                )
            else:
                self.subnetworks[modality] = FrameSubnetwork(
                    in_dim, hidden_dim=dims[modality], dropout=dropouts[modality]
                )
        self.slots = AbsentVectors(self.dims)

    def forward(self, batch: Batch) -> dict[Modality, Tensor]:
        """(B, dims[m]) of every modality m, in the order text, audio, vision."""
        vectors = {
            m: self.subnetworks[m](frames, batch.present[m])
            for m, frames in self.frames(batch).items()
        }
        filled = self.slots(vectors, batch)
        return {m: filled[m] for m in self.dims}


def append_one(vector: Tensor) -> Tensor:
    """[1; h]: products of such vectors hold the products of every subset of the modalities.

    Example:
        >>> append_one(torch.tensor([[2.0, 3.0]]))
        tensor([[1., 2., 3.]])
    """
    return torch.cat([vector.new_ones(vector.shape[0], 1), vector], dim=1)
