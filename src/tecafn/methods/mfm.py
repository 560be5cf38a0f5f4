"""MFM: multimodal factorization model.

Tsai et al., "Learning Factorized Multimodal Representations", ICLR 2019. A multimodal factor f_y
predicts; f_y and a modality's own factor f_m together rebuild that modality's sequence; the latent
codes behind the factors are pulled towards a normal distribution.

z_y comes from MFN's recurrence over word-aligned frames (``layers/memory_fusion.py``), each z_m
from an LSTM of its own. Prediction needs z_y and f_y alone: the rest lives in the scheme and is not
exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import mean_over_rows
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.core.settings import per_modality, select
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.memory_fusion import MemoryFusion, MemoryFusionSettings, joint_frames
from tecafn.layers.sequence import SequenceLSTM
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames
from tecafn.losses.mmd import normal_mmd
from tecafn.losses.task import task_loss


@dataclass(frozen=True, kw_only=True)
class MFMConfig:
    """Settings; the defaults are those that MMSA (Mao et al. 2022) publishes for MFM on MOSI.

    Args:
        text_hidden_dim, audio_hidden_dim, vision_hidden_dim: widths of the recurrence's LSTMs.
        memory_dim: width of the memory.
        attention_dim, candidate_dim, retain_dim, update_dim: hidden layers of the small networks
            around it.
        joint_code_dim: width of z_y.
        text_code_dim, audio_code_dim, vision_code_dim: widths of the modalities' own z, and of the
            LSTMs they come from.
        joint_factor_dim: width of f_y.
        text_factor_dim, audio_factor_dim, vision_factor_dim: widths of the modalities' own f.
        text_weight, audio_weight, vision_weight: of each modality's reconstruction.
        discrepancy_weight: of the sum of the codes' discrepancies. The published one goes with the
            published kernel, which is flat.
        kernel_variance: of the discrepancy's kernel; None = half a code's squared width, as in
            MMSA's code of MFM.
        attention_dropout, ..., update_dropout: in the small networks.
        joint_factor_dropout, text_factor_dropout, audio_factor_dropout, vision_factor_dropout:
            between the layers from a code to its factor.
        output_dropout: in the hidden layer before the answer.
    """

    text_hidden_dim: int = 128
    audio_hidden_dim: int = 32
    vision_hidden_dim: int = 128
    memory_dim: int = 64
    attention_dim: int = 32
    candidate_dim: int = 64
    retain_dim: int = 32
    update_dim: int = 64
    joint_code_dim: int = 80
    text_code_dim: int = 64
    audio_code_dim: int = 80
    vision_code_dim: int = 80
    joint_factor_dim: int = 64
    text_factor_dim: int = 32
    audio_factor_dim: int = 16
    vision_factor_dim: int = 64
    text_weight: float = 0.5
    audio_weight: float = 0.01
    vision_weight: float = 0.5
    discrepancy_weight: float = 100.0
    kernel_variance: float | None = None
    attention_dropout: float = 0.7
    candidate_dropout: float = 0.0
    retain_dropout: float = 0.0
    update_dropout: float = 0.5
    joint_factor_dropout: float = 0.5
    text_factor_dropout: float = 0.5
    audio_factor_dropout: float = 0.7
    vision_factor_dropout: float = 0.5
    output_dropout: float = 0.0

    def variance_for(self, code_dim: int) -> float:
        """Of the kernel between codes of this width."""
        return code_dim**2 / 2 if self.kernel_variance is None else self.kernel_variance


def two_layers(in_dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout, linear; the code that MMSA has of MFM ends in another ReLU."""
    return nn.Sequential(
        nn.Linear(in_dim, out_dim), nn.ReLU(), Dropout(dropout), nn.Linear(out_dim, out_dim)
    )


@dataclass(frozen=True)
class JointCode:
    """What the network makes of a batch on the way to its answer.

    Args:
        frames: (B, T, D_m) of each modality the batch has, on the joint frames.
        code: (B, D), z_y.
        factor: (B, D), f_y.
    """

    frames: Mapping[Modality, Padded]
    code: Tensor
    factor: Tensor


