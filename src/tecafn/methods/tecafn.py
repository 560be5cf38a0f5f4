"""TeCaFN: text-centered cross-sample fusion.

Huang et al., "Text-centered cross-sample fusion network for multimodal sentiment analysis",
Multimedia Systems 2024. With another core modality the same network is AeCaFN (audio) or VeCaFN
(vision) of Fig. 3.

The file reads like Sect. 3: settings (4.4), encoders (3.2.1), fusion and prediction (3.2.3, 3.3),
then the training scheme: similarity ranking (3.2.2), replacement gate and pairwise prediction
(3.2.3), fused contrast (3.2.4), objective (3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch, Modality, Padded
from tecafn.core.info import DataInfo
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import gather_rows, mean_over_rows
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.layers.attention import Residual, Transformer
from tecafn.layers.dropout import Dropout
from tecafn.layers.encoders import Dropouts, FrameEncoder, TextSequenceEncoder
from tecafn.layers.heads import OutputKind, PredictionHead
from tecafn.layers.sequence import MaskedConv1d, masked_mean
from tecafn.losses.contrastive import info_nce
from tecafn.losses.negatives import sample_hard_negatives
from tecafn.losses.task import task_loss

LETTER = {Modality.TEXT: "t", Modality.AUDIO: "a", Modality.VISION: "v"}


@dataclass(frozen=True, kw_only=True)
class TeCaFNConfig:
    """Settings. Where a value may differ between the other modalities (Table 5 needs it), a
    mapping such as ``{audio = 0.0, vision = 0.7}`` stands for the single value.

    Args:
        core: the modality that queries the others; text, or audio (AeCaFN), or vision (VeCaFN).
        dim: common width d of the sequences that are fused.
        num_heads: attention heads; divides ``dim``.
        num_layers: layers L of each cross-sample attention (eq. 11-12).
        num_unimodal_layers: layers of each unimodal transformer (eq. 2-3).
        unimodal_hidden_dim: width of the LSTM (eq. 4).
        text_kernel_size, frame_kernel_size: k_m of eq. 5 for text, and for audio and vision.
        swap_probability: p of the replacement gate.
        num_hard_negatives: how many of the most similar samples the gate draws from; "all" draws
            random partners (Table 5, "w/o Hardneg").
        temperature: tau of both contrasts.
        contrast_weight, pairwise_weight: lambda1 and lambda2 of eq. 19.
        weights: a term's own weight in place of those two; 0 drops it. Names: ``task``, the two
            unimodal contrasts (``ta``, ``tv``), ``bicon``, the pairwise terms (``tap``, ``tvp``);
            with another core its letter stands first (``at``, ``av``, ``atp``, ...).
        residual: ``printed`` is ``f(LN(x)) + LN(x)`` as in eq. 2-3 and 11-12; ``pre_norm`` the
            usual ``x + f(LN(x))``.
        fusion: z_s is the ``sum`` of the pooled fused sequences, or their ``concat``enation.
        output: ``tanh`` scaled to the label range (eq. 17 taken literally caps the score at 1), or
            ``linear``.
        embedding_dropout, ..., mapper_dropout: probabilities.
    """

    core: Modality = Modality.TEXT
    dim: int = 30
    num_heads: int = 5
    num_layers: int = 6
    num_unimodal_layers: int = 6
    unimodal_hidden_dim: int = 32
    text_kernel_size: int = 1
    frame_kernel_size: int = 3
    swap_probability: float | dict[Modality, float] = 0.7
    num_hard_negatives: int | Literal["all"] | dict[Modality, int | Literal["all"]] = 3
    temperature: float = 0.1
    contrast_weight: float = 0.1
    pairwise_weight: float = 0.1
    weights: dict[str, float] = field(default_factory=dict)
    residual: Residual = "printed"
    fusion: Literal["sum", "concat"] = "sum"
    output: OutputKind = "tanh"
    embedding_dropout: float = 0.25
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    head_dropout: float = 0.1
    mapper_dropout: float = 0.1

    def __post_init__(self) -> None:
        known = self._shared_weights()
        unknown = sorted(set(self.weights) - set(known))
        if unknown:
            raise ValueError(f"weights: unknown terms {unknown}; known: {', '.join(known)}")
        for modality in self.others:
            probability, count = self.swap_of(modality), self.negatives_of(modality)
            if not 0.0 <= probability <= 1.0:
                raise ValueError(f"swap_probability must be in [0, 1], got {probability}")
            if count is not None and count < 1:
                raise ValueError(f'num_hard_negatives must be >= 1 or "all", got {count}')

    @property
    def dropouts(self) -> Dropouts:
        """Inside the transformers."""
        return Dropouts(
            embedding=self.embedding_dropout,
            attention=self.attention_dropout,
            relu=self.relu_dropout,
            residual=self.residual_dropout,
        )

    @property
    def others(self) -> tuple[Modality, ...]:
        """The two modalities that the core queries."""
        return tuple(m for m in Modality if m != self.core)

    def swap_of(self, other: Modality) -> float:
        """p for this modality; one that a mapping leaves out is never replaced."""
        p = self.swap_probability
        return p.get(other, 0.0) if isinstance(p, dict) else p

    def negatives_of(self, other: Modality) -> int | None:
        """num for this modality; None = every other sample of the batch."""
        num = self.num_hard_negatives
        count = num.get(other, 3) if isinstance(num, dict) else num
        return None if count == "all" else count

    def pair(self, other: Modality) -> str:
        """``ta`` for text and audio: how the paper names a term of that pair."""
        return LETTER[self.core] + LETTER[other]

    def term_weights(self) -> dict[str, float]:
        """The weight of every term of eq. 19."""
        return self._shared_weights() | self.weights

    def _shared_weights(self) -> dict[str, float]:
        weights = {"task": 1.0, "bicon": self.contrast_weight}
        weights |= {self.pair(m): self.contrast_weight for m in self.others}
        weights |= {self.pair(m) + "p": self.pairwise_weight for m in self.others}
        return weights


class TeCaFN(Network):
    """The inference path: every sample is fused with itself.

    ``encode``, ``attend`` and ``combine`` are what the scheme composes with replaced rows.
    """

    def __init__(self, config: TeCaFNConfig, info: DataInfo) -> None:
        super().__init__()
        self.core = config.core
        self.encoders = nn.ModuleDict()
        for modality in info.modalities:
            if modality == Modality.TEXT:
                self.encoders[modality] = TextSequenceEncoder(
                    info, dim=config.dim, kernel_size=config.text_kernel_size
                )
            elif modality in info.widths:
                self.encoders[modality] = FrameEncoder(
                    info.widths[modality],
                    info.statistics.get(modality),
                    dim=config.dim,
                    num_layers=config.num_unimodal_layers,
                    num_heads=config.num_heads,
                    hidden_dim=config.unimodal_hidden_dim,
                    kernel_size=config.frame_kernel_size,
                    residual=config.residual,
                    dropouts=config.dropouts,
                )
        self.others = tuple(m for m in config.others if m in self.encoders)
        self.attention = nn.ModuleDict(
            {
                m: Transformer(
                    config.dim,
                    num_layers=config.num_layers,
                    num_heads=config.num_heads,
                    attention_dropout=config.attention_dropout,
                    relu_dropout=config.relu_dropout,
                    residual_dropout=config.residual_dropout,
                    residual=config.residual,
                    cross=True,
                )
                for m in self.others
            }
        )
        self.usual_others = config.others
        self.absent_core = nn.Parameter(torch.randn(config.dim) * config.dim**-0.5)
        slots = len(config.others) if config.fusion == "concat" else 1
        self.absent_slots = (
            nn.ParameterDict({m: torch.zeros(config.dim) for m in config.others})
            if config.fusion == "concat"
            else None
        )
        self.head = PredictionHead(
            slots * config.dim, info, dropout=config.head_dropout, output=config.output
        )

    def encode(self, batch: Batch) -> dict[Modality, Padded]:
        """X_m of eq. 5 for each modality the batch has, and always one for the core.

        An absent core is a learned one-frame sequence: (B, L, d) with only its first frame real.
        """
        encoded = {
            m: self.encoders[m](batch.sequences[m]) for m in Modality if self.takes(m, batch)
        }
        learned = self.absent_core.expand(batch.size, 1, -1)
        first_only = torch.ones(batch.size, 1, dtype=torch.bool, device=batch.device)
        if self.core not in encoded:
            encoded[self.core] = Padded(learned, first_only)
            return encoded
        core, present = encoded[self.core], batch.present[self.core]
        length = core.mask.shape[1]
        stand_in = functional.pad(learned, (0, 0, 0, length - 1))
        stand_in_mask = functional.pad(first_only, (0, length - 1))
        encoded[self.core] = Padded(
            torch.where(present[:, None, None], core.values, stand_in.to(core.values.dtype)),
            torch.where(present[:, None], core.mask, stand_in_mask),
        )
        return encoded

    def takes(self, modality: Modality, batch: Batch) -> bool:
        """Is this modality in use, and does the batch have its tensors?"""
        return modality in self.encoders and modality in batch.sequences

    def attend(self, modality: Modality, core: Padded, other: Padded) -> Padded:
        """h_cm of eq. 11-12: the core's frames query those of ``modality``, (B, Lc, d)."""
        fused = self.attention[modality](core.values, other.values, other.mask)
        return Padded(fused, core.mask)

    def combine(
        self,
        core: Padded,
        attended: Mapping[Modality, Padded],
        present: Mapping[Modality, Tensor],
    ) -> Output:
        """Pool the fused sequences that are present and predict (eq. 17).

        Args:
            core: X_c, which stands in where no other modality is present.
            attended: h_cm by modality.
            present: (B,) bool by modality.
        """
        alone = masked_mean(core.values, core.mask)
        pooled = {m: masked_mean(h.values, h.mask) for m, h in attended.items()}
        has = {m: present[m].unsqueeze(1) for m in pooled}
        count = sum((h.to(alone.dtype) for h in has.values()), alone.new_zeros(len(alone), 1))
        if self.absent_slots is None:
            total = sum(
                (torch.where(has[m], pooled[m], 0.0) for m in pooled), torch.zeros_like(alone)
            )
            usual = len(self.usual_others)
            fused = torch.where(count > 0, total * (usual / count.clamp(min=1)), alone)
        else:
            slots = [
                torch.where(has[m], pooled[m], self.absent_slots[m])
                if m in pooled
                else self.absent_slots[m].expand_as(alone)
                for m in self.usual_others
            ]
            twice = torch.cat([alone] * len(slots), dim=1)
            fused = torch.where(count > 0, torch.cat(slots, dim=1), twice)
        features = {"fused": fused} | {f"pooled_{m}": vector for m, vector in pooled.items()}
        return Output(self.head(fused), features)  # eq. 17

    def forward(self, batch: Batch) -> Output:
        """Predict each sample from its own modalities."""
        encoded = self.encode(batch)
        core = encoded[self.core]
        attended = {m: self.attend(m, core, encoded[m]) for m in self.others if m in encoded}
        return self.combine(core, attended, batch.present)


