"""The arrays in a model file of CTranslate2, read one by one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError

_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2", 5: "<u2"}
_BFLOAT16 = 5
_VERSIONS = (4, 5, 6)
_MOST_VARIABLES, _MOST_DIMENSIONS = 100_000, 8


def read_arrays(path: Path, wanted: Callable[[str], bool]) -> dict[str, NDArray[np.float32]]:
    """Those arrays of a ``model.bin`` whose names are wanted, as float32.

    Arrays of 8-bit integers come multiplied out by the scales that stand beside them.

    Args:
        path: a file of CTranslate2's binary version 4 to 6: a version, the specification's name and
            revision, then for each variable name, rank, dimensions, type and bytes.
        wanted: is this name to be read? Others are skipped without reading.

    Raises:
        UserError: the file cannot be read, or is not such a file.
    """
    try:
        with path.open("rb") as file:
            arrays = _read(file, wanted, size=path.stat().st_size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no model of CTranslate2, or is damaged: {error}") from None
    return {
        name: _scaled(array, arrays.get(f"{name}_scale"))
        for name, array in arrays.items()
        if not name.endswith("_scale")
    }


def _read(
    file: BinaryIO, wanted: Callable[[str], bool], *, size: int
) -> dict[str, NDArray[np.generic]]:
    version = _number(file, "<I")
    if version not in _VERSIONS:
        raise ValueError(f"binary version must be one of {_VERSIONS}, got {version}")
    _string(file)
    _number(file, "<I")
    count = _number(file, "<I")
    if count > _MOST_VARIABLES:
        raise ValueError(f"it claims {count} variables")
    arrays: dict[str, NDArray[np.generic]] = {}
    for _ in range(count):
        name = _string(file)
        rank = _number(file, "<B")
        if rank > _MOST_DIMENSIONS:
            raise ValueError(f"{name} claims {rank} dimensions")
        shape = tuple(_number(file, "<I") for _ in range(rank))
        kind, num_bytes = _number(file, "<B"), _number(file, "<I")
        if num_bytes > size:
            raise ValueError(f"{name} claims {num_bytes} bytes, the file has {size}")
        if not wanted(name):
            file.seek(num_bytes, 1)
            continue
        if kind not in _TYPES:
            raise ValueError(f"{name} has the unknown type {kind}")
        content = file.read(num_bytes)
        values = np.frombuffer(content, _TYPES[kind]).reshape(shape)
        arrays[name] = _widened(values) if kind == _BFLOAT16 else values
    return arrays


def _number(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "<H")).rstrip(b"\0").decode("utf-8")


def _widened(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """bfloat16, read as its bits, as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _scaled(values: NDArray[np.generic], scale: NDArray[np.generic] | None) -> NDArray[np.float32]:
    """float32 of an array; 8-bit rows are divided by their scales."""
    result = np.asarray(values, np.float32)
    if scale is None:
        return result
    factor = np.asarray(scale, np.float32).reshape((-1,) + (1,) * (result.ndim - 1))
    return np.asarray(result / factor, np.float32)
