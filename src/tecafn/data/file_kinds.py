"""What a file is by its first bytes, for the message when it is not what its name promises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

PLAIN_TEXT: Final = "text"
_HEAD: Final = 512

_AS_NPZ: Final = "put its arrays into an .npz beside a label.csv, by the clips' ids"
_AS_TABLE: Final = "write its rows as a table, label.csv"
# How files of each kind begin, and what to do with one.
_SIGNATURES: Final[tuple[tuple[bytes, str], ...]] = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer: fetch the file itself with `git annex get`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (.h5, .csd, .mat of MATLAB 7.3)"),
    (b"MATLAB 5.0 MAT-file", f"a MATLAB file: {_AS_NPZ}"),
    (b"\x93NUMPY", f"a NumPy array (.npy): {_AS_NPZ}"),
    (
        b"PK\x03\x04",
        "a zip archive (.zip, .npz, .xlsx, or PyTorch's .pt): unpack a .zip, save a spreadsheet as "
        "CSV, and name the label.csv of an .npz",
    ),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "packed with gzip: unpack it first"),
    (b"BZh", "packed with bzip2: unpack it first"),
    (b"\xfd7zXZ\x00", "packed with xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"PAR1", f"a Parquet file: {_AS_TABLE}"),
    (b"ARROW1", f"an Arrow file: {_AS_TABLE}"),
    (b"SQLite format 3", f"an SQLite database: {_AS_TABLE}"),
    (b"%PDF-", "a PDF"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"RIFF", "a sound or video file (RIFF)"),
    (b"\x00\x05\x16\x07", "what macOS keeps beside a file (AppleDouble), not the file"),
    (b"\xd0\xcf\x11\xe0", "a document of an old Office program"),
)
_POINTERS: Final = re.compile(rb"\s*(outs|md5|deps):", re.IGNORECASE)
_PAGE: Final = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|!--|title|script)", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[,;\t|]")


def kind_of_file(head: bytes) -> str | None:
    r"""What a file that begins so is, in words; None where its beginning does not say.

    Args:
        head: the file's first bytes, 512 or so.

    Example:
        >>> kind_of_file(b"<!DOCTYPE html><html>")
        'a web page (HTML): the download brought a page in place of the file'
        >>> kind_of_file(b"video_id,clip_id,text\na,1,fine\n")
        'a table of text (CSV)'
        >>> kind_of_file(b"\x80\x04\x95") is None
        True
    """
    head = head[:_HEAD]
    bare = head.removeprefix(b"\xef\xbb\xbf")
    for beginning, kind in _SIGNATURES:
        if bare.startswith(beginning):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if head and not head.strip(b"\0"):
        return "nothing but zero bytes: a download that was cut short"
    if _PAGE.match(bare):
        return "a web page (HTML): the download brought a page in place of the file"
    if _POINTERS.match(bare):
        return "a DVC pointer: fetch the file itself with `dvc pull`"
    return _kind_of_text(bare, is_whole=len(head) < _HEAD)


def _kind_of_text(head: bytes, *, is_whole: bool) -> str | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16"
    try:
        # The last character may be cut in the middle.
        text = head.decode("utf-8", "strict" if is_whole else "ignore")
    except UnicodeDecodeError:
        return None
    if not text.strip() or any(not (c.isprintable() or c in "\r\n\t") for c in text):
        return None
    start = text.lstrip()
    if start[0] in "{[":
        return f"JSON: {_AS_TABLE}" if not is_whole or _is_json(start) else PLAIN_TEXT
    first, _, rest = start.partition("\n")
    if len(_SEPARATORS.findall(first)) >= 1 and " " not in _SEPARATORS.split(first)[0].strip():
        return "a table of text (CSV)" if rest.strip() else PLAIN_TEXT
    return PLAIN_TEXT


def _is_json(text: str) -> bool:
    for part in (text, text.splitlines()[0]):
        try:
            json.loads(part)
        except ValueError:
            continue
        return True
    return False


def kind_of_path(path: Path) -> str | None:
    """``kind_of_file`` of a file on disk; None also where it cannot be read.

    Example:
        >>> kind_of_path(Path("no such file")) is None
        True
    """
    try:
        with path.open("rb") as file:
            return kind_of_file(file.read(_HEAD))
    except OSError:
        return None
