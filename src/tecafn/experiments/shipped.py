"""What ships with the package, found without torch: configs, methods, formats."""

from __future__ import annotations

import ast
import math
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tecafn.core.dataset_names import SYNTHETIC, is_synthetic
from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS, Method

# What a method's registration says of it, and a list of the methods shows.
_TOLD = ("summary", "tasks", "needs", "paper", "basis", "certified")
# Training samples of the datasets whose configs ship, by task.
_TRAINED_ON = {
    "regression": {"mosi": 1_284, "mosei": 16_326},
    "classification": {"ur_funny": 7_614},
}
_PACKAGE = Path(__file__).resolve().parents[1]
# Files beside the tables that are none: what they share.
_NO_TABLES = ("budgets", "search")


def configs_folder() -> Path:
    """Where the shipped configs lie: beside the package when installed, else in the checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "configs"


def list_configs() -> list[str]:
    """Every shipped config, ``mosi/tecafn.toml``; not the budgets that they extend."""
    folder = configs_folder()
    paths = [path for path in folder.rglob("*.toml") if not path.name.startswith("budget")]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def find_config(name: Path) -> Path:
    """A config by path, or by its place among the shipped ones (``mosi/tecafn.toml``)."""
    if name.exists():
        return name
    relative = Path(*name.parts[1:]) if name.parts[:1] == ("configs",) else name
    shipped = configs_folder() / relative
    return shipped if shipped.is_file() else name


def papers_folder() -> Path:
    """Where the shipped tables lie: beside the package when installed, else in the checkout."""
    installed = _PACKAGE / "papers"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "papers"


def list_tables() -> list[str]:
    """Every shipped table, ``tecafn/table5``: a paper's experiments as data."""
    folder = papers_folder()
    paths = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.toml"))
    return sorted(path.as_posix() for path in paths if path.name not in _NO_TABLES)


def find_table(name: Path) -> Path:
    """A table by path, or by its place among the shipped ones; folder and ending may be left out.

    Example:
        >>> find_table(Path("nothing/of-that-name")).as_posix()
        'nothing/of-that-name'
    """
    if name.is_file():
        return name
    parts = name.parts[1:] if name.parts[:1] == ("papers",) else name.parts
    folder = papers_folder()
    for place in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        path = place.joinpath(*parts)
        for found in (path, path.with_name(f"{path.name}.toml")):
            if found.is_file():
                return found
    return name


def config_folder(configs: str | None, dataset: str) -> Path:
    """The folder of a dataset's configs.

    Args:
        configs: a path, or the name of a shipped folder; None = by the dataset's name.
        dataset: its name; the synthetic corpus has the folder ``synthetic``.

    Raises:
        UserError: there is no such folder; the shipped ones are named.
    """
    shipped = configs_folder()
    if configs is not None:
        folder = Path(configs) if Path(configs).is_dir() else find_config(Path(configs))
        folder = folder if folder.is_dir() else shipped / configs
    else:
        name = SYNTHETIC if is_synthetic(dataset) else dataset.replace("-", "_")
        folder = shipped / name
        if not folder.is_dir():  # cmu-mosi is known as mosi
            folder = shipped / (name.partition("_")[2] or name)
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in shipped.iterdir() if path.is_dir()))
        what = f"no configs {configs!r}" if configs else f"no configs for the dataset {dataset!r}"
        raise UserError(f"{what}: name a folder with --configs, or a shipped one: {known}")
    return folder


@dataclass(frozen=True)
class ChosenConfigs:
    """The configs of a comparison, and why these where the dataset has none of its own.

    Args:
        folder: with a TOML file per method.
        reason: a sentence for the user; empty for a dataset's own configs and for named ones.
    """

    folder: Path
    reason: str = ""


