"""What is seen and heard in a clip, read in a process of its own that never loads torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tecafn.core.errors import UserError
from tecafn.extract.clip import ClipSettings, extract_clip
from tecafn.extract.clip_features import ClipFeatures
from tecafn.extract.clip_files import transcript_of
from tecafn.extract.guard import Limits, Tell, call_guarded

FEATURES_FILE: Final = "features-{key}.zip"


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """A clip to analyse.

    Args:
        path: the clip.
        out: the folder for the page and the tables.
        settings: as the model wants clips to be read, see ``SentimentModel.settings``.
        transcript: what is said in it; None = a file of the clip's name beside it, or recognised.
    """

    path: Path
    out: Path
    settings: ClipSettings
    transcript: Path | None = None

    @property
    def written_words(self) -> Path | None:
        """The transcript that is read, if one is."""
        return self.transcript or transcript_of(self.path)

    def made_from(self) -> dict[str, str]:
        """Hashes of all that decides what is found in it, by what they are of.

        Raises:
            UserError: a file cannot be read, or a model is not installed.
        """
        try:
            with self.path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from None
        return {"clip": content, "features": self.settings.identity("", self.written_words)}

    @property
    def features_file(self) -> Path:
        """Where its features are kept.

        Raises:
            UserError: see ``made_from``.
        """
        key = hashlib.sha256("".join(self.made_from().values()).encode()).hexdigest()[:16]
        return self.out / FEATURES_FILE.format(key=key)


def read_features(
    job: ClipJob, *, limits: Limits | None = None, tell: Tell | None = None
) -> ClipFeatures:
    """What is seen and heard in a clip; kept in the folder, so that another model need not look.

    Raises:
        UserError: see ``extract_clip``.
    """
    kept = job.features_file
    if not kept.exists():
        call_guarded(read_to, (job, kept), limits=limits, progress=tell)
    return ClipFeatures.load(kept)


def read_to(task: tuple[ClipJob, Path], tell: Tell) -> None:
    """Read a clip and keep what is found in a file, in place of what was kept before."""
    job, kept = task
    features = extract_clip(job.path, job.settings, transcript=job.written_words, tell=tell)
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        for old in job.out.glob(FEATURES_FILE.format(key="*")):
            old.unlink()
    except OSError as error:
        raise UserError(f"cannot write {job.out}: {error.strerror or error}") from None
    features.save(kept)
