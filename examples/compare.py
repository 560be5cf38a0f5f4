"""Train two methods with two seeds each and test their difference.

python examples/compare.py --out runs/example-compare
"""

# %% [markdown]
# # Compare methods
# Every method is trained under one budget, each run in a process of its own. A difference has an
# interval from resampling videos.

# %%
import argparse
from pathlib import Path

import tecafn
from tecafn.data.synthetic import CorpusSpec, make_corpus

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("runs/example-compare"))
options, _ = parser.parse_known_args()

# %%
data = options.out / "corpus"
make_corpus(data, CorpusSpec(num_train=200, num_valid=60, num_test=120))
summary = tecafn.compare(
    data=data,
    out=options.out / "comparison",
    methods=["lmf", "self_mm"],
    seeds=2,
    overrides=["training.max_epochs=2"],
)

# %%
for row in summary["methods"]:
    mae = row["metrics"]["mae"]
    print(f"{row['name']}: MAE {mae['mean']:.3f}, difference {row['difference'].get('mae')}")
print(f"tables: {options.out / 'comparison' / 'comparison.html'}")