def choose_configs(
    configs: str | None, dataset: str, *, task: str, num_train: int
) -> ChosenConfigs:
    """The named configs, else the dataset's own, else the nearest shipped ones.

    The nearest are those of the same task whose training split is nearest in size.

    Args:
        configs: a path, or the name of a shipped folder; None = by the dataset.
        dataset: its name.
        task: regression or classification.
        num_train: samples of its training split.

    Raises:
        UserError: there is no such folder.

    Example:
        >>> chosen = choose_configs(None, "ch-sims", task="regression", num_train=1368)
        >>> chosen.folder.name
        'mosi'
    """
    if configs is not None:
        return ChosenConfigs(config_folder(configs, dataset))
    with suppress(UserError):
        return ChosenConfigs(config_folder(None, dataset))
    sizes = _TRAINED_ON[task]
    name = min(sizes, key=lambda name: abs(math.log(max(num_train, 1) / sizes[name])))
    english = "; their text encoder reads English, --set text_encoder=... names another"
    return ChosenConfigs(
        configs_folder() / name,
        f"no configs ship for the dataset {dataset!r}: those of {name} are used, the nearest "
        f"({task}, {sizes[name]:,} training samples for {num_train:,}); --configs names others"
        f"{english if dataset.startswith('ch-sims') else ''}",
    )


def list_methods() -> list[dict[str, Any]]:
    """Every registered method, in the order of names.

    Each with its name, summary, tasks, needs and paper, and with what it rests on: ``basis`` and
    ``certified``, see ``core.registry.Method``.

    The registry is the truth. As long as nothing has loaded the shipped methods, what they
    register is read from the source of their files, in a fiftieth of the time; a registration that
    cannot be read in this way loads them all.
    """
    if "tecafn.methods" not in sys.modules:
        try:
            told = read_registrations(_PACKAGE / "methods", _TOLD)
            shipped = {name: Method(config=object, build=_never, **fields) for name, fields in told}
        except ValueError:
            import tecafn.methods  # noqa: F401 - registers them

            shipped = {}
    else:
        shipped = {}
    methods = {**METHODS, **shipped}
    return [{"name": name} | _told(methods[name]) for name in sorted(methods)]


def _told(method: Method) -> dict[str, Any]:
    values = {field: getattr(method, field) for field in _TOLD}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def _never(_config: Any, _info: Any) -> Any:
    raise AssertionError("a method that was only read about is not built")


def list_formats() -> list[dict[str, str]]:
    """Every registered format, ``format`` and ``summary``, found as ``list_methods`` finds."""
    if "tecafn.data.readers" not in sys.modules:
        with suppress(ValueError):
            told = dict(read_registrations(_PACKAGE / "data" / "readers", ("summary",)))
            return [{"format": name, **told[name]} for name in sorted(told)]
    from tecafn.data.readers import READERS

    return [{"format": name, "summary": reader.summary} for name, reader in READERS.items()]


def read_registrations(
    folder: Path, fields: Collection[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the files of a folder register, read and not run.

    Args:
        folder: with one Python file per method or format, each with calls such as
            ``METHODS.register("name", Method(summary="...", ...))`` at its end.
        fields: the keywords that are wanted.

    Returns:
        Each name with those keywords that its registration has.

    Raises:
        ValueError: one of them is not a literal, or a call stands where it is not looked for.
    """
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        calls = list(re.finditer(r"\.register\(", text))
        if not calls:
            continue
        # Registrations stand last in a file: what stands before them need not be parsed.
        begin = text.rfind("\n", 0, calls[0].start()) + 1
        try:
            found = [_read_registration(node, fields) for node in ast.parse(text[begin:]).body]
        except SyntaxError:
            found = []
        if len(found) != len(calls):
            raise ValueError(f"{path.name}: a registration is not at the end of the file")
        yield from found


def _read_registration(node: ast.stmt, fields: Collection[str]) -> tuple[str, dict[str, Any]]:
    match node:
        case ast.Expr(
            ast.Call(
                func=ast.Attribute(value=ast.Name(), attr="register"),
                args=[name, ast.Call(args=[], keywords=given)],
                keywords=[],
            )
        ):
            wanted = [(str(k.arg), k.value) for k in given if k.arg is None or k.arg in fields]
            return str(ast.literal_eval(name)), {
                key: ast.literal_eval(value) for key, value in wanted
            }
    raise ValueError(f"not a registration: {ast.unparse(node)}")
