"""Write a store from arrays of your own, check it, train on it.

python examples/own_data.py --out runs/example-own-data
"""

# %% [markdown]
# # Your own data
# A store takes samples one by one: a text, a label, and frames of whatever width you have. Keep a
# video in one split.

# %%
import argparse
from pathlib import Path

import numpy as np

import tecafn
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, Sample, StoreWriter, check

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("runs/example-own-data"))
options, _ = parser.parse_known_args()

# %%
random = np.random.default_rng(0)
GOOD, BAD = ("lovely", "great", "funny", "warm"), ("dull", "awful", "slow", "cold")
SIZES = {"train": 160, "valid": 40, "test": 60}
data = options.out / "store"
description = DatasetDescription(
    dataset="talks", widths={Modality.AUDIO: 8}, label_range=(-3.0, 3.0)
)
with StoreWriter(data, description) as writer:
    for split, size in SIZES.items():
        for number in range(size):
            said, heard = random.uniform(-1.5, 1.5, 2)
            word = random.choice(GOOD if said > 0 else BAD)
            frames = heard + random.normal(size=(int(random.integers(5, 30)), 8))
            writer.add(
                Sample(
                    id=f"{split}{number // 4}_{number % 4}",
                    source_id=f"{split}/{number}",
                    video=f"{split}{number // 4}",
                    clip=str(number % 4),
                    split=split,
                    text=f"i thought that talk {number} was {word}",
                    label=float(said + heard),
                    sequences={Modality.AUDIO: frames.astype(np.float32)},
                )
            )

# %%
report = check(data)
print(report.render())

# %%
run = options.out / "run"
tecafn.train("synthetic/lmf.toml", data=data, out=run, training={"max_epochs": 5}, progress=False)
evaluation = tecafn.evaluate(run, data=data, split="test")
print(f"MAE on test: {evaluation['metrics']['mae']:.3f}")
