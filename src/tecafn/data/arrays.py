"""Reads arrays of npy and npz files without unpickling and without holding them in memory."""

from __future__ import annotations

import math
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.data.file_kinds import kind_of_path
from tecafn.data.mapped import map_array

# Padded features compress well, a bomb better still.
FREE_BYTES: Final = 64 * 2**20
BYTES_PER_COMPRESSED_BYTE: Final = 32
_PIECE: Final = 2**20


def open_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of numbers and strings in ``path``, memory-mapped.

    A member stored as it is (``numpy.savez``) is mapped where it lies; a compressed one
    (``numpy.savez_compressed``) is unpacked to an unnamed temporary file first.

    Raises:
        UserError: the file is missing or no npz, a member is damaged, holds Python objects, or
            unpacks to far more than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            packed = sum(member.compress_size for member in members)
            if sum(m.file_size for m in members) > FREE_BYTES + BYTES_PER_COMPRESSED_BYTE * packed:
                raise UserError(
                    f"{path} is refused: it unpacks to far more than its size explains; if it is "
                    "yours, write it with numpy.savez, uncompressed"
                )
            return {
                member.filename.removesuffix(".npy"): _member(path, archive, member)
                for member in members
            }
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        kind = kind_of_path(path)
        reason = _one_line(error) if kind is None or "zip" in kind.split(" (")[0] else kind
        raise UserError(f"{path} is not an npz file: {reason}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or _one_line(error)}") from None


def open_npy(path: Path) -> NDArray[Any]:
    """The array of numbers or strings in ``path``, memory-mapped.

    Raises:
        UserError: the file is missing, no npy, damaged, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype, header = _header(file, str(path))
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or _one_line(error)}") from None
    count = math.prod(shape)
    if dtype.itemsize == 0 or header + count * dtype.itemsize != size:
        raise UserError(f"{path} announces shape {shape} of {dtype}, but has {size - header} bytes")
    order: Any = "F" if fortran else "C"
    if count == 0:
        return np.empty(shape, dtype, order)
    return map_array(path, dtype, offset=header, shape=shape, order=order)


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        shape, fortran, dtype, header = _header(file, f"{path}: {member.filename}")
        count = math.prod(shape)
        if dtype.itemsize == 0 or header + count * dtype.itemsize != member.file_size:
            raise UserError(
                f"{path}: {member.filename} announces shape {shape} of {dtype}, "
                f"but has {member.file_size - header} bytes"
            )
        order: Any = "F" if fortran else "C"
        if count == 0:
            return np.empty(shape, dtype, order)
        if member.compress_type == zipfile.ZIP_STORED:
            offset = _data_offset(path, member) + header
            return map_array(path, dtype, offset=offset, shape=shape, order=order)
        with tempfile.TemporaryFile() as unpacked:
            while piece := file.read(_PIECE):
                unpacked.write(piece)
            unpacked.flush()
            return map_array(unpacked, dtype, offset=0, shape=shape, order=order)


def _header(file: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, element type of an npy member, and the number of bytes before its data."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
    except Exception as error:  # the header is a Python literal: its errors are of many kinds
        raise UserError(f"{what} is not a NumPy array: {_one_line(error)}") from None
    if dtype.kind not in "biufUS" or not all(0 <= size < 2**48 for size in shape):
        raise UserError(f"{what} holds {_one_line(dtype)}; numbers and strings are read")
    return shape, fortran, dtype, file.tell()


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its local header, whose two lengths vary."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("a member's local header is damaged")
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    return int(member.header_offset) + 30 + int(name_length) + int(extra_length)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:120]
