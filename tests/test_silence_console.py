"""A console that cannot print a character costs neither the command nor its exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tecafn
from tecafn.console import legible_output, print_table

SOURCE = Path(tecafn.__file__).resolve().parents[1]
NAMES = ("\u4f60\u597d", "caf\u00e9", "\U0001f600")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label.csv whose videos have such names; one clip is in two splits."""
    path = tmp_path_factory.mktemp("names") / "label.csv"
    rows = [
        f"{name}{number},0,{name},{number - 1},{split}"
        for name in NAMES
        for number, split in enumerate(("train", "valid", "test"))
    ]
    rows.append(f"{NAMES[0]}0,0,again,1,test")
    text = "\n".join(["video_id,clip_id,text,label,mode", *rows])
    path.write_text(text + "\n", encoding="utf-8")
    return path


def run(*arguments: object, **variables: str) -> tuple[int, bytes, bytes]:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))
    }
    environment |= {"PYTHONPATH": str(SOURCE), **variables}
    done = subprocess.run(
        [sys.executable, "-m", "tecafn", *map(str, arguments)],
        env=environment,
        capture_output=True,
        check=False,
        timeout=800,
    )
    return done.returncode, done.stdout, done.stderr


CONSOLES = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("console", CONSOLES, ids=lambda console: next(iter(console.values())))
def test_check_keeps_its_exit_code_on_any_console(source: Path, console: dict[str, str]) -> None:
    utf8 = run("data", "check", source, PYTHONIOENCODING="utf-8")
    plain = run("data", "check", source, **console)
    assert plain[0] == utf8[0]
    assert b"Traceback" not in plain[2]
    for stream in (1, 2):
        assert len(plain[stream].splitlines()) == len(utf8[stream].splitlines())
    assert "\u4f60" in (utf8[1] + utf8[2]).decode("utf-8")
    assert b"\\u4f60" in plain[1] + plain[2]


def test_check_as_json_is_ascii_everywhere(source: Path) -> None:
    code, out, _ = run("data", "check", source, "--json", PYTHONIOENCODING="ascii")
    assert json.loads(out)["exit_code"] == code


def test_error_line_names_what_the_console_cannot_print(tmp_path: Path) -> None:
    code, _, err = run("data", "check", tmp_path / NAMES[0], PYTHONIOENCODING="ascii")
    assert code == 2
    assert err.startswith(b"error: no such file or directory: ")
    assert b"\\u4f60\\u597d" in err


def test_whatever_is_printed_meanwhile_is_legible_and_streams_are_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    with legible_output():
        print_table("0.5 \u00b1 0.1", ["name", "\u0394"], [["[red]\u4f60", "\u2212 1"]])
        print("half a path: \udcff")
    stream.flush()
    assert stream.errors == "strict"
    shown = raw.getvalue().decode("ascii")
    assert shown.startswith("0.5 +- 0.1\n")
    for part in ("[red]\\u4f60", "- 1", "+-", "\\udcff"):  # a box of ASCII, no markup
        assert part in shown


def test_no_number_of_a_wide_table_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns = ["result", "method", "seeds", *(f"Acc{k} (negative/positive)" for k in range(6))]
    numbers = [f"{80 + k}.{k}7" for k in range(6)]
    flags = "has seen 2 of the 2 evaluated videos"
    print_table("wide", [*columns, "flags"], [["a name", "tecafn", "3", *numbers, flags]])
    said = capsys.readouterr().out
    assert all(number in said for number in numbers)
    assert "\u2026" not in said