class Mapper(nn.Module):
    """f and g of eq. 6 and 15: a depth-wise convolution, then mean pooling."""

    def __init__(self, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.convolution = MaskedConv1d(dim, dim, kernel_size=3, depthwise=True)

    def forward(self, sequence: Padded) -> Tensor:
        """(B, L, d) to (B, d)."""
        values = self.convolution(self.dropout(sequence.values), sequence.mask)
        return masked_mean(values, sequence.mask)


class TeCaFNScheme(Scheme):
    """The training: similarity ranking, replacement gate, pairwise prediction, fused contrast."""

    network: TeCaFN

    def __init__(self, config: TeCaFNConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network = TeCaFN(config, info)

        def mappers() -> nn.ModuleDict:
            return nn.ModuleDict(
                {m: Mapper(config.dim, dropout=config.mapper_dropout) for m in self.network.others}
            )

        # f1 belongs to a pair (core, m), as f2 does: "corresponding Conv1D mappers" (Sect. 3.2.2).
        self.core_mappers = mappers()
        self.other_mappers = mappers()
        self.fused_mappers = mappers() if len(self.network.others) == 2 else nn.ModuleDict()
        self.pair_heads = nn.ModuleDict({m: nn.Linear(config.dim, 2) for m in self.network.others})

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """All terms of eq. 19 for one batch."""
        config, network = self.config, self.network
        encoded = network.encode(batch)
        core = encoded[config.core]
        if network.takes(config.core, batch):
            core_present = batch.present[config.core]
        else:
            core_present = torch.zeros(batch.size, dtype=torch.bool, device=batch.device)
        terms: dict[str, Tensor] = {}
        attended: dict[Modality, Padded] = {}
        pair_hits: list[Tensor] = []
        both: dict[Modality, Tensor] = {}

        for modality in network.others:
            if modality not in encoded:
                continue
            other = encoded[modality]
            both[modality] = core_present & batch.present[modality]
            contrast = info_nce(
                self.core_mappers[modality](core),
                self.other_mappers[modality](other),
                present=both[modality],
                temperature=config.temperature,
            )  # eq. 6-7
            pairing = sample_hard_negatives(
                contrast.similarity,
                batch.index,
                positive=contrast.positive,
                # A row that takes no part keeps its own frames: it sees no candidates.
                candidates=contrast.candidates & both[modality].unsqueeze(1),
                swap_probability=config.swap_of(modality),
                num_hard_negatives=config.negatives_of(modality),
                seed=progress.seed,
                epoch=progress.epoch,
                stream=list(Modality).index(modality),
            )
            gathered = Padded(gather_rows(other.values), gather_rows(other.mask))
            attended[modality] = network.attend(
                modality, core, gathered.select(pairing.column)
            )  # eq. 8-12
            logits = self.pair_heads[modality](
                masked_mean(attended[modality].values, attended[modality].mask)
            )  # eq. 13
            target = pairing.matched.long()
            rows = functional.cross_entropy(logits, target, reduction="none")
            pair = config.pair(modality)
            terms[pair] = contrast.loss
            terms[pair + "p"] = mean_over_rows(rows, both[modality])  # eq. 14
            hits = (logits.detach().argmax(1) == target).to(rows.dtype)
            pair_hits.append(mean_over_rows(hits, both[modality]))

        if len(attended) == 2:
            first, second = (self.fused_mappers[m](h) for m, h in attended.items())
            everything = torch.stack(list(both.values())).all(0)
            terms["bicon"] = sum(
                (
                    info_nce(a, b, present=everything, temperature=config.temperature).loss
                    for a, b in ((first, second), (second, first))
                ),
                first.new_zeros(()),
            )  # eq. 15-16

        output = network.combine(core, attended, batch.present)
        terms["task"] = task_loss(output.prediction, batch.labels)  # eq. 18
        return Losses(terms, config.term_weights(), output, self._log(terms, pair_hits))

    def _log(self, terms: Mapping[str, Tensor], pair_hits: list[Tensor]) -> dict[str, Tensor]:
        """The sums that Figure 4 draws, and how often the pairwise heads are right."""
        zero = terms["task"].new_zeros(())
        pairs = [self.config.pair(m) for m in self.config.others]
        con = [terms[name].detach() for name in (*pairs, "bicon") if name in terms]
        pairwise = [terms[name + "p"].detach() for name in pairs if name + "p" in terms]
        log = {"con": sum(con, zero), "ap": sum(pairwise, zero)}
        if pair_hits:
            log["pair_accuracy"] = torch.stack(pair_hits).mean()
        return log


METHODS.register(
    "tecafn",
    Method(
        config=TeCaFNConfig,
        build=TeCaFNScheme,
        paper="Huang et al., Text-centered cross-sample fusion network for multimodal sentiment "
        "analysis, Multimedia Systems 2024",
        summary="text-centered attention to hard negatives of other samples, two contrasts",
    ),
)
