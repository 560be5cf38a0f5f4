"""Register a method, hold it against the contract that every method keeps, train it.

python examples/own_method.py --out runs/example-own-method
"""

# %% [markdown]
# # Your own method
# A method is settings, a network that predicts, and a scheme that trains it. This one lets each
# modality vote, weighted by how sure a gate is of it.

# %%
import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import tecafn
from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.output import Output
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network
from tecafn.data.synthetic import CorpusSpec, make_corpus
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames, pool
from tecafn.losses.task import TaskScheme
from tecafn.testing import METHOD_PARTS, check_part, method_case

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("runs/example-own-method"))
options, _ = parser.parse_known_args()


# %%
@dataclass(frozen=True, kw_only=True)
class VoteConfig:
    """Settings.

    Args:
        dim: width of each modality's vector.
        head_dropout: before the answer.
    """

    dim: int = 32
    head_dropout: float = 0.1


class Vote(Network):
    """Means over time, a gate for each modality, a weighted sum, an answer."""

    def __init__(self, config: VoteConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        self.project = nn.ModuleDict(
            {m: nn.Linear(width, config.dim) for m, width in self.frames.dims.items()}
        )
        self.slots = AbsentVectors(dict.fromkeys(self.frames.dims, config.dim))
        self.gate = nn.Linear(config.dim, 1)
        self.dropout = Dropout(config.head_dropout)
        self.answer = OutputLayer(config.dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """(B,) scores or (B, C) logits."""
        frames = self.frames(batch)
        vectors = {m: torch.relu(self.project[m](pool(x, "mean"))) for m, x in frames.items()}
        filled = torch.stack(list(self.slots(vectors, batch).values()), dim=1)  # (B, M, dim)
        weights = self.gate(filled).softmax(dim=1)
        fused = (weights * filled).sum(1)
        return Output(self.answer(self.dropout(fused)), {"fused": fused})


METHODS.register(
    "vote",
    Method(
        config=VoteConfig,
        build=lambda config, info: TaskScheme(Vote(config, info)),
        paper="none: an example",
        basis="ours",
        summary="modalities vote, weighted by a gate",
    ),
)

# %% [markdown]
# The contract: padding and neighbours are invisible, every parameter is trained, a batch can be
# learned by heart, resuming is exact. `tecafn.testing.check_method` runs all of it.

# %%
with method_case("vote") as case:
    for part in ("padding invisible", "neighbours invisible", "every parameter trained"):
        check_part(case, part)
print(f"3 of {len(METHOD_PARTS)} parts of the contract were run, and kept")

# %%
data, run = options.out / "corpus", options.out / "run"
make_corpus(data, CorpusSpec(num_train=300, num_valid=80, num_test=120))
config = options.out / "vote.toml"
config.write_text(
    'method = "vote"\ntext_encoder = "minilm"\nnum_trained_text_layers = 0\n'
    "[training]\nmax_epochs = 4\n",
    encoding="utf-8",
)
tecafn.train(config, data=data, out=run, progress=False)
evaluation = tecafn.evaluate(run, data=data, split="test")
print(f"MAE on test: {evaluation['metrics']['mae']:.3f}")
