"""Malicious files: no payload runs, none takes much memory, each ends in one line."""

from __future__ import annotations

import functools
import io
import json
import operator
import os
import pickle
import pickletools
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.data.arrays import open_npz
from tecafn.data.unpickle import loads

Make = Callable[[str], Any]

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
        "functools.partial": pickle.dumps(functools.partial(os.system, f"touch {CANARY}")),
        "operator.methodcaller": pickle.dumps(operator.methodcaller("tofile", CANARY)),
        "call of a call's result": _op(
            _named("builtins", "set"), b")R", _text(CANARY), b"\x85R"
        ),
        "state of a dictionary": _op(b"}}(", _text("__class__"), b"Nub"),
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


def _harmful_values() -> dict[str, bytes]:
    """Instructions of legal values that are the mischief: readers must not walk into them."""
    payloads = _payloads()
    return {
        "billion laughs": payloads["billion laughs"][2:-1],
        "list that holds itself": payloads["list that holds itself"][2:-1],
        "deeply nested lists": b"]" * 30_000 + b"a" * 29_999,
        "deeply nested tuples": b")" + b"\x85" * 30_000,
    }


# A pickled format: the file that is replaced, and where in it a value can be the mischief.
Path_ = tuple[Any, ...]
PICKLED: dict[str, tuple[str, tuple[Path_, ...]]] = {
    "mmsa": (
        "unaligned_50.pkl",
        (
            ("train", "id"),
            ("train", "raw_text"),
            ("train", "audio"),
            ("train", "regression_labels"),
        ),
    ),
    "sims": (
        "sims.pkl",
        (("train", "regression_labels_T"), ("train", "id"), ("valid", "vision_lengths")),
    ),
    "misa": ("train.pkl", ((0, 0, 3), (0, 0, 1), (0, 1), (0, 2), (0, 0))),
    "mmim": ("train.pkl", ((0, 0, 3), (0, 0, 4), (0, 0, 2), (1, 2), (1, 0))),
    "mag": ("mosi.pkl", (("train", 0, 0, 0), ("train", 0, 0, 1), ("dev", 0, 2), ("dev", 0))),
    "mult": (
        "mosi_data_noalign.pkl",
        (("train", "labels"), ("train", "id"), ("train", "text"), ("train",)),
    ),
    "ur-funny": (
        "language_sdk.pkl",
        (
            (1, "punchline_sentence"),
            (1, "context_sentences"),
            (1, "punchline_intervals"),
            (1,),
        ),
    ),
}
SLOT = "the value goes here"
# All formats unpickle by one function: it meets every payload once, each format every harm once.
WHOLE_SET_THROUGH = "mmsa"
ONE_OF_EACH_HARM = (
    "os.system by GLOBAL",
    "exec",
    "persistent id",
    "attribute path",
    "reconstruct of a huge array",
    "object array made of bytes",
    "huge shape of nothing",
    "huge bytes",
    "million lists",
    "billion laughs",
    "deeply nested lists",
    "truncated",
    "a web page",
    "empty file",
)


def _replaced(value: Any, path: Path_) -> Any:
    """A copy of ``value`` with the slot's mark at ``path``."""
    if not path:
        return SLOT
    if isinstance(value, dict):
        return value | {path[0]: _replaced(value[path[0]], path[1:])}
    items = list(value)
    items[path[0]] = _replaced(items[path[0]], path[1:])
    return tuple(items) if isinstance(value, tuple) else items


def _high_memo(body: bytes) -> bytes:
    """The same instructions with their memo far from the one of what they are put into."""
    data = b"\x80\x02" + body + b"."
    positions = [position for _, _, position in pickletools.genops(data)]
    parts = []
    ends = [*positions[1:], len(data)]
    for (code, argument, position), end in zip(pickletools.genops(data), ends, strict=True):
        if code.name in ("BINPUT", "BINGET"):
            letter = {"BINPUT": b"r", "BINGET": b"j"}[code.name]
            parts.append(letter + struct.pack("<I", argument + 100_000))
        else:
            parts.append(data[position:end])
    return b"".join(parts)[2:-1]


def _with_value(whole: bytes, path: Path_, body: bytes) -> bytes:
    """A pickle that holds the value of ``body`` at ``path``."""
    outer = pickle.dumps(_replaced(pickle.loads(whole), path), protocol=2)
    mark = b"X" + struct.pack("<I", len(SLOT)) + SLOT.encode()
    assert outer.count(mark) == 1
    return outer.replace(mark, _high_memo(body))


def _copies(original: Path, target: Path, name: str) -> Path:
    """A folder with links to the other files of a source, for one file of it to be replaced."""
    target.mkdir()
    for path in original.iterdir():
        if path.name != name:
            (target / path.name).symlink_to(path)
    return target / name


