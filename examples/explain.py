"""Ask a trained model how much of an answer each modality gave.

python examples/explain.py --out runs/example-explain
"""

# %% [markdown]
# # Explain
# The contributions are exact Shapley values over the subsets of the modalities. They and the
# answer to nothing at all, `base`, add up to the prediction.

# %%
import argparse
from itertools import islice
from pathlib import Path

import tecafn
from tecafn import Modality
from tecafn.data import Store
from tecafn.data.synthetic import CorpusSpec, make_corpus
from tecafn.serving.shapley import contributions

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("runs/example-explain"))
options, _ = parser.parse_known_args()

# %%
data, run = options.out / "corpus", options.out / "run"
make_corpus(data, CorpusSpec(num_train=400, num_valid=100, num_test=50))
tecafn.train(
    "synthetic/tecafn.toml", data=data, out=run, training={"max_epochs": 3}, progress=False
)

# %%
samples = list(islice(Store.open(data).split("valid").samples(), 5))
found = contributions(
    tecafn.load(run),
    text=[sample.text for sample in samples],
    audio=[sample.sequences.get(Modality.AUDIO) for sample in samples],
    vision=[sample.sequences.get(Modality.VISION) for sample in samples],
)

# %%
for row, sample in enumerate(samples):
    parts = "  ".join(f"{name} {values[row]:+.2f}" for name, values in found.values.items())
    print(f"{found.full[row]:+.2f} = {found.base[row]:+.2f}  {parts}  | {sample.text[:60]}")
