"""A run on the Hugging Face hub: its network, its tokenizer and a card made from its record."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from tecafn.core.errors import UserError
from tecafn.records.record import file_hash, read_record
from tecafn.report.card import model_card
from tecafn.serving.predictor import EXPORT_FOLDER, SHARED_FILES, load_export, refuse_executable

CARD_FILE = "README.md"


def card_of(run: Path, *, licence: str | None = None) -> str:
    """The card of a run as Markdown.

    Raises:
        UserError: no such run.
    """
    return model_card(read_record(run), record_hash=file_hash(run / "record.json"), licence=licence)


def collect(run: Path, folder: Path, *, licence: str | None = None) -> list[str]:
    """Copy what is shared of a run into an empty folder; the files' names.

    The record itself stays: its config may name folders of your machine.

    Raises:
        UserError: no such run, it has no network, or its files do not load.
    """
    source = run / EXPORT_FOLDER
    card = card_of(run, licence=licence)
    if not source.is_dir():
        raise UserError(f"{run} has no network in {EXPORT_FOLDER}/ to share")
    refuse_executable(source)
    load_export(source)  # what does not load here loads nowhere
    for pattern in SHARED_FILES:
        for path in sorted(source.glob(pattern)):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def push_to_hub(
    run: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    licence: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Put a run's network on the Hugging Face hub; ``tecafn.push_to_hub``.

    Args:
        run: a run's directory.
        repo_id: ``user/name``; made if it is not there.
        private: of a repository that is made.
        licence: of the weights, by the hub's short names (``apache-2.0``, ``cc-by-nc-4.0``); the
            card says where none is stated.
        token: as ``huggingface_hub`` takes it; None = the one you are logged in with.

    Returns:
        The commit, which ``tecafn.load(repo_id, revision=...)`` pins.

    Raises:
        UserError: no such run, or the hub refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        collect(Path(run), Path(folder), licence=licence)
        api = HfApi(token=token)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            info = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message="A run of tecafn"
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{repo_id} could not be written on the hub: {reason}") from None
    return str(info.oid)