Sources = dict[str, tuple[str, Path, dict[str, Any]]]  # kind -> format, source, options


def _pickled_sources(name: str, original: Any, folder: Path) -> Sources:
    """Every payload in place of the format's file, mischievous values also within its layout."""
    file, slots = PICKLED[name]
    home = original.path if original.path.is_dir() else original.path.parent
    whole = (home / file).read_bytes()
    payloads = _payloads()
    kept = payloads if name == WHOLE_SET_THROUGH else ONE_OF_EACH_HARM
    contents = {kind: payloads[kind] for kind in kept}
    for kind, body in _harmful_values().items():
        for slot in slots:
            contents[f"{kind} at {slot}"] = _with_value(whole, slot, body)
    sources: Sources = {}
    for number, (kind, data) in enumerate(contents.items()):
        path = _copies(home, folder / str(number), file)
        path.write_bytes(data)
        source = path.parent if original.path.is_dir() else path
        sources[kind] = (original.format, source, {})
    return sources


# npz


def _npz_payloads(folder: Path) -> dict[str, Path]:
    """Kind of mischief -> an npz that tries it."""
    folder.mkdir()
    np.savez(folder / "objects.npz", ids=np.array([_Calls(eval, "1")], dtype=object))
    (folder / "truncated.npz").write_bytes((folder / "objects.npz").read_bytes()[:100])
    (folder / "text.npz").write_bytes(b"not a zip")

    def archive(name: str, header: dict[str, Any], data: bytes = b"\0" * 16) -> None:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, header)
        with zipfile.ZipFile(folder / f"{name}.npz", "w") as target:
            target.writestr("ids.npy", file.getvalue() + data)

    archive("shape", {"descr": "<f4", "fortran_order": False, "shape": (2**34,)})
    archive("negative", {"descr": "<f4", "fortran_order": False, "shape": (-1, 2)})
    archive("nothing", {"descr": "<S0", "fortran_order": False, "shape": (2**40,)})
    archive("fields", {"descr": [("a", "<f4")], "fortran_order": False, "shape": (4,)})
    archive("subarray", {"descr": ("<f4", (2**30,)), "fortran_order": False, "shape": (1,)})
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as target,
        target.open("ids.npy", "w") as member,
    ):
        for _ in range(160):
            member.write(b"\0" * 2**20)
    # The directory says 16 bytes, the data are the bomb's.
    raw = bytearray((folder / "bomb.npz").read_bytes())
    place = raw.rindex(b"PK\x01\x02")
    raw[place + 24 : place + 28] = struct.pack("<I", 16)
    (folder / "liar.npz").write_bytes(raw)
    with zipfile.ZipFile(folder / "noheader.npz", "w") as target:
        target.writestr("ids.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os') ")
    with zipfile.ZipFile(folder / "longheader.npz", "w") as target:
        target.writestr("ids.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 100)
    return {path.stem: path for path in sorted(folder.glob("*.npz"))}


def _npz_in_a_table(original: Any, folder: Path) -> Sources:
    return {
        kind: ("label-csv", original.path, {"audio": path})
        for kind, path in _npz_payloads(folder).items()
    }


def _npz_of_a_clip(original: Any, folder: Path) -> Sources:
    sources: Sources = {}
    for kind, path in _npz_payloads(folder).items():
        source = folder / kind
        shutil.copytree(original.path, source)
        shutil.copy(path, source / "audio" / "a_b" / "2.npz")
        sources[kind] = ("clip-arrays", source, {})
    return sources


# .csd


def _virtual(data: Any) -> None:
    layout = h5py.VirtualLayout(shape=(12, 3), dtype="f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", shape=(12, 3))
    del data["v_1/features"]
    data["v_1"].create_virtual_dataset("features", layout)


def _group_in_itself(data: Any) -> None:
    data["v_2"] = data
    del data["v_1"]
    data["v_1"] = data


def _inflating(data: Any) -> None:
    del data["v_1"]
    entry = data.create_group("v_1")
    entry.create_dataset("intervals", data=np.zeros((2**15, 2)))
    made = entry.create_dataset("features", (2**15, 3), "f8", chunks=(2**15, 3), compression="gzip")
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(b"\0" * 2**20) for _ in range(300)) + packer.flush()
    made.id.write_direct_chunk((0, 0), bomb)


def _one_dataset_often(data: Any) -> None:
    del data["v_1"], data["w"]
    data.create_dataset("v_1/features", data=np.ones((2**18, 1)))
    data.create_dataset("v_1/intervals", data=np.tile([[0.0, 9.0]], (2**18, 1)))


def _without_dataset(data: Any) -> None:
    del data["v_1/features"]
    data["v_1"].create_group("features")


def _without_videos(data: Any) -> None:
    for video in list(data):
        del data[video]


