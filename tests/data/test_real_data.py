"""The real files import, and agree with each other and with what is known of them."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest

from tecafn.core.modality import Modality
from tecafn.data import ReadOptions, check, column_statistics, import_dataset
from tecafn.data.csd_file import CsdFile
from tecafn.data.readers.table import table_rows

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


def _spoken(text: str) -> list[str]:
    return re.sub(r"[^a-z' ]", "", text.lower()).split()


def test_timed_words_of_mosi_agree_with_its_transcripts(mosi: Path, tmp_path: Path) -> None:
    if not (mosi / "segment_times.csv").is_file():
        pytest.skip(f"REAL DATA NOT TESTED: {mosi} has no segment_times.csv")
    store = import_dataset(mosi, format="csd", out=tmp_path / "s")
    assert store.manifest["words_timed"]
    same = close = total = 0
    for sample in store.samples():
        assert sample.words is not None
        assert sample.word_intervals is not None
        said = _spoken(" ".join(word for word in sample.words if word != "sp"))
        written = _spoken(sample.text)
        total += 1
        same += said == written
        close += SequenceMatcher(None, said, written).ratio() >= 0.9
    assert total == 2199
    assert same / total > 0.89
    assert close / total > 0.97
    messages = [row.message for row in check(store).rows if row.name == "known defect"]
    assert "zero-length segments: 1 end where they start or before" in messages


def test_words_of_mosi_are_51056_in_93_videos(mosi: Path) -> None:
    (source,) = mosi.glob("*Words.csd")
    table = {row.video for row in table_rows(mosi / "label.csv")}
    file = CsdFile(source)
    assert file.holds_words
    read = {video: file.read(video) for video in table}
    assert len(read) == 93
    assert sum(len(timed.intervals) for timed in read.values() if timed is not None) == 51_056
    file.close()


def test_text_of_ur_funny_imports_as_classification(data_root: Path, tmp_path: Path) -> None:
    source = data_root / "ur_funny"
    if not (source / "text.jsonl").is_file():
        pytest.skip(f"REAL DATA NOT TESTED: {source} has no text.jsonl")
    store = import_dataset(source, format=None, out=tmp_path / "s")
    assert (store.description.task, store.description.num_classes) == ("classification", 2)
    sizes = {name: len(store.split(name)) for name in store.split_names}
    assert sizes == {"train": 7609, "valid": 980, "test": 992}
    assert store.split("train").labelled.all()
    assert not store.split("test").labelled.any()
    assert set(store.split("train").labels.tolist()) == {0, 1}
    assert all(store.split("valid").column("context"))
    report = check(store)
    assert report.exit_code == 0
    messages = [row.message for row in report.rows if row.name == "known defect"]
    assert "UR-FUNNY punchlines in two splits: 18" in messages
    assert any("9,581 samples, Table 3 has 9,588" in message for message in messages)


def test_known_defects_of_mosi_are_named(mosi: Path) -> None:
    rows = check(mosi / "valid_word_aligned_misa.pkl").rows
    messages = " ".join(row.message for row in rows if row.name == "known defect")
    assert "numbering from 0: 229 ids video[k] are clip k + 1 of label.csv" in messages
    assert "labels exactly 0: 13 of 229" in messages
    rows = check(mosi / "label.csv").rows
    messages = " ".join(row.message for row in rows if row.name == "known defect")
    assert "text in capitals: 2199 of 2199" in messages
