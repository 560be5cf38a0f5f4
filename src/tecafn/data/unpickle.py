"""Reads pickles without running them.

``pickle.load`` does whatever the file says. This is an interpreter of the pickle instructions that
has nothing to run: a name in the file can only select one of the few constructions written out
below (an array from its bytes, a set from a list, ...), each of which checks its arguments. Any
other name is refused. There is no import, no attribute access and no call of anything named by
the file.

It also has an allowance: every object is charged about what it occupies, and a file may spend a
fixed amount plus a multiple of its size, so small files cannot grow into large memory. Array
bytes are not copied: arrays are read-only views of the memory-mapped file, and a pickle larger
than memory can be read sample by sample.

Source: the instructions' meaning is documented in the standard library's ``pickletools``.
"""

from __future__ import annotations

import codecs
import gc
import mmap
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.data.file_kinds import PLAIN_TEXT, kind_of_file
from tecafn.data.mapped import remember

FREE_ALLOWANCE: Final = 96 * 2**20
ALLOWANCE_PER_BYTE: Final = 6
_VIEW_FROM: Final = 1024  # shorter byte strings are copied, longer ones are views of the file
_CACHED_STRING: Final = 64  # words recur; one object each

# Lists of floats of such lengths are feature rows. The standard pickler writes longer ones in
# batches of 1000, so one batch is the whole list.
_FLOAT_LIST: Final = range(16, 1000)
_FLOAT: Final = ord("G")

_POINTER: Final = 16
_FLOAT_OBJECT: Final = 24
_DICT_ENTRY: Final = 112
_SET_ENTRY: Final = 72

# Names of the constructions below, by every module path NumPy and Python have given them.
_ADMITTED: Final[dict[tuple[str, str], str]] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("collections", "OrderedDict"): "dict",
    ("collections", "defaultdict"): "defaultdict",
    **{
        (f"numpy.{core}.{module}", name): name
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    },
    **{
        (module, name): name
        for module in ("builtins", "__builtin__")
        for name in (
            "set",
            "frozenset",
            "bytes",
            "bytearray",
            "list",
            "dict",
            "int",
            "float",
            "str",
        )
    },
}

_CHUNK = 2**20  # bytes looked at together
_ASKS_FOR_A_NAME = re.compile(r"it asks for (an instance of )?[\w.]+[;:]")
_DTYPE_CODE = re.compile(r"(?:b1|[iu][1248]|f[248]|[SU]\d{1,9}|O8|O4|O)")


class _RefusedError(Exception):
    """Says in one line why the file cannot be read."""


class _Mark:
    """Where a group of stack items begins."""


class _Name:
    """An admitted name; it can select a construction and nothing else."""

    __slots__ = ("kind", "shown")

    def __init__(self, kind: str, shown: str) -> None:
        self.kind = kind
        self.shown = shown


class _Dtype:
    """An element type being described: its code and, after BUILD, its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def numpy(self) -> np.dtype[Any]:
        result = np.dtype(self.code)
        if self.order == "<":
            return result.newbyteorder("<")
        return result.newbyteorder(">") if self.order == ">" else result


class _PendingArray:
    """An array whose shape and bytes the next BUILD brings."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] | None = None


_PLAIN_KEYS = (str, bytes, bool, int, type(None))
_PLAIN_ELEMENTS = (str, bytes, bool, int, float, list, tuple, type(None))