class MFM(Network):
    """The part that predicts: MFN's recurrence to z_y, from it f_y, from that the answer.

    A sample that lacks a modality has a learned vector in the place of that LSTM's last hidden
    state.
    """

    def __init__(self, config: MFMConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        self.fusion = MemoryFusion(self.frames.dims, select(config, MemoryFusionSettings))
        self.slots = AbsentVectors(self.fusion.hidden_dims)
        self.code = nn.Linear(self.fusion.out_dim, config.joint_code_dim)
        self.factor = two_layers(
            config.joint_code_dim, config.joint_factor_dim, config.joint_factor_dropout
        )
        self.hidden = nn.Sequential(
            nn.Linear(config.joint_factor_dim, config.joint_factor_dim),
            nn.ReLU(),
            Dropout(config.output_dropout),
        )
        self.answer = OutputLayer(config.joint_factor_dim, info, output="linear")

    def join(self, batch: Batch) -> JointCode:
        """Frames, z_y and f_y."""
        frames = joint_frames(self.frames(batch), batch)
        states, memory = self.fusion(frames)
        filled = self.slots({m: state for m, state in states.items() if m in frames}, batch)
        code = self.code(torch.cat([*(filled[m] for m in states), memory], dim=1))
        return JointCode(frames, code, self.factor(code))

    def predict(self, joint: JointCode) -> Output:
        """(B,) scores or (B, C) logits from f_y."""
        features = {"code": joint.code, "factor": joint.factor}
        return Output(self.answer(self.hidden(joint.factor)), features)

    def forward(self, batch: Batch) -> Output:
        """Predict each sample from its own modalities."""
        return self.predict(self.join(batch))


class Generator(nn.Module):
    """One modality's own code and factor, and the decoder that rebuilds its frames.

    Args:
        frame_dim: width of a frame.
        modality: which settings are meant.
        config: widths and dropouts.

    Source: MFM, Tsai et al. 2019. Ours: the decoder's LSTM takes [f_y, f_m] at every step; the code
    that MMSA has of it gives it once and then feeds back the hidden state.
    """

    def __init__(self, frame_dim: int, modality: Modality, config: MFMConfig) -> None:
        super().__init__()
        code_dim = per_modality(config, "code_dim")[modality]
        factor_dim = per_modality(config, "factor_dim")[modality]
        dropout = per_modality(config, "factor_dropout")[modality]
        self.encoder = SequenceLSTM(frame_dim, code_dim)
        self.code = nn.Linear(code_dim, code_dim)
        self.factor = two_layers(code_dim, factor_dim, dropout)
        decoded_dim = config.joint_factor_dim + factor_dim
        self.decoder = nn.LSTM(decoded_dim, decoded_dim, batch_first=True)
        self.rebuild = nn.Linear(decoded_dim, frame_dim)

    def forward(self, frames: Padded, joint_factor: Tensor) -> tuple[Tensor, Tensor]:
        """z_m (B, D), and the rebuilt frames (B, T, frame_dim).

        Args:
            frames: (B, T, frame_dim).
            joint_factor: (B, D), f_y.
        """
        _, last = self.encoder(frames)
        code = self.code(last)
        both = torch.cat([joint_factor, self.factor(code)], dim=1)
        length = frames.mask.shape[1]
        states, _ = self.decoder(both.unsqueeze(1).expand(-1, length, -1))
        return code, self.rebuild(states)


def reconstruction_loss(rebuilt: Tensor, frames: Padded) -> Tensor:
    """Mean squared error over a sample's real frames and their columns, then over samples.

    Args:
        rebuilt: (B, T, D).
        frames: (B, T, D), not differentiated.

    Returns:
        The mean over the rows of the global batch that have a real frame.

    Example:
        >>> frames = Padded(torch.zeros(1, 2, 1), torch.tensor([[True, False]]))
        >>> reconstruction_loss(torch.tensor([[[3.0], [100.0]]]), frames).item()
        9.0
    """
    error = (rebuilt - frames.values.detach()).square().mean(2)
    error = error.masked_fill(~frames.mask, 0.0)
    rows = error.sum(1) / frames.mask.sum(1).clamp(min=1)
    return mean_over_rows(rows, frames.mask.any(1))


class MFMScheme(Scheme):
    """The task, each modality's reconstruction, and the codes' discrepancy to a normal.

    What is rebuilt are the frames that the recurrence takes. They are a fixed target, also where
    the text encoder is trained: else it would be rewarded for vectors that are easily rebuilt.
    """

    network: MFM

    def __init__(self, config: MFMConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network = MFM(config, info)
        self.weights = per_modality(config, "weight")
        self.generators = nn.ModuleDict(
            {m: Generator(dim, m, config) for m, dim in self.network.frames.dims.items()}
        )

    def _discrepancy(self, code: Tensor, present: Tensor) -> Tensor:
        variance = self.config.variance_for(code.shape[1])
        return normal_mmd(code, present=present, variance=variance)

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """``task``, ``reconstruction_<modality>`` and ``discrepancy``.

        A sample takes part in the terms of the modalities it has.
        """
        joint = self.network.join(batch)
        output = self.network.predict(joint)
        terms = {"task": task_loss(output.prediction, batch.labels)}
        weights = {"task": 1.0, "discrepancy": self.config.discrepancy_weight}
        all_rows = torch.ones(batch.size, dtype=torch.bool, device=batch.device)
        discrepancy = self._discrepancy(joint.code, all_rows)
        for modality, frames in joint.frames.items():
            code, rebuilt = self.generators[modality](frames, joint.factor)
            name = f"reconstruction_{modality}"
            terms[name] = reconstruction_loss(rebuilt, frames)
            weights[name] = self.weights[modality]
            discrepancy = discrepancy + self._discrepancy(code, frames.mask.any(1))
        terms["discrepancy"] = discrepancy
        return Losses(terms, weights, output)


METHODS.register(
    "mfm",
    Method(
        config=MFMConfig,
        build=MFMScheme,
        paper="Tsai et al., Learning Factorized Multimodal Representations, ICLR 2019",
        basis="code",
        certified="MMSA's code, but factors end without a ReLU and the decoder has no feedback",
        summary="a factor that predicts and factors that rebuild each modality, over aligned words",
        needs=("aligned",),
    ),
)
