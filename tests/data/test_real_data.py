"""The real CMU-MOSI files import and agree with each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tecafn.core.batch import Modality
from tecafn.data import ReadOptions, check, column_statistics, import_dataset

pytestmark = pytest.mark.real_data


@pytest.fixture
def mosi(data_root: Path) -> Path:
    folder = data_root / "mosi"
    if not (folder / "label.csv").is_file():
        pytest.skip(f"REAL DATA NOT TESTED: {folder} has no label.csv")
    return folder


def test_mosi_table_and_audio_import_with_table_3_sizes(mosi: Path, tmp_path: Path) -> None:
    options = ReadOptions(audio=mosi / "audio_utterance.npz")
    store = import_dataset(
        mosi / "label.csv", format="label-csv", out=tmp_path / "s", options=options
    )
    assert store.description.dataset == "cmu-mosi"
    sizes = {name: len(store.split(name)) for name in store.split_names}
    assert sizes == {"train": 1284, "valid": 229, "test": 686}
    assert not store.split("test").labelled.any()
    train = store.split("train")
    assert train.labelled.all()
    assert set(train.lengths(Modality.AUDIO).tolist()) == {1}
    statistics = column_statistics(train, Modality.AUDIO)
    vectors = np.concatenate([train.sequence(row, Modality.AUDIO) for row in range(len(train))])
    np.testing.assert_allclose(statistics.std, vectors.astype(np.float64).std(axis=0), rtol=1e-9)
    assert check(store).exit_code == 0


def test_229_word_aligned_sequences_agree_with_label_csv(mosi: Path, tmp_path: Path) -> None:
    source = mosi / "valid_word_aligned_misa.pkl"
    store = import_dataset(source, format="misa", out=tmp_path / "s")
    view = store.split("valid")
    assert len(view) == 229
    assert len(set(view.videos)) == 10
    assert store.description.aligned
    assert view.widths == {Modality.VISION: 47, Modality.AUDIO: 74}
    lengths = view.lengths(Modality.AUDIO)
    assert (int(lengths.min()), int(lengths.max())) == (2, 44)
    assert lengths.tolist() == [len(words) for words in view.column("words")]
    table = import_dataset(mosi / "label.csv", format="label-csv", out=tmp_path / "t")
    expected = dict(zip(table.split("valid").ids, table.split("valid").labels, strict=True))
    agreeing = sum(
        abs(expected[name] - label) < 1e-6
        for name, label in zip(view.ids, view.labels, strict=True)
    )
    assert agreeing == 229
    report = check(source)
    assert report.exit_code == 0
    assert any("as in Table 3" in row.message for row in report.rows)


def test_mosei_clip_names_with_underscores_stay_unambiguous(data_root: Path) -> None:
    table = data_root / "mosei" / "label.csv"
    if not table.is_file():
        pytest.skip(f"REAL DATA NOT TESTED: no {table}")
    report = check(table)
    assert report.exit_code == 0
    warned = " ".join(row.message for row in report.rows if row.level == "warning")
    assert "Table 3 has 16326" in warned
