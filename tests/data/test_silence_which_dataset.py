"""Which dataset a source is: by its content, then by its name as given; the grounds are said."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import ReadOptions, import_dataset, open_source
from tecafn.data.store import Store
from tecafn.data.which import Evidence, decide, name_in_path, spoken_name
from tecafn.experiments.shipped import choose_configs

AUDIO, VISION = Modality.AUDIO, Modality.VISION
SAYS_NOTHING = Path("/disk7/x/train.pkl")
NUMBERS = np.random.default_rng(0)
FIFTHS = np.round(NUMBERS.integers(-15, 16, 200) / 5, 6)
THIRDS = np.round(NUMBERS.integers(-9, 10, 200) / 3, 6)
NARROW = np.round(NUMBERS.integers(-5, 6, 200) / 5, 6)
TENTHS = np.round(NUMBERS.uniform(-3, 3, 200), 1)


def _widths(audio: int, vision: int) -> dict[Modality, int]:
    return {AUDIO: audio, VISION: vision}


@pytest.fixture
def rows() -> Callable[..., list[Any]]:
    """Rows of an MMIM list with these columns and ids."""

    def make(*ids: Any, vision: int = 35, audio: int = 74, label: Any = None) -> list[Any]:
        frames = (np.ones((3, vision), np.float32), np.ones((2, audio), np.float32))
        value = np.array([[0.5]], np.float32) if label is None else label
        return [(([], *frames, ["so", "good"], 3, 2), value, one) for one in ids]

    return make


# By content


@pytest.mark.parametrize(
    ("evidence", "expected", "grounds"),
    [
        ({"widths": _widths(5, 20)}, "cmu-mosi", "audio has 5 columns, vision 20"),
        ({"widths": _widths(74, 47)}, "cmu-mosi", "audio has 74 columns, vision 47"),
        ({"widths": _widths(74, 35)}, "cmu-mosei", "audio has 74 columns, vision 35"),
        ({"widths": _widths(33, 709)}, "ch-sims", "audio has 33 columns, vision 709"),
        ({"widths": _widths(25, 177)}, "ch-sims", "audio has 25 columns, vision 177"),
        ({"label_columns": 7}, "cmu-mosei", "labels have 7 columns"),
        ({"unimodal": True}, "ch-sims", "each modality has labels of its own"),
        ({"sizes": {"train": 1284, "valid": 229, "test": 686}}, "cmu-mosi", "valid 229"),
        ({"sizes": {"test": 457}}, "ch-sims", "test 457"),
        ({"labels": FIFTHS}, "cmu-mosi", "steps of 0.2 within -3 to 3"),
        ({"labels": THIRDS.astype(np.float32)}, "cmu-mosei", "steps of a third"),
        ({"labels": np.round(THIRDS, 2)}, "cmu-mosei", "steps of a third"),
        ({"labels": NARROW}, "ch-sims", "steps of 0.2 within -1 to 1"),
        ({"labels": np.array([0.0, 1.0] * 9), "integer_ids": True}, "ur-funny", "labels 0 or 1"),
        ({"labels": TENTHS}, "unnamed", "neither its content nor its name"),
        ({"labels": FIFTHS[:9]}, "unnamed", "neither its content nor its name"),
        ({"labels": np.full(200, np.nan)}, "unnamed", "neither its content nor its name"),
        ({}, "unnamed", "neither its content nor its name"),
    ],
)
def test_which_dataset_the_content_decides(evidence: Any, expected: str, grounds: str) -> None:
    which = decide(Evidence(**evidence), SAYS_NOTHING)
    assert which.dataset == expected
    assert grounds in which.decisions[0]


def test_which_dataset_scale_follows() -> None:
    assert decide(Evidence(unimodal=True), SAYS_NOTHING).scale.label_range == (-1.0, 1.0)
    assert decide(Evidence(label_columns=7), SAYS_NOTHING).scale.label_range == (-3.0, 3.0)


def test_which_dataset_the_feature_tools_columns_are_no_proof() -> None:
    """Any clips may have them: labels beyond -1 to 1, or a name, say more."""
    wide = Evidence(widths=_widths(33, 709), labels=TENTHS)
    assert decide(wide, SAYS_NOTHING).dataset == "unnamed"
    assert decide(wide, Path("/x/MOSI/feature.pkl")).dataset == "cmu-mosi"


def test_which_dataset_a_few_wrong_labels_do_not_change_it() -> None:
    labels = np.concatenate([NARROW, [2.5]])
    assert (
        decide(Evidence(widths=_widths(33, 709), labels=labels), SAYS_NOTHING).dataset == "ch-sims"
    )


# By name


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/MOSI/train.pkl", "cmu-mosi"),
        ("/a/b/mosei_senti_data_noalign.pkl", "cmu-mosei"),
        ("/a/CMU_MOSEI/Processed/aligned_50.pkl", "cmu-mosei"),
        ("/a/SIMS/Processed/unaligned_39.pkl", "ch-sims"),
        ("/a/CH-SIMSv2/data/feature.pkl", "ch-sims"),
        ("/a/simsv2.pkl", "ch-sims"),
        ("/a/ur_funny/train.pkl", "ur-funny"),
        ("/a/MOSEI/mosi.pkl", "cmu-mosi"),  # the file's own name first
        ("/a/mosi_and_mosei/train.pkl", None),
        ("/a/simsalabim/train.pkl", None),
        ("/a/maxims/train.pkl", None),
        ("/MOSI/runs/train.pkl", None),  # a folder further up that says something else
    ],
)
def test_which_dataset_names_in_paths(path: str, expected: str | None) -> None:
    assert name_in_path(Path(path))[1] == expected


def test_which_dataset_a_links_own_name_counts_not_its_targets(
    rows: Any, tmp_path: Path, dump: Callable[..., Path]
) -> None:
    """DVC and the hub's cache keep a blob under a hash; the columns here say nothing."""
    for folder in ("cache", "MOSEI", "other"):
        (tmp_path / folder).mkdir()
    blob = tmp_path / "cache" / "9c1b"
    blob.write_bytes(pickle.dumps(rows("v[0]", "v[1]", "w[0]", vision=4, audio=3)))
    for folder in ("MOSEI", "other"):
        os.symlink("../cache/9c1b", tmp_path / folder / "train.pkl")
    description, samples = open_source(tmp_path / "MOSEI" / "train.pkl")
    assert description.dataset == "cmu-mosei"
    assert [sample.id for sample in samples] == ["v_0", "v_1", "w_0"]
    # And where the target's folder is called after another dataset.
    (tmp_path / "mosi").mkdir()
    (tmp_path / "mosi" / "x.pkl").write_bytes(blob.read_bytes())
    link = tmp_path / "MOSEI" / "dev.pkl"
    os.symlink(tmp_path / "mosi" / "x.pkl", link)
    assert open_source(link)[0].dataset == "cmu-mosei"