def _as_bytes(value: object) -> bytes | bytearray | memoryview | None:
    """Bytes of an array; Python 2 wrote them as a string, read here as Latin-1."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    if isinstance(value, str):
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            return None
    return None


def _shape_of(value: object) -> tuple[int, ...]:
    dims = value if isinstance(value, tuple) else (value,)
    if len(dims) > 32 or not all(type(d) is int and 0 <= d < 2**48 for d in dims):
        raise _RefusedError("an array's shape is not a tuple of sizes")
    return tuple(int(d) for d in dims)


class _Interpreter:
    """Executes the instructions of one pickle over ``data``; ``run`` gives the object."""

    def __init__(self, data: memoryview, find: Callable[[bytes, int], int]) -> None:
        self._data = data
        self._find = find
        self._position = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._strings: dict[str, str] = {}
        self._allowance = FREE_ALLOWANCE + ALLOWANCE_PER_BYTE * len(data)
        self._done = False

    def run(self) -> object:
        data, operations = self._data, _OPERATIONS
        while not self._done:
            if self._position >= len(data):
                raise _RefusedError("it ends before the object is complete (truncated?)")
            code = data[self._position]
            operation = operations.get(code)
            if operation is None:
                raise _RefusedError(
                    f"byte {self._position} is {bytes([code])!r}, not a pickle instruction "
                    "(not a pickle, or a damaged one)"
                )
            self._position += 1
            operation(self)
        value = self._pop()
        if self._something_follows():
            raise _RefusedError(
                f"{len(data) - self._position} bytes follow the first object, which alone would be "
                "read; where several were dumped into one file, dump one dictionary of splits"
            )
        return value

    # Reading

    def _something_follows(self) -> bool:
        """Is there more after the object than blanks and NUL, which copying tools leave?"""
        return any(
            bytes(self._data[start : start + _CHUNK]).strip(b"\0 \t\r\n")
            for start in range(self._position, len(self._data), _CHUNK)
        )

    def _take(self, count: int) -> memoryview:
        start = self._position
        if count < 0 or count > len(self._data) - start:
            raise _RefusedError(
                f"it announces {count} bytes where {len(self._data) - start} are left (truncated?)"
            )
        self._position = start + count
        return self._data[start : start + count]

    def _number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self._take(struct.calcsize(layout)))[0]
        return value

    def _line(self) -> bytes:
        end = self._find(b"\n", self._position)
        if end < 0:
            raise _RefusedError("it ends within a line (truncated?)")
        line = bytes(self._take(end - self._position))
        self._position += 1
        return line

    # Stack, memo, allowance

    def _spend(self, amount: int) -> None:
        self._allowance -= amount
        if self._allowance < 0:
            raise _RefusedError("it unpacks to far more memory than its size explains")

    # Every instruction pushes: these two are written out for speed.

    def _push(self, value: object) -> None:
        self._allowance -= _POINTER
        if self._allowance < 0:
            self._spend(0)
        self._stack.append(value)

    def _push_new(self, value: object) -> None:
        self._allowance -= _POINTER + sys.getsizeof(value)
        if self._allowance < 0:
            self._spend(0)
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _Mark:
            raise _RefusedError("an instruction finds nothing to work on (damaged)")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _Mark:
            raise _RefusedError("an instruction finds nothing to work on (damaged)")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        stack = self._stack
        for start in range(len(stack) - 1, -1, -1):
            if stack[start] is _Mark:
                items = stack[start + 1 :]
                del stack[start:]
                return items
        raise _RefusedError("an instruction finds no mark (damaged)")

    def _remember(self, index: int) -> None:
        self._spend(_DICT_ENTRY)
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise _RefusedError(f"it refers to an object {index} it never stored (damaged)")
        value = self._memo[index]
        if type(value) is _PendingArray and value.value is not None:
            value = value.value
        self._push(value)

    def _push_text(self, raw: memoryview | bytes, encoding: str, errors: str = "strict") -> None:
        try:
            text = str(raw, encoding, errors)
        except UnicodeDecodeError:
            raise _RefusedError(f"a string is not {encoding} (damaged)") from None
        if len(text) <= _CACHED_STRING:
            known = self._strings.get(text)
            if known is not None:
                self._push(known)
                return
            self._spend(_DICT_ENTRY)
            self._strings[text] = text
        self._push_new(text)

    def _push_bytes(self, raw: memoryview) -> None:
        if len(raw) >= _VIEW_FROM:
            self._push_new(raw)
        else:
            self._push_new(bytes(raw))

    # Instructions: plain values

    def proto(self) -> None:
        version = self._number("<B")
        if version > 5:
            raise _RefusedError(f"its protocol is {version}; up to 5 are read")

    def frame(self) -> None:
        size = self._number("<Q")
        if size > len(self._data) - self._position:
            raise _RefusedError(
                f"it announces {size} bytes where {len(self._data) - self._position} are left "
                "(truncated?)"
            )

    def stop(self) -> None:
        self._done = True

    def mark(self) -> None:
        at, stack = self._position, self._stack
        before_float = at < len(self._data) and self._data[at] == _FLOAT
        in_empty_list = bool(stack) and type(stack[-1]) is list and not stack[-1]
        if not (before_float and in_empty_list and self._float_list()):
            self._push(_Mark)

    def _float_list(self) -> bool:
        """Make the empty list on top an array that lies in the file, if only floats follow.

        Frames that were pickled as nested lists would take four times the file as objects. A float
        is b"G" and 8 bytes; the list ends with the instruction to append all of them.
        """
        start = self._position
        codes = np.frombuffer(self._data[start : start + 9 * _FLOAT_LIST.stop], np.uint8)[::9]
        others = np.flatnonzero(codes != _FLOAT)
        count = int(others[0]) if others.size else len(codes)
        if count not in _FLOAT_LIST or codes[count : count + 1].tobytes() != b"e":
            return False
        array = np.ndarray((count,), ">f8", buffer=self._data, offset=start + 1, strides=(9,))
        empty = self._pop()
        self._push_new(array)
        if self._memo:
            latest = next(reversed(self._memo))
            if self._memo[latest] is empty:
                self._memo[latest] = array
        self._position = start + 9 * count + 1
        return True

    def pop(self) -> None:
        if self._stack and self._stack[-1] is _Mark:
            self._stack.pop()
        else:
            self._pop()

    def pop_mark(self) -> None:
        self._pop_to_mark()

    def dup(self) -> None:
        self._push(self._top())

    def none(self) -> None:
        self._push(None)

    def true(self) -> None:
        self._push(True)

    def false(self) -> None:
        self._push(False)

    def integer_line(self) -> None:
        line = self._line()
        if line in (b"00", b"01"):
            self._push(line == b"01")
            return
        self._integer_text(line)

    def long_line(self) -> None:
        self._integer_text(self._line().removesuffix(b"L"))

    def _integer_text(self, line: bytes) -> None:
        if not re.fullmatch(rb"[+-]?\d{1,30}", line):
            raise _RefusedError("a number is not written as one (damaged)")
        self._push_new(int(line))

    def float_line(self) -> None:
        try:
            self._push_new(float(self._line()))
        except ValueError:
            raise _RefusedError("a number is not written as one (damaged)") from None

    def int1(self) -> None:
        self._push_new(self._number("<B"))

    def int2(self) -> None:
        self._push_new(self._number("<H"))

    def int4(self) -> None:
        self._push_new(self._number("<i"))

    def long1(self) -> None:
        self._long(self._number("<B"))

    def long4(self) -> None:
        self._long(self._number("<i"))

    def _long(self, count: int) -> None:
        if count > 16:
            raise _RefusedError(f"an integer has {count} bytes; up to 16 are read")
        self._push_new(int.from_bytes(self._take(count), "little", signed=True))

    def float8(self) -> None:
        self._push_new(struct.unpack(">d", self._take(8))[0])

    # Instructions: strings and bytes

    def string_line(self) -> None:
        line = self._line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise _RefusedError("a string is not quoted (damaged)")
        try:
            raw, _ = codecs.escape_decode(line[1:-1])
        except ValueError:
            raise _RefusedError("a string has a wrong escape (damaged)") from None
        self._push_text(raw, "latin-1")

    def string1(self) -> None:
        self._push_text(self._take(self._number("<B")), "latin-1")

    def string4(self) -> None:
        self._push_text(self._take(self._number("<i")), "latin-1")

    def unicode_line(self) -> None:
        self._push_text(self._line(), "raw-unicode-escape")

    def unicode1(self) -> None:
        self._push_text(self._take(self._number("<B")), "utf-8", "surrogatepass")

    def unicode4(self) -> None:
        self._push_text(self._take(self._number("<I")), "utf-8", "surrogatepass")

    def unicode8(self) -> None:
        self._push_text(self._take(self._number("<Q")), "utf-8", "surrogatepass")

    def bytes1(self) -> None:
        self._push_bytes(self._take(self._number("<B")))

    def bytes4(self) -> None:
        self._push_bytes(self._take(self._number("<I")))

    def bytes8(self) -> None:
        self._push_bytes(self._take(self._number("<Q")))

    # Instructions: containers

    def empty_list(self) -> None:
        self._push_new([])

    def empty_tuple(self) -> None:
        self._push(())

    def empty_dict(self) -> None:
        self._push_new({})

    def empty_set(self) -> None:
        self._push_new(set())

    def list_from_mark(self) -> None:
        self._push_new(self._pop_to_mark())

    def tuple_from_mark(self) -> None:
        self._push_new(tuple(self._pop_to_mark()))

    def tuple1(self) -> None:
        self._push_new((self._pop(),))

    def tuple2(self) -> None:
        last = self._pop()
        self._push_new((self._pop(), last))

    def tuple3(self) -> None:
        last = self._pop()
        middle = self._pop()
        self._push_new((self._pop(), middle, last))

    def dict_from_mark(self) -> None:
        result: dict[Any, Any] = {}
        self._set_items(result, self._pop_to_mark())
        self._push_new(result)

    def frozenset_from_mark(self) -> None:
        self._push_new(frozenset(self._hashable(self._pop_to_mark())))

    def append(self) -> None:
        value = self._pop()
        self._extend(self._top(), [value])

    def appends(self) -> None:
        values = self._pop_to_mark()
        self._extend(self._top(), values)

    def set_item(self) -> None:
        value = self._pop()
        key = self._pop()
        self._set_items(self._top(), [key, value])

    def set_items(self) -> None:
        items = self._pop_to_mark()
        self._set_items(self._top(), items)

    def add_items(self) -> None:
        items = self._hashable(self._pop_to_mark())
        target = self._top()
        if type(target) is not set:
            raise _RefusedError("it adds set elements to something else (damaged)")
        target.update(items)

    def _extend(self, target: object, values: list[Any]) -> None:
        if type(target) is not list:
            raise _RefusedError("it appends to something that is no list")
        self._spend(_POINTER * len(values))
        target.extend(values)

    def _hashable(self, values: list[Any]) -> list[Any]:
        # Hashing nested tuples can take exponential time or overflow the C stack; integers beyond
        # 62 bits can be chosen to collide.
        for value in values:
            if type(value) not in _PLAIN_KEYS:
                raise _RefusedError(
                    f"a key is a {type(value).__name__}; strings and integers are read"
                )
            if type(value) is int and not -(2**60) < value < 2**60:
                raise _RefusedError("a key is an integer beyond 60 bits")
        self._spend(_SET_ENTRY * len(values))
        return values

    def _set_items(self, target: object, items: list[Any]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise _RefusedError("it sets dictionary entries on something else (damaged)")
        keys = self._hashable(items[::2])
        self._spend((_DICT_ENTRY - _SET_ENTRY) * len(keys))
        target.update(zip(keys, items[1::2], strict=True))

    # Instructions: memo

    def put_line(self) -> None:
        self._remember(self._memo_index())

    def put1(self) -> None:
        self._remember(self._number("<B"))

    def put4(self) -> None:
        self._remember(self._number("<I"))

    def memoize(self) -> None:
        self._remember(len(self._memo))

    def get_line(self) -> None:
        self._recall(self._memo_index())

    def get1(self) -> None:
        self._recall(self._number("<B"))

    def get4(self) -> None:
        self._recall(self._number("<I"))

    def _memo_index(self) -> int:
        line = self._line()
        if not re.fullmatch(rb"\d{1,18}", line):
            raise _RefusedError("a reference is not a number (damaged)")
        return int(line)

    # Instructions: names and constructions

    def global_line(self) -> None:
        module, name = self._line(), self._line()
        self._push_name(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))

    def global_stack(self) -> None:
        name = self._pop()
        module = self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise _RefusedError("it names a global by something that is no string")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        kind = _ADMITTED.get((module, name))
        if kind is None and module.partition(".")[0] == "torch":
            raise _RefusedError(
                f"it asks for {_shown(f'{module}.{name}')}: its arrays are torch tensors, and "
                "NumPy arrays are read; write it anew with NumPy arrays (MMSA's feature tool: "
                "return_type='np')"
            )
        if kind is None:
            raise _RefusedError(
                f"it asks for {_shown(f'{module}.{name}')}; only NumPy arrays and plain containers "
                "are read, nothing in a pickle is run"
            )
        self._push_new(_Name(kind, f"{module}.{name}"))

    def instance_line(self) -> None:
        module, name = self._line(), self._line()
        shown = _shown(f"{module.decode('utf-8', 'replace')}.{name.decode('utf-8', 'replace')}")
        raise _RefusedError(f"it asks for an instance of {shown}; nothing in a pickle is run")

    def make_object(self) -> None:
        found = [item for item in self._stack if isinstance(item, _Name)]
        shown = found[-1].shown if found else "an unnamed class"
        raise _RefusedError(f"it asks for an instance of {shown}; nothing in a pickle is run")

    def persistent_line(self) -> None:
        self._line()
        self.persistent()

    def persistent(self) -> None:
        raise _RefusedError("it asks for a persistent object kept outside the file")

    def extension(self) -> None:
        raise _RefusedError("it asks for an object by extension code; nothing in a pickle is run")

    def out_of_band(self) -> None:
        raise _RefusedError("it asks for a buffer kept outside the file")

    def reduce(self) -> None:
        arguments = self._pop()
        name = self._pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("it calls something that is no admitted name")
        self._push_new(self._construct(name, arguments))

    def _construct(self, name: _Name, arguments: tuple[Any, ...]) -> object:
        """What an admitted name makes of its arguments."""
        for construct in (self._construct_array, self._construct_bytes, self._construct_container):
            made = construct(name, arguments)
            if made is not None:
                return made
        raise _RefusedError(f"it calls {name.shown} with arguments that no array or container has")

    def _construct_array(self, name: _Name, arguments: tuple[Any, ...]) -> object | None:
        """An array, its element type, or a number of it; None = it is none of these."""
        match (name.kind, arguments):
            case ("_reconstruct", (_Name(kind="ndarray"), (0,), "b" | b"b")):
                return _PendingArray()
            case ("dtype", (str() as code, *flags)) if _flags(flags):
                return self._dtype(code)
            case ("scalar", (_Dtype() as dtype, raw)) if not dtype.is_object:
                number: object = self._array(raw, dtype, (1,), "C")[0].item()
                return number
            case ("_frombuffer", (raw, _Dtype() as dtype, shape, "C" | "F" as order)):
                return self._array(raw, dtype, _shape_of(shape), order)
            case ("_frombuffer", (raw, _Dtype() as dtype, shape, "K", tuple() as axes)):
                sizes = _shape_of(shape)
                if sorted(a for a in axes if type(a) is int) != list(range(len(sizes))):
                    raise _RefusedError("an array's axes are no permutation")
                return self._array(raw, dtype, sizes, "C").transpose(axes)
        return None

    def _construct_bytes(self, name: _Name, arguments: tuple[Any, ...]) -> object | None:
        """Bytes; None = they are something else."""
        match (name.kind, arguments):
            case ("encode", (str() as text, "latin1" | "latin-1")):
                self._spend(len(text))
                encoded = _as_bytes(text)
                if encoded is None:
                    raise _RefusedError(
                        "bytes are written with characters beyond Latin-1 (damaged)"
                    )
                return encoded
            case ("bytes" | "bytearray", ()):
                return b""
            case ("bytes" | "bytearray", (bytes() | bytearray() | memoryview() as raw,)):
                return raw
            case ("bytearray", (str() as text, "latin1" | "latin-1")):
                self._spend(len(text))
                return _as_bytes(text) or b""
        return None

    def _construct_container(self, name: _Name, arguments: tuple[Any, ...]) -> object | None:
        """A set or a dictionary; None = it is neither."""
        match (name.kind, arguments):
            case ("set" | "frozenset", () | (list(),)):
                items = self._hashable(arguments[0]) if arguments else []
                return set(items) if name.kind == "set" else frozenset(items)
            case ("dict", ()) | ("defaultdict", (_Name(),)):
                return {}
            case ("dict", (list() as pairs,)):  # Python 2's OrderedDict
                result: dict[Any, Any] = {}
                for pair in pairs:
                    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                        raise _RefusedError("a dictionary is not made of pairs")
                    self._set_items(result, list(pair))
                return result
        return None

    def _dtype(self, code: str) -> _Dtype:
        if not _DTYPE_CODE.fullmatch(code):
            raise _RefusedError(
                f"an array's element type is {_shown(code)}; numbers, strings are read"
            )
        return _Dtype(code)

    def build(self) -> None:
        state = self._pop()
        target = self._pop()
        if isinstance(target, _Dtype):
            match state:
                case (3, "<" | ">" | "|" | "=" as order, None, None, None, int(), int(), int()):
                    target.order = order
                    self._push(target)
                    return
            raise _RefusedError(
                "an array's element type has fields or metadata; plain ones are read"
            )
        if isinstance(target, _PendingArray) and target.value is None:
            match state:
                case (0 | 1, tuple() as shape, _Dtype() as dtype, bool() | int() as fortran, raw):
                    order = "F" if fortran else "C"
                    sizes = _shape_of(shape)
                    if dtype.is_object:
                        target.value = self._object_array(raw, sizes, order)
                    else:
                        target.value = self._array(raw, dtype, sizes, order)
                    self._push_new(target.value)
                    return
            raise _RefusedError("an array's state is not shape, element type and bytes (damaged)")
        raise _RefusedError(f"it sets the state of a {type(target).__name__}")

    def _array(
        self, raw: object, dtype: _Dtype, shape: tuple[int, ...], order: str
    ) -> NDArray[Any]:
        """A view of ``raw``; the shape must take exactly the bytes that are there."""
        if dtype.is_object:
            raise _RefusedError("an object array is written as bytes")
        if isinstance(raw, str):
            self._spend(len(raw))
        data = _as_bytes(raw)
        if data is None:
            raise _RefusedError("an array's contents are not bytes")
        element = dtype.numpy()
        count = 1
        for size in shape:
            count *= size
        if element.itemsize == 0 or count * element.itemsize != len(data):
            raise _RefusedError(
                f"an array of shape {_shown(str(shape))} and element type {dtype.code} "
                f"does not fit its {len(data)} bytes"
            )
        flat = np.frombuffer(data, dtype=element)
        return flat.reshape(shape, order="F" if order == "F" else "C")

    def _object_array(self, raw: object, shape: tuple[int, ...], order: str) -> NDArray[Any]:
        count = 1
        for size in shape:
            count *= size
        if isinstance(raw, np.ndarray) and raw.ndim == 1:  # floats alone, see ``_float_list``
            self._spend(_FLOAT_OBJECT * len(raw))
            raw = raw.tolist()
        if not isinstance(raw, list) or len(raw) != count:
            raise _RefusedError("an object array's shape does not fit its elements")
        for kind in {type(value) for value in raw}:
            if kind is not np.ndarray and kind not in _PLAIN_ELEMENTS:
                raise _RefusedError(f"an object array holds a {kind.__name__}")
            # An object array within another would be freed by unbounded recursion.
            if kind is np.ndarray and any(
                type(value) is np.ndarray and value.dtype == object for value in raw
            ):
                raise _RefusedError("an object array holds an object array")
        self._spend(_POINTER * count)
        flat = np.fromiter(raw, dtype=object, count=count)
        return flat.reshape(shape, order="F" if order == "F" else "C")


def _flags(values: list[Any]) -> bool:
    """The copy and align flags that NumPy writes after an element type's code."""
    return len(values) <= 2 and all(isinstance(value, int) for value in values)


