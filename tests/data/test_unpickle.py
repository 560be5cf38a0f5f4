"""Pickles are read for what they hold, and never run."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
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
    first, second = loads(pickle.dumps([array, array], protocol=protocol))  # type: ignore[misc]
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


# Payloads. Each names a file's bytes; none may run, return an object, or take much memory.


class _Calls:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def _op(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _array_op(shape: bytes, dtype: str, raw: bytes) -> bytes:
    """An array of protocol 2's making, with any shape, type and bytes."""
    return (
        _named("numpy.core.multiarray", "_reconstruct")
        + _named("numpy", "ndarray")
        + b"K\x00\x85C\x01b\x87R(K\x01"
        + shape
        + _named("numpy", "dtype")
        + _text(dtype)
        + b"\x89\x88\x87R"
        + b"\x89"
        + raw
        + b"tb"
    )


FORMATS = ("mmsa", "misa")
HUGE = struct.pack("<Q", 2**40)
CANARY = "canary"


def _payloads() -> dict[str, bytes]:
    """Kind of mischief -> a pickle that tries it."""
    touch = f"open({CANARY!r}, 'w').close()"
    long_list = b"](" + b"N" * 200_000 + b"e"
    huge_shape = b"(\x8a\x06" + (2**40).to_bytes(6, "little") + b"t"
    return {
        # running something
        "os.system by GLOBAL": f"cos\nsystem\n(S'touch {CANARY}'\ntR.".encode(),
        "posix.system": f"cposix\nsystem\n(S'touch {CANARY}'\ntR.".encode(),
        "os.system by INST": f"(S'touch {CANARY}'\nios\nsystem\n.".encode(),
        "os.system by OBJ": f"(cos\nsystem\nS'touch {CANARY}'\no.".encode(),
        "os.system by STACK_GLOBAL": _op(
            _text("os"), _text("system"), b"\x93", _text(f"touch {CANARY}"), b"\x85R"
        ),
        "subprocess.Popen": pickle.dumps(_Calls(subprocess.Popen, ["touch", CANARY])),
        "eval": pickle.dumps(_Calls(eval, touch)),
        "exec": pickle.dumps(_Calls(exec, touch), protocol=0),
        "__import__": pickle.dumps(_Calls(__import__, "antigravity")),
        "getattr": _op(_named("builtins", "getattr"), _text("x"), _text("y"), b"\x86R"),
        "attribute path": _op(
            _text("numpy"), _text("ndarray.tofile"), b"\x93", _text(CANARY), b"\x85R"
        ),
        "numpy.load": pickle.dumps(_Calls(np.load, CANARY)),
        "numpy.memmap": _op(_named("numpy", "memmap"), _text(CANARY), b"\x85R"),
        "open for writing": pickle.dumps(_Calls(open, CANARY, "w")),
        "runpy": _op(_named("runpy", "run_path"), _text(CANARY), b"\x85R"),
        "pickle.loads": _op(_named("_pickle", "loads"), b"C\x02N.", b"\x85R"),
        "codecs.open": _op(_named("codecs", "open"), _text(CANARY), _text("w"), b"\x86R"),
        "torch rebuild": _op(_named("torch._utils", "_rebuild_tensor_v2"), b")R"),
        "NEWOBJ of a class": _op(_named("collections", "Counter"), b")\x81"),
        "NEWOBJ of an admitted name": _op(_named("numpy", "ndarray"), b")\x81"),
        "NEWOBJ_EX": _op(_named("numpy", "ndarray"), b")}\x92"),
        "BUILD of an arbitrary state": _op(_named("numpy", "ndarray"), b"}", b"b"),
        "persistent id": b"P1\n.",
        "binary persistent id": _op(b"K\x01Q"),
        "extension code": _op(b"\x82\x01"),
        "out-of-band buffer": _op(b"\x97"),
        "name with a line break": _op(_text("os\nroot"), _text("a\nb"), b"\x93"),
        # admitted names with other arguments
        "encode by another codec": _op(
            _named("_codecs", "encode"), _text("x"), _text("zip"), b"\x86R"
        ),
        "reconstruct of another type": _op(
            _named("numpy.core.multiarray", "_reconstruct"),
            _named("builtins", "list"),
            b"K\x00\x85C\x01b\x87R",
        ),
        "reconstruct of a huge array": _op(
            _named("numpy.core.multiarray", "_reconstruct"),
            _named("numpy", "ndarray"),
            huge_shape,
            b"C\x01b\x87R",
        ),
        "ndarray called with a shape": _op(_named("numpy", "ndarray"), huge_shape, b"\x85R"),
        "bytearray of a huge size": _op(_named("builtins", "bytearray"), b"J\xff\xff\xff\x7f\x85R"),
        "structured element type": _op(_named("numpy", "dtype"), _text("f4,f4"), b"\x89\x88\x87R"),
        "subarray element type": _op(
            _named("numpy", "dtype"), _text("1000000000f4"), b"\x89\x88\x87R"
        ),
        "object scalar": _op(
            _named("numpy.core.multiarray", "scalar"),
            _named("numpy", "dtype"),
            _text("O8"),
            b"\x89\x88\x87RC\x08aaaaaaaa\x86R",
        ),
        "object array made of bytes": _op(_array_op(b"K\x01\x85", "O8", b"C\x08aaaaaaaa")),
        # memory and time
        "huge shape": _op(_array_op(huge_shape, "f4", b"C\x04aaaa")),
        "huge shape of nothing": _op(_array_op(huge_shape, "S0", b"C\x00")),
        "huge object array": _op(_array_op(huge_shape, "O8", b"]")),
        "negative shape": _op(_array_op(b"J\xff\xff\xff\xff\x85", "f4", b"C\x00")),
        "huge bytes": _op(b"\x8e" + HUGE),
        "huge bytearray": _op(b"\x96" + HUGE),
        "huge string": _op(b"\x8d" + HUGE),
        "huge frame": _op(b"\x95" + HUGE),
        "negative length": _op(b"T\xff\xff\xff\xff"),
        "huge integer": _op(b"\x8b" + struct.pack("<i", 2**30)),
        "integer of many digits": b"I" + b"9" * 100_000 + b"\n.",
        "memo at a huge index": _op(b"Nr\xff\xff\xff\xff0j\x01\x00\x00\x00"),
        "million sets": _op(b"(" + b"\x8f" * 1_500_000 + b"l"),
        "million lists": _op(b"(" + b"]" * 1_800_000 + b"l"),
        "million dictionaries": _op(b"(" + b"}" * 1_800_000 + b"l"),
        "million marks": _op(b"(" * 1_000_000),
        "one list in many object arrays": _op(
            long_list,
            b"q\x00",
            b"".join(
                _array_op(b"M\x00\x00\x85".replace(b"M\x00\x00", b"J" + struct.pack("<i", 200_000)),
                          "O8", b"h\x00")
                for _ in range(400)
            ),
        ),
        "one string encoded many times": _op(
            _text("x" * 1_000_000),
            b"q\x00",
            (_named("_codecs", "encode") + b"h\x00" + _text("latin1") + b"\x86R") * 400,
        ),
        "one list in many sets": _op(
            b"](", b"".join(_text(f"{n}") for n in range(50_000)), b"eq\x00",
            (_named("builtins", "set") + b"h\x00\x85R") * 200,
        ),
        "billion laughs": _op(
            b"]q\x00", b"".join(b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 9
                               + b"eq" + bytes([n + 1]) for n in range(20))
        ),
        "deeply nested lists": _op(b"]" * 300_000 + b"a" * 299_999),
        "deeply nested tuples": _op(b")" + b"\x85" * 300_000),
        "deeply nested key": _op(b"})" + b"\x85" * 300_000 + b"Ns"),
        "exponential key": _op(b"})" + b"2\x86" * 60 + b"Ns"),
        "colliding integer keys": _op(
            b"}(", b"".join(b"\x8a\x10" + (n * (2**61 - 1)).to_bytes(16, "little") + b"N"
                           for n in range(2, 2000)), b"u"
        ),
        "nested object arrays": _op(
            _array_op(b"K\x01\x85", "O8", b"](" + _array_op(b"K\x01\x85", "O8", b"](Ne") + b"e")
        ),
        "list that holds itself": _op(b"]q\x00h\x00a"),
        # damage
        "truncated": pickle.dumps({"train": {"id": ["a$_$1"] * 50}})[:60],
        "no stop": b"\x80\x04]",
        "unknown instruction": b"\x80\x04\xff.",
        "protocol 9": b"\x80\x09N.",
        "stack underflow": b"\x80\x04a.",
        "no mark": b"\x80\x04e.",
        "unknown memo": b"\x80\x04h\x07.",
        "wrong UTF-8": _op(b"X\x02\x00\x00\x00\xff\xfe"),
        "a web page": b"<!DOCTYPE html><html></html>",
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "empty file": b"",
    }  # fmt: skip


