"""What every test shares: one thread, where the real data lie, and things too small to wait for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import chromium, open_browser

# Two threads spin against each other on a busy machine; one makes sums repeatable, too.
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where there is none."""
    if chromium() is None or importlib.util.find_spec("playwright") is None:
        pytest.skip(
            "PAGES NOT TESTED IN A BROWSER: install Chromium (TECAFN_CHROMIUM names it elsewhere) "
            "and the package playwright"
        )
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real datasets, from TECAFN_DATA or beside the repository."""
    named = os.environ.get("TECAFN_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(
            f"REAL DATA NOT TESTED: {root} is no folder; set TECAFN_DATA to the folder that holds "
            "mosi, mosei and the others"
        )
    return root


# Datasets, encoders and runs of a second or less

WORDS = ("the", "film", "was", "good", "bad", "fine", "dull", "great", "awful", "not", "very", "i")


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, and waiting for the disk was most of their time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def _tiny_bert(folder: Path, *, seed: int = 0, num_layers: int = 2) -> Path:
    """A BERT of random weights that knows ``WORDS``, saved as Hugging Face saves one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    ids = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    special = {f"{word[1:-1].lower()}_token": word for word in vocabulary[:5]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(str(folder))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(
            BertConfig(
                vocab_size=len(vocabulary),
                hidden_size=32,
                num_hidden_layers=num_layers,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=128,
            )
        ).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def make_bert() -> Callable[..., Path]:
    """``make_bert(folder, seed=0)`` writes a text encoder of 30 thousand parameters."""
    return _tiny_bert


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to give as ``text_encoder``."""
    return _tiny_bert(tmp_path_factory.mktemp("bert") / "tiny-bert")


def _tiny_store(
    path: Path,
    *,
    sizes: dict[str, int] | None = None,
    unlabelled: tuple[str, ...] = (),
    audio: int = 5,
    vision: int | None = 20,
    seed: int = 0,
    task: str = "regression",
    clips: int = 4,
) -> Path:
    """MOSI's widths, four clips a video; what a clip's words, voice and face say is its label."""
    from tecafn.core.modality import Modality
    from tecafn.data import DatasetDescription, Sample, StoreWriter

    random = np.random.default_rng(seed)
    widths = {Modality.AUDIO: audio} | ({} if vision is None else {Modality.VISION: vision})
    is_score = task == "regression"
    description = DatasetDescription(
        dataset="tiny",
        widths=widths,
        task=task,  # type: ignore[arg-type]
        label_range=(-3.0, 3.0) if is_score else (0.0, 1.0),
        num_classes=1 if is_score else 2,
    )
    with StoreWriter(path, description) as writer:
        for split, size in (sizes or {"train": 20, "valid": 8, "test": 12}).items():
            for number in range(size):
                video, clip = f"{split}{number // clips:02d}", str(number % clips + 1)
                score = float(np.float32(random.uniform(-3, 3)))
                words = [*random.choice(WORDS, random.integers(2, 8)), "good" * (score > 0)]
                writer.add(
                    Sample(
                        id=f"{video}_{clip}",
                        source_id=f"{video}_{clip}",
                        video=video,
                        clip=clip,
                        split=split,
                        text=" ".join(words).strip(),
                        label=None if split in unlabelled else score if is_score else score > 0,
                        sequences={
                            m: (random.normal(size=(random.integers(2, 7), width)) + score).astype(
                                np.float32
                            )
                            for m, width in widths.items()
                        },
                    )
                )
    return path


@pytest.fixture(scope="session")
def make_store() -> Callable[..., Path]:
    """``make_store(path, sizes={"train": 20}, ...)`` writes a store of a few dozen samples."""
    return _tiny_store


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 training, 8 validation and 12 test samples; not to be written to."""
    return _tiny_store(tmp_path_factory.mktemp("data") / "tiny-store")


@pytest.fixture(scope="session")
def tiny_toml(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config that trains in a second."""
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(
        f"""
method = "tecafn"
text_encoder = '{tiny_bert}'
[model]
dim = 10
num_layers = 1
num_unimodal_layers = 1
unimodal_hidden_dim = 8
[training]
max_epochs = 2
batch_size = 8
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_toml: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; copy it before writing to it."""
    from tecafn.experiments.config import load_config
    from tecafn.experiments.run import train_run

    out = tmp_path_factory.mktemp("run") / "tiny-run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        train_run(load_config(tiny_toml), data=tiny_store, out=out, device="cpu", progress=False)
    return out


@pytest.fixture
def train_tiny(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, no_fsync: None
) -> Callable[..., dict[str, Any]]:
    """``train_tiny("name", "training.max_epochs=3", data=...)`` trains into ``tmp_path / name``.

    It draws no report, which takes most of a tiny run's time.
    """
    from tecafn.experiments.config import load_config
    from tecafn.experiments.run import train_run

    def train(name: str = "run", *overrides: str, data: Path = tiny_store, **options: Any) -> Any:
        settings = load_config(tiny_toml, overrides)
        options = {"report": False} | options
        return train_run(
            settings, data=data, out=tmp_path / name, device="cpu", progress=False, **options
        )

    return train
