"""Plain text as each format of a table shows it."""

from __future__ import annotations

ABSTRACT_MARK = "\N{DAGGER}"
MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: "$-$",
    PLUS_MINUS: r"$\pm$",
    ABSTRACT_MARK: r"$^{\dagger}$",
}


def markdown(text: str) -> str:
    r"""Plain text that a Markdown table shows as it is.

    Example:
        >>> markdown("a|b <c>")
        'a\\|b &lt;c>'
    """
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def latex(text: str) -> str:
    r"""Plain text as LaTeX shows it.

    Example:
        >>> latex("self_mm 50 %")
        'self\\_mm 50 \\%'
    """
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """A table of cells that are marked up already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
