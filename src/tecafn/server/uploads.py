"""A multipart form that is written to disk as it comes, and refused as soon as it goes too far."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import IO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tecafn.extract.words.written import TRANSCRIPTS
from tecafn.server.refusing import Refused
from tecafn.server.settings import ServerSettings
from tecafn.server.spool import JobFolder, Upload

TEXT: Final = ".txt"
FIELDS: Final = ("file", "text", "transcript", "face")
_MOST_PARTS: Final = 8
_MOST_TEXT: Final = 1_000_000
_LONGEST_LABEL: Final = 120


def label_of(filename: str) -> str:
    r"""What a clip is called where it is shown: a name without folders and control characters.

    Example:
        >>> label_of("../../etc/pass\x00wd.mp4")
        'passwd.mp4'
        >>> label_of("..\\clips\\a.mp4")
        'a.mp4'
        >>> label_of("..")
        'clip'
    """
    name = PurePosixPath(filename.replace("\\", "/")).name
    # Also characters that change the direction of what stands after them.
    shown = "".join(c for c in name if unicodedata.category(c)[0] not in "CZ" or c == " ")
    return shown.strip(" .")[:_LONGEST_LABEL] or "clip"


async def receive_form(
    body: AsyncIterator[bytes], content_type: str, job: JobFolder, settings: ServerSettings
) -> Upload:
    """Write what is sent to the job's folder.

    Args:
        body: as it comes.
        content_type: of the request.
        job: a folder that is no job yet.
        settings: with the limits.

    Raises:
        Refused: it is no such form, or too large, or lacks the clip.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(415, "send the clip as multipart/form-data, in a field called file")
    form = _Form(job, settings)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in body:
            # Disks can be slow; others are not to wait for them.
            await to_thread(parser.write, chunk)
        return await to_thread(form.upload)
    except FormParserError:
        raise Refused(400, "the form is damaged: it is no multipart/form-data") from None
    finally:
        form.close()


class _Form:
    """Takes a form's parts: files go to disk, texts into memory."""

    def __init__(self, job: JobFolder, settings: ServerSettings) -> None:
        self._job = job
        self._settings = settings
        self._sha256 = hashlib.sha256()
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._file: IO[bytes] | None = None
        self._size = 0
        self._num_parts = 0
        self._texts: dict[str, bytearray] = {}
        self._seen: dict[str, int] = {}
        self._label = "clip"
        self._transcript = ""
        self._is_whole = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._take,
            "on_part_end": self.close,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > _MOST_PARTS:
            raise Refused(422, f"the form must have {_MOST_PARTS} fields or fewer")
        self._disposition = b""
        self._size = 0

    def _end_header(self) -> None:
        field, value = (bytes(part) for part in self._header)
        if field.lower() == b"content-disposition":
            self._disposition = value
        for part in self._header:
            part.clear()

    def _open(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or name not in FIELDS:
            raise Refused(422, f"unknown field; there are {', '.join(FIELDS)}")
        if name in self._seen:
            raise Refused(422, f"the field {name} is there twice")
        self._name = name
        self._seen[name] = 0
        filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._sha256.update(f"\0{name}\0".encode())
        if name == "file":
            self._label = label_of(filename)
            self._file = self._job.clip.open("xb")
        elif name == "transcript":
            self._transcript = _transcript_ending(filename)
            self._file = (self._job.path / f"transcript{self._transcript}").open("xb")
        else:
            self._texts[name] = bytearray()

    def _take(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        self._size += len(piece)
        self._seen[self._name] = self._size
        is_clip = self._name == "file"
        limit = self._settings.max_bytes if is_clip else _MOST_TEXT
        if self._size > limit:
            raise Refused(413, f"{self._name} is larger than {limit / 1e6:g} MB")
        self._sha256.update(piece)
        if self._file is not None:
            self._file.write(piece)
        else:
            self._texts[self._name].extend(piece)

    def _finish(self) -> None:
        self._is_whole = True

    def close(self) -> None:
        """The part has ended, or the whole request."""
        if self._file is not None:
            with suppress(OSError):
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def upload(self) -> Upload:
        """What was sent.

        Raises:
            Refused: it is not whole, or not enough, or says something that cannot be.
        """
        if not self._is_whole:
            raise Refused(400, "the form ends before its last boundary")
        if not self._seen.get("file"):
            raise Refused(422, "the form has no clip: send one in a field called file")
        try:
            texts = {name: bytes(value).decode().strip() for name, value in self._texts.items()}
        except UnicodeDecodeError:
            raise Refused(422, "text must be UTF-8") from None
        if texts.get("text") and self._transcript:
            raise Refused(422, "what is said is given twice: as a text and as a transcript")
        face = texts.get("face") or None
        if face is not None and not re.fullmatch(r"left|right|\d{1,6}", face, re.ASCII):
            raise Refused(422, "face must be left, right or a track's number")
        text = texts.get("text", "")
        if text:
            self._transcript = TEXT
            (self._job.path / f"transcript{TEXT}").write_text(text, encoding="utf-8")
        return Upload(
            label=self._label,
            size=self._seen["file"],
            sha256=self._sha256.hexdigest(),
            transcript=self._transcript,
            face=face,
        )


def _transcript_ending(filename: str) -> str:
    """One of ours, never the request's own characters."""
    for ending in TRANSCRIPTS:
        if filename.lower().endswith(ending):
            return ending
    raise Refused(422, f"the transcript's name must end in one of {', '.join(TRANSCRIPTS)}")