def _shown(text: str) -> str:
    """``text`` on one line, at most 80 printable characters."""
    line = "".join(c if c.isprintable() else "?" for c in text[:81])
    return line if len(line) <= 80 else f"{line[:77]}..."


_OPERATIONS: Final[dict[int, Callable[[_Interpreter], None]]] = {
    code[0]: operation
    for code, operation in (
        (b"\x80", _Interpreter.proto),
        (b"\x95", _Interpreter.frame),
        (b".", _Interpreter.stop),
        (b"(", _Interpreter.mark),
        (b"0", _Interpreter.pop),
        (b"1", _Interpreter.pop_mark),
        (b"2", _Interpreter.dup),
        (b"N", _Interpreter.none),
        (b"\x88", _Interpreter.true),
        (b"\x89", _Interpreter.false),
        (b"I", _Interpreter.integer_line),
        (b"L", _Interpreter.long_line),
        (b"F", _Interpreter.float_line),
        (b"K", _Interpreter.int1),
        (b"M", _Interpreter.int2),
        (b"J", _Interpreter.int4),
        (b"\x8a", _Interpreter.long1),
        (b"\x8b", _Interpreter.long4),
        (b"G", _Interpreter.float8),
        (b"S", _Interpreter.string_line),
        (b"U", _Interpreter.string1),
        (b"T", _Interpreter.string4),
        (b"V", _Interpreter.unicode_line),
        (b"\x8c", _Interpreter.unicode1),
        (b"X", _Interpreter.unicode4),
        (b"\x8d", _Interpreter.unicode8),
        (b"C", _Interpreter.bytes1),
        (b"B", _Interpreter.bytes4),
        (b"\x8e", _Interpreter.bytes8),
        (b"\x96", _Interpreter.bytes8),
        (b"]", _Interpreter.empty_list),
        (b")", _Interpreter.empty_tuple),
        (b"}", _Interpreter.empty_dict),
        (b"\x8f", _Interpreter.empty_set),
        (b"l", _Interpreter.list_from_mark),
        (b"t", _Interpreter.tuple_from_mark),
        (b"\x85", _Interpreter.tuple1),
        (b"\x86", _Interpreter.tuple2),
        (b"\x87", _Interpreter.tuple3),
        (b"d", _Interpreter.dict_from_mark),
        (b"\x91", _Interpreter.frozenset_from_mark),
        (b"a", _Interpreter.append),
        (b"e", _Interpreter.appends),
        (b"s", _Interpreter.set_item),
        (b"u", _Interpreter.set_items),
        (b"\x90", _Interpreter.add_items),
        (b"p", _Interpreter.put_line),
        (b"q", _Interpreter.put1),
        (b"r", _Interpreter.put4),
        (b"\x94", _Interpreter.memoize),
        (b"g", _Interpreter.get_line),
        (b"h", _Interpreter.get1),
        (b"j", _Interpreter.get4),
        (b"c", _Interpreter.global_line),
        (b"\x93", _Interpreter.global_stack),
        (b"R", _Interpreter.reduce),
        (b"b", _Interpreter.build),
        (b"i", _Interpreter.instance_line),
        (b"o", _Interpreter.make_object),
        (b"\x81", _Interpreter.make_object),
        (b"\x92", _Interpreter.make_object),
        (b"P", _Interpreter.persistent_line),
        (b"Q", _Interpreter.persistent),
        (b"\x82", _Interpreter.extension),
        (b"\x83", _Interpreter.extension),
        (b"\x84", _Interpreter.extension),
        (b"\x97", _Interpreter.out_of_band),
        (b"\x98", _Interpreter.out_of_band),
    )
}


