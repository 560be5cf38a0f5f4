"""Every reader on damaged files: it gives a result or says in one line what is wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tecafn.core.errors import UserError
from tecafn.data import ReadOptions, check, import_dataset

NAMES = (
    "label-csv", "mmsa", "sims", "misa", "mmim", "mag", "mult", "csd", "csd packed", "csd-frames",
    "ur-funny", "ur-funny text", "clip-arrays", "ravdess",
)  # fmt: skip


Make = Callable[[Path], Any]


@st.composite
def _damages(draw: st.DrawFn, *, size: int) -> list[tuple[str, int, int, int]]:
    """Up to eight changes: what, where, how many bytes, and by which byte."""
    # The beginning says how the rest is to be read; half of the changes are there.
    where = st.one_of(st.integers(0, min(size, 400)), st.integers(0, size))
    kinds = st.sampled_from(("set", "set", "flip", "flip", "delete", "double", "truncate"))
    lengths = st.sampled_from((1, 2, 4, 8, 9, 32, 200))
    change = st.tuples(kinds, where, lengths, st.integers(0, 255))
    return draw(st.lists(change, min_size=1, max_size=8))


def damaged(data: bytes, damages: list[tuple[str, int, int, int]]) -> bytes:
    """``data`` with each change made in turn.

    Example:
        >>> damaged(b"abcd", [("delete", 1, 2, 0), ("double", 0, 1, 0)])
        b'aad'
    """
    for kind, where, length, byte in damages:
        if kind == "truncate":
            data = data[:where]
        elif kind == "delete":
            data = data[:where] + data[where + length :]
        elif kind == "double":
            data = data[: where + length] + data[where:]
        elif where < len(data):
            new = byte if kind == "set" else data[where] ^ (1 << byte % 8)
            data = data[:where] + bytes([new]) + data[where + 1 :]
    return data


def _try(source: Any) -> str:
    """What reading and importing ends in; anything but a result and one line raises."""
    options = ReadOptions(**source.options)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "store"
        for attempt in (
            lambda: check(source.path, format=source.format, options=options),
            lambda: import_dataset(source.path, format=source.format, out=out, options=options),
        ):
            try:
                attempt()
                outcomes.append("read")
            except UserError as error:
                message = str(error)
                outcomes.append("refused")
                assert "\n" not in message
                assert len(message) < 1000
        assert out.exists() == (outcomes[1] == "read")
    return outcomes[1]


def _fuzz(make: Make, folder: Path, *, num_examples: int, repeat: bool) -> set[str]:
    """The outcomes of many damages to the files of one source."""
    source = make(folder)
    whole = {path: path.read_bytes() for path in source.files}
    seen = set()

    @given(data=st.data())
    @settings(
        max_examples=num_examples,
        deadline=None,
        database=None,
        derandomize=repeat,
        suppress_health_check=list(HealthCheck),
    )
    def run(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(source.files), label="file")
        damages = data.draw(_damages(size=len(whole[path])), label="damages")
        try:
            path.write_bytes(damaged(whole[path], damages))
            seen.add(_try(source))
        finally:
            path.write_bytes(whole[path])

    run()
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_damaged_source_is_read_or_refused_in_one_line(
    makers: dict[str, Make], tmp_path: Path, name: str
) -> None:
    assert set(NAMES) == set(makers)
    seen = _fuzz(makers[name], tmp_path, num_examples=120, repeat=True)
    assert "refused" in seen


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_damaged_source_is_read_or_refused_in_one_line_at_length(
    makers: dict[str, Make], tmp_path: Path, name: str
) -> None:
    assert _fuzz(makers[name], tmp_path, num_examples=3000, repeat=False) == {"read", "refused"}


@pytest.mark.parametrize("name", NAMES)
def test_source_without_one_of_its_files_is_read_or_refused_in_one_line(
    makers: dict[str, Make], tmp_path: Path, name: str
) -> None:
    source = makers[name](tmp_path)
    for path in source.files:
        content = path.read_bytes()
        path.unlink()
        _try(source)
        path.mkdir()
        _try(source)
        path.rmdir()
        path.write_bytes(content)
    assert _try(source) == "read"
