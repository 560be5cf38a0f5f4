"""HCIL: three levels of contrast, prediction across modalities; from the abstract.

Fu et al., "Hybrid cross-modal interaction learning for multimodal sentiment analysis",
Neurocomputing 2024.

Within a modality samples of one sentiment are drawn together; between modalities a sample's own
vectors find each other; the interactions of pairs of modalities do so too. Each modality predicts
the others. Single modalities, pairs and all three are fused one after the other.

Only the abstract was available to us. Ours, therefore: the vectors (the text's [CLS], last LSTM
states of audio and vision, all projected to one width); sentiment within a modality is the label's
side of the middle of its range, or the class, and the contrast is the supervised one; between
modalities and between interactions it is InfoNCE, over the global batch; an interaction is a linear
layer and ReLU on two joined vectors; a prediction is a two-layer network, compared by the cosine
with a vector that gets no gradient from it; the fusion takes the three vectors and the three
interactions through a two-layer head; the absolute error, or the cross-entropy, as the task's loss;
every width and weight; a learned vector for an absent modality. None of its published numbers is
claimed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import gather_rows, mean_over_rows, row_offset
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames
from tecafn.layers.utterance import UtteranceEncoders
from tecafn.losses.contrastive import info_nce
from tecafn.losses.task import task_loss

PAIRS = tuple(itertools.combinations(Modality, 2))


@dataclass(frozen=True, kw_only=True)
class HCILConfig:
    """Settings; all of them ours.

    Args:
        dim: width of every vector and interaction.
        lstm_dim: of audio's and vision's LSTM.
        temperature: of the contrasts, > 0.
        intra_weight, inter_weight, interactive_weight: of the three contrasts.
        prediction_weight: of the prediction across modalities.
        fusion_dropout: of the joined vectors.
    """

    dim: int = 128
    lstm_dim: int = 64
    temperature: float = 0.1
    intra_weight: float = 0.1
    inter_weight: float = 0.1
    interactive_weight: float = 0.1
    prediction_weight: float = 0.1
    fusion_dropout: float = 0.1


def supervised_contrast(
    vectors: Tensor, groups: Tensor, *, present: Tensor, temperature: float
) -> Tensor:
    """Each vector finds the others of its group among all others of the global batch.

    Args:
        vectors: (B, D), any length; normalised here.
        groups: (B,) int64, what samples have in common.
        present: (B,) bool, rows that take part.
        temperature: tau > 0.

    Returns:
        The mean over the rows with another of their group; zero if there is none.

    Raises:
        ValueError: ``temperature`` <= 0.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = supervised_contrast(
        ...     vectors, torch.tensor([0, 0, 1]), present=torch.ones(3, dtype=torch.bool),
        ...     temperature=1.0)
        >>> round(loss.item(), 4)
        0.3133

    Source: Khosla et al. 2020, "Supervised contrastive learning"; the sum over a group stands
    outside the logarithm.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    query = functional.normalize(vectors, dim=1)
    keys, all_groups, candidates = (gather_rows(v) for v in (query, groups, present))
    first = row_offset(len(query), query.device)
    own = torch.arange(len(query), device=query.device).unsqueeze(1) + first
    others = candidates & (own != torch.arange(len(keys), device=query.device))  # (B, N)
    # Not -inf: a row without any other would give NaN, whose gradient no mask removes.
    lowest = torch.finfo(query.dtype).min / 2
    logits = (query @ keys.T / temperature).masked_fill(~others, lowest)
    log_share = functional.log_softmax(logits, dim=1)
    alike = others & (groups.unsqueeze(1) == all_groups)
    count = alike.sum(1)
    rows = -torch.where(alike, log_share, 0.0).sum(1) / count.clamp(min=1)
    return mean_over_rows(rows, present & (count > 0))


