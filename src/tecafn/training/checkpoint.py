"""Checkpoints that are either whole or absent, hold no code, and are checked when read.

``RUN/checkpoints/<step>/`` has ``scheme.safetensors`` (parameters and buffers),
``optimizers.safetensors``, ``trainer.json`` (counters, schedules, generator states) and
``hashes.json``. ``RUN/checkpoints/best/<step>/`` has the scheme of the best epoch alone. Each is
written into a hidden folder beside its place, flushed to disk, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tecafn.core.errors import UserError
from tecafn.core.weights import load_module, save_module

FORMAT_VERSION = 1
_SCHEME = "scheme.safetensors"
_OPTIMIZERS = "optimizers.safetensors"
_TRAINER = "trainer.json"
_HASHES = "hashes.json"
_NUM_KEPT = 2


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_to_disk(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Make ``target`` appear whole: ``fill`` a hidden folder, hash, flush, rename.

    Raises:
        UserError: the disk is full or the folder cannot be written; nothing is left behind and
            whatever stood there before still stands.
    """
    temporary = target.parent / f".writing-{target.name}"
    replaced = target.parent / f".replaced-{target.name}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in (temporary, replaced):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        temporary.mkdir()
        fill(temporary)
        hashes = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / _HASHES).write_text(json.dumps(hashes, indent=1), encoding="ascii")
        for path in temporary.iterdir():
            _flush_to_disk(path)
        _flush_to_disk(temporary)
        if target.exists():
            # Not removed in its place: a kill meanwhile would leave half of it, which is no
            # checkpoint but looks like one.
            target.rename(replaced)
        temporary.rename(target)
        _flush_to_disk(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"cannot write checkpoint {target}: {reason}") from None


def _defect(folder: Path, required: tuple[str, ...]) -> str:
    """Why a checkpoint cannot be trusted; empty when every hash verifies."""
    try:
        hashes = json.loads((folder / _HASHES).read_text(encoding="ascii"))
        names = set(hashes) | set(required)
        for name in sorted(names):
            if _sha256(folder / name) != hashes.get(name):
                return f"{name} does not match its hash"
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {error.strerror}"
    except (ValueError, AttributeError, TypeError):
        return f"{_HASHES} is not readable"
    return ""


