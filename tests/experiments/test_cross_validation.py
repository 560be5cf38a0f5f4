"""Folds by video: nobody is predicted by a network that saw its video, and test stays closed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved import read_rows

import tecafn.experiments.fit as fit_module
import tecafn.experiments.setup as preparing
from tecafn.core.errors import UserError
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.scheme import Scheme
from tecafn.data.loader import BatchLoader
from tecafn.data.store import SplitView, Store
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.cross_validation import cross_validate_run, video_folds
from tecafn.experiments.evaluate import evaluate_run
from tecafn.records.record import read_record
from tecafn.training.trainer import Trainer

CrossValidate = Callable[..., dict[str, Any]]


@given(
    videos=st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=60),
    num_folds=st.integers(3, 10),
    seed=st.integers(0, 5),
)
@settings(max_examples=200, deadline=None)
def test_folds_are_disjoint_by_video_and_cover_every_sample_once(
    videos: list[str], num_folds: int, seed: int
) -> None:
    if len(set(videos)) < num_folds:
        with pytest.raises(UserError, match="folds must be between 3 and the number of videos"):
            video_folds(videos, num_folds=num_folds, seed=seed)
        return
    folds = video_folds(videos, num_folds=num_folds, seed=seed)
    assert len(folds) == num_folds
    named = np.array(videos)
    for fold in folds:
        parts = [fold.train, fold.valid, fold.held_out]
        assert all(len(part) for part in parts)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(videos)))
        seen = [set(named[part]) for part in parts]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]
    for part in ("held_out", "valid"):
        rows = np.concatenate([getattr(fold, part) for fold in folds])
        assert sorted(rows.tolist()) == list(range(len(videos)))


def test_folds_are_of_nearly_one_size() -> None:
    random = np.random.default_rng(0)
    videos = [f"v{k}" for k in range(50) for _ in range(random.integers(1, 20))]
    sizes = [len(fold.held_out) for fold in video_folds(videos, num_folds=10, seed=0)]
    assert max(sizes) - min(sizes) <= 2


def test_folds_depend_on_the_seed_alone() -> None:
    videos = [f"v{k}" for k in range(20) for _ in range(3)]
    one, again, other = (
        [fold.held_out.tolist() for fold in video_folds(videos, num_folds=5, seed=seed)]
        for seed in (0, 0, 1)
    )
    assert one == again != other


@pytest.mark.parametrize("num_folds", [-1, 0, 1, 2, 4])
def test_number_of_folds_out_of_range_is_one_line(num_folds: int) -> None:
    with pytest.raises(UserError, match=f"between 3 and the number of videos 3, got {num_folds}"):
        video_folds(["a", "b", "c"], num_folds=num_folds, seed=0)


# Whole runs

SIZES = {"train": 20, "valid": 8, "test": 8}


@pytest.fixture(scope="module")
def store(make_store: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 samples of seven videos outside test."""
    return make_store(tmp_path_factory.mktemp("data") / "store", sizes=SIZES)


@pytest.fixture(scope="module")
def cross_validate(tiny_toml: Path, store: Path) -> CrossValidate:
    """Trains three folds for one epoch each."""

    def train(
        out: Path, *overrides: str, data: Path = store, num_folds: int = 3, **options: Any
    ) -> Any:
        settings = load_config(tiny_toml, ["training.max_epochs=1", *overrides])
        return cross_validate_run(
            settings,
            data=data,
            out=out,
            num_folds=num_folds,
            device="cpu",
            progress=False,
            **{"by": "video"} | options,
        )

    return train


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Neither waits for the disk nor draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("tecafn.report.html.write_report", lambda run: run / "report.html")
        yield


class Seen:
    """What was given to describe, build and train each fold."""

    def __init__(self) -> None:
        self.views: list[SplitView] = []
        self.schemes: list[tuple[Scheme, DataInfo]] = []
        self.splits: list[str] = []


@pytest.fixture(scope="module")
def finished(
    cross_validate: CrossValidate, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Seen]:
    """A finished cross-validation, and what it looked at."""
    out, seen = tmp_path_factory.mktemp("cv") / "run", Seen()
    build, describe = preparing.build_scheme, preparing.describe_data
    split = Store.split

    def building(config: RunConfig, info: DataInfo) -> Scheme:
        scheme = build(config, info)
        seen.schemes.append((scheme, info))
        return scheme

    def describing(store: Store, train: SplitView, config: RunConfig) -> DataInfo:
        seen.views.append(train)
        return describe(store, train, config)

    def splitting(self: Store, name: str) -> SplitView:
        seen.splits.append(name)
        return split(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "build_scheme", building)
        patch.setattr(preparing, "describe_data", describing)
        patch.setattr(Store, "split", splitting)
        cross_validate(out)
    return out, seen


