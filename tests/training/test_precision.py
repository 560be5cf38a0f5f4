"""Which precision a name means on which device."""

from __future__ import annotations

from pathlib import Path

import pytest

from tecafn.core.errors import UserError
from tecafn.training import precision as module
from tecafn.training.precision import has_bf16, precision_named

INTEL = "processor : 0\nflags : fpu avx2 avx512f avx512_bf16 amx_tile\n"
OLDER = "processor : 0\nflags : fpu avx2 fma\n"
ARM = "processor : 0\nFeatures : fp asimd bf16 i8mm\n"


@pytest.mark.parametrize(("text", "native"), [(INTEL, True), (OLDER, False), (ARM, True)])
def test_auto_is_bf16_where_the_processor_has_it(
    text: str, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(module, "_CPU_INFO", tmp_path / "cpuinfo")
    assert has_bf16("cpu") is native
    assert precision_named("auto", "cpu") == ("bf16-mixed" if native else "32-true")
    assert precision_named("float32", "cpu") == "32-true"
    assert capsys.readouterr().err == ""
    assert precision_named("bf16", "cpu") == "bf16-mixed"
    said = capsys.readouterr().err
    assert ("no bfloat16 arithmetic" in said) is not native


def test_without_a_list_of_instructions_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CPU_INFO", tmp_path / "none")
    assert not has_bf16("cpu")


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(UserError, match="--precision 'bf61' is unknown: did you mean 'bf16'"):
        precision_named("bf61", "cpu")