@pytest.mark.parametrize("folder", ["MOSI", "disk7", "9c1b", "MOSEI"])
def test_which_dataset_moseis_clips_are_never_shifted(
    rows: Any, tmp_path: Path, folder: str
) -> None:
    path = tmp_path / folder / "train.pkl"
    path.parent.mkdir()
    seven = np.zeros((1, 7), np.float32)
    for shown in (rows("mvid0[0]", "mvid0[1]"), rows("mvid0[0]", vision=9, audio=9, label=seven)):
        path.write_bytes(pickle.dumps(shown))
        description, samples = open_source(path)
        assert description.dataset == "cmu-mosei"
        assert next(iter(samples)).id == "mvid0_0"
        assert bool(description.warnings) == (folder == "MOSI")


def test_which_dataset_tuples_that_say_nothing_are_taken_for_mosi_aloud(
    rows: Any, tmp_path: Path
) -> None:
    folder = Path("/tmp") if "mos" in str(tmp_path.name) else tmp_path
    path = folder / "train.pkl"
    path.write_bytes(pickle.dumps(rows("v[0]", "v[1]", vision=4, audio=3)))
    description, samples = open_source(path)
    assert [sample.id for sample in samples] == ["v_1", "v_2"]
    assert "nothing says which dataset it is" in description.warnings[0]
    assert "--dataset" in description.warnings[0]


# Conflicts


def test_which_dataset_a_name_against_the_content_is_said_aloud() -> None:
    evidence = Evidence(widths=_widths(74, 35), label_columns=7)
    which = decide(evidence, Path("/a/mosi.pkl"))
    assert which.dataset == "cmu-mosei"
    (warning,) = which.warnings
    for part in ("'mosi.pkl' says cmu-mosi", "7 columns", "74 columns", "--dataset"):
        assert part in warning
    which = decide(Evidence(labels=NARROW), Path("/a/mosi.pkl"))
    assert which.dataset == "cmu-mosi"
    assert "though labels rise in steps of 0.2 within -1 to 1" in which.warnings[0]


def test_which_dataset_content_of_two_is_refused_unless_the_name_decides() -> None:
    evidence = Evidence(widths=_widths(5, 20), label_columns=7)
    with pytest.raises(UserError, match=r"could be two datasets: .*cmu-mosei.*--dataset"):
        decide(evidence, SAYS_NOTHING)
    assert decide(evidence, Path("/a/mosi.pkl")).dataset == "cmu-mosi"
    told = decide(evidence, SAYS_NOTHING, dataset="MOSEI")
    assert told.dataset == "cmu-mosei"
    assert "as told by --dataset, though audio has 5 columns" in told.warnings[0]


def test_which_dataset_labels_off_the_scale_are_said_aloud() -> None:
    ratings = np.array([1.0, 2.0, 3.0, 4.0, 5.0] * 10)
    which = decide(Evidence(widths=_widths(5, 20), labels=ratings), SAYS_NOTHING)
    assert "40% of the labels lie outside -3 to 3, the scale of cmu-mosi" in which.warnings[0]
    small = decide(Evidence(labels=TENTHS / 3), SAYS_NOTHING)
    assert "--label-range names another" in small.warnings[0]
    told = decide(Evidence(labels=ratings), SAYS_NOTHING, label_range=(1, 5))
    assert (told.scale.label_range, told.warnings) == ((1.0, 5.0), ())


