"""Pages made from the code: configuration, run directory, paper, the README's methods, a schema.

    python docs/make_pages.py        # or: make docs

A test compares all with what this would write.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

import tecafn
from tecafn.analyze.timeline import schema
from tecafn.core.registry import METHODS
from tecafn.experiments.config import RunConfig
from tecafn.records import begun, cell, comparison, evaluation_log, events, record, robustness
from tecafn.training.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "docs" / "configuration.md"
RUN_DIRECTORY = ROOT / "docs" / "run-directory.md"
PAPER = ROOT / "docs" / "paper.md"
README = ROOT / "README.md"
TIMELINE_SCHEMA = ROOT / "docs" / "timeline.schema.json"
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


RECORDS: tuple[tuple[str, str, tuple[type[Any], ...]], ...] = (
    (
        "record.json",
        "One `RunRecord`.",
        (
            record.RunRecord,
            record.DataRecord,
            record.StartRecord,
            record.AllowedError,
            record.TrainingRecord,
            record.FoldRecord,
            record.Evaluation,
            record.ResamplingRecord,
            record.PairShare,
            record.Ceiling,
            record.RunComparison,
            record.PairedDifference,
        ),
    ),
    ("evaluations.jsonl", "One `LoggedEvaluation` per line.", (evaluation_log.LoggedEvaluation,)),
    ("begun.json", "One `Begun`.", (begun.Begun,)),
    (
        "events.jsonl",
        "One event per line; `event` says which. A resumed run may repeat a step; the later line "
        "counts.",
        (
            events.StartEvent,
            events.ResumeEvent,
            events.StepEvent,
            events.EpochEvent,
            events.WarningEvent,
            events.EndEvent,
            events.HealthReading,
        ),
    ),
    ("cell.json", "One `CellUsage`.", (cell.CellUsage,)),
    (
        "comparison.json",
        "One `ComparisonSummary`.",
        (
            comparison.ComparisonSummary,
            comparison.ComparisonRow,
            comparison.SeedMean,
            comparison.RowDifference,
            comparison.OverSeeds,
            comparison.Detectable,
            comparison.Published,
            comparison.PublishedCell,
            comparison.Losses,
            comparison.LossSeries,
            comparison.Cases,
            comparison.Case,
            comparison.CaseClip,
        ),
    ),
    (
        "robustness.json",
        "One `Robustness`, which `tecafn robustness` writes.",
        (robustness.Robustness, robustness.RobustRun, robustness.Point),
    ),
)


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
    order = list(inspect.get_annotations(kind))
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


def _type_in_words(hint: Any) -> str:
    """A type as the page shows it.

    Example:
        >>> _type_in_words(list[float] | None), _type_in_words(dict[str, int])
        ('list of numbers, or null', 'name to whole number')
    """
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any"}
    if hint in words:
        return words[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return f"{_type_in_words(arguments[0])}; may be absent"
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin is list:
        item = _type_in_words(arguments[0])
        return f"list of {item}{'' if item.startswith(('[', 'any')) else 's'}"
    if origin is dict:
        return f"name to {_type_in_words(arguments[1])}"
    if origin in (UnionType, Union):
        parts = [_type_in_words(each) for each in arguments if each is not NoneType]
        return ", or ".join([*parts, *(["null"] if NoneType in arguments else [])])
    return f"[{hint.__name__}](#{hint.__name__.lower()})"


def record_table(kind: type[Any]) -> str:
    """A heading, what it is, and one row per key of a typed dictionary."""
    words, text = described(kind), (inspect.getdoc(kind) or "").split("\n")[0]
    rows = ["| key | value | |", "|---|---|---|"]
    for name, hint in get_type_hints(kind, include_extras=True).items():
        said = words.get(name, "").replace("|", "\\|").replace("``", "`")
        shown = _type_in_words(hint)
        if not kind.__total__ and "may be absent" not in shown:
            shown += "; may be absent"
        rows.append(f"| `{name}` | {shown} | {said} |")
    return "\n\n".join([f"### {kind.__name__}", text, "\n".join(rows)])


def run_directory(text: str) -> str:
    """The page of the run directory with the tables of its records made anew."""
    blocks = []
    for title, words, kinds in RECORDS:
        blocks += [f"## {title}", words, *(record_table(kind) for kind in kinds)]
    return _between(text, "records", "\n\n".join(blocks))


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
    return _between(text, "methods", methods_table())


def paper(text: str) -> str:
    """The page of the paper with the lines of the source put in anew."""
    pattern = r"(<!-- lines (\S+): (.*?) \.\.\. (.*?) -->\n).*?(<!-- /lines -->)"
    return re.sub(pattern, _lines_of, text, flags=re.DOTALL)


def _lines_of(found: re.Match[str]) -> str:
    """A file's lines from the first that holds one text to the next that holds another."""
    head, file, begin, end, tail = found.groups()
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    first = next(n for n, line in enumerate(lines) if begin in line)
    last = next(n for n, line in enumerate(lines[first:], first) if end in line)
    depth = 0  # whole statements: as far as brackets close
    for number, line in enumerate(lines[first:], first):
        depth += sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
        if number >= last and depth <= 0:
            last = number
            break
    code = textwrap.dedent("\n".join(lines[first : last + 1]))
    return f"{head}\n`{file}`:\n\n```py\n{code}\n```\n\n{tail}"


def _between(text: str, name: str, made: str) -> str:
    """A page with what stands between ``<!-- name -->`` and ``<!-- /name -->`` made anew."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{made}\n{end}{rest.partition(end)[2]}"


def timeline_schema() -> str:
    """The JSON schema of ``timeline.json``, as a file."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    TIMELINE_SCHEMA.write_text(timeline_schema(), encoding="utf-8")
    CONFIGURATION.write_text(configuration(), encoding="utf-8")
    RUN_DIRECTORY.write_text(
        run_directory(RUN_DIRECTORY.read_text(encoding="utf-8")), encoding="utf-8"
    )
    PAPER.write_text(paper(PAPER.read_text(encoding="utf-8")), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