# Legal pickles whose values are the mischief: readers must not walk into them.
VALUE_KINDS = (
    "billion laughs",
    "deeply nested lists",
    "deeply nested tuples",
    "list that holds itself",
)


def _as_sources(folder: Path) -> dict[str, tuple[str, Path]]:
    """Every payload as a file of each pickled format; mischievous values also within the layout."""
    payloads = _payloads()
    files = {f"{format}: {kind}": data for kind, data in payloads.items() for format in FORMATS}
    for kind in VALUE_KINDS:
        body = payloads[kind][2:-1]
        files[f"mmsa: {kind} as ids"] = _op(b"}", _text("train"), b"}", _text("id"), body, b"ss")
        files[f"misa: {kind} as words"] = _op(b"](((NNN", body, b"tN", _text("v[0]"), b"te")
    sources = {}
    for number, (kind, data) in enumerate(files.items()):
        path = folder / f"{number}.pkl"
        path.write_bytes(data)
        sources[kind] = (kind.split(":")[0], path)
    return sources


_READ_ALL = """
import json, pathlib, resource, sys
sys.path.insert(0, {src!r})
from tecafn.core.errors import UserError
from tecafn.data import ReadOptions, open_source
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = peak()
answers = {{}}
for kind, (format, path) in json.load(open(sys.argv[1])).items():
    try:
        _, samples = open_source(pathlib.Path(path), format=format,
                                 options=ReadOptions(split="train"))
        count = sum(1 for _ in samples)
        answers[kind] = ["read", str(count)]
    except UserError as error:
        answers[kind] = ["refused", str(error)]
    except BaseException as error:
        answers[kind] = ["crashed", repr(error)[:200]]
print(json.dumps([answers, (peak() - start) / 1024]))
"""


