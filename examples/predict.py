"""Score sentences with a model that comes with the package, or with a run of yours.

python examples/predict.py
python examples/predict.py --model runs/mine
"""

# %% [markdown]
# # Predict
# A score is on the scale of the training labels, -3 to 3 for CMU-MOSI. It never depends on the
# other sentences of the call.

# %%
import argparse

import tecafn

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="builtin", help="a run, or a name that tecafn.load knows")
options, _ = parser.parse_known_args()

# %%
texts = [
    "I loved every minute of it.",
    "It was a waste of time.",
    "The plot was thin, but the acting made up for it.",
]
model = tecafn.load(options.model)
print(model)
for text, score in zip(texts, model.predict(texts), strict=True):
    print(f"{score:+.2f}  {text}")
