"""A model is never given other columns than it was trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec, check_features
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.data.samples import DatasetDescription, Sample
from tecafn.data.store import Store, StoreWriter

SPEC = FeatureSpec(
    extractor="voice-measures",
    version=1,
    width=2,
    columns=("f0_hz", "voiced"),
    frames_per_second=100.0,
    models={"speech": "a" * 64},
    settings={"block": 3},
)


def test_a_specification_survives_json() -> None:
    assert FeatureSpec.from_dict(json.loads(json.dumps(SPEC.as_dict()))) == SPEC


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version 1 against 2"),
        ({"extractor": "whisper-states"}, "extractor voice-measures against whisper-states"),
        ({"columns": ("f0_hz", "hnr_db")}, "column 2 voiced against hnr_db"),
        ({"width": 3, "columns": ()}, "width 2 against 3"),
        ({"frames_per_second": 50.0}, "frames per second 100.0 against 50.0"),
        ({"models": {"speech": "b" * 64}}, "models speech aaaaaaaaaaaa... against bbbbbbbbbbbb..."),
        ({"settings": {"block": 4}}, "settings block 3 against 4"),
        ({"settings": {}}, "settings block 3 against none"),
        ({"normalisation": "per speaker"}, "normalisation none against per speaker"),
    ],
)
def test_whatever_differs_is_named_with_both_sides(change: dict[str, Any], said: str) -> None:
    other = dataclasses.replace(SPEC, **change)
    with pytest.raises(UserError) as caught:
        check_features(
            {Modality.AUDIO: SPEC},
            {Modality.AUDIO: other},
            model_name="runs/mine",
            data_name="stores/theirs",
        )
    line = str(caught.value)
    assert said in line
    assert "runs/mine" in line
    assert "stores/theirs" in line
    assert "\n" not in line


@pytest.mark.parametrize("known", [{}, {Modality.VISION: SPEC}])
def test_data_without_a_specification_are_used_as_ever(known: dict[Modality, FeatureSpec]) -> None:
    check_features({Modality.AUDIO: SPEC}, known, model_name="m", data_name="d")
    check_features(known, {Modality.AUDIO: SPEC}, model_name="m", data_name="d")


def test_columns_must_be_as_many_as_the_width() -> None:
    with pytest.raises(ValueError, match="2 names, got 1"):
        dataclasses.replace(SPEC, columns=("f0_hz",))


@pytest.mark.parametrize("spoilt", [{"extractor": "a"}, {**SPEC.as_dict(), "colour": "red"}, []])
def test_a_damaged_specification_is_refused(spoilt: Any) -> None:
    with pytest.raises(ValueError, match="specification"):
        FeatureSpec.from_dict(spoilt)


def _store(path: Path, features: dict[Modality, FeatureSpec]) -> Store:
    description = DatasetDescription(
        dataset="toy", widths={Modality.AUDIO: 2}, features=features, splits=("train",)
    )
    with StoreWriter(path, description) as writer:
        writer.add(
            Sample(
                id="v_1",
                source_id="v_1",
                video="v",
                clip="1",
                split="train",
                text="fine",
                label=1.0,
                sequences={Modality.AUDIO: np.ones((3, 2), np.float32)},
            )
        )
    return Store.open(path)


def test_the_store_keeps_the_specification(tmp_path: Path) -> None:
    store = _store(tmp_path / "store", {Modality.AUDIO: SPEC})
    assert store.description.features == {Modality.AUDIO: SPEC}


def test_a_store_without_one_has_the_manifest_it_always_had(tmp_path: Path) -> None:
    store = _store(tmp_path / "store", {})
    assert "features" not in store.manifest
    assert "class_names" not in store.manifest
    assert store.description.features == {}


def test_a_damaged_specification_in_a_manifest_is_one_line(tmp_path: Path) -> None:
    path = _store(tmp_path / "store", {Modality.AUDIO: SPEC}).path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["features"]["audio"]["colour"] = "red"
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        Store.open(path.parent)


def test_a_saved_model_s_definition_keeps_the_specification() -> None:
    import pydantic

    info = DataInfo(widths={Modality.AUDIO: 2}, features={Modality.AUDIO: SPEC})
    adapter = pydantic.TypeAdapter(DataInfo)
    saved = json.loads(json.dumps(adapter.dump_python(info, mode="json")))
    assert adapter.validate_python(saved).features == {Modality.AUDIO: SPEC}
    del saved["features"], saved["class_names"]  # as version 0.1 wrote it
    assert adapter.validate_python(saved).features == {}