def test_every_labelled_sample_outside_test_is_predicted_once(
    finished: tuple[Path, Seen], store: Path
) -> None:
    out, _ = finished
    rows = read_rows(out / "predictions" / "out-of-fold.csv")
    opened = Store.open(store)
    expected = opened.split("train").ids + opened.split("valid").ids
    assert sorted(row["id"] for row in rows) == sorted(expected)
    assert all(np.isfinite(float(row["prediction"])) for row in rows)
    record = read_record(out)
    evaluation = record["evaluations"]["out-of-fold"]
    errors = [abs(float(row["prediction"]) - float(row["label"])) for row in rows]
    assert evaluation["metrics"]["mae"] == pytest.approx(np.mean(errors), abs=1e-5)
    assert evaluation["num_samples"] == 28
    assert sum(fold["num_held_out"] for fold in record["folds"]) == 28
    assert list(record["evaluations"]) == ["out-of-fold"]


def test_test_split_is_never_opened(finished: tuple[Path, Seen], store: Path) -> None:
    _, seen = finished
    assert "test" not in seen.splits
    held = set(Store.open(store).split("test").ids)
    assert not held & {name for view in seen.views for name in view.ids}


def test_unlabelled_samples_stay_outside(
    cross_validate: CrossValidate, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_store(tmp_path / "store", sizes=SIZES, unlabelled=("valid",))
    cross_validate(tmp_path / "run", data=data)
    rows = read_rows(tmp_path / "run" / "predictions" / "out-of-fold.csv")
    assert sorted(row["id"] for row in rows) == sorted(Store.open(data).split("train").ids)
    everything = make_store(tmp_path / "all", sizes=SIZES, unlabelled=("train", "valid"))
    with pytest.raises(UserError, match="no labelled samples outside its test split"):
        cross_validate(tmp_path / "none", data=everything)


def test_standardisation_is_of_each_folds_own_training_rows(
    finished: tuple[Path, Seen], store: Path
) -> None:
    _, seen = finished
    pool = Store.open(store).labelled_pool()
    folds = video_folds(pool.videos, num_folds=3, seed=0)
    means = []
    for fold, view, (scheme, info) in zip(folds, seen.views, seen.schemes, strict=True):
        assert view.ids == [pool.ids[row] for row in fold.train]
        for modality in (Modality.AUDIO, Modality.VISION):
            frames = np.concatenate([pool.sequence(int(row), modality) for row in fold.train])
            statistics = info.statistics[modality]
            np.testing.assert_allclose(statistics.mean, frames.mean(0, np.float64), rtol=1e-6)
            np.testing.assert_allclose(statistics.std, frames.std(0, dtype=np.float64), rtol=1e-6)
            # And these are what the network standardises with.
            kept = [
                value.numpy()
                for value in scheme.network.state_dict().values()
                if value.shape == (len(statistics.mean),)
            ]
            assert any(np.allclose(value, statistics.mean, rtol=1e-5) for value in kept)
        means.append(info.statistics[Modality.AUDIO].mean)
    assert means[0] != means[1] != means[2]


def test_a_folds_predictions_come_from_its_own_network(
    finished: tuple[Path, Seen], store: Path
) -> None:
    out, seen = finished
    pool = Store.open(store).labelled_pool()
    rows = {
        row["id"]: float(row["prediction"])
        for row in read_rows(out / "predictions" / "out-of-fold.csv")
    }
    tokenizer = preparing.prepare_batches(
        load_config(out / "config.toml"),
        seen.schemes[0][1],
        seen.schemes[0][0],
        Store.open(store),
        device=None,  # type: ignore[arg-type]
    ).tokenizer
    for fold, (scheme, _) in zip(
        video_folds(pool.videos, num_folds=3, seed=0), seen.schemes, strict=True
    ):
        view = pool.subset(fold.held_out)
        loader = BatchLoader(
            view, modalities=list(Modality), batch_size=64, seed=0, shuffle=False, text=tokenizer
        )
        (batch,) = loader.batches(0)
        answers = scheme.eval().predict(batch).tolist()
        expected = [rows[name] for name in batch.ids]
        assert answers == pytest.approx(expected, abs=1e-5)


def test_fold_weights_are_not_kept_and_the_run_says_so(
    finished: tuple[Path, Seen], store: Path
) -> None:
    out, _ = finished
    assert not list(out.rglob("*.safetensors"))
    with pytest.raises(UserError, match=r"no network in model/.*a cross-validation keeps none"):
        evaluate_run(out, data=store, device="cpu")


def test_resume_trains_unfinished_folds_alone_and_ends_the_same(
    finished: tuple[Path, Seen],
    cross_validate: CrossValidate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, _ = finished
    out = shutil.copytree(whole, tmp_path / "run")
    # Killed in its second fold, just before that was written down.
    (out / "record.json").unlink()
    shutil.rmtree(out / "predictions")
    shutil.rmtree(out / "fold-01")
    shutil.rmtree(out / "fold-02")
    trained = []

    class Watched(Trainer):
        def fit(self, *arguments: Any, **options: Any) -> Any:
            trained.append(self._run_dir.name)
            return super().fit(*arguments, **options)

    monkeypatch.setattr(fit_module, "Trainer", Watched)
    with pytest.raises(UserError, match="holds a run already"):
        cross_validate(out)
    cross_validate(out, resume=True)
    assert trained == ["fold-01", "fold-02"]
    name = "predictions/out-of-fold.csv"
    assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_finished_cross_validation_is_left_as_it_is_by_a_resume(
    finished: tuple[Path, Seen], cross_validate: CrossValidate, tmp_path: Path
) -> None:
    out = shutil.copytree(finished[0], tmp_path / "run")
    record: Any = read_record(out)
    record["comparisons"] = [{"name": "text alone"}]
    (out / "record.json").write_text(json.dumps(record), encoding="ascii")
    (out / "report.html").touch()
    assert cross_validate(out, resume=True) == record


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_folds": 4}, "was begun with num_folds 3, got 4"),
        ({"overrides": ["seed=1"]}, "was begun with config.seed 0, got 1"),
    ],
)
def test_resume_with_other_folds_is_refused(
    finished: tuple[Path, Seen],
    cross_validate: CrossValidate,
    tmp_path: Path,
    options: dict[str, Any],
    told: str,
) -> None:
    out = shutil.copytree(finished[0], tmp_path / "run")
    (out / "record.json").unlink()
    overrides = options.pop("overrides", [])
    with pytest.raises(UserError, match=told):
        cross_validate(out, *overrides, resume=True, **options)