def loads(data: bytes, *, name: str = "pickle") -> object:
    r"""The object that ``data`` describes; see ``load_pickle``.

    Example:
        >>> import pickle
        >>> loads(pickle.dumps({"text": ["good"], "label": (1.5, None)}))
        {'text': ['good'], 'label': (1.5, None)}
        >>> try:
        ...     loads(b"cos\nsystem\n(S'date'\ntR.", name="bad.pkl")
        ... except UserError as error:
        ...     print(str(error)[:41])
        bad.pkl is refused: it asks for os.system
    """
    return _interpret(memoryview(data), data.find, name)


def load_pickle(path: Path) -> object:
    """Read NumPy arrays and plain containers from a pickle of protocol 0 to 5, running nothing.

    Gives dict, list, tuple, set, frozenset, str, bytes, int, float, bool, None and read-only
    arrays of numbers, strings or objects. Long byte strings come as memoryviews of the
    mapped file, lists of 16 to 999 floats and nothing else as arrays in it. Strings that Python 2
    wrote are read as Latin-1.

    Raises:
        UserError: the file is missing, empty, truncated or damaged; it names a global other than
            those of arrays and containers; it would unpack to far more than its size; or more
            than padding follows its first object.
    """
    if path.is_dir():
        raise UserError(f"{path} is a directory, expected a pickle file")
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise UserError(f"{path} is an empty file, expected a pickle")
            mapped = remember(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return _interpret(memoryview(mapped), mapped.find, str(path))


def _interpret(data: memoryview, find: Callable[[bytes, int], int], name: str) -> object:
    # The collector would walk the growing object over and over; loading leaves nothing to collect.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        return _Interpreter(data, find).run()
    except _RefusedError as refused:
        kind = kind_of_file(bytes(data[:512]))
        # What asks for a name was written by a pickler, whatever its beginning looks like.
        if kind not in (None, PLAIN_TEXT) and not _ASKS_FOR_A_NAME.match(str(refused)):
            raise UserError(f"{name} is no pickle but {kind}") from None
        raise UserError(f"{name} is refused: {refused}") from None
    finally:
        if was_collecting:
            gc.enable()