def _csd_payloads(original: Any, folder: Path) -> Sources:
    """Every kind of mischief in place of the audio file."""
    name = "CMU_MOSI_COVAREP.csd"
    sources: Sources = {}

    def make(kind: str, change: Callable[[Any], None]) -> None:
        path = _copies(original.path, folder / kind.replace(" ", "_"), name)
        shutil.copy(original.path / name, path)
        with h5py.File(path, "r+") as file:
            change(file["CMU_MOSI_COVAREP/data"])
        sources[kind] = ("csd", path.parent, {})

    def features(**how: Any) -> Callable[[Any], None]:
        def change(data: Any) -> None:
            del data["v_1/features"]
            data["v_1"].create_dataset("features", **how)

        return change

    def link(target: Any) -> Callable[[Any], None]:
        def change(data: Any) -> None:
            del data["v_1/features"]
            data["v_1"]["features"] = target

        return change

    make("external link", link(h5py.ExternalLink("elsewhere.h5", "/x")))
    make("soft link", link(h5py.SoftLink("/CMU_MOSI_COVAREP/data/w/features")))
    make("soft link to itself", link(h5py.SoftLink("/CMU_MOSI_COVAREP/data/v_1/features")))

    make("virtual dataset", _virtual)
    make("external file", features(shape=(12, 3), dtype="f8", external=[("passwd", 0, 288)]))
    make("group in place of a dataset", _without_dataset)
    make("group in itself", _group_in_itself)
    make("huge shape", features(shape=(2**40, 3), dtype="f8", chunks=(64, 3)))
    packed = {"compression": "gzip"}
    make("huge packed shape", features(shape=(2**36, 3), dtype="f8", chunks=(2**10, 3), **packed))
    make("many tiny chunks", features(shape=(2**22, 1), dtype="i1", chunks=(1, 1), **packed))
    grows: dict[str, Any] = {"shape": (12, 3), "maxshape": (None, 3)}
    make("huge chunk", features(dtype="f8", chunks=(2**26, 3), **grows, **packed))
    make("inflating chunk", _inflating)
    make("other filter", features(data=np.ones((12, 3)), chunks=(12, 3), compression="lzf"))
    make("strings of any length", features(data=[["a"]] * 12, dtype=h5py.string_dtype()))
    make("compound type", features(data=np.zeros((12, 3), [("a", "f4")])))
    make("three dimensions", features(data=np.ones((12, 3, 2))))
    make("no columns", features(data=np.ones((12, 0))))
    make("fewer rows than intervals", features(data=np.ones((11, 3))))
    make("no dimension", features(data=3.0))
    make("no data", lambda data: data.file["CMU_MOSI_COVAREP"].__delitem__("data"))
    make("two roots", lambda data: data.file.create_group("other/data"))
    make("no video", _without_videos)
    make("one dataset for many rows", _one_dataset_often)
    crowded = folder / "one_dataset_for_many_rows"
    for file, line in (("label.csv", "v_1,{},x,1,train"), ("segment_times.csv", "v_1,{},0,9")):
        header = (crowded / file).read_text().splitlines()[0]
        (crowded / file).unlink()
        rows = [line.format(number) for number in range(400)]
        (crowded / file).write_text("\n".join([header, *rows]) + "\n")
    sources["one dataset for many rows"] = ("csd-frames", crowded, {})
    whole = (original.path / name).read_bytes()
    for kind, data in {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "a web page": b"<!DOCTYPE html><html></html>",
        "text alone": whole[:8] + b"A" * 500,
    }.items():
        path = _copies(original.path, folder / kind.replace(" ", "_"), name)
        path.write_bytes(data)
        sources[kind] = ("csd", path.parent, {})
    return sources


# Reading them, each group in a process of its own

_READ_ALL = """
import json, os, pathlib, sys
sys.path.insert(0, {src!r})
import h5py, torch
from tecafn.core.errors import UserError
from tecafn.data import ReadOptions, open_source

def memory(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) / 1024

def read(sources):
    start = memory("VmRSS:")
    answers = {{}}
    for kind, (format, path, options) in sources.items():
        try:
            options = ReadOptions(**{{key: pathlib.Path(value) for key, value in options.items()}})
            _, samples = open_source(pathlib.Path(path), format=format, options=options)
            answers[kind] = ["read", str(sum(1 for _ in samples))]
        except UserError as error:
            answers[kind] = ["refused", str(error)]
        except BaseException as error:
            answers[kind] = ["crashed", repr(error)[:200]]
    return answers, memory("VmHWM:") - start

for number, sources in enumerate(json.load(open(sys.argv[1]))):
    if os.fork() == 0:
        with open(f"{{sys.argv[1]}}.{{number}}", "w") as file:
            json.dump(read(sources), file)
        os._exit(0)
    os.wait()
"""