def test_folds_by_anything_but_video_are_refused(
    cross_validate: CrossValidate, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cross-validation is by 'video', got 'speaker'"):
        cross_validate(tmp_path / "run", by="speaker")


def test_frozen_text_is_encoded_once_for_all_folds(
    cross_validate: CrossValidate,
    make_store: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tecafn.experiments.text_cache as text_cache

    computed = []
    compute = text_cache._compute

    def counting(encoder: Any, tokens: Any, folder: Path, device: Any) -> None:
        computed.append(len(tokens))
        compute(encoder, tokens, folder, device)

    monkeypatch.setattr(text_cache, "_compute", counting)
    data = make_store(tmp_path / "store", sizes=SIZES)
    cross_validate(tmp_path / "frozen", "num_trained_text_layers=0", data=data)
    assert computed == [28]
    # The cache's rows are the pool's: uncached, the same networks give the same answers.
    with monkeypatch.context() as patch:
        patch.setattr("tecafn.experiments.setup.cached_states", _uncached)
        cross_validate(tmp_path / "uncached", "num_trained_text_layers=0", data=data)
    predictions = [
        [
            float(row["prediction"])
            for row in read_rows(tmp_path / run / "predictions" / "out-of-fold.csv")
        ]
        for run in ("frozen", "uncached")
    ]
    assert predictions[0] == pytest.approx(predictions[1], abs=1e-4)


class _Fresh:
    """States computed anew for every row that is asked for, one text at a time."""

    def __init__(self, encoder: Any, tokens: Any) -> None:
        self._encoder = encoder
        self._tokens = tokens

    def hidden(self, row: int) -> Any:
        import torch

        from tecafn.core.batch import pad_rows

        with torch.inference_mode():
            padded = pad_rows([torch.from_numpy(self._tokens[row])])
            return self._encoder.eval().run_frozen(padded).values[0].numpy()


def _uncached(encoder: Any, tokens: Any, *, cache_dir: Path, device: Any) -> _Fresh:
    return _Fresh(encoder, tokens)
