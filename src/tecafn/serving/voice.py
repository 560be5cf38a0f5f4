"""How something is said: the probabilities of eight acted emotions, from a speech model's states.

A linear head on mean and deviation over time of the states of Whisper tiny.en after blocks 2 and 3
of 4 (``extract.voice.states_after``). It was trained on RAVDESS: two sentences, spoken by actors.
What it may not be used for stands in its card (``tecafn model-card voice``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.serving.builtin import voice_folder

HEAD_FILE = "head.safetensors"
FORMAT_VERSION = 1

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class VoiceHead:
    """A linear head: softmax(weight x + bias) of x, the mean and deviation of states.

    Args:
        emotions: K names.
        weight: (K, 2 D) for D-wide states.
        bias: (K,).
        speech_model: SHA-256 of the weights of the speech model whose states it reads.
        blocks: after which blocks of its encoder, side by side.
    """

    emotions: tuple[str, ...]
    weight: Floats
    bias: Floats
    speech_model: str
    blocks: tuple[int, ...]

    @classmethod
    def load(cls, folder: Path | None = None, *, speech_model: str | None = None) -> VoiceHead:
        """Read the head of the package, or of a folder.

        Args:
            folder: where ``head.safetensors`` lies; None = the package's.
            speech_model: SHA-256 of the speech model that gives the states, to be compared.

        Raises:
            UserError: the file is missing or damaged, or the head reads another model's states.
        """
        from safetensors import SafetensorError, safe_open

        path = (voice_folder() if folder is None else folder) / HEAD_FILE
        try:
            with safe_open(path, framework="np") as file:
                told = json.loads((file.metadata() or {})["tecafn"])
                weight, bias = (file.get_tensor(name) for name in ("weight", "bias"))
            if told["format_version"] != FORMAT_VERSION:
                raise ValueError(
                    f"format_version must be {FORMAT_VERSION}, got {told['format_version']!r}"
                )
            head = cls(
                emotions=tuple(told["emotions"]),
                weight=weight.astype(np.float64),
                bias=bias.astype(np.float64),
                speech_model=str(told["speech_model"]),
                blocks=tuple(map(int, told["blocks"])),
            )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"cannot read the head {path}: {' '.join(str(error).split())}"
            ) from None
        if speech_model is not None and speech_model != head.speech_model:
            raise UserError(
                f"the head on voices reads the states of the speech model with the SHA-256 "
                f"{head.speech_model[:12]}... (Whisper tiny.en), got {speech_model[:12]}..."
            )
        return head

    def save(self, folder: Path) -> int:
        """Write ``head.safetensors``; its bytes."""
        from safetensors.numpy import save_file

        told = {
            "format_version": FORMAT_VERSION,
            "emotions": list(self.emotions),
            "speech_model": self.speech_model,
            "blocks": list(self.blocks),
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / HEAD_FILE
        arrays = {
            name: np.ascontiguousarray(array, np.float32)  # safetensors writes memory as it lies
            for name, array in (("weight", self.weight), ("bias", self.bias))
        }
        save_file(arrays, path, metadata={"tecafn": json.dumps(told)})
        path.chmod(0o644)
        return path.stat().st_size

    def of(self, vectors: Floats) -> Floats:
        """(N, K) probabilities of N utterances; NaN for one that is too short to be judged.

        Args:
            vectors: (N, 2 D), of each utterance the pooled states (``extract.voice.pooled``),
                computed from its sound alone.

        Raises:
            ValueError: the states have another width than those that the head was trained on.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.weight.shape[1]:
            raise ValueError(f"vectors must be (N, {self.weight.shape[1]}), got {vectors.shape}")
        logits = vectors @ self.weight.T + self.bias
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities

    @property
    def identity(self) -> str:
        """A hash of its numbers and names."""
        described = f"{self.emotions} {self.speech_model} {self.blocks}".encode()
        return hashlib.sha256(described + self.weight.tobytes() + self.bias.tobytes()).hexdigest()
