"""Write a model as an ONNX graph and run it without torch.

python examples/export_model.py --out runs/example-export
python examples/export_model.py --model runs/mine --out runs/example-export
"""

# %% [markdown]
# # Export
# The graph, its tokenizer and a description go into a folder. Each is held against the network on
# batches of other sizes and lengths before it stays there.

# %%
import argparse
from pathlib import Path

import tecafn
import tecafn.onnx

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="builtin", help="a run, or a name that tecafn.load knows")
parser.add_argument("--out", type=Path, default=Path("runs/example-export"))
options, _ = parser.parse_known_args()

# %%
made = tecafn.export(options.model, out=options.out).exported
print(f"{', '.join(made.files)} in {made.folder}")
print(f"compared on {made.num_batches} batches, largest difference {made.difference:.1e}")

# %% [markdown]
# What follows needs onnxruntime, tokenizers and numpy, and no torch.

# %%
texts = ["I loved every minute of it.", "It was a waste of time."]
graph = tecafn.onnx.load(options.out)
network = tecafn.load(options.model)
for text, ours, theirs in zip(texts, graph.predict(texts), network.predict(texts), strict=True):
    print(f"{ours:+.3f} as a graph, {theirs:+.3f} with torch: {text}")
