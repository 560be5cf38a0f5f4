"""Every command of docs/formats.md works, on small sources under the names used there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tecafn.cli import main
from tecafn.data import READERS
from tecafn.data.store import Store

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
# The page's name of a source, the small source that stands for it.
FILES = {
    "unaligned_50.pkl": "mmsa",
    "sims.pkl": "sims",
    "label.csv": "label-csv",
    "train.pkl": "misa",
    "mmim": "mmim",
    "mosi.pkl": "mag",
    "mosi_data_noalign.pkl": "mult",
    "mosi_csd": "csd",
    "ur_funny": "ur-funny",
    "text.jsonl": "ur-funny text",
    "mosi_arrays": "clip-arrays",
    "ravdess": "ravdess",
}


def test_commands_of_the_page_work(
    makers: dict[str, Callable[[Path], Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, maker in FILES.items():
        folder = tmp_path if "." in name else tmp_path / name
        folder.mkdir(exist_ok=True)
        made = makers[maker](folder).path
        assert made == (tmp_path / name)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^tecafn (data .*)$", PAGE.read_text(), flags=re.MULTILINE)
    formats = set()
    for command in commands:
        arguments = shlex.split(command)
        assert main(arguments) == 0, f"{command}: {capsys.readouterr().err}"
        if "--out" in arguments:
            store = Store.open(Path(arguments[arguments.index("--out") + 1]))
            formats.add(store.description.source_format)
    assert formats == set(READERS)


def test_every_format_has_its_row() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(rows) == list(READERS)
