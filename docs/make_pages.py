"""The pages that are made from the code: docs/configuration.md and the README's table of methods.

    python docs/make_pages.py        # or: make docs

A test compares both with what this would write.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

import tecafn
from tecafn.core.registry import METHODS
from tecafn.experiments.config import RunConfig
from tecafn.training.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "docs" / "configuration.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- methods -->", "<!-- /methods -->"
INTRO = """# Configuration

*Made by `make docs` from the settings' dataclasses; do not edit it here.*

A config is a TOML file. `tecafn train CONFIG` takes a path, or the name of a shipped one (`tecafn
list configs`). What a file leaves out has the default below; an unknown key is refused, with the
nearest known one named. Any key can be set from the command line or in Python:

```
tecafn train mosi/tecafn.toml --data DIR --out RUN --set seed=1 --set training.max_epochs=4
```

```
tecafn.train("mosi/tecafn.toml", data=DIR, out=RUN, seed=1, training={"max_epochs": 4})
```

**A shipped config departs from a budget.** `extends = "budget.toml"` takes everything from that
file, which lies beside it, and replaces key by key what the config itself has; the other file
extends none. Each folder of configs has one budget, so a config shows the method's own settings and
what departs from the budget, and nothing else. A run's `config.toml` and record have all values in
full."""


def described(kind: type[Any]) -> dict[str, str]:
    """Each argument of a docstring's ``Args`` with its description in one line.

    Example:
        >>> described(TrainingConfig)["max_epochs"]
        'epochs at most, >= 1.'
    """
    text = inspect.getdoc(kind) or ""
    part = re.search(r"^Args:\n((?:(?: {4}.*)?\n?)*)", text, re.MULTILINE)
    if part is None:
        return {}
    found: dict[str, str] = {}
    order = [field.name for field in dataclasses.fields(kind)]
    for entry in re.split(r"\n(?= {4}\S)", "\n" + part[1].rstrip()):
        listed, _, words = " ".join(entry.split()).partition(": ")
        names = listed.split(", ")
        if "..." in names:  # a, ..., d: all from a to d
            names = order[order.index(names[0]) : order.index(names[-1]) + 1]
        found |= {name: words for name in names if name in order and name not in found}
    return found


def _shown(value: Any) -> str:
    """A default as TOML has it."""
    if value is None:
        return "none"
    if isinstance(value, Enum):
        return json.dumps(value.value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_shown(item)}' for key, item in value.items())} }}"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise AssertionError(f"{field.name} has no default")


def settings_table(kind: type[Any], *, without: tuple[str, ...] = ()) -> str:
    """One row per key: its default, and what it says."""
    words = described(kind) or described(METHODS["tecafn"].config)  # concat shares its names
    rows = ["| key | default | |", "|---|---|---|"]
    for field in dataclasses.fields(kind):
        if field.name not in without:
            text = words.get(field.name, "").replace("|", "\\|").replace("``", "`")
            rows.append(f"| `{field.name}` | `{_shown(_default(field))}` | {text} |")
    return "\n".join(rows)


def configuration() -> str:
    """The page."""
    blocks = [
        INTRO,
        "## A run",
        settings_table(RunConfig, without=("model", "training")),
        "## `[training]`",
        settings_table(TrainingConfig),
        "## `[model]`",
        "The method's own settings; `method` decides which.",
    ]
    for name in METHODS:
        kind = METHODS[name].config
        blocks.append(f"### `{name}`")
        has_any = bool(dataclasses.fields(kind))
        blocks.append(settings_table(kind) if has_any else "It has no settings of its own.")
    return "\n\n".join(blocks) + "\n"


def methods_table() -> str:
    """One row per method: name, paper, what it needs and does, and what it rests on."""
    bases = {"paper": "paper", "abstract": "abstract only", "ours": "ours: the baseline"}
    rows = [
        "| name | method | needs | tasks | rests on |",
        "|---|---|---|---|---|",
    ]
    for method in tecafn.list_methods():
        authors, comma, _ = method["paper"].partition(",")
        cite = f"; {authors} {method['paper'].split()[-1]}" if comma else ""
        needs = "word-aligned frames" if "aligned" in method["needs"] else ""
        tasks = " only" if len(method["tasks"]) == 1 else ", classification"
        basis = bases.get(method["basis"], method["certified"])
        if method["basis"] == "code":
            basis = f"**code, certified**: {basis}"
        rows.append(
            f"| `{method['name']}` | {method['summary']}{cite} | {needs} | regression{tasks} | "
            f"{basis} |"
        )
    return "\n".join(rows)


def readme(text: str) -> str:
    """The README with its table of methods made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{methods_table()}\n{END}{after}"


if __name__ == "__main__":
    CONFIGURATION.write_text(configuration(), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
