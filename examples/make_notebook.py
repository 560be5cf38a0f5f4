"""A notebook from an example: its ``# %%`` marks are where cells begin.

python examples/make_notebook.py examples/train.py train.ipynb
"""

import json
import re
import sys
from pathlib import Path
from typing import Any


def notebook_of(script: str) -> dict[str, Any]:
    """A script as a notebook of nbformat 4."""
    cells: list[dict[str, Any]] = []
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        is_text = "[markdown]" in head
        text = body.strip("\n")
        if is_text:
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        cell = {
            "cell_type": "markdown" if is_text else "code",
            "id": f"cell-{len(cells)}",
            "metadata": {},
            "source": text.splitlines(keepends=True),
        }
        cells.append(cell if is_text else {**cell, "execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    made = notebook_of(source.read_text(encoding="utf-8"))
    target.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(target)