class Checkpoints:
    """The folder ``RUN/checkpoints`` of one run: the newest two, and the best schemes they name.

    Args:
        folder: made by the first write.
        keep_every_best: keep the scheme of every epoch that was the best when it ended.
    """

    def __init__(self, folder: Path, *, keep_every_best: bool = False) -> None:
        self._folder = folder
        self._keep_every_best = keep_every_best

    def __bool__(self) -> bool:
        """Is there any checkpoint, whole or broken?"""
        return bool(self._steps())

    def _steps(self) -> list[Path]:
        """Checkpoints by step, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.name.isdigit())

    def _best_steps(self) -> list[int]:
        """Steps of the best schemes that are kept, oldest first."""
        return sorted(
            int(path.name) for path in (self._folder / "best").glob("*") if path.name.isdigit()
        )

    def best_steps(self) -> list[int]:
        """Steps at which epochs ended that were the best, as far as kept, oldest first.

        Raises:
            UserError: the weights of one of them are broken.
        """
        steps = self._best_steps()
        for step in steps:
            defect = _defect(self.best_path(step), (_SCHEME,))
            if defect:
                raise UserError(f"the weights {self.best_path(step)} are broken: {defect}")
        return steps

    def weights_of(self, step: int) -> Path:
        """The file with the scheme of the best epoch that ended at ``step``."""
        return self.best_path(step) / _SCHEME

    def drop_all_but_best(self) -> None:
        """Remove what only a resume needs: optimizer states are twice a network's size.

        The scheme of the best epoch stays; with ``keep_every_best``, of every epoch that was.
        """
        steps = self._best_steps()
        kept = {self.best_path(s) for s in (steps if self._keep_every_best else steps[-1:])}
        best = self._folder / "best"
        for folder in [*self._folder.glob("*"), *best.glob("*")]:
            if folder != best and folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def path(self, step: int) -> Path:
        """Where the checkpoint of ``step`` lies."""
        return self._folder / f"{step:08d}"

    def best_path(self, step: int) -> Path:
        """Where the scheme of the best epoch, which ended at ``step``, lies."""
        return self._folder / "best" / f"{step:08d}"

    def write(
        self,
        step: int,
        *,
        scheme: nn.Module,
        optimizers: Mapping[str, Tensor],
        state: Mapping[str, Any],
    ) -> None:
        """Write the checkpoint of ``step``, then remove all but the newest two.

        Args:
            step: optimizer steps done.
            scheme: its full state, buffers included.
            optimizers: tensors by name.
            state: JSON values; ``best_step`` (or None) names the best scheme that it needs.

        Raises:
            UserError: it cannot be written; the earlier checkpoints are intact.
        """

        def fill(folder: Path) -> None:
            save_module(scheme, folder / _SCHEME)
            # Never views of one memory, so no copies: they are twice the network's size.
            own = {name: tensor.detach().contiguous() for name, tensor in optimizers.items()}
            save_file(own, folder / _OPTIMIZERS)
            text = json.dumps({"format_version": FORMAT_VERSION, **state})
            (folder / _TRAINER).write_text(text, encoding="ascii")

        _write_folder(self.path(step), fill)
        self._prune(step)

    def write_best(self, step: int, scheme: nn.Module) -> None:
        """Write the scheme of an epoch better than all before; the former best stays for now.

        Raises:
            UserError: it cannot be written.
        """
        _write_folder(self.best_path(step), lambda folder: save_module(scheme, folder / _SCHEME))

    def _prune(self, newest: int) -> None:
        # What lies after the step just written was broken, or belongs to a future that a resumed
        # run has left; hidden folders are what a kill interrupted.
        kept = [path for path in self._steps() if int(path.name) <= newest][-_NUM_KEPT:]
        needed = {self.best_path(step) for step in map(_best_step, kept) if step is not None}
        best_folder = self._folder / "best"
        outdated = [path for path in self._steps() if path not in kept]
        outdated += [*self._folder.glob(".writing-*"), *self._folder.glob(".replaced-*")]
        if best_folder.is_dir():
            earlier = {self.best_path(step) for step in self._best_steps() if step <= newest}
            needed |= earlier if self._keep_every_best else set()
            outdated += [path for path in best_folder.iterdir() if path not in needed]
        for path in outdated:
            shutil.rmtree(path, ignore_errors=True)

    def newest(self) -> tuple[int | None, list[str]]:
        """Find where to resume.

        Returns:
            The step of the newest checkpoint whose files all match their hashes, None if no
            checkpoint was ever written; and one sentence for each broken one that was passed over.

        Raises:
            UserError: there are checkpoints and every one is broken.
        """
        skipped: list[str] = []
        for path in reversed(self._steps()):
            defect = _defect(path, (_SCHEME, _OPTIMIZERS, _TRAINER))
            if not defect:
                return int(path.name), skipped
            skipped.append(f"skipped the broken checkpoint {path}: {defect}")
        if skipped:
            raise UserError(f"no checkpoint can be resumed: {'; '.join(skipped)}")
        return None, []

    def read(self, step: int, *, scheme: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Fill ``scheme`` and give the optimizers' tensors and the trainer's state.

        Raises:
            UserError: the checkpoint is of another version or does not fit the scheme.
        """
        path = self.path(step)
        state: dict[str, Any] = json.loads((path / _TRAINER).read_text(encoding="ascii"))
        if state.pop("format_version") != FORMAT_VERSION:
            raise UserError(f"checkpoint {path} was written by another version of this program")
        load_module(scheme, path / _SCHEME)
        return load_file(path / _OPTIMIZERS), state

    def read_best(self, step: int, scheme: nn.Module) -> None:
        """Fill ``scheme`` with the best epoch's state.

        Raises:
            UserError: it is missing, broken or does not fit.
        """
        path = self.best_path(step)
        defect = _defect(path, (_SCHEME,))
        if defect:
            raise UserError(f"the best epoch's weights {path} are broken: {defect}")
        load_module(scheme, path / _SCHEME)


def _best_step(checkpoint: Path) -> int | None:
    """Which best scheme a checkpoint refers to; None for none or when it is unreadable."""
    try:
        state = json.loads((checkpoint / _TRAINER).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    step: int | None = state.get("best_step")
    return step
