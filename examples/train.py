"""Generate a small corpus, train on it, evaluate once on test.

python examples/train.py --out runs/example-train
"""

# %% [markdown]
# # Train and evaluate
# The corpus is generated: texts with synthetic voice and face features, no download. The test
# split is evaluated once, with the epoch that validation chose.

# %%
import argparse
from pathlib import Path

import tecafn
from tecafn.data.synthetic import CorpusSpec, make_corpus

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("runs/example-train"))
parser.add_argument("--samples", type=int, default=400, help="of the training split")
options, _ = parser.parse_known_args()

# %%
data, run = options.out / "corpus", options.out / "run"
make_corpus(
    data,
    CorpusSpec(num_train=options.samples, num_valid=100, num_test=200),
)

# %%
record = tecafn.train(
    "synthetic/tecafn.toml", data=data, out=run, training={"max_epochs": 4}, progress=False
)
training = record["training"]
print(f"epoch {training['best_epoch']} of {training['epochs']} was chosen, counted from 0")

# %%
evaluation = tecafn.evaluate(run, data=data, split="test")
low, high = evaluation["intervals"]["mae"]
print(f"MAE on test: {evaluation['metrics']['mae']:.3f} (95 % {low:.3f} to {high:.3f})")
print(f"report: {run / 'report.html'}")
