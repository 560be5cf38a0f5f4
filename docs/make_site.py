"""The documentation site: pages of docs/, a reference from docstrings, built with Zensical.

    python docs/make_site.py --out site          # or: make docs

Pages are copied to a folder of their own, where formulas become MathML, which browsers draw
themselves, and links out of docs/ lose their target. The site loads nothing from a network.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
CONFIG = DOCS / "zensical.toml"

# What the reference documents: a module, its title, and which names; none = all that it defines.
REFERENCE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tecafn", "tecafn", ()),
    ("tecafn.serving.onnx_predictor", "tecafn.onnx", ("load", "OnnxPredictor")),
    ("tecafn.data", "tecafn.data", ()),
    ("tecafn.testing", "tecafn.testing", ("check_method", "check_reader", "MethodCase")),
    ("tecafn.core.batch", "core.batch", ()),
    ("tecafn.core.output", "core.output", ()),
    ("tecafn.core.scheme", "core.scheme", ()),
    ("tecafn.core.registry", "core.registry", ()),
    ("tecafn.core.info", "core.info", ()),
    ("tecafn.evaluation.metrics", "evaluation.metrics", ()),
    ("tecafn.evaluation.significance", "evaluation.significance", ()),
    ("tecafn.losses.contrastive", "losses.contrastive", ()),
    ("tecafn.losses.negatives", "losses.negatives", ()),
    ("tecafn.layers.sequence", "layers.sequence", ()),
    ("tecafn.layers.attention", "layers.attention", ()),
)
_SECTIONS = ("Args", "Returns", "Raises", "Yields", "Example", "Source")


def build(out: Path, *, strict: bool = True) -> None:
    """Write the site's HTML into ``out``.

    Raises:
        RuntimeError: Zensical found something wrong, a link that leads nowhere among it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stage(folder / "docs")
        shutil.copyfile(CONFIG, folder / "zensical.toml")
        command = [sys.executable, "-m", "zensical", "build", *(["--strict"] if strict else [])]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode or (strict and "warning" in said.lower()):
            raise RuntimeError(f"zensical: {said}")
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(folder / "site", out)


def stage(folder: Path) -> None:
    """Pages as Zensical takes them."""
    for path in sorted(DOCS.rglob("*")):
        target = folder / path.relative_to(DOCS)
        if path.suffix == ".md":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
        elif path.suffix in (".png", ".svg", ".css"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (folder / "reference").mkdir(parents=True)
    for module, title, names in REFERENCE:
        target = folder / "reference" / f"{title}.md"
        target.write_text(reference(module, names), encoding="utf-8")
    listed = "\n".join(f"- [{title}]({title}.md)" for _, title, _ in REFERENCE)
    (folder / "reference" / "index.md").write_text(
        f"# Reference\n\nFrom the docstrings of what is public.\n\n{listed}\n", encoding="utf-8"
    )


def page(text: str) -> str:
    """One page: formulas to MathML, links to files outside docs/ to their names.

    Example:
        >>> page("see [the code](../src/a.py)")
        'see `the code`'
    """
    text = re.sub(r"^```math\n(.*?)^```$", _formula, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\$`([^`]+)`\$", lambda found: _mathml(found[1], "inline"), text)
    text = re.sub(r"(?<!!)\[([^\]]+)\]\((?:\.\./)+(?!docs/)[^)]*\)", _named, text)
    return text


def _named(found: re.Match[str]) -> str:
    name = found[1].strip("`")
    return f"`{name}`"


def _formula(found: re.Match[str]) -> str:
    return f'<div class="formula">{_mathml(found[1], "block")}</div>'


def _mathml(latex: str, display: str) -> str:
    from latex2mathml.converter import convert

    made: str = convert(" ".join(latex.split()), display=display)
    return made


def reference(module: str, names: Sequence[str] = ()) -> str:
    """A module's public names with their docstrings, as Markdown."""
    home = importlib.import_module(module)
    chosen = names or getattr(home, "__all__", None) or list(_defined(home))
    parts = [f"# `{module}`", _docstring(home)]
    for name in chosen:
        thing = getattr(home, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        parts += [f"## `{name}`", _signature(name, thing), _docstring(thing)]
        if inspect.isclass(thing):
            for member, function in _methods(thing):
                title = f"{name}.{member}"
                parts += [f"### `{title}`", _signature(member, function), _docstring(function)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _defined(home: Any) -> Iterator[str]:
    for name, thing in vars(home).items():
        if not name.startswith("_") and getattr(thing, "__module__", "") == home.__name__:
            yield name


def _methods(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    for name, member in vars(kind).items():
        if isinstance(member, property):
            member = member.fget
        member = inspect.unwrap(getattr(member, "__func__", member))
        if not name.startswith("_") and inspect.isfunction(member) and member.__doc__:
            yield name, member


def _signature(name: str, thing: Any) -> str:
    try:
        shown = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    shown = re.sub(r"(?<![\w.])(?:tecafn|collections|numpy|torch|pathlib)(?:\.\w+)*\.", "", shown)
    shown = shown.replace("'", "")
    if len(name) + len(shown) > 88:
        shown = _one_per_line(shown)
    return f"```text\n{name}{shown}\n```"


def _one_per_line(signature: str) -> str:
    """Break a signature at the commas between its parameters.

    Example:
        >>> print(_one_per_line("(a: dict[str, int], b: int) -> None"))
        (
            a: dict[str, int],
            b: int,
        ) -> None
    """
    depth, line = 0, ""
    lines: list[str] = []
    for place, letter in enumerate(signature):
        depth += (letter in "([{") - (letter in ")]}")
        if not depth:
            return "\n".join(
                ["(", *(f"    {some.strip()}," for some in (*lines, line[1:])), signature[place:]]
            )
        if letter == "," and depth == 1:
            lines.append(line[1:])
            line = " "
        else:
            line += letter
    return signature


def _docstring(thing: Any) -> str:
    """Google's sections as Markdown."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    parts: list[str] = []
    block: list[str] = []
    title = ""

    def close() -> None:
        text = "\n".join(block).rstrip()
        if text:
            parts.append(_section(title, text))
        block.clear()

    for line in lines:
        head, colon, rest = line.partition(":")
        if colon and head in _SECTIONS:
            close()
            title = head
            block += [f"    {rest.strip()}"] if rest.strip() else []
        elif title and line and not line.startswith(" "):
            if title == "Source" and block and block[-1].strip():
                block.append(f"    {line}")
                continue
            close()
            title = ""
            block.append(line)
        else:
            block.append(line)
    close()
    return "\n\n".join(parts)


def _section(title: str, text: str) -> str:
    text = textwrap.dedent(text).strip("\n")
    if not title:
        return _plain(text)
    if title == "Example":
        return f"**Example**\n\n```python\n{text}\n```"
    if title in ("Args", "Raises"):
        entries = re.split(r"\n(?=\S)", text)
        items = []
        for entry in entries:
            name, _, words = " ".join(entry.split()).partition(": ")
            items.append(f"- `{name.replace('`', '')}`: {_plain(words)}")
        return f"**{title}**\n\n" + "\n".join(items)
    return f"**{title}**\n\n{_plain(text)}"


def _plain(text: str) -> str:
    """Docstrings mark code with two backticks; outside of it a < would begin a tag.

    Example:
        >>> _plain("``<video>`` is < 3")
        '`<video>` is &lt; 3'
    """
    parts = text.replace("``", "`").split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS.parent / "site")
    out = parser.parse_args().out
    build(out)
    print(f"{out / 'index.html'}")


if __name__ == "__main__":
    main()
