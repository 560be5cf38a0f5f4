"""A TOML file and its ``--set`` overrides as plain values: read before torch is loaded."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tecafn.core.errors import UserError

# Keys as written by those who take the text encoder for a table, and what they are here.
ALIASES: Mapping[str, str] = {
    "text_encoder.name": "text_encoder",
    "text_encoder.source": "text_encoder",
    "text_encoder.trainable_layers": "num_trained_text_layers",
    "text_encoder.trained_layers": "num_trained_text_layers",
    "text_encoder.num_trainable_layers": "num_trained_text_layers",
    "text_encoder.num_trained_layers": "num_trained_text_layers",
    "text_encoder.num_trained_text_layers": "num_trained_text_layers",
    "text_encoder.max_tokens": "max_text_tokens",
    "text_encoder.max_text_tokens": "max_text_tokens",
    "text_encoder.learning_rate": "training.learning_rates.text_encoder",
}
_aliases_said: set[str] = set()
# What has keys of its own; every other key of a config is a value.
_TABLES = ("model", "training")
_MODALITIES = ("text", "audio", "vision")


def read_settings(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a TOML file and apply ``key=value`` overrides; keys are not looked at yet.

    A table given as an override changes the keys that it names; an empty one empties the file's.

    A file that says ``extends = "budget.toml"`` departs from that file, which lies beside it: what
    it has itself replaces the other's, key by key. The other file extends none.

    Raises:
        UserError: no such file, not TOML, a chain of files, or an override that is none.
    """
    raw = _read_toml(path)
    if "extends" in raw:
        raw = merge_tables(_extended(path, raw.pop("extends")), raw)
    for override in overrides:
        _apply_override(raw, override)
    return raw


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"config {path}: no such file; see `tecafn list configs`") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(f"config {path}: expected a TOML file, got: {error}") from None


def _extended(path: Path, name: Any) -> dict[str, Any]:
    """What the file says that ``path`` extends."""
    if not isinstance(name, str) or not name:
        raise UserError(f"config {path}: extends must be the name of a TOML file, got {name!r}")
    base = path.parent / name
    if not base.is_file():
        raise UserError(f"config {path}: it extends {name}, and there is no such file beside it")
    raw = _read_toml(base)
    if "extends" in raw:
        raise UserError(
            f"config {path}: it extends {name}, which extends {raw['extends']!r}: a config may "
            "extend a file that extends none"
        )
    return raw


def merge_tables(base: Mapping[str, Any], departures: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``departures`` in its place, table by table.

    Example:
        >>> merge_tables({"training": {"max_epochs": 4, "patience": 8}},
        ...              {"training": {"max_epochs": 9}, "seed": 1})
        {'training': {'max_epochs': 9, 'patience': 8}, 'seed': 1}
    """
    merged = dict(base)
    for key, value in departures.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            value = merge_tables(under, value)
        merged[key] = value
    return merged


def with_overrides(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with what somebody sets in its place: tables are merged, an empty one is emptied.

    The settings of one method are none of another's: ``method="concat", model={}`` takes leave of
    those that a file has.

    Example:
        >>> with_overrides({"method": "misa", "model": {"dim": 8}}, {"method": "lmf", "model": {}})
        {'method': 'lmf', 'model': {}}
    """
    emptied: dict[str, Any] = {key: {} for key, value in overrides.items() if value == {}}
    return merge_tables(base, overrides) | emptied


def nearest_key(key: str, tree: Iterable[str]) -> str | None:
    """The key of a config that somebody who wrote ``key`` may have meant.

    Names are compared without their tables, by spelling and by their words; of a table that there
    is not (``text_encoder.layers``) the name says something, too.

    Example:
        >>> nearest_key("max_epoch", ["seed", "training.max_epochs"])
        'training.max_epochs'
        >>> nearest_key("text_encoder.layers", ["num_trained_text_layers", "text_encoder"])
        'num_trained_text_layers'
    """
    known = list(tree)
    table, _, name = key.rpartition(".")
    is_table = table in ("", *(each.rpartition(".")[0] for each in known))
    words = set(re.split(r"[._]", name if is_table else key))

    def likeness(other: str) -> float:
        other_table, _, other_name = other.rpartition(".")
        other_words = set(other_name.split("_"))
        spelling = difflib.SequenceMatcher(None, name, other_name).ratio()
        shared = 2 * len(words & other_words) / (len(words) + len(other_words))
        return max(spelling, shared) + 0.05 * (table == other_table)

    candidates = known
    if not is_table:  # of a value that was taken for a table: what has a word in common with it
        asked = set(re.split(r"[._]", table))
        candidates = [k for k in known if asked & set(re.split(r"[._]", k)) and k != table]
        candidates = candidates or known
    best = max(candidates, key=likeness, default=None)
    return best if best is not None and likeness(best) >= (0.6 if is_table else 0.5) else None


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set expects key=value, got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    key = _without_alias(key.strip())
    *path, last = key.split(".")
    if last in _MODALITIES and len(path) == 2:
        _spread_over_modalities(raw, path[1])
    table = raw
    for place, part in enumerate(path):
        inner = table.setdefault(part, {})
        # A value that this file leaves at its default is a value all the same.
        if not isinstance(inner, dict) or (not place and part not in _TABLES):
            raise UserError(f"--set {override!r}: {_no_table(part, key, raw)}")
        table = inner
    table |= with_overrides(table, {last: value})


def _spread_over_modalities(raw: dict[str, Any], name: str) -> None:
    """Make one value of the model a value per modality, so that one of them can be set.

    ``model.swap_probability.audio=0.0`` changes audio's and leaves vision's as it was.
    """
    model = raw.setdefault("model", {})
    value = model.get(name) if isinstance(model, dict) else None
    if isinstance(value, Mapping) or not isinstance(model, dict):
        return
    import tecafn.methods  # noqa: F401 - registers them
    from tecafn.core.registry import METHODS

    method = raw.get("method", "tecafn")
    fields = dataclasses.fields(METHODS[method].config) if method in METHODS else ()
    for field in fields:
        if field.name == name and "dict[Modality" in str(field.type):
            value = field.default if value is None else value
            core = model.get("core", "text")
            model[name] = {m: value for m in _MODALITIES if m != core}


def _no_table(part: str, key: str, raw: Mapping[str, Any]) -> str:
    """That ``part`` of ``key`` has no keys of its own, and which key was meant."""
    from tecafn.core.registry import METHODS
    from tecafn.experiments.config import config_keys

    method = raw.get("method", "tecafn")
    tree = config_keys(method) if method in METHODS else ()
    moved = [known for known in tree if known.rpartition(".")[2] == part and known != part]
    nearest = moved[0] + key.removeprefix(part) if moved else nearest_key(key, tree)
    what = f"{part!r} is a value, not a table"
    if part != key.split(".")[0] or part in tree:
        return f"{what}; did you mean {nearest!r}?" if nearest else what
    return f"unknown key {key!r}" + (f": did you mean {nearest!r}?" if nearest else "")


def _without_alias(key: str) -> str:
    """The key's own name; that it was written otherwise is said once."""
    name = ALIASES.get(key, key)
    if name != key and key not in _aliases_said:
        _aliases_said.add(key)
        print(f"note: --set {key} is {name} here", file=sys.stderr)
    return name
