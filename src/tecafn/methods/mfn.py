"""MFN: memory fusion network.

Zadeh et al., "Memory Fusion Network for Multi-view Sequential Learning", AAAI 2018. An LSTM a
modality over word-aligned frames, and a memory that attends to how their cell states change from
one frame to the next (``layers/memory_fusion.py``); the last hidden states and the memory predict.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.output import Output
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network
from tecafn.core.settings import select
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.memory_fusion import MemoryFusion, MemoryFusionSettings, joint_frames
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames
from tecafn.losses.task import TaskScheme


@dataclass(frozen=True, kw_only=True)
class MFNConfig:
    """Settings; the defaults are those that MMSA (Mao et al. 2022) publishes for MFN on MOSI.

    Args:
        text_hidden_dim, audio_hidden_dim, vision_hidden_dim: widths of the LSTMs.
        memory_dim: width of the memory.
        attention_dim, candidate_dim, retain_dim, update_dim: hidden layers of the small networks
            around it.
        output_dim: hidden layer before the answer.
        attention_dropout, candidate_dropout, retain_dropout, update_dropout, output_dropout: in
            those layers.
    """

    text_hidden_dim: int = 256
    audio_hidden_dim: int = 32
    vision_hidden_dim: int = 256
    memory_dim: int = 400
    attention_dim: int = 32
    candidate_dim: int = 64
    retain_dim: int = 256
    update_dim: int = 32
    output_dim: int = 128
    attention_dropout: float = 0.2
    candidate_dropout: float = 0.0
    retain_dropout: float = 0.7
    update_dropout: float = 0.5
    output_dropout: float = 0.0


class MFN(Network):
    """The recurrence over joint frames, a hidden layer, an answer.

    A sample that lacks a modality has a learned vector in the place of that LSTM's last hidden
    state; within the recurrence that LSTM stays at zero.
    """

    def __init__(self, config: MFNConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        self.fusion = MemoryFusion(self.frames.dims, select(config, MemoryFusionSettings))
        self.slots = AbsentVectors(self.fusion.hidden_dims)
        self.hidden = nn.Sequential(
            nn.Linear(self.fusion.out_dim, config.output_dim),
            nn.ReLU(),
            Dropout(config.output_dropout),
        )
        self.answer = OutputLayer(config.output_dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """(B,) scores or (B, C) logits."""
        states, memory = self.fusion(joint_frames(self.frames(batch), batch))
        known = {m: state for m, state in states.items() if m in batch.sequences}
        filled = self.slots(known, batch)
        fused = torch.cat([*(filled[m] for m in states), memory], dim=1)
        return Output(self.answer(self.hidden(fused)), {"fused": fused})


METHODS.register(
    "mfn",
    Method(
        config=MFNConfig,
        build=lambda config, info: TaskScheme(MFN(config, info)),
        paper="Zadeh et al., Memory Fusion Network for Multi-view Sequential Learning, AAAI 2018",
        basis="code",
        certified="MMSA's code, but a word without frames keeps the state",
        summary="one LSTM per modality over aligned words, a gated memory of their changes",
        needs=("aligned",),
    ),
)
