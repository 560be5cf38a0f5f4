"""Saved files are read without a trace in the process that reads them."""

from __future__ import annotations

import csv
from pathlib import Path

from tecafn.records.predictions import read_predictions


def test_a_long_transcript_is_read_and_the_limit_on_fields_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "valid.csv"
    header = "id,video,clip,label,prediction,pair_id,text"
    path.write_text(f"{header}\na_1,a,1,0.5,0.25,,{'word ' * before}\n", encoding="utf-8")
    assert read_predictions(path).predictions.tolist() == [0.25]
    assert csv.field_size_limit() == before