class HCIL(Network):
    """Vectors, interactions of pairs, fusion of both, the answer."""

    def __init__(self, config: HCILConfig, info: DataInfo) -> None:
        super().__init__()
        dim = config.dim
        self.frames = ModalityFrames(info)
        self.encoders = UtteranceEncoders(
            self.frames.dims,
            lstm_dims=dict.fromkeys((Modality.AUDIO, Modality.VISION), config.lstm_dim),
            dims=dict.fromkeys(Modality, dim),
        )
        self.slots = AbsentVectors(dict.fromkeys(Modality, dim))
        self.interactions = nn.ModuleDict(
            {f"{a}_{b}": nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU()) for a, b in PAIRS}
        )
        self.hidden = nn.Sequential(
            Dropout(config.fusion_dropout), nn.Linear(6 * dim, dim), nn.ReLU()
        )
        self.answer = OutputLayer(dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """Scores or logits; features ``vector_<modality>``, ``pair_<one>_<other>``, ``fused``."""
        vectors = self.slots(self.encoders(self.frames(batch)), batch)
        pairs = {
            f"{a}_{b}": self.interactions[f"{a}_{b}"](torch.cat([vectors[a], vectors[b]], dim=1))
            for a, b in PAIRS
        }
        joined = torch.cat([*(vectors[m] for m in Modality), *pairs.values()], dim=1)
        fused = self.hidden(joined)
        features = {f"vector_{m}": vector for m, vector in vectors.items()}
        features |= {f"pair_{name}": pair for name, pair in pairs.items()}
        return Output(self.answer(fused), features | {"fused": fused})


class HCILScheme(Scheme):
    """The task, three contrasts, prediction across modalities."""

    def __init__(self, config: HCILConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network: HCIL = HCIL(config, info)
        self.middle = sum(info.label_range) / 2
        dim, used = config.dim, tuple(self.network.frames.dims)
        self.predictors = nn.ModuleDict(
            {
                f"{source}_to_{target}": nn.Sequential(
                    nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
                )
                for source, target in itertools.permutations(used, 2)
            }
        )

    def groups(self, labels: Tensor) -> Tensor:
        """(B,) int64: a score's side of the middle of the label range, or the class."""
        return (labels - self.middle).sign().long() if labels.is_floating_point() else labels

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task``, ``intra``, ``inter``, ``interactive``, ``prediction``."""
        output: Output = self.network(batch)
        terms = {"task": task_loss(output.prediction, batch.labels)}
        assert batch.labels is not None, "the task's loss has refused such a batch"
        features, config = output.features, self.config
        has = self.network.frames.presence(batch)
        groups = self.groups(batch.labels)
        intra = [
            supervised_contrast(
                features[f"vector_{m}"], groups, present=has[m], temperature=config.temperature
            )
            for m in Modality
        ]
        inter = {
            f"inter {a} {b}": info_nce(
                features[f"vector_{a}"],
                features[f"vector_{b}"],
                present=has[a] & has[b],
                temperature=config.temperature,
            )
            for a, b in PAIRS
        }
        complete = has[Modality.TEXT] & has[Modality.AUDIO] & has[Modality.VISION]
        interactive = {
            f"interactive {'_'.join(one)} {'_'.join(other)}": info_nce(
                features[f"pair_{'_'.join(one)}"],
                features[f"pair_{'_'.join(other)}"],
                present=complete,
                temperature=config.temperature,
            )
            for one, other in itertools.combinations(PAIRS, 2)
        }
        terms["intra"] = torch.stack(intra).mean()
        terms["inter"] = torch.stack([x.loss for x in inter.values()]).mean()
        terms["interactive"] = torch.stack([x.loss for x in interactive.values()]).mean()
        weights = {
            "task": 1.0,
            "intra": config.intra_weight,
            "inter": config.inter_weight,
            "interactive": config.interactive_weight,
        }
        if self.predictors:
            terms["prediction"] = self._prediction(output, has)
            weights["prediction"] = config.prediction_weight
        health = {name: contrast.reading for name, contrast in (inter | interactive).items()}
        return Losses(terms, weights, output, health=health)

    def _prediction(self, output: Output, has: dict[Modality, Tensor]) -> Tensor:
        """Mean over directions of 1 - cosine between a vector and its prediction from another."""
        errors = []
        for name, predictor in self.predictors.items():
            source, target = (Modality(m) for m in name.split("_to_"))
            guess = predictor(output.features[f"vector_{source}"])
            sought = output.features[f"vector_{target}"].detach()
            apart = 1 - functional.cosine_similarity(guess, sought, dim=1)
            errors.append(mean_over_rows(apart, has[source] & has[target]))
        return torch.stack(errors).mean()


METHODS.register(
    "hcil",
    Method(
        config=HCILConfig,
        build=HCILScheme,
        paper="Fu et al., Hybrid cross-modal interaction learning for multimodal sentiment "
        "analysis, Neurocomputing 2024",
        basis="abstract",
        summary="three levels of contrast and hierarchical fusion",
    ),
)