def test_which_dataset_splits_under_the_name_of_another_are_said() -> None:
    sizes = {"train": 229, "valid": 1284, "test": 686}
    (said,) = decide(Evidence(sizes=sizes), SAYS_NOTHING, dataset="mosi").warnings
    assert said == (
        "train has the 229 samples of valid, valid has the 1284 samples of train as cmu-mosi was "
        "published: were splits exchanged?"
    )
    right = {"train": 1284, "valid": 229, "test": 686}
    assert decide(Evidence(sizes=right), SAYS_NOTHING).warnings == ()
    assert decide(Evidence(sizes={"test": 229}), SAYS_NOTHING).warnings == ()  # as the user likes


# What the user tells


@pytest.mark.parametrize("name", ["mosi", "MOSI", "cmu-mosi", "CMU_MOSI", " CMUMOSI "])
def test_which_dataset_is_known_by_all_its_spellings(name: str) -> None:
    assert spoken_name(name) == "cmu-mosi"


def test_which_dataset_and_range_are_told_on_the_command_line(
    dump: Callable[..., Path], mmsa_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dump(mmsa_data, "mosi.pkl")
    assert main(["data", "import", str(path), "--out", str(tmp_path / "s"), "--dataset", "sims",
                 "--label-range", "-2.5", "2.5"]) == 0  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    assert "the dataset is ch-sims: as told by --dataset" in said
    assert "labels lie in -2.5 to 2.5, as told by --label-range" in said
    described = Store.open(tmp_path / "s").description
    assert (described.dataset, described.label_range) == ("ch-sims", (-2.5, 2.5))
    assert "the dataset is ch-sims: as told by --dataset" in described.decisions
    assert main(["data", "check", str(path), "--label-range", "-1", "1"]) == 1
    assert "outside -1 to 1" in capsys.readouterr().out
    for bad in (["1", "-1"], ["nan", "1"]):
        assert main(["data", "check", str(path), "--label-range", *bad]) == 2
        assert "two numbers that rise" in capsys.readouterr().err


def test_which_dataset_is_said_at_import_and_kept(
    dump: Callable[..., Path], mmsa_data: Any
) -> None:
    described = open_source(dump(mmsa_data))[0]
    assert described.decisions[0] == "the dataset is cmu-mosi: audio has 5 columns, vision 20"


def test_which_dataset_of_a_table_shows_in_its_labels(
    tmp_path: Path, write_table: Callable[..., Path]
) -> None:
    header = ("video_id", "clip_id", "text", "label", "mode")
    lines = [
        (f"v{n // 5}", str(n % 5), "x", f"{value:g}", "train") for n, value in enumerate(NARROW)
    ]
    folder = tmp_path / "ask"
    folder.mkdir()
    write_table(header, *lines).rename(folder / "label.csv")
    store = import_dataset(folder, format=None, out=tmp_path / "out", options=ReadOptions())
    assert store.description.dataset == "ch-sims"
    assert store.description.label_range == (-1.0, 1.0)


# Configs of a comparison


@pytest.mark.parametrize(
    ("dataset", "task", "num_train", "expected"),
    [
        ("ch-sims", "regression", 1368, "mosi"),
        ("unnamed", "regression", 24, "mosi"),
        ("vlogs", "regression", 20_000, "mosei"),
        ("vlogs", "classification", 300, "ur_funny"),
    ],
)
def test_which_dataset_has_no_configs_takes_the_nearest_aloud(
    dataset: str, task: str, num_train: int, expected: str
) -> None:
    chosen = choose_configs(None, dataset, task=task, num_train=num_train)
    assert chosen.folder.name == expected
    assert f"no configs ship for the dataset {dataset!r}: those of {expected}" in chosen.reason
    assert ("English" in chosen.reason) == (dataset == "ch-sims")


def test_which_dataset_has_configs_says_nothing() -> None:
    for dataset, expected in (("cmu-mosi", "mosi"), ("synthetic-mosi", "synthetic")):
        chosen = choose_configs(None, dataset, task="regression", num_train=9)
        assert (chosen.folder.name, chosen.reason) == (expected, "")
    assert choose_configs("mosei", "ch-sims", task="regression", num_train=9).reason == ""


def test_which_dataset_a_comparison_without_configs_says_whose_it_takes(
    dump: Callable[..., Path], mmsa_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ReadOptions(dataset="vlogs")
    import_dataset(dump(mmsa_data), format=None, out=tmp_path / "s", options=options)
    command = ["compare", "--data", str(tmp_path / "s"), "--out", str(tmp_path / "c"),
               "--methods", "concat", "--seeds", "1", "--tables-only", "--quiet"]  # fmt: skip
    assert main(command) == 1  # nothing is finished
    said = "no configs ship for the dataset 'vlogs': those of mosi are used"
    assert said in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "c" / "comparison.md").read_text()
    assert said[1:] in " ".join(page.split())
