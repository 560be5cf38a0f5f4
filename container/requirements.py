"""Print what a server of an exported model needs, from pyproject.toml: no torch, nothing to train.

python container/requirements.py | pip install -r /dev/stdin
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

# Networks are graphs here, and nothing is trained, imported or drawn.
LEFT_OUT = (
    "lightning-fabric",
    "matplotlib",
    "pyarrow",
    "safetensors",
    "tensorboardX",
    "tomli-w",
    "torch",
    "transformers",
)
EXTRAS = ("video", "exports", "serve")
GRAPHS = ("onnxruntime", "tokenizers")


def requirements() -> list[str]:
    """Lines as pip reads them, sorted.

    Raises:
        ValueError: a name here is not one of pyproject.toml.
    """
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    base = {_name(line): line for line in project["dependencies"]}
    extras = project["optional-dependencies"]
    graphs = {_name(line): line for line in extras["export"]}
    unknown = (set(LEFT_OUT) - set(base)) | (set(GRAPHS) - set(graphs))
    if unknown:
        raise ValueError(f"pyproject.toml does not name {', '.join(sorted(unknown))}")
    lines = {line for name, line in base.items() if name not in LEFT_OUT}
    lines.update(line for extra in EXTRAS for line in extras[extra])
    lines.update(graphs[name] for name in GRAPHS)
    return sorted(lines)


def _name(line: str) -> str:
    return re.split(r"[^\w.-]", line, maxsplit=1)[0]


if __name__ == "__main__":
    print("\n".join(requirements()))