def _read_in_process(sources: dict[str, tuple[str, Path]], folder: Path) -> tuple[Any, float]:
    listing = folder / "sources.json"
    listing.write_text(json.dumps({k: (f, str(p)) for k, (f, p) in sources.items()}))
    src = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALL.format(src=src), str(listing)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers, megabytes = json.loads(done.stdout)
    return answers, megabytes


def test_no_payload_runs_or_takes_much_memory_in_any_format(tmp_path: Path) -> None:
    sources = _as_sources(tmp_path)
    assert len(sources) >= 2 * 30
    answers, megabytes = _read_in_process(sources, tmp_path)
    for kind, (outcome, message) in answers.items():
        assert outcome == "refused", f"{kind}: {outcome} {message}"
        assert "\n" not in message, kind
        assert len(message) < 400, kind
    assert not list(tmp_path.glob(CANARY))
    assert megabytes < 256, f"{megabytes:.0f} MB above the start"


def test_refusal_names_the_offending_global() -> None:
    for kind, name in (
        ("os.system by GLOBAL", "os.system"),
        ("os.system by INST", "os.system"),
        ("torch rebuild", "torch._utils._rebuild_tensor_v2"),
        ("encode by another codec", "_codecs.encode"),
    ):
        with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
            loads(_payloads()[kind], name="bad.pkl")
        assert str(caught.value).startswith("bad.pkl is refused: ")


def test_canary_payload_would_run_under_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(_payloads()["os.system by GLOBAL"])
    assert (tmp_path / CANARY).exists()


def test_shared_object_in_many_samples_is_bounded(
    tmp_path: Path, dump: Callable[..., Path]
) -> None:
    frames = np.ones((20_000, 5), np.float32)
    row = ((np.arange(2), frames, frames, ["a"] * 20_000), np.array([[1.0]], np.float32), "v[0]")
    path = dump([row] * 20_000, "train.pkl")
    answers, megabytes = _read_in_process({"shared": ("misa", path)}, tmp_path)
    assert answers["shared"][0] == "refused"
    assert "far more than its size" in answers["shared"][1]
    assert megabytes < 256


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
    values = {"ids": np.array(["a_1", "b_2"]), "audio": np.arange(12.0).reshape(2, 6)}
    np.savez(tmp_path / "plain.npz", **values)
    np.savez_compressed(tmp_path / "packed.npz", **values)
    for name in ("plain.npz", "packed.npz"):
        arrays = open_npz(tmp_path / name)
        assert set(arrays) == {"ids", "audio"}
        assert np.array_equal(arrays["audio"], values["audio"])
        assert arrays["ids"].tolist() == ["a_1", "b_2"]
        assert isinstance(arrays["audio"], np.memmap)


def _npz_payloads(folder: Path) -> dict[str, Path]:
    np.savez(folder / "objects.npz", ids=np.array([_Calls(eval, "1")], dtype=object))
    (folder / "truncated.npz").write_bytes((folder / "objects.npz").read_bytes()[:100])
    (folder / "text.npz").write_bytes(b"not a zip")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**34,)}
    )
    with zipfile.ZipFile(folder / "shape.npz", "w") as archive:
        archive.writestr("ids.npy", header.getvalue() + b"\0" * 16)
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("ids.npy", "w") as member,
    ):
        for _ in range(400):
            member.write(b"\0" * 2**20)
    with zipfile.ZipFile(folder / "noheader.npz", "w") as archive:
        archive.writestr("ids.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os') ")
    names = ("objects", "truncated", "text", "shape", "bomb", "noheader", "missing")
    return {name: folder / f"{name}.npz" for name in names}


def test_hostile_npz_is_one_line(tmp_path: Path) -> None:
    for name, path in _npz_payloads(tmp_path).items():
        with pytest.raises(UserError, match=rf"{name}\.npz") as caught:
            open_npz(path)
        assert "\n" not in str(caught.value)
