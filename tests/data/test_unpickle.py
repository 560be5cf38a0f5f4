"""Pickles are read for what they hold, and never run."""

from __future__ import annotations

import collections
import contextlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.data.arrays import open_npz
from tecafn.data.unpickle import load_pickle, loads

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        same_kind = isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape
        if not same_kind or a.dtype != object:
            return same_kind and np.array_equal(a, b)
        return all(_same(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
    if isinstance(a, (bytes, bytearray)):
        return bytes(a) == bytes(b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


VALUES: dict[str, Any] = {
    "float32 array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "big-endian array": np.arange(4, dtype=">i2"),
    "bool array": np.array([True, False]),
    "empty array": np.zeros((0, 7), np.float32),
    "zero-dimensional array": np.array(3.5),
    "Fortran-ordered array": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed array": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "strided array": np.arange(10)[::2],
    "string array": np.array(["good", "not bad"]),
    "byte string array": np.array([b"good", b"bad"]),
    "object array": np.array(["a", 1, None, 2.5], dtype=object),
    "numpy scalar": np.float32(1.5),
    "numpy string": np.str_("good"),
    "plain values": [None, True, False, 0, -5, 300, 70000, 2**40, -(2**70), 1.5, "x", b"y"],
    "long string": "x" * 5000,
    "long bytes": b"\x80y\n" * 2000,
    "unicode": "caf\u00e9 \u2713 \U0001f600",
    "nested": {"train": [((1, [2]), {"a": ()})], 5: {1, 2}, "f": frozenset("ab")},
    "ordered dict": collections.OrderedDict(b=1, a=2),
    "default dict": collections.defaultdict(list, {"b": [1]}),
    "bytearray": bytearray(b"abc"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_every_protocol_reads_what_was_written(value: Any, protocol: int) -> None:
    assert _same(value, loads(pickle.dumps(value, protocol=protocol)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_array_that_occurs_twice_is_one_object(protocol: int) -> None:
    array = np.arange(3)
    loaded: Any = loads(pickle.dumps([array, array], protocol=protocol))
    first, second = loaded
    assert first is second
    assert np.array_equal(first, array)


def test_python_2_pickle_reads_as_latin_1() -> None:
    # What Python 2.7 writes for {"id": "caf\xe9", "x": numpy.array([1.0, 2.0], "f4")}, protocol 2.
    data = (
        b"\x80\x02}q\x00(U\x02idU\x04caf\xe9U\x01x"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x08" + struct.pack("<ff", 1, 2) + b"tbu."
    )
    loaded: Any = loads(data)
    assert loaded["id"] == "caf\u00e9"
    assert loaded["x"].tolist() == [1.0, 2.0]
    assert loaded["x"].tolist() == pickle.loads(data, encoding="latin1")["x"].tolist()


def test_arrays_of_a_file_are_views_that_cannot_be_written(dump: Callable[..., Path]) -> None:
    array: Any = load_pickle(dump(np.zeros((100, 100), np.float32)))
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


@pytest.mark.parametrize("length", [1, 2, 10, 50, 120, 300])
def test_truncated_pickle_is_one_line(mmsa_data: Any, tmp_path: Path, length: int) -> None:
    whole = pickle.dumps(mmsa_data)
    path = tmp_path / "cut.pkl"
    path.write_bytes(whole[:length])
    with pytest.raises(UserError, match=r"cut\.pkl is refused") as caught:
        load_pickle(path)
    assert "\n" not in str(caught.value)


def test_every_truncation_and_flipped_byte_is_a_user_error_or_a_value(mmsa_data: Any) -> None:
    whole = pickle.dumps(mmsa_data, protocol=2)
    random = np.random.default_rng(0)
    refused = []
    for _ in range(1500):
        damaged = bytearray(whole)
        damaged[random.integers(len(damaged))] = random.integers(256)
        with contextlib.suppress(UserError):
            loads(bytes(damaged))
            continue
        refused.append(bytes(damaged))
    for end in range(0, len(whole), 7):
        with pytest.raises(UserError):
            loads(whole[:end])
    assert len(refused) > 100
    for data in refused[:50]:
        with pytest.raises(UserError) as caught:
            loads(data)
        assert "\n" not in str(caught.value)


# npz


def test_npz_members_are_mapped_compressed_or_not(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "ids": np.array(["a_1", "b_2"]),
        "audio": np.arange(12.0).reshape(2, 6),
    }
    np.savez(tmp_path / "plain.npz", **values)
    np.savez_compressed(tmp_path / "packed.npz", **values)
    for name in ("plain.npz", "packed.npz"):
        arrays = open_npz(tmp_path / name)
        assert set(arrays) == {"ids", "audio"}
        assert np.array_equal(arrays["audio"], values["audio"])
        assert arrays["ids"].tolist() == ["a_1", "b_2"]
        assert isinstance(arrays["audio"], np.memmap)
