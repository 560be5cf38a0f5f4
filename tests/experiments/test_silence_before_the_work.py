"""What would fail is known before the work: the encoder, the device, the data, the settings."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.layers.encoder_source import check_source

pytestmark = pytest.mark.usefixtures("no_fsync")

Told = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs a command, and gives its exit code and the lines that it complained with."""

    def run(*arguments: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err.splitlines()

    return run


@pytest.fixture
def no_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty cache, and a hub that takes calls and never answers."""
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    silent.close()


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """Three methods whose encoder is nowhere."""
    folder = tmp_path / "configs"
    folder.mkdir()
    for name in ("concat", "tfn", "lmf"):
        text = f"method = '{name}'\ntext_encoder = 'no-such/encoder'\n"
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.usefixtures("no_way_out")
def test_a_missing_encoder_is_known_in_two_seconds_and_asked_for_once() -> None:
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(UserError, match=r"'no-such/encoder'.*no network\?.*minilm"):
            check_source("no-such/encoder")
    assert time.monotonic() - began < 2.0


@pytest.mark.usefixtures("no_way_out")
def test_compare_says_once_and_before_the_first_run_that_the_encoder_is_missing(
    told: Told, tiny_store: Path, configs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("compare", "--data", tiny_store, "--configs", configs, "--out", out, "--quiet")
    code, lines = told(*command, "--methods", "concat,tfn,lmf")
    assert code == 2
    (line,) = lines
    assert line.count("'no-such/encoder'") == 1
    assert line.startswith("error: no method can be trained; all: text_encoder ")
    assert not list(out.glob("*/seed-*"))


@pytest.mark.usefixtures("no_way_out")
def test_train_says_it_before_anything_is_written(
    told: Told, tiny_store: Path, configs: Path, tmp_path: Path
) -> None:
    command = ("train", configs / "tfn.toml", "--data", tiny_store, "--out", tmp_path / "run")
    code, (line,) = told(*command)
    assert (code, "no-such/encoder" in line) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_missing_run_is_not_looked_for_on_a_hub_that_is_silent(
    told: Told, tiny_store: Path, tmp_path: Path, command: str
) -> None:
    out = ("--out", tmp_path / "p.csv") if command == "predict" else ()
    began = time.monotonic()
    code, (line,) = told(command, "nobody/model", "--data", tiny_store, "--device", "cpu", *out)
    assert (code, "nobody/model" in line) == (2, True)
    assert time.monotonic() - began < 4.0


def test_the_check_needs_no_torch_and_a_config_without_text_no_encoder() -> None:
    code = (
        "import sys\nfrom tecafn.layers.encoder_source import check_settings\n"
        "check_settings({'text_encoder': 'features'})\n"
        "check_settings({'text_encoder': 'no/such', 'modalities': ['audio']})\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: No such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text('{"hidden_size": 8}'), "no model_type"),
        (lambda folder: [p.unlink() for p in folder.glob("*.safetensors")], "it has no weights"),
    ],
)
def test_a_folder_that_is_no_encoder_is_known_by_its_files(
    tiny_bert: Path, tmp_path: Path, change: Callable[[Path], object], named: str
) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "encoder")
    check_source(str(folder))
    change(folder)
    with pytest.raises(UserError, match=named):
        check_source(str(folder))


def test_a_model_in_the_cache_is_taken_without_asking(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--encoder" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    check_source("some/encoder")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--set", "training.monitor=accuracy"), "training.monitor 'accuracy' is not measured"),
        (("--set", "max_epochs=3"), "unknown key 'max_epochs': did you mean 'training.max_epochs'"),
        (("--device", "tpu"), "device must be one of auto, cpu, cuda, got 'tpu'"),
    ],
)
def test_compare_refuses_settings_that_no_run_could_have(
    told: Told, tiny_store: Path, tiny_bert: Path, configs: Path, tmp_path: Path,
    options: tuple[str, ...], named: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    command = ("compare", "--data", tiny_store, "--configs", configs, "--out", out, "--quiet")
    more = ("--methods", "concat,tfn", "--set", f"text_encoder={tiny_bert}")
    code, (line,) = told(*command, *more, *options)
    assert (code, named in line) == (2, True), line
    assert not list(out.glob("*/seed-*"))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_compare_refuses_data_that_no_run_could_be_trained_on(
    told: Told, make_store: Callable[..., Path], configs: Path, tmp_path: Path, split: str
) -> None:
    store = make_store(tmp_path / "store", unlabelled=(split,))
    command = ("compare", "--data", store, "--configs", configs, "--out", tmp_path / "out")
    code, (line,) = told(*command, "--methods", "concat,tfn", "--split", "test")
    assert code == 2
    assert f"split '{split}'" in line
    assert "samples without a label" in line