def _read_in_processes(groups: list[Sources], folder: Path) -> list[tuple[dict[str, Any], float]]:
    """For each group the outcome of each source, and the memory in MB above that at the start."""
    listing = folder / "sources.json"
    listing.write_text(
        json.dumps(
            [
                {
                    kind: (format, str(path), {key: str(value) for key, value in options.items()})
                    for kind, (format, path, options) in group.items()
                }
                for group in groups
            ]
        )
    )
    src = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALL.format(src=src), str(listing)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = []
    for number in range(len(groups)):
        answer = Path(f"{listing}.{number}")
        assert answer.is_file(), f"group {number} died: {done.stderr[-2000:]}"
        answers.append(tuple(json.loads(answer.read_text())))
    return answers


MORE: dict[str, tuple[str, Callable[[Any, Path], Sources]]] = {
    "npz of label-csv": ("label-csv", _npz_in_a_table),
    "npz of clip-arrays": ("clip-arrays", _npz_of_a_clip),
    "csd": ("csd", _csd_payloads),
}


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory, makers: dict[str, Callable[[Path], Any]]
) -> dict[str, Any]:
    """What became of every hostile source, by group."""
    root = tmp_path_factory.mktemp("hostile")
    groups: dict[str, Sources] = {}
    for number, group in enumerate((*PICKLED, *MORE)):
        home, folder = root / f"original{number}", root / f"group{number}"
        home.mkdir()
        folder.mkdir()
        name, build = MORE.get(group, (group, None))
        original = makers[name](home)
        if build is None:
            groups[group] = _pickled_sources(group, original, folder)
        else:
            groups[group] = build(original, folder / "files" if "npz" in group else folder)
    answers = _read_in_processes(list(groups.values()), root)
    return {"canaries": [str(path) for path in root.rglob(CANARY)]} | dict(
        zip(groups, answers, strict=True)
    )


@pytest.mark.parametrize("group", [*PICKLED, *MORE])
def test_no_payload_runs_or_takes_much_memory(outcomes: dict[str, Any], group: str) -> None:
    answers, megabytes = outcomes[group]
    assert len(answers) >= (90 if group == WHOLE_SET_THROUGH else 10)
    for kind, (outcome, message) in answers.items():
        assert outcome == "refused", f"{kind}: {outcome} {message}"
        assert "\n" not in message, kind
        assert len(message) < 500, kind
    assert not outcomes["canaries"]
    assert megabytes < 256, f"{megabytes:.0f} MB above the start"


@pytest.mark.parametrize("name", PICKLED)
def test_payload_on_the_command_line_is_one_line_and_exit_code_2(
    make_source: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    original = make_source(name)
    home = original.path if original.path.is_dir() else original.path.parent
    (home / PICKLED[name][0]).write_bytes(_payloads()["os.system by GLOBAL"])
    monkeypatch.chdir(tmp_path)
    for command in (["import", "--out", str(tmp_path / "store")], ["check"]):
        what = ["data", command[0], str(original.path), *command[1:]]
        assert main([*what, "--format", original.format]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert "os.system" in lines[0]
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / CANARY).exists()


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


def test_shared_object_in_many_samples_is_bounded(tmp_path: Path) -> None:
    frames = np.ones((20_000, 5), np.float32)
    row = ((np.arange(2), frames, frames, ["a"] * 20_000), np.array([[1.0]], np.float32), "v[0]")
    path = tmp_path / "train.pkl"
    path.write_bytes(pickle.dumps([row] * 20_000))
    [(answers, megabytes)] = _read_in_processes([{"shared": ("misa", path, {})}], tmp_path)
    assert answers["shared"][0] == "refused"
    assert "far more than its size" in answers["shared"][1]
    assert megabytes < 256


def test_one_long_string_in_a_list_very_often_is_refused(make_source: Make) -> None:
    slots = {"misa": (0, 0, 3), "mmim": (0, 0, 3), "ur-funny": (1, "punchline_sentence")}
    for name, slot in slots.items():
        original = make_source(name)
        home = original.path if original.path.is_dir() else original.path.parent
        path = home / PICKLED[name][0]
        body = b"](" + _text("x" * 100_000) + b"q\x00" + b"h\x00" * 100_000 + b"e"
        path.write_bytes(_with_value(path.read_bytes(), slot, body))
        assert main(["data", "check", str(original.path), "--format", original.format]) == 2


def test_hostile_npz_is_one_line(tmp_path: Path) -> None:
    payloads = _npz_payloads(tmp_path / "npz") | {"missing": tmp_path / "missing.npz"}
    for name, path in payloads.items():
        with pytest.raises(UserError, match=rf"{name}\.npz") as caught:
            open_npz(path)
        assert "\n" not in str(caught.value)
