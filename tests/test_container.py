"""What the Containerfile does, run in fresh virtual environments: a server without torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Of python:3.12-slim, uncompressed, and what is left for it.
MOST_BYTES = 1.5e9
BASE_IMAGE_BYTES = 0.13e9
MEGABYTES = 1e6
BOUNDARY = "clip-ends-here"
SAID = "I loved it. The end was awful."


def test_what_is_left_out_is_what_trains() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "container" / "requirements.py")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in done.stdout.split("\n") if line}
    assert {"numpy", "av", "fastapi", "dbos", "onnxruntime", "tokenizers"} <= names
    assert not {"torch", "transformers", "lightning-fabric", "matplotlib", "pyarrow"} & names


def test_the_steps_of_the_containerfile_are_the_scripts() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    for script in re.findall(r"/source/(container/\w+\.sh)", text):
        assert os.access(ROOT / script, os.X_OK), script
    assert re.findall(r"container/\w+\.sh", text.partition("FROM")[2]) == [
        "container/make.sh",
        "container/install.sh",
    ]


def _environment(folder: Path) -> dict[str, str]:
    """A fresh environment's, first on the path."""
    venv.create(folder, with_pip=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def _run(script: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [str(ROOT / "container" / script), str(folder)],
        env=environment, capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _served(command: list[str], environment: dict[str, str], cwd: Path) -> Iterator[str]:
    with subprocess.Popen(
        command, env=environment, cwd=cwd, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def _form(clip: Path, text: str) -> bytes:
    """A clip and what is said in it, as a page sends them."""
    parts = []
    for name, content in (("text", text.encode()), ("file", clip.read_bytes())):
        named = f'; filename="{clip.name}"' if name == "file" else ""
        head = f'Content-Disposition: form-data; name="{name}"{named}'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.slow
def test_a_clip_is_analysed_by_what_the_container_holds(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    _run("make.sh", made, _environment(tmp_path / "with-torch"))
    environment = _environment(tmp_path / "without-torch")
    _run("install.sh", made, environment)
    size = sum(
        path.stat().st_size
        for folder in (tmp_path / "without-torch", made / "model")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    print(f"{size / MEGABYTES:.0f} MB beside the base image")
    assert size + BASE_IMAGE_BYTES < MOST_BYTES
    python = tmp_path / "without-torch" / "bin" / "python"
    absent = (
        "from importlib.util import find_spec\n"
        "print([name for name in ('torch', 'transformers') if find_spec(name)])"
    )
    there = subprocess.run([python, "-c", absent], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == "[]"
    # No network: the container sets the same.
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    command = [
        str(python.with_name("tecafn")), "serve", "--model", str(made / "model"),
        "--port", "0", "--folder", str(tmp_path / "data"),
    ]  # fmt: skip
    clip = tmp_path / "talk.webm"
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "demo_clip.py"), str(clip)], check=True, cwd=ROOT
    )
    with _served(command, offline, tmp_path) as address:
        request = urllib.request.Request(
            f"{address}/v1/jobs", data=_form(clip, SAID),
            headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
        )  # fmt: skip
        with urllib.request.urlopen(request) as answer:
            job = json.load(answer)["job_id"]
        ends = time.monotonic() + 300
        while time.monotonic() < ends:
            with urllib.request.urlopen(f"{address}/v1/jobs/{job}") as answer:
                state = json.load(answer)
            if state["state"] in ("COMPLETED", "FAILED"):
                break
            time.sleep(0.5)
        assert state["state"] == "COMPLETED", state
        with urllib.request.urlopen(f"{address}/v1/jobs/{job}/result?format=json") as answer:
            timeline = json.load(answer)
    scores = [one["score"] for one in timeline["utterances"]]
    # The clip is half a minute with pauses, by which its words are cut into utterances.
    words = [word["text"] for one in timeline["utterances"] for word in one["words"]]
    assert " ".join(words) == SAID
    assert scores[0] > 0 > scores[-1]
    assert all(one["low"] < one["score"] < one["high"] for one in timeline["utterances"])
