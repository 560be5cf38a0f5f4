"""MAG-BERT: a multimodal adaptation gate inside the text encoder.

Rahman et al., "Integrating multimodal information in large pretrained transformers", ACL 2020.

Each token's state is shifted by what was heard and seen while it was spoken, by no more than a
share of its own length; the rest of the encoder reads the shifted states. So the data must be
word-aligned.

The gate stands where the text encoder's frozen part ends: after the embeddings if all of it is
trained (the published place), after layer n if n layers are frozen; cached states of frozen layers
serve as well. A sample without text has no token to shift, and is one learned vector.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network
from tecafn.layers.alignment import frames_of_tokens
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.sequence import zero_padding
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames, Pooling, pool
from tecafn.losses.task import TaskScheme


@dataclass(frozen=True, kw_only=True)
class MAGBERTConfig:
    """Settings; beta and the gate's dropout are the defaults of the authors' public code.

    Args:
        shift: beta > 0, the longest shift as a share of a state's length.
        pooling: ``first`` is [CLS], as published; ``mean`` over the tokens. None = ``first`` where
            layers are trained after the gate, else ``mean``: [CLS] itself has no frame.
        gate_dropout: after the gate.
        head_dropout: before the last layer.
    """

    shift: float = 1.0
    pooling: Pooling | None = None
    gate_dropout: float = 0.5
    head_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.shift <= 0:
            raise ValueError(f"shift must be > 0, got {self.shift}")


class AdaptationGate(nn.Module):
    """MAG: token states shifted by the frames they were spoken in.

    Args:
        text_dim: width of the states.
        widths: of the frames of audio and vision.
        shift: beta.
        dropout: on the answer.

    Source: Rahman et al. 2020, the multimodal adaptation gate; the bias is a parameter of each
    modality's linear layer, as in the public code. Ours: a modality that a token has no frame of
    adds nothing, where that code gives it a frame of zeros.
    """

    def __init__(
        self, text_dim: int, widths: dict[Modality, int], *, shift: float, dropout: float
    ) -> None:
        super().__init__()
        self.gates = nn.ModuleDict(
            {m: nn.Linear(width + text_dim, text_dim) for m, width in widths.items()}
        )
        self.shifts = nn.ModuleDict({m: nn.Linear(width, text_dim) for m, width in widths.items()})
        self.norm = nn.LayerNorm(text_dim)
        self.dropout = Dropout(dropout)
        self.shift = shift

    def forward(self, states: Tensor, spoken: dict[Modality, Padded]) -> Tensor:
        """(B, L, D) to the same shape.

        Args:
            states: of the tokens.
            spoken: each modality's frames, one per token: (B, L, width).
        """
        change = torch.zeros_like(states)  # H
        for modality, frames in spoken.items():
            gate = torch.relu(self.gates[modality](torch.cat([frames.values, states], dim=-1)))
            term = gate * self.shifts[modality](frames.values)
            change = change + zero_padding(term, frames.mask)
        length, change_length = (
            torch.linalg.vector_norm(values, dim=-1, keepdim=True) for values in (states, change)
        )
        scale = (length / (change_length + 1e-6) * self.shift).clamp(max=1.0)  # alpha
        shifted: Tensor = self.dropout(self.norm(states + scale * change))
        return shifted


class MAGBERT(Network):
    """Text encoder with the gate in it, pooler, prediction.

    Ours: the pooler is a fresh layer, where the public code takes BERT's pretrained one.
    """

    def __init__(self, config: MAGBERTConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        if Modality.TEXT not in self.frames.dims:
            raise ValueError("it shifts the states of text, which is not in use")
        encoder = self.frames.text_encoder
        dim = encoder.hidden_dim
        self.gate = AdaptationGate(
            dim,
            {m: width for m, width in self.frames.dims.items() if m != Modality.TEXT},
            shift=config.shift,
            dropout=config.gate_dropout,
        )
        self.pooling: Pooling = config.pooling or (
            "first" if encoder.num_trained_layers else "mean"
        )
        self.slots = AbsentVectors({Modality.TEXT: dim})
        self.pooler = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), Dropout(config.head_dropout))
        self.answer = OutputLayer(dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """Scores or logits; the feature ``text`` (B, D) is the pooled state.

        Raises:
            ValueError: text comes with frames, and nobody says which token is in which.
        """
        vectors = {}
        if Modality.TEXT in batch.sequences:
            encoder = self.frames.text_encoder
            first = encoder.run_frozen(batch.sequences[Modality.TEXT])
            shifted = self.gate(first.values, self._spoken(batch))
            states = encoder.run_trained(dataclasses.replace(first, values=shifted))
            vectors[Modality.TEXT] = pool(states, self.pooling)
        text = self.slots(vectors, batch)[Modality.TEXT]
        return Output(self.answer(self.pooler(text)), {"text": text})

    def _spoken(self, batch: Batch) -> dict[Modality, Padded]:
        """Audio and vision frames of each token."""
        others: dict[Modality, Padded] = dict(batch.sequences)
        del others[Modality.TEXT]
        present = {m: batch.present[m] for m in others}
        frames = self.frames(dataclasses.replace(batch, sequences=others, present=present))
        if not frames:
            return {}
        if batch.frame_of_token is None:
            raise ValueError("frame_of_token must say which frame each token was spoken in")
        return {m: frames_of_tokens(padded, batch.frame_of_token) for m, padded in frames.items()}


METHODS.register(
    "mag_bert",
    Method(
        config=MAGBERTConfig,
        build=lambda config, info: TaskScheme(MAGBERT(config, info), scores="mse"),
        paper="Rahman et al., Integrating Multimodal Information in Large Pretrained "
        "Transformers, ACL 2020",
        basis="code",
        certified="the authors' code, but a token without frames is not shifted",
        summary="a gate inside the text encoder shifts each token by its own frames",
        needs=("aligned",),
    ),
)
