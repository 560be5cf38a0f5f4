from pathlib import Path

import pytest

from tecafn.core.errors import UserError
from tecafn.training.run_lock import run_lock


def test_a_second_run_in_the_same_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with (
        run_lock(tmp_path / "run"),
        pytest.raises(UserError, match="written by another run") as caught,
        run_lock(tmp_path / "run"),
    ):
        raise AssertionError("two runs hold one folder")
    assert "\n" not in str(caught.value)


def test_the_lock_is_free_again_after_a_failed_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"), run_lock(tmp_path):
        raise RuntimeError("boom")
    entered = False
    with run_lock(tmp_path):
        entered = True
    assert entered


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot lock"), run_lock(tmp_path / "file" / "run"):
        raise AssertionError("entered")
